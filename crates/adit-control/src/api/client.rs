//! The client of a running daemon's API.
//!
//! It blocks, and speaks just enough HTTP/1.0: one request for each connection.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use adit_config::{Config, UnderlayAddresses};
use serde::de::DeserializeOwned;

use crate::api::apply::{Applied, ApplyRequest, CHANGE_TIMEOUT};
use crate::api::drops::Drops;
use crate::api::endpoint::Endpoint;
use crate::api::error::ErrorBody;
use crate::error::ControlError;
use crate::overlay::RunningOverlay;
use crate::state::events::Event;
use crate::state::paths::RuntimePaths;
use crate::state::status::Status;

/// How long a daemon may take to answer a question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a stream of events may be silent: the daemon sends something every 15 seconds.
const STREAM_TIMEOUT: Duration = Duration::from_secs(45);

/// The status of the overlay.
///
/// # Errors
/// Fails if no daemon answers, or the answer is no status.
pub fn status(paths: &RuntimePaths) -> Result<Status, ControlError> {
    decoded(paths, &ask(paths, Endpoint::Status, "", ANSWER_TIMEOUT)?)
}

/// What the overlay drops, and why.
///
/// # Errors
/// Fails if no daemon answers, or the answer is something else.
pub fn drops(paths: &RuntimePaths) -> Result<Drops, ControlError> {
    decoded(paths, &ask(paths, Endpoint::Drops, "", ANSWER_TIMEOUT)?)
}

/// The running configuration; `None` if no daemon answers.
///
/// # Errors
/// Fails if the answer is no configuration.
pub fn running_config(paths: &RuntimePaths) -> Result<Option<Config>, ControlError> {
    match ask(paths, Endpoint::Config, "", ANSWER_TIMEOUT) {
        Ok(text) => {
            Config::parse("what runs", &text).map(Some).map_err(|problems| bad(paths, problems.to_string()))
        }
        Err(ControlError::NotRunning { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns what a plan has to know of a running overlay; `None`: no daemon answers.
///
/// # Errors
/// Fails if the answer cannot be read.
pub fn running_overlay(paths: &RuntimePaths) -> Result<Option<RunningOverlay>, ControlError> {
    let Some(config) = running_config(paths)? else { return Ok(None) };
    let site = status(paths)?.site;
    // A daemon of an earlier version lists none.
    let listed = if site.underlays.is_empty() { vec![site.underlay] } else { site.underlays };
    let addresses = listed.iter().filter_map(|address| address.parse().ok());
    let wrong = |_| bad(paths, format!("{} are no underlay addresses", listed.join(", ")));
    let underlay = UnderlayAddresses::new(addresses).map_err(wrong)?;
    Ok(Some(RunningOverlay { config, underlay, mtu: site.mtu }))
}

/// Applies a file to a running overlay. Returns when the change has been made.
///
/// # Errors
/// Fails if no daemon answers, or the change fails; nothing has changed then.
pub fn apply(paths: &RuntimePaths, request: &ApplyRequest) -> Result<Applied, ControlError> {
    let body = serde_json::to_string(request).map_err(|error| bad(paths, error.to_string()))?;
    decoded(paths, &ask(paths, Endpoint::Apply, &body, CHANGE_TIMEOUT)?)
}

/// Lets a running overlay apply the file again that it was started with.
///
/// # Errors
/// Fails if no daemon answers, or the file cannot be read or applied; nothing has changed then.
pub fn reload(paths: &RuntimePaths) -> Result<Applied, ControlError> {
    decoded(paths, &ask(paths, Endpoint::Reload, "", CHANGE_TIMEOUT)?)
}

/// Keeps a change that waits to be confirmed. Returns whether there was one.
///
/// # Errors
/// Fails if no daemon answers.
pub fn confirm(paths: &RuntimePaths) -> Result<bool, ControlError> {
    decoded(paths, &ask(paths, Endpoint::Confirm, "", CHANGE_TIMEOUT)?)
}

/// The events from now on, as they happen.
///
/// # Errors
/// Fails if no daemon answers, or the answer is no stream of events.
pub fn follow(paths: &RuntimePaths) -> Result<Events, ControlError> {
    let mut answer = request(paths, Endpoint::Events, "", ANSWER_TIMEOUT)?;
    answer.head()?;
    let set = answer.reader.get_ref().set_read_timeout(Some(STREAM_TIMEOUT));
    set.map_err(|error| answer.bad(error.to_string()))?;
    Ok(Events(answer))
}

/// The events of a daemon, until it ends.
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
            // The other lines are numbers, comments, and the empty lines between events.
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

/// Sends one request. Returns the body of its answer.
fn ask(
    paths: &RuntimePaths,
    endpoint: Endpoint,
    body: &str,
    timeout: Duration,
) -> Result<String, ControlError> {
    let mut answer = request(paths, endpoint, body, timeout)?;
    answer.head()?;
    answer.rest()
}

fn request(
    paths: &RuntimePaths,
    endpoint: Endpoint,
    body: &str,
    timeout: Duration,
) -> Result<Answer, ControlError> {
    let socket = paths.socket();
    let mut stream = match UnixStream::connect(&socket) {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
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
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())
    };
    let sent = match exchange(&mut stream) {
        // A server that refuses a request need not have read all of it. Its answer says why.
        Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => Ok(()),
        sent => sent,
    };
    let answer = Answer { reader: BufReader::new(stream), paths: paths.clone() };
    sent.map_err(|error| answer.bad(error.to_string()))?;
    Ok(answer)
}

/// An answer of which a part has been read.
struct Answer {
    reader: BufReader<UnixStream>,
    paths: RuntimePaths,
}

impl Answer {
    /// Reads the head.
    ///
    /// # Errors
    /// Fails if the daemon answers with an error.
    fn head(&mut self) -> Result<(), ControlError> {
        let first = self.line()?;
        while !self.line()?.is_empty() {}
        match first.split(' ').nth(1) {
            Some("200") => Ok(()),
            Some(code) => match (code, serde_json::from_str::<ErrorBody>(&self.rest()?)) {
                ("422", Ok(body)) => Err(ControlError::Refused(body.error)),
                (_, Ok(body)) => Err(self.bad(body.error)),
                (_, Err(_)) => Err(self.bad(first)),
            },
            None => Err(self.bad("it is not an HTTP answer".to_owned())),
        }
    }

    fn line(&mut self) -> Result<String, ControlError> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => Err(self.bad("it is not an HTTP answer".to_owned())),
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
