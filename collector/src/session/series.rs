//! The series of one stream: the numbers its agent gave them, and where each lies
//! in the history.

use std::{collections::BTreeSet, sync::Arc};

use holdfast_core::clock::BootTime;
use holdfast_proto::{limits, v1};

use super::check::{self, Reject};
use crate::{
    history::{self, History},
    metrics::Reason,
    model::{Catalogue, Name, SeriesKey, Window},
};

/// Memory of one defined series, beside its name.
const DEFINED_BYTES: usize = size_of::<Option<Defined>>();

/// Numbered series of a stream.
#[derive(Debug)]
pub(super) struct Series {
    host: Name,
    catalogue: Catalogue,
    /// By the agent's number.
    defined: Vec<Option<Defined>>,
    count: usize,
    /// Names of units and devices; most have many series.
    instances: BTreeSet<Name>,
}

#[derive(Debug)]
struct Defined {
    key: SeriesKey,
    id: Option<history::Id>,
}

/// Checked windows of a batch, by series number.
pub(super) type Windows = Vec<(usize, Window)>;

fn bad<T>(message: String) -> Result<T, Reject> {
    Err(Reject { reason: Reason::Series, message })
}

impl Series {
    pub(super) fn new(host: Name, catalogue: Catalogue) -> Self {
        let (defined, instances) = (Vec::new(), BTreeSet::new());
        Self { host, catalogue, defined, count: 0, instances }
    }

    /// Takes in definitions; how much memory they need.
    pub(super) fn define(&mut self, definitions: &[v1::SeriesDef]) -> Result<usize, Reject> {
        let mut bytes = 0;
        for definition in definitions {
            let number = definition.series as usize;
            if number > limits::SERIES_PER_HOST || self.count >= limits::SERIES_PER_HOST {
                let most = limits::SERIES_PER_HOST;
                let message = format!("a stream defines at most {most} series, numbered up to it");
                return Err(Reject { reason: Reason::SeriesLimit, message });
            }
            let Some(signal) = self.catalogue.get(definition.signal as usize) else {
                return bad(format!("signal {} is not in the catalogue", definition.signal));
            };
            check::instance(signal, &definition.instance)?;
            let instance = match self.instances.get(&*definition.instance) {
                Some(known) => known.clone(),
                None => {
                    let new = Name::from(&*definition.instance);
                    bytes += new.len() + 48;
                    self.instances.insert(new.clone());
                    new
                }
            };
            let key = SeriesKey { signal: Arc::clone(signal), instance };
            if number >= self.defined.len() {
                bytes += (number + 1 - self.defined.len()) * DEFINED_BYTES;
                self.defined.resize_with(number + 1, || None);
            }
            match self.defined.get_mut(number) {
                Some(place @ None) => *place = Some(Defined { key, id: None }),
                _ => return bad(format!("series {number} is defined twice")),
            }
            self.count += 1;
        }
        Ok(bytes)
    }

    /// Checks every summary of a batch; nothing is taken in before all are good.
    pub(super) fn windows(&self, batch: &v1::SummaryBatch) -> Result<Windows, Reject> {
        let window = |wire: &v1::Summary| {
            let number = wire.series as usize;
            let Some(Some(defined)) = self.defined.get(number) else {
                return bad(format!("series {number} has a summary but was not defined"));
            };
            let (end, window_ms) = (batch.end_unix_ms, batch.window_ms);
            Ok((number, check::summary(&defined.key.signal, end, window_ms, wire)?))
        };
        batch.summary.iter().map(window).collect()
    }

    /// Puts checked windows into the history.
    pub(super) fn push(&mut self, history: &mut History, now: BootTime, windows: Windows) {
        for (number, window) in windows {
            if let Some(Some(series)) = self.defined.get_mut(number) {
                let (host, key) = (&self.host, &series.key);
                series.id = Some(history.push(now, host, key, series.id, window));
            }
        }
    }
}
