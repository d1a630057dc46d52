//! What `torch.save` wrote before zip archives: five pickles in a row and the storages (0.1.10 to 1.5, and on request
//! today), and before that a tar archive.

use std::collections::HashMap;
use std::sync::Arc;

use modelport_ir::pickle::{self, Object, Pickle};
use modelport_ir::tensor::{Storage, range};
use modelport_ir::{DType, Tensor};

use super::objects::{Objects, Outcome, Storages, element_type};

/// The first of the five pickles, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// The only version of the protocol that there is.
const PROTOCOL: i64 = 1001;
/// Bytes of a block of a tar archive.
const BLOCK: u64 = 512;
/// Most files in a tar archive that are looked at.
const MAX_FILES: usize = 10_000;
/// Most axes of a tensor.
const MAX_RANK: usize = 64;

/// Storages that lie one after the other in the file.
#[derive(Default)]
struct InARow {
    storages: HashMap<String, Arc<dyn Storage>>,
    tensors: HashMap<String, Outcome<Tensor>>,
    big_endian: bool,
}

impl Storages for InARow {
    fn bytes(&self, key: &str) -> Outcome<Arc<dyn Storage>> {
        self.storages.get(key).cloned().ok_or_else(|| format!("has no elements: the storage {key} is missing"))
    }

    fn is_big_endian(&self) -> bool {
        self.big_endian
    }

    fn tensor(&self, key: &str) -> Option<Outcome<Tensor>> {
        self.tensors.get(key).cloned()
    }
}

/// A pickle of which only numbers, names and strings are wanted.
fn small(source: &Arc<dyn Storage>, start: u64) -> Outcome<Pickle> {
    pickle::parse(source, start, |_| None)
}

/// Whether the pickle at the beginning of a file is the magic number.
pub fn has_magic(source: &Arc<dyn Storage>) -> bool {
    small(source, 0).is_ok_and(|pickle| match pickle.get(pickle.root) {
        Object::Big(span) => pickle::bytes(source, span, MAGIC.len()).is_ok_and(|bytes| bytes == MAGIC),
        _ => false,
    })
}

/// Reads five pickles and the storages behind them.
///
/// # Errors
/// When one of them is damaged or the file is cut short.
pub fn five_pickles(source: Arc<dyn Storage>) -> Outcome<Objects> {
    let magic = small(&source, 0)?;
    let protocol = small(&source, magic.end)?;
    match protocol.get(protocol.root) {
        Object::Int(PROTOCOL) => {}
        other => return Err(format!("has a protocol that is not known ({other:?})")),
    }
    let system = small(&source, protocol.end)?;
    let big_endian = match system.get(system.root) {
        Object::Dict(entries) => entries.iter().any(|&(key, value)| {
            matches!(system.get(value), Object::Bool(false))
                && matches!(system.get(key), Object::Text(span) | Object::Bytes(span)
                    if pickle::text(&source, span, 64).is_ok_and(|key| key == "little_endian"))
        }),
        _ => false,
    };
    let objects = Objects::read(source.clone(), system.end, Box::new(InARow::default()))?;
    let keys = small(&source, objects.end())?;
    let Object::List(ids) = keys.get(keys.root) else { return Err("has no list of its storages".to_owned()) };
    let types = objects.storage_types();
    let mut position = keys.end;
    let mut row = InARow { big_endian, ..InARow::default() };
    for &id in ids {
        let key = match keys.get(id) {
            Object::Int(number) => number.to_string(),
            Object::Text(span) | Object::Bytes(span) => pickle::text(&source, span, 1 << 10)?,
            _ => return Err("has a storage without a key".to_owned()),
        };
        // What nothing refers to has no type to be skipped by; writers leave it out.
        let class = types.get(&key).ok_or_else(|| format!("has a storage {key} that nothing refers to"))?;
        let size = element_size(class)?;
        let (storage, end) = storage_at(&source, position, size)?;
        position = end;
        row.storages.insert(key, storage);
    }
    Ok(objects.with(Box::new(row)))
}

/// Bytes of an element in a storage of this class, also of those that can't be converted.
fn element_size(class: &str) -> Outcome<usize> {
    let name = class.rsplit('.').next().unwrap_or(class);
    match name.trim_end_matches("Storage") {
        "ComplexDouble" => Ok(16),
        "ComplexFloat" => Ok(8),
        "QInt32" => Ok(4),
        "QInt8" | "QUInt8" | "QUInt4x2" | "QUInt2x4" => Ok(1),
        _ => element_type(class).map(DType::size).map_err(|message| format!("has a storage that {message}")),
    }
}

/// The number of elements and the elements; and where they end.
fn storage_at(source: &Arc<dyn Storage>, position: u64, size: usize) -> Outcome<(Arc<dyn Storage>, u64)> {
    let short = || "is cut short: its elements are not all there".to_owned();
    let count = u64::from_le_bytes(bytes_at(source, position).ok_or_else(short)?);
    let start = position + 8;
    let len = count.checked_mul(size as u64).ok_or_else(short)?;
    let storage = range(source, start, len).map_err(|_| short())?;
    Ok((storage, start + len))
}

fn bytes_at<const N: usize>(source: &Arc<dyn Storage>, position: u64) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    position.checked_add(N as u64).filter(|&end| end <= source.len())?;
    source.read_at(position, &mut bytes).ok()?;
    Some(bytes)
}

/// Reads a tar archive of `storages`, `tensors` and `pickle`.
///
/// # Errors
/// When it is another archive, or damaged.
pub fn tar(source: &Arc<dyn Storage>) -> Outcome<Objects> {
    let files = tar_files(source)?;
    let file = |name: &str| files.iter().find(|(known, _)| known == name).map(|(_, file)| file.clone());
    let (Some(storages), Some(tensors), Some(pickle)) = (file("storages"), file("tensors"), file("pickle")) else {
        let names: Vec<&str> = files.iter().take(5).map(|(name, _)| name.as_str()).collect();
        return Err(format!("is a tar archive of other files ({}); unpack it first", names.join(", ")));
    };
    let mut row = InARow::default();
    let types = tar_storages(&storages, &mut row)?;
    tar_tensors(&tensors, &types, &mut row)?;
    Objects::read(pickle, 0, Box::new(row))
}

fn tar_files(source: &Arc<dyn Storage>) -> Outcome<Vec<(String, Arc<dyn Storage>)>> {
    let mut files = Vec::new();
    let mut position = 0;
    while let Some(block) = bytes_at::<{ BLOCK as usize }>(source, position) {
        let text = |range: std::ops::Range<usize>| {
            let field = block.get(range).unwrap_or_default();
            let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
            String::from_utf8_lossy(field.get(..end).unwrap_or_default()).trim().to_owned()
        };
        let name = text(0..100);
        if name.is_empty() || files.len() >= MAX_FILES {
            break;
        }
        let size = u64::from_str_radix(&text(124..136), 8)
            .map_err(|_| format!("is a damaged tar archive: {name} has no size"))?;
        let start = position + BLOCK;
        let file = range(source, start, size).map_err(|_| format!("is a tar archive that is cut short in {name}"))?;
        let name = name.trim_start_matches("./").to_owned();
        if matches!(block.get(156), Some(b'0' | 0)) {
            files.push((name, file));
        }
        position = start + size.next_multiple_of(BLOCK);
    }
    Ok(files)
}

/// Pickles one after the other, with raw bytes between them.
struct Row<'a> {
    source: &'a Arc<dyn Storage>,
    position: u64,
}

impl Row<'_> {
    fn next(&mut self) -> Outcome<Pickle> {
        let pickle = small(self.source, self.position)?;
        self.position = pickle.end;
        Ok(pickle)
    }

    fn count(&mut self) -> Outcome<i64> {
        let pickle = self.next()?;
        match pickle.get(pickle.root) {
            Object::Int(count) => Ok(*count),
            _ => Err("is a damaged tar archive: a number is missing".to_owned()),
        }
    }

    /// A tuple of two integers or names and a class.
    fn triple(&mut self) -> Outcome<[String; 3]> {
        let damaged = || "is a damaged tar archive: a tensor is incomplete".to_owned();
        let pickle = self.next()?;
        let Object::Tuple(items) = pickle.get(pickle.root) else { return Err(damaged()) };
        let word = |id: usize| match pickle.get(id) {
            Object::Int(number) => Ok(number.to_string()),
            Object::Text(span) | Object::Bytes(span) => pickle::text(self.source, span, 1 << 10),
            Object::Global(name) => Ok(name.clone()),
            _ => Err(damaged()),
        };
        match *items.as_slice() {
            [a, b, c] => Ok([word(a)?, word(b)?, word(c)?]),
            _ => Err(damaged()),
        }
    }

    fn number(&mut self) -> Outcome<usize> {
        let bytes = bytes_at(self.source, self.position).ok_or("is a tar archive that is cut short")?;
        self.position += 8;
        usize::try_from(i64::from_le_bytes(bytes))
            .map_err(|_| "is a damaged tar archive: a size is negative".to_owned())
    }
}

/// Storages by key into `row`, and their classes.
fn tar_storages(source: &Arc<dyn Storage>, row: &mut InARow) -> Outcome<HashMap<String, String>> {
    let mut types = HashMap::new();
    let mut pickles = Row { source, position: 0 };
    for _ in 0..pickles.count()? {
        let [key, _, class] = pickles.triple()?;
        let (storage, end) = storage_at(source, pickles.position, element_size(&class)?)?;
        pickles.position = end;
        row.storages.insert(key.clone(), storage);
        types.insert(key, class);
    }
    let views = pickles.next()?;
    let items = match views.get(views.root) {
        Object::List(items) => items.as_slice(),
        _ => &[],
    };
    for &item in items {
        let Object::Tuple(parts) = views.get(item) else { continue };
        let number = |id: &usize| match views.get(*id) {
            Object::Int(number) => u64::try_from(*number).ok(),
            _ => None,
        };
        let damaged = || "is a damaged tar archive: a view leaves its storage".to_owned();
        let numbers: Option<Vec<u64>> = parts.iter().map(number).collect();
        let Some(&[target, root, offset, count]) = numbers.as_deref() else { return Err(damaged()) };
        let class = types.get(&root.to_string()).cloned().ok_or_else(damaged)?;
        let size = element_size(&class)? as u64;
        let whole = row.storages.get(&root.to_string()).cloned().ok_or_else(damaged)?;
        let bytes = offset.checked_mul(size).zip(count.checked_mul(size));
        let part = bytes.and_then(|(start, len)| range(&whole, start, len).ok()).ok_or_else(damaged)?;
        row.storages.insert(target.to_string(), part);
        types.insert(target.to_string(), class);
    }
    Ok(types)
}

fn tar_tensors(source: &Arc<dyn Storage>, types: &HashMap<String, String>, row: &mut InARow) -> Outcome<()> {
    let mut pickles = Row { source, position: 0 };
    for _ in 0..pickles.count()? {
        let [key, storage, _] = pickles.triple()?;
        // 32 bits and 32 unused ones.
        let rank = pickles.number()? & 0xffff_ffff;
        if rank > MAX_RANK {
            return Err(format!("is a damaged tar archive: a tensor has {rank} axes"));
        }
        let shape: Vec<usize> = (0..rank).map(|_| pickles.number()).collect::<Outcome<_>>()?;
        let strides: Vec<usize> = (0..rank).map(|_| pickles.number()).collect::<Outcome<_>>()?;
        let offset = pickles.number()?;
        let tensor = match (types.get(&storage), row.storages.get(&storage)) {
            (Some(class), Some(bytes)) => element_type(class)
                .and_then(|dtype| super::objects::view(dtype, &shape, &strides, offset, bytes.clone())),
            _ => Err(format!("has no elements: the storage {storage} is missing")),
        };
        row.tensors.insert(key, tensor);
    }
    Ok(())
}
