//! Keras' files: whole models (`.keras`, `.h5`) and weights alone (`.weights.h5`, `.h5`), with what their layers keep.

mod config;
mod variables;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use modelport_ir::hdf5::{self, Group};
use modelport_ir::tensor::{FileBytes, Storage};
use modelport_ir::{Problem, Result, Tensor};
use serde_json::Value;

use crate::kind::{self, Kind};
use crate::pytorch::archive::Archive;
use config::Config;

/// Longest entry of an archive that is read whole: configurations, and what else a model brings.
const MAX_ENTRY: u64 = 256 << 20;
const WEIGHTS: &str = "model.weights.h5";

/// How a file keeps a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Keras 3's archive of a configuration and weights.
    Archive,
    /// Keras 2's file of both.
    Whole,
    /// Weights by the class and order of layers: `.weights.h5`.
    Weights,
    /// Weights by the names of layers, as Keras 2 saved them.
    LegacyWeights,
}

impl Form {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Form::Archive => "Keras model",
            Form::Whole => "Keras model (HDF5)",
            Form::Weights => "Keras weights",
            Form::LegacyWeights => "Keras weights (Keras 2)",
        }
    }
}

/// A file that was opened. Tensors stay in it until they are used.
#[derive(Debug)]
pub struct Stored {
    /// The file.
    pub path: PathBuf,
    /// How it keeps the model.
    pub form: Form,
    /// The configuration, as it is in the file.
    pub config: Option<String>,
    /// The HDF5 file with the weights.
    pub root: Group,
    /// What else an archive has, by name.
    pub entries: Vec<(String, Vec<u8>)>,
    /// Layers with weights, in the order of the model where that is known.
    pub layers: Vec<Layer>,
}

/// What a layer keeps.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Its name, after those of the models that it is in.
    pub name: String,
    /// Its class as Keras writes it in paths (`conv2d`), where it is known.
    pub class: Option<String>,
    /// Its variables.
    pub variables: Vec<Variable>,
    /// Where it reads, perhaps through layers that act element by element, what a `Flatten` makes of more than one axis:
    /// the shape of that, channels last, or nothing where the file does not say it. The order of the layer's rows then
    /// depends on the framework.
    pub after_flatten: Option<Vec<usize>>,
    /// Its settings, or null.
    pub config: Value,
}

/// A variable of a layer.
#[derive(Clone, Debug)]
pub struct Variable {
    /// `kernel`, `moving_mean`, …; its number where the class is not known.
    pub name: String,
    /// Where it is in the HDF5 file.
    pub path: String,
    /// Its elements.
    pub tensor: Tensor,
}

/// What a model computes in another way than most of PyTorch's, though it has the same parameters: in words, with the
/// number of layers.
pub fn unlike_pytorch(stored: &Stored) -> Vec<String> {
    match stored.config.as_deref().map(Config::parse) {
        Some(config) => config.map(|config| config.unlike_pytorch()).unwrap_or_default(),
        None => unsaid_flattening(&stored.layers).into_iter().collect(),
    }
}

/// Dense layers that may read what was flattened, in a file that does not say it.
fn unsaid_flattening(layers: &[Layer]) -> Option<String> {
    let kernel = |layer: &Layer| layer.variables.iter().find(|v| v.name == "kernel").map(|v| v.tensor.shape());
    let shapes: Vec<(&str, Vec<usize>)> = layers.iter().filter_map(|l| Some((l.name.as_str(), kernel(l)?))).collect();
    let channels: Vec<usize> =
        shapes.iter().filter(|(_, s)| s.len() > 2).filter_map(|(_, s)| s.last().copied()).collect();
    let may_be = |shape: &[usize]| match shape {
        [rows, _] => channels.iter().any(|channels| rows > channels && rows.is_multiple_of(*channels)),
        _ => false,
    };
    let names: Vec<&str> = shapes.iter().filter(|(_, shape)| may_be(shape)).map(|(name, _)| *name).collect();
    let first = names.first()?;
    Some(format!(
        "the file does not say what {} read: if it was flattened, say so in the map, \
         {{\"{first}\": {{\"from\": …, \"flattened\": [512, 7, 7]}}}}",
        names.join(", ")
    ))
}

/// Whether a file is certainly one of Keras': HDF5, or an archive with a configuration.
pub fn is_file(path: &Path) -> bool {
    let Ok(file) = FileBytes::open(path) else { return false };
    match kind::of(file.clone()) {
        Ok(Kind::Hdf5) => true,
        Ok(Kind::Zip) => Archive::open(file).is_ok_and(|archive| is_archive(&archive)),
        _ => false,
    }
}

fn is_archive(archive: &Archive) -> bool {
    archive.has("config.json") && archive.has(WEIGHTS)
}

/// Opens a file by what is in it, whatever its name.
///
/// # Errors
/// When it is none of Keras' files or is damaged; all weights that can't be read are named.
pub fn open(path: &Path) -> Result<Stored> {
    let failed = |message: String| Problem::new(message).file(path);
    let file = FileBytes::open(path).map_err(|error| failed(format!("can't be read: {error}")))?;
    let mut magic = [0; 8];
    let is_hdf5 = file.read_at(0, &mut magic).is_ok() && magic == hdf5::MAGIC;
    let stored = if is_hdf5 { of_hdf5(path, file) } else { of_archive(path, file) };
    let stored = stored.map_err(|message| -> modelport_ir::Error {
        failed(message).hint("expected .keras, .h5 or .weights.h5 as Keras saves them").into()
    })?;
    let mut problems = Vec::new();
    stored.root.walk("", &mut |path, node| {
        if let hdf5::Node::Other(what) = node {
            problems.push(failed(format!("has a member that can't be read, it is {what}")).node(path));
        }
    });
    modelport_ir::Error::collect(problems)?;
    Ok(stored)
}

fn of_archive(path: &Path, file: Arc<dyn Storage>) -> std::result::Result<Stored, String> {
    let archive = Archive::open(file)?;
    if !is_archive(&archive) {
        return Err("is an archive, but not one of Keras'".to_owned());
    }
    if archive.is_packed(WEIGHTS) {
        return Err("has compressed weights, which Keras does not write".to_owned());
    }
    let text = archive.text("config.json", MAX_ENTRY)?;
    let root = Group::read(archive.entry(WEIGHTS)?).map_err(|message| format!("{WEIGHTS} in it {message}"))?;
    let mut room = MAX_ENTRY;
    let mut entries = Vec::new();
    for name in archive.names().filter(|name| ![WEIGHTS, "config.json"].contains(name)) {
        let bytes = archive.bytes(name, room)?;
        room -= bytes.len() as u64;
        entries.push((format!("{}{name}", archive.root()), bytes));
    }
    let config = Config::parse(&text)?;
    let layers = variables::of_weights(&root, Some(&config))?;
    Ok(Stored { path: path.to_owned(), form: Form::Archive, config: Some(text), root, entries, layers })
}

fn of_hdf5(path: &Path, file: Arc<dyn Storage>) -> std::result::Result<Stored, String> {
    let root = Group::read(file)?;
    let config = root.text("model_config").map(str::to_owned);
    let parsed = config.as_deref().map(Config::parse).transpose()?;
    let (form, layers) = if root.group("model_weights").is_some() {
        (Form::Whole, variables::of_legacy(&root, "model_weights", parsed.as_ref())?)
    } else if root.texts("layer_names").is_some() {
        (Form::LegacyWeights, variables::of_legacy(&root, "", parsed.as_ref())?)
    } else {
        (Form::Weights, variables::of_weights(&root, parsed.as_ref())?)
    };
    if layers.is_empty() && form == Form::Weights {
        return Err("is an HDF5 file without weights of layers".to_owned());
    }
    Ok(Stored { path: path.to_owned(), form, config, root, entries: Vec::new(), layers })
}

/// The class of a layer as Keras writes it in paths, from the name of the class.
pub fn snake_case(class: &str) -> String {
    let chars: Vec<char> = class.chars().filter(|c| c.is_alphanumeric() || *c == '_').collect();
    let mut name = String::with_capacity(class.len() + 4);
    for (index, c) in chars.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|at| chars.get(at));
        let begins_word = c.is_ascii_uppercase() && chars.get(index + 1).is_some_and(char::is_ascii_lowercase);
        let after_lower = c.is_ascii_uppercase() && before.is_some_and(char::is_ascii_lowercase);
        if (begins_word && before.is_some() || after_lower) && before != Some(&'_') {
            name.push('_');
        }
        name.extend(c.to_lowercase());
    }
    name
}

/// Text of a configuration.
fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key)?.as_str()
}
