//! Bucket geometry of every histogram on the wire, and the arithmetic that both
//! ends do on buckets.
//!
//! Log-linear: [`BUCKETS`] buckets, four to each power of two, so that the middle
//! of a bucket is within 12.5 % of every value in it. Bucket 0 holds
//! everything below [`FIRST_BOUND`]; the last bucket has no upper bound (it
//! starts at 1.5 · 2^40, 27 minutes in nanoseconds, 1.5 TiB in bytes). The eBPF programs
//! fill the same buckets (`holdfast_agent_ebpf::histogram`, held equal by a test).

use crate::v1;

/// Number of buckets; a power of two so that the kernel side can mask an index.
pub const BUCKETS: usize = 128;
/// First bound: values below it share bucket 0.
pub const FIRST_BOUND: u64 = 1 << FIRST_BITS;
const FIRST_BITS: u32 = 9;
const SUB_BITS: u32 = 2;

/// The bucket that holds `value`.
#[must_use]
pub fn bucket_of(value: u64) -> usize {
    if value < FIRST_BOUND {
        return 0;
    }
    let octave = 63 - value.leading_zeros();
    let sub = (value >> (octave - SUB_BITS)) & ((1 << SUB_BITS) - 1);
    let index = 1 + (u64::from(octave - FIRST_BITS) << SUB_BITS) + sub;
    (index as usize).min(BUCKETS - 1)
}

/// Lowest value of bucket `index`.
#[must_use]
pub fn lower_bound(index: usize) -> u64 {
    if index == 0 {
        return 0;
    }
    let step = (index.min(BUCKETS - 1) - 1) as u64;
    let (octave, sub) = (step >> SUB_BITS, step & ((1 << SUB_BITS) - 1));
    (FIRST_BOUND << octave) + ((FIRST_BOUND >> SUB_BITS) << octave) * sub
}

/// One past the highest value of bucket `index`; `u64::MAX` for the last.
#[must_use]
pub fn upper_bound(index: usize) -> u64 {
    if index + 1 >= BUCKETS { u64::MAX } else { lower_bound(index + 1) }
}

/// Middle of bucket `index`; the lower bound for the last.
#[must_use]
pub fn middle(index: usize) -> f64 {
    let low = lower_bound(index) as f64;
    if index + 1 >= BUCKETS { low } else { low.midpoint(upper_bound(index) as f64) }
}

/// The value below which a share `q` of all counted values lies: the middle of the
/// bucket that holds it. `None` when nothing was counted or `q` is not in 0..=1.
#[must_use]
pub fn quantile(counts: impl Iterator<Item = (usize, u64)> + Clone, q: f64) -> Option<f64> {
    let total: u64 = counts.clone().map(|(_, n)| n).sum();
    if total == 0 || !(0.0..=1.0).contains(&q) {
        return None;
    }
    let rank = ((q * total as f64).ceil() as u64).clamp(1, total);
    let mut seen = 0;
    for (index, n) in counts {
        seen += n;
        if seen >= rank {
            return Some(middle(index));
        }
    }
    None
}

impl v1::Histogram {
    /// The sparse form of dense bucket counts.
    #[must_use]
    pub fn from_dense(counts: &[u64; BUCKETS], sum: u64) -> Self {
        let mut sparse = Self { sum, ..Self::default() };
        for (index, &n) in counts.iter().enumerate().filter(|(_, n)| **n > 0) {
            sparse.bucket.push(index as u32);
            sparse.count.push(n);
        }
        sparse
    }

    /// Whether buckets and counts pair up, ascend and stay within [`BUCKETS`].
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.bucket.len() == self.count.len()
            && self.bucket.iter().all(|&b| (b as usize) < BUCKETS)
            && self.bucket.is_sorted_by(|a, b| a < b)
            && self.count.iter().try_fold(0u64, |sum, &n| sum.checked_add(n)).is_some()
    }

    /// Pairs of bucket and count.
    pub fn counts(&self) -> impl Iterator<Item = (usize, u64)> + Clone + '_ {
        self.bucket.iter().zip(&self.count).map(|(&b, &n)| (b as usize, n))
    }

    /// How many values were counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.count.iter().fold(0, |sum, &n| sum.saturating_add(n))
    }

    /// See [`quantile`].
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        quantile(self.counts(), q)
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        let mut dense = [0u64; BUCKETS];
        for (bucket, n) in self.counts().chain(other.counts()) {
            if let Some(cell) = dense.get_mut(bucket) {
                *cell = cell.saturating_add(n);
            }
        }
        *self = Self::from_dense(&dense, self.sum.saturating_add(other.sum));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_and_buckets_agree() {
        for index in 0..BUCKETS {
            assert_eq!(bucket_of(lower_bound(index)), index);
            if index + 1 < BUCKETS {
                assert_eq!(bucket_of(upper_bound(index) - 1), index);
            }
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn middle_is_within_an_eighth() {
        for value in (FIRST_BOUND..1 << 20).step_by(97) {
            let error = (middle(bucket_of(value)) - value as f64).abs() / value as f64;
            assert!(error <= 0.125, "{value}: {error}");
        }
    }

    #[test]
    fn quantiles_of_known_counts() {
        let mut dense = [0u64; BUCKETS];
        dense[10] = 90;
        dense[20] = 10;
        let sparse = v1::Histogram::from_dense(&dense, 0);
        assert_eq!(sparse.quantile(0.5), Some(middle(10)));
        assert_eq!(sparse.quantile(0.99), Some(middle(20)));
        assert_eq!(v1::Histogram::default().quantile(0.5), None);
        assert_eq!(sparse.quantile(1.5), None);
    }

    #[test]
    fn merge_adds_and_bad_histograms_are_seen() {
        let mut a = v1::Histogram { bucket: vec![1, 5], count: vec![2, 3], sum: 10 };
        a.merge(&v1::Histogram { bucket: vec![5, 7], count: vec![1, 1], sum: 5 });
        assert_eq!(
            (a.bucket.as_slice(), a.count.as_slice(), a.sum),
            (&[1, 5, 7][..], &[2, 4, 1][..], 15)
        );
        assert!(a.is_valid());
        assert!(!v1::Histogram { bucket: vec![5, 5], count: vec![1, 1], sum: 0 }.is_valid());
        assert!(!v1::Histogram { bucket: vec![128], count: vec![1], sum: 0 }.is_valid());
        assert!(!v1::Histogram { bucket: vec![1], count: vec![], sum: 0 }.is_valid());
    }
}
