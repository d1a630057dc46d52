//! Pickle opcodes into plain data: never imports, calls or recurses.
//!
//! Objects lie in one list and refer to each other by number, so that depth costs nothing and what is shared stays
//! shared; strings and bytes are ranges of the file. What a call would have made is kept as the name of the callable
//! and its arguments. An opcode makes at most one object, so that memory is bounded by the length of the pickle, and
//! by [`MAX_OBJECTS`].

mod input;
mod machine;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use crate::tensor::{self, Storage};

pub use machine::parse;

/// Number of an object.
pub type Id = usize;

/// Most objects of a pickle: a file with a hundred thousand tensors has a tenth of this many.
pub const MAX_OBJECTS: usize = 1 << 22;

/// Bytes in the file, or decoded from an escaped string.
#[derive(Clone, Debug)]
pub enum Span {
    /// `len` bytes of the file from `start` on.
    File {
        /// First byte.
        start: u64,
        /// Number of bytes.
        len: u64,
    },
    /// Decoded bytes.
    Memory(Arc<Vec<u8>>),
}

impl Span {
    /// Number of bytes.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        match self {
            Span::File { len, .. } => *len,
            Span::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// The bytes as a storage.
    ///
    /// # Errors
    /// When the file is shorter.
    pub fn storage(&self, file: &Arc<dyn Storage>) -> io::Result<Arc<dyn Storage>> {
        match self {
            Span::File { start, len } => tensor::range(file, *start, *len),
            Span::Memory(bytes) => Ok(Arc::new(Vec::clone(bytes))),
        }
    }
}

/// What a pickle is made of.
#[derive(Clone, Debug)]
pub enum Object {
    /// `None`
    None,
    /// A truth value.
    Bool(bool),
    /// An integer of at most 64 bits.
    Int(i64),
    /// A longer one: two's complement, little-endian.
    Big(Span),
    /// A number.
    Float(f64),
    /// UTF-8.
    Text(Span),
    /// Bytes, or a string of Python 2.
    Bytes(Span),
    /// A tuple.
    Tuple(Vec<Id>),
    /// A list.
    List(Vec<Id>),
    /// A dictionary, in the order of the file; a key may occur twice.
    Dict(Vec<(Id, Id)>),
    /// `module.name`
    Global(String),
    /// A set, frozen or not.
    Set(Vec<Id>),
    /// What a call would have made.
    Call(Box<Call>),
    /// What the persistent id of this object stands for, such as a storage of PyTorch.
    Persistent(Id),
}

/// The result of `callable(*args)`, with what was given to it afterwards. An instance of a class is one as well.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// What was called.
    pub callable: Id,
    /// The tuple of its arguments.
    pub args: Id,
    /// Its keyword arguments.
    pub kwargs: Option<Id>,
    /// Given by BUILD.
    pub state: Option<Id>,
    /// Given by SETITEM and SETITEMS.
    pub items: Vec<(Id, Id)>,
    /// Given by APPEND, APPENDS and ADDITEMS.
    pub appended: Vec<Id>,
}

/// The objects of a pickle.
pub struct Pickle {
    /// All of them; an [`Id`] is an index.
    pub objects: Vec<Object>,
    /// What the pickle is of.
    pub root: Id,
    /// Where the bytes after the pickle begin.
    pub end: u64,
}

impl Pickle {
    /// An object.
    pub fn get(&self, id: Id) -> &Object {
        self.objects.get(id).unwrap_or(&Object::None)
    }
}

/// The characters of a span that must be UTF-8 and not longer than `limit` bytes.
///
/// # Errors
/// One sentence: the span is longer, no UTF-8, or can't be read.
pub fn text(file: &Arc<dyn Storage>, span: &Span, limit: usize) -> Result<String, String> {
    String::from_utf8(bytes(file, span, limit)?).map_err(|_| "a string is not UTF-8".to_owned())
}

/// The bytes of a span, at most `limit`.
///
/// # Errors
/// One sentence: the span is longer or can't be read.
pub fn bytes(file: &Arc<dyn Storage>, span: &Span, limit: usize) -> Result<Vec<u8>, String> {
    match span {
        Span::Memory(bytes) if bytes.len() <= limit => Ok(bytes.to_vec()),
        Span::File { start, len } if *len <= limit as u64 => {
            let mut bytes = vec![0; *len as usize];
            file.read_at(*start, &mut bytes).map_err(|e| e.to_string())?;
            Ok(bytes)
        }
        _ => Err(format!("a string has {} bytes, at most {limit} make sense", span.len())),
    }
}
