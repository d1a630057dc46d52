//! Slices of partitioned variables, and the keys under which checkpoints of version 2 keep them.

use super::wire::{self, Reader, Span};

/// Start and length along one axis; no length means all.
pub(super) type Extent = (i64, Option<i64>);

/// Reads a `TensorSliceProto`.
pub(super) fn read(reader: &mut Reader, span: Span) -> wire::Result<Vec<Extent>> {
    let mut extents = Vec::new();
    reader.fields(span, |reader, field| {
        if field.number == 1 {
            let mut extent = (0, None);
            reader.fields(field.span()?, |_, field| {
                match field.number {
                    1 => extent.0 = field.int()?,
                    2 => extent.1 = Some(field.int()?),
                    _ => {}
                }
                Ok(())
            })?;
            extents.push(extent);
        }
        Ok(())
    })?;
    Ok(extents)
}

/// Start and shape of a slice of a tensor of `shape`; `None` if it does not fit.
pub(super) fn resolve(extents: &[Extent], shape: &[usize]) -> Option<(Vec<usize>, Vec<usize>)> {
    if extents.len() != shape.len() {
        return None;
    }
    let resolved = extents.iter().zip(shape).map(|(&(start, len), &size)| match len {
        None => Some((0, size)),
        Some(len) => {
            let (start, len) = (usize::try_from(start).ok()?, usize::try_from(len).ok()?);
            (start.checked_add(len)? <= size).then_some((start, len))
        }
    });
    resolved.collect::<Option<Vec<_>>>().map(|pairs| pairs.into_iter().unzip())
}

/// The key of a slice of the variable `name`: `EncodeTensorNameSlice` in `core/util/saved_tensor_slice_util.cc`, in
/// the notation of `core/lib/strings/ordered_code.cc`.
pub(super) fn key(name: &str, extents: &[Extent]) -> Vec<u8> {
    let mut key = vec![0];
    for byte in name.bytes() {
        match byte {
            0x00 => key.extend([0x00, 0xff]),
            0xff => key.extend([0xff, 0x00]),
            _ => key.push(byte),
        }
    }
    key.extend([0, 1]);
    let rank = (extents.len() as u64).to_be_bytes();
    let digits = rank.iter().skip_while(|byte| **byte == 0);
    key.push(digits.clone().count() as u8);
    key.extend(digits);
    for &(start, len) in extents {
        push_signed(start, &mut key);
        push_signed(len.unwrap_or(-1), &mut key);
    }
    key
}

/// A number in as few bytes as it needs, 7 bits each less one for the sign; as many leading ones as bytes (zeros for
/// a negative number) tell how many.
fn push_signed(value: i64, key: &mut Vec<u8>) {
    let magnitude = if value < 0 { !value } else { value } as u64;
    let len = (u64::BITS - magnitude.leading_zeros()) as usize / 7 + 1;
    let mut bytes = [if value < 0 { 0xff } else { 0 }; 10];
    bytes[2..].copy_from_slice(&value.to_be_bytes());
    let ones = !(u16::MAX.checked_shr(len as u32).unwrap_or(0));
    let [high, low] = ones.to_be_bytes();
    let digits = bytes.get_mut(10 - len..).unwrap_or_default();
    if let Some(first) = digits.first_mut() {
        *first ^= high;
    }
    if let Some(second) = digits.get_mut(1) {
        *second ^= low;
    }
    key.extend_from_slice(digits);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(value: i64) -> Vec<u8> {
        let mut key = Vec::new();
        push_signed(value, &mut key);
        key
    }

    #[test]
    fn numbers_are_those_of_ordered_code() {
        assert_eq!(signed(0), [0x80]);
        assert_eq!(signed(2), [0x82]);
        assert_eq!(signed(-1), [0x7f]);
        assert_eq!(signed(63), [0xbf]);
        assert_eq!(signed(-64), [0x40]);
        assert_eq!(signed(64), [0xc0, 0x40]);
        assert_eq!(signed(-65), [0x3f, 0xbf]);
        assert_eq!(signed(8191), [0xdf, 0xff]);
        assert_eq!(signed(8192), [0xe0, 0x20, 0x00]);
        assert_eq!(signed(i64::MAX), [0xff, 0xc0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(signed(i64::MIN), [0x00, 0x3f, 0x80, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn keys_sort_like_their_numbers() {
        let numbers =
            [i64::MIN, -1 << 40, -70_000, -8193, -8192, -65, -64, -1, 0, 1, 63, 64, 8191, 8192, 1 << 20, i64::MAX];
        assert!(numbers.windows(2).all(|pair| signed(pair[0]) < signed(pair[1])));
    }

    #[test]
    fn keys_of_slices() {
        let want = b"\0w\0\x01\x01\x02\x80\x82\x80\x7f";
        assert_eq!(key("w", &[(0, Some(2)), (0, None)]), want);
    }

    #[test]
    fn slices_must_fit() {
        assert_eq!(resolve(&[(1, Some(2)), (0, None)], &[3, 4]), Some((vec![1, 0], vec![2, 4])));
        assert_eq!(resolve(&[(2, Some(2))], &[3]), None);
        assert_eq!(resolve(&[(-1, Some(2))], &[3]), None);
        assert_eq!(resolve(&[(i64::MAX, Some(i64::MAX))], &[3]), None);
        assert_eq!(resolve(&[], &[3]), None);
    }
}
