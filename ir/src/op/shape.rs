//! Operators that move elements without computing: reshape, transpose, concat, slices, pads, gathers.

use serde::{Deserialize, Serialize};

use super::io::check_like;
use super::{Operator, Pads, Slot, check_axis, input};
use crate::graph::ValueInfo;
use crate::shape::{Dim, Shape, broadcast};
use crate::tensor::DType;

fn one(dtype: DType, shape: Shape) -> Result<Vec<ValueInfo>, String> {
    Ok(vec![ValueInfo::new(dtype, shape)])
}

/// Another shape of as many elements, in C order. One dimension may be unknown: it takes the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reshape {
    /// The new shape; symbols are those of the input.
    pub shape: Shape,
}

impl Operator for Reshape {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let x = input(inputs, 0)?;
        let total = x.shape.numel();
        let mut shape = self.shape.clone();
        let open = shape.iter().filter(|dim| **dim == Dim::Unknown).count();
        if open > 1 {
            return Err(format!("the shape {shape} has more than one unknown dimension"));
        }
        let given = shape.iter().filter(|dim| **dim != Dim::Unknown).fold(Dim::Known(1), |p, dim| p.times(dim));
        if let Some(dim) = shape.iter_mut().find(|dim| **dim == Dim::Unknown) {
            *dim = total.divided_by(&given);
            let impossible = match (&total, &given) {
                (Dim::Known(_), Dim::Known(_)) => *dim == Dim::Unknown,
                _ => false,
            };
            if impossible {
                return Err(format!("{} does not reshape to {}", x.shape, self.shape));
            }
        } else if let (Dim::Known(have), Dim::Known(want)) = (&total, &given)
            && have != want
        {
            return Err(format!("{} has {have} elements, {shape} has {want}", x.shape));
        }
        one(x.dtype, shape)
    }
}

/// Reorders axes: `out.shape[i] = x.shape[perm[i]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transpose {
    /// The permutation.
    pub perm: Vec<usize>,
}

impl Operator for Transpose {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let x = input(inputs, 0)?;
        let mut sorted = self.perm.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..x.shape.rank()) {
            return Err(format!("{:?} is no permutation of the axes of {}", self.perm, x.shape));
        }
        one(x.dtype, x.shape.permuted(&self.perm))
    }
}

/// Removes axes of size 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Squeeze {
    /// The axes, sorted.
    pub axes: Vec<usize>,
}

impl Operator for Squeeze {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let x = input(inputs, 0)?;
        for &axis in &self.axes {
            check_axis(axis, x.shape.rank())?;
            if x.shape[axis].known().is_some_and(|size| size != 1) {
                return Err(format!("axis {axis} of {} has not size 1", x.shape));
            }
        }
        let kept = x.shape.iter().enumerate().filter(|(axis, _)| !self.axes.contains(axis));
        one(x.dtype, kept.map(|(_, dim)| dim.clone()).collect())
    }
}

/// Inserts axes of size 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsqueeze {
    /// The places of the new axes in the result, sorted.
    pub axes: Vec<usize>,
}

impl Operator for Unsqueeze {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let x = input(inputs, 0)?;
        let mut shape = x.shape.clone();
        for &axis in &self.axes {
            check_axis(axis, shape.rank() + 1)?;
            shape.insert(axis, Dim::Known(1));
        }
        one(x.dtype, shape)
    }
}

/// Joins values along an axis. The same value may occur several times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concat {
    /// The axis.
    pub axis: usize,
}

impl Operator for Concat {
    fn slots(&self) -> &'static [Slot] {
        slots![Variadic "x"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let first = input(inputs, 0)?;
        let mut shape = first.shape.clone();
        check_axis(self.axis, shape.rank())?;
        let mut total = shape[self.axis].clone();
        for index in 1..inputs.len() {
            let next = input(inputs, index)?;
            if next.shape.rank() != shape.rank() {
                return Err(format!("{} and {} differ in rank", first.shape, next.shape));
            }
            total = total.plus(&next.shape[self.axis]);
            for axis in (0..shape.rank()).filter(|&axis| axis != self.axis) {
                match (&shape[axis], &next.shape[axis]) {
                    (Dim::Known(a), Dim::Known(b)) if a != b => {
                        return Err(format!("{} and {} differ on axis {axis}", first.shape, next.shape));
                    }
                    (Dim::Known(_), _) => {}
                    (_, dim) if *dim != Dim::Unknown => shape[axis] = dim.clone(),
                    _ => {}
                }
            }
        }
        shape[self.axis] = total;
        one(first.dtype, shape)
    }
}

/// Cuts a value into parts along an axis. One output per part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// The axis.
    pub axis: usize,
    /// The parts' sizes.
    pub sizes: Vec<usize>,
}

impl Operator for Split {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let x = input(inputs, 0)?;
        check_axis(self.axis, x.shape.rank())?;
        let total = self.sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(size));
        if x.shape[self.axis].known().is_some_and(|size| Some(size) != total) {
            return Err(format!("parts {:?} do not add up to axis {} of {}", self.sizes, self.axis, x.shape));
        }
        let part = |&size: &usize| {
            let mut shape = x.shape.clone();
            shape[self.axis] = Dim::Known(size);
            ValueInfo::new(x.dtype, shape)
        };
        Ok(self.sizes.iter().map(part).collect())
    }
}

/// Joins values along a new axis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pack {
    /// The new axis, in the result.
    pub axis: usize,
}

impl Operator for Pack {
    fn slots(&self) -> &'static [Slot] {
        slots![Variadic "x"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let first = input(inputs, 0)?;
        for index in 1..inputs.len() {
            let next = input(inputs, index)?;
            if next.shape.rank() != first.shape.rank() {
                return Err(format!("{} and {} differ in rank", first.shape, next.shape));
            }
        }
        let mut shape = first.shape.clone();
        check_axis(self.axis, shape.rank() + 1)?;
        shape.insert(self.axis, Dim::Known(inputs.len()));
        one(first.dtype, shape)
    }
}

/// Cuts a value into its slices along an axis, which goes. One output per slice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpack {
    /// The axis.
    pub axis: usize,
    /// Its size.
    pub count: usize,
}

impl Operator for Unpack {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let x = input(inputs, 0)?;
        check_axis(self.axis, x.shape.rank())?;
        let mut shape = x.shape.clone();
        let dim = shape.remove(self.axis);
        if dim.known().is_some_and(|size| size != self.count) {
            return Err(format!("axis {} of {} has not {} slices", self.axis, x.shape, self.count));
        }
        Ok(vec![ValueInfo::new(x.dtype, shape); self.count])
    }
}

/// A strided range of every axis, as Python's `x[begin:end:step, …]`: negative numbers count from the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// First element, per axis.
    pub begins: Vec<i64>,
    /// Where it ends (exclusive), per axis; [`Slice::OPEN`] for "to the very end" in the direction of the step.
    pub ends: Vec<i64>,
    /// Step, per axis; may be negative, never 0.
    pub steps: Vec<i64>,
}

impl Slice {
    /// An end that is left out (`x[begin:]`).
    pub const OPEN: i64 = i64::MAX;

    /// A slice that takes everything of `rank` axes.
    pub fn all(rank: usize) -> Self {
        Slice { begins: vec![0; rank], ends: vec![Slice::OPEN; rank], steps: vec![1; rank] }
    }

    /// Whether it takes everything of an axis.
    pub fn takes_all(&self, axis: usize) -> bool {
        self.begins.get(axis) == Some(&0)
            && self.ends.get(axis) == Some(&Slice::OPEN)
            && self.steps.get(axis) == Some(&1)
    }

    /// First index and number of elements on an axis of `size` elements.
    pub fn resolve(&self, axis: usize, size: usize) -> (usize, usize) {
        let (Some(&begin), Some(&end), Some(&step)) =
            (self.begins.get(axis), self.ends.get(axis), self.steps.get(axis))
        else {
            return (0, size);
        };
        let n = i64::try_from(size).unwrap_or(i64::MAX);
        let absolute = |i: i64| if i < 0 { i.saturating_add(n) } else { i };
        if step >= 0 {
            let begin = absolute(begin).clamp(0, n);
            let end = if end == Slice::OPEN { n } else { absolute(end).clamp(0, n) };
            let count = (end - begin).max(0) as usize;
            (begin as usize, count.div_ceil(step.max(1) as usize))
        } else {
            let begin = absolute(begin).clamp(-1, n - 1);
            let end = if end == Slice::OPEN { -1 } else { absolute(end).clamp(-1, n - 1) };
            let count = (begin - end).max(0) as usize;
            (begin.max(0) as usize, count.div_ceil(step.unsigned_abs() as usize))
        }
    }
}

impl Operator for Slice {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let x = input(inputs, 0)?;
        let rank = x.shape.rank();
        if [&self.begins, &self.ends, &self.steps].iter().any(|list| list.len() != rank) || self.steps.contains(&0) {
            return Err(format!("a slice of {} axes with steps {:?} of {}", self.begins.len(), self.steps, x.shape));
        }
        let size = |(axis, dim): (usize, &Dim)| match dim {
            dim if self.takes_all(axis)
                || (self.begins[axis], self.ends[axis], self.steps[axis]) == (-1, Slice::OPEN, -1) =>
            {
                dim.clone()
            }
            Dim::Known(size) => Dim::Known(self.resolve(axis, *size).1),
            // A range that lies within any size that is large enough.
            _ if self.steps[axis] > 0
                && self.begins[axis] >= 0
                && self.ends[axis] >= 0
                && self.ends[axis] != Slice::OPEN =>
            {
                Dim::Known(self.resolve(axis, self.ends[axis] as usize).1)
            }
            _ if self.steps[axis] > 0
                && self.begins[axis] < 0
                && (self.ends[axis] < 0 || self.ends[axis] == Slice::OPEN) =>
            {
                Dim::Known(self.resolve(axis, self.begins[axis].unsigned_abs() as usize).1)
            }
            _ => Dim::Unknown,
        };
        one(x.dtype, x.shape.iter().enumerate().map(size).collect())
    }
}

/// What padding is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PadMode {
    /// One number.
    Constant,
    /// Mirrored without the edge: `c b | a b c | b a`.
    Reflect,
    /// Mirrored with the edge: `b a | a b c | c b`.
    Symmetric,
    /// The edge repeated.
    Edge,
}

/// Adds elements before and after every axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pad {
    /// Per axis.
    pub pads: Pads,
    /// What of.
    pub mode: PadMode,
    /// The number for [`PadMode::Constant`].
    pub value: f32,
}

impl Operator for Pad {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let x = input(inputs, 0)?;
        if self.pads.0.len() != x.shape.rank() {
            return Err(format!("pads for {} axes do not fit {}", self.pads.0.len(), x.shape));
        }
        let grow = |(dim, &(before, after)): (&Dim, &(usize, usize))| match before.checked_add(after) {
            Some(0) => dim.clone(),
            Some(more) if dim.known().is_some() => dim.plus(&Dim::Known(more)),
            _ => Dim::Unknown,
        };
        one(x.dtype, x.shape.iter().zip(&self.pads.0).map(grow).collect())
    }
}

/// Repeats a value along its axes. Free counts are dimensions of the `like` input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tile {
    /// How often, per axis.
    pub repeats: Shape,
}

impl Operator for Tile {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x", Like "like"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let x = input(inputs, 0)?;
        check_like(&self.repeats, inputs, 1)?;
        if self.repeats.rank() != x.shape.rank() {
            return Err(format!("repeats {} do not fit {}", self.repeats, x.shape));
        }
        one(x.dtype, x.shape.iter().zip(self.repeats.iter()).map(|(dim, times)| dim.times(times)).collect())
    }
}

/// Broadcasts a value to a shape. Free dimensions are those of the `like` input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expand {
    /// The new shape.
    pub shape: Shape,
}

impl Operator for Expand {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x", Like "like"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let x = input(inputs, 0)?;
        check_like(&self.shape, inputs, 1)?;
        one(x.dtype, broadcast(&x.shape, &self.shape)?)
    }
}

/// Picks slices of `x` along `axis` by `indices`: the axis is replaced by the axes of `indices` (less the first
/// `batch_dims`, which both share). With a table that is a weight, axis 0 and no shared axes it is an embedding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gather {
    /// The axis of `x`.
    pub axis: usize,
    /// Number of leading axes that both share.
    pub batch_dims: usize,
}

impl Operator for Gather {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x", Data "indices"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let (x, indices) = (input(inputs, 0)?, input(inputs, 1)?);
        check_axis(self.axis, x.shape.rank())?;
        if self.batch_dims > self.axis || self.batch_dims > indices.shape.rank() {
            return Err(format!("{} shared axes with {} and {}", self.batch_dims, x.shape, indices.shape));
        }
        let mut shape = x.shape.clone();
        shape.splice(self.axis..=self.axis, indices.shape[self.batch_dims..].iter().cloned());
        one(x.dtype, shape)
    }
}

/// Picks elements or slices of `x` by index tuples in the last axis of `indices`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatherNd {}

impl Operator for GatherNd {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x", Data "indices"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let (x, indices) = (input(inputs, 0)?, input(inputs, 1)?);
        let depth = indices.shape.last().and_then(Dim::known).filter(|&depth| depth <= x.shape.rank());
        let depth = depth.ok_or_else(|| format!("indices {} do not fit {}", indices.shape, x.shape))?;
        let lead = &indices.shape[..indices.shape.rank() - 1];
        one(x.dtype, lead.iter().chain(&x.shape[depth..]).cloned().collect())
    }
}

/// A new axis with `on` at the index that an element says and `off` elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OneHot {
    /// Size of the new axis.
    pub depth: usize,
    /// The new axis, in the result.
    pub axis: usize,
    /// The number at the index.
    pub on: f32,
    /// The number elsewhere.
    pub off: f32,
    /// Element type of the result.
    pub dtype: DType,
}

impl Operator for OneHot {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "indices"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let mut shape = input(inputs, 0)?.shape.clone();
        check_axis(self.axis, shape.rank() + 1)?;
        shape.insert(self.axis, Dim::Known(self.depth));
        one(self.dtype, shape)
    }
}

/// Reverses the order along axes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reverse {
    /// The axes.
    pub axes: Vec<usize>,
}

impl Operator for Reverse {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let x = input(inputs, 0)?;
        for &axis in &self.axes {
            check_axis(axis, x.shape.rank())?;
        }
        one(x.dtype, x.shape.clone())
    }
}
