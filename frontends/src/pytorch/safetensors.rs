//! safetensors: the length of a JSON header, the header, and the elements of all tensors without a gap.
//! Format: <https://huggingface.co/docs/safetensors>.

use std::fmt;
use std::sync::Arc;

use modelport_ir::tensor::{Storage, range};
use modelport_ir::{DType, Tensor};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// Longest header that the format allows.
const MAX_HEADER: u64 = 100_000_000;

/// Whether a file begins as one.
pub fn is_header(head: &[u8], len: u64) -> bool {
    let Some((first, rest)) = head.split_first_chunk::<8>() else { return false };
    u64::from_le_bytes(*first) <= MAX_HEADER.min(len.saturating_sub(8)) && rest.first() == Some(&b'{')
}

/// The tensors by the order of their elements in the file.
///
/// # Errors
/// Sentences that go on from the file's name: its header is damaged, or tensors have types that are not known, overlap
/// or lie outside of it.
pub fn read(file: &Arc<dyn Storage>) -> Result<Vec<(String, Tensor)>, Vec<String>> {
    let (data, header) = header(file).map_err(|message| vec![message])?;
    let Entries(entries) =
        serde_json::from_slice(&header).map_err(|error| vec![format!("has a damaged header: {error}")])?;
    let mut problems = Vec::new();
    let mut tensors = Vec::with_capacity(entries.len());
    for (key, entry) in entries.into_iter().filter(|(key, _)| key != "__metadata__") {
        match tensor(file, data, &entry) {
            Ok((range, tensor)) => tensors.push((range, key, tensor)),
            Err(message) => problems.push(format!("'{key}' {message}")),
        }
    }
    tensors.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    for pair in tensors.windows(2) {
        if let [((_, end), a, _), ((start, _), b, _)] = pair
            && end > start
        {
            problems.push(format!("'{b}' overlaps '{a}'"));
        }
        if let [(_, a, _), (_, b, _)] = pair
            && a == b
        {
            problems.push(format!("'{a}' occurs twice"));
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(tensors.into_iter().map(|(_, key, tensor)| (key, tensor)).collect())
}

/// Where the elements begin, and the header's text.
fn header(file: &Arc<dyn Storage>) -> Result<(u64, Vec<u8>), String> {
    let mut len = [0; 8];
    if file.len() < 8 {
        return Err("is no safetensors file: it is too short".to_owned());
    }
    file.read_at(0, &mut len).map_err(|error| format!("can't be read: {error}"))?;
    let len = u64::from_le_bytes(len);
    if len > MAX_HEADER || len > file.len() - 8 {
        return Err("is no safetensors file: its header is longer than the file".to_owned());
    }
    let mut header = vec![0; len as usize];
    file.read_at(8, &mut header).map_err(|error| format!("can't be read: {error}"))?;
    Ok((8 + len, header))
}

type Range = (u64, u64);

fn tensor(file: &Arc<dyn Storage>, data: u64, entry: &Value) -> Result<(Range, Tensor), String> {
    let name = entry.get("dtype").and_then(Value::as_str).unwrap_or_default();
    let dtype = element_type(name).ok_or_else(|| match name {
        "F8_E4M3" | "F8_E5M2" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ" | "F6_E2M3" | "F6_E3M2" | "F4" => {
            format!("has elements of the type {name}, to be scaled before they are used: that can't be converted")
        }
        _ => format!("has elements of the type '{name}', which is not known"),
    })?;
    let numbers = |key: &str| -> Option<Vec<u64>> { entry.get(key)?.as_array()?.iter().map(Value::as_u64).collect() };
    let shape: Option<Vec<usize>> =
        numbers("shape").and_then(|shape| shape.into_iter().map(|size| usize::try_from(size).ok()).collect());
    let shape = shape.filter(|shape| shape.len() <= 64).ok_or("has no shape")?;
    let (start, end) = match numbers("data_offsets").as_deref() {
        Some(&[start, end]) if start <= end => (start, end),
        _ => return Err("has no range of bytes".to_owned()),
    };
    let storage = data.checked_add(start).and_then(|first| range(file, first, end - start).ok());
    let storage = storage.ok_or("lies beyond the end of the file")?;
    let tensor = Tensor::new(dtype, &shape, storage).map_err(|message| format!("is damaged: {message}"))?;
    Ok(((start, end), tensor))
}

fn element_type(name: &str) -> Option<DType> {
    Some(match name {
        "I8" => DType::Int8,
        "I16" => DType::Int16,
        "I32" => DType::Int32,
        "I64" => DType::Int64,
        "U8" => DType::UInt8,
        "U16" => DType::UInt16,
        "U32" => DType::UInt32,
        "U64" => DType::UInt64,
        "F16" => DType::Float16,
        "F32" => DType::Float32,
        "F64" => DType::Float64,
        "BOOL" => DType::Bool,
        "BF16" => DType::BFloat16,
        _ => return None,
    })
}

/// All entries of an object, also those of equal names.
struct Entries(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entries, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}
