//! Names that come near another: for errors about names that do not exist.

/// Names are compared up to this length.
const LONGEST: usize = 256;

/// At most `most` of `names` that somebody who wrote `name` may have meant, best first: those that end in the same
/// components (another scope), or differ in few characters.
pub(super) fn near<'a>(name: &str, names: impl Iterator<Item = &'a str>, most: usize) -> Vec<&'a str> {
    let components = name.split('/').count();
    let score = |other: &str| {
        let common = name.rsplit('/').zip(other.rsplit('/')).take_while(|(a, b)| a == b).count();
        // The last component alone ("weights") says nothing.
        if common >= 2 || (common == 1 && (components == 1 || !other.contains('/'))) {
            return Some(components.abs_diff(common));
        }
        let distance = distance(name, other);
        (distance <= 1 + name.len() / 6).then_some(100 + distance)
    };
    let mut scored: Vec<_> = names.filter_map(|other| Some((score(other)?, other))).collect();
    scored.sort();
    scored.into_iter().take(most).map(|(_, other)| other).collect()
}

/// The number of characters to insert, delete or replace (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let length = a.len().abs_diff(b.len());
    if a.len().max(b.len()) > LONGEST || length > 1 + a.len() / 6 {
        return usize::MAX - 100;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b) {
            let value = (diagonal + usize::from(x != y)).min(left + 1).min(*cell + 1);
            diagonal = std::mem::replace(cell, value);
            left = value;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(distance("kitten", "sittin"), 2);
        assert_eq!(distance("kernels", "kernel"), 1);
        assert_eq!(distance("biases", "baises"), 2);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn names_of_other_scopes_and_misspelt_ones() {
        let names = ["Inception/conv1/weights", "Inception/conv2/weights", "Inception/conv1/biases", "step"];
        let near = |name| near(name, names.into_iter(), 2);
        assert_eq!(near("conv1/weights"), ["Inception/conv1/weights"]);
        assert_eq!(near("Inception/conv3/weights"), ["Inception/conv1/weights", "Inception/conv2/weights"]);
        assert_eq!(near("stpe"), Vec::<&str>::new());
        assert_eq!(near("steps"), ["step"]);
    }
}
