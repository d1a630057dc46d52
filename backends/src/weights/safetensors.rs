//! safetensors: the length of a JSON header, the header, and the elements of all tensors without a gap.
//! Format: <https://huggingface.co/docs/safetensors>.

use std::io::{self, Write};

use modelport_ir::DType;
use serde_json::json;

use crate::plan::Param;

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
