//! Recognises batch normalisation that is written out, in every order of its operations.
//!
//! ```text
//! x -> Mul(gamma * rsqrt(var + eps)) -> Add(beta - mean * gamma * rsqrt(var + eps))      x -> BatchNorm
//! x -> Sub mean -> Div sqrt(var + eps) -> Mul gamma -> Add beta                          x -> BatchNorm
//! ```
//!
//! `gamma` and `beta` may be absent. The four vectors stay apart, so that the network can be trained further. They
//! are constants, of shape `[C]` or with axes of size 1 around it, and tell the layout. A plain `x * m + b` has lost
//! its statistics: it stays as it is.

use super::pattern::{binary, is_constant, near, number, varying_axes};
use super::rewrite::{Scopes, backward, fuse, shaped};
use super::terms::{Factor, Sum, expand};
use crate::diagnostic::Result;
use crate::graph::{Graph, Value};
use crate::layout::Layout;
use crate::op::{BatchNorm, Binary, Op, Unary};
use crate::shape::Shape;

/// Operators between the input and the result.
const DEPTH: usize = 8;

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize> {
    let scopes = Scopes::of(graph);
    backward(graph, |graph, id| {
        let Some(found) = find(graph, id.into()) else { return Ok(false) };
        let mut inputs = vec![Some(found.x)];
        for parameter in [found.gamma, found.beta, Some(found.mean), Some(found.variance)] {
            inputs.push(parameter.map(|value| shaped(graph, value, &[found.channels])).transpose()?);
        }
        let op = BatchNorm { epsilon: found.epsilon as f32, momentum: None, layout: found.layout };
        fuse(graph, &scopes, id, op, &inputs)?;
        Ok(true)
    })
}

struct Found {
    x: Value,
    gamma: Option<Value>,
    beta: Option<Value>,
    mean: Value,
    variance: Value,
    epsilon: f64,
    layout: Layout,
    channels: usize,
}

fn find(graph: &Graph, value: Value) -> Option<Found> {
    if !matches!(graph.op(value.node), Op::Binary(_)) || !graph.info(value).dtype.is_float() {
        return None;
    }
    let mut x = value;
    for _ in 0..DEPTH {
        x = data_operand(graph, x)?;
        if graph.shape(x) != graph.shape(value) {
            return None;
        }
        if let Some(found) = matches(graph, value, x) {
            return Some(found);
        }
    }
    None
}

/// The operand of arithmetic whose other operand is a constant.
fn data_operand(graph: &Graph, value: Value) -> Option<Value> {
    let (a, b) = match graph.op(value.node) {
        Op::Unary(Unary::Neg) => return graph.input_of(value.node, 0),
        Op::Binary(Binary::Add | Binary::Sub | Binary::Mul | Binary::Div) => super::pattern::operands(graph, value)?,
        _ => return None,
    };
    match (is_constant(graph, a), is_constant(graph, b)) {
        (false, true) => Some(a),
        (true, false) if graph.op(value.node).name() != "Div" => Some(b),
        _ => None,
    }
}

/// A result of the form `x r g - mean r g + beta`, with `r` the inverse root of a sum.
pub(super) struct Normalized {
    pub sum: Sum,
    /// The sum under the root.
    pub radicand: Value,
    pub mean: Value,
    pub gamma: Option<Value>,
    pub beta: Option<Value>,
}

/// Multiplies `value` out down to `x` and looks for that form. Says nothing of what the factors are.
pub(super) fn normalized(graph: &Graph, value: Value, x: Value) -> Option<Normalized> {
    let sum = expand(graph, value, &|v| v == x)?;
    let with_x = sum.terms.iter().position(|term| term.factors.contains(&x.into()))?;
    let scaled = sum.terms.get(with_x)?;
    let radicand = scaled.factors.iter().find_map(|factor| match factor {
        Factor::InverseRoot(radicand) => Some(*radicand),
        _ => None,
    })?;
    let root = Factor::InverseRoot(radicand);
    let gain = scaled.without(&[x.into(), root])?;
    let gamma = match gain.as_slice() {
        [] => None,
        [Factor::Value(gamma)] => Some(*gamma),
        _ => return None,
    };
    let (mut mean, mut beta) = (None, None);
    for (i, term) in sum.terms.iter().enumerate() {
        if i == with_x {
            continue;
        }
        let common = [gain.as_slice(), &[root]].concat();
        match (term.without(&common).as_deref(), term.factors.as_slice()) {
            (Some([Factor::Value(v)]), _) if near(term.coefficient, -1.0) && mean.is_none() => mean = Some(*v),
            (_, [Factor::Value(v)]) if near(term.coefficient, 1.0) && beta.is_none() => beta = Some(*v),
            _ => return None,
        }
    }
    let mean = mean.filter(|_| near(scaled.coefficient, 1.0))?;
    Some(Normalized { radicand, mean, gamma, beta, sum })
}

/// The variance and the number that is added to it.
pub(super) fn with_epsilon(graph: &Graph, radicand: Value) -> Option<(Value, f64)> {
    let (a, b) = binary(graph, radicand, Binary::Add)?;
    match (number(graph, a), number(graph, b)) {
        (None, Some(epsilon)) => Some((a, epsilon)),
        (Some(epsilon), None) => Some((b, epsilon)),
        _ => None,
    }
}

fn matches(graph: &Graph, value: Value, x: Value) -> Option<Found> {
    let Normalized { sum, radicand, mean, gamma, beta } = normalized(graph, value, x)?;
    let (variance, epsilon) = with_epsilon(graph, radicand)?;
    let shape = graph.shape(x);
    let mut axis = None;
    let variance_shape = if sum.is_placed(radicand) { sum.shape(graph, radicand) } else { graph.shape(variance) };
    let shapes = [gamma, beta, Some(mean)].into_iter().flatten().map(|v| sum.shape(graph, v)).chain([variance_shape]);
    for part in shapes {
        match varying_axes(part, shape)?.as_slice() {
            [] if part.rank() > 0 => {}
            [found] if axis.is_none_or(|axis| axis == *found) => axis = Some(*found),
            _ => return None,
        }
    }
    if [gamma, beta, Some(mean), Some(variance)].into_iter().flatten().any(|v| !is_constant(graph, v)) {
        return None;
    }
    let layout = channel_layout(axis, shape)?;
    let channels = shape.get(layout.channel_axis(shape.rank()))?.known()?;
    let fits = |v: Value| graph.shape(v).numel().known() == Some(channels);
    let all = [gamma, beta, Some(mean), Some(variance)].into_iter().flatten().all(fits);
    all.then_some(Found { x, gamma, beta, mean, variance, epsilon, layout, channels })
}

/// The layout in which `axis` is the channel axis; vectors of one element (no axis) need a channel axis of size 1.
pub(super) fn channel_layout(axis: Option<usize>, shape: &Shape) -> Option<Layout> {
    let rank = shape.rank();
    if !(2..=5).contains(&rank) {
        return None;
    }
    let one = |axis: usize| shape.get(axis).and_then(|dim| dim.known()) == Some(1);
    match axis {
        Some(axis) if axis == rank - 1 => Some(Layout::ChannelsLast),
        Some(1) => Some(Layout::ChannelsFirst),
        None if one(rank - 1) => Some(Layout::ChannelsLast),
        None if one(1) => Some(Layout::ChannelsFirst),
        _ => None,
    }
}
