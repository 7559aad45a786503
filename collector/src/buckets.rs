//! The buckets of one histogram window, packed: recent windows of thousands of
//! series are held in memory, and most buckets of most windows are empty.
//!
//! Layout: the sum, then for each bucket that is not empty the distance from the
//! bucket before it and its count, all as base-128 varints.

/// Bucket counts and the sum of all values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buckets(Box<[u8]>);

impl Buckets {
    /// Packs `counts` (bucket numbers ascending) and `sum`.
    pub fn new(counts: impl Iterator<Item = (usize, u64)>, sum: u64) -> Self {
        let mut bytes = Vec::with_capacity(64);
        put(&mut bytes, sum);
        let mut previous = 0;
        for (bucket, count) in counts.filter(|(_, count)| *count > 0) {
            put(&mut bytes, bucket.saturating_sub(previous) as u64);
            put(&mut bytes, count);
            previous = bucket;
        }
        Self(bytes.into_boxed_slice())
    }

    /// Sum of all values.
    #[must_use]
    pub fn sum(&self) -> u64 {
        take(&mut self.0.iter()).unwrap_or_default()
    }

    /// Pairs of bucket and count, ascending, none empty.
    pub fn counts(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let mut bytes = self.0.iter();
        take(&mut bytes);
        let mut bucket = 0;
        std::iter::from_fn(move || {
            bucket += take(&mut bytes)? as usize;
            Some((bucket, take(&mut bytes)?))
        })
    }

    /// Memory beside the value itself.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.0.len()
    }
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take<'a>(bytes: &mut impl Iterator<Item = &'a u8>) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.next()?;
        number |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_packed_comes_out(
            counts in prop::collection::btree_map(0usize..128, 1u64.., 0..20),
            sum: u64,
        ) {
            let packed = Buckets::new(counts.clone().into_iter(), sum);
            prop_assert_eq!(packed.sum(), sum);
            prop_assert!(packed.counts().eq(counts));
        }
    }

    #[test]
    fn empty_buckets_are_not_kept() {
        let packed = Buckets::new([(3, 0), (5, 7), (9, 0)].into_iter(), 1);
        assert_eq!(packed.counts().collect::<Vec<_>>(), [(5, 7)]);
        assert_eq!(packed.heap_bytes(), 3);
    }
}
