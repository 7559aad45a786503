//! Waits for a CPU, divided among those who had it.
//!
//! Long waits the kernel side has charged already, turn by turn. What is left of a
//! unit's waits (short ones, and long ones that reach back too far) is divided by who
//! had the same CPU in the same second, and for how long.

use super::ledger::Ledger;

/// Less than this in a tick is not worth dividing.
const WORTH_NS: f64 = 100_000.0;

/// What a unit did on one CPU, counted since the programs were loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuUse {
    /// Switches to its tasks.
    pub switches: u64,
    /// Nanoseconds that they ran.
    pub ran_ns: u64,
    /// Nanoseconds that they waited for this CPU.
    pub waited_ns: u64,
}

/// Where the counters are. They only grow.
pub trait CpuSource {
    /// What the unit in slot `unit` did on `cpu`.
    fn used(&self, cpu: usize, unit: usize) -> CpuUse;
    /// Nanoseconds that `victim` waited while `culprit` ran, both below the number of rows.
    fn charged_ns(&self, victim: usize, culprit: usize) -> u64;
    /// Nanoseconds that `victim` waited while its CPU was idle: nobody is to blame.
    fn idle_ns(&self, victim: usize) -> u64;
}

/// What a unit gained on one CPU in this tick.
#[derive(Debug, Clone, Copy, Default)]
struct Gain {
    switches: u64,
    ran: f64,
    waited: f64,
}

/// What was there at the last tick.
#[derive(Debug)]
pub(super) struct Cpu {
    units: usize,
    /// Slots that the kernel's matrix tells apart; the others are its row and column 0.
    rows: usize,
    /// By CPU, then by unit.
    last: Vec<CpuUse>,
    gains: Vec<Gain>,
    /// By victim, then by culprit and the idle task.
    charged: Vec<u64>,
    /// Time that each unit ran, on all CPUs together.
    ran: Vec<f64>,
    by_culprit: Vec<f64>,
}

impl Cpu {
    /// For counters that begin at zero.
    #[must_use]
    pub(super) fn new(cpus: usize, units: usize, rows: usize) -> Self {
        let units = units.max(1);
        Self {
            units,
            rows: rows.min(units),
            last: vec![CpuUse::default(); cpus * units],
            gains: vec![Gain::default(); cpus * units],
            charged: vec![0; rows.min(units) * (rows.min(units) + 1)],
            ran: vec![0.0; units],
            by_culprit: vec![0.0; units],
        }
    }

    /// Divides what was waited since the last tick.
    pub(super) fn tick(&mut self, source: &impl CpuSource, ledger: &mut Ledger) {
        self.ran.fill(0.0);
        for (cpu, (last, gains)) in
            self.last.chunks_mut(self.units).zip(self.gains.chunks_mut(self.units)).enumerate()
        {
            for (unit, (last, gain)) in last.iter_mut().zip(gains).enumerate() {
                let now = source.used(cpu, unit);
                *gain = Gain {
                    switches: now.switches.wrapping_sub(last.switches),
                    ran: now.ran_ns.wrapping_sub(last.ran_ns) as f64,
                    waited: now.waited_ns.wrapping_sub(last.waited_ns) as f64,
                };
                *last = now;
                if let Some(ran) = self.ran.get_mut(unit) {
                    *ran += gain.ran;
                }
            }
        }
        // Slot 0 is no unit, so it is nobody's victim.
        for victim in 1..self.units {
            let gains = self.gains.iter().skip(victim).step_by(self.units);
            let (switches, waited) =
                gains.fold((0, 0.0), |(n, sum), gain| (n + gain.switches, sum + gain.waited));
            if switches > 0 {
                self.by_culprit.fill(0.0);
                let charged = self.take_charged(victim, source);
                self.divide(victim, waited, waited - charged);
                ledger.charge(victim, &self.by_culprit);
            }
        }
    }

    /// Takes over what the kernel side has charged; returns how much that was, idle
    /// time included.
    fn take_charged(&mut self, victim: usize, source: &impl CpuSource) -> f64 {
        let width = self.rows + 1;
        let Some(row) = self.charged.get_mut(victim * width..(victim + 1) * width) else {
            return 0.0;
        };
        let mut sum = 0.0;
        let mut unnamed = 0.0;
        for (culprit, last) in row.iter_mut().enumerate() {
            let idle = culprit == self.rows;
            let now =
                if idle { source.idle_ns(victim) } else { source.charged_ns(victim, culprit) };
            let gained = now.wrapping_sub(std::mem::replace(last, now)) as f64;
            sum += gained;
            match self.by_culprit.get_mut(culprit) {
                _ if idle => {}
                _ if culprit == 0 => unnamed = gained,
                Some(caused) => *caused += gained,
                None => {}
            }
        }
        self.name(unnamed);
        sum
    }

    /// Divides what column 0 got among those it stands for, by how long they ran.
    fn name(&mut self, unnamed: f64) {
        let stands_for = |slot: usize| slot == 0 || slot >= self.rows;
        let ran = self.ran.iter().enumerate().filter(|(slot, _)| stands_for(*slot));
        let all: f64 = ran.clone().map(|(_, ran)| ran).sum();
        if all <= 0.0 {
            if let Some(other) = self.by_culprit.first_mut() {
                *other += unnamed;
            }
            return;
        }
        for (slot, ran) in ran {
            if let Some(caused) = self.by_culprit.get_mut(slot) {
                *caused += unnamed * ran / all;
            }
        }
    }

    /// Divides `rest` of the `waited` nanoseconds by who had the CPUs that were waited for.
    fn divide(&mut self, victim: usize, waited: f64, rest: f64) {
        if rest < WORTH_NS || waited <= 0.0 {
            return;
        }
        for gains in self.gains.chunks(self.units) {
            let here = gains.get(victim).map_or(0.0, |gain| gain.waited / waited);
            let all: f64 = if here > 0.0 { gains.iter().map(|gain| gain.ran).sum() } else { 0.0 };
            if all > 0.0 {
                for (caused, gain) in self.by_culprit.iter_mut().zip(gains) {
                    *caused += rest * here * gain.ran / all;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use holdfast_core::clock::BootTime;

    use super::*;

    const MS: u64 = 1_000_000;

    #[derive(Default)]
    struct Counters {
        used: BTreeMap<(usize, usize), CpuUse>,
        charged: BTreeMap<(usize, usize), u64>,
        idle: BTreeMap<usize, u64>,
    }

    impl CpuSource for Counters {
        fn used(&self, cpu: usize, unit: usize) -> CpuUse {
            self.used.get(&(cpu, unit)).copied().unwrap_or_default()
        }
        fn charged_ns(&self, victim: usize, culprit: usize) -> u64 {
            self.charged.get(&(victim, culprit)).copied().unwrap_or_default()
        }
        fn idle_ns(&self, victim: usize) -> u64 {
            self.idle.get(&victim).copied().unwrap_or_default()
        }
    }

    fn used(switches: u64, ran_ms: u64, waited_ms: u64) -> CpuUse {
        CpuUse { switches, ran_ns: ran_ms * MS, waited_ns: waited_ms * MS }
    }

    /// What `victim` waited for after one tick, in milliseconds.
    fn divided(counters: &Counters, units: usize, rows: usize, victim: usize) -> Vec<(usize, f64)> {
        let mut ledger = Ledger::new(units, BootTime::default());
        ledger.advance(BootTime::new(Duration::from_secs(1)));
        let mut cpu = Cpu::new(2, units, rows);
        cpu.tick(counters, &mut ledger);
        let once = ledger.sum(victim, Duration::from_secs(60));
        cpu.tick(counters, &mut ledger);
        assert_eq!(ledger.sum(victim, Duration::from_secs(60)), once, "nothing happened since");
        once.culprits.into_iter().map(|(slot, ns)| (slot, (ns / 1e6).round())).collect()
    }

    #[test]
    fn long_waits_are_as_charged_and_the_rest_by_time_on_the_same_cpu() {
        let counters = Counters {
            used: BTreeMap::from([
                ((0, 1), used(10, 100, 500)),
                ((0, 2), used(10, 300, 0)),
                ((1, 3), used(10, 900, 0)),
            ]),
            charged: BTreeMap::from([((1, 2), 400 * MS)]),
            idle: BTreeMap::from([(1, 20 * MS)]),
        };
        // 80 ms are left; unit 3 ran elsewhere.
        assert_eq!(divided(&counters, 8, 8, 1), [(2, 460.0), (1, 20.0)]);
    }

    #[test]
    fn waits_are_divided_by_where_they_were_waited() {
        let counters = Counters {
            used: BTreeMap::from([
                ((0, 1), used(5, 0, 30)),
                ((0, 2), used(5, 500, 0)),
                ((1, 1), used(5, 0, 10)),
                ((1, 3), used(5, 500, 0)),
            ]),
            ..Counters::default()
        };
        assert_eq!(divided(&counters, 8, 8, 1), [(2, 30.0), (3, 10.0)]);
    }

    #[test]
    fn units_beyond_the_matrix_are_told_apart_by_their_time() {
        let counters = Counters {
            used: BTreeMap::from([
                ((0, 1), used(5, 0, 100)),
                ((0, 0), used(5, 100, 0)),
                ((0, 6), used(5, 300, 0)),
                ((0, 7), used(5, 400, 40)),
            ]),
            charged: BTreeMap::from([((1, 0), 100 * MS)]),
            ..Counters::default()
        };
        assert_eq!(divided(&counters, 8, 4, 1), [(7, 50.0), (6, 38.0), (0, 13.0)]);
        // A victim beyond it has no row of its own, but waits all the same.
        assert_eq!(divided(&counters, 8, 4, 7), [(7, 20.0), (6, 15.0), (0, 5.0)]);
    }

    #[test]
    fn nobody_is_blamed_where_nobody_ran() {
        let counters =
            Counters { used: BTreeMap::from([((0, 1), used(5, 0, 9))]), ..Counters::default() };
        assert!(divided(&counters, 4, 4, 1).is_empty());
        assert!(divided(&counters, 4, 4, 0).is_empty(), "slot 0 is no victim");
    }
}
