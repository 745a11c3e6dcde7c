//! A client of HTTP as small as can be: one question, one answer, and the end.

use std::io::{Read, Write};

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a header field.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Asks for something over a connection.
pub(crate) fn get(connection: impl Read + Write, path: &str) -> Answer {
    get_as(connection, path, "application/openmetrics-text, */*")
}

/// Gets it in one of the formats that the client accepts.
pub(crate) fn get_as(connection: impl Read + Write, path: &str, accept: &str) -> Answer {
    ask(connection, &format!("GET {path} HTTP/1.0\r\nHost: adit\r\nAccept: {accept}\r\n\r\n"))
}

/// Asks for something to be done.
pub(crate) fn post(connection: impl Read + Write, path: &str, body: &serde_json::Value) -> Answer {
    let body = body.to_string();
    let length = body.len();
    let head = "Host: adit\r\nContent-Type: application/json";
    ask(connection, &format!("POST {path} HTTP/1.0\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}"))
}

fn ask(mut connection: impl Read + Write, request: &str) -> Answer {
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { code, head: head.to_owned(), body: body.to_owned() }
}
