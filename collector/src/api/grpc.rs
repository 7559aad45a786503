//! The operators' service: questions about hosts, units, signals, series, events.
//!
//! Answers are bounded in size. A question about a name that is not known gets
//! NOT_FOUND with the nearest known name.

use std::{collections::BTreeMap, sync::Arc};

use holdfast_core::clock::{self, BootTime};
use holdfast_proto::{
    limits::ANSWER_BYTES,
    v1::{self, operator_server::Operator},
};
use prost::Message as _;
use tokio::{
    sync::{Semaphore, SemaphorePermit, mpsc},
    task,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::{
    history::{Found, History},
    model::{FleetEvent, Owner, SeriesKey},
    state::Shared,
    store::{self, Query},
};

use super::{nearest::not_found, watch, wire};

/// Questions answered at once; others wait.
const AT_ONCE: usize = 8;
/// Most watchers of events.
const WATCHERS: usize = 256;
/// Events when a request does not say how many, and the most it may ask for.
const EVENTS: usize = 100;
const MOST_EVENTS: usize = 10_000;
/// Where a list stops to carry newest values, leaving room for all its hosts.
const VALUES_UP_TO: usize = ANSWER_BYTES / 4 * 3;
/// A host whose newest window is older than so many windows has no live unit.
const LIVE_WINDOWS: u64 = 3;

type Answer<T> = Result<Response<T>, Status>;

/// The operators' service.
#[derive(Debug)]
pub struct Service {
    shared: Arc<Shared>,
    questions: Semaphore,
    watchers: Arc<Semaphore>,
}

impl Service {
    /// Answers from `shared`.
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Self {
        let watchers = Arc::new(Semaphore::new(WATCHERS));
        Self { shared, questions: Semaphore::new(AT_ONCE), watchers }
    }

    async fn turn(&self) -> Result<SemaphorePermit<'_>, Status> {
        self.questions.acquire().await.map_err(|_| Status::unavailable("the collector stops"))
    }

    fn no_host(&self, name: &str) -> Status {
        not_found("host", name, self.shared.fleet().hosts().map(|host| &*host.record.host))
    }

    fn check_host(&self, name: &str) -> Result<(), Status> {
        let known = self.shared.fleet().host(name).is_some();
        if known { Ok(()) } else { Err(self.no_host(name)) }
    }

    /// The next host after `after`, so that no lock is held for a whole list.
    fn host_after(&self, after: &str) -> Option<v1::HostInfo> {
        let mut info = wire::host(self.shared.fleet().host_after(after)?);
        self.count(&mut info);
        Some(info)
    }

    /// Fills in the numbers of units and series.
    fn count(&self, info: &mut v1::HostInfo) {
        let (history, now) = (self.shared.history(), BootTime::now());
        let newest = newest(&history, &info.host);
        let mut units = BTreeMap::new();
        for found in history.of_host(&info.host) {
            info.series += 1;
            if found.key.signal.owner == Owner::Unit {
                *units.entry(&*found.key.instance).or_default() |= is_live(&found, newest, now);
            }
        }
        info.units = units.values().filter(|live| **live).count() as u32;
    }

    /// Newest values of a host's series that `wanted` accepts.
    fn latest(&self, host: &str, wanted: impl Fn(Owner) -> bool) -> Vec<v1::LatestValue> {
        let history = self.shared.history();
        let found = history.of_host(host).filter(|found| wanted(found.key.signal.owner));
        found.filter_map(|found| wire::latest(&found)).collect()
    }

    fn units(&self, host: &str) -> Vec<v1::UnitInfo> {
        let (history, now) = (self.shared.history(), BootTime::now());
        let newest = newest(&history, host);
        let mut units: BTreeMap<&str, v1::UnitInfo> = BTreeMap::new();
        for found in history.of_host(host) {
            if found.key.signal.owner == Owner::Unit {
                let unit = units.entry(&found.key.instance).or_default();
                unit.live |= is_live(&found, newest, now);
                unit.latest.extend(wire::latest(&found));
            }
        }
        let named = units.into_iter().map(|(name, unit)| v1::UnitInfo {
            host: host.to_owned(),
            unit: name.to_owned(),
            ..unit
        });
        named.collect()
    }

    async fn stored_events(&self, query: Query) -> Result<Vec<FleetEvent>, Status> {
        let store = self.shared.store.clone();
        let read = task::spawn_blocking(move || store.events(&query)).await;
        let failed = |e: &store::Error| Status::internal(format!("events cannot be read: {e}"));
        read.map_err(|_| Status::internal("events cannot be read"))?.map_err(|e| failed(&e))
    }

    fn query(&self, request: v1::ListEventsRequest) -> Result<Query, Status> {
        if !request.host.is_empty() {
            self.check_host(&request.host)?;
        }
        let limit = match request.limit as usize {
            0 => EVENTS,
            limit => limit.min(MOST_EVENTS),
        };
        let since_unix_ms = match request.last_ms {
            0 => 0,
            last_ms => clock::unix_ms().saturating_sub(last_ms),
        };
        let (host, unit, kind) = (request.host, request.unit, request.kind);
        Ok(Query { host, unit, kind, limit, bytes: ANSWER_BYTES / 2, since_unix_ms })
    }
}

/// When the host's newest batch arrived.
fn newest(history: &History, host: &str) -> BootTime {
    history.of_host(host).map(|found| found.updated).max().unwrap_or_default()
}

/// Whether the series was in the host's `newest` batch, and that is not too long ago.
fn is_live(found: &Found<'_>, newest: BootTime, now: BootTime) -> bool {
    let window_ms = found.newest().map_or(0, |window| u64::from(window.window_ms));
    newest.since(found.updated).as_millis() < u128::from(window_ms / 2)
        && now.since(found.updated).as_millis() <= u128::from(window_ms * LIVE_WINDOWS)
}

#[tonic::async_trait]
impl Operator for Service {
    type WatchEventsStream = ReceiverStream<Result<v1::FleetEvent, Status>>;

    async fn list_hosts(&self, _: Request<v1::ListHostsRequest>) -> Answer<v1::ListHostsResponse> {
        let _turn = self.turn().await?;
        let (mut hosts, mut bytes): (Vec<v1::HostInfo>, usize) = (Vec::new(), 0);
        let mut after = String::new();
        while let Some(mut info) = self.host_after(&after) {
            if bytes < VALUES_UP_TO {
                info.latest = self.latest(&info.host, |owner| owner != Owner::Unit);
            }
            bytes += info.encoded_len();
            after.clone_from(&info.host);
            hosts.push(info);
            // A list of thousands must not keep a worker from its agents.
            task::yield_now().await;
        }
        Ok(Response::new(v1::ListHostsResponse { host: hosts }))
    }

    async fn get_host(&self, request: Request<v1::GetHostRequest>) -> Answer<v1::GetHostResponse> {
        let _turn = self.turn().await?;
        let name = request.into_inner().host;
        let known = self.shared.fleet().host(&name).map(|host| {
            (wire::host(host), host.probes.iter().map(wire::probe).collect::<Vec<_>>())
        });
        let Some((mut info, probe)) = known else { return Err(self.no_host(&name)) };
        self.count(&mut info);
        let latest = self.latest(&name, |_| true);
        Ok(Response::new(v1::GetHostResponse { host: Some(info), probe, latest }))
    }

    async fn list_units(
        &self,
        request: Request<v1::ListUnitsRequest>,
    ) -> Answer<v1::ListUnitsResponse> {
        let _turn = self.turn().await?;
        let name = request.into_inner().host;
        let hosts: Vec<String> = if name.is_empty() {
            self.shared.fleet().hosts().map(|host| host.record.host.to_string()).collect()
        } else {
            self.check_host(&name)?;
            vec![name]
        };
        let (mut all, mut bytes) = (Vec::new(), 0);
        for host in hosts {
            let mut units = self.units(&host);
            if bytes >= VALUES_UP_TO {
                units.iter_mut().for_each(|unit| unit.latest.clear());
            }
            bytes += units.iter().map(|unit| unit.encoded_len()).sum::<usize>();
            all.append(&mut units);
            task::yield_now().await;
        }
        Ok(Response::new(v1::ListUnitsResponse { unit: all }))
    }

    async fn list_signals(
        &self,
        _: Request<v1::ListSignalsRequest>,
    ) -> Answer<v1::ListSignalsResponse> {
        let _turn = self.turn().await?;
        let signals = self.shared.fleet().signals();
        let signal = signals.iter().map(|signal| wire::signal(signal)).collect();
        Ok(Response::new(v1::ListSignalsResponse { signal }))
    }

    async fn get_series(
        &self,
        request: Request<v1::GetSeriesRequest>,
    ) -> Answer<v1::GetSeriesResponse> {
        let _turn = self.turn().await?;
        let request = request.into_inner();
        self.check_host(&request.host)?;
        let keys: Vec<SeriesKey> = {
            let history = self.shared.history();
            let of_host = history.of_host(&request.host).map(|found| found.key);
            of_host.filter(|key| *key.signal.name == *request.signal).cloned().collect()
        };
        if keys.is_empty() {
            let catalogue = self.shared.fleet().host(&request.host).map(|h| h.catalogue.clone());
            let catalogue = catalogue.unwrap_or_default();
            let known = || catalogue.iter().map(|signal| &*signal.name);
            let is_known = known().any(|name| name == request.signal);
            return if is_known {
                Ok(Response::new(v1::GetSeriesResponse::default()))
            } else {
                Err(not_found("signal", &request.signal, known()))
            };
        }
        let of_host = keys.iter().any(|key| key.signal.owner == Owner::Host);
        let every_instance = request.instance.is_empty() && !of_host;
        let wanted = |key: &&SeriesKey| every_instance || *key.instance == *request.instance;
        let mut room = ANSWER_BYTES / 2;
        let mut series = Vec::new();
        for key in keys.iter().filter(wanted) {
            // One lock for each series: agents must not wait for a large answer.
            let history = self.shared.history();
            let Some(found) = history.one(&request.host, key) else { continue };
            let points = points(&found, request.last_ms, &mut room)?;
            let (signal, instance) = (Some(wire::signal(&key.signal)), key.instance.to_string());
            series.push(v1::SeriesPoints { signal, instance, point: points });
        }
        if series.is_empty() {
            let known = keys.iter().map(|key| &*key.instance).filter(|name| !name.is_empty());
            let what = format!("series of {} on {} for", request.signal, request.host);
            return Err(not_found(&what, &request.instance, known));
        }
        Ok(Response::new(v1::GetSeriesResponse { series }))
    }

    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Answer<v1::ListEventsResponse> {
        let _turn = self.turn().await?;
        let events = self.stored_events(self.query(request.into_inner())?).await?;
        let event = events.iter().map(wire::event).collect();
        Ok(Response::new(v1::ListEventsResponse { event }))
    }

    async fn watch_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Answer<Self::WatchEventsStream> {
        let query = self.query(request.into_inner())?;
        let Ok(place) = self.watchers.clone().try_acquire_owned() else {
            return Err(Status::resource_exhausted(format!("{WATCHERS} others watch events")));
        };
        // Subscribed before the past is read: nothing falls between the two.
        let new = self.shared.ingest.watch();
        let past = {
            let _turn = self.turn().await?;
            self.stored_events(query.clone()).await?
        };
        let (out, events) = mpsc::channel(watch::OUTBOUND);
        let (shared, watching) = (self.shared.clone(), self.shared.metrics.watchers.clone());
        self.shared.tasks.spawn(async move {
            watching.inc();
            watch::run(&shared, query, past, new, out).await;
            watching.dec();
            drop(place);
        });
        Ok(Response::new(ReceiverStream::new(events)))
    }
}

/// Windows of a series no older than `last_ms`, as far as `room` bytes go.
///
/// Their age is counted from when the newest arrived, by the collector's clock: a
/// host whose clock is wrong has its newest windows all the same.
fn points(found: &Found<'_>, last_ms: u64, room: &mut usize) -> Result<Vec<v1::Point>, Status> {
    let age_ms = BootTime::now().since(found.updated).as_millis() as u64;
    let newest = found.newest().map_or(0, |window| window.end_unix_ms);
    let young = |end: u64| last_ms == 0 || age_ms + newest.saturating_sub(end) <= last_ms;
    let mut points = Vec::new();
    for window in found.windows.iter().filter(|window| young(window.end_unix_ms)) {
        let point = wire::point(window);
        *room = room.checked_sub(point.encoded_len()).ok_or_else(|| {
            let text = "the answer would be too large; ask for one instance, or for less time";
            Status::resource_exhausted(text)
        })?;
        points.push(point);
    }
    Ok(points)
}
