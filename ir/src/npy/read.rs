//! From a pickle's data to tensors: what `numpy.ndarray` and `numpy.dtype` make of their states.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;

use super::data::Latin1;
use super::{MAGIC, Weights, dtype_from_code};
use crate::diagnostic::{Problem, Result};
use crate::pickle::{self, Id, Object, Pickle, Span};
use crate::tensor::{DType, FileBytes, Storage, Swapped, Tensor, numel};

/// Longest name of a layer or weight, in bytes.
const MAX_NAME: usize = 1 << 16;
/// Deepest list of numbers that is taken for an array.
const MAX_DEPTH: usize = 8;

/// Reads a dictionary of arrays. The elements stay in the file and are read when a tensor is used; an array that occurs
/// twice is one tensor ([`Tensor::is_same`]). NumPy scalars, numbers and lists of numbers are tensors too.
///
/// # Errors
/// When the file is no such dictionary; all entries that are no arrays are named at once.
pub fn read(path: &Path) -> Result<Weights> {
    let failed = |message: String| Problem::new(message).file(path);
    let file: Arc<dyn Storage> = FileBytes::open(path).map_err(|error| failed(format!("can't be read: {error}")))?;
    let start = header(&file).map_err(failed)?;
    let pickle = pickle::parse(&file, start, refuse)
        .map_err(|message| failed(message).hint("expected a dictionary {layer: {name: array}} saved by numpy.save"))?;
    let mut reader = Reader { file: &file, pickle: &pickle, tensors: HashMap::new() };
    let root = reader.dictionary().map_err(failed)?;
    let mut weights = Weights::new();
    let mut problems = Vec::new();
    for (key, value) in root {
        let layer = match reader.name(key) {
            Ok(layer) => layer,
            Err(message) => {
                problems.push(failed(message));
                continue;
            }
        };
        let Some(entries) = reader.entries(value) else {
            problems
                .push(failed(format!("the layer holds {}, expected a dictionary", reader.describe(value))).node(layer));
            continue;
        };
        let mut tensors = IndexMap::with_capacity(entries.len());
        for (key, value) in entries {
            match reader
                .name(key)
                .and_then(|name| reader.tensor(value).map_err(|m| format!("'{name}' {m}")).map(|t| (name, t)))
            {
                Ok((name, tensor)) => drop(tensors.insert(name, tensor)),
                Err(message) => problems.push(failed(message).node(&layer)),
            }
        }
        weights.insert(layer, tensors);
    }
    crate::diagnostic::Error::collect(problems)?;
    Ok(weights)
}

/// Whether an object of a pickle is an array of NumPy's.
pub fn is_array(pickle: &Pickle, id: Id) -> bool {
    let Object::Call(call) = pickle.get(id) else { return false };
    let Object::Global(name) = pickle.get(call.callable) else { return false };
    name.starts_with("numpy.") && (name.ends_with(".multiarray._reconstruct") || name.ends_with(".numeric._frombuffer"))
}

/// The tensor that an array or a scalar of NumPy's in a pickle is.
///
/// # Errors
/// When it is none, or of a type that is no number. Half a sentence, which goes on from its name.
pub fn array(source: &Arc<dyn Storage>, pickle: &Pickle, id: Id) -> Outcome<Tensor> {
    let reader = Reader { file: source, pickle, tensors: HashMap::new() };
    reader.array(id).unwrap_or_else(|| Err(format!("is {}, expected an array", reader.describe(id))))
}

/// The array in a `.npy` file that holds numbers.
///
/// # Errors
/// When it is damaged or holds objects. Half a sentence, which goes on from its name.
pub fn plain(file: &Arc<dyn Storage>) -> Outcome<Tensor> {
    let (start, text) = head(file)?;
    let descr = field(&text, "'descr':'").and_then(|rest| rest.split('\'').next());
    let descr = descr.ok_or("has no element type")?;
    let code = descr.trim_start_matches(['<', '>', '|', '=']);
    let dtype = dtype_from_code(code).ok_or_else(|| format!("has elements of the type '{code}', expected numbers"))?;
    let fortran = field(&text, "'fortran_order':").is_some_and(|rest| rest.starts_with("True"));
    let sizes = field(&text, "'shape':(").and_then(|rest| rest.split(')').next()).ok_or("has no shape")?;
    let sizes = sizes.split(',').filter(|size| !size.is_empty()).map(str::parse);
    let shape: Vec<usize> = sizes.collect::<std::result::Result<_, _>>().map_err(|_| "has no shape")?;
    if shape.len() > 64 {
        return Err(format!("has {} axes", shape.len()));
    }
    let data = crate::tensor::range(file, start, file.len().saturating_sub(start)).map_err(|e| e.to_string())?;
    tensor(&shape, dtype, descr.starts_with('>'), fortran, data).map_err(|message| format!("is damaged: {message}"))
}

/// What follows a field's name in a header without spaces.
fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.find(name).and_then(|at| text.get(at + name.len()..))
}

fn tensor(shape: &[usize], dtype: DType, big_endian: bool, fortran: bool, data: Arc<dyn Storage>) -> Outcome<Tensor> {
    let data =
        if big_endian && dtype.size() > 1 { Arc::new(Swapped { bytes: data, size: dtype.size() }) } else { data };
    if fortran && shape.len() > 1 {
        let reversed: Vec<usize> = shape.iter().rev().copied().collect();
        let axes: Vec<usize> = (0..shape.len()).rev().collect();
        return Tensor::new(dtype, &reversed, data)?.permuted(&axes);
    }
    Tensor::new(dtype, shape, data)
}

/// Where the data begins, and the header without spaces.
fn head(file: &Arc<dyn Storage>) -> Outcome<(u64, String)> {
    let mut head = [0; 12];
    let known = file.len().min(12) as usize;
    file.read_at(0, head.get_mut(..known).unwrap_or_default()).map_err(|e| format!("can't be read: {e}"))?;
    let [.., major, _, a, b, c, d] = head;
    if !head.starts_with(MAGIC) {
        return Err("is no .npy file".to_owned());
    }
    let (start, len) = match major {
        1 => (10, u64::from(u16::from_le_bytes([a, b]))),
        2 | 3 => (12, u64::from(u32::from_le_bytes([a, b, c, d]))),
        _ => return Err(format!("is a .npy file of version {major}, at most 3 is known")),
    };
    let text = pickle::text(file, &Span::File { start, len }, 1 << 16)
        .map_err(|e| format!("has a damaged .npy header: {e}"))?;
    Ok((start + len, text.chars().filter(|c| !c.is_whitespace()).collect()))
}

/// Checks the header and returns where the pickle begins.
fn header(file: &Arc<dyn Storage>) -> Outcome<u64> {
    let (start, text) = head(file)?;
    if !(text.contains("'descr':'|O'") || text.contains("'descr':'O'")) {
        return Err("holds one array of numbers, expected a dictionary {layer: {name: array}}".to_owned());
    }
    if !text.contains("'shape':()") {
        return Err("holds an array of objects, expected one dictionary {layer: {name: array}}".to_owned());
    }
    Ok(start)
}

fn refuse(global: &str) -> Option<String> {
    (!is_known(global)).then(|| "which is no part of a dictionary of arrays".to_owned())
}

fn is_known(global: &str) -> bool {
    matches!(
        global,
        "numpy.ndarray"
            | "numpy.dtype"
            | "_codecs.encode"
            | "builtins.bytes"
            | "__builtin__.bytes"
            | "builtins.bytearray"
            | "__builtin__.bytearray"
            | "collections.OrderedDict"
    ) || global
        .strip_prefix("numpy.core.")
        .or_else(|| global.strip_prefix("numpy._core."))
        .is_some_and(|rest| matches!(rest, "multiarray._reconstruct" | "multiarray.scalar" | "numeric._frombuffer"))
}

/// The last part of a known global's name.
fn short(global: &str) -> &str {
    global.rsplit('.').next().unwrap_or(global)
}

struct Reader<'a> {
    file: &'a Arc<dyn Storage>,
    pickle: &'a Pickle,
    /// By the object that they come from, so that what is one array stays one.
    tensors: HashMap<Id, Tensor>,
}

type Outcome<T> = std::result::Result<T, String>;

impl Reader<'_> {
    /// The entries of the dictionary in the outer array of objects.
    fn dictionary(&self) -> Outcome<Vec<(Id, Id)>> {
        let expected = || "holds something other than a dictionary {layer: {name: array}}".to_owned();
        let (_, _, data) = self.array_state(self.pickle.root).ok_or_else(expected)?;
        match self.pickle.get(data) {
            Object::List(items) => match items.as_slice() {
                [dictionary] => self.entries(*dictionary).ok_or_else(expected),
                _ => Err(expected()),
            },
            _ => Err(expected()),
        }
    }

    fn entries(&self, id: Id) -> Option<Vec<(Id, Id)>> {
        match self.pickle.get(id) {
            Object::Dict(entries) => Some(entries.clone()),
            Object::Call(call) if self.call(id).is_some_and(|(name, _)| name == "OrderedDict") => {
                Some(call.items.clone())
            }
            _ => None,
        }
    }

    fn name(&self, id: Id) -> Outcome<String> {
        match self.pickle.get(id) {
            Object::Text(span) => pickle::text(self.file, span, MAX_NAME),
            // Python 2 strings; NumPy's users read them as latin-1.
            Object::Bytes(span) => Ok(pickle::bytes(self.file, span, MAX_NAME)?.into_iter().map(char::from).collect()),
            _ => Err(format!("a key is {}, expected a string", self.describe(id))),
        }
    }

    /// The callable's last name and the arguments of what a call has made.
    fn call(&self, id: Id) -> Option<(&str, &[Id])> {
        match self.pickle.get(id) {
            Object::Call(call) => match (self.pickle.get(call.callable), self.pickle.get(call.args)) {
                (Object::Global(global), Object::Tuple(args)) => Some((short(global), args)),
                _ => None,
            },
            _ => None,
        }
    }

    fn tuple(&self, id: Id) -> Option<&[Id]> {
        match self.pickle.get(id) {
            Object::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// Shape, dtype and order, and data of a pickled array: `(version, shape, dtype, is_fortran, data)`.
    fn array_state(&self, id: Id) -> Option<(Id, (Id, bool), Id)> {
        if self.call(id)?.0 != "_reconstruct" {
            return None;
        }
        let Object::Call(call) = self.pickle.get(id) else { return None };
        match *self.tuple(call.state?)? {
            [_, shape, dtype, order, data] | [shape, dtype, order, data] => {
                Some((shape, (dtype, self.truth(order)), data))
            }
            _ => None,
        }
    }

    fn truth(&self, id: Id) -> bool {
        matches!(self.pickle.get(id), Object::Bool(true) | Object::Int(1))
    }

    fn tensor(&mut self, id: Id) -> Outcome<Tensor> {
        if let Some(tensor) = self.tensors.get(&id) {
            return Ok(tensor.clone());
        }
        let tensor = self.make_tensor(id)?;
        self.tensors.insert(id, tensor.clone());
        Ok(tensor)
    }

    fn make_tensor(&self, id: Id) -> Outcome<Tensor> {
        self.array(id).unwrap_or_else(|| self.plain(id))
    }

    /// The tensor that an array or a scalar of NumPy's is.
    fn array(&self, id: Id) -> Option<Outcome<Tensor>> {
        if let Some((shape, (dtype, fortran), data)) = self.array_state(id) {
            return Some(self.build(shape, dtype, fortran, data));
        }
        match self.call(id)? {
            ("scalar", &[dtype, data]) => Some(self.data(data).and_then(|data| self.shaped(&[], dtype, false, data))),
            ("_frombuffer", &[data, dtype, shape, order]) => {
                Some(self.name(order).and_then(|order| self.build(shape, dtype, order == "F", data)))
            }
            _ => None,
        }
    }

    fn build(&self, shape: Id, dtype: Id, fortran: bool, data: Id) -> Outcome<Tensor> {
        self.shaped(&self.shape(shape)?, dtype, fortran, self.data(data)?)
    }

    fn shaped(&self, shape: &[usize], dtype: Id, fortran: bool, data: Arc<dyn Storage>) -> Outcome<Tensor> {
        let (dtype, big_endian) = self.dtype(dtype)?;
        tensor(shape, dtype, big_endian, fortran, data)
    }

    fn shape(&self, id: Id) -> Outcome<Vec<usize>> {
        let sizes = self.tuple(id).ok_or("has no shape")?;
        if sizes.len() > 64 {
            return Err(format!("has {} axes", sizes.len()));
        }
        sizes
            .iter()
            .map(|&size| match self.pickle.get(size) {
                Object::Int(size) => usize::try_from(*size).map_err(|_| format!("has an axis of {size} elements")),
                _ => Err("has no shape of integers".to_owned()),
            })
            .collect()
    }

    /// The element type, and whether elements are big-endian.
    fn dtype(&self, id: Id) -> Outcome<(DType, bool)> {
        let (code, state) = match (self.call(id), self.pickle.get(id)) {
            (Some(("dtype", &[code, ..])), Object::Call(call)) => (self.name(code)?, call.state),
            _ => return Err("has no element type".to_owned()),
        };
        let order = match state.and_then(|state| self.tuple(state)) {
            Some(&[_, order, ..]) => self.name(order)?,
            _ => "|".to_owned(),
        };
        let dtype =
            dtype_from_code(&code).ok_or_else(|| format!("has elements of the type '{code}', expected numbers"))?;
        Ok((dtype, order == ">"))
    }

    fn data(&self, id: Id) -> Outcome<Arc<dyn Storage>> {
        let storage = |span: &Span| span.storage(self.file).map_err(|e| e.to_string());
        if let Object::Bytes(span) = self.pickle.get(id) {
            return storage(span);
        }
        match self.call(id) {
            // How Python 3 says bytes in protocol 2.
            Some(("encode", &[text, ..])) => match self.pickle.get(text) {
                Object::Text(span) => Ok(Arc::new(Latin1::new(storage(span)?).map_err(|e| e.to_string())?)),
                _ => Err("has no bytes".to_owned()),
            },
            Some(("bytes" | "bytearray", &[])) => Ok(Arc::new(Vec::new())),
            Some(("bytes" | "bytearray", &[data])) => match self.pickle.get(data) {
                Object::Bytes(span) => storage(span),
                _ => Err("has no bytes".to_owned()),
            },
            _ => Err(format!("has {} for its elements, expected bytes", self.describe(id))),
        }
    }

    /// Numbers and lists of numbers.
    fn plain(&self, id: Id) -> Outcome<Tensor> {
        let mut shape = Vec::new();
        let mut first = id;
        while let Object::List(items) = self.pickle.get(first) {
            shape.push(items.len());
            if shape.len() > MAX_DEPTH {
                return Err("is a list that is too deep".to_owned());
            }
            match items.first() {
                Some(&item) => first = item,
                None => break,
            }
        }
        let mut items = vec![id];
        for &size in &shape {
            // A list that occurs in itself would grow without end.
            if items.len().saturating_mul(size) > self.pickle.objects.len() {
                return Err("is a list that is too long".to_owned());
            }
            let mut inner = Vec::new();
            for item in items {
                match self.pickle.get(item) {
                    Object::List(list) if list.len() == size => inner.extend(list),
                    _ => return Err("is a ragged list, expected an array".to_owned()),
                }
            }
            items = inner;
        }
        if numel(&shape) != Some(items.len()) {
            return Err("is a list that is too long".to_owned());
        }
        let mut dtype = DType::Int64;
        let mut bytes = Vec::new();
        for &item in &items {
            match self.pickle.get(item) {
                Object::Int(_) => {}
                Object::Float(_) => dtype = DType::Float64,
                Object::Bool(_) if items.len() == 1 => dtype = DType::Bool,
                _ => return Err(format!("is {}, expected an array", self.describe(item))),
            }
        }
        for &item in &items {
            match (self.pickle.get(item), dtype) {
                (Object::Bool(x), _) => bytes.push(u8::from(*x)),
                (Object::Int(x), DType::Float64) => bytes.extend((*x as f64).to_le_bytes()),
                (Object::Int(x), _) => bytes.extend(x.to_le_bytes()),
                (Object::Float(x), _) => bytes.extend(x.to_le_bytes()),
                _ => {}
            }
        }
        Tensor::new(dtype, &shape, Arc::new(bytes))
    }

    fn describe(&self, id: Id) -> String {
        match self.pickle.get(id) {
            Object::None => "None".to_owned(),
            Object::Bool(_) => "a truth value".to_owned(),
            Object::Int(_) | Object::Float(_) | Object::Big(_) => "a number".to_owned(),
            Object::Text(_) => "a string".to_owned(),
            Object::Bytes(_) => "bytes".to_owned(),
            Object::Tuple(_) => "a tuple".to_owned(),
            Object::List(_) => "a list".to_owned(),
            Object::Dict(_) => "a dictionary".to_owned(),
            Object::Set(_) => "a set".to_owned(),
            Object::Global(name) => format!("the class {name}"),
            Object::Persistent(_) => "an object of another file".to_owned(),
            Object::Call(_) => match self.call(id) {
                Some(("_reconstruct" | "_frombuffer", _)) => "an array".to_owned(),
                Some((name, _)) => format!("an object of {name}"),
                None => "an object".to_owned(),
            },
        }
    }
}
