//! A listener whose clients can neither take many descriptors nor keep one for long: whoever
//! reaches the address of the metrics must not hinder the daemon.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// How many clients are connected at most. Others wait in the kernel, without a descriptor of ours.
const MAX_CONNECTIONS: usize = 16;
/// A connection on which nothing is read or written for this long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection is closed after this time: a client that sends a byte now and then is not idle.
const MAX_AGE: Duration = Duration::from_secs(60);

/// Accepts at most [`MAX_CONNECTIONS`] clients at a time.
pub(crate) struct BoundedListener {
    listener: TcpListener,
    free: Arc<Semaphore>,
}

impl BoundedListener {
    pub(crate) fn new(listener: TcpListener) -> Self {
        Self { listener, free: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
    }
}

impl Listener for BoundedListener {
    type Io = BoundedConnection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // It is never closed, so there is a permit.
        let permit = Arc::clone(&self.free).acquire_owned().await.ok();
        // axum's way of accepting waits a second when descriptors are short.
        let (stream, address) = Listener::accept(&mut self.listener).await;
        (BoundedConnection::new(stream, permit), address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when it is idle or old.
pub(crate) struct BoundedConnection {
    stream: TcpStream,
    end: Instant,
    deadline: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl BoundedConnection {
    fn new(stream: TcpStream, permit: Option<OwnedSemaphorePermit>) -> Self {
        let now = Instant::now();
        let deadline = Box::pin(tokio::time::sleep_until(now + IDLE_TIMEOUT));
        Self { stream, end: now + MAX_AGE, deadline, _permit: permit }
    }

    /// The result of an attempt, or an error once the time is over.
    fn within_time<T>(&mut self, cx: &mut Context<'_>, attempt: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if attempt.is_ready() {
            let idle = Instant::now() + IDLE_TIMEOUT;
            self.deadline.as_mut().reset(idle.min(self.end));
            return attempt;
        }
        self.deadline.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for BoundedConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let attempt = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.within_time(cx, attempt)
    }
}

impl AsyncWrite for BoundedConnection {
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
