//! Accepting connections, so that none can cost much: there are only so many, the
//! gRPC side closes at once what is not HTTP/2, and a connection that does not
//! make a valid request in time is closed, whether it is silent, slow or idle.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{self, Sleep},
};
use tonic::transport::server::Connected;
use tracing::warn;

use crate::metrics::{Direction, Listener, Metrics, Reason};

/// What every HTTP/2 connection starts with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Pause after an accept that failed, as when there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How connections of one listener are limited.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most connections at once.
    pub connections: usize,
    /// How long a connection may last unless it is admitted.
    pub admit_within: Duration,
}

/// Says that the connection of a request has proved itself. The request carries it
/// in its extensions.
#[derive(Debug, Clone, Default)]
pub struct Admission(Arc<AtomicBool>);

impl Admission {
    /// Lets the connection last.
    pub fn admit(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_admitted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A bound listener with its limits.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    kind: Listener,
    limits: Limits,
    places: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl Acceptor {
    /// Listens on `addr`.
    ///
    /// # Errors
    ///
    /// The system refuses the address.
    pub async fn bind(
        addr: SocketAddr,
        kind: Listener,
        limits: Limits,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let places = Arc::new(Semaphore::new(limits.connections));
        Ok(Self { listener, kind, limits, places, metrics })
    }

    /// The bound address.
    ///
    /// # Errors
    ///
    /// The system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection. One beyond the limit is closed and counted.
    pub async fn next(&mut self) -> (Connection, SocketAddr) {
        loop {
            let (stream, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                // The peer gave up while it was waiting.
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(e) => {
                    let listener = self.kind.label();
                    warn!(listener, error = %e, "cannot accept a connection");
                    time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            match self.places.clone().try_acquire_owned() {
                Ok(place) => return (self.wrap(stream, place), peer),
                Err(_) => self.metrics.reject(Reason::Connections),
            }
        }
    }

    fn wrap(&self, stream: TcpStream, place: OwnedSemaphorePermit) -> Connection {
        // Small messages, each waited for: not to be held back for company.
        let _without = stream.set_nodelay(true);
        let open = self.metrics.connections(self.kind);
        open.inc();
        Connection {
            stream,
            admission: Admission::default(),
            deadline: Some(Box::pin(time::sleep(self.limits.admit_within))),
            preface: (self.kind == Listener::Grpc).then_some(0),
            metrics: self.metrics.clone(),
            received: self.metrics.wire(self.kind, Direction::Received),
            sent: self.metrics.wire(self.kind, Direction::Sent),
            open,
            _place: place,
        }
    }
}

impl axum::serve::Listener for Acceptor {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        self.next().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.address()
    }
}

/// A connection that counts, checks its first bytes and ends itself in time.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    admission: Admission,
    deadline: Option<Pin<Box<Sleep>>>,
    /// How much of the preface has been seen; `None` when there is none to see.
    preface: Option<usize>,
    metrics: Arc<Metrics>,
    received: Counter,
    sent: Counter,
    open: Gauge,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    /// An error once the time to be admitted is over.
    fn check_deadline(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some(deadline) = &mut self.deadline else { return Ok(()) };
        if self.admission.is_admitted() {
            self.deadline = None;
        } else if deadline.as_mut().poll(context).is_ready() {
            self.metrics.reject(Reason::Idle);
            self.deadline = None;
            self.admission.admit();
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    fn check_preface(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(seen) = self.preface else { return Ok(()) };
        let expected = PREFACE.get(seen..).unwrap_or_default();
        let compared = expected.len().min(bytes.len());
        if bytes.get(..compared) != expected.get(..compared) {
            self.metrics.reject(Reason::NotHttp2);
            self.preface = None;
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.preface = (seen + compared < PREFACE.len()).then_some(seen + compared);
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.dec();
    }
}

impl Connected for Connection {
    type ConnectInfo = Admission;

    fn connect_info(&self) -> Admission {
        self.admission.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_deadline(context)?;
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Poll::Ready(Ok(())) = &polled {
            let bytes = buffer.filled().get(before..).unwrap_or_default();
            self.received.inc_by(bytes.len() as u64);
            self.check_preface(bytes)?;
        }
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_deadline(context)?;
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(written)) = &polled {
            self.sent.inc_by(*written as u64);
        }
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_deadline(context)?;
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        if let Poll::Ready(Ok(written)) = &polled {
            self.sent.inc_by(*written as u64);
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
