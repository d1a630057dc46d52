//! Keras' files: whole models as `.keras` and `.h5`, and weights alone as `.weights.h5`.
//!
//! All of them stream: what surrounds the elements is laid out first. `.keras` is a zip archive of `metadata.json`,
//! `config.json` and `model.weights.h5`; `.h5` is Keras 2's form, which Keras 3 reads too.

mod keras2;
mod layers;

#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::Path;

use modelport_ir::atomic::AtomicFile;
use modelport_ir::hdf5::{Attribute, Group, Plan};
use modelport_ir::{Error, Problem, Result};
use serde_json::json;

use super::model::Model;
use crate::weights::archive::{Archive, Patch};
use crate::weights::{self, Progress};

pub use layers::{legacy_weights, places, snake_case, weights};

/// The version of Keras whose files these are. Nothing depends on it when they are read.
const KERAS_3: &str = "3.0.0";
const KERAS_2: &str = "2.12.0";
/// Files do not depend on the clock.
const DATE: &str = "1980-01-01@00:00:00";

/// Kinds of files, told by their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// A whole model in Keras 3's archive, `.keras`.
    Keras,
    /// A whole model as Keras 2 wrote it, `.h5`; `load_weights` takes it as well.
    H5,
    /// The weights alone, `.weights.h5`.
    Weights,
}

impl FileFormat {
    /// The kind of file that a name stands for.
    pub fn of(path: &Path) -> Option<FileFormat> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        match name.rsplit_once('.')? {
            (_, "keras") => Some(FileFormat::Keras),
            (stem, "h5" | "hdf5") if stem.ends_with(".weights") => Some(FileFormat::Weights),
            (_, "h5" | "hdf5") => Some(FileFormat::H5),
            _ => None,
        }
    }
}

/// Writes a model, for Keras 3, to a file that appears when it is complete.
///
/// # Errors
/// When the name says no kind of file, the kind can't say what is in the model, a tensor can't be read, or the file
/// can't be written.
pub fn write(path: &Path, model: &Model) -> Result<()> {
    let format = FileFormat::of(path).ok_or_else(|| {
        Problem::new("is no name of a Keras file").file(path).hint("expected .keras, .h5 or .weights.h5")
    })?;
    let mut file = AtomicFile::create(path)?;
    write_to(&mut file, format, 3, model, None)?;
    file.commit()
}

/// Writes a model, for Keras 2 or 3, to a file that the caller commits.
///
/// # Errors
/// As [`write`].
pub fn write_to(
    file: &mut AtomicFile,
    format: FileFormat,
    version: u8,
    model: &Model,
    progress: Progress,
) -> Result<()> {
    let path = file.path().to_owned();
    let in_file = |error: Error| error.in_file(&path);
    match format {
        FileFormat::Keras => {
            let config = model.config().to_string();
            let weights = layers::weights(model).map_err(in_file)?;
            write_archive(file, &config, &weights, &[], progress)
        }
        FileFormat::H5 => write_hdf5(file, &whole(model, version).map_err(in_file)?, progress),
        FileFormat::Weights => write_hdf5(file, &layers::weights(model).map_err(in_file)?, progress),
    }
}

/// A whole model in Keras 2's form, for Keras of this version.
///
/// # Errors
/// What Keras 2 has no form for, if it is to read the file.
pub fn whole(model: &Model, version: u8) -> Result<Group> {
    let mut root = Group::default();
    let config = keras2::config(model, version)?.to_string();
    for (name, value) in [("keras_version", KERAS_2), ("backend", "tensorflow"), ("model_config", &config)] {
        root.attributes.insert(name.to_owned(), Attribute::Text(value.to_owned()));
    }
    let weights = layers::legacy_weights(model)?;
    root.members.insert("model_weights".to_owned(), modelport_ir::hdf5::Node::Group(weights));
    Ok(root)
}

/// Writes an HDF5 file.
///
/// # Errors
/// When there is something that can't be written, or a tensor can't be read.
pub fn write_hdf5(file: &mut AtomicFile, root: &Group, progress: Progress) -> Result<()> {
    let path = file.path().to_owned();
    let plan = Plan::of(root).map_err(|message| Problem::new(message).file(&path))?;
    weights::stream(file, progress, |out| plan.write_to(out).map(|()| Vec::new()))
}

/// Writes a `.keras` archive: a configuration, weights, and entries as they are.
///
/// # Errors
/// As [`write_hdf5`].
pub fn write_archive(
    file: &mut AtomicFile,
    config: &str,
    weights: &Group,
    others: &[(String, Vec<u8>)],
    progress: Progress,
) -> Result<()> {
    let path = file.path().to_owned();
    let plan = Plan::of(weights).map_err(|message| Problem::new(message).file(&path))?;
    let metadata = json!({"keras_version": KERAS_3, "date_saved": DATE}).to_string();
    weights::stream(file, progress, |out| -> io::Result<Vec<Patch>> {
        let mut archive = Archive::new(out);
        let mut text = |name: &str, bytes: &[u8]| archive.add(name, bytes.len() as u64, |out| out.write_all(bytes));
        if !others.iter().any(|(name, _)| name == "metadata.json") {
            text("metadata.json", metadata.as_bytes())?;
        }
        text("config.json", config.as_bytes())?;
        for (name, bytes) in others {
            text(name, bytes)?;
        }
        archive.add("model.weights.h5", plan.len(), |out: &mut dyn Write| plan.write_to(out))?;
        archive.finish()
    })
}
