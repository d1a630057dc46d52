//! Convolution and its transpose, in 1 to 3 dimensions.

use serde::{Deserialize, Serialize};

use super::{Operator, Pads, Slot, input, optional};
use crate::graph::ValueInfo;
use crate::layout::Layout;
use crate::shape::{Dim, Shape, window_output};

/// Convolution (cross-correlation). Inputs: `x`; `weights` `[spatial…, in / groups, out]` whatever the layout of `x`;
/// `bias` `[out]`. Depthwise convolution has as many groups as input channels; output channel `o` of group `g` is
/// `g * (out / groups) + o`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conv {
    /// Per spatial axis.
    pub strides: Vec<usize>,
    /// Zeros per spatial axis.
    pub pads: Pads,
    /// Per spatial axis; 1 is dense.
    pub dilations: Vec<usize>,
    /// Number of groups.
    pub groups: usize,
    /// Of `x` and the output.
    pub layout: Layout,
}

impl Operator for Conv {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x", Param "weights", OptionalParam "bias"]
    }

    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let (x, w) = (input(inputs, 0)?, input(inputs, 1)?);
        let spatial = spatial_rank(x, w, &[&self.strides, &self.dilations], &self.pads)?;
        let channel = self.layout.channel_axis(x.shape.rank());
        let (per_group, out) = (&w.shape[spatial], &w.shape[spatial + 1]);
        if let (Dim::Known(have), Dim::Known(per_group)) = (&x.shape[channel], per_group)
            && (self.groups == 0 || *have != per_group.saturating_mul(self.groups))
        {
            return Err(format!(
                "weights {} with {} groups do not take {have} channels on axis {channel}",
                w.shape, self.groups
            ));
        }
        if out.known().is_some_and(|out| out % self.groups.max(1) != 0) {
            return Err(format!("{out} output channels do not divide into {} groups", self.groups));
        }
        check_bias(inputs, out)?;
        let mut shape = x.shape.clone();
        shape[channel] = out.clone();
        for (i, axis) in self.layout.spatial_axes(x.shape.rank()).enumerate() {
            let kernel = w.shape[i].known().ok_or("the kernel's size is not known")?;
            let size = &x.shape[axis];
            shape[axis] = window_output(size, kernel, self.strides[i], self.dilations[i], self.pads.0[i], false)?;
        }
        Ok(vec![ValueInfo::new(x.dtype, shape)])
    }
}

/// Transposed convolution: the gradient of a [`Conv`] with respect to its input. Inputs: `x`; `weights`
/// `[spatial…, out / groups, in]`; `bias` `[out]`. Per spatial axis the output has
/// `(size - 1) * stride - before - after + dilation * (kernel - 1) + 1 + output_padding` elements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConvTranspose {
    /// Per spatial axis.
    pub strides: Vec<usize>,
    /// Elements cut off the full result, per spatial axis.
    pub pads: Pads,
    /// Elements appended after the result, per spatial axis.
    pub output_padding: Vec<usize>,
    /// Per spatial axis.
    pub dilations: Vec<usize>,
    /// Number of groups.
    pub groups: usize,
    /// Of `x` and the output.
    pub layout: Layout,
}

impl Operator for ConvTranspose {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x", Param "weights", OptionalParam "bias"]
    }

    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let (x, w) = (input(inputs, 0)?, input(inputs, 1)?);
        let spatial = spatial_rank(x, w, &[&self.strides, &self.dilations, &self.output_padding], &self.pads)?;
        let channel = self.layout.channel_axis(x.shape.rank());
        if let (Dim::Known(have), Dim::Known(want)) = (&x.shape[channel], &w.shape[spatial + 1])
            && (have != want || self.groups == 0 || want % self.groups != 0)
        {
            return Err(format!("weights {} with {} groups do not take {have} channels", w.shape, self.groups));
        }
        let out = w.shape[spatial].times(&Dim::Known(self.groups));
        check_bias(inputs, &out)?;
        let mut shape = x.shape.clone();
        shape[channel] = out;
        for (i, axis) in self.layout.spatial_axes(x.shape.rank()).enumerate() {
            let kernel = w.shape[i].known().ok_or("the kernel's size is not known")?;
            let (before, after) = self.pads.0[i];
            let grow = kernel.saturating_sub(1).saturating_mul(self.dilations[i]);
            let full = x.shape[axis].known().and_then(|size| {
                let moved = size.checked_sub(1)?.checked_mul(self.strides[i])?;
                moved.checked_add(grow)?.checked_add(1)?.checked_add(self.output_padding[i])
            });
            shape[axis] = match full {
                Some(full) => match full.checked_sub(before.saturating_add(after)) {
                    Some(size) => Dim::Known(size),
                    None => return Err(format!("pads ({before}, {after}) exceed the output")),
                },
                // Only the exact multiple of a free size has a name.
                None if grow.saturating_add(1).saturating_add(self.output_padding[i])
                    == self.strides[i].saturating_add(before).saturating_add(after) =>
                {
                    x.shape[axis].times(&Dim::Known(self.strides[i]))
                }
                None => Dim::Unknown,
            };
        }
        Ok(vec![ValueInfo::new(x.dtype, shape)])
    }
}

fn spatial_rank(x: &ValueInfo, w: &ValueInfo, lists: &[&[usize]], pads: &Pads) -> Result<usize, String> {
    let rank = x.shape.rank();
    if !(3..=5).contains(&rank) {
        return Err(format!("a convolution takes rank 3 to 5, got {}", x.shape));
    }
    if w.shape.rank() != rank {
        return Err(format!("the weights have shape {}, expected rank {rank}", w.shape));
    }
    let spatial = rank - 2;
    if lists.iter().any(|list| list.len() != spatial) || pads.0.len() != spatial {
        return Err(format!("strides, dilations and pads must be given for {spatial} spatial axes"));
    }
    Ok(spatial)
}

fn check_bias(inputs: &[Option<&ValueInfo>], out: &Dim) -> Result<(), String> {
    match optional(inputs, 2) {
        Some(bias) if bias.shape != Shape(vec![out.clone()]) => {
            Err(format!("the bias has shape {}, expected [{out}]", bias.shape))
        }
        _ => Ok(()),
    }
}
