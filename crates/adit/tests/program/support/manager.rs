//! A service manager, as a program sees it that it has started.

use std::ffi::OsString;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use tempfile::TempDir;

use super::machine::PATIENCE;

/// Listens where a program is told to speak by `NOTIFY_SOCKET`.
pub(crate) struct Manager {
    socket: UnixDatagram,
    folder: TempDir,
}

impl Manager {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { socket: UnixDatagram::bind(folder.path().join("notify")).unwrap(), folder }
    }

    /// For the program's environment.
    pub(crate) fn address(&self) -> OsString {
        self.folder.path().join("notify").into_os_string()
    }

    /// The next message.
    #[track_caller]
    pub(crate) fn hears(&self) -> String {
        self.hears_within(PATIENCE).expect("the program speaks")
    }

    /// The next message, if there is one in time.
    pub(crate) fn hears_within(&self, patience: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let mut buffer = [0; 1024];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }
}
