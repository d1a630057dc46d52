//! What a file is, by its content: names and extensions deceive.

use std::io;
use std::path::Path;
use std::sync::Arc;

use modelport_ir::Problem;
use modelport_ir::tensor::{FileBytes, Storage};

use crate::Framework;
use crate::pytorch;
use crate::tensorflow::sstable;
use crate::tensorflow::wire::{self, Reader, Span, Value};

/// Bytes that are looked at to tell text from anything else.
const HEAD: u64 = 4096;

/// Kinds of files that people give to a converter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TensorFlow's graph, frozen or not (`.pb`).
    GraphDef,
    /// TensorFlow's graph with its collections (`.meta`).
    MetaGraphDef,
    /// TensorFlow's `saved_model.pb`.
    SavedModel,
    /// One of the above as text (`.pbtxt`).
    GraphText,
    /// `.index` of a checkpoint, or a whole checkpoint of version 1.
    Table,
    /// modelport's and MMdnn's own intermediate file.
    Ir,
    /// ONNX.
    Onnx,
    /// TensorFlow Lite.
    TfLite,
    /// HDF5: Keras.
    Hdf5,
    /// Zip: Keras 3, PyTorch.
    Zip,
    /// safetensors.
    Safetensors,
    /// Tar: PyTorch before 0.1.10, or files that were packed together.
    Tar,
    /// The index of weights in several files.
    ShardIndex,
    /// A module tree as Python prints it.
    ModuleText,
    /// Pickle: PyTorch before 1.6.
    Pickle,
    /// NumPy.
    Npy,
    /// gzip.
    Gzip,
    /// The pointer that Git LFS leaves in place of a file.
    LfsPointer,
    /// A web page: a download that went wrong.
    Html,
    /// The text file `checkpoint`, which names the newest checkpoint.
    CheckpointState,
    /// Some JSON.
    Json,
    /// No bytes.
    Empty,
    /// Only zeros, as an interrupted copy leaves them.
    Zeros,
    /// None of these.
    Unknown,
}

/// Looks at the content of a file. A damaged graph is still a graph if its beginning is one.
///
/// # Errors
/// When it can't be read.
pub fn of(source: Arc<dyn Storage>) -> io::Result<Kind> {
    let mut head = vec![0; source.len().min(HEAD) as usize];
    source.read_at(0, &mut head)?;
    if let Some(kind) = by_magic(&head) {
        return Ok(kind);
    }
    if pytorch::is_safetensors(&head, source.len()) {
        return Ok(Kind::Safetensors);
    }
    if sstable::has_magic(&*source) {
        return Ok(Kind::Table);
    }
    let mut reader = Reader::new(Arc::new(Endless(source)));
    Ok(message(&mut reader).or_else(|| by_text(&head)).unwrap_or(Kind::Unknown))
}

fn by_magic(head: &[u8]) -> Option<Kind> {
    let starts = |magic: &[u8]| head.starts_with(magic);
    Some(match head {
        [] => Kind::Empty,
        _ if starts(b"\x89HDF\r\n\x1a\n") => Kind::Hdf5,
        _ if starts(b"PK\x03\x04") => Kind::Zip,
        _ if starts(b"\x1f\x8b") => Kind::Gzip,
        _ if starts(b"\x93NUMPY") => Kind::Npy,
        _ if starts(b"version https://git-lfs") => Kind::LfsPointer,
        [0x80, 2..=5, ..] => Kind::Pickle,
        _ if head.get(257..262) == Some(b"ustar") => Kind::Tar,
        [_, _, _, _, b'T', b'F', b'L', b'3', ..] => Kind::TfLite,
        _ if head.iter().all(|byte| *byte == 0) => Kind::Zeros,
        _ => return None,
    })
}

fn by_text(head: &[u8]) -> Option<Kind> {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // A character may be cut at the end.
        Err(error) if error.error_len().is_none() => std::str::from_utf8(head.get(..error.valid_up_to())?).ok()?,
        Err(_) => return None,
    };
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let field = |names: &[&str]| {
        let lines = text.lines().map(str::trim_start).filter(|line| !line.starts_with('#'));
        lines.take(5).any(|line| {
            names
                .iter()
                .any(|name| line.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with([':', '{'])))
        })
    };
    Some(match text {
        _ if text.starts_with('{') && text.contains("\"weight_map\"") => Kind::ShardIndex,
        _ if text.starts_with('{') || text.starts_with('[') => Kind::Json,
        _ if is_module_text(text) => Kind::ModuleText,
        _ if text.get(..9).is_some_and(|start| start.eq_ignore_ascii_case("<!doctype")) => Kind::Html,
        _ if text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("<html")) => Kind::Html,
        _ if field(&["model_checkpoint_path"]) => Kind::CheckpointState,
        _ if field(&["node", "versions", "library", "meta_info_def", "graph_def", "saved_model_schema_version"]) => {
            Kind::GraphText
        }
        _ => return None,
    })
}

/// What the first few top-level fields say. The kinds differ in what lies in fields 1 and 2: a `GraphDef` has nodes in
/// 1, a `MetaGraphDef` a graph in 2, a `SavedModel` a number in 1 and meta graphs in 2, ONNX a number in 1.
fn message(reader: &mut Reader) -> Option<Kind> {
    let span = reader.whole();
    let mut kind = None;
    let mut number_first = false;
    let mut seen = 0;
    // The error that ends the loop early is no error.
    let stop = || Err(wire::Malformed::new(0, String::new()));
    let _ = reader.fields(span, |reader, field| {
        seen += 1;
        match (field.number, field.value) {
            (1, Value::Varint(_)) => number_first = true,
            (1, Value::Bytes(span)) => kind = node(reader, span),
            (2, Value::Bytes(span)) if number_first && is_meta_graph(reader, span) => kind = Some(Kind::SavedModel),
            (2, Value::Bytes(span)) if !number_first && is_graph(reader, span) => kind = Some(Kind::MetaGraphDef),
            (7, Value::Bytes(_)) if number_first => kind = Some(Kind::Onnx),
            _ => {}
        }
        if kind.is_some() || seen == 64 { stop() } else { Ok(()) }
    });
    kind
}

/// A file followed by zeros without end, so that messages that are cut off can be looked into.
#[derive(Debug)]
struct Endless(Arc<dyn Storage>);

impl Storage for Endless {
    fn len(&self) -> u64 {
        u64::MAX
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let there = self.0.len().saturating_sub(offset).min(buffer.len() as u64) as usize;
        let (file, zeros) = buffer.split_at_mut(there);
        zeros.fill(0);
        self.0.read_at(offset.min(self.0.len()), file)
    }
}

/// Whether a message looks like a node: of TensorFlow, or of modelport's own files, which have attributes in field 4.
fn node(reader: &mut Reader, span: Span) -> Option<Kind> {
    let (mut name, mut op, mut kind) = (false, false, Kind::GraphDef);
    let _ = reader.fields(span, |reader, field| {
        match field.number {
            1 => name = is_name(&reader.bytes(cut(field.span()?))?),
            2 => op = is_name(&reader.bytes(cut(field.span()?))?),
            4 if reader.bytes(cut(field.span()?))?.first() == Some(&0x0a) => kind = Kind::Ir,
            _ => {}
        }
        Ok(())
    });
    (name && op).then_some(kind)
}

fn is_graph(reader: &mut Reader, span: Span) -> bool {
    let mut found = false;
    let _ = reader.fields(span, |reader, field| {
        found = matches!((field.number, field.value), (1, Value::Bytes(span)) if node(reader, span).is_some());
        Err(wire::Malformed::new(0, String::new()))
    });
    found
}

fn is_meta_graph(reader: &mut Reader, span: Span) -> bool {
    let mut found = false;
    let _ = reader.fields(span, |reader, field| {
        found |= matches!((field.number, field.value), (2, Value::Bytes(span)) if is_graph(reader, span));
        Ok(())
    });
    found
}

fn cut(span: Span) -> Span {
    Span { start: span.start, end: span.end.min(span.start.saturating_add(256)) }
}

/// TensorFlow's names of nodes and operators, and nearly all other names.
fn is_name(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| (0x21..0x7f).contains(byte))
}

/// Whether a text begins as `Net(` and goes on with `  (conv1): Conv2d(3, 64, …)`.
fn is_module_text(text: &str) -> bool {
    let mut lines = text.lines();
    let is_class = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    let first = lines.next().and_then(|line| line.trim_end().strip_suffix('('));
    let child = lines.next().map_or("", str::trim_start);
    first.is_some_and(is_class) && child.starts_with('(') && child.contains("): ")
}

impl Kind {
    /// The framework whose files are of this kind. A zip archive may be of several.
    pub fn framework(self) -> Option<Framework> {
        match self {
            Kind::GraphDef
            | Kind::MetaGraphDef
            | Kind::SavedModel
            | Kind::GraphText
            | Kind::Table
            | Kind::CheckpointState => Some(Framework::TensorFlow),
            Kind::Pickle | Kind::Safetensors | Kind::Tar | Kind::ShardIndex | Kind::ModuleText => {
                Some(Framework::PyTorch)
            }
            _ => None,
        }
    }

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::GraphDef => "TensorFlow graph (GraphDef)",
            Kind::MetaGraphDef => "TensorFlow meta graph (MetaGraphDef)",
            Kind::SavedModel => "TensorFlow SavedModel",
            Kind::GraphText => "TensorFlow graph as text (.pbtxt)",
            Kind::Table => "TensorFlow checkpoint",
            Kind::Ir => "intermediate file (IR)",
            Kind::Onnx => "ONNX model",
            Kind::TfLite => "TensorFlow Lite model",
            Kind::Hdf5 => "HDF5 file",
            Kind::Zip => "zip archive",
            Kind::Safetensors => "safetensors file",
            Kind::Tar => "tar archive",
            Kind::ShardIndex => "index of weights in several files",
            Kind::ModuleText => "printed module",
            Kind::Pickle => "pickle",
            Kind::Npy => "NumPy file",
            Kind::Gzip => "gzip archive",
            Kind::LfsPointer => "pointer of Git LFS, not the file itself",
            Kind::Html => "web page",
            Kind::CheckpointState => "list of checkpoints",
            Kind::Json => "JSON file",
            Kind::Empty => "empty file",
            Kind::Zeros => "file of zeros",
            Kind::Unknown => "file of an unknown format",
        }
    }

    fn hint(self) -> Option<&'static str> {
        Some(match self {
            Kind::GraphText => {
                "Convert it to binary first: text_format.Parse(open(path).read(), graph_def), then \
                 graph_def.SerializeToString()."
            }
            Kind::Table => "A checkpoint holds weights only: give it with -iw, and the graph (.meta or .pb) with -in.",
            Kind::Ir => "Give it to `modelport to-code` with -n.",
            Kind::Hdf5 => "HDF5 is Keras' format: use -sf keras.",
            Kind::Zip => "A .keras file is read with -sf keras, a .pth or .pt file with -sf pytorch.",
            Kind::Pickle => "If it is a .pth file, use -sf pytorch.",
            Kind::Gzip => "Unpack it first.",
            Kind::LfsPointer => "Fetch the file with `git lfs pull`.",
            Kind::Html => "The download went wrong; get the file again.",
            Kind::CheckpointState => "Give the folder, or the checkpoint that this file names.",
            Kind::Empty | Kind::Zeros => "The file was not copied completely; get it again.",
            _ => return None,
        })
    }

    fn problem(self, path: &Path, expected: &str) -> Problem {
        let article = if self.name().starts_with(['O', 'i', 'H', 'e']) { "an" } else { "a" };
        let begin = if self == Kind::Unknown { beginning(path) } else { String::new() };
        let message = format!("is {article} {}{begin}; {expected} was expected", self.name());
        let mut problem = Problem::new(message).file(path);
        problem.hint = self.hint().map(str::to_owned);
        problem
    }

    /// The error that a file of this kind was given as a network.
    pub fn not_a_graph(self, path: &Path) -> Problem {
        self.problem(path, "a TensorFlow graph (a .meta or .pb file) in protocol buffers")
    }

    /// The error that a file of this kind was given as weights of PyTorch.
    pub fn not_weights(self, path: &Path) -> Problem {
        self.problem(path, "a file that torch.save or safetensors wrote")
    }

    /// The error that a file of this kind was given as weights.
    pub fn not_a_checkpoint(self, path: &Path) -> Problem {
        let problem = self.problem(path, "a TensorFlow checkpoint");
        match self {
            Kind::GraphDef | Kind::MetaGraphDef | Kind::SavedModel => {
                problem.hint("Give the graph with -in. A frozen graph needs no -iw.")
            }
            Kind::Table => Problem { hint: None, ..problem },
            Kind::Unknown => problem.hint("If it should be one of version 1, its end is missing; get it again."),
            _ => problem,
        }
    }
}

/// The first bytes of a file, for people.
fn beginning(path: &Path) -> String {
    let mut head = [0; 16];
    let read = FileBytes::open(path).and_then(|file| {
        let len = head.len().min(file.len() as usize);
        file.read_at(0, head.get_mut(..len).unwrap_or_default()).map(|()| len)
    });
    let head = head.get(..read.unwrap_or(0)).unwrap_or_default();
    match std::str::from_utf8(head) {
        Ok(text) if text.chars().all(|c| !c.is_control() || c.is_whitespace()) => format!(" that begins with {text:?}"),
        _ => {
            let hex: Vec<String> = head.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            format!(" that begins with the bytes {}", hex.join(" "))
        }
    }
}

/// The error that a file can't be read at all.
pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Problem {
    Problem::new(match error.kind() {
        io::ErrorKind::NotFound => "does not exist".to_owned(),
        io::ErrorKind::IsADirectory => "is a folder, not a file".to_owned(),
        io::ErrorKind::PermissionDenied => "may not be read (permission denied)".to_owned(),
        _ => format!("can't be read: {error}"),
    })
    .file(path)
}
