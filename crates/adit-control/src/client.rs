//! Asking a running daemon over its socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use adit_config::Config;
use serde::de::DeserializeOwned;

use crate::error::ControlError;
use crate::places::Places;
use crate::service::{Applied, ApplyRequest};
use crate::status::Status;

/// A daemon that does not answer within this is not answering.
const PATIENCE: Duration = Duration::from_secs(5);
/// To load a large overlay takes some seconds.
const PATIENCE_TO_APPLY: Duration = Duration::from_secs(120);

/// The status of the overlay.
///
/// # Errors
/// Nobody answers, or not with a status.
pub fn status(places: &Places) -> Result<Status, ControlError> {
    decoded(places, &ask(places, "GET /v1/status", "", PATIENCE)?)
}

/// What runs; `None`: nothing does.
///
/// # Errors
/// Something answers that is no daemon of ours.
pub fn running_config(places: &Places) -> Result<Option<Config>, ControlError> {
    match ask(places, "GET /v1/config", "", PATIENCE) {
        Ok(text) => {
            Config::parse("what runs", &text).map(Some).map_err(|problems| bad(places, problems.to_string()))
        }
        Err(ControlError::NotRunning { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Has a running overlay become what a file says.
///
/// # Errors
/// Nobody answers, or the daemon refuses: nothing has changed then.
pub fn apply(places: &Places, request: &ApplyRequest) -> Result<Applied, ControlError> {
    let body = serde_json::to_string(request).map_err(|error| bad(places, error.to_string()))?;
    decoded(places, &ask(places, "POST /v1/apply", &body, PATIENCE_TO_APPLY)?)
}

/// Keeps what waits to be confirmed; whether anything did.
///
/// # Errors
/// Nobody answers.
pub fn confirm(places: &Places) -> Result<bool, ControlError> {
    decoded(places, &ask(places, "POST /v1/confirm", "", PATIENCE)?)
}

fn bad(places: &Places, detail: String) -> ControlError {
    ControlError::BadAnswer { socket: places.socket(), detail }
}

fn decoded<T: DeserializeOwned>(places: &Places, body: &str) -> Result<T, ControlError> {
    serde_json::from_str(body).map_err(|error| bad(places, error.to_string()))
}

/// One request, and the body of its answer.
fn ask(places: &Places, request: &str, body: &str, patience: Duration) -> Result<String, ControlError> {
    let socket = places.socket();
    let mut stream = match UnixStream::connect(&socket) {
        Ok(stream) => stream,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(ControlError::file("connect to", socket, error));
        }
        Err(_) => return Err(ControlError::NotRunning { name: places.name().to_owned(), socket }),
    };
    // HTTP/1.0: the answer ends with the connection, and is never chunked.
    let head = format!(
        "{request} HTTP/1.0\r\nHost: adit\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let exchange = |stream: &mut UnixStream| {
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    let answer = exchange(&mut stream).map_err(|error| bad(places, error.to_string()))?;
    let (head, body) =
        answer.split_once("\r\n\r\n").ok_or_else(|| bad(places, "no HTTP answer".to_owned()))?;
    let line = head.lines().next().unwrap_or_default();
    match line.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        Some("422") => Err(ControlError::Refused(body.to_owned())),
        _ => Err(bad(places, line.to_owned())),
    }
}
