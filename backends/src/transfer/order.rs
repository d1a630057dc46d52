//! Matching layers by their order, among those of one kind and of equal shapes.
//!
//! Where frameworks list the layers of a block in another order, such as a projection before or after the branch beside
//! it, order alone would swap them. What goes together is then seen where shapes differ: endings of names that are a
//! match in most blocks (`3_conv` and `conv3`) are a match in all.

use std::collections::HashMap;

use super::By;
use super::layer::Layer;
use super::matching::Matcher;

/// Layers of the source and of the target, as many, of which all fit all.
struct Group {
    sources: Vec<usize>,
    targets: Vec<usize>,
}

impl Group {
    fn in_order(&self) -> Vec<(usize, usize)> {
        self.sources.iter().copied().zip(self.targets.iter().copied()).collect()
    }
}

impl Matcher<'_> {
    pub(super) fn by_order(&mut self) {
        // Layers of which the source has everything come first, then those that need a bias of zeros.
        for neutral_allowed in [false, true] {
            let groups = self.groups(neutral_allowed);
            let in_order: Vec<(usize, usize)> = groups.iter().flat_map(Group::in_order).collect();
            let votes = self.votes(&in_order);
            for group in groups {
                for (source, target) in self.arranged(&group, &votes) {
                    self.pair(source, target, By::Order);
                }
            }
        }
    }

    fn groups(&self, neutral_allowed: bool) -> Vec<Group> {
        let (free, open) = (self.free(), self.open());
        let fits = |source: usize, target: usize| {
            self.fits(source, target).is_some_and(|is_neutral| neutral_allowed || !is_neutral)
        };
        let fitting: Vec<Vec<usize>> =
            open.iter().map(|&target| free.iter().copied().filter(|&source| fits(source, target)).collect()).collect();
        let mut groups: HashMap<&[usize], Vec<usize>> = HashMap::new();
        for (&target, sources) in open.iter().zip(&fitting) {
            groups.entry(sources).or_default().push(target);
        }
        // All of one side must fit all of the other and nothing else, or the order says nothing.
        let is_clear = |sources: &[usize], targets: &[usize]| {
            let others = || open.iter().zip(&fitting).filter(|(target, _)| !targets.contains(target));
            sources.len() == targets.len() && !others().any(|(_, other)| other.iter().any(|at| sources.contains(at)))
        };
        let clear = groups.into_iter().filter(|(sources, targets)| is_clear(sources, targets));
        let mut groups: Vec<Group> =
            clear.map(|(sources, targets)| Group { sources: sources.to_vec(), targets }).collect();
        groups.sort_by_key(|group| group.targets.first().copied());
        groups
    }

    /// How often endings of names are a match.
    fn votes(&self, in_order: &[(usize, usize)]) -> Votes {
        let known = self.partner.iter().enumerate();
        let known = known.filter_map(|(target, partner)| partner.map(|(source, _)| (source, target)));
        let mut votes = Votes::default();
        for (source, target) in known.chain(in_order.iter().copied()) {
            let (source, target) = self.endings(source, target);
            *votes.both.entry((source.clone(), target.clone())).or_default() += 1;
            *votes.source.entry(source).or_default() += 1;
            *votes.target.entry(target).or_default() += 1;
        }
        votes
    }

    fn endings(&self, source: usize, target: usize) -> (String, String) {
        let of = |layer: Option<&Layer>| layer.map(|layer| ending(&layer.name)).unwrap_or_default();
        (of(self.source.layers.get(source)), of(self.target.layers.get(target)))
    }

    /// The pairs of a group: in order, unless endings say more.
    fn arranged(&self, group: &Group, votes: &Votes) -> Vec<(usize, usize)> {
        let score = |source: usize, target: usize| {
            let (source, target) = self.endings(source, target);
            let is_same = words(&source) == words(&target);
            votes.agreement(source, target) + f64::from(u8::from(is_same))
        };
        let all = group.targets.iter().flat_map(|target| group.sources.iter().map(move |source| (*source, *target)));
        let mut all: Vec<(f64, usize, usize)> =
            all.map(|(source, target)| (score(source, target), source, target)).collect();
        // Equal ones stay in order.
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut pairs: Vec<(usize, usize)> = Vec::new();
        for (_, source, target) in all {
            if !pairs.iter().any(|pair| pair.0 == source || pair.1 == target) {
                pairs.push((source, target));
            }
        }
        let total = |pairs: &[(usize, usize)]| pairs.iter().map(|&(source, target)| score(source, target)).sum::<f64>();
        let in_order = group.in_order();
        if total(&pairs) > total(&in_order) + 1e-9 { pairs } else { in_order }
    }
}

#[derive(Default)]
struct Votes {
    source: HashMap<String, usize>,
    target: HashMap<String, usize>,
    both: HashMap<(String, String), usize>,
}

impl Votes {
    /// How surely two endings belong together: of their matches the share that is with each other.
    fn agreement(&self, source: String, target: String) -> f64 {
        let of = |votes: &HashMap<String, usize>, name: &str| votes.get(name).copied().unwrap_or(1) as f64;
        let least = of(&self.source, &source).max(of(&self.target, &target));
        let both = self.both.get(&(source, target)).copied().unwrap_or(0);
        // A single match proves nothing.
        if both < 2 { 0.0 } else { both as f64 / least }
    }
}

/// What a layer is called within its block: the last word of a name, with the one before it where it is only a number, or
/// has none (`conv3`, `downsample.0`, `3.conv`).
fn ending(name: &str) -> String {
    let all: Vec<&str> = name.split(['.', '/', '_']).filter(|word| !word.is_empty()).collect();
    let is_whole =
        |word: &str| word.contains(|c: char| c.is_ascii_digit()) && word.contains(|c: char| c.is_alphabetic());
    let count = if all.last().is_some_and(|word| is_whole(word)) { 1 } else { 2 };
    all.get(all.len().saturating_sub(count)..).unwrap_or_default().join(".")
}

/// The words and numbers in an ending, in whatever order.
fn words(ending: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut last = None;
    for c in ending.chars() {
        let kind = (c.is_ascii_digit(), c.is_alphanumeric());
        match words.last_mut() {
            Some(word) if last == Some(kind) => word.push(c.to_ascii_lowercase()),
            _ => words.push(c.to_lowercase().collect()),
        }
        last = Some(kind);
    }
    words.retain(|word| word.contains(char::is_alphanumeric));
    words.sort();
    words
}
