//! Pickle opcodes into plain data: never imports, calls or recurses.
//!
//! Objects lie in one list and refer to each other by number, so that depth costs nothing, and strings and bytes are
//! ranges of the file. What a call would have made is kept as the name of the callable and its arguments.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use crate::tensor::{FileBytes, Storage};

/// Number of an object.
pub type Id = usize;

/// A file with a hundred thousand tensors has a tenth of this many.
const MAX_OBJECTS: usize = 1 << 22;
/// Of pushes on the stack: bounds every list, tuple and dictionary.
const MAX_PUSHES: usize = 1 << 25;
/// Of a line of the text opcodes, but for strings.
const MAX_LINE: usize = 1 << 10;

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
    pub fn storage(&self, file: &Arc<FileBytes>) -> io::Result<Arc<dyn Storage>> {
        match self {
            Span::File { start, len } => file.range(*start, *len),
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
    /// The result of `callable(*args)`, with what BUILD and SETITEM gave it afterwards.
    Call {
        /// What was called.
        callable: Id,
        /// The tuple of its arguments.
        args: Id,
        /// Given by BUILD.
        state: Option<Id>,
        /// Given by SETITEM and SETITEMS.
        items: Vec<(Id, Id)>,
    },
    /// What the persistent id of this object stands for, such as a storage of PyTorch.
    Persistent(Id),
}

/// The objects of a pickle.
pub struct Pickle {
    /// All of them; an [`Id`] is an index.
    pub objects: Vec<Object>,
    /// What the pickle is of.
    pub root: Id,
}

impl Pickle {
    /// An object.
    pub fn get(&self, id: Id) -> &Object {
        self.objects.get(id).unwrap_or(&Object::None)
    }
}

/// Reads the pickle that begins at `start`. `allowed` says which globals may occur.
///
/// # Errors
/// One sentence with the position: an opcode that is not known or does not fit, a global that is not allowed.
pub fn parse(file: &Arc<FileBytes>, start: u64, allowed: fn(&str) -> bool) -> Result<Pickle, String> {
    let input = Input { file: file.clone(), position: start, buffer: Vec::new(), buffer_start: start };
    let mut machine = Machine {
        input,
        allowed,
        objects: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        pushes: 0,
    };
    loop {
        let at = machine.input.position;
        let opcode = machine.input.byte().map_err(|e| format!("the pickle ends early: {e}"))?;
        if opcode == b'.' {
            let root = machine.pop().map_err(|e| format!("the pickle is damaged at byte {at}: {e}"))?;
            return Ok(Pickle { objects: machine.objects, root });
        }
        machine.step(opcode).map_err(|e| format!("the pickle is damaged at byte {at}: {e}"))?;
    }
}

struct Machine {
    input: Input,
    allowed: fn(&str) -> bool,
    objects: Vec<Object>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    pushes: usize,
}

impl Machine {
    fn step(&mut self, opcode: u8) -> Result<(), String> {
        match opcode {
            // PROTO, FRAME: nothing to do. Above 5 nobody knows what the opcodes mean.
            0x80 => match self.input.byte()? {
                0..=5 => Ok(()),
                protocol => Err(format!("protocol {protocol} is not known")),
            },
            0x95 => self.input.array::<8>().map(|_| ()),
            b'(' => {
                self.marks.push(self.stack.len());
                self.count()
            }
            b'0' => self.pop().map(|_| ()),
            b'1' => self.pop_mark().map(|_| ()),
            b'2' => self.stack.last().copied().ok_or_else(underflow).and_then(|id| self.push_id(id)),

            b'N' => self.push(Object::None),
            0x88 => self.push(Object::Bool(true)),
            0x89 => self.push(Object::Bool(false)),
            b'K' => self.input.byte().and_then(|x| self.push(Object::Int(x.into()))),
            b'M' => self.input.array().and_then(|x| self.push(Object::Int(u16::from_le_bytes(x).into()))),
            b'J' => self.input.array().and_then(|x| self.push(Object::Int(i32::from_le_bytes(x).into()))),
            0x8a => {
                let len = self.input.byte()?.into();
                self.long(len)
            }
            0x8b => {
                let len = u32::from_le_bytes(self.input.array()?);
                self.long(len.into())
            }
            b'I' => match self.input.line()?.as_str() {
                "00" => self.push(Object::Bool(false)),
                "01" => self.push(Object::Bool(true)),
                text => self.number(text),
            },
            b'L' => self.input.line().and_then(|text| self.number(text.trim_end_matches('L'))),
            b'G' => self.input.array().and_then(|x| self.push(Object::Float(f64::from_be_bytes(x)))),
            b'F' => {
                let text = self.input.line()?;
                self.push(Object::Float(text.parse().map_err(|_| format!("'{text}' is no number"))?))
            }

            b'X' | b'T' | b'B' => {
                let len = u32::from_le_bytes(self.input.array()?).into();
                self.span(opcode == b'X', len)
            }
            0x8d | 0x8e | 0x96 => {
                let len = u64::from_le_bytes(self.input.array()?);
                self.span(opcode == 0x8d, len)
            }
            0x8c | b'U' | b'C' => {
                let len = self.input.byte()?.into();
                self.span(opcode == 0x8c, len)
            }
            b'S' => {
                let bytes = unescape(&self.input.long_line()?)?;
                self.push(Object::Bytes(Span::Memory(Arc::new(bytes))))
            }
            b'V' => {
                let bytes = unescape_unicode(&self.input.long_line()?)?;
                self.push(Object::Text(Span::Memory(Arc::new(bytes))))
            }

            b')' => self.push(Object::Tuple(Vec::new())),
            0x85..=0x87 => {
                let items = self.pop_many(usize::from(opcode - 0x84))?;
                self.push(Object::Tuple(items))
            }
            b't' => self.pop_mark().and_then(|items| self.push(Object::Tuple(items))),
            b']' => self.push(Object::List(Vec::new())),
            b'l' => self.pop_mark().and_then(|items| self.push(Object::List(items))),
            b'a' => self.pop_many(1).and_then(|items| self.extend(items)),
            b'e' => self.pop_mark().and_then(|items| self.extend(items)),
            b'}' => self.push(Object::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Object::Dict(Vec::new()))?;
                self.set_items(items)
            }
            b's' => self.pop_many(2).and_then(|items| self.set_items(items)),
            b'u' => self.pop_mark().and_then(|items| self.set_items(items)),

            b'c' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                self.global(&module, &name)
            }
            0x93 => {
                let names = self.pop_many(2)?;
                let names: Vec<String> = names.into_iter().map(|id| self.short_text(id)).collect::<Result<_, _>>()?;
                match names.as_slice() {
                    [module, name] => self.global(module, name),
                    _ => Err(underflow()),
                }
            }
            b'R' | 0x81 => match self.pop_many(2)?.as_slice() {
                &[callable, args] => self.push(Object::Call { callable, args, state: None, items: Vec::new() }),
                _ => Err(underflow()),
            },
            b'b' => {
                let new = self.pop()?;
                match self.stack.last().and_then(|&id| self.objects.get_mut(id)) {
                    Some(Object::Call { state, .. }) => {
                        *state = Some(new);
                        Ok(())
                    }
                    _ => Err("a state is given to something that has none".to_owned()),
                }
            }

            b'Q' => {
                let id = self.pop()?;
                self.push(Object::Persistent(id))
            }

            b'q' => self.input.byte().and_then(|at| self.put(at.into())),
            b'r' => self.input.array().and_then(|at| self.put(u32::from_le_bytes(at).into())),
            b'p' => self.memo_line().and_then(|at| self.put(at)),
            0x94 => self.put(self.memo.len() as u64),
            b'h' => self.input.byte().and_then(|at| self.recall(at.into())),
            b'j' => self.input.array().and_then(|at| self.recall(u32::from_le_bytes(at).into())),
            b'g' => self.memo_line().and_then(|at| self.recall(at)),

            _ => Err(format!("opcode {opcode:#04x} does not belong into a dictionary of arrays")),
        }
    }

    fn count(&mut self) -> Result<(), String> {
        self.pushes += 1;
        if self.pushes > MAX_PUSHES { Err("it has too many objects".to_owned()) } else { Ok(()) }
    }

    fn push_id(&mut self, id: Id) -> Result<(), String> {
        self.stack.push(id);
        self.count()
    }

    fn push(&mut self, object: Object) -> Result<(), String> {
        if self.objects.len() >= MAX_OBJECTS {
            return Err("it has too many objects".to_owned());
        }
        self.objects.push(object);
        self.push_id(self.objects.len() - 1)
    }

    /// Never below the last mark: a pickler would not do that.
    fn pop(&mut self) -> Result<Id, String> {
        if self.stack.len() <= self.marks.last().copied().unwrap_or(0) {
            return Err(underflow());
        }
        self.stack.pop().ok_or_else(underflow)
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>, String> {
        let mut items = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        Ok(items)
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len()).ok_or_else(underflow)?;
        Ok(self.stack.split_off(mark))
    }

    fn extend(&mut self, items: Vec<Id>) -> Result<(), String> {
        match self.stack.last().and_then(|&id| self.objects.get_mut(id)) {
            Some(Object::List(list)) => {
                list.extend(items);
                Ok(())
            }
            _ => Err("something is appended to what is no list".to_owned()),
        }
    }

    fn set_items(&mut self, items: Vec<Id>) -> Result<(), String> {
        let (pairs, rest) = items.as_chunks::<2>();
        match self.stack.last().and_then(|&id| self.objects.get_mut(id)) {
            Some(Object::Dict(dict) | Object::Call { items: dict, .. }) if rest.is_empty() => {
                dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
                Ok(())
            }
            _ => Err("a key is set in what is no dictionary".to_owned()),
        }
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), String> {
        let global = format!("{module}.{name}");
        if !(self.allowed)(&global) {
            return Err(format!("it wants '{global}', which is no part of a dictionary of arrays"));
        }
        self.push(Object::Global(global))
    }

    fn put(&mut self, at: u64) -> Result<(), String> {
        let id = self.stack.last().copied().ok_or_else(underflow)?;
        if self.memo.len() >= MAX_OBJECTS {
            return Err("it has too many objects".to_owned());
        }
        self.memo.insert(at, id);
        Ok(())
    }

    fn recall(&mut self, at: u64) -> Result<(), String> {
        let id = self.memo.get(&at).copied().ok_or_else(|| format!("there is no object {at}"))?;
        self.push_id(id)
    }

    fn memo_line(&mut self) -> Result<u64, String> {
        let text = self.input.line()?;
        text.parse().map_err(|_| format!("'{text}' is no number"))
    }

    fn number(&mut self, text: &str) -> Result<(), String> {
        self.push(Object::Int(text.parse().map_err(|_| format!("'{text}' is no number of 64 bits"))?))
    }

    fn long(&mut self, len: u64) -> Result<(), String> {
        // Nine bytes: 64 bits and a sign.
        if len > 9 {
            return Err("a number has more than 64 bits".to_owned());
        }
        let mut bytes = Vec::new();
        for _ in 0..len {
            bytes.push(self.input.byte()?);
        }
        let fill = if bytes.last().is_some_and(|top| top & 0x80 != 0) { 0xff } else { 0 };
        bytes.resize(16, fill);
        let wide = i128::from_le_bytes(bytes.try_into().unwrap_or_default());
        self.push(Object::Int(i64::try_from(wide).map_err(|_| "a number has more than 64 bits")?))
    }

    fn span(&mut self, text: bool, len: u64) -> Result<(), String> {
        let span = Span::File { start: self.input.position, len };
        self.input.skip(len)?;
        self.push(if text { Object::Text(span) } else { Object::Bytes(span) })
    }

    fn short_text(&self, id: Id) -> Result<String, String> {
        match self.objects.get(id) {
            Some(Object::Text(span)) => text(&self.input.file, span, MAX_LINE),
            _ => Err("a global has no name".to_owned()),
        }
    }
}

fn underflow() -> String {
    "an object is missing".to_owned()
}

/// The characters of a span that must be UTF-8 and not longer than `limit` bytes.
///
/// # Errors
/// One sentence: the span is longer, no UTF-8, or can't be read.
pub fn text(file: &Arc<FileBytes>, span: &Span, limit: usize) -> Result<String, String> {
    String::from_utf8(bytes(file, span, limit)?).map_err(|_| "a string is not UTF-8".to_owned())
}

/// The bytes of a span, at most `limit`.
///
/// # Errors
/// One sentence: the span is longer or can't be read.
pub fn bytes(file: &Arc<FileBytes>, span: &Span, limit: usize) -> Result<Vec<u8>, String> {
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

/// The bytes of a Python 2 string literal, quotes included.
fn unescape(literal: &[u8]) -> Result<Vec<u8>, String> {
    let damaged = || "a string is not quoted".to_owned();
    let (quote, inner) = match literal {
        [quote @ (b'\'' | b'"'), inner @ .., end] if quote == end => (*quote, inner),
        _ => return Err(damaged()),
    };
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.iter().copied();
    while let Some(byte) = rest.next() {
        if byte == quote {
            return Err(damaged());
        }
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next().ok_or_else(damaged)? {
            b'n' => bytes.push(b'\n'),
            b'r' => bytes.push(b'\r'),
            b't' => bytes.push(b'\t'),
            b'x' => {
                let mut digit = || rest.next().and_then(|d| char::from(d).to_digit(16)).ok_or_else(damaged);
                bytes.push((digit()? * 16 + digit()?) as u8);
            }
            other @ (b'\\' | b'\'' | b'"') => bytes.push(other),
            _ => return Err("a string has an escape that Python does not write".to_owned()),
        }
    }
    Ok(bytes)
}

/// UTF-8 of a raw-unicode-escape line: latin-1 with `\uXXXX` and `\UXXXXXXXX`.
fn unescape_unicode(line: &[u8]) -> Result<Vec<u8>, String> {
    let mut text = String::with_capacity(line.len());
    let mut rest = line.iter().copied();
    while let Some(byte) = rest.next() {
        let digits = match (byte, rest.clone().next()) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            _ => {
                text.push(char::from(byte));
                continue;
            }
        };
        rest.next();
        let mut code = 0u32;
        for _ in 0..digits {
            let digit = rest.next().and_then(|d| char::from(d).to_digit(16)).ok_or("an escape is cut short")?;
            code = code << 4 | digit;
        }
        text.push(char::from_u32(code).ok_or("an escape is no character")?);
    }
    Ok(text.into_bytes())
}

/// The file, read forwards in chunks.
struct Input {
    file: Arc<FileBytes>,
    position: u64,
    buffer: Vec<u8>,
    buffer_start: u64,
}

impl Input {
    const CHUNK: u64 = 1 << 16;

    fn byte(&mut self) -> Result<u8, String> {
        let at = self.position.wrapping_sub(self.buffer_start);
        let byte = match usize::try_from(at).ok().and_then(|at| self.buffer.get(at)) {
            Some(&byte) => byte,
            None => {
                let len = self.file.len().saturating_sub(self.position).min(Self::CHUNK);
                self.buffer.resize(len as usize, 0);
                self.buffer_start = self.position;
                self.file.read_at(self.position, &mut self.buffer).map_err(|e| e.to_string())?;
                self.buffer.first().copied().ok_or("there are no more bytes")?
            }
        };
        self.position += 1;
        Ok(byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        for byte in &mut bytes {
            *byte = self.byte()?;
        }
        Ok(bytes)
    }

    fn skip(&mut self, len: u64) -> Result<(), String> {
        match self.position.checked_add(len) {
            Some(end) if end <= self.file.len() => {
                self.position = end;
                Ok(())
            }
            _ => Err(format!("{len} bytes are announced, {} are left", self.file.len().saturating_sub(self.position))),
        }
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return String::from_utf8(line).map_err(|_| "a name is not UTF-8".to_owned()),
                _ if line.len() >= MAX_LINE => return Err("a line is too long".to_owned()),
                byte => line.push(byte),
            }
        }
    }

    /// A line that may hold an array: bounded by the file only.
    fn long_line(&mut self) -> Result<Vec<u8>, String> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return Ok(line),
                byte => line.push(byte),
            }
        }
    }
}
