//! Element types.

use serde::{Deserialize, Serialize};

/// The type of a tensor's elements. Numbers are those of the IR files (`DataType` in `proto/graph.proto`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(i32)]
pub enum DType {
    /// Signed, 8 bits.
    Int8 = 1,
    /// Signed, 16 bits.
    Int16 = 2,
    /// Signed, 32 bits.
    Int32 = 3,
    /// Signed, 64 bits.
    Int64 = 4,
    /// Unsigned, 8 bits.
    UInt8 = 5,
    /// Unsigned, 16 bits.
    UInt16 = 6,
    /// Unsigned, 32 bits.
    UInt32 = 7,
    /// Unsigned, 64 bits.
    UInt64 = 8,
    /// IEEE 754 half precision.
    Float16 = 9,
    /// IEEE 754 single precision.
    Float32 = 10,
    /// IEEE 754 double precision.
    Float64 = 11,
    /// One byte, 0 or 1.
    Bool = 14,
    /// The upper half of a single-precision number.
    BFloat16 = 32,
}

impl DType {
    /// All types.
    pub const ALL: [DType; 13] = [
        DType::Int8,
        DType::Int16,
        DType::Int32,
        DType::Int64,
        DType::UInt8,
        DType::UInt16,
        DType::UInt32,
        DType::UInt64,
        DType::Float16,
        DType::Float32,
        DType::Float64,
        DType::Bool,
        DType::BFloat16,
    ];

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::Int8 | DType::UInt8 | DType::Bool => 1,
            DType::Int16 | DType::UInt16 | DType::Float16 | DType::BFloat16 => 2,
            DType::Int32 | DType::UInt32 | DType::Float32 => 4,
            DType::Int64 | DType::UInt64 | DType::Float64 => 8,
        }
    }

    /// NumPy's name, which is also PyTorch's and Keras'.
    pub fn name(self) -> &'static str {
        match self {
            DType::Int8 => "int8",
            DType::Int16 => "int16",
            DType::Int32 => "int32",
            DType::Int64 => "int64",
            DType::UInt8 => "uint8",
            DType::UInt16 => "uint16",
            DType::UInt32 => "uint32",
            DType::UInt64 => "uint64",
            DType::Float16 => "float16",
            DType::Float32 => "float32",
            DType::Float64 => "float64",
            DType::Bool => "bool",
            DType::BFloat16 => "bfloat16",
        }
    }

    /// The type with this number in the IR files.
    pub fn from_code(code: i32) -> Option<DType> {
        DType::ALL.into_iter().find(|dtype| *dtype as i32 == code)
    }

    /// Whether elements are real numbers.
    pub fn is_float(self) -> bool {
        matches!(self, DType::Float16 | DType::Float32 | DType::Float64 | DType::BFloat16)
    }

    /// Whether elements are whole numbers (booleans are not).
    pub fn is_int(self) -> bool {
        !self.is_float() && self != DType::Bool
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
