//! A service manager, as a program sees it that it has started.

use std::ffi::OsString;
use std::net::Shutdown;
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::machine::PATIENCE;

/// Listens where a program is told to speak by `NOTIFY_SOCKET`.
pub(crate) struct Manager {
    socket: UnixDatagram,
    messages: Receiver<String>,
    folder: TempDir,
}

impl Manager {
    /// Reads at once what comes, as a service manager does: the kernel lets a program wait whose
    /// messages nobody reads.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        let (reader, (message, messages)) = (socket.try_clone().unwrap(), mpsc::channel());
        thread::spawn(move || {
            let mut buffer = [0; 1024];
            // No message is empty: nothing is read once the socket has been shut down.
            while let Ok(length @ 1..) = reader.recv(&mut buffer) {
                let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
                let Ok(()) = message.send(text) else { return };
            }
        });
        Self { socket, messages, folder }
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
        self.messages.recv_timeout(patience).ok()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}
