//! `.npy` files that hold a pickled dictionary `{layer: {name: array}}`, as `np.save(file, dictionary)` writes them.
//!
//! Nothing is executed while reading: the pickle's opcodes build data, and a global that is no part of such a file is an
//! error that names it. The elements stay in the file until they are used.

mod data;
mod read;
mod write;

use indexmap::IndexMap;

use crate::tensor::{DType, Tensor};

pub use read::{array, is_array, plain, read};
pub use write::{save, write};

/// Tensors by layer and name, in the order of the file.
pub type Weights = IndexMap<String, IndexMap<String, Tensor>>;

const MAGIC: &[u8] = b"\x93NUMPY";

/// NumPy's code for an element type, without the byte order. NumPy has no bfloat16: its bytes are kept as `V2`, as
/// `np.save` does.
fn dtype_code(dtype: DType) -> &'static str {
    match dtype {
        DType::Int8 => "i1",
        DType::Int16 => "i2",
        DType::Int32 => "i4",
        DType::Int64 => "i8",
        DType::UInt8 => "u1",
        DType::UInt16 => "u2",
        DType::UInt32 => "u4",
        DType::UInt64 => "u8",
        DType::Float16 => "f2",
        DType::Float32 => "f4",
        DType::Float64 => "f8",
        DType::Bool => "b1",
        DType::BFloat16 => "V2",
    }
}

fn dtype_from_code(code: &str) -> Option<DType> {
    DType::ALL.into_iter().find(|&dtype| dtype_code(dtype) == code)
}

#[cfg(test)]
mod tests;
