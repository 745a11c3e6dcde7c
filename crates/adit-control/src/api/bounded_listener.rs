//! A listener whose clients cannot take all descriptors: whoever connects must not hinder the
//! daemon.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use adit_linux::sockets::private_socket;
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use crate::error::ControlError;

/// What a listener's clients may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientLimits {
    /// How many are connected at most. Others wait in the kernel, without a descriptor of ours.
    pub(crate) connections: usize,
    pub(crate) times: Option<ClientTimes>,
}

/// When a connection is closed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientTimes {
    /// If nothing is read or written for this long.
    pub(crate) idle: Duration,
    /// After this time in any case: a client that sends a byte now and then is not idle.
    pub(crate) age: Duration,
}

impl ClientLimits {
    /// The metrics' address, which anybody may reach.
    pub(crate) const METRICS: Self = Self {
        connections: 16,
        times: Some(ClientTimes { idle: Duration::from_secs(10), age: Duration::from_secs(60) }),
    };

    /// The socket, which only root reaches. A client may wait minutes for its change, and follow
    /// events for months.
    pub(crate) const SOCKET: Self = Self { connections: 2048, times: None };

    /// The socket of a daemon that waits, which answers at once.
    pub(crate) const WAITING: Self = Self { connections: 64, ..Self::METRICS };

    /// The same, for a process that may have so many descriptors: the clients get half of them.
    pub(crate) fn within(self, descriptors: u64) -> Self {
        let half = usize::try_from(descriptors / 2).unwrap_or(usize::MAX);
        Self { connections: self.connections.min(half), ..self }
    }
}

/// Binds the socket of an overlay, whose lock the caller holds. Only root may ask: a status has
/// addresses and counts of private networks.
///
/// # Errors
/// Fails if the socket cannot be bound.
pub(crate) fn private_listener(socket: &Path) -> Result<UnixListener, ControlError> {
    let failed = |error| ControlError::file("listen on", socket, error);
    // One that is there is a dead daemon's.
    let _ = std::fs::remove_file(socket);
    let listener = private_socket::listen(socket).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    UnixListener::from_std(listener).map_err(failed)
}

/// Accepts clients within limits.
pub(crate) struct BoundedListener<L> {
    listener: L,
    free: Arc<Semaphore>,
    times: Option<ClientTimes>,
}

impl<L: Listener> BoundedListener<L> {
    pub(crate) fn new(listener: L, limits: ClientLimits) -> Self {
        Self { listener, free: Arc::new(Semaphore::new(limits.connections)), times: limits.times }
    }
}

impl<L: Listener> Listener for BoundedListener<L> {
    type Io = BoundedConnection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // It is never closed, so there is a permit.
        let permit = Arc::clone(&self.free).acquire_owned().await.ok();
        // axum's way of accepting waits a second when descriptors are short.
        let (stream, address) = self.listener.accept().await;
        (BoundedConnection::new(stream, self.times, permit), address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when it is idle or old.
pub(crate) struct BoundedConnection<S> {
    stream: S,
    timer: Option<Timer>,
    _permit: Option<OwnedSemaphorePermit>,
}

/// When a connection ends.
struct Timer {
    idle: Duration,
    end: Instant,
    deadline: Pin<Box<Sleep>>,
}

impl<S> BoundedConnection<S> {
    fn new(stream: S, times: Option<ClientTimes>, permit: Option<OwnedSemaphorePermit>) -> Self {
        let now = Instant::now();
        let timer = times.map(|ClientTimes { idle, age }| Timer {
            idle,
            end: now + age,
            deadline: Box::pin(tokio::time::sleep_until(now + idle)),
        });
        Self { stream, timer, _permit: permit }
    }

    /// The result of an attempt, or an error once the time is over.
    fn within_time<T>(&mut self, cx: &mut Context<'_>, attempt: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let Some(timer) = &mut self.timer else { return attempt };
        if attempt.is_ready() {
            let idle = Instant::now() + timer.idle;
            timer.deadline.as_mut().reset(idle.min(timer.end));
            return attempt;
        }
        timer.deadline.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for BoundedConnection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let attempt = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.within_time(cx, attempt)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for BoundedConnection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let attempt = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.within_time(cx, attempt)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let attempt = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.within_time(cx, attempt)
    }
}
