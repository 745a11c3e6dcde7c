//! Asking a running daemon over its socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::error::ControlError;
use crate::places::Places;
use crate::status::Status;

/// A daemon that does not answer within this is not answering.
const PATIENCE: Duration = Duration::from_secs(5);

/// The status of the overlay.
///
/// # Errors
/// Nobody answers, or not with a status.
pub fn status(places: &Places) -> Result<Status, ControlError> {
    let socket = places.socket();
    let bad = |detail: String| ControlError::BadAnswer { socket: places.socket(), detail };
    let mut stream = match UnixStream::connect(&socket) {
        Ok(stream) => stream,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(ControlError::file("connect to", socket, error));
        }
        Err(_) => return Err(ControlError::NotRunning { name: places.name().to_owned(), socket }),
    };
    // HTTP/1.0: the answer ends with the connection, and is never chunked.
    let exchange = |stream: &mut UnixStream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /v1/status HTTP/1.0\r\nHost: adit\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    let answer = exchange(&mut stream).map_err(|error| bad(error.to_string()))?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| bad("no HTTP answer".to_owned()))?;
    let line = head.lines().next().unwrap_or_default();
    if line.split(' ').nth(1) != Some("200") {
        return Err(bad(line.to_owned()));
    }
    serde_json::from_str(body).map_err(|error| bad(error.to_string()))
}
