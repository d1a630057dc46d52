//! Words for classes and members, and which names of the source say something.

use crate::python::camel_case;

/// The word for a role in the name of a chain: `ConvBNReLU`.
pub fn role_word(role: &str) -> String {
    match role {
        "pad" | "padded" => String::new(),
        "bn" => "BN".to_owned(),
        "fc" => "Linear".to_owned(),
        "relu" => "ReLU".to_owned(),
        "relu6" => "ReLU6".to_owned(),
        role => camel_case(role),
    }
}

/// Names that only repeat the layer's type say nothing.
pub fn is_generic(name: &str) -> bool {
    // A number behind an underscore only makes a name unique; `conv3` says which one it is.
    let digits = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let stem = if digits.ends_with('_') { digits } else { name }.to_ascii_lowercase();
    let stem: String = stem.chars().filter(|c| *c != '_').collect();
    const GENERIC: &[&str] = &[
        "batchnorm",
        "batchnormalization",
        "fusedbatchnorm",
        "bn",
        "conv",
        "convd",
        "conv2d",
        "convolution",
        "dense",
        "fullyconnected",
        "linear",
        "dropout",
        "matmul",
        "depthwise",
        "layernorm",
        "layernormalization",
        "prelu",
        "embedding",
        "separableconv2d",
    ];
    GENERIC.contains(&stem.as_str())
}

/// Whether a name ends in a number that only counts: `3`, `block.2`.
pub fn is_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    !last.is_empty() && last.bytes().all(|c| c.is_ascii_digit())
}

/// What all names begin with.
pub fn common_prefix<'a>(names: &[&'a str]) -> &'a str {
    let Some(first) = names.first() else { return "" };
    let length = names.iter().fold(first.len(), |length, name| {
        first.bytes().zip(name.bytes()).take(length).take_while(|(a, b)| a == b).count()
    });
    first.get(..length).unwrap_or(first)
}

/// The name of one call in all blocks of a class: what they agree on at the end, in whole words
/// (`stage_0_block_1_layernorm`, `stage_2_block_0_layernorm` → `layernorm`); none if that says nothing.
pub fn common_name<'a>(mut names: impl Iterator<Item = Option<&'a str>>) -> Option<String> {
    let first = names.next()??;
    let mut common = first;
    for name in names {
        let name = name?;
        if name == common || name.strip_suffix(common).is_some_and(|rest| common.is_empty() || rest.ends_with('_')) {
            continue;
        }
        let same = common.bytes().rev().zip(name.bytes().rev()).take_while(|(a, b)| a == b).count();
        let tail = common.get(common.len() - same..).unwrap_or("");
        common = tail.split_once('_').map_or("", |(_, words)| words);
    }
    if common == first {
        return Some(first.to_owned());
    }
    // Numbers at the front only count.
    let mut words = common;
    while let Some((number, rest)) = words.split_once('_')
        && number.bytes().all(|c| c.is_ascii_digit())
    {
        words = rest;
    }
    (words.len() > 1 && !words.starts_with(|c: char| c.is_ascii_digit())).then(|| words.to_owned())
}

/// The same for a member: names that differ in one word are called by the others (`Conv2d_0b_3x1`, `Conv2d_0c_3x1` →
/// `Conv2d_3x1`).
pub fn member_name<'a>(names: &[Option<&'a str>]) -> Option<String> {
    if let Some(name) = common_name(names.iter().copied()) {
        return Some(name);
    }
    let words: Vec<Vec<&'a str>> =
        names.iter().map(|name| Some((*name)?.split('_').collect())).collect::<Option<_>>()?;
    let first = words.first()?;
    let shared: Vec<&str> = (0..first.len())
        .filter(|&at| words.iter().all(|name| name.get(at) == first.get(at)))
        .map(|at| first[at])
        .collect();
    let lengths = words.iter().all(|name| name.len() == first.len());
    let name = shared.join("_");
    (lengths && shared.len() > 1 && shared.len() + 1 == first.len() && !is_generic(&name)).then_some(name)
}

/// Whether names count: the same word before the numbers 1, 2, 3, or 0, 1, 2.
fn count_up(names: &[&str]) -> bool {
    let numbers: Option<Vec<(&str, usize)>> = names
        .iter()
        .map(|name| {
            let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
            Some((stem, name[stem.len()..].parse().ok()?))
        })
        .collect();
    numbers.is_some_and(|numbers| numbers.windows(2).all(|pair| pair[0].0 == pair[1].0 && pair[0].1 + 1 == pair[1].1))
}

/// What a comment says of a member whose name in the code does not show which scopes of the source it is.
pub fn note(member: &str, scopes: &[&str]) -> Option<String> {
    let mut distinct: Vec<&str> = Vec::new();
    for &scope in scopes {
        if !distinct.contains(&scope) {
            distinct.push(scope);
        }
    }
    let letters = |name: &str| -> String {
        name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
    };
    // A name that only repeats the layer's type is told by its role.
    let plain = |scope: &str| is_generic(scope) && !scope.ends_with(|c: char| c.is_ascii_digit());
    let shown = |scope: &&str| {
        *scope == member || plain(scope) || letters(scope).ends_with(&letters(member)) && distinct.len() > 1
    };
    let said = match distinct.as_slice() {
        [] => return None,
        scopes if scopes.iter().all(shown) => return None,
        [one] => (*one).to_owned(),
        [first, .., last] if distinct.len() > 2 && count_up(&distinct) => format!("{first} to {last}"),
        scopes if scopes.len() > NOTED => return None,
        scopes => scopes.join(", "),
    };
    Some(said)
}

/// Most scopes that a comment lists.
const NOTED: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_agree_on_their_last_words() {
        let of = |names: &[&'static str]| common_name(names.iter().map(|name| Some(*name)));
        assert_eq!(of(&["Branch_0", "Branch_0"]).as_deref(), Some("Branch_0"));
        let names = ["stage_0_block_0_depth_conv", "stage_1_block_2_depth_conv", "stage_1_block_1_depth_conv"];
        assert_eq!(of(&names).as_deref(), Some("depth_conv"));
        assert_eq!(of(&["conv2_block1_1_conv", "conv3_block2_1_conv"]).as_deref(), Some("conv"));
        assert_eq!(of(&["left", "right"]), None);
        assert_eq!(of(&["Conv2d_0b_1x3", "Conv2d_0c_1x3"]), None);
    }

    #[test]
    fn members_keep_the_words_that_all_have() {
        let of = |names: &[&'static str]| member_name(&names.iter().map(|name| Some(*name)).collect::<Vec<_>>());
        assert_eq!(of(&["Conv2d_0b_1x3", "Conv2d_0c_1x3"]).as_deref(), Some("Conv2d_1x3"));
        assert_eq!(of(&["Conv2d_0b_1x3", "Conv2d_0c_3x1"]), None);
        assert_eq!(of(&["left", "right"]), None);
    }

    #[test]
    fn notes_tell_what_names_do_not() {
        assert_eq!(note("conv1", &["conv1"]), None);
        assert_eq!(note("bn", &["BatchNorm"]), None);
        assert_eq!(note("conv_1", &["conv-1"]).as_deref(), Some("conv-1"));
        assert_eq!(note("conv", &["Conv2D_17"]).as_deref(), Some("Conv2D_17"));
        assert_eq!(
            note("Conv2d_3x1", &["Conv2d_0b_3x1", "Conv2d_0c_3x1"]).as_deref(),
            Some("Conv2d_0b_3x1, Conv2d_0c_3x1")
        );
        assert_eq!(note("layernorm", &["block_0_layernorm", "block_1_layernorm"]), None);
        assert_eq!(note("dense", &["a1", "a2", "a3"]).as_deref(), Some("a1 to a3"));
    }
}
