//! Blocks that move between space and depth.

use serde::{Deserialize, Serialize};

use super::{Operator, Slot, input};
use crate::graph::ValueInfo;
use crate::layout::Layout;
use crate::shape::{Dim, Shape};

fn check_rank(x: &ValueInfo, block: usize) -> Result<(), String> {
    if x.shape.rank() == 4 && block > 0 {
        Ok(())
    } else {
        Err(format!("takes rank 4 and a block of at least 1, got {} and {block}", x.shape))
    }
}

/// Moves blocks of space into depth: output channel `(by * block + bx) * channels + c`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceToDepth {
    /// Side of a block.
    pub block: usize,
    /// Whether the channel comes first instead: `c * block² + by * block + bx` (PyTorch's pixel unshuffle).
    pub channel_major: bool,
    /// Of the input and the output.
    pub layout: Layout,
}

impl Operator for SpaceToDepth {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let x = input(inputs, 0)?;
        check_rank(x, self.block)?;
        let block = Dim::Known(self.block);
        let shape = resampled(x, self.layout, |space| space.divided_by(&block), |c| c.times(&block).times(&block))?;
        Ok(vec![ValueInfo::new(x.dtype, shape)])
    }
}

/// Moves depth into blocks of space: the inverse of [`SpaceToDepth`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DepthToSpace {
    /// Side of a block.
    pub block: usize,
    /// Whether the channel comes first in the depth (PyTorch's pixel shuffle).
    pub channel_major: bool,
    /// Of the input and the output.
    pub layout: Layout,
}

impl Operator for DepthToSpace {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let x = input(inputs, 0)?;
        check_rank(x, self.block)?;
        let block = Dim::Known(self.block);
        let area = block.times(&block);
        let shape = resampled(x, self.layout, |space| space.times(&block), |c| c.divided_by(&area))?;
        Ok(vec![ValueInfo::new(x.dtype, shape)])
    }
}

fn resampled(
    x: &ValueInfo,
    layout: Layout,
    space: impl Fn(&Dim) -> Dim,
    depth: impl Fn(&Dim) -> Dim,
) -> Result<Shape, String> {
    let channel = layout.channel_axis(4);
    let mut shape = x.shape.clone();
    for (axis, dim) in shape.iter_mut().enumerate().skip(1) {
        let new = if axis == channel { depth(dim) } else { space(dim) };
        if dim.known().is_some() && new.known().is_none() {
            return Err(format!("axis {axis} of {} does not divide into blocks", x.shape));
        }
        *dim = new;
    }
    Ok(shape)
}
