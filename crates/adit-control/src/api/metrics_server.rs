//! The server of metrics by TCP, at the address of `site.metrics`, which may change while the
//! overlay runs.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::api::bounded_listener::{BoundedListener, ClientLimits};
use crate::api::readings::Readings;
use crate::api::router;
use crate::error::ControlError;

/// Serves metrics until it is dropped.
#[derive(Default)]
pub(crate) struct MetricsServer {
    address: Option<SocketAddr>,
    /// Bound, and not served yet.
    listener: Option<TcpListener>,
    server: JoinSet<std::io::Result<()>>,
    /// The last attempt to listen failed, and the log says so.
    has_failed: bool,
}

impl MetricsServer {
    /// A server that does not listen yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Listens at `address` instead of where it listened before; `None` stops listening. A client
    /// that connects waits until [`MetricsServer::serve`] is called.
    ///
    /// # Errors
    /// Fails if the address cannot be bound; the server then listens nowhere.
    pub(crate) async fn listen(&mut self, address: Option<SocketAddr>) -> Result<(), ControlError> {
        // The old socket is closed first: the new one may be the same port of more addresses.
        self.server.shutdown().await;
        (self.address, self.listener) = (None, None);
        if let Some(address) = address {
            let listener = TcpListener::bind(address).await;
            self.listener = Some(listener.map_err(|source| ControlError::Metrics { address, source })?);
            self.address = Some(address);
        }
        Ok(())
    }

    /// Answers clients, if there is a listener that is not served yet.
    pub(crate) fn serve(&mut self, readings: &Readings) {
        if let Some(listener) = self.listener.take() {
            let app = router::for_metrics(readings.clone());
            let listener = BoundedListener::new(listener, ClientLimits::METRICS);
            self.server.spawn(axum::serve(listener, app).into_future());
        }
    }

    /// Moves to `address` if it is not there yet. A failure is logged once, and every call tries
    /// again.
    pub(crate) async fn move_to(&mut self, address: Option<SocketAddr>, readings: &Readings) {
        if self.address == address {
            self.has_failed = false;
            return;
        }
        match self.listen(address).await {
            Ok(()) => self.has_failed = false,
            Err(error) => {
                if !self.has_failed {
                    tracing::error!(%error, "metrics are not served");
                }
                self.has_failed = true;
            }
        }
        self.serve(readings);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Asks on a thread of its own: the test's only thread answers.
    async fn ask(address: SocketAddr) -> std::io::Result<String> {
        let asked = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address)?;
            stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map(|_| answer)
        });
        asked.await.unwrap()
    }

    #[test]
    fn an_address_that_was_taken_is_served_as_soon_as_it_is_free() {
        crate::block_on(async {
            let taken = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = taken.local_addr().unwrap();
            let readings = Readings::sample();
            let mut server = MetricsServer::new();
            server.move_to(Some(address), &readings).await;
            assert!(server.has_failed && server.address.is_none());
            drop(taken);
            server.move_to(Some(address), &readings).await;
            assert!(!server.has_failed);
            let answer = ask(address).await.unwrap();
            assert!(answer.starts_with("HTTP/1.0 200 OK") && answer.contains("adit_peer_up{"), "{answer}");
            server.move_to(None, &readings).await;
            assert_eq!(ask(address).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        });
    }
}
