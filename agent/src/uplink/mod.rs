//! The stream to the collector: one connection, kept up for as long as the agent lives.
//!
//! The uplink drains what the sampler says into its outbox at
//! all times, connected or not, so that the sampler never waits for the network.
//! Each stream begins with Hello and counts as standing once the collector has said
//! Welcome. A stream that ends is opened again after a wait with full jitter
//! ([`Backoff`]); HTTP/2 keep-alive finds connections that died in silence.

mod outbox;
pub(crate) mod wire;

use std::time::Duration;

use holdfast_core::clock::BootTime;
use holdfast_proto::v1::agent_session_client::AgentSessionClient;
use holdfast_proto::v1::collector_message::Body;
use holdfast_proto::{PROTOCOL, limits, v1};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use self::outbox::Outbox;
use crate::backoff::Backoff;
use crate::losses::Losses;
use crate::report::{LinkState, Report};

/// Time for a connection to be made, and again for the collector to say Welcome.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// A stream that stood for so long was a success: the back-off starts over.
const PROVEN_AFTER: Duration = Duration::from_secs(10);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the last words of an agent that stops.
const FAREWELL: Duration = Duration::from_secs(1);
/// Messages between the outbox and the connection; small, because what waits here
/// can no longer be overtaken by a heartbeat.
const IN_FLIGHT: usize = 4;

/// Why the uplink cannot start or a stream ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configured address cannot be used.
    #[error("`{url}` is not an address of a collector: {reason}; use the form http://HOST:PORT")]
    Address {
        /// As configured.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No connection, or it broke.
    #[error("no connection to the collector: {0}")]
    Connection(String),
    /// The collector ended the stream.
    #[error("the collector ended the stream: {} ({:?})", .0.message(), .0.code())]
    Ended(Box<Status>),
    /// The collector said something else than it should.
    #[error("the collector broke the protocol: {0}")]
    Protocol(&'static str),
}

impl Error {
    /// Whether the collector will say the same next time.
    fn is_refusal(&self) -> bool {
        matches!(self, Self::Ended(status) if matches!(status.code(),
            Code::InvalidArgument | Code::FailedPrecondition | Code::ResourceExhausted | Code::Unimplemented))
            || matches!(self, Self::Protocol(_))
    }
}

/// Keeps the stream up.
#[derive(Debug)]
pub struct Uplink {
    endpoint: Endpoint,
    hello: v1::Hello,
    reports: mpsc::Receiver<Report>,
    state: watch::Sender<LinkState>,
    outbox: Outbox,
    backoff: Backoff,
}

impl Uplink {
    /// An uplink to the collector at `url` that introduces itself with `hello` and
    /// passes on what arrives in `reports`; what it has to drop is counted in `losses`.
    ///
    /// # Errors
    ///
    /// [`Error::Address`] when `url` is not of the form `http://HOST:PORT`.
    pub fn new(
        url: &str,
        mut hello: v1::Hello,
        reports: mpsc::Receiver<Report>,
        state: watch::Sender<LinkState>,
        losses: Losses,
    ) -> Result<Self, Error> {
        let address =
            |reason: &str| Error::Address { url: url.to_owned(), reason: reason.to_owned() };
        if !url.starts_with("http://") {
            return Err(address("it does not start with http://"));
        }
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|error| address(&error.to_string()))?
            .connect_timeout(OPEN_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        (hello.protocol_min, hello.protocol_max) = PROTOCOL.into_inner();
        hello.catalogue = wire::catalogue();
        state.send_modify(|state| url.clone_into(&mut state.collector));
        let backoff = Backoff::new(hello.incarnation);
        Ok(Self { endpoint, hello, reports, state, outbox: Outbox::new(losses), backoff })
    }

    /// Runs until `shutdown`; then what is left is sent for a moment, and the stream closed.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut last_logged = String::new();
        while !shutdown.is_cancelled() {
            let begun = BootTime::now();
            let error = match self.stream(&shutdown).await {
                Ok(()) => break,
                Err(error) => error,
            };
            if error.is_refusal() {
                self.backoff.refuse();
            } else if BootTime::now().since(begun) >= PROVEN_AFTER {
                self.backoff.reset();
            }
            let wait = self.backoff.next_wait();
            let text = error.to_string();
            if text == last_logged {
                tracing::debug!(
                    error = text,
                    wait_ms = wait.as_millis(),
                    "no stream to the collector"
                );
            } else {
                tracing::warn!(
                    error = text,
                    wait_ms = wait.as_millis(),
                    "no stream to the collector"
                );
                last_logged.clone_from(&text);
            }
            self.publish(false, &text);
            let pause = tokio::time::sleep(wait);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    () = shutdown.cancelled() => break,
                    Some(report) = self.reports.recv() => self.outbox.take(report),
                }
            }
        }
        self.publish(false, "the agent is stopping");
    }

    fn publish(&self, connected: bool, error: &str) {
        self.state.send_modify(|state| {
            state.connects += u64::from(connected && !state.connected);
            state.connected = connected;
            error.clone_into(&mut state.last_error);
            state.dropped = self.outbox.dropped();
            state.pending_events = self.outbox.pending_events();
        });
    }

    /// One stream from connect to its end; `Ok` when the agent is to stop.
    async fn stream(&mut self, shutdown: &CancellationToken) -> Result<(), Error> {
        let (sender, outgoing) = mpsc::channel(IN_FLIGHT);
        let hello =
            v1::AgentMessage { body: Some(v1::agent_message::Body::Hello(self.hello.clone())) };
        let open = open(self.endpoint.clone(), hello, sender.clone(), outgoing);
        tokio::pin!(open);
        let mut incoming = loop {
            tokio::select! {
                opened = &mut open => break opened?,
                () = shutdown.cancelled() => return Ok(()),
                Some(report) = self.reports.recv() => self.outbox.take(report),
            }
        };
        tracing::info!(collector = %self.endpoint.uri(), "stream to the collector stands");
        self.outbox.restart();
        self.publish(true, "");
        loop {
            tokio::select! {
                message = incoming.message() => match message {
                    Ok(Some(v1::CollectorMessage { body: Some(Body::Ack(ack)) })) => {
                        self.outbox.acknowledge(ack.event_sequence, ack.summary_sequence);
                        self.publish(true, "");
                    }
                    Ok(Some(_)) => return Err(Error::Protocol("an unexpected message")),
                    Ok(None) => return Err(Error::Connection("the collector closed the stream".to_owned())),
                    Err(status) => return Err(ended(status)),
                },
                Ok(permit) = sender.reserve(), if self.outbox.has_unsent() => {
                    let uptime = BootTime::now().since_boot().as_secs_f64();
                    if let Some(message) = self.outbox.next_message(uptime) {
                        permit.send(message);
                    }
                }
                Some(report) = self.reports.recv() => self.outbox.take(report),
                () = shutdown.cancelled() => break,
            }
        }
        self.farewell(sender, incoming).await;
        Ok(())
    }

    /// The agent stops: what is left is sent, then Goodbye, and the collector gets a
    /// moment to acknowledge.
    async fn farewell(
        &mut self,
        sender: mpsc::Sender<v1::AgentMessage>,
        mut incoming: Streaming<v1::CollectorMessage>,
    ) {
        while let Ok(report) = self.reports.try_recv() {
            self.outbox.take(report);
        }
        let uptime = BootTime::now().since_boot().as_secs_f64();
        let last_words = async {
            while let Some(message) = self.outbox.next_message(uptime) {
                sender.send(message).await.ok()?;
            }
            let goodbye = v1::agent_message::Body::Goodbye(v1::Goodbye {});
            sender.send(v1::AgentMessage { body: Some(goodbye) }).await.ok()?;
            drop(sender);
            while let Some(message) = incoming.message().await.ok()? {
                if let Some(Body::Ack(ack)) = message.body {
                    self.outbox.acknowledge(ack.event_sequence, ack.summary_sequence);
                }
            }
            Some(())
        };
        // A collector that does not answer costs a stopping agent no more than this.
        let _unheard = tokio::time::timeout(FAREWELL, last_words).await;
    }
}

/// Connects, introduces the agent and waits for Welcome.
async fn open(
    endpoint: Endpoint,
    hello: v1::AgentMessage,
    sender: mpsc::Sender<v1::AgentMessage>,
    outgoing: mpsc::Receiver<v1::AgentMessage>,
) -> Result<Streaming<v1::CollectorMessage>, Error> {
    let channel: Channel =
        endpoint.connect().await.map_err(|error| Error::Connection(chain(&error)))?;
    let mut client = AgentSessionClient::new(channel)
        .max_decoding_message_size(limits::MESSAGE_BYTES)
        .max_encoding_message_size(limits::MESSAGE_BYTES);
    // The channel is empty: there is room for one message.
    sender.try_send(hello).map_err(|_| Error::Protocol("no room for Hello"))?;
    drop(sender);
    let late = |_| Error::Connection("the collector did not answer in time".to_owned());
    let welcome = async {
        let mut incoming =
            client.stream(ReceiverStream::new(outgoing)).await.map_err(ended)?.into_inner();
        match incoming.message().await.map_err(ended)? {
            Some(v1::CollectorMessage { body: Some(Body::Welcome(welcome)) })
                if PROTOCOL.contains(&welcome.protocol) =>
            {
                Ok(incoming)
            }
            Some(_) => Err(Error::Protocol("it did not begin with a Welcome of a known version")),
            None => Err(Error::Connection("the collector closed the stream".to_owned())),
        }
    };
    tokio::time::timeout(OPEN_TIMEOUT, welcome).await.map_err(late)?
}

/// A broken connection arrives as a status too: tell the two apart.
fn ended(status: Status) -> Error {
    match std::error::Error::source(&status) {
        Some(source) => Error::Connection(chain(source)),
        None if status.code() == Code::Unavailable => {
            Error::Connection(status.message().to_owned())
        }
        None => Error::Ended(Box::new(status)),
    }
}

/// An error with all its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_from_broken_connections() {
        assert!(Error::Ended(Box::new(Status::invalid_argument("bad name"))).is_refusal());
        assert!(Error::Ended(Box::new(Status::failed_precondition("old"))).is_refusal());
        assert!(!Error::Connection("refused".to_owned()).is_refusal());
        assert!(!Error::Ended(Box::new(Status::aborted("newer stream"))).is_refusal());
    }

    #[test]
    fn addresses_are_checked_at_start() {
        for bad in ["", "localhost:7401", "https://x:1", "http://", "http://a b"] {
            let (_sender, reports) = mpsc::channel(1);
            let made = Uplink::new(
                bad,
                v1::Hello::default(),
                reports,
                watch::Sender::default(),
                Losses::default(),
            );
            assert!(matches!(made, Err(Error::Address { .. })), "{bad:?}");
        }
    }
}
