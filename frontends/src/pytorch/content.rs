//! What a file holds, by its content: names and extensions deceive.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use modelport_ir::tensor::{FileBytes, Storage};
use modelport_ir::{Error, Problem, Result, Tensor};

use super::archive::Archive;
use super::objects::{Objects, Outcome, Storages};
use super::safetensors;

/// Bytes at the beginning that tell what a file is.
const HEAD: u64 = 512;
/// Longest `byteorder`.
const MAX_WORD: u64 = 16;
/// Most bytes of a pickle that must be unpacked first.
const MAX_PICKLE: u64 = 1 << 28;

/// What PyTorch's files hold.
pub enum Content {
    /// Objects: a state dict, a checkpoint, a module.
    Objects(Objects),
    /// Tensors and their names, and nothing else.
    Tensors(Vec<(String, Tensor)>),
    /// What `torch.jit.save` wrote.
    Script(Archive),
    /// What `torch.export.save` wrote.
    Exported(Archive),
}

/// A file that was opened.
pub struct Opened {
    /// What it is, in words.
    pub format: &'static str,
    /// What is in it.
    pub content: Content,
}

/// The weights that a folder of the Hugging Face hub has.
pub fn in_folder(folder: &Path) -> Option<PathBuf> {
    const NAMES: [&str; 4] =
        ["model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin"];
    NAMES.iter().map(|name| folder.join(name)).find(|path| path.is_file())
}

/// Opens a file.
///
/// # Errors
/// When it is none of PyTorch's, or is damaged.
pub fn open(path: &Path) -> Result<Opened> {
    let failed = |message: String| Problem::new(message).file(path);
    let file: Arc<dyn Storage> = FileBytes::open(path).map_err(|error| crate::kind::unreadable(path, &error))?;
    let mut head = vec![0; file.len().min(HEAD) as usize];
    file.read_at(0, &mut head).map_err(|error| crate::kind::unreadable(path, &error))?;
    if head.starts_with(b"PK") {
        return Ok(zip(file).map_err(failed)?);
    }
    if head.starts_with(b"\x93NUMPY") {
        return Ok(Opened { format: "NumPy dictionary", content: Content::Tensors(layers(path)?) });
    }
    if safetensors::is_header(&head, file.len()) {
        let tensors = safetensors::read(&file)
            .map_err(|messages| Error { problems: messages.into_iter().map(failed).collect() })?;
        return Ok(Opened { format: "safetensors", content: Content::Tensors(tensors) });
    }
    Err(failed("is no file of PyTorch".to_owned()).into())
}

/// The arrays of `{layer: {name: array}}`, as `layer.name`.
fn layers(path: &Path) -> Result<Vec<(String, Tensor)>> {
    let join = |layer: &str, name: String| if layer.is_empty() { name } else { format!("{layer}.{name}") };
    let layers = modelport_ir::npy::read(path)?.into_iter();
    Ok(layers
        .flat_map(|(layer, tensors)| tensors.into_iter().map(move |(name, tensor)| (join(&layer, name), tensor)))
        .collect())
}

fn zip(file: Arc<dyn Storage>) -> Outcome<Opened> {
    let archive = Archive::open(file)?;
    let script = archive.names().any(|name| name.starts_with("code/")) || archive.has("constants.pkl");
    if script && archive.has("data.pkl") {
        return Ok(Opened { format: "TorchScript", content: Content::Script(archive) });
    }
    if archive.has("archive_format") || archive.has("serialized_exported_program.json") {
        return Ok(Opened { format: "exported program", content: Content::Exported(archive) });
    }
    if archive.has("data.pkl") {
        let objects = archive_objects(archive, "data.pkl", "data")?;
        return Ok(Opened { format: "PyTorch archive", content: Content::Objects(objects) });
    }
    Err("is a zip archive without a data.pkl, expected a file that torch.save wrote".to_owned())
}

/// The objects of a pickle in an archive, whose storages are the files of `folder`.
///
/// # Errors
/// When the pickle is missing or damaged.
pub fn archive_objects(archive: Archive, pickle: &str, folder: &str) -> Outcome<Objects> {
    let mut source = archive.entry(pickle)?;
    if source.len() <= MAX_PICKLE && archive.is_packed(pickle) {
        // It is read back and forth.
        source = Arc::new(archive.bytes(pickle, MAX_PICKLE)?);
    }
    let big_endian = match archive.has("byteorder") {
        true => archive.text("byteorder", MAX_WORD)?.trim() == "big",
        false => false,
    };
    Objects::read(source, 0, Box::new(Folder { archive, folder: folder.to_owned(), big_endian }))
}

struct Folder {
    archive: Archive,
    folder: String,
    big_endian: bool,
}

impl Storages for Folder {
    fn bytes(&self, key: &str) -> Outcome<Arc<dyn Storage>> {
        self.archive.entry(&format!("{}/{key}", self.folder)).map_err(|error| format!("has no elements: {error}"))
    }

    fn is_big_endian(&self) -> bool {
        self.big_endian
    }
}
