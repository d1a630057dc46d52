//! PyTorch's archives of a state dict: `data.pkl` names the tensors, `data/<n>` are their storages.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use modelport_ir::pickle::{self, Id, Object, Pickle};
use modelport_ir::tensor::{FileBytes, Storage, numel};
use modelport_ir::{DType, Error, Problem, Result, Tensor};

use super::Named;
use super::archive::{Archive, Patch};
use crate::plan::Param;

/// Longest key of a tensor, in bytes.
const MAX_KEY: usize = 1 << 16;

/// The class of a typed storage in `torch`; types that have none are saved with an untyped one.
fn storage_class(dtype: DType) -> Option<&'static str> {
    match dtype {
        DType::Int8 => Some("CharStorage"),
        DType::Int16 => Some("ShortStorage"),
        DType::Int32 => Some("IntStorage"),
        DType::Int64 => Some("LongStorage"),
        DType::UInt8 => Some("ByteStorage"),
        DType::Float16 => Some("HalfStorage"),
        DType::Float32 => Some("FloatStorage"),
        DType::Float64 => Some("DoubleStorage"),
        DType::Bool => Some("BoolStorage"),
        DType::BFloat16 => Some("BFloat16Storage"),
        DType::UInt16 | DType::UInt32 | DType::UInt64 => None,
    }
}

/// Writes a state dict, or with `module` what makes the whole network of it. Tied tensors share a storage.
pub fn write(out: &mut dyn Write, root: &str, params: &[Param], module: Option<&str>) -> io::Result<Vec<Patch>> {
    let (storages, of_param) = storages(params);
    let pickle = Pickler::default().state_dict(params, &of_param, module);
    let mut archive = Archive::new(out);
    let text = |archive: &mut Archive, name: &str, bytes: &[u8]| {
        archive.add(&format!("{root}/{name}"), bytes.len() as u64, |out| out.write_all(bytes))
    };
    text(&mut archive, "data.pkl", &pickle)?;
    text(&mut archive, "byteorder", b"little")?;
    for (index, tensor) in storages.iter().enumerate() {
        archive.add(&format!("{root}/data/{index}"), tensor.byte_len() as u64, |out| tensor.write_to(out))?;
    }
    text(&mut archive, "version", b"3\n")?;
    archive.finish()
}

/// The tensors that differ, and for every weight which of them it is.
fn storages(params: &[Param]) -> (Vec<&Tensor>, Vec<usize>) {
    let mut storages: Vec<&Tensor> = Vec::new();
    let mut alike: HashMap<(DType, Vec<usize>), Vec<usize>> = HashMap::new();
    let mut of_param = Vec::with_capacity(params.len());
    for Param { tensor, .. } in params {
        let alike = alike.entry((tensor.dtype(), tensor.shape())).or_default();
        let same = alike.iter().copied().find(|&index| storages.get(index).is_some_and(|other| other.is_same(tensor)));
        of_param.push(same.unwrap_or_else(|| {
            storages.push(tensor);
            alike.push(storages.len() - 1);
            storages.len() - 1
        }));
    }
    (storages, of_param)
}

/// Writes a pickle of protocol 2; what occurs again is recalled from the memo.
#[derive(Default)]
struct Pickler {
    out: Vec<u8>,
    memos: HashMap<String, u8>,
}

impl Pickler {
    fn state_dict(mut self, params: &[Param], storages: &[usize], module: Option<&str>) -> Vec<u8> {
        self.out.extend(b"\x80\x02");
        if let Some(module) = module {
            self.out.extend(format!("c{module}\n_restore\n").bytes());
        }
        self.global("collections", "OrderedDict");
        self.out.extend(b")R(");
        for (param, &storage) in params.iter().zip(storages) {
            self.string(&param.key);
            self.tensor(&param.tensor, storage);
        }
        self.out.push(b'u');
        if module.is_some() {
            self.out.extend(b"\x85R");
        }
        self.out.push(b'.');
        self.out
    }

    /// `_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks)`; `_v3` has the type besides.
    fn tensor(&mut self, tensor: &Tensor, storage: usize) {
        let class = storage_class(tensor.dtype());
        self.global("torch._utils", if class.is_some() { "_rebuild_tensor_v2" } else { "_rebuild_tensor_v3" });
        self.out.extend(b"((");
        self.shared("storage", |pickler| pickler.string("storage"));
        match class {
            Some(class) => self.global("torch", class),
            None => self.global("torch.storage", "UntypedStorage"),
        }
        self.string(&storage.to_string());
        self.shared("cpu", |pickler| pickler.string("cpu"));
        self.int(if class.is_some() { tensor.numel() } else { tensor.byte_len() });
        self.out.extend(b"tQK\x00");
        let shape = tensor.shape();
        let mut strides = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * shape[axis].max(1);
        }
        self.ints(&shape);
        self.ints(&strides);
        self.out.push(0x89);
        self.global("collections", "OrderedDict");
        self.out.extend(b")R");
        if class.is_none() {
            self.global("torch", tensor.dtype().name());
        }
        self.out.extend(b"tR");
    }

    fn shared(&mut self, key: &str, make: impl FnOnce(&mut Self)) {
        if let Some(&memo) = self.memos.get(key) {
            self.out.extend([b'h', memo]);
            return;
        }
        make(self);
        let memo = self.memos.len() as u8;
        self.memos.insert(key.to_owned(), memo);
        self.out.extend([b'q', memo]);
    }

    fn global(&mut self, module: &str, name: &str) {
        let text = format!("c{module}\n{name}\n");
        self.shared(&text, |pickler| pickler.out.extend(text.bytes()));
    }

    fn string(&mut self, text: &str) {
        self.out.push(b'X');
        self.out.extend((text.len() as u32).to_le_bytes());
        self.out.extend(text.bytes());
    }

    fn int(&mut self, number: usize) {
        match (u8::try_from(number), u16::try_from(number), i32::try_from(number)) {
            (Ok(number), _, _) => self.out.extend([b'K', number]),
            (_, Ok(number), _) => {
                self.out.push(b'M');
                self.out.extend(number.to_le_bytes());
            }
            (_, _, Ok(number)) => {
                self.out.push(b'J');
                self.out.extend(number.to_le_bytes());
            }
            _ => {
                self.out.extend([0x8a, 8]);
                self.out.extend((number as u64).to_le_bytes());
            }
        }
    }

    fn ints(&mut self, numbers: &[usize]) {
        let end: &[u8] = match numbers.len() {
            0 => b")",
            1 => b"\x85",
            2 => b"\x86",
            3 => b"\x87",
            _ => {
                self.out.push(b'(');
                b"t"
            }
        };
        numbers.iter().for_each(|&number| self.int(number));
        self.out.extend(end);
    }
}

/// Reads a state dict, or the one in a whole network that modelport wrote.
pub fn read(path: &Path) -> Result<Vec<Named>> {
    let failed = |message: String| Problem::new(message).file(path);
    let io = |error: io::Error| failed(format!("can't be read: {error}"));
    let file = FileBytes::open(path).map_err(io)?;
    let entries = entries(path).map_err(|error| failed(format!("is no PyTorch archive: {error}")))?;
    let pickles: Vec<&String> = entries.keys().filter(|name| name.ends_with("/data.pkl")).collect();
    let [pickle] = pickles.as_slice() else {
        return Err(failed("is a zip archive without a data.pkl, expected a PyTorch state dict".to_owned()).into());
    };
    let root = pickle.trim_end_matches("data.pkl");
    if let Some(&(start, len)) = entries.get(&format!("{root}byteorder")) {
        let mut order = vec![0; len.min(8) as usize];
        file.read_at(start, &mut order).map_err(io)?;
        if order != b"little" {
            return Err(failed("is not little-endian".to_owned()).into());
        }
    }
    let (start, _) = entries.get(*pickle).copied().unwrap_or_default();
    let pickle = pickle::parse(&file, start, is_known)
        .map_err(|message| failed(message).hint("expected a plain state dict, as torch.save(model.state_dict(), …)"))?;
    let mut reader = Reader { file, pickle, root: root.to_owned(), entries, storages: HashMap::new() };
    let items = reader.items().ok_or_else(|| failed("holds something else than a state dict".to_owned()))?;
    let mut problems = Vec::new();
    let mut tensors = Vec::with_capacity(items.len());
    for (key, value) in items {
        let tensor = reader.text(key, MAX_KEY).and_then(|key| match reader.tensor(value) {
            Ok(tensor) => Ok((key, tensor)),
            Err(message) => Err(format!("'{key}' {message}")),
        });
        match tensor {
            Ok(named) => tensors.push(named),
            Err(message) => problems.push(failed(message)),
        }
    }
    Error::collect(problems)?;
    Ok(tensors)
}

/// Where the stored entries of an archive have their data, and how many bytes.
fn entries(path: &Path) -> std::result::Result<HashMap<String, (u64, u64)>, String> {
    let mut magic = Vec::new();
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    Read::by_ref(&mut file).take(2).read_to_end(&mut magic).map_err(|error| error.to_string())?;
    if magic != b"PK" {
        return Err("it does not begin as a zip archive (was it saved by PyTorch before 1.6?)".to_owned());
    }
    let mut archive = zip::ZipArchive::new(file).map_err(|error| error.to_string())?;
    let mut entries = HashMap::with_capacity(archive.len());
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(|error| error.to_string())?;
        if let (zip::CompressionMethod::Stored, Some(start)) = (entry.compression(), entry.data_start()) {
            let name = entry.name().map_err(|error| error.to_string())?.into_owned();
            entries.insert(name, (start, entry.size()));
        }
    }
    Ok(entries)
}

fn is_known(global: &str) -> bool {
    matches!(
        global,
        "collections.OrderedDict"
            | "torch._utils._rebuild_tensor_v2"
            | "torch._utils._rebuild_tensor_v3"
            | "torch._utils._rebuild_parameter"
            | "torch.storage.UntypedStorage"
            | "torch.Size"
    ) || global.strip_prefix("torch.").is_some_and(|name| name.ends_with("Storage") || dtype_called(name).is_some())
        || global.ends_with("._restore")
}

fn dtype_called(name: &str) -> Option<DType> {
    DType::ALL.into_iter().find(|dtype| dtype.name() == name)
}

struct Reader {
    file: Arc<FileBytes>,
    pickle: Pickle,
    root: String,
    entries: HashMap<String, (u64, u64)>,
    /// By key, so that tensors which share a storage are seen to share it.
    storages: HashMap<String, Arc<dyn Storage>>,
}

type Outcome<T> = std::result::Result<T, String>;

impl Reader {
    fn items(&self) -> Option<Vec<(Id, Id)>> {
        let mut id = self.pickle.root;
        if let Some((name, &[state])) = self.call(id)
            && name.ends_with("._restore")
        {
            id = state;
        }
        match self.pickle.get(id) {
            Object::Dict(items) => Some(items.clone()),
            Object::Call { items, .. } if self.call(id)?.0 == "collections.OrderedDict" => Some(items.clone()),
            _ => None,
        }
    }

    fn call(&self, id: Id) -> Option<(&str, &[Id])> {
        let Object::Call { callable, args, .. } = self.pickle.get(id) else { return None };
        match (self.pickle.get(*callable), self.pickle.get(*args)) {
            (Object::Global(name), Object::Tuple(args)) => Some((name, args)),
            _ => None,
        }
    }

    fn text(&self, id: Id, limit: usize) -> Outcome<String> {
        match self.pickle.get(id) {
            Object::Text(span) | Object::Bytes(span) => pickle::text(&self.file, span, limit),
            _ => Err("a key is no string".to_owned()),
        }
    }

    fn int(&self, id: Id) -> Outcome<usize> {
        match self.pickle.get(id) {
            Object::Int(number) => usize::try_from(*number).map_err(|_| format!("has a size of {number}")),
            _ => Err("has a size that is no integer".to_owned()),
        }
    }

    fn ints(&self, id: Id) -> Outcome<Vec<usize>> {
        match (self.pickle.get(id), self.call(id)) {
            (Object::Tuple(items), _) => items.iter().map(|&item| self.int(item)).collect(),
            (_, Some(("torch.Size", &[inner]))) => match self.pickle.get(inner) {
                Object::Tuple(items) => items.iter().map(|&item| self.int(item)).collect(),
                _ => Err("has no shape".to_owned()),
            },
            _ => Err("has no shape".to_owned()),
        }
    }

    fn tensor(&mut self, id: Id) -> Outcome<Tensor> {
        let unknown = || "is no tensor".to_owned();
        let mut id = id;
        if let Some(("torch._utils._rebuild_parameter", &[data, ..])) = self.call(id) {
            id = data;
        }
        let (name, args) = self.call(id).ok_or_else(unknown)?;
        let &[storage, offset, shape, strides, ref rest @ ..] = args else { return Err(unknown()) };
        let dtype = match (name, rest) {
            ("torch._utils._rebuild_tensor_v2", _) => None,
            ("torch._utils._rebuild_tensor_v3", &[_, _, dtype, ..]) => Some(dtype),
            _ => return Err(unknown()),
        };
        let (offset, shape, strides) = (self.int(offset)?, self.ints(shape)?, self.ints(strides)?);
        let Object::Persistent(storage) = self.pickle.get(storage) else { return Err(unknown()) };
        let Object::Tuple(parts) = self.pickle.get(*storage) else { return Err(unknown()) };
        let &[_, class, key, ..] = parts.as_slice() else { return Err(unknown()) };
        let class = dtype.unwrap_or(class);
        let Object::Global(class) = self.pickle.get(class) else { return Err(unknown()) };
        let class = class.trim_start_matches("torch.");
        let dtype = DType::ALL
            .into_iter()
            .find(|&known| storage_class(known) == Some(class))
            .or_else(|| dtype_called(class))
            .ok_or_else(|| format!("has elements in a {class}, which is not known"))?;
        let storage = self.storage(key)?;
        if numel(&shape).is_none_or(|n| n as u64 > storage.len() / dtype.size() as u64) {
            return Err(format!("repeats elements: its shape {shape:?} has more than are saved"));
        }
        Tensor::strided(dtype, &shape, &strides, offset, storage)
    }

    fn storage(&mut self, key: Id) -> Outcome<Arc<dyn Storage>> {
        let key = self.text(key, MAX_KEY)?;
        if let Some(storage) = self.storages.get(&key) {
            return Ok(storage.clone());
        }
        let name = format!("{}data/{key}", self.root);
        let &(start, len) = self.entries.get(&name).ok_or_else(|| format!("has no elements: {name} is missing"))?;
        let storage = self.file.range(start, len).map_err(|_| format!("has no elements: {name} is cut short"))?;
        self.storages.insert(key, storage.clone());
        Ok(storage)
    }
}
