//! `TensorProto`: raw bytes are left in the file, typed fields follow TensorFlow's rule that the last value repeats.

use std::io;
use std::sync::Arc;

use modelport_ir::tensor::{Storage, numel};
use modelport_ir::{DType, Tensor};

use super::graphdef::{TensorValue, dtype, known_shape, type_code};
use super::wire::{self, Field, Malformed, Reader, Span, Value};

/// Elements that a few values in a file may stand for.
const MAX_REPEATED: usize = 1 << 31;
/// Strings that a few strings in a file may stand for.
const MAX_STRINGS: usize = 1 << 16;
/// `DT_STRING`
pub(super) const STRING: i32 = 7;

/// A `TensorProto` whose elements were found but not read.
#[derive(Clone, Debug, Default)]
pub(super) struct Proto {
    /// The number in `types.proto`.
    pub code: i32,
    pub shape: Vec<usize>,
    /// `tensor_content`, unless it is empty.
    content: Option<Span>,
    message: Option<Span>,
}

/// Where the elements of a tensor are.
#[derive(Debug)]
pub(super) enum Elements {
    /// Little-endian in the source; as many as the shape has, or fewer.
    InPlace(Span),
    /// In a typed field that must be decoded.
    Encoded,
}

impl Proto {
    pub fn read(reader: &mut Reader, span: Span) -> wire::Result<Proto> {
        let mut proto = Proto { message: Some(span), ..Proto::default() };
        reader.fields(span, |reader, field| {
            match field.number {
                1 => proto.code = type_code(field.int()?),
                2 => proto.shape = known_shape(reader, field.span()?)?,
                4 => proto.content = Some(field.span()?).filter(|span| !span.is_empty()),
                _ => {}
            }
            Ok(())
        })?;
        Ok(proto)
    }

    fn malformed(&self, what: impl Into<String>) -> Malformed {
        Malformed::new(self.message.map_or(0, |span| span.start), what)
    }

    /// The element type, if modelport knows it, and the number of elements.
    pub fn kind(&self) -> wire::Result<Option<(DType, usize)>> {
        let Some(dtype) = dtype(self.code) else { return Ok(None) };
        let count =
            numel(&self.shape).filter(|n| n.checked_mul(dtype.size()).is_some_and(|b| b <= isize::MAX as usize));
        match count {
            Some(count) => Ok(Some((dtype, count))),
            None => Err(self.malformed(format!("a tensor of shape {:?} is too large", self.shape))),
        }
    }

    /// Finds the elements of a number tensor of this type and size.
    pub fn elements(&self, reader: &mut Reader, dtype: DType, count: usize) -> wire::Result<Elements> {
        let size = dtype.size() as u64;
        if let Some(content) = self.content {
            if content.len() != count as u64 * size {
                let (shape, len) = (&self.shape, content.len());
                return Err(self.malformed(format!("a {dtype} tensor of shape {shape:?} has {len} bytes")));
            }
            return Ok(Elements::InPlace(content));
        }
        if !matches!(dtype, DType::Float32 | DType::Float64) {
            return Ok(Elements::Encoded);
        }
        // Packed `float`s and `double`s lie in the file as in memory.
        let mut runs: Vec<Field> = Vec::new();
        self.values(reader, dtype, |_, field| {
            if runs.len() < 2 {
                runs.push(field);
            }
            Ok(())
        })?;
        match runs.as_slice() {
            [Field { value: Value::Bytes(span), .. }] if span.len() % size == 0 => {
                let end = span.end.min(span.start.saturating_add(count as u64 * size));
                Ok(Elements::InPlace(Span { start: span.start, end }))
            }
            _ => Ok(Elements::Encoded),
        }
    }

    /// Calls `each` with every occurrence of the typed field that holds elements of this type.
    fn values(
        &self,
        reader: &mut Reader,
        dtype: DType,
        mut each: impl FnMut(&mut Reader, Field) -> wire::Result<()>,
    ) -> wire::Result<()> {
        let number = match dtype {
            DType::Float32 => 5,
            DType::Float64 => 6,
            DType::Int8 | DType::Int16 | DType::Int32 | DType::UInt8 | DType::UInt16 => 7,
            DType::Int64 => 10,
            DType::Bool => 11,
            DType::Float16 | DType::BFloat16 => 13,
            DType::UInt32 => 16,
            DType::UInt64 => 17,
        };
        let Some(message) = self.message else { return Ok(()) };
        reader.fields(message, |reader, field| if field.number == number { each(reader, field) } else { Ok(()) })
    }

    /// Decodes the typed field: little-endian elements, at most `count`.
    pub fn decode(&self, reader: &mut Reader, dtype: DType, count: usize) -> wire::Result<Vec<u8>> {
        let size = dtype.size();
        let mut bytes = Vec::new();
        let limit = count * size;
        self.values(reader, dtype, |reader, field| {
            match field.value {
                Value::Fixed32(bits) if dtype == DType::Float32 => append(&mut bytes, &bits.to_le_bytes(), limit),
                Value::Fixed64(bits) if dtype == DType::Float64 => append(&mut bytes, &bits.to_le_bytes(), limit),
                _ if dtype.is_float() && size >= 4 => {
                    let packed = reader.bytes(field.span()?)?;
                    packed.chunks_exact(size).for_each(|element| append(&mut bytes, element, limit));
                }
                _ => reader.varints(field, |value| {
                    let value = if dtype == DType::Bool { u64::from(value != 0) } else { value };
                    append(&mut bytes, value.to_le_bytes().get(..size).unwrap_or_default(), limit);
                    Ok(())
                })?,
            }
            Ok(())
        })?;
        Ok(bytes)
    }

    /// The tensor of the elements in `storage`, which may be fewer than the shape has.
    pub fn tensor(&self, dtype: DType, count: usize, storage: Arc<dyn Storage>) -> wire::Result<Tensor> {
        let have = usize::try_from(storage.len()).unwrap_or(usize::MAX) / dtype.size();
        if have < count && count > MAX_REPEATED {
            return Err(self.malformed(format!("a constant of shape {:?} is too large", self.shape)));
        }
        let tensor = if have == count {
            Tensor::new(dtype, &self.shape, storage)
        } else if have < 2 {
            let one: Arc<dyn Storage> = if have == 1 { storage } else { Arc::new(vec![0; dtype.size()]) };
            Tensor::strided(dtype, &self.shape, &vec![0; self.shape.len()], 0, one)
        } else {
            Tensor::new(dtype, &self.shape, Arc::new(LastRepeats { values: storage, size: dtype.size(), count }))
        };
        tensor.map_err(|error| self.malformed(error))
    }

    fn strings(&self, reader: &mut Reader) -> wire::Result<TensorValue> {
        let mut values = Vec::new();
        let Some(count) = numel(&self.shape) else { return Err(self.malformed("a tensor of strings is too large")) };
        if let Some(message) = self.message {
            reader.fields(message, |reader, field| {
                if field.number == 8 && values.len() < count {
                    values.push(reader.bytes(field.span()?)?);
                }
                Ok(())
            })?;
        }
        if values.len() < count {
            if count > MAX_STRINGS {
                return Err(self.malformed(format!("a constant of shape {:?} is too large", self.shape)));
            }
            let last = values.last().cloned().unwrap_or_default();
            values.resize(count, last);
        }
        Ok(TensorValue::Strings { shape: self.shape.clone(), values })
    }
}

fn append(bytes: &mut Vec<u8>, more: &[u8], limit: usize) {
    let left = limit.saturating_sub(bytes.len());
    bytes.extend(more.iter().take(left));
}

/// Reads the value of a `tensor` attribute.
pub(super) fn read(reader: &mut Reader, span: Span) -> wire::Result<TensorValue> {
    let proto = Proto::read(reader, span)?;
    if proto.code == STRING {
        return proto.strings(reader);
    }
    let Some((dtype, count)) = proto.kind()? else { return Ok(TensorValue::Other(proto.code)) };
    let storage: Arc<dyn Storage> = match proto.elements(reader, dtype, count)? {
        Elements::InPlace(span) => reader.part(span),
        Elements::Encoded => Arc::new(proto.decode(reader, dtype, count)?),
    };
    Ok(TensorValue::Numbers(proto.tensor(dtype, count, storage)?))
}

/// `count` elements, of which the file has the first few: the last of those repeats.
#[derive(Debug)]
struct LastRepeats {
    values: Arc<dyn Storage>,
    size: usize,
    count: usize,
}

impl Storage for LastRepeats {
    fn len(&self) -> u64 {
        (self.count * self.size) as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let have = self.values.len();
        let direct = have.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let (head, tail) = buffer.split_at_mut(direct);
        self.values.read_at(offset, head)?;
        if !tail.is_empty() {
            let mut last = vec![0; self.size];
            self.values.read_at(have - self.size as u64, &mut last)?;
            // The tail need not start with a whole element.
            let phase = ((offset + direct as u64) % self.size as u64) as usize;
            for (byte, value) in tail.iter_mut().zip(last.iter().cycle().skip(phase)) {
                *byte = *value;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bytes: &[u8]) -> wire::Result<TensorValue> {
        let mut reader = Reader::new(Arc::new(bytes.to_vec()));
        let span = reader.whole();
        read(&mut reader, span)
    }

    fn numbers(bytes: &[u8]) -> (Vec<usize>, Vec<f64>) {
        match value(bytes) {
            Ok(TensorValue::Numbers(tensor)) => (tensor.shape(), tensor.to_f64().unwrap()),
            other => panic!("{other:?}"),
        }
    }

    /// `dtype`, `shape [n]`, then `rest`.
    fn proto(code: u8, n: u8, rest: &[u8]) -> Vec<u8> {
        [&[0x08, code, 0x12, 4, 0x12, 2, 0x08, n], rest].concat()
    }

    #[test]
    fn unpacked_and_packed_values() {
        assert_eq!(numbers(&proto(3, 3, &[0x38, 1, 0x3a, 2, 2, 3])).1, [1., 2., 3.]);
        assert_eq!(numbers(&proto(1, 2, &[0x2d, 0, 0, 0x80, 0x3f, 0x2d, 0, 0, 0, 0x40])).1, [1., 2.]);
        assert_eq!(numbers(&proto(1, 2, &[0x2a, 8, 0, 0, 0x80, 0x3f, 0, 0, 0, 0x40])).1, [1., 2.]);
        let minus_one = [0x3a, 10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(numbers(&proto(3, 1, &minus_one)).1, [-1.]);
        assert_eq!(numbers(&proto(6, 1, &minus_one)).1, [-1.]);
    }

    #[test]
    fn the_last_value_repeats() {
        assert_eq!(numbers(&proto(3, 5, &[0x3a, 2, 7, 8])).1, [7., 8., 8., 8., 8.]);
        assert_eq!(numbers(&proto(3, 3, &[0x3a, 1, 7])).1, [7., 7., 7.]);
        assert_eq!(numbers(&proto(3, 3, &[])).1, [0., 0., 0.]);
        assert_eq!(numbers(&proto(3, 0, &[])), (vec![0], vec![]));
        assert_eq!(numbers(&proto(3, 1, &[0x3a, 3, 1, 2, 3])).1, [1.]);
        let Ok(TensorValue::Numbers(tensor)) = value(&proto(1, 4, &[0x2a, 8, 0, 0, 0x80, 0x3f, 0, 0, 0, 0x40])) else {
            panic!()
        };
        assert_eq!(tensor.sliced(0, 1, 4).unwrap().to_f64().unwrap(), [2., 2., 2.]);
    }

    #[test]
    fn sizes_are_checked() {
        assert!(value(&proto(1, 2, &[0x22, 4, 0, 0, 0, 0])).unwrap_err().what.contains("has 4 bytes"));
        let huge = [0x08, 1, 0x12, 26, 0x12, 11, 0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0];
        let huge = [&huge[..16], &[0x12, 11], &huge[6..16], &[0]].concat();
        assert!(value(&huge).is_err());
        assert!(value(&[0x08, 1, 0x12, 9, 0x12, 7, 0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 1]).is_err());
    }

    #[test]
    fn other_types() {
        assert!(matches!(value(&proto(20, 1, &[])), Ok(TensorValue::Other(20))));
        let Ok(TensorValue::Strings { shape, values }) = value(&proto(7, 2, &[0x42, 1, b'x'])) else { panic!() };
        assert_eq!((shape, values), (vec![2], vec![b"x".to_vec(), b"x".to_vec()]));
    }
}
