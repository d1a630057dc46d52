//! The translation of every TensorFlow operator: one function each, in families, and the table of them all.

mod activation;
mod call;
mod conv;
mod conv_transpose;
mod dense;
mod image;
mod indexing;
mod list;
mod math;
mod norm;
mod pool;
mod reduce;
mod shape;
mod source;
mod space;

use modelport_ir::Result;

pub use call::Call;

use super::lower::Entry;

/// Translates one node: what it computes, per output.
pub type Translation = fn(&mut Call) -> Result<Vec<Entry>>;

/// A part of the table: names of operators and their translation.
type Family = &'static [(&'static str, Translation)];

/// All families, in the order of the documentation.
const FAMILIES: &[Family] = &[
    conv::OPS,
    conv_transpose::OPS,
    space::OPS,
    pool::OPS,
    norm::OPS,
    activation::OPS,
    math::OPS,
    dense::OPS,
    reduce::OPS,
    shape::OPS,
    indexing::OPS,
    list::OPS,
    image::OPS,
    source::OPS,
];

/// Operators that the frontend takes out of the graph, beside those that it translates.
const CLEANED: &[&str] = &[
    "CheckNumerics",
    "EnsureShape",
    "Enter",
    "Exit",
    "Identity",
    "IdentityN",
    "If",
    "LoopCond",
    "Merge",
    "NextIteration",
    "PartitionedCall",
    "Placeholder",
    "PlaceholderWithDefault",
    "PreventGradient",
    "Print",
    "ReadVariableOp",
    "Snapshot",
    "StatefulPartitionedCall",
    "StatelessIf",
    "StatelessWhile",
    "StopGradient",
    "Switch",
    "VarHandleOp",
    "Variable",
    "VariableV2",
    "While",
];

/// The translation of an operator.
pub fn function(op: &str) -> Option<Translation> {
    FAMILIES.iter().copied().flatten().find(|(name, _)| *name == op).map(|(_, function)| *function)
}

/// Whether a node of this operator can be lowered, if everything about it is known.
pub fn is_supported(op: &str) -> bool {
    function(op).is_some() || super::lower::is_variable(op)
}

/// The names of all operators that can be lowered, sorted. Some are looked through rather than translated.
pub fn supported() -> Vec<&'static str> {
    let translated = FAMILIES.iter().copied().flatten().map(|(name, _)| *name).filter(|name| !name.starts_with('_'));
    let mut names: Vec<&str> = translated.chain(CLEANED.iter().copied()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What a person can do about an operator that can't be lowered.
pub fn hint(op: &str) -> &'static str {
    let is = |list: &[&str]| list.iter().any(|name| op.starts_with(name));
    if is(&["Enter", "Exit", "NextIteration", "LoopCond", "While", "StatelessWhile", "TensorArray", "RefEnter"]) {
        "Loops over data are not converted. End before it with --dstNode, or begin behind it with --inNodeName."
    } else if is(&["If", "StatelessIf", "Switch", "Merge", "Case", "StatelessCase"]) {
        "A branch that depends on data is not converted. Name a node inside of one side with --dstNode, or cut it off."
    } else if is(&["Random", "Stateless", "TruncatedNormal", "Multinomial", "ParameterizedTruncatedNormal"]) {
        "Random numbers are converted only as part of dropout. Begin behind them with --inNodeName."
    } else if is(&["PyFunc", "EagerPyFunc"]) {
        "It calls Python code that is not in the file. Cut the graph there with --inNodeName or --dstNode."
    } else if is(&["String", "AsString", "Decode", "Encode", "Regex", "LookupTable", "HashTable", "Parse"]) {
        "Text is not converted. Begin behind it with --inNodeName and --inputShape."
    } else {
        "End before it with --dstNode, or begin behind it with --inNodeName and --inputShape."
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator_has_one_translation() {
        let mut names: Vec<&str> = FAMILIES.iter().copied().flatten().map(|(name, _)| *name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(supported().contains(&"Conv2D") && is_supported("VarHandleOp") && !is_supported("MatrixInverse"));
    }
}
