//! What the kernel has logged: Linux's ipip tells of odd ECN fields there, and nowhere else.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::OFlag;

use crate::error::Error;

/// How many records of the kernel's log contain `text`.
pub(crate) fn lines_with(text: &str) -> Result<u64, Error> {
    // The longest record that the kernel gives.
    const RECORD: usize = 8192;
    let mut log = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open("/dev/kmsg")
        .map_err(Error::io("open /dev/kmsg"))?;
    let (mut record, mut found) = (vec![0; RECORD], 0);
    loop {
        match log.read(&mut record) {
            Ok(0) => return Ok(found),
            Ok(len) => found += u64::from(String::from_utf8_lossy(&record[..len]).contains(text)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(found),
            // Records were overwritten before they were read: the next read goes on behind them.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) => return Err(Error::io("read /dev/kmsg")(error)),
        }
    }
}
