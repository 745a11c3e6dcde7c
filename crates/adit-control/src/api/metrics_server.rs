//! Where scrapers find the numbers: an address of the file's choice, which may change while the overlay runs.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::api::Api;
use crate::error::ControlError;

/// What listens for scrapers, until it is dropped.
#[derive(Default)]
pub(crate) struct MetricsServer {
    address: Option<SocketAddr>,
    /// Bound, and not served yet.
    listener: Option<TcpListener>,
    server: JoinSet<std::io::Result<()>>,
    has_failed: bool,
}

impl MetricsServer {
    /// Nothing listens.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// Listens there instead of where it did. Whoever connects waits until it is served.
    ///
    /// # Errors
    /// It cannot; then nothing listens.
    pub(crate) async fn listen(&mut self, address: Option<SocketAddr>) -> Result<(), ControlError> {
        // The old one first: the new one may be the same port of more addresses.
        self.server.shutdown().await;
        (self.address, self.listener) = (None, None);
        if let Some(address) = address {
            let listener = TcpListener::bind(address).await;
            self.listener = Some(listener.map_err(|source| ControlError::Metrics { address, source })?);
            self.address = Some(address);
        }
        Ok(())
    }

    /// Answers those who connect.
    pub(crate) fn serve(&mut self, api: &Api) {
        if let Some(listener) = self.listener.take() {
            self.server.spawn(axum::serve(listener, api.clone().for_scrapers()).into_future());
        }
    }

    /// Does as the file says now. What cannot be had is said once, and tried again with every call.
    pub(crate) async fn follow(&mut self, address: Option<SocketAddr>, api: &Api) {
        if self.address == address {
            self.has_failed = false;
            return;
        }
        match self.listen(address).await {
            Ok(()) => self.has_failed = false,
            Err(error) => {
                if !self.has_failed {
                    tracing::error!(%error, "nobody can read the numbers");
                }
                self.has_failed = true;
            }
        }
        self.serve(api);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;

    use super::*;
    use crate::state::sample;

    /// Asks, on another thread than the one that answers.
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
    fn what_is_taken_is_had_as_soon_as_it_is_free() {
        crate::block_on(async {
            let taken = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = taken.local_addr().unwrap();
            let api = Api::new(Arc::new(|| Some(sample::status())));
            let mut scrapers = MetricsServer::none();
            scrapers.follow(Some(address), &api).await;
            assert!(scrapers.has_failed && scrapers.address.is_none());
            drop(taken);
            scrapers.follow(Some(address), &api).await;
            assert!(!scrapers.has_failed);
            let answer = ask(address).await.unwrap();
            assert!(answer.starts_with("HTTP/1.0 200 OK") && answer.contains("adit_peer_up{"), "{answer}");
            scrapers.follow(None, &api).await;
            assert_eq!(ask(address).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        });
    }
}
