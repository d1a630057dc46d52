//! What a value is made of: the questions that passes ask the graph. Operands of commutative operators are found in
//! either order, and numbers are compared as float32 constants of the same intent.

use crate::graph::{Graph, Value};
use crate::op::{Binary, Op, Reduce, ReduceKind, Unary};
use crate::shape::{Dim, Shape};

/// Nodes that are looked at before an expression counts as too large to be a pattern.
const BUDGET: usize = 32;

/// Whether two numbers mean the same constant: equal but for the rounding of a few float32 operations.
pub fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 2e-6 * a.abs().max(b.abs())
}

/// A number that was computed from float32 ones, as the person who wrote these meant it: `1 - 0.8` is 0.2.
pub fn tidy(number: f64) -> f32 {
    let digits: f64 = format!("{number:.5e}").parse().unwrap_or(number);
    if near(digits, number) { digits as f32 } else { number as f32 }
}

/// The number of a constant without axes. A constant `[1]` is none: it may be the weight of a single channel; nor is
/// one that training changes.
pub fn number(graph: &Graph, value: Value) -> Option<f64> {
    match graph.op(value.node) {
        Op::Constant(constant) if constant.trainable => None,
        Op::Fill(fill) if fill.shape.rank() == 0 => Some(f64::from(fill.value)),
        _ if graph.shape(value).rank() == 0 => graph.scalar(value),
        _ => None,
    }
}

/// Whether a value is 0 everywhere: the number, or what `zeros_like` makes.
pub fn is_zero(graph: &Graph, value: Value) -> bool {
    match graph.op(value.node) {
        Op::Fill(fill) => fill.value == 0.0,
        _ => number(graph, value) == Some(0.0),
    }
}

/// The operand of a function of one element.
pub fn unary(graph: &Graph, value: Value, kind: Unary) -> Option<Value> {
    match graph.op(value.node) {
        Op::Unary(op) if *op == kind => graph.input_of(value.node, 0),
        _ => None,
    }
}

/// The operands of a function of two elements, in their order.
pub fn binary(graph: &Graph, value: Value, kind: Binary) -> Option<(Value, Value)> {
    match graph.op(value.node) {
        Op::Binary(op) if *op == kind => operands(graph, value),
        _ => None,
    }
}

/// The first two inputs of a value's node.
pub fn operands(graph: &Graph, value: Value) -> Option<(Value, Value)> {
    Some((graph.input_of(value.node, 0)?, graph.input_of(value.node, 1)?))
}

/// The operands in both orders if they may change places, else in theirs alone.
pub fn orders(graph: &Graph, value: Value, kind: Binary) -> Vec<(Value, Value)> {
    match binary(graph, value, kind) {
        Some((a, b)) if kind.is_commutative() => vec![(a, b), (b, a)],
        Some(pair) => vec![pair],
        None => Vec::new(),
    }
}

/// The other operand and the number, where one operand is a number.
pub fn with_number(graph: &Graph, value: Value, kind: Binary) -> Option<(Value, f64)> {
    orders(graph, value, kind).into_iter().find_map(|(a, b)| Some((a, number(graph, b)?)))
}

/// What a value is the square of: `square(s)`, `s * s` or `s ^ 2`.
pub fn squared(graph: &Graph, value: Value) -> Option<Value> {
    if let Some(s) = unary(graph, value, Unary::Square) {
        return Some(s);
    }
    if let Some((a, b)) = binary(graph, value, Binary::Mul) {
        return (a == b).then_some(a);
    }
    let (base, exponent) = binary(graph, value, Binary::Pow)?;
    (number(graph, exponent)? == 2.0).then_some(base)
}

/// Whether a value depends on constants alone. Large expressions count as data.
pub fn is_constant(graph: &Graph, value: Value) -> bool {
    let mut stack = vec![value.node];
    for _ in 0..BUDGET {
        let Some(id) = stack.pop() else { return true };
        match graph.op(id) {
            Op::Constant(_) => {}
            Op::Input(_) | Op::Foreign(_) | Op::Dropout(_) | Op::Conv(_) | Op::Dense(_) | Op::Pool(_) => return false,
            _ => stack.extend(graph.inputs_of(id).into_iter().flatten().map(|input| input.node)),
        }
    }
    false
}

/// Whether a node only regroups the elements: reshape, squeeze, unsqueeze.
pub fn is_regrouping(op: &Op) -> bool {
    matches!(op, Op::Reshape(_) | Op::Squeeze(_) | Op::Unsqueeze(_))
}

/// The value behind reshapes, squeezes and unsqueezes.
pub fn regrouped(graph: &Graph, mut value: Value) -> Value {
    for _ in 0..BUDGET {
        match graph.input_of(value.node, 0) {
            Some(input) if is_regrouping(graph.op(value.node)) => value = input,
            _ => break,
        }
    }
    value
}

/// The shape that a reduction of `shape` over `axes` has when the axes stay.
pub fn kept(shape: &Shape, axes: &[usize]) -> Shape {
    let keep = |(axis, dim): (usize, &Dim)| if axes.contains(&axis) { Dim::Known(1) } else { dim.clone() };
    shape.iter().enumerate().map(keep).collect()
}

/// What is reduced over which axes, if a value is a reduction of this kind that broadcasts against its input as if
/// the axes had stayed (whether they did, or were put back by a reshape).
pub fn reduction(graph: &Graph, value: Value, kind: ReduceKind) -> Option<(Value, Vec<usize>)> {
    let source = regrouped(graph, value);
    let Op::Reduce(Reduce { kind: found, axes, .. }) = graph.op(source.node) else { return None };
    let x = graph.input_of(source.node, 0)?;
    let fits = *found == kind && !axes.is_empty() && *graph.shape(value) == kept(graph.shape(x), axes);
    fits.then(|| (x, axes.clone()))
}

/// The axes of `shape` along which an operand of shape `part` varies when it is broadcast; `None` if its sizes are
/// not all known, or are not those of `shape`.
pub fn varying_axes(part: &Shape, shape: &Shape) -> Option<Vec<usize>> {
    let lead = shape.rank().checked_sub(part.rank())?;
    let mut axes = Vec::new();
    for (i, dim) in part.iter().enumerate() {
        let size = dim.known()?;
        if size != 1 {
            if shape.get(lead + i)?.known() != Some(size) {
                return None;
            }
            axes.push(lead + i);
        }
    }
    Some(axes)
}

/// The values that arithmetic (sums, products, quotients, powers) leads to from `value`, itself first, nearest first.
pub fn arithmetic(graph: &Graph, value: Value) -> Vec<Value> {
    let mut found = vec![value];
    let mut next = 0;
    while let Some(&at) = found.get(next) {
        next += 1;
        let through = match graph.op(at.node) {
            Op::Binary(op) => matches!(op, Binary::Add | Binary::Sub | Binary::Mul | Binary::Div | Binary::Pow),
            Op::Unary(op) => matches!(op, Unary::Neg | Unary::Square | Unary::Reciprocal),
            _ => false,
        };
        if through {
            for input in graph.inputs_of(at.node).into_iter().flatten() {
                if found.len() < BUDGET && !found.contains(&input) && !matches!(graph.op(input.node), Op::Constant(_)) {
                    found.push(input);
                }
            }
        }
    }
    found
}
