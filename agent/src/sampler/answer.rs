//! What the sampler answers to those who ask: how it does, how the probes do, and
//! what the programs cost, which takes a measurement.

use std::time::Duration;

use holdfast_core::clock::BootTime;
use tokio::sync::oneshot;

use super::Sampler;
use crate::kernel::{Kernel, Measurement, ProgramCost};
use crate::losses::Cause;
use crate::report::{ProbesReport, Request, Status};

/// A measurement of the programs under way, for somebody who waits.
pub(super) struct Measuring {
    measurement: Measurement,
    pub(super) until: tokio::time::Instant,
    answer: oneshot::Sender<ProbesReport>,
}

impl Sampler {
    pub(super) fn answer(&mut self, request: Request) {
        match request {
            Request::Status { answer } => {
                let status = Status {
                    uptime_seconds: BootTime::now().since_boot().as_secs_f64(),
                    vitals: self.vitals(),
                    units: self.units_live(),
                    newest: self.summarizer.newest().collect(),
                };
                let _ = answer.send(status);
            }
            Request::Blame { unit, last, answer } => {
                let _ = answer.send(self.blame_report(&unit, last));
            }
            Request::Episodes { answer } => drop(answer.send(self.episodes())),
            Request::Calibration { answer } => drop(answer.send(self.calibration())),
            Request::Judge { id, feedback, answer } => drop(answer.send(self.judge(id, feedback))),
            Request::Change { change, answer } => drop(answer.send(self.note_change(change))),
            Request::Probes { measure, answer } => self.answer_probes(measure, answer),
            Request::Attest { disruptive, answer } => self.answer_attest(disruptive, answer),
        }
    }

    fn answer_probes(&mut self, measure: Duration, answer: oneshot::Sender<ProbesReport>) {
        let loaded = self.kernel.as_ref().ok().filter(|_| !measure.is_zero());
        let Some(kernel) = loaded else {
            let _ = answer.send(self.probes_report(&[]));
            return;
        };
        if self.measuring.is_some() {
            // Dropping the answer tells the asker; one measurement at a time.
            self.losses.add(Cause::Requests, 1);
            return;
        }
        match kernel.measure() {
            Ok(measurement) => {
                let until = tokio::time::Instant::now() + measure;
                self.measuring = Some(Measuring { measurement, until, answer });
            }
            Err(error) => {
                let measure_error = error.to_string();
                let _ = answer.send(ProbesReport { measure_error, ..self.probes_report(&[]) });
            }
        }
    }

    pub(super) fn finish_measuring(&mut self) {
        let (Some(measuring), Ok(kernel)) = (self.measuring.take(), &self.kernel) else { return };
        let costs = measuring.measurement.finish(kernel);
        let _ = measuring.answer.send(self.probes_report(&costs));
    }

    fn probes_report(&self, costs: &[ProgramCost]) -> ProbesReport {
        let loaded = self.kernel.as_ref().ok();
        ProbesReport {
            probes: self.statuses(costs),
            map_bytes: loaded.map_or(0, Kernel::map_bytes),
            map_limit_bytes: self.options.map_limit_bytes,
            slots_used: self.units_live(),
            slots: self.slots(),
            measure_error: String::new(),
            overhead: self.overhead(),
            overhead_note: self.overhead_note(),
        }
    }
}
