//! Bucket geometry: log-linear, four buckets to each power of two.
//!
//! The same as `holdfast_proto::histogram`, which a test of the agent holds it
//! to. Written without a count of leading zeros, which the BPF instruction set
//! does not have.

/// Number of buckets; a power of two, so that an index can be masked.
pub const BUCKETS: usize = 128;
/// Values below 2 to this power share bucket 0.
const FIRST_BITS: u32 = 9;
/// Buckets to a power of two, as a power of two.
const SUB_BITS: u32 = 2;
/// Values from 2 to this power on are all in the last bucket.
const LAST_BITS: u32 = 41;

/// The bucket that holds `value`; always below [`BUCKETS`].
#[inline(always)]
#[must_use]
pub const fn bucket_of(value: u64) -> u32 {
    if value >> FIRST_BITS == 0 {
        return 0;
    }
    if value >> LAST_BITS != 0 {
        return BUCKETS as u32 - 1;
    }
    // The octave by bisection: what is left of `rest` is its leading digit.
    let mut rest = value >> FIRST_BITS;
    let mut octave = 0;
    if rest >> 16 != 0 {
        rest >>= 16;
        octave += 16;
    }
    if rest >> 8 != 0 {
        rest >>= 8;
        octave += 8;
    }
    if rest >> 4 != 0 {
        rest >>= 4;
        octave += 4;
    }
    if rest >> 2 != 0 {
        rest >>= 2;
        octave += 2;
    }
    if rest >> 1 != 0 {
        octave += 1;
    }
    let sub = (value >> (octave + FIRST_BITS - SUB_BITS)) & ((1 << SUB_BITS) - 1);
    let index = 1 + (octave << SUB_BITS) + sub as u32;
    if index < BUCKETS as u32 { index } else { BUCKETS as u32 - 1 }
}
