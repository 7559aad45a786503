//! Feeds one watcher of events: what is stored, then what arrives.
//!
//! Nobody waits for a watcher. One that reads too slowly for the events it asked
//! for is told how many it missed, and ended: it can ask again.

use std::sync::Arc;

use holdfast_proto::v1;
use tokio::sync::{broadcast, mpsc};
use tonic::Status;

use crate::{model::FleetEvent, state::Shared, store::Query};

use super::wire;

/// Events waiting for one watcher to read them.
pub(super) const OUTBOUND: usize = 64;

type Out = mpsc::Sender<Result<v1::FleetEvent, Status>>;

pub(super) async fn run(
    shared: &Shared,
    query: Query,
    past: Vec<FleetEvent>,
    mut new: broadcast::Receiver<Arc<FleetEvent>>,
    out: Out,
) {
    let last_stored = past.last().map_or(0, |event| event.id);
    let status = tokio::select! {
        ended = feed(&query, last_stored, past, &mut new, &out) => ended,
        () = out.closed() => None,
        () = shared.stop.cancelled() => Some(Status::unavailable("the collector stops")),
    };
    if let Some(status) = status {
        if let Some(missed) = missed(&status) {
            shared.metrics.watch_missed.inc_by(missed);
        }
        tokio::select! {
            // The channel may be full of what was not read.
            _read = out.send(Err(status)) => {}
            () = shared.stop.cancelled() => {}
        }
    }
}

/// Sends until there is nothing more to send; the status that says why.
async fn feed(
    query: &Query,
    last_stored: u64,
    past: Vec<FleetEvent>,
    new: &mut broadcast::Receiver<Arc<FleetEvent>>,
    out: &Out,
) -> Option<Status> {
    for event in &past {
        out.send(Ok(wire::event(event))).await.ok()?;
    }
    loop {
        match new.recv().await {
            Ok(event) if event.id > last_stored && query.matches(&event) => {
                out.send(Ok(wire::event(&event))).await.ok()?;
            }
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                return Some(lagged(missed));
            }
            Err(broadcast::error::RecvError::Closed) => {
                return Some(Status::unavailable("the collector stops"));
            }
        }
    }
}

const MISSED: &str = "holdfast-missed";

fn lagged(missed: u64) -> Status {
    let text = format!("{missed} events were not read in time and are skipped; ask again");
    let mut status = Status::data_loss(text);
    status.metadata_mut().insert(MISSED, missed.into());
    status
}

fn missed(status: &Status) -> Option<u64> {
    status.metadata().get(MISSED)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Event, Severity};

    fn event(id: u64) -> FleetEvent {
        let event = Event {
            sequence: id,
            unix_ms: 1,
            kind: "host.up".to_owned(),
            severity: Severity::Info,
            unit: String::new(),
            message: String::new(),
            fields: Vec::new(),
        };
        FleetEvent { id, host: "a".into(), event, received_unix_ms: 1 }
    }

    #[tokio::test]
    async fn past_and_new_join_without_gap_or_repeat_and_lag_is_told() {
        let (sender, mut new) = broadcast::channel(4);
        let (out, mut read) = mpsc::channel(100);
        for id in [1, 2, 3] {
            sender.send(Arc::new(event(id))).unwrap();
        }
        let query = Query::default();
        let feeding = feed(&query, 2, vec![event(1), event(2)], &mut new, &out);
        drop(sender);
        assert_eq!(feeding.await.unwrap().code(), tonic::Code::Unavailable);
        let ids = [read.recv().await, read.recv().await, read.recv().await];
        assert_eq!(ids.map(|event| event.unwrap().unwrap().id), [1, 2, 3]);

        let (sender, mut new) = broadcast::channel(4);
        for id in 1..=10 {
            sender.send(Arc::new(event(id))).unwrap();
        }
        let status = feed(&query, 0, Vec::new(), &mut new, &out).await.unwrap();
        assert_eq!((status.code(), missed(&status)), (tonic::Code::DataLoss, Some(6)));
    }
}
