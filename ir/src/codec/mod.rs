//! The IR on disk: `.json`, `.pb` and `.npy`, interchangeable with MMdnn 0.3.1's files.
//!
//! `.json` and `.pb` hold the same nodes (`proto/graph.proto`), the `.npy` holds all tensors by node and name. Where
//! MMdnn has a word for an operator it is used, so that both read the file; what it can't say rides in attributes that
//! begin with an underscore. A graph that is saved and loaded is equal to what it was, whatever it is made of.
//!
//! An operator needs nothing here to be saved: serde takes it apart into attributes ([`fields`]).

mod attributes;
mod decode;
mod encode;
mod expand;
mod fields;
mod json;
#[cfg(test)]
mod mmdnn_tests;
mod names;
mod node;
mod proto;
mod read;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
mod write;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use prost::Message;

use crate::atomic::AtomicFile;
use crate::diagnostic::{Error, Problem, Result};
use crate::graph::Graph;
use crate::npy::{self, Weights};
use proto::GraphDef;

/// A file of a saved graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The nodes, for people.
    Json,
    /// The nodes, for programs.
    Pb,
    /// The tensors.
    Npy,
}

impl Format {
    /// All of them.
    pub const ALL: &[Format] = &[Format::Json, Format::Pb, Format::Npy];

    /// The ending of its file names.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Pb => "pb",
            Format::Npy => "npy",
        }
    }
}

/// Writes a graph as `base.json`, `base.pb` and `base.npy` (those that are asked for) and returns their names. Files
/// appear when all of them are complete. Takes memory for one tensor at most.
///
/// # Errors
/// All nodes that the files can't say; or what went wrong while writing.
pub fn save(graph: &Graph, base: &Path, formats: &[Format]) -> Result<Vec<PathBuf>> {
    let (def, weights) = write::to_files(graph)?;
    let mut files = Vec::with_capacity(formats.len());
    for &format in formats {
        let mut name = OsString::from(base);
        name.push(".");
        name.push(format.extension());
        let mut file = AtomicFile::create(Path::new(&name))?;
        let written = match format {
            Format::Json => {
                serde_json::to_writer_pretty(&mut file, &def).map_err(Into::into).and_then(|()| file.write_all(b"\n"))
            }
            Format::Pb => file.write_all(&def.encode_to_vec()),
            Format::Npy => npy::write(&mut file, &weights),
        };
        written.map_err(|error| Problem::new(format!("can't be written: {error}")).file(&name))?;
        files.push(file);
    }
    let mut paths = Vec::with_capacity(files.len());
    for file in files {
        paths.push(file.path().to_owned());
        file.commit()?;
    }
    Ok(paths)
}

/// Reads a graph from its `.json` or `.pb` (told apart by content) and the `.npy` with its tensors; without one named,
/// that beside `network` is taken if there is one. Files of MMdnn are read too.
///
/// # Errors
/// What is wrong with the files; all nodes that can't be read, that lack weights, or whose operator is not known.
pub fn load(network: &Path, weights: Option<&Path>) -> Result<Graph> {
    let failed = |message: String| Problem::new(message).file(network);
    let bytes = std::fs::read(network).map_err(|error| failed(format!("can't be read: {error}")))?;
    let def = parse(&bytes).map_err(|message| failed(message).hint("expected the .pb or .json of a saved network"))?;
    let beside = network.with_extension(Format::Npy.extension());
    let weights = match weights {
        Some(path) => Some(path.to_owned()),
        None => Some(beside).filter(|path| path.is_file()),
    };
    let tensors = weights.as_deref().map_or_else(|| Ok(Weights::new()), npy::read)?;
    let text =
        |part: Option<&std::ffi::OsStr>| part.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (name, source) = (text(network.file_stem()), format!("MMdnn, {}", text(network.file_name())));
    read::from_files(def, &tensors, Graph::new(name, source), weights.as_deref()).map_err(|e: Error| e.in_file(network))
}

fn parse(bytes: &[u8]) -> std::result::Result<GraphDef, String> {
    let binary = || GraphDef::decode(bytes).map_err(|error| format!("is no saved network: {error}"));
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if text.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return binary();
    }
    // A node of 123 bytes makes a binary file begin like JSON.
    serde_json::from_slice(text).or_else(|error| {
        binary().ok().filter(|def| !def.node.is_empty()).ok_or(format!("is no saved network in JSON: {error}"))
    })
}

/// Input slots of a node's inputs, when they are not the first free ones.
const SLOTS: &str = "_slots";
/// `slot=name` of the constants that are the node's weights.
const CONSTANTS: &str = "_constants";
/// Slots of the node's weights that were variables; on a constant, whether it was one.
const TRAINABLE: &str = "_trainable";
/// The weight name under which a constant's own elements are saved.
const VALUE: &str = "value";

/// The node about the whole graph, and its attributes.
struct Header;

impl Header {
    const OP: &str = "_Graph";
    const NAME: &str = "_name";
    const SOURCE: &str = "_source";
    const INPUTS: &str = "_inputs";
    const INPUT_VALUES: &str = "_input_values";
    const INPUT_PERMUTATIONS: &str = "_input_permutations";
    const OUTPUTS: &str = "_outputs";
    const OUTPUT_VALUES: &str = "_output_values";
    const OUTPUT_PERMUTATIONS: &str = "_output_permutations";
    /// `path=class` of the source's modules.
    const MODULES: &str = "_modules";
    /// Keys of weights that nothing reads, each a weight [`VALUE`] of its own.
    const SPARE: &str = "_spare";
    /// Four texts for each weight that is kept as length and direction: its key, the axis of the lengths (or nothing),
    /// and the keys of the two, each a weight [`VALUE`] of its own.
    const WEIGHT_NORMS: &str = "_weight_norms";
    /// Places among all nodes of the stored constants, when these do not come right before their first nodes.
    const POSITIONS: &str = "_positions";
}

/// The name in the `.npy` of the weight in a slot.
fn weight_key<'a>(op: &str, slot: &'a str) -> &'a str {
    match op {
        "PRelu" => "gamma",
        "Embedding" => "weights",
        _ => slot,
    }
}

/// The names of all nodes in order: `default` is the order of the file with the stored constants (`true`) in between;
/// `positions` says where these go instead, if it fits.
fn arrange<'a>(default: &[(&'a str, bool)], positions: &[i64]) -> Vec<&'a str> {
    let in_default = || default.iter().map(|(name, _)| *name).collect();
    let mut places: Vec<Option<&str>> = vec![None; default.len()];
    let stored: Vec<&str> = default.iter().filter(|(_, stored)| *stored).map(|(name, _)| *name).collect();
    if stored.len() != positions.len() {
        return in_default();
    }
    for (name, &position) in stored.iter().zip(positions) {
        match usize::try_from(position).ok().and_then(|position| places.get_mut(position)) {
            Some(place @ None) => *place = Some(name),
            _ => return in_default(),
        }
    }
    let mut rest = default.iter().filter(|(_, stored)| !stored).map(|(name, _)| *name);
    places.into_iter().filter_map(|place| place.or_else(|| rest.next())).collect()
}
