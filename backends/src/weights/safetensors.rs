//! safetensors: the length of a JSON header, the header, and the elements of all tensors without a gap.
//! Format: <https://huggingface.co/docs/safetensors>.

use std::io::{self, Write};
use std::path::Path;

use modelport_ir::tensor::{FileBytes, Storage};
use modelport_ir::{DType, Problem, Result, Tensor};
use serde_json::{Map, Value, json};

use super::Named;
use crate::plan::Param;

/// Longest header that the format allows.
const MAX_HEADER: u64 = 100_000_000;

fn name(dtype: DType) -> &'static str {
    match dtype {
        DType::Int8 => "I8",
        DType::Int16 => "I16",
        DType::Int32 => "I32",
        DType::Int64 => "I64",
        DType::UInt8 => "U8",
        DType::UInt16 => "U16",
        DType::UInt32 => "U32",
        DType::UInt64 => "U64",
        DType::Float16 => "F16",
        DType::Float32 => "F32",
        DType::Float64 => "F64",
        DType::Bool => "BOOL",
        DType::BFloat16 => "BF16",
    }
}

/// Larger elements come first, so that all are aligned; among equals the order is kept.
pub fn write(out: &mut dyn Write, params: &[Param]) -> io::Result<()> {
    let mut params: Vec<&Param> = params.iter().collect();
    params.sort_by_key(|param| std::cmp::Reverse(param.tensor.dtype().size()));
    let mut header = format!("{{\"__metadata__\":{}", json!({"format": "pt"}));
    let mut end = 0;
    for Param { key, tensor, .. } in &params {
        let start = end;
        end += tensor.byte_len() as u64;
        header.push_str(&format!(
            ",{}:{{\"dtype\":\"{}\",\"shape\":{},\"data_offsets\":[{start},{end}]}}",
            json!(key),
            name(tensor.dtype()),
            json!(tensor.shape()),
        ));
    }
    header.push('}');
    let padding = header.len().next_multiple_of(8) - header.len();
    header.extend(std::iter::repeat_n(' ', padding));
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    params.iter().try_for_each(|param| param.tensor.write_to(out))
}

/// Tensors by the order of their elements in the file.
pub fn read(path: &Path) -> Result<Vec<Named>> {
    let failed = |message: String| Problem::new(message).file(path);
    let io = |error: io::Error| failed(format!("can't be read: {error}"));
    let file = FileBytes::open(path).map_err(io)?;
    let mut len = [0; 8];
    let known = file.len().min(8) as usize;
    file.read_at(0, len.get_mut(..known).unwrap_or_default()).map_err(io)?;
    let len = u64::from_le_bytes(len);
    if known < 8 || len > MAX_HEADER || len > file.len() - 8 {
        return Err(failed("is no safetensors file: its header is longer than the file".to_owned()).into());
    }
    let mut header = vec![0; len as usize];
    file.read_at(8, &mut header).map_err(io)?;
    let header: Map<String, Value> =
        serde_json::from_slice(&header).map_err(|e| failed(format!("has a damaged header: {e}")))?;
    let mut problems = Vec::new();
    let mut tensors = Vec::with_capacity(header.len());
    for (key, entry) in header.into_iter().filter(|(key, _)| key != "__metadata__") {
        match tensor(&file, 8 + len, &entry) {
            Ok((start, tensor)) => tensors.push((start, key, tensor)),
            Err(message) => problems.push(failed(format!("'{key}' {message}"))),
        }
    }
    modelport_ir::Error::collect(problems)?;
    tensors.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    Ok(tensors.into_iter().map(|(_, key, tensor)| (key, tensor)).collect())
}

fn tensor(file: &std::sync::Arc<FileBytes>, data: u64, entry: &Value) -> std::result::Result<(u64, Tensor), String> {
    let dtype = entry.get("dtype").and_then(Value::as_str).unwrap_or_default();
    let dtype = DType::ALL
        .into_iter()
        .find(|known| name(*known) == dtype)
        .ok_or_else(|| format!("has elements of the type '{dtype}', which is not known"))?;
    let numbers = |key: &str| -> Option<Vec<u64>> { entry.get(key)?.as_array()?.iter().map(Value::as_u64).collect() };
    let shape = numbers("shape").ok_or("has no shape")?;
    let shape: Vec<usize> = shape
        .into_iter()
        .map(|size| usize::try_from(size).map_err(|e| e.to_string()))
        .collect::<std::result::Result<_, _>>()?;
    let (start, len) = match numbers("data_offsets").as_deref() {
        Some(&[start, end]) if start <= end => (start, end - start),
        _ => return Err("has no range of bytes".to_owned()),
    };
    let storage = data
        .checked_add(start)
        .and_then(|start| file.range(start, len).ok())
        .ok_or("lies beyond the end of the file")?;
    Ok((start, Tensor::new(dtype, &shape, storage)?))
}
