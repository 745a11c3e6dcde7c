//! Where scrapers find the numbers: an address of the file's choice, which may change while the overlay runs.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::api::Api;
use crate::error::ControlError;

/// What listens for scrapers, until it is dropped.
#[derive(Default)]
pub(crate) struct Scrapers {
    address: Option<SocketAddr>,
    /// Bound, and not served yet.
    listener: Option<TcpListener>,
    server: JoinSet<std::io::Result<()>>,
    has_failed: bool,
}

impl Scrapers {
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
