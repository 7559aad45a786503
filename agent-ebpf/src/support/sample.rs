//! Which events to look at when not all of them are.

use holdfast_agent_ebpf::depth::SAMPLE;

/// Events that are further apart than this are all looked at: there is little to save,
/// and one that took long would be taken for many.
const RARE_NS: u64 = 20_000;

/// How many events on is the next to look at: [`SAMPLE`] in the mean, 1 where events
/// are rare. It counts for that many.
///
/// Not always as many, or events that take turns would always show the same side.
/// `before` is the time of the last look, `n` the number of events since then.
#[inline(always)]
pub fn stride(before: u64, now: u64, n: u32) -> u32 {
    const HALF: u32 = SAMPLE as u32 - 1;
    if now.wrapping_sub(before) > u64::from(n) * RARE_NS {
        return 1;
    }
    // The last digits of the time are as good as chance once they are spread.
    let chance = (now.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32;
    1 + (chance & HALF) + (chance >> 16 & HALF)
}
