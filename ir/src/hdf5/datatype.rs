//! Descriptions of element types.

use crate::DType;

/// What the elements of a dataset or an attribute are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Datatype {
    /// Numbers, and whether their bytes are in the other order.
    Number { dtype: DType, swapped: bool },
    /// Strings of as many bytes.
    Fixed(usize),
    /// Strings of any length; elements are references into a global heap.
    Text,
    /// Bytes without meaning. Keras keeps bfloat16 so.
    Opaque(usize),
    /// Anything else: what it is, and how many bytes an element has.
    Other(&'static str),
}

const SIGNED: u8 = 0x08;

/// The description of numbers, as h5py writes it. bfloat16 is opaque: Keras marks such datasets by an attribute.
pub fn encode(dtype: DType) -> Vec<u8> {
    let int = |sign: u8| {
        let size = dtype.size() as u8;
        vec![0x10, sign, 0, 0, size, 0, 0, 0, 0, 0, size * 8, 0]
    };
    // Exponent: position and width; mantissa: width; bias.
    let float = |exponent: u8, width: u8, bias: u16| {
        let size = dtype.size() as u8;
        let [low, high] = bias.to_le_bytes();
        let head = [0x11, 0x20, size * 8 - 1, 0, size, 0, 0, 0, 0, 0, size * 8, 0];
        let tail = [exponent, width, 0, exponent, low, high, 0, 0];
        [head.as_slice(), tail.as_slice()].concat()
    };
    match dtype {
        DType::Int8 | DType::Int16 | DType::Int32 | DType::Int64 => int(SIGNED),
        DType::UInt8 | DType::UInt16 | DType::UInt32 | DType::UInt64 => int(0),
        DType::Float16 => float(10, 5, 15),
        DType::Float32 => float(23, 8, 127),
        DType::Float64 => float(52, 11, 1023),
        DType::Bool => {
            let head = [0x18, 2, 0, 0, 1, 0, 0, 0, 0x10, SIGNED, 0, 0, 1, 0, 0, 0, 0, 0, 8, 0];
            [head.as_slice(), b"FALSE\0\0\0TRUE\0\0\0\0\x00\x01"].concat()
        }
        DType::BFloat16 => vec![0x15, 0, 0, 0, 2, 0, 0, 0],
    }
}

/// The description of strings of `size` bytes, padded with zeros.
pub fn encode_fixed(size: usize) -> Vec<u8> {
    let [a, b, c, d] = (size as u32).to_le_bytes();
    vec![0x13, 1, 0, 0, a, b, c, d]
}

/// The description of UTF-8 strings of any length.
pub fn encode_text() -> Vec<u8> {
    vec![0x19, 1, 1, 0, 16, 0, 0, 0, 0x10, 0, 0, 0, 1, 0, 0, 0, 0, 0, 8, 0]
}

/// What a description says, and the bytes of one element.
pub fn decode(bytes: &[u8]) -> Result<(Datatype, usize), String> {
    let short = || "describes a type in too few bytes".to_owned();
    let &[class, a, b, _, s0, s1, s2, s3, ref rest @ ..] = bytes else { return Err(short()) };
    let size = u32::from_le_bytes([s0, s1, s2, s3]) as usize;
    let swapped = a & 1 != 0;
    let number = |dtype: Option<DType>, what| match dtype {
        Some(dtype) => Datatype::Number { dtype, swapped: swapped && size > 1 },
        None => Datatype::Other(what),
    };
    let datatype = match class & 0x0f {
        0 => {
            let &[o0, o1, p0, p1, ..] = rest else { return Err(short()) };
            let whole = u16::from_le_bytes([o0, o1]) == 0 && usize::from(u16::from_le_bytes([p0, p1])) == size * 8;
            let dtype = match (size, a & SIGNED != 0) {
                (1, true) => Some(DType::Int8),
                (2, true) => Some(DType::Int16),
                (4, true) => Some(DType::Int32),
                (8, true) => Some(DType::Int64),
                (1, false) => Some(DType::UInt8),
                (2, false) => Some(DType::UInt16),
                (4, false) => Some(DType::UInt32),
                (8, false) => Some(DType::UInt64),
                _ => None,
            };
            number(dtype.filter(|_| whole), "integers of an unusual size")
        }
        1 => {
            let &[_, _, _, _, exponent, width, _, mantissa, ..] = rest else { return Err(short()) };
            let dtype = match (size, exponent, width, mantissa) {
                (2, 10, 5, 10) => Some(DType::Float16),
                (2, 7, 8, 7) => Some(DType::BFloat16),
                (4, 23, 8, 23) => Some(DType::Float32),
                (8, 52, 11, 52) => Some(DType::Float64),
                _ => None,
            };
            let vax = a & 0x40 != 0;
            number(dtype.filter(|_| !vax && usize::from(b) == size * 8 - 1), "real numbers of an unusual format")
        }
        3 => Datatype::Fixed(size),
        5 => Datatype::Opaque(size),
        8 if is_boolean(size, a, rest) => Datatype::Number { dtype: DType::Bool, swapped: false },
        8 => Datatype::Other("enumerated values"),
        9 if a & 0x0f == 1 => Datatype::Text,
        2 => Datatype::Other("times"),
        4 => Datatype::Other("bit fields"),
        6 => Datatype::Other("records"),
        7 => Datatype::Other("references"),
        9 => Datatype::Other("lists of any length"),
        10 => Datatype::Other("arrays"),
        _ => Datatype::Other("an unknown type"),
    };
    Ok((datatype, size))
}

/// h5py's booleans: an enumeration of FALSE and TRUE, whose names are padded in older versions.
fn is_boolean(size: usize, count: u8, rest: &[u8]) -> bool {
    let has = |members: &[u8]| rest.windows(members.len()).any(|window| window == members);
    size == 1 && count == 2 && (has(b"FALSE\0\0\0TRUE\0\0\0\0\0\x01") || has(b"FALSE\0TRUE\0\0\x01"))
}
