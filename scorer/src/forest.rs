//! An isolation forest over how loud each metric is: which *patterns* are rare?
//!
//! After Liu, Ting and Zhou (ICDM 2008): rows that few random cuts set apart from a sample
//! of the past are odd. On raw values it is among the weakest detectors; on the logarithms
//! of the loudness that the baselines give it sees combinations that no metric alone shows.

use crate::keep::{Keep, keep};

/// Trees of a forest, rows that each is grown from, and rows that are kept to choose from.
const TREES: usize = 32;
const SAMPLE: usize = 128;
const KEPT: usize = 256;
/// Days of rows that the kept ones stand for.
const DAYS_KEPT: f64 = 14.0;
/// Scores below this are ordinary: the average row's is 0.5 in theory and less in a sample
/// of a past that has its own oddities.
const ORDINARY: f32 = 0.4;

/// A small generator of pseudo-random numbers (`SplitMix64`, Steele et al., OOPSLA 2014):
/// the same seed grows the same forest.
#[derive(Debug, Clone, PartialEq)]
struct Random(u64);

impl Keep for Random {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        u64::take(from).map(Self)
    }
}

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In `0..1`.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u32 << 24) as f32
    }

    /// In `0..n`; 0 for none.
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Rows of the past, kept at random: recent ones more likely than old ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Reservoir {
    width: usize,
    /// Logarithms of one more than each loudness.
    rows: Vec<f32>,
    kept: usize,
    /// Chance of a row to be kept, once there are enough.
    chance: f32,
    random: Random,
}

keep!(Reservoir { width, rows, kept, chance, random });

impl Reservoir {
    /// For rows of `width` numbers, so many a day.
    #[must_use]
    pub fn new(width: usize, rows_per_day: f64) -> Self {
        let chance = (KEPT as f64 / (DAYS_KEPT * rows_per_day.max(1.0))).min(1.0) as f32;
        Self { width, rows: vec![0.0; width * KEPT], kept: 0, chance, random: Random(0x5EED) }
    }

    /// Perhaps keeps a row of loudnesses, in the place of a random one.
    pub fn push(&mut self, row: &[f32]) {
        if self.random.unit() >= self.chance {
            return;
        }
        let place = if self.kept < KEPT { self.kept } else { self.random.below(KEPT) };
        self.kept = (self.kept + 1).min(KEPT);
        let from = place * self.width;
        if let Some(kept) = self.rows.get_mut(from..from + self.width) {
            kept.iter_mut().zip(row).for_each(|(kept, loud)| *kept = loud.ln_1p());
        }
    }

    pub(crate) fn is_of(&self, width: usize) -> bool {
        self.width == width && self.rows.len() == width * KEPT && self.kept <= KEPT
    }

    /// Whether there are enough rows to grow a forest.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        self.width > 0 && self.kept >= SAMPLE
    }

    fn get(&self, row: u16, column: usize) -> f32 {
        self.rows.get(usize::from(row) * self.width + column).copied().unwrap_or(0.0)
    }

    /// Bytes of the rows.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.rows.len() * size_of::<f32>()
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Node {
    /// A loudness: what is below goes to `left`, the rest to the node after it.
    cut: f32,
    column: u16,
    /// 0 for a leaf: the root is nobody's child.
    left: u16,
    /// Rows of the sample that ended in a leaf.
    rows: u16,
}

keep!(Node { cut, column, left, rows });

/// Trees grown from a [`Reservoir`].
#[derive(Debug, Clone, PartialEq)]
pub struct Forest {
    trees: Vec<Vec<Node>>,
    /// Grows by one with each forest of a group.
    pub version: u32,
}

keep!(Forest { trees, version });

impl Forest {
    /// Grows a forest. Takes about a millisecond; meant for the background.
    #[must_use]
    pub fn grow(past: &Reservoir, version: u32) -> Self {
        let mut random = Random(u64::from(version).wrapping_mul(0xD134_2543_DE82_EF95));
        let trees = (0..TREES).map(|_| grow_tree(past, &mut random)).collect();
        Self { trees, version }
    }

    /// Whether every walk through it ends.
    pub(crate) fn is_sound(&self) -> bool {
        self.trees.iter().all(|tree| {
            let ends = |(n, node): (usize, &Node)| node.left == 0 || usize::from(node.left) > n;
            tree.iter().enumerate().all(ends)
        })
    }

    /// How odd a row of loudnesses is: 0 for an ordinary one, up to 0.6.
    #[must_use]
    pub fn oddity(&self, row: &[f32]) -> f32 {
        if self.trees.is_empty() {
            return 0.0;
        }
        let depths: f32 = self.trees.iter().map(|tree| depth(tree, row)).sum();
        let mean = depths / self.trees.len() as f32;
        ((-mean / usual_depth(SAMPLE)).exp2() - ORDINARY).max(0.0)
    }

    /// Bytes of the trees.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.trees.iter().map(|tree| tree.capacity() * size_of::<Node>()).sum()
    }
}

fn grow_tree(past: &Reservoir, random: &mut Random) -> Vec<Node> {
    // A sample without repetition: the first places of a shuffle.
    let mut sample: Vec<u16> = (0..past.kept as u16).collect();
    for place in 0..SAMPLE.min(sample.len()) {
        let other = place + random.below(sample.len() - place);
        sample.swap(place, other);
    }
    sample.truncate(SAMPLE);
    let deepest = SAMPLE.ilog2();
    let mut nodes = vec![leaf(sample.len())];
    let mut open = vec![(0_usize, 0_usize, sample.len(), 0_u32)];
    while let Some((node, from, to, depth)) = open.pop() {
        let Some(rows) = sample.get_mut(from..to) else { continue };
        if rows.len() < 2 || depth >= deepest {
            continue;
        }
        let Some((column, cut)) = choose_cut(past, rows, random) else { continue };
        // Those below the cut first.
        let mut below = 0;
        for n in 0..rows.len() {
            if rows.get(n).is_some_and(|row| past.get(*row, column) < cut) {
                rows.swap(n, below);
                below += 1;
            }
        }
        let (left, all) = (nodes.len(), rows.len());
        nodes.extend([leaf(below), leaf(all - below)]);
        if let Some(node) = nodes.get_mut(node) {
            // Back from the logarithm, so that rows are looked at as they are.
            (node.cut, node.column, node.left) = (cut.exp_m1(), column as u16, left as u16);
        }
        open.push((left, from, from + below, depth + 1));
        open.push((left + 1, from + below, to, depth + 1));
    }
    nodes
}

fn leaf(rows: usize) -> Node {
    Node { cut: 0.0, column: 0, left: 0, rows: rows as u16 }
}

/// A random column in which the rows differ, and a place between them; `None` when a few
/// random columns are all alike.
fn choose_cut(past: &Reservoir, rows: &[u16], random: &mut Random) -> Option<(usize, f32)> {
    for _ in 0..8 {
        let column = random.below(past.width.min(usize::from(u16::MAX)));
        let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
        for row in rows {
            let value = past.get(*row, column);
            (low, high) = (low.min(value), high.max(value));
        }
        if high > low {
            let cut = low + (high - low) * random.unit();
            // Rounding may put it on the lowest, which would leave one side empty.
            return Some((column, if cut > low { cut } else { high }));
        }
    }
    None
}

fn depth(tree: &[Node], row: &[f32]) -> f32 {
    let (mut place, mut depth) = (0, 0.0);
    while let Some(node) = tree.get(place) {
        if node.left == 0 {
            return depth + usual_depth(usize::from(node.rows));
        }
        let right = row.get(usize::from(node.column)).is_some_and(|loud| *loud >= node.cut);
        let right = usize::from(right);
        place = usize::from(node.left) + right;
        depth += 1.0;
    }
    depth
}

/// Average depth of an unsuccessful search in a binary search tree of `n` rows.
fn usual_depth(n: usize) -> f32 {
    const EULER: f32 = 0.577_215_7;
    match n {
        0 | 1 => 0.0,
        2 => 1.0,
        n => {
            let n = n as f32;
            2.0 * ((n - 1.0).ln() + EULER) - 2.0 * (n - 1.0) / n
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past() -> Reservoir {
        let mut past = Reservoir::new(3, 64.0);
        let mut random = Random(7);
        for _ in 0..1_000 {
            let x = random.unit();
            past.push(&[x, x + 0.1 * random.unit(), 0.5 * random.unit()]);
        }
        past
    }

    #[test]
    fn an_odd_combination_is_odder_than_an_ordinary_one() {
        let forest = Forest::grow(&past(), 1);
        let of = |row: [f32; 3]| forest.oddity(&row);
        let (ordinary, apart, far) = (of([0.5, 0.55, 0.2]), of([0.9, 0.1, 0.2]), of([9.0; 3]));
        assert!(apart > ordinary + 0.05 && far > apart, "{ordinary} {apart} {far}");
        assert!(far <= 0.6);
    }

    #[test]
    fn the_same_past_grows_the_same_forest_and_versions_differ() {
        assert_eq!(Forest::grow(&past(), 1), Forest::grow(&past(), 1));
        assert_ne!(Forest::grow(&past(), 1).trees, Forest::grow(&past(), 2).trees);
        assert!(Forest::grow(&past(), 1).bytes() < 128 << 10);
    }

    #[test]
    fn a_past_in_which_nothing_differs_finds_nothing_odd_in_it() {
        let mut past = Reservoir::new(2, 1.0);
        for _ in 0..400 {
            past.push(&[1.0, 1.0]);
        }
        assert!(past.is_enough());
        let forest = Forest::grow(&past, 0);
        assert!(forest.oddity(&[1.0; 2]) < 0.2, "{}", forest.oddity(&[1.0; 2]));
        assert!(!Reservoir::new(0, 1.0).is_enough());
    }
}
