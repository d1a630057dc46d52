//! The translation of every ATen operator: one function each, in families, and the table of them all.

mod activation;
mod attention;
mod call;
mod compound;
mod conv;
mod create;
mod indexing;
mod linear;
mod math;
mod norm;
mod pool;
mod recurrent;
mod reduce;
mod resize;
mod sample;
mod scatter;
mod schema;
mod shape;

use modelport_ir::{Problem, Result};

pub use call::Call;

use super::arg::Arg;

/// Translates one call: what it gives.
pub type Translation = fn(&mut Call) -> Result<Arg>;

/// An operator: its name (with an overload where overloads differ), signature and translation.
#[derive(Debug)]
pub struct Entry {
    /// ATen's name, without namespace.
    pub name: &'static str,
    /// Its parameters by ATen's names, with their defaults.
    pub schema: &'static str,
    /// The translation.
    pub function: Translation,
}

/// A part of the table.
type Family = &'static [Entry];

/// An entry of the table.
const fn op(name: &'static str, schema: &'static str, function: Translation) -> Entry {
    Entry { name, schema, function }
}

/// All families, in the order of the documentation.
const FAMILIES: &[Family] = &[
    conv::OPS,
    pool::OPS,
    norm::OPS,
    activation::UNARY,
    activation::SAME_TYPE,
    activation::OPS,
    linear::OPS,
    math::BINARY,
    math::OPS,
    reduce::OPS,
    shape::OPS,
    indexing::OPS,
    create::OPS,
    resize::OPS,
    sample::OPS,
    scatter::OPS,
    attention::OPS,
    recurrent::OPS,
    compound::OPS,
];

/// Operators whose results share elements with their first argument (`unsafe_chunk` and `unsafe_split` promise that
/// nobody reads the whole after a part has changed).
const VIEWS: &[&str] = &[
    "alias",
    "chunk",
    "detach",
    "diagonal",
    "expand",
    "expand_as",
    "flatten",
    "movedim",
    "narrow",
    "numpy_T",
    "permute",
    "reshape",
    "select",
    "slice",
    "split",
    "split_with_sizes",
    "squeeze",
    "swapaxes",
    "swapdims",
    "t",
    "tensor_split",
    "transpose",
    "unbind",
    "unflatten",
    "unsqueeze",
    "view",
    "view_as",
];

/// The entry of an operator, and whether it changes its first argument.
pub fn find(target: &str) -> Option<(&'static Entry, bool)> {
    let bare = bare(target);
    let entry = |name: &str| FAMILIES.iter().copied().flatten().find(|entry| entry.name == name);
    let (base, overload) = bare.split_once('.').unwrap_or((bare, ""));
    let base = match base {
        "special_expit" => "sigmoid",
        base => base.strip_prefix("special_").unwrap_or(base),
    };
    let named = |base: &str| match overload {
        "" => entry(base),
        overload => entry(&format!("{base}.{overload}")).or_else(|| entry(base)),
    };
    if let Some(found) = named(base) {
        return Some((found, base.ends_with('_') && !base.ends_with("__")));
    }
    let base = base.strip_suffix('_')?;
    named(base).map(|entry| (entry, true))
}

/// The name without its namespace.
fn bare(target: &str) -> &str {
    let bare = target.strip_prefix("torch.ops.").unwrap_or(target);
    ["aten.", "aten::", "prims::", "torch."].iter().find_map(|prefix| bare.strip_prefix(prefix)).unwrap_or(bare)
}

/// Whether there is a translation.
pub fn is_supported(target: &str) -> bool {
    find(target).is_some()
}

/// Whether results share elements with the first argument.
pub fn is_view(name: &str) -> bool {
    VIEWS.contains(&name)
}

/// The error of an operator that there is no translation for.
pub fn unsupported(target: &str) -> Problem {
    let problem = Problem::new("modelport has no translation for this PyTorch operator").op(target);
    problem.hint(hint(target))
}

/// What a person can do about an operator that can't be lowered.
fn hint(target: &str) -> &'static str {
    if target.contains("quantize") {
        "Quantised networks are not converted. Save the network before it is quantised."
    } else if ["bernoulli", "rand", "multinomial", "normal"].iter().any(|word| bare(target).starts_with(word)) {
        "Random numbers are converted only as part of dropout. Save the network after model.eval()."
    } else if ["nms", "roi_align", "nonzero", "unique"].iter().any(|word| target.contains(word)) {
        "Its result has a size that depends on data. Save the part of the network in front of it."
    } else if ["fft", "complex", "stft", "polar"].iter().any(|word| bare(target).contains(word)) {
        "Complex numbers are not converted. Save the part of the network behind the spectrum, and compute that before."
    } else {
        "Save the part of the network that does without it."
    }
}

/// The names of all operators that can be lowered, sorted.
pub fn supported() -> Vec<&'static str> {
    let base = |entry: &Entry| entry.name.split_once('.').map_or(entry.name, |(base, _)| base);
    let mut names: Vec<&str> = FAMILIES.iter().copied().flatten().map(base).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator_has_one_translation() {
        let mut names: Vec<&str> = FAMILIES.iter().copied().flatten().map(|entry| entry.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn names_are_found_with_and_without_overload() {
        for target in ["aten.add.Tensor", "aten::add", "torch.add", "torch.ops.aten.add.Scalar", "add"] {
            assert!(matches!(find(target), Some((entry, false)) if entry.name == "add"), "{target}");
        }
        assert!(matches!(find("aten.add_.Tensor"), Some((entry, true)) if entry.name == "add"));
        assert!(find("aten.no_such").is_none());
    }
}
