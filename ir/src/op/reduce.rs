//! Reductions: sums and the like over axes, positions of extremes, the largest k.

use serde::{Deserialize, Serialize};

use super::{Operator, Slot, check_axis, input};
use crate::graph::ValueInfo;
use crate::shape::{Dim, Shape};
use crate::tensor::DType;

/// What is done to the elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum ReduceKind {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
    /// Logical and.
    All,
    /// Logical or.
    Any,
    /// Root of the sum of squares.
    L2,
    LogSumExp,
}

/// A reduction over axes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reduce {
    /// What is done.
    pub kind: ReduceKind,
    /// Sorted, without repeats. None means that nothing is reduced.
    pub axes: Vec<usize>,
    /// Whether the axes stay, with size 1.
    pub keep_dims: bool,
}

impl Operator for Reduce {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let x = input(inputs, 0)?;
        Ok(vec![ValueInfo::new(x.dtype, reduced(&x.shape, &self.axes, self.keep_dims)?)])
    }
}

fn reduced(shape: &Shape, axes: &[usize], keep_dims: bool) -> Result<Shape, String> {
    for &axis in axes {
        check_axis(axis, shape.rank())?;
    }
    let keep = |(axis, dim): (usize, &Dim)| match (axes.contains(&axis), keep_dims) {
        (false, _) => Some(dim.clone()),
        (true, true) => Some(Dim::Known(1)),
        (true, false) => None,
    };
    Ok(shape.iter().enumerate().filter_map(keep).collect())
}

/// Which extreme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Extreme {
    Max,
    Min,
}

/// The position of the first largest or smallest element along an axis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArgReduce {
    /// Which.
    pub kind: Extreme,
    /// Along which axis.
    pub axis: usize,
    /// Whether the axis stays, with size 1.
    pub keep_dims: bool,
    /// Element type of the result.
    pub dtype: DType,
}

impl Operator for ArgReduce {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let x = input(inputs, 0)?;
        Ok(vec![ValueInfo::new(self.dtype, reduced(&x.shape, &[self.axis], self.keep_dims)?)])
    }
}

/// The `k` largest elements along the last axis, sorted from the largest. Outputs: values, positions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopK {
    /// How many.
    pub k: usize,
    /// Element type of the positions.
    pub index_dtype: DType,
}

impl Operator for TopK {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let x = input(inputs, 0)?;
        let mut shape = x.shape.clone();
        match shape.last_mut() {
            Some(last) if last.known().is_none_or(|size| self.k <= size) => *last = Dim::Known(self.k),
            _ => return Err(format!("there are no {} largest elements in the last axis of {}", self.k, x.shape)),
        }
        Ok(vec![ValueInfo::new(x.dtype, shape.clone()), ValueInfo::new(self.index_dtype, shape)])
    }
}
