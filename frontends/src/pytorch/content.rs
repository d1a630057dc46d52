//! What a file holds, by its content: names and extensions deceive.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use modelport_ir::tensor::{FileBytes, Storage};
use modelport_ir::{Error, Problem, Result, Tensor, npy};
use serde::Deserialize;

use super::archive::Archive;
use super::objects::{Objects, Outcome, Storages};
use super::{EXPORT, legacy, safetensors};
use crate::kind::{self, Kind};

/// Longest index of several files.
const MAX_INDEX: u64 = 1 << 28;
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

/// Opens a file, or the weights in a folder.
///
/// # Errors
/// When it is none of PyTorch's, or is damaged.
pub fn open(path: &Path) -> Result<Opened> {
    if path.is_dir() {
        let inside = in_folder(path).ok_or_else(|| {
            let problem = Problem::new("is a folder without weights that are known").file(path);
            problem.hint("expected model.safetensors or pytorch_model.bin in it, or the index of several such files")
        })?;
        return open_file(&inside);
    }
    open_file(path)
}

fn open_file(path: &Path) -> Result<Opened> {
    let failed = |message: String| Problem::new(message).file(path);
    let unreadable = |error: std::io::Error| kind::unreadable(path, &error);
    let file: Arc<dyn Storage> = FileBytes::open(path).map_err(unreadable)?;
    let objects = |format, objects: Outcome<Objects>| -> Result<Opened> {
        Ok(Opened { format, content: Content::Objects(objects.map_err(failed)?) })
    };
    let tensors = |format, tensors| Ok(Opened { format, content: Content::Tensors(tensors) });
    match kind::of(file.clone()).map_err(unreadable)? {
        Kind::Zip => Ok(zip(file).map_err(failed)?),
        Kind::Safetensors => tensors("safetensors", from_safetensors(path, &file)?),
        Kind::ShardIndex => tensors("weights in several files", shards(path, &file)?),
        Kind::Npy => tensors("NumPy dictionary", layers(path)?),
        Kind::Tar => objects("PyTorch tar archive", legacy::tar(&file)),
        Kind::Pickle if legacy::has_magic(&file) => objects("PyTorch file before 1.6", legacy::five_pickles(file)),
        Kind::Pickle => objects("pickle", Objects::read(file, 0, Box::new(Nowhere))),
        Kind::ModuleText => Err(printed(path)),
        kind => {
            let by_name = path.extension().is_some_and(|extension| extension == "safetensors");
            if by_name && kind == Kind::Unknown {
                return tensors("safetensors", from_safetensors(path, &file)?);
            }
            Err(kind.not_weights(path).into())
        }
    }
}

/// The error that a printed module was given as a network.
fn printed(path: &Path) -> Error {
    let message = "is the printed module tree: it has no weights, and does not tell what forward() does";
    Problem::new(message).file(path).hint(format!("In Python, one line writes a file with everything: {EXPORT}")).into()
}

/// The storages of a pickle that has none.
struct Nowhere;

impl Storages for Nowhere {
    fn bytes(&self, key: &str) -> Outcome<Arc<dyn Storage>> {
        Err(format!("has no elements: the storage {key} is in another file"))
    }
}

fn from_safetensors(path: &Path, file: &Arc<dyn Storage>) -> Result<Vec<(String, Tensor)>> {
    let failed = |message: String| Problem::new(message).file(path);
    let tensors = safetensors::read(file);
    tensors.map_err(|messages| Error { problems: messages.into_iter().map(failed).collect() })
}

/// The tensors of the files that an index lists, in the index's order.
fn shards(path: &Path, file: &Arc<dyn Storage>) -> Result<Vec<(String, Tensor)>> {
    let failed = |message: String| Problem::new(message).file(path);
    if file.len() > MAX_INDEX {
        return Err(failed("is too long for an index".to_owned()).into());
    }
    let mut text = vec![0; file.len() as usize];
    file.read_at(0, &mut text).map_err(|error| failed(format!("can't be read: {error}")))?;
    let index: Index = serde_json::from_slice(&text).map_err(|error| failed(format!("is a damaged index: {error}")))?;
    let mut problems = Vec::new();
    let mut files: IndexMap<&str, IndexMap<String, Tensor>> = IndexMap::new();
    for name in index.weight_map.values() {
        if files.contains_key(name.as_str()) {
            continue;
        }
        let is_inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if !is_inside || name.is_empty() {
            problems.push(failed(format!("names a file {name:?} that is not beside it")));
            files.insert(name, IndexMap::new());
            continue;
        }
        let shard = path.with_file_name(name);
        // An index of an index would have no end.
        let tensors = match kind_of(&shard) {
            Ok(Kind::ShardIndex) => Err(Problem::new("is an index, expected weights").file(&shard).into()),
            Ok(_) => super::read_weights(&shard),
            Err(error) => {
                let listed = format!("{} lists it", path.file_name().unwrap_or_default().to_string_lossy());
                Err(kind::unreadable(&shard, &error).hint(listed).into())
            }
        };
        match tensors {
            Ok(tensors) => drop(files.insert(name, tensors.into_iter().collect())),
            Err(error) => {
                problems.extend(error.problems);
                files.insert(name, IndexMap::new());
            }
        }
    }
    Error::collect(problems)?;
    let mut problems = Vec::new();
    let mut tensors = Vec::with_capacity(index.weight_map.len());
    for (key, name) in &index.weight_map {
        match files.get(name.as_str()).and_then(|file| file.get(key)) {
            Some(tensor) => tensors.push((key.clone(), tensor.clone())),
            None => problems.push(failed(format!("lists '{key}', which is not in {name}"))),
        }
    }
    Error::collect(problems)?;
    Ok(tensors)
}

fn kind_of(path: &Path) -> std::io::Result<Kind> {
    kind::of(FileBytes::open(path)?)
}

#[derive(Deserialize)]
struct Index {
    weight_map: IndexMap<String, String>,
}

/// The arrays of `{layer: {name: array}}`, as `layer.name`.
fn layers(path: &Path) -> Result<Vec<(String, Tensor)>> {
    let join = |layer: &str, name: String| if layer.is_empty() { name } else { format!("{layer}.{name}") };
    let layers = modelport_ir::npy::read(path)?.into_iter();
    Ok(layers
        .flat_map(|(layer, tensors)| tensors.into_iter().map(move |(name, tensor)| (join(&layer, name), tensor)))
        .collect())
}

/// The arrays that `numpy.savez` wrote.
fn arrays(archive: &Archive) -> Outcome<Vec<(String, Tensor)>> {
    let read = |name: &str| {
        let key = name.trim_end_matches(".npy");
        let tensor = archive.entry(name).and_then(|file| npy::plain(&file));
        Ok((key.to_owned(), tensor.map_err(|message| format!("has an array '{key}' that {message}"))?))
    };
    archive.names().map(read).collect()
}

/// What is in a zip archive.
///
/// # Errors
/// When it is none of PyTorch's, or is damaged.
pub fn zip(file: Arc<dyn Storage>) -> Outcome<Opened> {
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
    if archive.names().next().is_some() && archive.names().all(|name| name.ends_with(".npy")) {
        return Ok(Opened { format: "NumPy archive", content: Content::Tensors(arrays(&archive)?) });
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
