//! Pooling. Global pooling is a [`Reduce`](super::Reduce) over the spatial axes.

use serde::{Deserialize, Serialize};

use super::{Operator, Pads, Slot, input};
use crate::graph::ValueInfo;
use crate::layout::Layout;
use crate::shape::{Dim, window_output};

/// What a window is reduced to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolKind {
    /// The largest element.
    Max,
    /// The mean.
    Avg,
}

/// Pooling over a sliding window. Padding never wins a maximum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// Maximum or mean.
    pub kind: PoolKind,
    /// Window, per spatial axis.
    pub kernel: Vec<usize>,
    /// Per spatial axis.
    pub strides: Vec<usize>,
    /// Per spatial axis.
    pub pads: Pads,
    /// Per spatial axis; 1 is dense.
    pub dilations: Vec<usize>,
    /// Round the output size up instead of down (PyTorch's rule).
    pub ceil_mode: bool,
    /// Whether a mean divides by the whole window at the border; TensorFlow's does not.
    pub count_include_pad: bool,
    /// Of the input and the output.
    pub layout: Layout,
}

impl Operator for Pool {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x"]
    }

    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let x = input(inputs, 0)?;
        let rank = x.shape.rank();
        if !(3..=5).contains(&rank) {
            return Err(format!("pooling takes rank 3 to 5, got {}", x.shape));
        }
        if [&self.kernel, &self.strides, &self.dilations].iter().any(|list| list.len() != rank - 2)
            || self.pads.0.len() != rank - 2
        {
            return Err(format!("kernel, strides, dilations and pads must be given for {} spatial axes", rank - 2));
        }
        let mut shape = x.shape.clone();
        for (i, axis) in self.layout.spatial_axes(rank).enumerate() {
            let (pads, size) = (self.pads.0[i], &x.shape[axis]);
            let (kernel, stride) = (self.kernel[i], self.strides[i]);
            shape[axis] = window_output(size, kernel, stride, self.dilations[i], pads, self.ceil_mode)?;
        }
        Ok(vec![ValueInfo::new(x.dtype, shape)])
    }
}

/// Pooling to a given output size: output `i` covers `floor(i * size / out) .. ceil((i + 1) * size / out)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdaptivePool {
    /// Maximum or mean.
    pub kind: PoolKind,
    /// Per spatial axis.
    pub output_size: Vec<usize>,
    /// Of the input and the output.
    pub layout: Layout,
}

impl Operator for AdaptivePool {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x"]
    }

    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let x = input(inputs, 0)?;
        let rank = x.shape.rank();
        if !(3..=5).contains(&rank) || self.output_size.len() != rank - 2 {
            return Err(format!("an output size {:?} does not fit the input {}", self.output_size, x.shape));
        }
        let mut shape = x.shape.clone();
        for (axis, &size) in self.layout.spatial_axes(rank).zip(&self.output_size) {
            shape[axis] = Dim::Known(size);
        }
        Ok(vec![ValueInfo::new(x.dtype, shape)])
    }
}
