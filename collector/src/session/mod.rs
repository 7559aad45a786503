//! One task per agent: takes its stream from Hello to its end.
//!
//! The stream is checked message by message (`check`); the first message that is
//! not as it must be ends it with a status that says why, and touches nothing
//! else. A session knows the fleet, the history and the writer, and never waits
//! for another agent: it has only so many events under way, and reads on when
//! they are durable.

use std::{sync::Arc, time::Duration};

use holdfast_core::clock::{self, BootTime};
use holdfast_proto::{limits, v1};
use prost::Message as _;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::{self, Instant},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::{debug, info};

use crate::{
    connection::Admission,
    fleet::{Connected, Link, Refused},
    ingest::{AgentEvent, Durable},
    metrics::{Message, Reason},
    state::{self, Shared},
};

use self::series::Series;

mod check;
mod series;

/// A stream must say Hello within this time.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// A stream that brings no heartbeat for so long is ended.
const SILENT_AFTER: Duration = Duration::from_secs(15);
/// Most events of one agent that are not yet durable.
const EVENTS_UNDER_WAY: u64 = 64;
/// Messages waiting to be sent to one agent.
const OUTBOUND: usize = 8;
/// How long the last status waits for a peer that does not read.
const LAST_WORD: Duration = Duration::from_secs(1);

/// The agents' service.
#[derive(Debug)]
pub struct Service {
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
}

impl Service {
    /// Room for `streams` at once, whether or not they said Hello.
    #[must_use]
    pub fn new(shared: Arc<Shared>, streams: usize) -> Self {
        Self { shared, places: Arc::new(Semaphore::new(streams)) }
    }
}

#[tonic::async_trait]
impl v1::agent_session_server::AgentSession for Service {
    type StreamStream = ReceiverStream<Result<v1::CollectorMessage, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            self.shared.metrics.reject(Reason::Connections);
            return Err(Status::resource_exhausted("the collector has as many streams as it may"));
        };
        let admission = request.extensions().get::<Admission>().cloned().unwrap_or_default();
        let (outbound, messages) = mpsc::channel(OUTBOUND);
        let session = Session {
            shared: self.shared.clone(),
            inbound: request.into_inner(),
            outbound: outbound.clone(),
        };
        self.shared.tasks.spawn(async move {
            if let Err(status) = session.run(admission).await {
                // A peer that does not read must not keep the task.
                let _unread = outbound.send_timeout(Err(status), LAST_WORD).await;
            }
            drop(place);
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

/// Why a stream ends.
enum End {
    /// The peer closed it, or the connection broke.
    Gone,
    /// The agent was told to stop.
    Goodbye,
    /// The collector stops.
    Stopping,
    /// Another stream speaks for the host now.
    Replaced,
    /// It did what it must not.
    Refused(Reason, Status),
}

impl From<check::Reject> for End {
    fn from(reject: check::Reject) -> Self {
        let code = match reject.reason {
            Reason::Protocol => Code::FailedPrecondition,
            Reason::SeriesLimit => Code::ResourceExhausted,
            _ => Code::InvalidArgument,
        };
        Self::Refused(reject.reason, Status::new(code, reject.message))
    }
}

impl From<Refused> for End {
    fn from(refused: Refused) -> Self {
        let (reason, code) = match &refused {
            Refused::Hosts(_) => (Reason::Hosts, Code::ResourceExhausted),
            Refused::Memory(_) => (Reason::Memory, Code::ResourceExhausted),
            Refused::Duplicate { .. } => (Reason::Duplicate, Code::Aborted),
        };
        Self::Refused(reason, Status::new(code, refused.to_string()))
    }
}

fn refused(reason: Reason, code: Code, message: impl Into<String>) -> End {
    End::Refused(reason, Status::new(code, message))
}

struct Session {
    shared: Arc<Shared>,
    inbound: Streaming<v1::AgentMessage>,
    outbound: mpsc::Sender<Result<v1::CollectorMessage, Status>>,
}

/// What a stream is after its Hello.
struct Greeted {
    link: Link,
    incarnation: u64,
    series: Series,
    durable: Arc<watch::Sender<Durable>>,
    /// Sequence of the newest event handed to the writer, and how many were.
    events_taken: u64,
    newest_event: u64,
    summary_sequence: u64,
}

impl Session {
    async fn run(mut self, admission: Admission) -> Result<(), Status> {
        let stop = CancellationToken::new();
        let (greeted, end) = match self.greet(stop.clone(), &admission).await {
            Ok(mut greeted) => {
                self.shared.metrics.sessions.inc();
                let end = self.listen(&mut greeted, &stop).await;
                self.shared.metrics.sessions.dec();
                (Some(greeted.link), end)
            }
            Err(end) => (None, end),
        };
        let host = greeted.as_ref().map_or("", |link| &*link.host);
        let goodbye = matches!(end, End::Goodbye);
        let status = match end {
            End::Gone | End::Goodbye => None,
            End::Stopping => Some(Status::unavailable("the collector stops")),
            End::Replaced => {
                Some(Status::aborted("another stream speaks for this host now; it came later"))
            }
            End::Refused(reason, status) => {
                self.shared.metrics.reject(reason);
                info!(host, reason = reason.label(), status = status.message(), "stream refused");
                return self.leave(greeted, false, Err(status));
            }
        };
        debug!(host, "stream ended");
        // Hosts that were up when the collector stops have time to come back to it.
        let leaving = if self.shared.stop.is_cancelled() { None } else { greeted };
        self.leave(leaving, goodbye, status.map_or(Ok(()), Err))
    }

    fn leave(
        &self,
        link: Option<Link>,
        goodbye: bool,
        result: Result<(), Status>,
    ) -> Result<(), Status> {
        if let Some(link) = link {
            let change = self.shared.fleet().disconnect(&link, goodbye);
            self.shared.tell(change.as_slice());
        }
        result
    }

    /// From nothing to Welcome.
    async fn greet(
        &mut self,
        stop: CancellationToken,
        admission: &Admission,
    ) -> Result<Greeted, End> {
        let shared = self.shared.clone();
        let first = tokio::select! {
            first = time::timeout(HELLO_WITHIN, self.inbound.message()) => first,
            () = shared.stop.cancelled() => return Err(End::Stopping),
        };
        let message = first
            .map_err(|_| refused(Reason::NoHello, Code::DeadlineExceeded, "no Hello in 5 s"))?;
        let message = received(message)?;
        let size = message.encoded_len();
        let Some(v1::agent_message::Body::Hello(hello)) = message.body else {
            let text = "the first message of a stream must be Hello";
            return Err(refused(Reason::NotHello, Code::InvalidArgument, text));
        };
        shared.metrics.message(Message::Hello);
        let hello = check::hello(hello)?;
        let incarnation = hello.facts.incarnation;

        let connected = shared.fleet().connect(
            BootTime::now(),
            clock::unix_ms(),
            hello.host,
            hello.facts,
            hello.catalogue,
            stop,
        );
        let Connected { link, catalogue, record, change } = connected.inspect_err(|refused| {
            if let Refused::Duplicate { host, tell: true } = refused {
                shared.ingest.own_event(host, state::duplicate_event());
            }
        })?;
        admission.admit();
        info!(host = &*link.host, bytes = size, "agent connected");
        shared.ingest.host(record);
        shared.tell(change.as_slice());

        let welcome = v1::Welcome {
            protocol: hello.protocol,
            collector_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        self.send(v1::collector_message::Body::Welcome(welcome));
        let (durable, _) = watch::channel(Durable::UpTo(0));
        Ok(Greeted {
            series: Series::new(link.host.clone(), catalogue),
            link,
            incarnation,
            durable: Arc::new(durable),
            events_taken: 0,
            newest_event: 0,
            summary_sequence: 0,
        })
    }

    /// From Welcome to the end.
    async fn listen(&mut self, greeted: &mut Greeted, stop: &CancellationToken) -> End {
        let shared = self.shared.clone();
        let mut durable = greeted.durable.subscribe();
        let silence = time::sleep(SILENT_AFTER);
        tokio::pin!(silence);
        loop {
            let Durable::UpTo(held) = *durable.borrow_and_update() else {
                let text = "the collector's store cannot be written";
                return refused(Reason::Store, Code::Unavailable, text);
            };
            if greeted.newest_event == held {
                greeted.events_taken = 0;
            }
            let read_on = greeted.events_taken < EVENTS_UNDER_WAY;
            let message = tokio::select! {
                message = self.inbound.message(), if read_on => message,
                _ = durable.changed() => {
                    self.acknowledge(greeted);
                    continue;
                }
                () = stop.cancelled() => return End::Replaced,
                () = shared.stop.cancelled() => return End::Stopping,
                () = &mut silence => {
                    let text = "no heartbeat in 15 s";
                    return refused(Reason::Silent, Code::DeadlineExceeded, text);
                }
            };
            match self.take(greeted, message).await {
                Ok(true) => silence.as_mut().reset(Instant::now() + SILENT_AFTER),
                Ok(false) => {}
                Err(end) => return end,
            }
        }
    }

    /// One message; whether it was a sign of life.
    async fn take(
        &self,
        greeted: &mut Greeted,
        message: Result<Option<v1::AgentMessage>, Status>,
    ) -> Result<bool, End> {
        use v1::agent_message::Body;

        let shared = &self.shared;
        let Some(body) = received(message)?.body else {
            let text = "a message without a body, or of a kind this version does not know";
            return Err(refused(Reason::Malformed, Code::InvalidArgument, text));
        };
        match body {
            Body::Hello(_) => {
                let text = "a stream says Hello once";
                return Err(refused(Reason::NotHello, Code::InvalidArgument, text));
            }
            Body::Heartbeat(heartbeat) => {
                shared.metrics.message(Message::Heartbeat);
                let (uptime, vitals) = check::heartbeat(heartbeat)?;
                let (now, unix_ms) = (BootTime::now(), clock::unix_ms());
                let change = shared.fleet().heartbeat(&greeted.link, now, unix_ms, uptime, vitals);
                shared.tell(change.as_slice());
                return Ok(true);
            }
            Body::Summaries(batch) => {
                shared.metrics.message(Message::Summaries);
                self.summaries(greeted, &batch)?;
            }
            Body::Event(event) => {
                shared.metrics.message(Message::Event);
                let event = check::event(event)?;
                greeted.events_taken += 1;
                greeted.newest_event = greeted.newest_event.max(event.sequence);
                let (host, incarnation) = (greeted.link.host.clone(), greeted.incarnation);
                let durable = greeted.durable.clone();
                let event = AgentEvent { host, incarnation, event, durable };
                shared
                    .ingest
                    .event(event)
                    .await
                    .map_err(|busy| refused(Reason::Store, Code::Unavailable, busy.to_string()))?;
            }
            Body::Probes(probes) => {
                shared.metrics.message(Message::Probes);
                let probes = check::probes(probes.probe)?;
                shared.fleet().set_probes(&greeted.link, probes)?;
            }
            Body::Goodbye(v1::Goodbye {}) => return Err(End::Goodbye),
        }
        Ok(false)
    }

    fn summaries(&self, greeted: &mut Greeted, batch: &v1::SummaryBatch) -> Result<(), End> {
        let shared = &self.shared;
        check::batch(batch)?;
        let reserved = greeted.series.define(&batch.define)?;
        shared.fleet().reserve(&greeted.link, reserved)?;
        let windows = greeted.series.windows(batch)?;
        if shared.fleet().is_new_batch(&greeted.link, batch.sequence) {
            shared.metrics.summaries.inc_by(windows.len() as u64);
            greeted.series.push(&mut shared.history(), BootTime::now(), windows);
        } else {
            shared.metrics.batches_repeated.inc();
        }
        greeted.summary_sequence = greeted.summary_sequence.max(batch.sequence);
        self.acknowledge(greeted);
        Ok(())
    }

    fn acknowledge(&self, greeted: &Greeted) {
        let Durable::UpTo(event_sequence) = *greeted.durable.borrow() else { return };
        let summary_sequence = greeted.summary_sequence;
        let ack = v1::Ack { event_sequence, summary_sequence };
        self.send(v1::collector_message::Body::Ack(ack));
    }

    /// Sends if there is place: a later Ack says all that an earlier one did.
    fn send(&self, body: v1::collector_message::Body) {
        let _superseded = self.outbound.try_send(Ok(v1::CollectorMessage { body: Some(body) }));
    }
}

/// A message of the stream, or why there is none.
fn received(message: Result<Option<v1::AgentMessage>, Status>) -> Result<v1::AgentMessage, End> {
    use std::error::Error as _;

    match message {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err(End::Gone),
        // tonic's own words for a message longer than the service takes.
        Err(status) if status.code() == Code::OutOfRange => {
            let text = format!("a message is larger than {} bytes", limits::MESSAGE_BYTES);
            Err(refused(Reason::Oversized, Code::InvalidArgument, text))
        }
        // A failed connection has a source; a message that is no protobuf has none.
        Err(status) if status.code() == Code::Internal && status.source().is_none() => {
            let text = format!("a message cannot be decoded: {}", status.message());
            Err(refused(Reason::Malformed, Code::InvalidArgument, text))
        }
        Err(status) if status.code() == Code::Unimplemented => {
            let text = "a message is compressed, which is not supported";
            Err(refused(Reason::Malformed, Code::InvalidArgument, text))
        }
        Err(_) => Err(End::Gone),
    }
}
