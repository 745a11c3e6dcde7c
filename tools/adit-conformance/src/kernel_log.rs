//! The kernel's log, the only place where Linux's ipip reports unexpected ECN fields.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::OFlag;

use crate::error::Error;

/// Counts the records of the kernel's log that contain `text`.
pub(crate) fn lines_with(text: &str) -> Result<u64, Error> {
    // The length of the kernel's longest record.
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
            // The kernel overwrote records before they were read. The next read continues after
            // them.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) => return Err(Error::io("read /dev/kmsg")(error)),
        }
    }
}
