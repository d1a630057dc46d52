//! PyTorch: the files that people save, read as data. No torch is needed, and nothing in a file is ever executed.
//!
//! [`content`] tells what a file is and opens it; [`state`] finds the weights in it, [`module`] whole modules.

pub mod arch;
pub mod archive;
pub mod arg;
pub mod content;
mod export;
pub mod fill;
mod legacy;
pub mod lower;
pub mod module;
pub mod objects;
pub mod ops;
mod program;
mod safetensors;
pub mod state;
#[cfg(test)]
mod tests;
pub mod torchscript;

use std::path::Path;
use std::sync::Arc;

use modelport_ir::tensor::{FileBytes, Storage};
use modelport_ir::{Error, Graph, Problem, Result, codec};

use crate::Source;
use crate::kind::{self, Kind};
use content::Content;

pub use module::{ModuleTree, Plain, read_module};
pub use state::{StateDict, read_state, read_weights};

/// The line that makes a file with everything in it.
pub const EXPORT: &str =
    "torch.export.save(torch.export.export(model.eval(), (torch.randn(2, 3, 224, 224),)), 'model.pt2')";

pub(crate) use safetensors::is_header as is_safetensors;

/// Whether a zip archive is one of PyTorch's. A damaged one may be.
pub(crate) fn is_archive(file: Arc<dyn Storage>) -> bool {
    let is_ours = |name: &str| {
        name == "data.pkl" || name.ends_with("/data.pkl") || name.starts_with("models/") || name.ends_with(".npy")
    };
    archive::Archive::open(file).is_ok_and(|archive| archive.names().any(is_ours))
}

/// Whether a file has a name that only PyTorch's have.
pub(crate) fn has_name(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    ["pth", "pt", "pt2", "safetensors"].iter().any(|known| extension == *known)
}

/// Whether a folder has PyTorch's weights in it, as the Hugging Face hub lays them out.
pub(crate) fn is_folder(path: &Path) -> bool {
    content::in_folder(path).is_some()
}

/// What is to be taken of a checkpoint.
pub fn selection(source: &Source) -> state::Selection<'_> {
    state::Selection { key: source.weights_key.as_deref(), moving_averages: source.moving_averages }
}

/// Reads a network: from a file that has its graph, or from weights whose architecture is known. Weights that are given
/// beside a graph take the place of the graph's own.
///
/// # Errors
/// When files are missing, damaged or hold no network, and all operators that can't be converted.
pub fn read(source: &Source) -> Result<Graph> {
    let (network, weights) = match (&source.network, &source.weights) {
        (Some(network), weights) => (network, weights.as_deref()),
        (None, Some(weights)) => (weights, None),
        (None, None) => return Err(Error::new("neither a network nor weights were given")),
    };
    let given = match weights.filter(|weights| *weights != network) {
        Some(weights) => Some(state::select(weights, &selection(source))?),
        None => None,
    };
    if is_neutral(network) {
        let mut graph = codec::load(network, None)?;
        if let Some(given) = &given {
            fill::fill_graph(&mut graph, given, network)?;
        }
        return Ok(graph);
    }
    let opened = content::open(network)?;
    match opened.content {
        Content::Exported(archive) => export::read(network, &archive, &source.input_shapes, given),
        Content::Script(archive) => torchscript::read(source, network, &archive, given.as_ref()),
        Content::Objects(ref objects) if module::is_module(objects, objects.root()) => {
            let mut graph = whole_module(network, objects, source)?;
            if let Some(given) = &given {
                fill::fill_graph(&mut graph, given, network)?;
            }
            Ok(graph)
        }
        Content::Objects(_) | Content::Tensors(_) => {
            let state = match given {
                Some(given) => given,
                None => state::of_content(network, opened, &selection(source))?,
            };
            let name = stem(network);
            arch::recognise(&state, &source.architecture, &name, &source.input_shapes)
        }
    }
}

/// The graph of a module that `torch.save(model)` wrote.
fn whole_module(path: &Path, objects: &objects::Objects, source: &Source) -> Result<Graph> {
    let failed = |message: String| Error::from(Problem::new(message).file(path));
    let tree = module::module_in(objects, objects.root()).transpose().map_err(failed)?;
    let tree = tree.ok_or_else(|| failed("holds no module".to_owned()))?;
    let origin = format!("PyTorch module {}", tree.class_name());
    let default = tree.class.starts_with("torchvision.").then(|| arch::default_input(&tree)).flatten();
    let graph = arch::lower(&tree, tree.state(), (&stem(path), &origin), &source.input_shapes, default.as_deref());
    graph.map_err(|error| error.in_file(path))
}

/// A file's name without its extension.
fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether a file is a saved neutral graph.
fn is_neutral(path: &Path) -> bool {
    FileBytes::open(path).and_then(|file| kind::of(file)).is_ok_and(|kind| matches!(kind, Kind::Ir | Kind::Json))
}
