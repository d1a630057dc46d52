//! The objects of a pickle that PyTorch wrote, as data: dictionaries, tensors, modules. Nothing is imported or called;
//! a class that is not known is a name with arguments and a state.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use modelport_ir::npy;
use modelport_ir::pickle::{self, Call, Id, Object, Pickle};
use modelport_ir::tensor::{Storage, Swapped, numel};
use modelport_ir::{DType, Tensor};

/// Longest name, in bytes.
const MAX_NAME: usize = 1 << 16;
/// Most axes of a tensor.
const MAX_RANK: usize = 64;
/// Elements that a view may have beyond those that are saved, by repeating them.
const MAX_REPEATED: usize = 1 << 24;
/// Deepest nesting of calls around a tensor.
const MAX_WRAPPERS: usize = 8;

/// Outcome of what may be wrong with one object: half a sentence that goes on from its name.
pub type Outcome<T> = Result<T, String>;

/// Where the elements of a storage are.
pub trait Storages {
    /// The bytes of the storage with this key.
    ///
    /// # Errors
    /// When there is none.
    fn bytes(&self, key: &str) -> Outcome<Arc<dyn Storage>>;

    /// Whether they are big-endian.
    fn is_big_endian(&self) -> bool {
        false
    }

    /// The tensor that a persistent id of the oldest format stands for.
    fn tensor(&self, _key: &str) -> Option<Outcome<Tensor>> {
        None
    }
}

/// A pickle with its storages.
pub struct Objects {
    source: Arc<dyn Storage>,
    pickle: Pickle,
    storages: Box<dyn Storages>,
    /// By key and size of an element, so that tensors which share a storage are seen to share it.
    known: RefCell<HashMap<(String, usize), Arc<dyn Storage>>>,
    /// Arrays of NumPy, for the same reason.
    arrays: RefCell<HashMap<Id, Tensor>>,
}

impl Objects {
    /// Reads the pickle that begins at `start` of `source`.
    ///
    /// # Errors
    /// When it is damaged, or wants to run programs when it is loaded.
    pub fn read(source: Arc<dyn Storage>, start: u64, storages: Box<dyn Storages>) -> Outcome<Objects> {
        let pickle = pickle::parse(&source, start, refuse)?;
        Ok(Objects { source, pickle, storages, known: RefCell::default(), arrays: RefCell::default() })
    }

    /// The same objects with other storages.
    #[must_use]
    pub fn with(self, storages: Box<dyn Storages>) -> Objects {
        Objects { storages, known: RefCell::default(), ..self }
    }

    /// Where the bytes after the pickle begin.
    pub fn end(&self) -> u64 {
        self.pickle.end
    }

    /// The classes of all storages, by key.
    pub fn storage_types(&self) -> HashMap<String, String> {
        let ids = (0..self.pickle.objects.len()).filter_map(|id| self.storage_id(id));
        ids.map(|(class, key, ..)| (key, class.to_owned())).collect()
    }

    /// The outermost object.
    pub fn root(&self) -> Id {
        self.pickle.root
    }

    /// An object.
    pub fn get(&self, id: Id) -> &Object {
        self.pickle.get(id)
    }

    /// The string that an object is.
    pub fn text(&self, id: Id) -> Option<String> {
        match self.get(id) {
            Object::Text(span) => pickle::text(&self.source, span, MAX_NAME).ok(),
            Object::Bytes(span) => {
                let bytes = pickle::bytes(&self.source, span, MAX_NAME).ok()?;
                Some(bytes.into_iter().map(char::from).collect())
            }
            _ => None,
        }
    }

    /// The items of a tuple or list.
    pub fn items(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Object::Tuple(items) | Object::List(items) => Some(items),
            Object::Call(call) if self.class(id) == Some("torch.Size") => self.items(*self.args(call).first()?),
            _ => None,
        }
    }

    fn args(&self, call: &Call) -> &[Id] {
        match self.get(call.args) {
            Object::Tuple(args) => args,
            _ => &[],
        }
    }

    /// The name of the class or function that has made an object.
    pub fn class(&self, id: Id) -> Option<&str> {
        let Object::Call(call) = self.get(id) else { return None };
        self.name(call.callable)
    }

    /// The name of a class or function. Classes of the older format come with their source text.
    fn name(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Object::Global(name) => Some(name),
            Object::Persistent(id) => match self.items(*id)? {
                &[_, class, ..] => match self.get(class) {
                    Object::Global(name) => Some(name),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        }
    }

    /// Class and arguments of an object that a call has made.
    pub fn call(&self, id: Id) -> Option<(&str, &[Id])> {
        let Object::Call(call) = self.get(id) else { return None };
        Some((self.name(call.callable)?, self.args(call)))
    }

    /// The attributes of an object.
    pub fn state(&self, id: Id) -> Option<Id> {
        let Object::Call(call) = self.get(id) else { return None };
        // (attributes, slots), of classes that have both.
        match self.items(call.state?) {
            Some(&[state, slots]) if matches!(self.get(slots), Object::Dict(_) | Object::None) => Some(state),
            _ => call.state,
        }
    }

    /// The entries of a dictionary of any kind.
    pub fn entries(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.get(id) {
            Object::Dict(entries) => Some(entries),
            Object::Call(call) => match self.class(id)? {
                "collections.OrderedDict" | "collections.defaultdict" | "collections.Counter" => Some(&call.items),
                "argparse.Namespace" | "types.SimpleNamespace" => self.entries(call.state?),
                "torch.nn.modules.container.ParameterDict" => None,
                // Dictionaries of other classes, and copies.
                "builtins.dict" | "__builtin__.dict" if call.items.is_empty() => {
                    self.entries(*self.args(call).first()?)
                }
                _ if call.items.is_empty() => None,
                _ => Some(&call.items),
            },
            _ => None,
        }
    }

    /// The value of a key of a dictionary; the last, if there are several.
    pub fn value(&self, dict: Id, key: &str) -> Option<Id> {
        let entries = self.entries(dict)?;
        entries.iter().rev().find(|(name, _)| self.text(*name).is_some_and(|name| name == key)).map(|(_, value)| *value)
    }

    fn int(&self, id: Id) -> Outcome<usize> {
        match self.get(id) {
            Object::Int(number) => {
                usize::try_from(*number).map_err(|_| format!("has a size, stride or offset of {number}"))
            }
            _ => Err("has a size that is no integer".to_owned()),
        }
    }

    fn ints(&self, id: Id) -> Outcome<Vec<usize>> {
        let items = self.items(id).ok_or("has no shape")?;
        if items.len() > MAX_RANK {
            return Err(format!("has {} axes", items.len()));
        }
        items.iter().map(|&item| self.int(item)).collect()
    }

    /// Whether an object is a tensor or parameter, of a kind that can be read or not.
    pub fn is_tensor(&self, id: Id) -> bool {
        match self.get(id) {
            Object::Call(_) if npy::is_array(&self.pickle, id) => true,
            Object::Call(_) => self.class(id).is_some_and(|class| {
                class.strip_prefix("torch._utils._rebuild_").is_some() || class == "torch._tensor._rebuild_from_type_v2"
            }),
            Object::Persistent(key) => self.text(*key).is_some_and(|key| self.storages.tensor(&key).is_some()),
            _ => false,
        }
    }

    /// The tensor that an object is.
    ///
    /// # Errors
    /// When it is none, or of a kind that networks are not converted with.
    pub fn tensor(&self, id: Id) -> Outcome<Tensor> {
        let mut id = id;
        for _ in 0..MAX_WRAPPERS {
            if let Object::Persistent(key) = self.get(id)
                && let Some(tensor) = self.text(*key).and_then(|key| self.storages.tensor(&key))
            {
                return tensor;
            }
            if npy::is_array(&self.pickle, id) {
                return self.array(id);
            }
            let (name, args) = self.call(id).ok_or_else(|| format!("is {}, no tensor", self.describe(id)))?;
            match (name.strip_prefix("torch._utils.").unwrap_or(name), args) {
                (
                    "_rebuild_parameter" | "_rebuild_parameter_with_state" | "_rebuild_device_tensor_from_cpu_tensor",
                    &[data, ..],
                ) => id = data,
                // (function, class, arguments, state): what a subclass of Tensor is.
                ("torch._tensor._rebuild_from_type_v2", &[function, _, args, ..]) => {
                    let function = self.name(function).unwrap_or_default();
                    let args = self.items(args).unwrap_or_default();
                    return self.rebuilt(function.strip_prefix("torch._utils.").unwrap_or(function), args);
                }
                (name, args) => return self.rebuilt(name, args),
            }
        }
        Err("is wrapped too often".to_owned())
    }

    fn array(&self, id: Id) -> Outcome<Tensor> {
        if let Some(tensor) = self.arrays.borrow().get(&id) {
            return Ok(tensor.clone());
        }
        let tensor = npy::array(&self.source, &self.pickle, id)?;
        self.arrays.borrow_mut().insert(id, tensor.clone());
        Ok(tensor)
    }

    /// Element type and shape of a tensor whose elements may be missing, as those of a trace's inputs are.
    pub fn tensor_type(&self, id: Id) -> Option<(DType, Vec<usize>)> {
        let Some(("torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor", &[storage, _, shape, ..])) =
            self.call(id)
        else {
            return None;
        };
        let (class, ..) = self.storage_id(storage)?;
        Some((element_type(class).ok()?, self.ints(shape).ok()?))
    }

    /// The number of elements that a tensor says it has; 0 if it can't be told.
    pub fn elements(&self, id: Id) -> usize {
        let mut id = id;
        for _ in 0..MAX_WRAPPERS {
            match self.call(id) {
                Some((
                    "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state",
                    &[data, ..],
                )) => {
                    id = data;
                }
                Some((_, &[_, _, shape, ..])) => {
                    return self.ints(shape).ok().and_then(|shape| numel(&shape)).unwrap_or(0);
                }
                _ => break,
            }
        }
        0
    }

    fn rebuilt(&self, name: &str, args: &[Id]) -> Outcome<Tensor> {
        let dtype = match (name, args) {
            ("_rebuild_tensor" | "_rebuild_tensor_v2", _) => None,
            ("_rebuild_tensor_v3", &[_, _, _, _, _, _, dtype, ..]) => Some(dtype),
            ("_rebuild_qtensor", _) => {
                return Err("is a quantised tensor; convert the network before it is quantised".to_owned());
            }
            ("_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor", _) => {
                return Err("is a sparse tensor; save tensor.to_dense() instead".to_owned());
            }
            ("_rebuild_nested_tensor", _) => return Err("is a nested tensor, which has no shape".to_owned()),
            ("_rebuild_meta_tensor_no_storage", _) => {
                return Err("has no elements: it was saved on the meta device".to_owned());
            }
            (name, _) => return Err(format!("is an object of {name}, no tensor")),
        };
        let &[storage, offset, shape, strides, ..] = args else { return Err("is an incomplete tensor".to_owned()) };
        let (offset, shape, strides) = (self.int(offset)?, self.ints(shape)?, self.ints(strides)?);
        let (class, key, announced, first) = self.storage_id(storage).ok_or("has no storage")?;
        let class = match dtype {
            Some(dtype) => self.name(dtype).ok_or("has no element type")?,
            None => class,
        };
        let dtype = element_type(class)?;
        let (bytes, first) = self.storage(&key, first, dtype)?;
        // Untyped storages count bytes.
        let announced = announced.checked_mul(if class.ends_with("Storage") { dtype.size() } else { 1 });
        if announced.is_none_or(|announced| announced as u64 > bytes.len()) {
            return Err(format!("has a storage of {} bytes, which is shorter than it says", bytes.len()));
        }
        let offset = offset.checked_add(first).ok_or("has an offset that can't be")?;
        view(dtype, &shape, &strides, offset, bytes)
    }

    /// `('storage', class, key, location, size, view)`: class, key, size, and the offset of a view in the storage.
    fn storage_id(&self, id: Id) -> Option<(&str, String, usize, usize)> {
        let Object::Persistent(id) = self.get(id) else { return None };
        let &[_, class, key, _, size, ref view @ ..] = self.items(*id)? else { return None };
        let view = view.first().and_then(|&view| self.items(view)).and_then(|view| self.int(*view.get(1)?).ok());
        Some((self.name(class)?, self.key(key)?, self.int(size).ok()?, view.unwrap_or(0)))
    }

    /// Keys of storages are strings, in old files numbers.
    fn key(&self, id: Id) -> Option<String> {
        match self.get(id) {
            Object::Int(number) => Some(number.to_string()),
            _ => self.text(id),
        }
    }

    fn storage(&self, key: &str, first: usize, dtype: DType) -> Outcome<(Arc<dyn Storage>, usize)> {
        let swap = self.storages.is_big_endian() && dtype.size() > 1;
        let id = (key.to_owned(), if swap { dtype.size() } else { 1 });
        if let Some(storage) = self.known.borrow().get(&id) {
            return Ok((storage.clone(), first));
        }
        let mut storage = self.storages.bytes(key)?;
        if swap {
            storage = Arc::new(Swapped { bytes: storage, size: dtype.size() });
        }
        self.known.borrow_mut().insert(id, storage.clone());
        Ok((storage, first))
    }

    /// What an object is, for people.
    pub fn describe(&self, id: Id) -> String {
        match self.get(id) {
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
            Object::Call(_) if self.is_tensor(id) => "a tensor".to_owned(),
            Object::Call(_) => match self.class(id) {
                Some(class) => format!("an object of {class}"),
                None => "an object of an unknown class".to_owned(),
            },
        }
    }
}

/// A view of a storage, of about as many elements as are saved.
///
/// # Errors
/// When it leaves the storage, or repeats its elements more often than makes sense.
pub fn view(
    dtype: DType,
    shape: &[usize],
    strides: &[usize],
    offset: usize,
    bytes: Arc<dyn Storage>,
) -> Outcome<Tensor> {
    let saved = usize::try_from(bytes.len() / dtype.size() as u64).unwrap_or(usize::MAX);
    if numel(shape).is_none_or(|n| n > saved.saturating_add(MAX_REPEATED)) {
        return Err(format!("repeats elements: its shape {shape:?} has far more than are saved"));
    }
    Tensor::strided(dtype, shape, strides, offset, bytes).map_err(|message| format!("is damaged: {message}"))
}

/// The element type that a class of storages, or a name in `torch`, says.
///
/// # Errors
/// When networks can't be converted with elements of this type.
pub fn element_type(class: &str) -> Outcome<DType> {
    let name = class.rsplit('.').next().unwrap_or(class);
    Ok(match name.strip_suffix("Storage").unwrap_or(name) {
        "Char" => DType::Int8,
        "Short" => DType::Int16,
        "Int" => DType::Int32,
        "Long" => DType::Int64,
        "Byte" | "Untyped" | "_Untyped" => DType::UInt8,
        "Half" => DType::Float16,
        "Float" => DType::Float32,
        "Double" => DType::Float64,
        "Bool" => DType::Bool,
        "BFloat16" => DType::BFloat16,
        other => {
            let known = DType::ALL.into_iter().find(|dtype| dtype.name() == other);
            return known.ok_or_else(|| {
                let numbers = match other {
                    "ComplexFloat" | "ComplexDouble" | "complex64" | "complex128" => "complex numbers",
                    "QInt8" | "QUInt8" | "QInt32" | "QUInt4x2" | "QUInt2x4" => "quantised numbers",
                    other if other.starts_with("float8") => "numbers of 8 bits that have to be scaled",
                    _ => return format!("has elements of the type {other}, which is not known"),
                };
                format!("has elements of the type {other}: {numbers} can't be converted")
            });
        }
    })
}

/// Why a checkpoint that names this should not be trusted: no network needs it. All other names are only data here.
fn refuse(global: &str) -> Option<String> {
    let (module, name) = global.rsplit_once('.').unwrap_or(("", global));
    let package = module.split('.').next().unwrap_or(module);
    let runs = match package {
        "os" | "posix" | "nt" | "subprocess" | "popen2" | "pty" | "runpy" | "pdb" | "bdb" | "timeit" | "webbrowser"
        | "antigravity" | "socket" | "shutil" | "ctypes" | "importlib" | "imp" | "pip" | "sys" | "pickle"
        | "cPickle" | "marshal" => true,
        "builtins" | "__builtin__" => matches!(
            name,
            "eval" | "exec" | "execfile" | "compile" | "__import__" | "open" | "file" | "input" | "breakpoint"
        ),
        _ => false,
    };
    runs.then(|| {
        "which can run programs or touch files: torch.load would do so. Nothing was run; don't trust this file"
            .to_owned()
    })
}
