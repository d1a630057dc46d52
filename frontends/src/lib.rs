//! Frontends: read a framework's files and lower them into the neutral graph. No framework is needed.

pub mod tensorflow;

use std::path::PathBuf;

/// What to read, and how.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The file with the graph.
    pub network: Option<PathBuf>,
    /// The file, prefix or folder with the weights.
    pub weights: Option<PathBuf>,
    /// Nodes to end at (`scope/node` or `scope/node:1`); inferred when empty.
    pub outputs: Vec<String>,
    /// Nodes to start at; the graph is cut there.
    pub inputs: Vec<String>,
    /// Shapes of the inputs, with or without the batch, -1 for a free size.
    pub input_shapes: Vec<Vec<i64>>,
    /// Convert the training graph's behaviour instead of the inference graph's.
    pub training: bool,
    /// Use the exponential moving averages of the weights.
    pub moving_averages: bool,
}
