//! `StridedSlice`: NumPy's indexing as TensorFlow writes it, with bit masks.

use modelport_ir::{Dim, Shape, op};

use super::graphdef::NodeDef;
use crate::symbolic::Elem;

/// A strided slice in three steps: a slice of every axis, then axes that go, then axes that come.
#[derive(Clone, Debug, PartialEq)]
pub struct Strided {
    /// The slice.
    pub slice: op::Slice,
    /// Axes (of the sliced value) that are indexed by one number.
    pub squeeze: Vec<usize>,
    /// New axes (of the result).
    pub unsqueeze: Vec<usize>,
}

impl Strided {
    /// Reads the masks of `node` for an input of this shape.
    ///
    /// # Errors
    /// When an index is not known, or there are more than axes.
    pub fn new(
        node: &NodeDef,
        begins: &[Elem],
        ends: &[Elem],
        steps: &[Elem],
        shape: &Shape,
        dims: &[Elem],
    ) -> Result<Strided, String> {
        let mask = |name: &str| node.int(name).unwrap_or(0);
        let (begin_mask, end_mask, shrink) = (mask("begin_mask"), mask("end_mask"), mask("shrink_axis_mask"));
        let (ellipsis, new_axis) = (mask("ellipsis_mask"), mask("new_axis_mask"));
        let bit = |mask: i64, i: usize| i < 63 && mask & (1 << i) != 0;
        let count = begins.len();
        if ends.len() != count || steps.len() != count {
            return Err(format!("begin, end and strides have {count}, {} and {} elements", ends.len(), steps.len()));
        }
        let rank = shape.rank();
        let ellipsis_at = (0..count).find(|&i| bit(ellipsis, i));
        let taken = (0..count).filter(|&i| !bit(new_axis, i) && Some(i) != ellipsis_at).count();
        let Some(rest) = rank.checked_sub(taken) else {
            return Err(format!("{taken} indices for a value of shape {shape}"));
        };

        let mut slice = op::Slice::all(rank);
        let (mut squeeze, mut unsqueeze) = (Vec::new(), Vec::new());
        let (mut axis, mut place) = (0, 0);
        for (i, ((begin, end), step)) in begins.iter().zip(ends).zip(steps).enumerate() {
            if Some(i) == ellipsis_at {
                axis += rest;
                place += rest;
                continue;
            }
            if bit(new_axis, i) {
                unsqueeze.push(place);
                place += 1;
                continue;
            }
            let unknown = || format!("the index of axis {axis} is not known at conversion time");
            let dim = dims.get(axis);
            let (Some(first), Some(last), Some(stride)) =
                (slice.begins.get_mut(axis), slice.ends.get_mut(axis), slice.steps.get_mut(axis))
            else {
                return Err(format!("{taken} indices for a value of shape {shape}"));
            };
            if bit(shrink, i) {
                let index = begin.int().ok_or_else(unknown)?;
                let size = shape.get(axis).and_then(Dim::known).map(|size| size as i64);
                if size.is_some_and(|size| index >= size || index < -size) {
                    return Err(format!("index {index} is outside of axis {axis} of {shape}"));
                }
                *first = index;
                *last = if index == -1 { op::Slice::OPEN } else { index.saturating_add(1) };
                squeeze.push(axis);
                axis += 1;
                continue;
            }
            *stride = step.int().filter(|&step| step != 0).ok_or_else(unknown)?;
            *first = match (bit(begin_mask, i), *stride > 0) {
                (true, true) => 0,
                (true, false) => -1,
                (false, _) => begin.int().ok_or_else(unknown)?,
            };
            *last = match end {
                _ if bit(end_mask, i) => op::Slice::OPEN,
                end if Some(end) == dim && *stride > 0 => op::Slice::OPEN,
                end => {
                    let end = end.int().ok_or_else(unknown)?;
                    let size = shape.get(axis).and_then(Dim::known).map(|size| size as i64);
                    match size {
                        Some(size) if *stride > 0 && end >= size => op::Slice::OPEN,
                        Some(size) if *stride < 0 && end < -size => op::Slice::OPEN,
                        None if *stride > 0 && end >= i64::from(i32::MAX) => op::Slice::OPEN,
                        _ => end,
                    }
                }
            };
            axis += 1;
            place += 1;
        }
        // Without an ellipsis the axes that are left are taken whole.
        Ok(Strided { slice, squeeze, unsqueeze })
    }

    /// Whether every axis is taken whole.
    pub fn takes_all(&self) -> bool {
        (0..self.slice.begins.len()).all(|axis| self.slice.takes_all(axis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensorflow::testing::node;

    fn strided(attrs: &str, begin: &[i64], end: &[i64], step: &[i64], shape: &[usize]) -> Strided {
        let list = |ints: &[i64]| ints.iter().map(|&i| Elem::Int(i)).collect::<Vec<_>>();
        let shape = Shape::known(shape);
        let node = node(&format!("s = StridedSlice() | {attrs}"));
        Strided::new(&node, &list(begin), &list(end), &list(step), &shape, &[]).unwrap()
    }

    #[test]
    fn masks() {
        // x[..., 1:, newaxis, -1] of rank 4
        let s = strided(
            "ellipsis_mask=1 new_axis_mask=4 shrink_axis_mask=8 end_mask=2",
            &[0, 1, 0, -1],
            &[0; 4],
            &[1; 4],
            &[2, 3, 4, 5],
        );
        assert_eq!(
            (s.slice.begins, s.slice.ends[2], s.slice.ends[3]),
            (vec![0, 0, 1, -1], op::Slice::OPEN, op::Slice::OPEN)
        );
        assert_eq!((s.squeeze, s.unsqueeze), (vec![3], vec![3]));
        // x[::-1, 0, None]
        let s = strided(
            "begin_mask=1 end_mask=1 shrink_axis_mask=2 new_axis_mask=4",
            &[0; 3],
            &[0; 3],
            &[-1, 1, 1],
            &[2, 3],
        );
        assert_eq!((s.slice.begins, s.slice.steps), (vec![-1, 0], vec![-1, 1]));
        assert_eq!((s.squeeze, s.unsqueeze), (vec![1], vec![1]));
        assert!(strided("", &[0], &[9], &[1], &[5, 2]).takes_all());
    }
}
