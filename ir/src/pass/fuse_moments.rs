//! Recognises layer, instance and group normalisation that is written out: a mean and a variance over axes of the
//! value itself.
//!
//! ```text
//! mean = Mean(x, [1, 2])                                        x -> InstanceNorm
//! var = Mean(SquaredDifference(x, mean), [1, 2])
//! x * (gamma * rsqrt(var + eps)) + (beta - mean * gamma * rsqrt(var + eps))
//!
//! mean = Mean(x, [-1]), var = Mean(Square(x - mean), [-1])      x -> LayerNorm
//! (x - mean) / sqrt(var + eps) * gamma + beta
//!
//! x -> Reshape [N, H, W, G, C / G] -> the same over [1, 2, 4] -> Reshape [N, H, W, C]      x -> GroupNorm
//! ```
//!
//! `gamma` and `beta` may be absent. Over all axes but the batch with parameters per channel it is group
//! normalisation of one group. Parameters that no such layer has stay a product and a sum behind it. Statistics over
//! the batch are those of training and stay as they are.

use super::fuse_batch_norm::{Normalized, normalized, with_epsilon};
use super::pattern::{self, arithmetic, is_constant, reduction, squared, varying_axes};
use super::rewrite::{Scopes, backward, fuse, shaped};
use super::terms::Sum;
use crate::diagnostic::Result;
use crate::graph::{Graph, NodeId, Value};
use crate::layout::Layout;
use crate::op::{Binary, GroupNorm, InstanceNorm, LayerNorm, Op, ReduceKind, Unary};
use crate::shape::{Dim, Shape};

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize> {
    let scopes = Scopes::of(graph);
    backward(graph, |graph, id| match graph.op(id) {
        Op::Reshape(_) => through_reshape(graph, &scopes, id),
        Op::Binary(_) => match find(graph, id.into()) {
            Some(found) => direct(graph, &scopes, id, &found),
            None => Ok(false),
        },
        _ => Ok(false),
    })
}

/// A value normalised over some of its axes.
struct Found {
    x: Value,
    axes: Vec<usize>,
    epsilon: f32,
    gamma: Option<Value>,
    beta: Option<Value>,
    sum: Sum,
}

fn find(graph: &Graph, value: Value) -> Option<Found> {
    if !graph.info(value).dtype.is_float() {
        return None;
    }
    for root in arithmetic(graph, value) {
        let radicand = match graph.op(root.node) {
            Op::Unary(Unary::Sqrt | Unary::Rsqrt) | Op::Binary(Binary::Pow) => graph.input_of(root.node, 0)?,
            _ => continue,
        };
        let Some((variance, epsilon)) = with_epsilon(graph, radicand) else { continue };
        let Some((x, axes)) = variance_of(graph, variance) else { continue };
        let Some(Normalized { sum, radicand: found, mean, gamma, beta }) = normalized(graph, value, x) else {
            continue;
        };
        let constant = [gamma, beta].into_iter().flatten().all(|v| is_constant(graph, v));
        if found == radicand
            && constant
            && reduction(graph, mean, ReduceKind::Mean) == Some((x, axes.clone()))
            && graph.shape(value) == graph.shape(x)
        {
            return Some(Found { x, axes, epsilon: epsilon as f32, gamma, beta, sum });
        }
    }
    None
}

/// Of what and over which axes a value is the variance (with the shape of kept axes).
fn variance_of(graph: &Graph, value: Value) -> Option<(Value, Vec<usize>)> {
    let mean = |value| reduction(graph, value, ReduceKind::Mean);
    // The mean of squares less the square of the mean.
    if let Some((squares, square)) = pattern::binary(graph, value, Binary::Sub) {
        let (x, axes) = mean(squared(graph, square)?)?;
        let (square, same) = mean(squares)?;
        return (squared(graph, square)? == x && same == axes).then_some((x, axes));
    }
    let (squares, axes) = mean(value)?;
    let difference = match pattern::binary(graph, squares, Binary::SquaredDifference) {
        Some(pair) => pair,
        None => pattern::binary(graph, squared(graph, squares)?, Binary::Sub)?,
    };
    let (a, b) = difference;
    [(a, b), (b, a)].into_iter().find(|(x, m)| mean(*m) == Some((*x, axes.clone()))).map(|(x, _)| (x, axes))
}

/// The layer that normalises `x` over `axes` with parameters of these shapes (as they are broadcast against `x`), and
/// the shape that it wants them in.
fn layer(shape: &Shape, axes: &[usize], epsilon: f32, parameters: &[Shape]) -> Option<(Op, Vec<usize>)> {
    let rank = shape.rank();
    let inner: Vec<usize> = (1..rank).collect();
    let varying: Vec<Vec<usize>> = parameters.iter().map(|p| varying_axes(p, shape)).collect::<Option<_>>()?;
    let sizes = |axes: &[usize]| axes.iter().map(|&axis| shape.get(axis)?.known()).collect::<Option<Vec<_>>>();
    // Parameters along these axes, all of them: those of size 1 do not show.
    let along = |want: &[usize]| {
        let want: Vec<usize> = want.iter().copied().filter(|&a| shape.get(a) != Some(&Dim::Known(1))).collect();
        varying.iter().all(|axes| *axes == want)
    };
    let layouts = [Layout::ChannelsLast, Layout::ChannelsFirst];
    if (3..=5).contains(&rank) {
        for layout in layouts {
            let channel = layout.channel_axis(rank);
            // Over the last axis of rank 3 both are meant, and layer normalisation is what people mean.
            let plain = layout == Layout::ChannelsFirst && rank == 3;
            if layout.spatial_axes(rank).eq(axes.iter().copied())
                && along(&[channel])
                && !(parameters.is_empty() && plain)
            {
                let sizes = if parameters.is_empty() { Vec::new() } else { sizes(&[channel])? };
                return Some((InstanceNorm { epsilon, layout }.into(), sizes));
            }
        }
    }
    if along(axes) {
        let sizes = if parameters.is_empty() { Vec::new() } else { sizes(axes)? };
        return Some((LayerNorm { axes: axes.to_vec(), epsilon }.into(), sizes));
    }
    if (3..=5).contains(&rank) && axes == inner {
        for layout in layouts {
            let channel = layout.channel_axis(rank);
            if along(&[channel]) {
                return Some((GroupNorm { groups: 1, epsilon, layout }.into(), sizes(&[channel])?));
            }
        }
    }
    None
}

/// Replaces a normalisation that ends in `id`.
fn direct(graph: &mut Graph, scopes: &Scopes, id: NodeId, found: &Found) -> Result<bool> {
    let Found { x, axes, epsilon, gamma, beta, sum } = found;
    if axes.contains(&0) {
        return Ok(false);
    }
    let shape = graph.shape(*x).clone();
    let shapes: Vec<Shape> = [gamma, beta].into_iter().flatten().map(|&v| sum.shape(graph, v).clone()).collect();
    if let Some((op, sizes)) = layer(&shape, axes, *epsilon, &shapes) {
        let mut inputs = vec![Some(*x)];
        for parameter in [*gamma, *beta] {
            inputs.push(parameter.map(|value| shaped(graph, value, &sizes)).transpose()?);
        }
        fuse(graph, scopes, id, op, &inputs)?;
        return Ok(true);
    }
    // The layer without parameters, and these behind it, if they still broadcast as they are.
    let placed = [gamma, beta].into_iter().flatten().any(|&v| sum.is_placed(v));
    let Some((op, _)) = layer(&shape, axes, *epsilon, &[]).filter(|_| !placed) else { return Ok(false) };
    let name = graph.node(id).name.clone();
    let mut value: Value = graph.add(op, &format!("{name}/normalized"), &[*x])?.into();
    for (op, parameter) in [(Binary::Mul, *gamma), (Binary::Add, *beta)] {
        if let Some(parameter) = parameter {
            value = graph.add(op, &format!("{name}/{}", op_name(op)), &[value, parameter])?.into();
        }
    }
    graph.replace_uses(id.into(), value);
    Ok(true)
}

fn op_name(op: Binary) -> &'static str {
    if op == Binary::Mul { "mul" } else { "add" }
}

/// Replaces a normalisation between two reshapes, of which the second, `id`, undoes the first.
fn through_reshape(graph: &mut Graph, scopes: &Scopes, id: NodeId) -> Result<bool> {
    let Some(inner) = graph.input_of(id, 0) else { return Ok(false) };
    let Some(found) = find(graph, inner) else { return Ok(false) };
    let Some(x) = graph.input_of(found.x.node, 0).filter(|_| pattern::is_regrouping(graph.op(found.x.node))) else {
        return Ok(false);
    };
    let outer = graph.shape(x).clone();
    if outer != *graph.shape(id.into()) || !outer.is_determined() {
        return Ok(false);
    }
    let Some((op, sizes)) = grouped(graph, &found, &outer).or_else(|| merged(graph, &found, &outer)) else {
        return Ok(false);
    };
    let mut inputs = vec![Some(x)];
    for parameter in [found.gamma, found.beta] {
        inputs.push(parameter.map(|value| shaped(graph, value, &sizes)).transpose()?);
    }
    fuse(graph, scopes, id, op, &inputs)?;
    Ok(true)
}

/// Group normalisation: the reshape split the channels into groups.
fn grouped(graph: &Graph, found: &Found, outer: &Shape) -> Option<(Op, Vec<usize>)> {
    let inner = graph.shape(found.x);
    let rank = outer.rank();
    if !(2..=5).contains(&rank) {
        return None;
    }
    for layout in [Layout::ChannelsLast, Layout::ChannelsFirst] {
        let channel = layout.channel_axis(rank);
        let size = |shape: &Shape| shape.get(channel).and_then(Dim::known);
        let (Some(groups), Some(channels)) = (size(inner), size(outer)) else { continue };
        if groups == 0 || channels % groups != 0 {
            continue;
        }
        let mut split = outer.clone();
        split.splice(channel..=channel, [Dim::Known(groups), Dim::Known(channels / groups)]);
        // Also `[N, G, all the rest]`, when channels come first.
        let rest = layout == Layout::ChannelsFirst && inner.rank() == 3 && inner.first() == outer.first();
        let wanted: Vec<usize> = (1..inner.rank()).filter(|&axis| axis != channel).collect();
        if !(*inner == split || rest) || found.axes != wanted {
            continue;
        }
        for parameter in [found.gamma, found.beta].into_iter().flatten() {
            let axes = varying_axes(found.sum.shape(graph, parameter), inner)?;
            let size = graph.shape(parameter).numel().known()?;
            let fits = *inner == split && size == channels && axes.iter().all(|&a| a == channel || a == channel + 1);
            if !fits {
                return None;
            }
        }
        return Some((GroupNorm { groups, epsilon: found.epsilon, layout }.into(), vec![channels]));
    }
    None
}

/// Layer normalisation of a value whose leading axes were joined and which got axes of size 1 (`[1, N * T, C, 1]`).
fn merged(graph: &Graph, found: &Found, outer: &Shape) -> Option<(Op, Vec<usize>)> {
    let inner = graph.shape(found.x);
    let normalized = |axis: usize| found.axes.contains(&axis);
    let wide: Vec<usize> = (0..inner.rank()).filter(|&axis| inner.get(axis) != Some(&Dim::Known(1))).collect();
    let begin = wide.iter().position(|&axis| normalized(axis))?;
    let (kept, reduced) = wide.split_at(begin);
    if kept.is_empty() || !reduced.iter().all(|&axis| normalized(axis)) {
        return None;
    }
    let size = |axes: &[usize], shape: &Shape| {
        axes.iter().try_fold(1usize, |product, &axis| product.checked_mul(shape.get(axis)?.known()?))
    };
    let elements = size(reduced, inner)?;
    let rank = outer.rank();
    let axes = (1..rank)
        .rev()
        .map(|first| (first..rank).collect::<Vec<_>>())
        .find(|axes| size(axes, outer) == Some(elements))?;
    let sizes: Vec<usize> = axes.iter().map(|&axis| outer.get(axis)?.known()).collect::<Option<_>>()?;
    for parameter in [found.gamma, found.beta].into_iter().flatten() {
        let varying = varying_axes(found.sum.shape(graph, parameter), inner)?;
        if varying != reduced {
            return None;
        }
    }
    Some((LayerNorm { axes, epsilon: found.epsilon }.into(), sizes))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Net, batch, ops, the};
    use super::*;
    use crate::op::{Reduce, Squeeze};

    /// How the variance is written.
    #[derive(Clone, Copy, Debug)]
    enum Form {
        SquaredDifference,
        Square,
        Product,
        MeanOfSquares,
        Reshaped,
    }

    const FORMS: [Form; 5] =
        [Form::SquaredDifference, Form::Square, Form::Product, Form::MeanOfSquares, Form::Reshaped];

    fn moments(net: &mut Net, x: Value, axes: &[usize], form: Form) -> (Value, Value) {
        let mean = net.reduce(ReduceKind::Mean, x, axes);
        let squares = match form {
            Form::SquaredDifference | Form::Reshaped => net.bin(Binary::SquaredDifference, x, mean),
            Form::Square => {
                let centred = net.sub(x, mean);
                net.un(Unary::Square, centred)
            }
            Form::Product => {
                let centred = net.sub(x, mean);
                net.mul(centred, centred)
            }
            Form::MeanOfSquares => {
                let squares = net.un(Unary::Square, x);
                let squares = net.reduce(ReduceKind::Mean, squares, axes);
                let square = net.mul(mean, mean);
                return (mean, net.sub(squares, square));
            }
        };
        if let Form::Reshaped = form {
            let variance = net.op(Reduce { kind: ReduceKind::Mean, axes: axes.to_vec(), keep_dims: false }, &[squares]);
            let shape = pattern::kept(net.graph.shape(x), axes);
            let flat = net.op(Squeeze { axes: axes.to_vec() }, &[mean]);
            return (net.reshape(flat, shape.clone()), net.reshape(variance, shape));
        }
        (mean, net.reduce(ReduceKind::Mean, squares, axes))
    }

    /// `tf.nn.batch_normalization`
    fn normalize(
        net: &mut Net,
        x: Value,
        axes: &[usize],
        form: Form,
        gamma: Option<Value>,
        beta: Option<Value>,
    ) -> Value {
        let (mean, variance) = moments(net, x, axes, form);
        let z = net.plus(0.1, variance);
        let mut gain = net.un(Unary::Rsqrt, z);
        if let Some(gamma) = gamma {
            gain = net.mul(gain, gamma);
        }
        let scaled = net.mul(x, gain);
        let shift = match beta {
            Some(beta) => {
                let moved = net.mul(mean, gain);
                net.sub(beta, moved)
            }
            None => {
                let negative = net.un(Unary::Neg, mean);
                net.mul(negative, gain)
            }
        };
        net.add(scaled, shift)
    }

    /// `(x - mean) / sqrt(var + eps) * gamma + beta`
    fn by_hand(net: &mut Net, x: Value, axes: &[usize], gamma: Value, beta: Value) -> Value {
        let (mean, variance) = moments(net, x, axes, Form::Square);
        let z = net.plus(0.1, variance);
        let half = net.num(0.5);
        let root = net.bin(Binary::Pow, z, half);
        let centred = net.sub(x, mean);
        let y = net.div(centred, root);
        let y = net.mul(gamma, y);
        net.add(beta, y)
    }

    #[test]
    fn every_form_with_and_without_parameters() {
        for form in FORMS {
            for (use_gamma, use_beta) in [(true, true), (false, true), (true, false), (false, false)] {
                for (axes, op) in [(&[1, 2][..], "InstanceNorm"), (&[3], "LayerNorm")] {
                    let mut net = Net::new();
                    let x = net.x(&[3, 3, 3]);
                    let gamma = use_gamma.then(|| net.weight("gamma", &[3]));
                    let beta = use_beta.then(|| net.weight("beta", &[3]));
                    let y = normalize(&mut net, x, axes, form, gamma, beta);
                    let graph = net.check(&[y], run);
                    assert_eq!(ops(&graph), [op], "{form:?} {use_gamma} {use_beta}");
                    let inputs = graph.inputs_of(the(&graph, op));
                    assert_eq!(inputs.get(1).copied().flatten(), gamma);
                    assert_eq!(inputs.get(2).copied().flatten(), beta);
                }
            }
        }
    }

    #[test]
    fn axes_and_parameters_say_which() {
        for (sizes, axes, parameter, op) in [
            (&[3, 3][..], &[2][..], &[3][..], "LayerNorm { axes: [2]"),
            (&[3, 3], &[1], &[3], "InstanceNorm { epsilon: 0.1, layout: ChannelsLast"),
            (&[3, 3], &[2], &[3, 1], "InstanceNorm { epsilon: 0.1, layout: ChannelsFirst"),
            (&[3, 3, 3], &[2, 3], &[3, 1, 1], "InstanceNorm { epsilon: 0.1, layout: ChannelsFirst"),
            (&[3, 3, 3], &[2, 3], &[3, 3], "LayerNorm { axes: [2, 3]"),
            (&[3, 3, 3], &[1], &[3, 1, 1], "LayerNorm { axes: [1]"),
            (&[3, 3, 3], &[1, 2, 3], &[3, 3, 3], "LayerNorm { axes: [1, 2, 3]"),
            (&[3, 3, 3], &[1, 2, 3], &[3], "GroupNorm { groups: 1, epsilon: 0.1, layout: ChannelsLast"),
            (&[3, 3, 3], &[1, 2, 3], &[3, 1, 1], "GroupNorm { groups: 1, epsilon: 0.1, layout: ChannelsFirst"),
            (&[3], &[1], &[3], "LayerNorm { axes: [1]"),
        ] {
            let mut net = Net::new();
            let x = net.x(sizes);
            let (gamma, beta) = (net.weight("gamma", parameter), net.weight("beta", parameter));
            let y = by_hand(&mut net, x, axes, gamma, beta);
            let graph = net.check(&[y], run);
            let id = *graph.ids().iter().find(|id| format!("{:?}", graph.op(**id)).contains(op)).unwrap();
            assert_eq!((ops(&graph).len(), graph.inputs_of(id).len()), (1, 3), "{op}");
        }
    }

    #[test]
    fn parameters_that_no_layer_has_stay_outside() {
        let mut net = Net::new();
        let x = net.x(&[3, 3, 3]);
        let (gamma, beta) = (net.weight("gamma", &[3, 1]), net.weight("beta", &[3, 1]));
        let y = normalize(&mut net, x, &[1, 2], Form::SquaredDifference, Some(gamma), Some(beta));
        assert_eq!(net.ops(&[y], run), ["InstanceNorm", "Mul", "Add"]);
    }

    #[test]
    fn groups() {
        // Parameters inside, as tf_slim has them, and outside.
        for inside in [true, false] {
            let mut net = Net::new();
            let x = net.x(&[3, 5, 6]);
            let split = net.reshape(x, batch(&[3, 5, 3, 2]));
            let (gamma, beta) = (net.weight("gamma", &[6]), net.weight("beta", &[6]));
            let y = if inside {
                let (gamma, beta) = (
                    net.reshape(gamma, Shape::known(&[1, 1, 1, 3, 2])),
                    net.reshape(beta, Shape::known(&[1, 1, 1, 3, 2])),
                );
                normalize(&mut net, split, &[1, 2, 4], Form::SquaredDifference, Some(gamma), Some(beta))
            } else {
                normalize(&mut net, split, &[1, 2, 4], Form::Square, None, None)
            };
            let y = net.reshape(y, batch(&[3, 5, 6]));
            let y = if inside { y } else { net.mul(y, gamma) };
            let graph = net.check(&[y], run);
            let Op::GroupNorm(op) = graph.op(the(&graph, "GroupNorm")) else { panic!() };
            assert_eq!((op.groups, op.layout), (3, Layout::ChannelsLast));
        }
        for merged in [true, false] {
            let mut net = Net::new();
            let x = net.x(&[6, 3, 5]);
            let (inner, axes): (&[usize], &[usize]) =
                if merged { (&[3, 30], &[2]) } else { (&[3, 2, 3, 5], &[2, 3, 4]) };
            let split = net.reshape(x, batch(inner));
            let y = normalize(&mut net, split, axes, Form::SquaredDifference, None, None);
            let y = net.reshape(y, batch(&[6, 3, 5]));
            let graph = net.check(&[y], run);
            let Op::GroupNorm(op) = graph.op(the(&graph, "GroupNorm")) else { panic!() };
            assert_eq!((op.groups, op.layout), (3, Layout::ChannelsFirst));
        }
    }

    #[test]
    fn the_detour_of_keras() {
        // [N, T, C] -> [1, N * T, C, 1], normalised over all but axis 1.
        let mut net = Net::new();
        let x = net.x(&[4, 6]);
        let joined = Dim::Symbol { factor: 4, name: "N".into() };
        let split = net.reshape(x, Shape(vec![Dim::Known(1), joined, Dim::Known(6), Dim::Known(1)]));
        let y = normalize(&mut net, split, &[0, 2, 3], Form::SquaredDifference, None, None);
        let y = net.reshape(y, batch(&[4, 6]));
        let graph = net.check(&[y], run);
        let Op::LayerNorm(op) = graph.op(the(&graph, "LayerNorm")) else { panic!() };
        assert_eq!(op.axes, [2]);
    }

    #[test]
    fn near_misses_stay() {
        let unfused = |net: Net, y: Value| {
            let ops = net.ops(&[y], run);
            assert!(!ops.iter().any(|op| op.ends_with("Norm")), "{ops:?}");
        };
        // Statistics over the batch.
        let mut net = Net::new();
        let x = net.x(&[3, 3, 3]);
        let y = normalize(&mut net, x, &[0, 1, 2], Form::SquaredDifference, None, None);
        unfused(net, y);
        // Mean and variance over different axes, or of different values.
        for other in [true, false] {
            let mut net = Net::new();
            let x = net.x(&[3, 3, 3]);
            let (_, variance) = moments(&mut net, x, &[1, 2], Form::SquaredDifference);
            let of = if other { net.times(2.0, x) } else { x };
            let mean = net.reduce(ReduceKind::Mean, of, if other { &[1, 2] } else { &[3] });
            let z = net.plus(0.1, variance);
            let r = net.un(Unary::Rsqrt, z);
            let centred = net.sub(x, mean);
            let y = net.mul(centred, r);
            unfused(net, y);
        }
        // The mean of squares without the mean.
        let mut net = Net::new();
        let x = net.x(&[5, 6]);
        let squares = net.mul(x, x);
        let mean = net.reduce(ReduceKind::Mean, squares, &[2]);
        let z = net.plus(0.1, mean);
        let r = net.un(Unary::Rsqrt, z);
        let y = net.mul(x, r);
        unfused(net, y);
        // A mean whose axes did not stay, broadcast against others of the same size.
        let mut net = Net::new();
        let x = net.graph.input("x", crate::DType::Float32, Shape::known(&[3, 3])).unwrap();
        let mean = net.op(Reduce { kind: ReduceKind::Mean, axes: vec![1], keep_dims: false }, &[x]);
        let squares = net.bin(Binary::SquaredDifference, x, mean);
        let variance = net.reduce(ReduceKind::Mean, squares, &[1]);
        let z = net.plus(0.1, variance);
        let r = net.un(Unary::Rsqrt, z);
        let centred = net.sub(x, mean);
        let y = net.mul(centred, r);
        unfused(net, y);
    }
}
