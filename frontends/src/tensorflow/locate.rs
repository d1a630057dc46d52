//! Finds the files that people mean: a checkpoint by its prefix, by any of its files or by its folder, a graph likewise.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use modelport_ir::tensor::FileBytes;
use modelport_ir::{Error, Problem};

use super::bundle::{file_name, with_suffix};
use super::checkpoint::Checkpoint;
use super::metagraph::MetaGraph;
use super::near::near;
use super::v1;
use crate::kind::{self, Kind};

/// Files of a folder that are looked at.
const MOST_FILES: usize = 10_000;
/// Files that an error lists.
const MOST_LISTED: usize = 8;

/// Where a checkpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Weights {
    /// Version 2: `prefix.index` and `prefix.data-…`.
    Bundle {
        /// What the files' names begin with.
        prefix: PathBuf,
    },
    /// Version 1.
    V1 {
        /// The file, or its shards.
        files: Vec<PathBuf>,
    },
}

/// What was read of a network.
#[derive(Clone, Debug)]
pub struct Files {
    /// The file with the graph.
    pub network: PathBuf,
    /// The graph.
    pub meta: MetaGraph,
    /// The weights; none if the graph is frozen, or if no checkpoint was given and none lies beside it.
    pub checkpoint: Option<Checkpoint>,
}

/// Opens a graph and its weights. Either may be left out: a `.meta` file, a prefix or a folder stands for both if both
/// are there, and a frozen graph has its weights in itself.
///
/// # Errors
/// When files are missing, damaged, or something else.
pub fn open(network_path: Option<&Path>, weights_path: Option<&Path>) -> Result<Files, Error> {
    let Some(given) = network_path.or(weights_path) else {
        let problem = Problem::new("neither a network nor weights were given");
        return Err(problem.hint("Give the graph (.meta or .pb) with -in and the checkpoint with -iw.").into());
    };
    let path = network(given)?;
    let meta = MetaGraph::open(&path)?;
    let kind = kind_of(&path)?;
    let frozen = kind == Kind::GraphDef;
    let checkpoint = match weights_path {
        Some(weights) if frozen && same_file(weights, &path) => None,
        Some(weights) if network_path.is_some() => Some(Checkpoint::open(weights)?),
        _ if frozen && given.is_file() => None,
        _ => beside(given, &path, kind).map(|weights| Checkpoint::read(&weights)).transpose()?,
    };
    Ok(Files { network: path, meta, checkpoint })
}

fn same_file(a: &Path, b: &Path) -> bool {
    a == b || fs::canonicalize(a).is_ok_and(|a| fs::canonicalize(b).is_ok_and(|b| a == b))
}

/// The weights that belong to a graph because of where they are.
fn beside(given: &Path, graph: &Path, kind: Kind) -> Option<Weights> {
    if kind == Kind::SavedModel {
        return at_prefix(&graph.parent()?.join("variables").join("variables"));
    }
    strip(graph).and_then(|prefix| at_prefix(&prefix)).or_else(|| weights(given).ok())
}

fn kind_of(path: &Path) -> Result<Kind, Error> {
    FileBytes::open(path).and_then(|file| kind::of(file)).map_err(|error| kind::unreadable(path, &error).into())
}

/// Finds the checkpoint that `path` means: a prefix, one of its files (`.index`, `.data-…`, `.meta`, or the only one
/// of version 1), a folder with one, or a SavedModel.
///
/// # Errors
/// When there is none, or more than one; the error says what was looked for and what is there.
pub fn weights(path: &Path) -> Result<Weights, Error> {
    if path.is_dir() {
        return weights_in(path);
    }
    let stripped = strip(path);
    for prefix in stripped.iter().map(PathBuf::as_path).chain([path]) {
        if let Some(weights) = at_prefix(prefix) {
            return Ok(weights);
        }
    }
    let prefix = stripped.as_deref().unwrap_or(path);
    if has_data(prefix) {
        let problem = Problem::new("is missing: the index of the checkpoint").file(with_suffix(prefix, ".index"));
        return Err(problem.hint("It must lie beside the data.").into());
    }
    if !path.is_file() {
        return Err(missing(path, "checkpoint", &["", ".index", ".meta"], &[".index", ".ckpt"]).into());
    }
    let kind = kind_of(path)?;
    match (kind, stripped) {
        (Kind::CheckpointState, _) => weights_in(&folder(path)),
        (Kind::Table, _) => {
            let problem = Problem::new("is the index of a checkpoint under an unusual name").file(path);
            Err(problem.hint("Name it PREFIX.index, beside PREFIX.data-00000-of-00001.").into())
        }
        (Kind::MetaGraphDef, Some(prefix)) => {
            let problem = Problem::new("is missing: the index of the checkpoint").file(with_suffix(&prefix, ".index"));
            Err(problem.hint(format!("It must lie beside {}, with the data.", file_name(path))).into())
        }
        _ => Err(kind.not_a_checkpoint(path).into()),
    }
}

/// Whether there are data shards of version 2.
fn has_data(prefix: &Path) -> bool {
    let start = format!("{}.data-", file_name(prefix));
    list(&folder(prefix)).is_ok_and(|files| files.iter().any(|path| file_name(path).starts_with(&start)))
}

/// The name of a checkpoint's file without what follows the prefix.
fn strip(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let prefix = [".index", ".meta"].iter().find_map(|suffix| name.strip_suffix(suffix)).or_else(|| {
        let (prefix, _) = split_shard(name)?;
        Some(prefix.strip_suffix(".data").unwrap_or(prefix))
    })?;
    (!prefix.is_empty()).then(|| path.with_file_name(prefix))
}

/// `x-00001-of-00003` as `x` and `00003`.
fn split_shard(name: &str) -> Option<(&str, &str)> {
    let digits = |text: &str| text.len() >= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let (rest, count) = name.rsplit_once("-of-").filter(|(_, count)| digits(count))?;
    let (prefix, _) = rest.rsplit_once('-').filter(|(_, shard)| digits(shard))?;
    Some((prefix, count))
}

/// The checkpoint whose files begin with `prefix`.
fn at_prefix(prefix: &Path) -> Option<Weights> {
    if with_suffix(prefix, ".index").is_file() {
        return Some(Weights::Bundle { prefix: prefix.to_owned() });
    }
    if prefix.is_file() {
        return v1::is(prefix).then(|| Weights::V1 { files: vec![prefix.to_owned()] });
    }
    let name = prefix.file_name()?.to_str()?;
    let shards = list(&folder(prefix))
        .ok()?
        .into_iter()
        .filter(|path| split_shard(&file_name(path)).is_some_and(|(start, _)| start == name) && v1::is(path));
    let files: Vec<PathBuf> = shards.collect();
    (!files.is_empty()).then_some(Weights::V1 { files })
}

fn weights_in(folder: &Path) -> Result<Weights, Error> {
    let newest = newest(folder);
    if let Some(weights) = newest.iter().find_map(|prefix| at_prefix(prefix)) {
        return Ok(weights);
    }
    if let Some(weights) = at_prefix(&folder.join("variables").join("variables")) {
        return Ok(weights);
    }
    let files = list(folder).map_err(|error| kind::unreadable(folder, &error))?;
    let indexes = files.iter().filter(|path| file_name(path).ends_with(".index")).filter_map(|path| strip(path));
    let mut found: Vec<PathBuf> = indexes.collect();
    if found.is_empty() {
        found = files.iter().filter(|path| v1::is(path)).cloned().collect();
    }
    match found.as_slice() {
        [only] => at_prefix(only).ok_or_else(|| Problem::new("is no checkpoint").file(only).into()),
        [] => {
            let mut problem = nothing_in(folder, "checkpoint (no .index file, and none of version 1)", &files);
            if let Some(named) = newest.first() {
                problem.message += &format!("; its file `checkpoint` names {}", named.display());
            }
            Err(problem.into())
        }
        several => Err(several_in(folder, "checkpoints", several).into()),
    }
}

/// Finds the graph that `path` means: a file with a graph, the prefix or any file of a checkpoint with a `.meta` file,
/// or a folder with one graph.
///
/// # Errors
/// When there is none, or more than one; the error says what was looked for and what is there.
pub fn network(path: &Path) -> Result<PathBuf, Error> {
    if path.is_dir() {
        return network_in(path);
    }
    if path.is_file() {
        let kind = kind_of(path)?;
        if matches!(kind, Kind::GraphDef | Kind::MetaGraphDef | Kind::SavedModel | Kind::GraphText) {
            return Ok(path.to_owned());
        }
        if kind == Kind::CheckpointState {
            return network_in(&folder(path));
        }
        let prefix = strip(path).unwrap_or_else(|| path.to_owned());
        let meta = with_suffix(&prefix, ".meta");
        return if meta.is_file() && meta != path { Ok(meta) } else { Err(not_a_graph(kind, path).into()) };
    }
    let prefixes = strip(path).into_iter().chain([path.to_owned()]);
    let mut candidates =
        prefixes.flat_map(|prefix| [".meta", ".pb"].map(|suffix| with_suffix(&prefix, suffix))).filter(|p| p.is_file());
    match candidates.next() {
        Some(found) => Ok(found),
        None => Err(missing(path, "graph", &["", ".meta", ".pb"], &[".meta", ".pb"]).into()),
    }
}

/// The error for a file that is no graph. Parts of checkpoints are recognised by their names.
fn not_a_graph(kind: Kind, path: &Path) -> Problem {
    let part = strip(path).filter(|_| kind == Kind::Table || split_shard(&file_name(path)).is_some());
    match part {
        Some(prefix) => {
            let meta = with_suffix(&prefix, ".meta");
            Problem::new(format!("holds weights; the graph would be in {}, which is missing", file_name(&meta)))
                .file(path)
                .hint("Give the graph (.meta or .pb) with -in and the checkpoint with -iw.")
        }
        None => kind.not_a_graph(path),
    }
}

fn network_in(folder: &Path) -> Result<PathBuf, Error> {
    for name in ["saved_model.pb", "saved_model.pbtxt"] {
        let path = folder.join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    let newest = newest(folder).into_iter().map(|prefix| with_suffix(&prefix, ".meta"));
    if let Some(meta) = newest.into_iter().find(|meta| meta.is_file()) {
        return Ok(meta);
    }
    let files = list(folder).map_err(|error| kind::unreadable(folder, &error))?;
    for suffix in [".meta", ".pb"] {
        let found: Vec<PathBuf> = files.iter().filter(|path| file_name(path).ends_with(suffix)).cloned().collect();
        match found.as_slice() {
            [] => {}
            [only] => return Ok(only.clone()),
            several => return Err(several_in(folder, "graphs", several).into()),
        }
    }
    Err(nothing_in(folder, "graph (no .meta or .pb file)", &files).into())
}

/// Where the newest checkpoint may be, by what the file `checkpoint` of a folder says. Folders are moved, so a path
/// that does not exist is looked for in the folder.
fn newest(folder: &Path) -> Vec<PathBuf> {
    let Some(named) = state(&folder.join("checkpoint")) else { return Vec::new() };
    let last = named.rsplit(['/', '\\']).next().unwrap_or_default();
    vec![folder.join(&named), folder.join(last)]
}

/// `model_checkpoint_path` of a `CheckpointState` in text.
fn state(path: &Path) -> Option<String> {
    let text = fs::metadata(path).ok().filter(|m| m.len() < 1 << 20).and_then(|_| fs::read_to_string(path).ok())?;
    let quoted = text.lines().find_map(|line| line.trim().strip_prefix("model_checkpoint_path:"))?.trim();
    let quote = quoted.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    let mut bytes = Vec::new();
    let mut rest = quoted.strip_prefix(quote)?.bytes().peekable();
    while let Some(byte) = rest.next() {
        match byte {
            _ if byte == quote as u8 => return String::from_utf8(bytes).ok(),
            b'\\' => match rest.next()? {
                b'n' => bytes.push(b'\n'),
                b't' => bytes.push(b'\t'),
                digit @ b'0'..=b'7' => {
                    let mut value = u32::from(digit - b'0');
                    for _ in 0..2 {
                        if let Some(digit) = rest.next_if(|byte| (b'0'..=b'7').contains(byte)) {
                            value = value * 8 + u32::from(digit - b'0');
                        }
                    }
                    bytes.push(u8::try_from(value).ok()?);
                }
                other => bytes.push(other),
            },
            _ => bytes.push(byte),
        }
    }
    None
}

fn folder(path: &Path) -> PathBuf {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// The files in a folder, sorted.
fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.take(MOST_FILES).filter_map(|entry| Some(entry.ok()?.path()));
    let mut files: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    Ok(files)
}

fn listed(files: &[PathBuf]) -> String {
    let names: Vec<String> = files.iter().take(MOST_LISTED).map(|path| file_name(path)).collect();
    let more = files.len().saturating_sub(MOST_LISTED);
    if more == 0 { names.join(", ") } else { format!("{} and {more} more", names.join(", ")) }
}

fn nothing_in(folder: &Path, what: &str, files: &[PathBuf]) -> Problem {
    let problem = Problem::new(format!("has no {what}")).file(folder);
    problem.hint(if files.is_empty() {
        "There are no files in the folder.".to_owned()
    } else {
        format!("There are {}.", listed(files))
    })
}

fn several_in(folder: &Path, what: &str, found: &[PathBuf]) -> Problem {
    let problem = Problem::new(format!("has {} {what}, and nothing says which is meant", found.len())).file(folder);
    problem.hint(format!("Name one of {}.", listed(found)))
}

/// The problem that nothing is there, with what is nearby.
fn missing(path: &Path, what: &str, tried: &[&str], suffixes: &[&str]) -> Problem {
    let name = file_name(path);
    let tried: Vec<String> = tried.iter().map(|suffix| format!("{name}{suffix}")).collect();
    let parent = folder(path);
    let problem = Problem::new(format!("there is no {what} here: no file {}", tried.join(" or "))).file(path);
    let Ok(files) = list(&parent) else {
        return problem.hint(format!("The folder {} does not exist or can't be read.", parent.display()));
    };
    let names: Vec<String> = files.iter().map(|path| file_name(path)).collect();
    let mut close: Vec<&str> = names.iter().filter(|other| other.starts_with(&name)).map(String::as_str).collect();
    if close.is_empty() {
        close = near(&name, names.iter().map(String::as_str), MOST_LISTED);
    }
    if close.is_empty() {
        close = names.iter().filter(|other| suffixes.iter().any(|s| other.contains(s))).map(String::as_str).collect();
    }
    close.truncate(MOST_LISTED);
    problem.hint(match close.is_empty() {
        true => format!("The folder {} has nothing of the kind.", parent.display()),
        false => format!("The folder {} has {}.", parent.display(), close.join(", ")),
    })
}
