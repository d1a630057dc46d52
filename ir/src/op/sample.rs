//! Sampling at computed places.

use serde::{Deserialize, Serialize};

use super::{Operator, Slot, input};
use crate::graph::ValueInfo;
use crate::shape::{Dim, Shape};

/// What lies outside of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outside {
    /// Zeros.
    Zeros,
    /// The elements of the edge.
    Edge,
    /// The image mirrored at its border: at the corners' centres where they are aligned, else at their outer sides.
    Mirrored,
}

/// Samples of `x` `[N, C, in…]` at the places that `grid` `[N, out…, axes]` holds, -1 to 1 along each spatial axis, the
/// last axis first: `[N, C, out…]`. PyTorch's `F.grid_sample`; channels come first in every layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GridSample {
    /// Linear between elements; else the nearest, of two the even one.
    pub linear: bool,
    /// Places outside of the image.
    pub outside: Outside,
    /// Whether -1 and 1 are the centres of the corner elements; else their outer sides.
    pub align_corners: bool,
}

impl Operator for GridSample {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x", Data "grid"]
    }

    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let (x, grid) = (input(inputs, 0)?, input(inputs, 1)?);
        let rank = x.shape.rank();
        if !(4..=5).contains(&rank) || grid.shape.rank() != rank {
            return Err(format!("samples two or three spatial axes, got {} and a grid {}", x.shape, grid.shape));
        }
        if grid.shape[rank - 1].known().is_some_and(|axes| axes != rank - 2) {
            return Err(format!("a grid {} does not hold places in {}", grid.shape, x.shape));
        }
        if !x.dtype.is_float() || !grid.dtype.is_float() {
            return Err(format!("takes real numbers, got {} and {}", x.dtype, grid.dtype));
        }
        let space = grid.shape.iter().take(rank - 1).skip(1).cloned();
        let shape: Vec<Dim> = x.shape.iter().take(2).cloned().chain(space).collect();
        Ok(vec![ValueInfo::new(x.dtype, Shape(shape))])
    }
}
