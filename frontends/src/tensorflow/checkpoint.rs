//! A checkpoint of either version: names and lazily read tensors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use modelport_ir::{DType, Error, Problem, Tensor};

use super::locate::{self, Weights};
use super::metagraph::SliceInfo;
use super::near::near;
use super::{bundle, v1};

/// What a reader of checkpoints found.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    /// By name.
    pub tensors: BTreeMap<String, Tensor>,
    /// Tensors of types that modelport has no use for, with their numbers in `types.proto`.
    pub skipped: BTreeMap<String, i32>,
}

/// An open checkpoint. Partitioned variables are whole. Tensors are read when they are asked for their elements;
/// reading one from its first byte to its last verifies its checksum.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
    contents: Contents,
}

impl Checkpoint {
    /// Opens the checkpoint at `path`: its prefix, any of its files, or its folder (see [`locate::weights`]).
    ///
    /// # Errors
    /// When there is none, files are missing or damaged, or it has no variables.
    pub fn open(path: &Path) -> Result<Checkpoint, Error> {
        Checkpoint::read(&locate::weights(path)?)
    }

    /// Opens a checkpoint that was located.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn read(weights: &Weights) -> Result<Checkpoint, Error> {
        let (path, contents) = match weights {
            Weights::Bundle { prefix } => (prefix.clone(), bundle::open(prefix)?),
            Weights::V1 { files } => (files.first().cloned().unwrap_or_default(), v1::open(files)?),
        };
        let checkpoint = Checkpoint { path, contents };
        if checkpoint.contents.tensors.is_empty() {
            let skipped = match checkpoint.contents.skipped.len() {
                0 => String::new(),
                n => format!(", only {n} entries that are no numbers"),
            };
            let problem = Problem::new(format!("is a checkpoint without variables{skipped}")).file(&checkpoint.path);
            return Err(problem.hint("Save it with a tf.train.Saver that saves the network's variables.").into());
        }
        Ok(checkpoint)
    }

    /// Prefix or file of the checkpoint.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all tensors of numbers, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.contents.tensors.keys().map(String::as_str)
    }

    /// Name, element type and shape of all tensors of numbers, sorted by name.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, DType, Vec<usize>)> {
        self.contents.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.dtype(), tensor.shape()))
    }

    /// The tensor of this name. Tensors that are asked for twice are the same ([`Tensor::is_same`]).
    pub fn get(&self, name: &str) -> Option<Tensor> {
        self.contents.tensors.get(name).cloned()
    }

    /// A part of a partitioned variable, as a graph has it.
    ///
    /// # Errors
    /// When the whole is missing or of another shape.
    pub fn part(&self, slice: &SliceInfo) -> Result<Tensor, Error> {
        let name = &slice.full_name;
        let mut tensor = match self.problem_if_missing(name) {
            Some(problem) => return Err(problem.into()),
            None => self.get(name).ok_or_else(|| Error::new(format!("variable {name} is missing")))?,
        };
        let shape = tensor.shape();
        let mismatch = || {
            let found = format!("variable {name} has the shape {shape:?} in the checkpoint");
            let wanted = format!("but {:?} in the graph, of which the part at {:?}", slice.full_shape, slice.offset);
            Error::from(Problem::new(format!("{found}, {wanted} is wanted")).file(&self.path))
        };
        if slice.full_shape.len() != shape.len()
            || slice.full_shape.iter().zip(&shape).any(|(wanted, found)| u64::try_from(*wanted) != Ok(*found as u64))
            || slice.offset.len() != shape.len()
            || slice.shape.len() != shape.len()
        {
            return Err(mismatch());
        }
        for (axis, (&offset, &len)) in slice.offset.iter().zip(&slice.shape).enumerate() {
            let range = usize::try_from(offset).ok().zip(usize::try_from(len).ok());
            let (start, len) = range.ok_or_else(mismatch)?;
            let end = start.checked_add(len).ok_or_else(mismatch)?;
            tensor = tensor.sliced(axis, start, end).map_err(|_| mismatch())?;
        }
        Ok(tensor)
    }

    /// Entries that are no numbers, strings for instance: name and number of the type in `types.proto`.
    pub fn skipped(&self) -> impl Iterator<Item = (&str, i32)> {
        self.contents.skipped.iter().map(|(name, code)| (name.as_str(), *code))
    }

    /// The problem that a variable is not there, with names that come near; `None` if it is there.
    pub fn problem_if_missing(&self, name: &str) -> Option<Problem> {
        if self.contents.tensors.contains_key(name) {
            return None;
        }
        let path = &self.path;
        if let Some(code) = self.contents.skipped.get(name) {
            let message = format!("variable {name} is of a type (number {code}) that holds no numbers");
            return Some(Problem::new(message).file(path));
        }
        let problem = Problem::new("this variable is not in the checkpoint").node(name).file(path);
        let close = near(name, self.names(), 3);
        Some(if close.is_empty() {
            let n = self.contents.tensors.len();
            problem.hint(format!("Its {n} variables are of another network; is it the right checkpoint?"))
        } else {
            problem.hint(format!("It has {}.", close.join(", ")))
        })
    }

    /// Reads everything and verifies all checksums. Conversions need not: they verify what they read.
    ///
    /// # Errors
    /// All tensors that can't be read or do not match their checksums.
    pub fn verify(&self) -> Result<(), Error> {
        let failed = self.contents.tensors.values().filter_map(|tensor| tensor.write_to(&mut std::io::sink()).err());
        Error::collect(failed.map(|error| Problem::new(error.to_string())).collect())
    }
}
