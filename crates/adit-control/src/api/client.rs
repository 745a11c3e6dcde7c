//! Asking a running daemon over its socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use adit_config::Config;
use serde::de::DeserializeOwned;

use crate::api::apply::{Applied, ApplyRequest, CHANGE_TIMEOUT};
use crate::api::drops::Drops;
use crate::api::endpoint::Endpoint;
use crate::api::error::ErrorBody;
use crate::error::ControlError;
use crate::state::events::Event;
use crate::state::paths::RuntimePaths;
use crate::state::status::Status;

/// A daemon that does not answer within this is not answering.
const PATIENCE: Duration = Duration::from_secs(5);
/// One that is followed says every 15 seconds at least that it lives.
const PATIENCE_OF_FOLLOWERS: Duration = Duration::from_secs(45);

/// The status of the overlay.
///
/// # Errors
/// Nobody answers, or not with a status.
pub fn status(paths: &RuntimePaths) -> Result<Status, ControlError> {
    decoded(paths, &ask(paths, Endpoint::Status, "", PATIENCE)?)
}

/// What the overlay drops, and why.
///
/// # Errors
/// Nobody answers, or not with that.
pub fn drops(paths: &RuntimePaths) -> Result<Drops, ControlError> {
    decoded(paths, &ask(paths, Endpoint::Drops, "", PATIENCE)?)
}

/// What runs; `None`: nothing does.
///
/// # Errors
/// Something answers that is no daemon of ours.
pub fn running_config(paths: &RuntimePaths) -> Result<Option<Config>, ControlError> {
    match ask(paths, Endpoint::Config, "", PATIENCE) {
        Ok(text) => {
            Config::parse("what runs", &text).map(Some).map_err(|problems| bad(paths, problems.to_string()))
        }
        Err(ControlError::NotRunning { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Has a running overlay become what a file says.
///
/// # Errors
/// Nobody answers, or the daemon refuses: nothing has changed then.
pub fn apply(paths: &RuntimePaths, request: &ApplyRequest) -> Result<Applied, ControlError> {
    let body = serde_json::to_string(request).map_err(|error| bad(paths, error.to_string()))?;
    decoded(paths, &ask(paths, Endpoint::Apply, &body, CHANGE_TIMEOUT)?)
}

/// Keeps what waits to be confirmed; whether anything did.
///
/// # Errors
/// Nobody answers.
pub fn confirm(paths: &RuntimePaths) -> Result<bool, ControlError> {
    decoded(paths, &ask(paths, Endpoint::Confirm, "", CHANGE_TIMEOUT)?)
}

/// What happens from now on, as it happens.
///
/// # Errors
/// Nobody answers, or not with events.
pub fn follow(paths: &RuntimePaths) -> Result<Events, ControlError> {
    let mut answer = request(paths, Endpoint::Events, "", PATIENCE)?;
    answer.head()?;
    let patience = answer.reader.get_ref().set_read_timeout(Some(PATIENCE_OF_FOLLOWERS));
    patience.map_err(|error| answer.bad(error.to_string()))?;
    Ok(Events(answer))
}

/// What is told by a daemon that is followed, until it ends.
pub struct Events(Answer);

impl Iterator for Events {
    type Item = Result<Event, ControlError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut line = String::new();
            match self.0.reader.read_line(&mut line) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some(Err(self.0.bad(error.to_string()))),
            }
            // What else there is are comments, and empty lines between events.
            if let Some(data) = line.strip_prefix("data: ") {
                return Some(serde_json::from_str(data).map_err(|error| self.0.bad(error.to_string())));
            }
        }
    }
}

fn decoded<T: DeserializeOwned>(paths: &RuntimePaths, body: &str) -> Result<T, ControlError> {
    serde_json::from_str(body).map_err(|error| bad(paths, error.to_string()))
}

fn bad(paths: &RuntimePaths, detail: String) -> ControlError {
    ControlError::BadAnswer { socket: paths.socket(), detail }
}

/// One request, and the body of its answer.
fn ask(
    paths: &RuntimePaths,
    endpoint: Endpoint,
    body: &str,
    patience: Duration,
) -> Result<String, ControlError> {
    let mut answer = request(paths, endpoint, body, patience)?;
    answer.head()?;
    answer.rest()
}

fn request(
    paths: &RuntimePaths,
    endpoint: Endpoint,
    body: &str,
    patience: Duration,
) -> Result<Answer, ControlError> {
    let socket = paths.socket();
    let mut stream = match UnixStream::connect(&socket) {
        Ok(stream) => stream,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(ControlError::file("connect to", socket, error));
        }
        Err(_) => return Err(ControlError::NotRunning { name: paths.name().to_owned(), socket }),
    };
    // HTTP/1.0: the answer ends with the connection, and is never chunked.
    let head = format!(
        "{} {} HTTP/1.0\r\nHost: adit\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        if endpoint.is_change() { "POST" } else { "GET" },
        endpoint.path(),
        body.len()
    );
    let exchange = |stream: &mut UnixStream| {
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())
    };
    let sent = exchange(&mut stream);
    let answer = Answer { reader: BufReader::new(stream), paths: paths.clone() };
    sent.map_err(|error| answer.bad(error.to_string()))?;
    Ok(answer)
}

/// An answer that is being read.
struct Answer {
    reader: BufReader<UnixStream>,
    paths: RuntimePaths,
}

impl Answer {
    /// Reads the head; a refusal is an error.
    fn head(&mut self) -> Result<(), ControlError> {
        let first = self.line()?;
        while !self.line()?.is_empty() {}
        match first.split(' ').nth(1) {
            Some("200") => Ok(()),
            Some(code) => match (code, serde_json::from_str::<ErrorBody>(&self.rest()?)) {
                ("422", Ok(refusal)) => Err(ControlError::Refused(refusal.error)),
                (_, Ok(refusal)) => Err(self.bad(refusal.error)),
                (_, Err(_)) => Err(self.bad(first)),
            },
            None => Err(self.bad("no HTTP answer".to_owned())),
        }
    }

    fn line(&mut self) -> Result<String, ControlError> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => Err(self.bad("no HTTP answer".to_owned())),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(error) => Err(self.bad(error.to_string())),
        }
    }

    fn rest(&mut self) -> Result<String, ControlError> {
        let mut rest = String::new();
        match self.reader.read_to_string(&mut rest) {
            Ok(_) => Ok(rest),
            Err(error) => Err(self.bad(error.to_string())),
        }
    }

    fn bad(&self, detail: String) -> ControlError {
        bad(&self.paths, detail)
    }
}
