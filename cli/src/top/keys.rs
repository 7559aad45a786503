//! The keys of `holdfast top`, as its help and its own panel show them.

/// One line for each key, below a heading.
pub(crate) const TEXT: &str = "\
Keys:
  Up, Down       Move in the chosen pane; in the hosts pane, choose a host
  Left, Right    Choose the pane before or after; so do Tab and Shift-Tab
  s              Sort units by the next column
  ?              Show or hide the keys
  q, Escape      Quit";
