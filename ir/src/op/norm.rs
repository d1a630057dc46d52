//! Normalisation and dropout.

use serde::{Deserialize, Serialize};

use super::{Operator, Slot, check_axis, input};
use crate::graph::ValueInfo;
use crate::layout::Layout;
use crate::shape::Dim;

fn same(inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
    Ok(vec![input(inputs, 0)?.clone()])
}

/// Fails unless every parameter from slot 1 on is a vector over the channels.
fn check_channels(inputs: &[Option<&ValueInfo>], layout: Layout) -> Result<(), String> {
    let x = input(inputs, 0)?;
    if x.shape.rank() < 2 {
        return Err(format!("normalisation takes at least rank 2, got {}", x.shape));
    }
    let channels = &x.shape[layout.channel_axis(x.shape.rank())];
    for parameter in inputs.iter().skip(1).flatten() {
        let fits = match parameter.shape.as_slice() {
            [Dim::Known(n)] => channels.known().is_none_or(|channels| channels == *n),
            _ => false,
        };
        if !fits {
            return Err(format!("a parameter has shape {}, expected [{channels}]", parameter.shape));
        }
    }
    Ok(())
}

/// Batch normalisation with stored statistics: `(x - mean) / sqrt(var + epsilon) * scale + bias`, every parameter
/// `[channels]`. Inputs: `x`, `scale`, `bias`, `mean`, `var`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BatchNorm {
    /// Added to the variance.
    pub epsilon: f32,
    /// Weight of a new batch in the running statistics (PyTorch's momentum, 1 - TensorFlow's decay), if known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub momentum: Option<f32>,
    /// Of `x` and the output; any rank from 2.
    pub layout: Layout,
}

impl Operator for BatchNorm {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x", OptionalParam "scale", OptionalParam "bias", Param "mean", Param "var"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        check_channels(inputs, self.layout)?;
        same(inputs)
    }
}

/// `(x - mean) / sqrt(var + epsilon) * scale + bias` with mean and (biased) variance over `axes` of the same element
/// of the batch. `scale` and `bias` have the shape of those axes, in their order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerNorm {
    /// Axes that are normalised; not necessarily sorted: they say the order of the parameters' axes.
    pub axes: Vec<usize>,
    /// Added to the variance.
    pub epsilon: f32,
}

impl Operator for LayerNorm {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x", OptionalParam "scale", OptionalParam "bias"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let x = input(inputs, 0)?;
        for &axis in &self.axes {
            check_axis(axis, x.shape.rank())?;
        }
        let expected = x.shape.permuted(&self.axes);
        for parameter in inputs.iter().skip(1).flatten() {
            if parameter.shape != expected {
                return Err(format!("a parameter has shape {}, expected {expected}", parameter.shape));
            }
        }
        same(inputs)
    }
}

/// Normalisation over the spatial axes, per element of the batch and channel; `scale` and `bias` are `[channels]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceNorm {
    /// Added to the variance.
    pub epsilon: f32,
    /// Of `x` and the output.
    pub layout: Layout,
}

impl Operator for InstanceNorm {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x", OptionalParam "scale", OptionalParam "bias"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        check_channels(inputs, self.layout)?;
        same(inputs)
    }
}

/// Normalisation over the spatial axes and over groups of neighbouring channels; `scale` and `bias` are `[channels]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupNorm {
    /// Number of groups.
    pub groups: usize,
    /// Added to the variance.
    pub epsilon: f32,
    /// Of `x` and the output.
    pub layout: Layout,
}

impl Operator for GroupNorm {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x", OptionalParam "scale", OptionalParam "bias"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        check_channels(inputs, self.layout)?;
        same(inputs)
    }
}

/// Local response normalisation over channels: `x / (k + alpha * s) ^ beta` with `s` the sum of squares over the
/// `size` nearest channels. `alpha` is not divided by `size` (TensorFlow's form; PyTorch divides).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lrn {
    /// Number of channels in the window (`2 * depth_radius + 1`).
    pub size: usize,
    /// Factor of the sum.
    pub alpha: f32,
    /// Exponent.
    pub beta: f32,
    /// The additive constant.
    pub k: f32,
    /// Of the input and the output.
    pub layout: Layout,
}

impl Operator for Lrn {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        check_channels(inputs, self.layout)?;
        same(inputs)
    }
}

/// `x / sqrt(max(sum(x^2 over axes), epsilon))`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct L2Normalize {
    /// Axes over which the squares are added.
    pub axes: Vec<usize>,
    /// Smallest sum of squares.
    pub epsilon: f32,
}

impl Operator for L2Normalize {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        for &axis in &self.axes {
            check_axis(axis, input(inputs, 0)?.shape.rank())?;
        }
        same(inputs)
    }
}

/// Dropout: does nothing but while training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dropout {
    /// Share of the elements that are set to zero (1 - TensorFlow's `keep_prob`).
    pub rate: f32,
}

impl Operator for Dropout {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        same(inputs)
    }
}
