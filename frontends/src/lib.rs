//! Frontends: read a framework's files and lower them into the neutral graph. No framework is needed.

pub mod keras;
pub mod kind;
pub mod pytorch;
mod symbolic;
pub mod tensorflow;

use std::path::{Path, PathBuf};

use modelport_ir::tensor::FileBytes;
use modelport_ir::{Graph, Result};

use kind::Kind;

/// Frameworks that networks are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framework {
    /// TensorFlow: graphs and checkpoints.
    TensorFlow,
    /// PyTorch: state dicts, modules and programs.
    PyTorch,
}

impl Framework {
    /// All of them.
    pub const ALL: [Framework; 2] = [Framework::TensorFlow, Framework::PyTorch];

    /// What it is called, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Framework::TensorFlow => "tensorflow",
            Framework::PyTorch => "pytorch",
        }
    }

    /// The framework of this name, or of the short one that people use.
    pub fn called(name: &str) -> Option<Framework> {
        Some(match name.to_ascii_lowercase().as_str() {
            "tensorflow" | "tf" => Framework::TensorFlow,
            "pytorch" | "torch" => Framework::PyTorch,
            _ => return None,
        })
    }
}

/// What to read, and how.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The framework that the user names; the content of the files counts for more.
    pub framework: Option<Framework>,
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
    /// Where in a PyTorch checkpoint the weights are, such as `model` or `ema.module`.
    pub weights_key: Option<String>,
    /// Of which architecture a state dict is, and what its shapes do not tell.
    pub architecture: pytorch::arch::Arguments,
}

/// The framework that the files of a network are from: by their content, else what the user says, else by their names,
/// else TensorFlow, whose checkpoints are no files but prefixes of names.
pub fn framework(source: &Source) -> Framework {
    use Framework::PyTorch;
    let by_content = |path: &Option<PathBuf>| path.as_deref().and_then(of_file);
    by_content(&source.network)
        .or_else(|| by_content(&source.weights))
        .or(source.framework)
        .or_else(|| source.network.iter().chain(&source.weights).any(|path| pytorch::has_name(path)).then_some(PyTorch))
        .unwrap_or(Framework::TensorFlow)
}

/// The framework whose file this certainly is.
fn of_file(path: &Path) -> Option<Framework> {
    if path.is_dir() {
        return pytorch::is_folder(path).then_some(Framework::PyTorch);
    }
    let file = FileBytes::open(path).ok()?;
    match kind::of(file.clone()).ok()? {
        Kind::Zip => pytorch::is_archive(file).then_some(Framework::PyTorch),
        kind => kind.framework(),
    }
}

/// Reads a network, of whichever framework.
///
/// # Errors
/// When files are missing, damaged or unclear, and all operators that can't be converted.
pub fn read(source: &Source) -> Result<Graph> {
    match framework(source) {
        Framework::TensorFlow => tensorflow::read(source),
        Framework::PyTorch => pytorch::read(source),
    }
}
