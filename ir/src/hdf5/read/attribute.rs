//! Attributes of objects.

use super::bytes::{Cursor, File};
use super::header::{self, Header};
use super::{Outcome, dataset, dense};
use crate::Tensor;
use crate::hdf5::datatype::{self, Datatype};
use crate::hdf5::{Attribute, Attributes};

/// All attributes of an object, by name where they are indexed.
pub fn all(file: &File, header: &Header) -> Outcome<Attributes> {
    let mut attributes = Attributes::new();
    let mut add = |body: &[u8]| -> Outcome<()> {
        let (name, attribute) = read(file, body)?;
        attributes.insert(name, attribute);
        Ok(())
    };
    for message in header.all(header::ATTRIBUTE) {
        add(&header::body(file, message)?)?;
    }
    if let Some(info) = header.first(header::ATTRIBUTE_INFO) {
        let mut cursor = Cursor::of(&info.body, file);
        cursor.skip(1)?;
        let flags = cursor.u8()?;
        cursor.skip(if flags & 1 != 0 { 2 } else { 0 })?;
        if let (Some(heap), Some(index)) = (cursor.address()?, cursor.address()?) {
            dense::objects(file, heap, index)?.iter().try_for_each(|body| add(body))?;
        }
    }
    Ok(attributes)
}

fn read(file: &File, body: &[u8]) -> Outcome<(String, Attribute)> {
    let mut cursor = Cursor::of(body, file);
    let (version, flags) = (cursor.u8()?, cursor.u8()?);
    if !(1..=3).contains(&version) {
        return Err(format!("has an attribute of version {version}, which is not known"));
    }
    let (name, datatype, dataspace) = (cursor.u16()?, cursor.u16()?, cursor.u16()?);
    cursor.skip(usize::from(version == 3))?;
    let mut part = |len: u16| -> Outcome<&[u8]> {
        let len = usize::from(len);
        let bytes = cursor.take(if version == 1 { len.next_multiple_of(8) } else { len })?;
        Ok(bytes.get(..len).unwrap_or_default())
    };
    let (name, datatype, dataspace) = (part(name)?, part(datatype)?, part(dataspace)?);
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    let name = String::from_utf8_lossy(name).into_owned();
    let shared;
    let datatype = if version > 1 && flags & 1 != 0 {
        shared = header::shared(file, datatype, header::DATATYPE)?;
        &shared
    } else {
        datatype
    };
    let (datatype, size) = datatype::decode(datatype)?;
    let Some(shape) = dataset::dataspace(file, dataspace)? else {
        return Ok((name, Attribute::Other("empty".to_owned())));
    };
    let value = cursor.rest();
    let count = crate::tensor::numel(&shape).filter(|count| count.checked_mul(size).is_some_and(|n| n <= value.len()));
    let count = count.ok_or_else(|| format!("is damaged: the attribute {name} is cut short"))?;
    let attribute = match datatype {
        Datatype::Number { dtype, swapped } => {
            let mut bytes = value.get(..count * size).unwrap_or_default().to_vec();
            if swapped {
                bytes.chunks_mut(size).for_each(<[u8]>::reverse);
            }
            Tensor::new(dtype, &shape, std::sync::Arc::new(bytes)).map_or_else(Attribute::Other, Attribute::Numbers)
        }
        Datatype::Fixed(0) => Attribute::Other("strings without length".to_owned()),
        Datatype::Fixed(size) => {
            let strings = value.chunks(size).take(count).map(|bytes| {
                let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                Ok(String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned())
            });
            texts(&shape, strings)?
        }
        Datatype::Text => {
            let mut cursor = Cursor::of(value, file);
            let strings = (0..count).map(|_| {
                let len = cursor.u32()? as usize;
                let (address, index) = (cursor.address()?, cursor.u32()?);
                let bytes = match address {
                    Some(address) if len > 0 => file.heap_object(address, index)?,
                    _ => Vec::new(),
                };
                Ok(String::from_utf8_lossy(bytes.get(..len).unwrap_or(&bytes)).into_owned())
            });
            texts(&shape, strings)?
        }
        Datatype::Opaque(_) => Attribute::Other("bytes".to_owned()),
        Datatype::Other(what) => Attribute::Other(what.to_owned()),
    };
    Ok((name, attribute))
}

fn texts(shape: &[usize], strings: impl Iterator<Item = Outcome<String>>) -> Outcome<Attribute> {
    let mut strings = strings.collect::<Outcome<Vec<String>>>()?;
    Ok(match (shape, strings.len()) {
        ([], 1) => Attribute::Text(strings.pop().unwrap_or_default()),
        ([_], _) => Attribute::Texts(strings),
        _ => Attribute::Other(format!("strings of shape {shape:?}")),
    })
}
