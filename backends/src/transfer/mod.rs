//! Copying parameters into a file that is there already: which belongs to which, and how each is turned.
//!
//! Layers are matched, not tensors: a layer's kind says how its tensors are turned, and shapes only check. Nothing is
//! ever decided by a shape that could mean two things.

mod layer;
mod map;
mod matching;
mod order;
mod turn;

#[cfg(test)]
mod tests;

use modelport_ir::{Problem, Tensor};

pub use layer::{Family, KerasLayer, Layer, Side, replaced};
pub use map::{Entry, Map};

/// How to match.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What the user says of single layers and tensors.
    pub map: Map,
    /// Match what is left by its order among layers of the same kind and shapes.
    pub by_order: bool,
}

/// How a match was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Both have the same name.
    Name,
    /// The names differ as those of frameworks do.
    Rule,
    /// The user's map.
    Map,
    /// The order.
    Order,
}

impl By {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            By::Name => "name",
            By::Rule => "rule",
            By::Map => "map",
            By::Order => "order",
        }
    }
}

/// A tensor of the target and what it becomes.
#[derive(Clone, Debug)]
pub struct Match {
    /// The target's name for it.
    pub target: String,
    /// What it is made of, in the source's names; empty where it has a value of its own, such as a bias that the source
    /// does not have apart.
    pub sources: Vec<String>,
    /// Its new elements, in the target's shape and type.
    pub tensor: Tensor,
    /// Why.
    pub by: By,
}

/// A layer of the target and where it is from.
#[derive(Clone, Debug)]
pub struct LayerMatch {
    /// The target's name for it.
    pub target: String,
    /// The names of its tensors.
    pub parameters: Vec<String>,
    /// The source's name for it, and why, if there is a match.
    pub source: Option<(String, By)>,
}

/// What fits and what does not.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// What is copied, in the order of the target.
    pub matches: Vec<Match>,
    /// All layers of the target.
    pub layers: Vec<LayerMatch>,
    /// Tensors of the source that nothing is made of.
    pub left_in_source: Vec<String>,
    /// Tensors of the target that stay as they are.
    pub left_in_target: Vec<String>,
    /// Tensors of the target that fit and stay as they are, since others of their layer do not fit.
    pub left_with_layer: Vec<String>,
    /// Where names match and what they name does not, with what to do.
    pub conflicts: Vec<Problem>,
}

impl Plan {
    /// Whether everything on both sides has its match.
    pub fn is_complete(&self) -> bool {
        self.left_in_source.is_empty() && self.left_in_target.is_empty() && self.conflicts.is_empty()
    }
}

/// Finds what of the source belongs where in the target.
pub fn plan(source: &Side, target: &Side, options: &Options) -> Plan {
    matching::plan(source, target, options)
}
