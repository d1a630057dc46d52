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

#[cfg(test)]
mod tests {
    use super::super::testing::{Net, the};
    use super::*;
    use crate::shape::{Dim, Shape};

    const LAST: &[usize] = &[5, 7, 3];

    struct Parts {
        gamma: Value,
        beta: Value,
        mean: Value,
        /// `rsqrt(var + 0.001)`
        r: Value,
    }

    fn parts(net: &mut Net, shape: &[usize]) -> Parts {
        net.scope = "conv/BatchNorm".to_owned();
        let [gamma, beta, mean, variance] =
            ["gamma", "beta", "moving_mean", "moving_variance"].map(|name| net.weight(name, shape));
        net.scope = "conv/BatchNorm/batchnorm".to_owned();
        let z = net.plus(0.001, variance);
        let r = net.un(Unary::Rsqrt, z);
        Parts { gamma, beta, mean, r }
    }

    #[test]
    fn the_form_of_tensorflow_with_and_without_scale_and_offset() {
        for (scale, offset) in [(true, true), (false, true), (true, false), (false, false)] {
            for sizes in [LAST, &[6, 3], &[3], &[2, 5, 7, 3], &[3, 3, 3]] {
                let mut net = Net::new();
                let x = net.x(sizes);
                let p = parts(&mut net, &[3]);
                let gain = if scale { net.mul(p.r, p.gamma) } else { p.r };
                let y = net.mul(x, gain);
                let shift = if offset {
                    let moved = net.mul(p.mean, gain);
                    net.sub(p.beta, moved)
                } else {
                    let negative = net.un(Unary::Neg, p.mean);
                    net.mul(negative, gain)
                };
                let y = net.add(y, shift);
                let graph = net.check(&[y], run);
                let id = the(&graph, "BatchNorm");
                assert_eq!(graph.node(id).name, "conv/BatchNorm");
                let inputs = graph.inputs_of(id);
                assert_eq!((inputs[1].is_some(), inputs[2].is_some()), (scale, offset));
                assert_eq!(graph.node(inputs[4].unwrap().node).name, "conv/BatchNorm/moving_variance");
                assert!(
                    matches!(graph.op(id), Op::BatchNorm(op) if op.layout == Layout::ChannelsLast && op.epsilon == 0.001)
                );
            }
        }
    }

    #[test]
    fn centred_first_in_all_orders() {
        for order in 0..4 {
            let mut net = Net::new();
            let x = net.x(LAST);
            let [gamma, beta, mean, variance] = ["g", "b", "m", "v"].map(|name| net.weight(name, &[3]));
            let z = net.plus(0.1, variance);
            let centred = net.sub(x, mean);
            let y = match order {
                0 => {
                    let root = net.un(Unary::Sqrt, z);
                    net.div(centred, root)
                }
                1 => {
                    let half = net.num(0.5);
                    let root = net.bin(Binary::Pow, z, half);
                    net.div(centred, root)
                }
                2 => {
                    let r = net.un(Unary::Rsqrt, z);
                    net.mul(r, centred)
                }
                _ => {
                    let root = net.un(Unary::Sqrt, z);
                    let gain = net.div(gamma, root);
                    net.mul(gain, centred)
                }
            };
            let y = if order == 3 { y } else { net.mul(gamma, y) };
            let y = net.add(beta, y);
            assert_eq!(net.ops(&[y], run), ["BatchNorm"], "order {order}");
        }
    }

    #[test]
    fn vectors_of_channels_first() {
        // Reshaped before use, or after the arithmetic.
        for early in [true, false] {
            let mut net = Net::new();
            let x = net.x(&[3, 3, 3]);
            let place = Shape::known(&[1, 3, 1, 1]);
            let mut vectors = ["g", "b", "m", "v"].map(|name| net.weight(name, &[3]));
            if early {
                vectors = vectors.map(|v| net.reshape(v, place.clone()));
            }
            let [gamma, beta, mean, variance] = vectors;
            let z = net.plus(0.1, variance);
            let r = net.un(Unary::Rsqrt, z);
            let mut gain = net.mul(gamma, r);
            let moved = net.mul(mean, gain);
            let mut shift = net.sub(beta, moved);
            if !early {
                gain = net.reshape(gain, place.clone());
                shift = net.reshape(shift, place);
            }
            let y = net.mul(x, gain);
            let y = net.add(y, shift);
            let graph = net.check(&[y], run);
            let id = the(&graph, "BatchNorm");
            assert!(matches!(graph.op(id), Op::BatchNorm(op) if op.layout == Layout::ChannelsFirst));
        }
    }

    #[test]
    fn the_input_may_be_a_sum_with_a_constant() {
        let mut net = Net::new();
        let x = net.x(LAST);
        let bias = net.weight("bias", &[3]);
        let x = net.add(x, bias);
        let p = parts(&mut net, &[3]);
        let y = net.sub(x, p.mean);
        let y = net.mul(y, p.r);
        let y = net.add(y, p.beta);
        assert_eq!(net.ops(&[y], run), ["Add", "BatchNorm"]);
    }

    #[test]
    fn near_misses_stay() {
        // A plain affine function.
        let mut net = Net::new();
        let x = net.x(LAST);
        let (m, b) = (net.weight("m", &[3]), net.weight("b", &[3]));
        let y = net.mul(x, m);
        let y = net.add(y, b);
        assert_eq!(net.ops(&[y], run), ["Mul", "Add"]);
        // Different roots for the input and the mean.
        let mut net = Net::new();
        let x = net.x(LAST);
        let (p, q) = (parts(&mut net, &[3]), parts(&mut net, &[3]));
        let y = net.mul(x, p.r);
        let moved = net.mul(p.mean, q.r);
        let y = net.sub(y, moved);
        assert!(!net.ops(&[y], run).contains(&"BatchNorm".to_owned()));
        // A vector along a spatial axis.
        let mut net = Net::new();
        let x = net.x(&[4, 3, 5]);
        let p = parts(&mut net, &[3, 1]);
        let y = net.sub(x, p.mean);
        let y = net.mul(y, p.r);
        assert!(!net.ops(&[y], run).contains(&"BatchNorm".to_owned()));
        // Statistics that depend on data.
        let mut net = Net::new();
        let x = net.x(LAST);
        let m = net.graph.input("mean", crate::DType::Float32, Shape(vec![Dim::Known(3)])).unwrap();
        let p = parts(&mut net, &[3]);
        let y = net.sub(x, m);
        let y = net.mul(y, p.r);
        assert!(!net.ops(&[y], run).contains(&"BatchNorm".to_owned()));
    }

    #[test]
    fn one_channel() {
        let mut net = Net::new();
        let x = net.x(&[5, 7, 1]);
        let p = parts(&mut net, &[1]);
        let gain = net.mul(p.r, p.gamma);
        let y = net.mul(x, gain);
        let moved = net.mul(p.mean, gain);
        let shift = net.sub(p.beta, moved);
        let y = net.add(y, shift);
        assert_eq!(net.ops(&[y], run), ["BatchNorm"]);
    }
}
