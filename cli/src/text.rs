//! Makes text from the network fit to be shown on a terminal.

use holdfast_proto::limits::TEXT_BYTES;

/// `text` on one line, without control characters and without the invisible
/// characters that reorder or hide what follows; at most [`TEXT_BYTES`] long.
pub(crate) fn clean(text: &str) -> String {
    let end = text.floor_char_boundary(TEXT_BYTES);
    text.get(..end).unwrap_or_default().chars().map(visible).collect()
}

fn visible(c: char) -> char {
    match c {
        '\n' | '\t' => ' ',
        // Direction marks, zero-width characters, line separators, byte-order mark.
        '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}' => char::REPLACEMENT_CHARACTER,
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_that_moves_the_cursor() {
        assert_eq!(clean("a\u{1b}[2Jb"), "a\u{fffd}[2Jb");
        assert_eq!(clean("a\u{9b}31m\r\u{7f}"), "a\u{fffd}31m\u{fffd}\u{fffd}");
        assert_eq!(clean("evil\u{202e}txt"), "evil\u{fffd}txt");
        assert_eq!(clean("two\nlines\tö"), "two lines ö");
        assert_eq!(clean(&"ä".repeat(TEXT_BYTES)).len(), TEXT_BYTES);
    }
}
