//! What was learnt, as a file.

use holdfast_scorer::keep::{Keep, Refusal, seal, unseal};

use super::subject::Subject;
use super::{Options, SUBJECTS, Scorer};
use crate::catalogue::{Owner, SignalId};

impl Scorer {
    /// Everything that was learnt, as a file.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        let mut body = Vec::new();
        self.options.window.as_secs_f64().put(&mut body);
        for signals in &self.signals {
            signals.len().put(&mut body);
            signals.iter().for_each(|id| id.signal().name.to_owned().put(&mut body));
        }
        self.calibration.save(&mut body);
        self.subjects.len().put(&mut body);
        self.subjects.iter().for_each(|subject| subject.save(&mut body));
        seal(&body)
    }

    /// A scorer that goes on where another one left off. What an episode was under way
    /// then is not known any more.
    ///
    /// # Errors
    ///
    /// Why the file cannot be used.
    pub fn restore(options: Options, file: &[u8]) -> Result<Self, Refusal> {
        let mut scorer = Self::new(options);
        let from = &mut unseal(file)?;
        let window = f64::take(from).ok_or(Refusal::Damaged)?;
        if window.to_bits() != options.window.as_secs_f64().to_bits() {
            return Err(Refusal::Other);
        }
        // Signals by name: another version has others.
        let mut names: Vec<Vec<String>> = Vec::new();
        for _ in Owner::ALL {
            names.push(Keep::take(from).ok_or(Refusal::Damaged)?);
        }
        let known = |owner: Owner| names.get(owner as usize).map_or(0, Vec::len);
        let signals = scorer.signals.clone();
        let columns = |owner: Owner| {
            let now = signals.get(owner as usize).map_or(&[][..], Vec::as_slice);
            let before = names.get(owner as usize).map_or(&[][..], Vec::as_slice);
            let place = |id: &SignalId| before.iter().position(|name| name == id.signal().name);
            now.iter().map(place).collect::<Vec<_>>()
        };
        scorer.calibration.restore(from).ok_or(Refusal::Damaged)?;
        for _ in 0..usize::take(from).ok_or(Refusal::Damaged)?.min(SUBJECTS) {
            scorer.subjects.push(Subject::restore(from, &options, columns, known)?);
        }
        scorer.rebuild_index();
        Ok(scorer)
    }
}
