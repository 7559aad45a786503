//! What metrics usually do together.
//!
//! Metrics of a host move together: load and run queue, bytes and packets. The strongest
//! common movements are found on line by candid covariance-free incremental principal
//! component analysis (Weng, Zhang and Hwang, IEEE TPAMI 25(8), 2003); what they leave of
//! a metric is what it does on its own, and is odd where the metric by itself is not.

use crate::keep::keep;

/// Common movements that are followed. Two left more of the labelled faults visible than
/// four or eight did.
pub const COMPONENTS: usize = 2;

/// The common movements of one group's metrics.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Subspace {
    /// Direction of each movement, a share for each metric; as long as the movement is strong.
    directions: [Vec<f32>; COMPONENTS],
    found: usize,
}

keep!(Subspace { directions, found });

impl Subspace {
    /// For so many metrics.
    #[must_use]
    pub fn new(metrics: usize) -> Self {
        Self { directions: std::array::from_fn(|_| vec![0.0; metrics]), found: 0 }
    }

    pub(crate) fn is_of(&self, metrics: usize) -> bool {
        self.found <= COMPONENTS && self.directions.iter().all(|way| way.len() == metrics)
    }

    pub(crate) fn with_columns(&self, columns: &[Option<usize>]) -> Self {
        let directions = self.directions.each_ref().map(|way| {
            let share = |from: &Option<usize>| from.and_then(|n| way.get(n)).copied();
            columns.iter().map(|from| share(from).unwrap_or(0.0)).collect()
        });
        Self { directions, found: self.found }
    }

    /// Takes the common movements out of `values`.
    pub fn reduce(&self, values: &mut [f32]) {
        for direction in self.directions.iter().take(self.found) {
            let length = dot(direction, direction);
            if length > 0.0 {
                let share = dot(values, direction) / length;
                subtract(values, share, direction);
            }
        }
    }

    /// Learns from `values`, which are used up, with weight `w`.
    pub fn learn(&mut self, values: &mut [f32], w: f32) {
        for (n, direction) in self.directions.iter_mut().enumerate() {
            if n >= self.found {
                if dot(values, values) > 1e-9 {
                    direction.copy_from_slice(values);
                    self.found += 1;
                }
                return;
            }
            let strength = dot(direction, direction).sqrt();
            if strength <= 0.0 {
                return;
            }
            let along = dot(values, direction) / strength;
            for (share, value) in direction.iter_mut().zip(&*values) {
                *share = (1.0 - w) * *share + w * along * value;
            }
            let length = dot(direction, direction);
            if length > 0.0 {
                let share = dot(values, direction) / length;
                subtract(values, share, direction);
            }
        }
    }

    /// Directions found so far, to be kept in a file.
    #[must_use]
    pub fn directions(&self) -> &[Vec<f32>] {
        self.directions.get(..self.found).unwrap_or_default()
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn subtract(values: &mut [f32], share: f32, direction: &[f32]) {
    for (value, part) in values.iter_mut().zip(direction) {
        *value -= share * part;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_movement_is_taken_out_and_what_differs_stays() {
        let mut subspace = Subspace::new(3);
        let wave = |n: u32| (f64::from(n) / 7.0).sin() as f32;
        for n in 0..5_000 {
            let mut values = [wave(n), 2.0 * wave(n), -wave(n)];
            subspace.learn(&mut values, 1.0 / (n as f32 + 2.0));
        }
        let mut together = [0.5, 1.0, -0.5];
        subspace.reduce(&mut together);
        assert!(together.iter().all(|left| left.abs() < 0.05), "{together:?}");
        let mut apart = [0.5, -1.0, -0.5];
        subspace.reduce(&mut apart);
        assert!(apart[1].abs() > 0.3, "{apart:?}");
    }

    #[test]
    fn nothing_comes_of_nothing() {
        let mut subspace = Subspace::new(2);
        subspace.learn(&mut [0.0, 0.0], 0.5);
        assert!(subspace.directions().is_empty());
        let mut values = [1.0, 2.0];
        subspace.reduce(&mut values);
        assert_eq!(values, [1.0, 2.0]);
    }
}
