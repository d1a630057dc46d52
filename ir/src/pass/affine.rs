//! Multiplications and sums per channel: what they are, and how they become part of a layer's weights.

use std::io::{self, Write};

use super::pattern::{operands, orders, varying_axes};
use super::rewrite::{named_view, view};
use crate::diagnostic::{Error, Result};
use crate::graph::{Graph, NodeId, Value};
use crate::op::{Binary, ConvTranspose, Op};
use crate::tensor::{DType, Tensor};

/// Channels that are worth a vector in memory.
const MOST: usize = 1 << 20;

/// `x * scale + shift`, both per channel.
pub struct Affine {
    /// What is multiplied.
    pub x: Value,
    /// The axis of the channels.
    pub axis: usize,
    /// Per channel.
    pub scale: Vec<f64>,
    /// Per channel.
    pub shift: Vec<f64>,
}

impl Affine {
    /// The node as one, if its parameters are constants: a batch normalisation, or a product with a number or vector.
    pub fn of(graph: &Graph, id: NodeId) -> Option<Affine> {
        let vector = |slot: usize, channels: usize, missing: f64| match graph.input_of(id, slot) {
            Some(value) => graph.tensor(value)?.to_f64().ok().filter(|v| v.len() == channels),
            None => Some(vec![missing; channels]),
        };
        let x = graph.input_of(id, 0)?;
        match graph.op(id) {
            Op::BatchNorm(op) => {
                let shape = graph.shape(x);
                let axis = op.layout.channel_axis(shape.rank());
                let channels = shape.get(axis)?.known().filter(|&n| n <= MOST)?;
                let (gamma, beta) = (vector(1, channels, 1.0)?, vector(2, channels, 0.0)?);
                let (mean, var) = (vector(3, channels, 0.0)?, vector(4, channels, 1.0)?);
                let scale: Vec<f64> =
                    gamma.iter().zip(&var).map(|(g, v)| g / (v + f64::from(op.epsilon)).sqrt()).collect();
                let shift = beta.iter().zip(&mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
                let finite = scale.iter().all(|s| s.is_finite());
                finite.then_some(Affine { x, axis, scale, shift })
            }
            Op::Binary(Binary::Mul) => orders(graph, id.into(), Binary::Mul)
                .into_iter()
                .find_map(|(x, factor)| Self::product(graph, id, x, factor, |f| f)),
            Op::Binary(Binary::Div) => {
                let (x, factor) = operands(graph, id.into())?;
                Self::product(graph, id, x, factor, |f| 1.0 / f)
            }
            _ => None,
        }
    }

    fn product(graph: &Graph, id: NodeId, x: Value, factor: Value, by: fn(f64) -> f64) -> Option<Affine> {
        let (shape, tensor) = (graph.shape(x), graph.tensor(factor)?);
        if graph.shape(id.into()) != shape || graph.tensor(x).is_some() || !tensor.dtype().is_float() {
            return None;
        }
        let (layer, axis) = layer(graph, x)?;
        let channels = shape.get(axis)?.known().filter(|&n| n <= MOST)?;
        let varying = varying_axes(graph.shape(factor), shape)?;
        if layer != x.node || !(varying.is_empty() || varying == [axis]) {
            return None;
        }
        let factors: Vec<f64> = tensor.to_f64().ok()?.into_iter().map(by).collect();
        let scale = if factors.len() == channels { factors } else { vec![*factors.first()?; channels] };
        let finite = scale.iter().all(|s| s.is_finite());
        finite.then(|| Affine { x, axis, shift: vec![0.0; channels], scale })
    }
}

/// The convolution or dense layer that computes a value which nothing else reads, and its channel axis; its weights
/// are constants. A squeeze or the like may stand between, as long as the channels stay apart.
pub fn layer(graph: &Graph, value: Value) -> Option<(NodeId, usize)> {
    let (node, axis) = super::absorb_bias::layer(graph, value)?;
    let weights = graph.tensor(graph.input_of(node, 1)?)?;
    let constant = graph.input_of(node, 2).is_none_or(|bias| graph.tensor(bias).is_some());
    (constant && weights.dtype().is_float()).then_some((node, axis))
}

/// Makes `y * scale + shift` of a layer's result `y` part of its weights.
pub fn into_weights(graph: &mut Graph, node: NodeId, scale: &[f64], shift: &[f64]) -> Result<bool> {
    let mut inputs = graph.inputs_of(node);
    let (Some(Some(weights)), op) = (inputs.get(1).copied(), graph.op(node).clone()) else { return Ok(false) };
    let Some(tensor) = graph.tensor(weights).cloned() else { return Ok(false) };
    let scaled = match &op {
        Op::ConvTranspose(op) => of_outputs(&tensor, op, scale),
        _ => tensor.scaled(tensor.rank().saturating_sub(1), scale),
    };
    let scaled = view(graph, weights, scaled.map_err(Error::new)?);
    let bias = match inputs.get(2).copied().flatten() {
        Some(bias) => match graph.tensor(bias).map(Tensor::to_f64) {
            Some(Ok(values)) => values,
            _ => return Ok(false),
        },
        None => vec![0.0; scale.len()],
    };
    let values = bias.iter().zip(scale).zip(shift).map(|((b, scale), shift)| b * scale + shift);
    set_bias(graph, node, &mut inputs, tensor.dtype(), values.collect(), scaled)
}

/// How a layer's weights are seen: with these sizes, the channels of its operand along one axis. As many groups of
/// results read a part of the channels each.
pub struct Seen {
    /// Their product is that of the weights' own sizes; the last one is theirs.
    pub sizes: Vec<usize>,
    /// The axis of the channels.
    pub channel: usize,
    /// 1 for all but convolutions of groups.
    pub groups: usize,
}

/// Makes `x * scale + shift` of a layer's operand `x` part of its weights.
pub fn into_reader(graph: &mut Graph, node: NodeId, seen: &Seen, scale: &[f64], shift: &[f64]) -> Result<bool> {
    let Seen { sizes: split, channel, groups } = seen;
    let (channel, groups) = (*channel, *groups);
    let mut inputs = graph.inputs_of(node);
    let Some(Some(weights)) = inputs.get(1).copied() else { return Ok(false) };
    let Some(tensor) = graph.tensor(weights).cloned() else { return Ok(false) };
    let (shape, dtype) = (tensor.shape(), tensor.dtype());
    let outputs = shape.last().copied().unwrap_or(0);
    let mut values = match inputs.get(2).copied().flatten() {
        Some(bias) => match graph.tensor(bias).map(Tensor::to_f64) {
            Some(Ok(values)) => values,
            _ => return Ok(false),
        },
        None => vec![0.0; outputs],
    };
    let width = split.get(channel).copied().unwrap_or(1);
    let inner: usize = split.get(channel + 1..).unwrap_or_default().iter().product();
    let mut parts = Vec::new();
    let last = shape.len().saturating_sub(1);
    let per_group = outputs / groups.max(1);
    for group in 0..groups {
        let range = group * per_group..(group + 1) * per_group;
        let part = tensor.sliced(last, range.start, range.end).map_err(Error::new)?;
        let own = group * width..(group + 1) * width;
        let (Some(scale), Some(shift)) = (scale.get(own.clone()), shift.get(own)) else { return Ok(false) };
        let mut sizes = split.clone();
        if let Some(size) = sizes.last_mut() {
            *size = per_group;
        }
        let own_inner = if channel + 1 < split.len() { inner / outputs.max(1) * per_group } else { inner };
        let Some(sums) = values.get_mut(range) else { return Ok(false) };
        let mut sink = Weighted { dtype, at: 0, inner: own_inner, shift, sums };
        part.write_to(&mut sink).map_err(|error| Error::new(error.to_string()))?;
        let seen = part.reshaped(&sizes).and_then(|part| part.scaled(channel, scale)).map_err(Error::new)?;
        let mut back = shape.clone();
        if let Some(size) = back.last_mut() {
            *size = per_group;
        }
        parts.push(seen.reshaped(&back).map_err(Error::new)?);
    }
    let whole = match parts.as_slice() {
        [only] => only.clone(),
        parts => Tensor::joined(parts, last).map_err(Error::new)?,
    };
    let scaled = view(graph, weights, whole);
    set_bias(graph, node, &mut inputs, dtype, values, scaled)
}

/// Sums the weights that reach every result, each times the shift of its channel, while they stream by in C order.
struct Weighted<'a> {
    dtype: DType,
    at: usize,
    /// Elements in a row that belong to one channel.
    inner: usize,
    shift: &'a [f64],
    sums: &'a mut [f64],
}

impl Write for Weighted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let part = Tensor::from_parts(self.dtype, &[bytes.len() / self.dtype.size()], bytes.to_vec()).to_f64()?;
        let (channels, outputs) = (self.shift.len().max(1), self.sums.len().max(1));
        for weight in part {
            let channel = self.at / self.inner.max(1) % channels;
            if let (Some(sum), Some(shift)) = (self.sums.get_mut(self.at % outputs), self.shift.get(channel)) {
                *sum += weight * shift;
            }
            self.at += 1;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn set_bias(
    graph: &mut Graph,
    node: NodeId,
    inputs: &mut Vec<Option<Value>>,
    dtype: DType,
    values: Vec<f64>,
    weights: Value,
) -> Result<bool> {
    let bias = inputs.get(2).copied().flatten();
    inputs.resize(3, None);
    if let Some(slot) = inputs.get_mut(1) {
        *slot = Some(weights);
    }
    if bias.is_some() || values.iter().any(|&value| value != 0.0) {
        let tensor = Tensor::from_f64(dtype, &[values.len()], values);
        let new = match bias {
            Some(bias) => view(graph, bias, tensor),
            None => {
                let kernel = graph.node(weights.node).name.clone();
                let divider = if kernel.contains('/') || !kernel.contains('.') { '/' } else { '.' };
                let name = match kernel.rsplit_once(divider) {
                    Some((scope, _)) => format!("{scope}{divider}bias"),
                    None => format!("{kernel}_bias"),
                };
                named_view(graph, weights, &name, tensor)
            }
        };
        if let Some(slot) = inputs.get_mut(2) {
            *slot = Some(new);
        }
    }
    let op = graph.op(node).clone();
    graph.replace_op(node, op, inputs)?;
    Ok(true)
}

/// The weights `[spatial…, out / groups, in]` of a transposed convolution, scaled by result.
fn of_outputs(tensor: &Tensor, op: &ConvTranspose, scale: &[f64]) -> std::result::Result<Tensor, String> {
    let shape = tensor.shape();
    let Some((&inputs, rest)) = shape.split_last() else { return Err("weights without axes".to_owned()) };
    let spatial = rest.len().saturating_sub(1);
    if op.groups == 1 {
        return tensor.scaled(spatial, scale);
    }
    let per_group = rest.last().copied().unwrap_or(0);
    let parts = (0..op.groups).map(|group| {
        let width = inputs / op.groups.max(1);
        let part = tensor.sliced(spatial + 1, group * width, (group + 1) * width)?;
        part.scaled(spatial, scale.get(group * per_group..(group + 1) * per_group).unwrap_or_default())
    });
    Tensor::joined(&parts.collect::<std::result::Result<Vec<_>, _>>()?, spatial + 1)
}
