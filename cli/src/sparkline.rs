//! A series as one line of block characters.

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The newest `width` of `values`, scaled from zero (or the lowest, when below
/// zero) to the highest. A value that is not finite leaves a gap.
pub(crate) fn draw(values: &[f64], width: usize) -> String {
    let newest = values.get(values.len().saturating_sub(width)..).unwrap_or_default();
    let finite = || newest.iter().copied().filter(|value| value.is_finite());
    let (low, high) = (finite().fold(0.0, f64::min), finite().fold(0.0, f64::max));
    let block = |value: f64| {
        if !value.is_finite() {
            return ' ';
        }
        let share = if high > low { (value - low) / (high - low) } else { 0.0 };
        // Within 0..=7, so the conversion cannot cut anything off.
        let step = (share * 7.0).round() as usize;
        BLOCKS.get(step).copied().unwrap_or('█')
    };
    newest.iter().map(|&value| block(value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_from_zero_and_keeps_the_newest() {
        assert_eq!(draw(&[0.0, 3.5, 7.0], 10), "▁▅█");
        assert_eq!(draw(&[9.0, 0.0, f64::NAN, 7.0], 3), "▁ █");
        assert_eq!(draw(&[0.0, 0.0], 10), "▁▁");
        assert_eq!(draw(&[], 10), "");
    }
}
