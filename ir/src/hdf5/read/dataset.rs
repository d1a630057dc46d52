//! Datasets: what their elements are and where they lie.

use std::io;
use std::sync::Arc;

use super::Outcome;
use super::bytes::{Cursor, File};
use super::chunks::{Chunked, Filter, Index};
use super::header::{self, Header};
use crate::hdf5::datatype::{self, Datatype};
use crate::hdf5::{Attribute, Attributes};
use crate::tensor::Storage;
use crate::{DType, Tensor};

const MAX_RANK: u8 = 32;
/// Elements that have no bytes in the file are zeros; more bytes of them are taken for damage.
const MAX_IMPLIED: u64 = 64 << 20;

/// The shape that a description says, none for one of no elements.
pub fn dataspace(file: &File, body: &[u8]) -> Outcome<Option<Vec<usize>>> {
    let mut cursor = Cursor::of(body, file);
    let (version, rank, _flags) = (cursor.u8()?, cursor.u8()?, cursor.u8()?);
    let kind = match version {
        1 => {
            cursor.skip(5)?;
            1
        }
        2 => cursor.u8()?,
        _ => return Err(format!("has a shape of version {version}, which is not known")),
    };
    if rank > MAX_RANK {
        return Err(format!("is damaged: it has a shape of {rank} axes"));
    }
    if kind == 2 {
        return Ok(None);
    }
    let sizes = (0..rank).map(|_| usize::try_from(cursor.length()?).map_err(|error| error.to_string()));
    sizes.collect::<Outcome<_>>().map(Some)
}

/// The elements of a dataset, as a view. An error says what it is instead.
pub fn tensor(file: &File, header: &Header, attributes: &Attributes) -> Outcome<Tensor> {
    let message = |kind| header.first(kind).ok_or_else(|| "a dataset without a description".to_owned());
    let (datatype, size) = datatype::decode(&header::body(file, message(header::DATATYPE)?)?)?;
    let shape = dataspace(file, &header::body(file, message(header::DATASPACE)?)?)?.ok_or("an empty dataset")?;
    let (dtype, swapped) = match datatype {
        Datatype::Number { dtype, swapped } => (dtype, swapped),
        Datatype::Opaque(2) if matches!(attributes.get("dtype"), Some(Attribute::Text(name)) if name == "bfloat16") => {
            (DType::BFloat16, false)
        }
        Datatype::Opaque(_) => return Err("bytes of unknown meaning".to_owned()),
        Datatype::Fixed(_) | Datatype::Text => return Err("strings".to_owned()),
        Datatype::Other(what) => return Err(what.to_owned()),
    };
    if header.first(header::EXTERNAL).is_some() {
        return Err("a dataset whose elements are in another file".to_owned());
    }
    let bytes = crate::tensor::numel(&shape).and_then(|numel| numel.checked_mul(size)).map(|bytes| bytes as u64);
    let bytes = bytes.ok_or_else(|| format!("a dataset of the impossible shape {shape:?}"))?;
    let storage = storage(file, header, &shape, size, bytes)?;
    let storage = if swapped { Arc::new(Swapped { storage, size }) } else { storage };
    Tensor::new(dtype, &shape, storage)
}

fn storage(file: &File, header: &Header, shape: &[usize], size: usize, bytes: u64) -> Outcome<Arc<dyn Storage>> {
    let layout = header.first(header::LAYOUT).ok_or("a dataset without a description")?;
    let mut cursor = Cursor::of(&layout.body, file);
    let (version, class) = (cursor.u8()?, cursor.u8()?);
    if !(3..=5).contains(&version) {
        return Err(format!("a dataset of layout version {version}, which is not known (h5repack makes a newer one)"));
    }
    let filters = match header.first(header::FILTERS) {
        Some(message) => filters(&message.body)?,
        None => Vec::new(),
    };
    let fill = fill_value(header, size);
    match class {
        0 => {
            let len = cursor.u16()?.into();
            let data = cursor.take(len)?;
            if data.len() as u64 != bytes {
                return Err("a dataset that is cut short".to_owned());
            }
            Ok(Arc::new(data.to_vec()))
        }
        1 => match cursor.address()? {
            Some(address) => file.range(address, bytes),
            None => implied(bytes, fill),
        },
        2 => {
            let (index, chunk) = match version {
                3 => {
                    let rank = cursor.u8()?;
                    let tree = cursor.address()?;
                    let chunk = (0..rank).map(|_| Ok(cursor.u32()?.into())).collect::<Outcome<Vec<u64>>>()?;
                    (tree.map(|tree| Index::Tree { tree }), chunk)
                }
                _ => {
                    let (flags, rank, width) = (cursor.u8()?, cursor.u8()?, cursor.u8()?);
                    if width > 8 {
                        return Err("a dataset of impossible chunks".to_owned());
                    }
                    let chunk = (0..rank).map(|_| cursor.uint(width.into())).collect::<Outcome<Vec<u64>>>()?;
                    (new_index(&mut cursor, flags)?, chunk)
                }
            };
            let Some(index) = index else { return implied(bytes, fill) };
            let Some((element, chunk)) = chunk.split_last() else {
                return Err("a dataset of impossible chunks".to_owned());
            };
            if *element != size as u64 || chunk.len() != shape.len() || chunk.contains(&0) {
                return Err("a dataset of impossible chunks".to_owned());
            }
            Ok(Arc::new(Chunked::new(file, shape, chunk, size, filters, fill, &index)?))
        }
        _ => Err("a virtual dataset".to_owned()),
    }
}

/// The index of version 4 layouts.
fn new_index(cursor: &mut Cursor, flags: u8) -> Outcome<Option<Index>> {
    Ok(match cursor.u8()? {
        1 => {
            let filtered = match flags & 2 {
                0 => None,
                _ => Some((cursor.length()?, cursor.u32()?)),
            };
            cursor.address()?.map(|address| Index::Single { address, filtered })
        }
        2 => cursor.address()?.map(|address| Index::Implicit { address }),
        3 => {
            cursor.skip(1)?;
            cursor.address()?.map(|address| Index::FixedArray { address })
        }
        _ => return Err("a dataset that can grow, in the format of HDF5 1.10 (h5repack -h makes another)".to_owned()),
    })
}

/// Elements that were never written.
fn implied(bytes: u64, fill: Vec<u8>) -> Outcome<Arc<dyn Storage>> {
    if bytes > MAX_IMPLIED {
        return Err("a dataset without elements".to_owned());
    }
    Ok(Arc::new(fill.into_iter().cycle().take(bytes as usize).collect::<Vec<u8>>()))
}

/// The element for what was never written, zero unless the file says another.
fn fill_value(header: &Header, size: usize) -> Vec<u8> {
    let value = header.first(header::FILL_VALUE).and_then(|message| match message.body.as_slice() {
        [1 | 2, _, _, 1, rest @ ..] => rest.get(4..),
        [3, flags, rest @ ..] if flags & 0x20 != 0 => rest.get(4..),
        _ => None,
    });
    value.and_then(|value| value.get(..size)).map_or_else(|| vec![0; size.max(1)], <[u8]>::to_vec)
}

fn filters(body: &[u8]) -> Outcome<Vec<Filter>> {
    let mut cursor = Cursor::new(body, 8, 8);
    let (version, count) = (cursor.u8()?, cursor.u8()?);
    cursor.skip(if version == 1 { 6 } else { 0 })?;
    let mut filters = Vec::new();
    for _ in 0..count {
        let id = cursor.u16()?;
        let name = if version == 1 || id >= 256 { usize::from(cursor.u16()?) } else { 0 };
        cursor.skip(2)?;
        let values = usize::from(cursor.u16()?);
        cursor.skip(if version == 1 { name.next_multiple_of(8) } else { name })?;
        let first = if values > 0 { cursor.u32()? } else { 0 };
        cursor.skip(4 * values.saturating_sub(1))?;
        cursor.skip(if version == 1 && values % 2 == 1 { 4 } else { 0 })?;
        filters.push(match id {
            1 => Filter::Deflate,
            2 => Filter::Shuffle(first as usize),
            3 => Filter::Fletcher32,
            32000 => {
                return Err("compressed with lzf, which is not known (h5repack -f GZIP=4 makes another)".to_owned());
            }
            id => return Err(format!("packed with filter {id}, which is not known (h5repack -f NONE unpacks it)")),
        });
    }
    Ok(filters)
}

/// Elements in the other byte order.
#[derive(Debug)]
struct Swapped {
    storage: Arc<dyn Storage>,
    size: usize,
}

impl Storage for Swapped {
    fn len(&self) -> u64 {
        self.storage.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let before = (offset % self.size as u64) as usize;
        let mut bytes = vec![0; (before + buffer.len()).next_multiple_of(self.size)];
        self.storage.read_at(offset - before as u64, &mut bytes)?;
        bytes.chunks_mut(self.size).for_each(<[u8]>::reverse);
        buffer.copy_from_slice(bytes.get(before..before + buffer.len()).unwrap_or_default());
        Ok(())
    }
}
