//! Recognises activations that are written out, wherever their factors and numbers stand.
//!
//! ```text
//! 0.5 * x * (1 + Erf(x / sqrt(2)))                            x -> Gelu
//! x * 0.5 * (1 + Tanh(0.7978846 * (x + 0.044715 * x ^ 3)))    x -> Gelu { approximate }
//! x * Sigmoid(x)                                              x -> Silu
//! x * Tanh(Softplus(x))                                       x -> Mish
//! Relu6(x + 3) / 6, and x times that                          x -> HardSigmoid, HardSwish
//! Maximum(x, 0.2 * x), 0.6 * x + 0.4 * |x|                    x -> LeakyRelu { alpha: 0.2 }
//! Relu(x) - alpha * Relu(-x)                                  x -> PRelu(alpha)
//! Maximum(x, 0), Minimum(Relu(x), 6), Maximum(Minimum(x, b), a)      x -> Relu, Relu6, Clip
//! Log(1 + Exp(x)), x / (1 + |x|), 1 / (1 + Exp(-x))           x -> Softplus, Softsign, Sigmoid
//! ```

use super::fuse_batch_norm::channel_layout;
use super::pattern::{
    arithmetic, binary, is_constant, is_zero, near, number, operands, orders, tidy, unary, varying_axes, with_number,
};
use super::rewrite::{Scopes, backward, fuse, shaped};
use super::terms::{Factor, Sum, expand};
use crate::diagnostic::Result;
use crate::graph::{Graph, Value};
use crate::op::{Binary, Clip, Elu, Gelu, LeakyRelu, Op, PRelu, Unary};

/// Patterns that are nested in patterns need one more round each.
const ROUNDS: usize = 4;
/// `sqrt(2 / pi)`
const TANH_SCALE: f64 = 0.797_884_560_802_865_4;
/// `1 / sqrt(2)`
const ERF_SCALE: f64 = std::f64::consts::FRAC_1_SQRT_2;
const CUBIC: f64 = 0.044_715;

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize> {
    let mut total = 0;
    for _ in 0..ROUNDS {
        let scopes = Scopes::of(graph);
        let count = backward(graph, |graph, id| {
            if !graph.info(id.into()).dtype.is_float() {
                return Ok(false);
            }
            let Some(found) = find(graph, id.into()).filter(|f| graph.shape(f.x) == graph.shape(id.into())) else {
                return Ok(false);
            };
            let slope = match found.slope {
                Some((slope, size)) => Some(shaped(graph, slope, &[size])?),
                None => None,
            };
            let mut inputs = vec![Some(found.x)];
            inputs.extend(slope.map(Some));
            fuse(graph, &scopes, id, found.op, &inputs)?;
            Ok(true)
        })?;
        graph.prune();
        total += count;
        if count == 0 {
            break;
        }
    }
    Ok(total)
}

struct Found {
    op: Op,
    x: Value,
    /// A vector of slopes, and its size.
    slope: Option<(Value, usize)>,
}

impl Found {
    fn new(op: impl Into<Op>, x: Value) -> Option<Found> {
        Some(Found { op: op.into(), x, slope: None })
    }
}

fn find(graph: &Graph, value: Value) -> Option<Found> {
    match graph.op(value.node) {
        Op::Binary(Binary::Maximum | Binary::Minimum) => limits(graph, value),
        Op::Binary(Binary::Div) => quotient(graph, value).or_else(|| gated(graph, value)),
        Op::Binary(Binary::Add | Binary::Sub | Binary::Mul) => gated(graph, value),
        Op::Unary(Unary::Reciprocal) => sigmoid(graph, graph.input_of(value.node, 0)?),
        Op::Unary(Unary::Log) => {
            let sum = expand(graph, graph.input_of(value.node, 0)?, &|_| false)?;
            let power = sum.terms.iter().find_map(|term| match term.factors.as_slice() {
                [Factor::Value(power)] => Some(*power),
                _ => None,
            })?;
            let x = unary(graph, power, Unary::Exp)?;
            sum.is(&[(1.0, &[]), (1.0, &[power.into()])]).then(|| Found::new(Unary::Softplus, x)).flatten()
        }
        Op::Unary(Unary::Log1p) => {
            Found::new(Unary::Softplus, unary(graph, graph.input_of(value.node, 0)?, Unary::Exp)?)
        }
        Op::Clip(clip) => Found::new(named(clip)?, graph.input_of(value.node, 0)?),
        Op::Select(_) => selected(graph, value),
        _ => None,
    }
}

/// The name that limits go by, if they have one.
fn named(clip: &Clip) -> Option<Unary> {
    match (clip.min, clip.max) {
        (Some(0.0), None) => Some(Unary::Relu),
        (Some(0.0), Some(6.0)) => Some(Unary::Relu6),
        _ => None,
    }
}

fn clipped(min: Option<f64>, max: Option<f64>, x: Value) -> Option<Found> {
    let clip = Clip { min: min.map(|min| min as f32), max: max.map(|max| max as f32) };
    match named(&clip) {
        Some(op) => Found::new(op, x),
        None => Found::new(clip, x),
    }
}

/// The limits that a value already has, and what it limits.
fn limited(graph: &Graph, value: Value) -> Option<(Value, Option<f64>, Option<f64>)> {
    let x = graph.input_of(value.node, 0)?;
    match graph.op(value.node) {
        Op::Unary(Unary::Relu) => Some((x, Some(0.0), None)),
        Op::Clip(clip) => Some((x, clip.min.map(f64::from), clip.max.map(f64::from))),
        Op::Binary(kind @ (Binary::Maximum | Binary::Minimum)) => {
            let (x, limit) = with_number(graph, value, *kind)?;
            Some(if *kind == Binary::Maximum { (x, Some(limit), None) } else { (x, None, Some(limit)) })
        }
        _ => None,
    }
}

/// A maximum or minimum with a number, or with the value itself scaled.
fn limits(graph: &Graph, value: Value) -> Option<Found> {
    let maximum = binary(graph, value, Binary::Maximum).is_some();
    let kind = if maximum { Binary::Maximum } else { Binary::Minimum };
    for (x, limit) in orders(graph, value, kind) {
        let limit = match number(graph, limit) {
            None if is_zero(graph, limit) => 0.0,
            None => continue,
            Some(limit) => limit,
        };
        // Below a limit that is above: min(max(x, a), b) with a <= b is a range.
        return match (maximum, limited(graph, x)) {
            (true, Some((inner, None, Some(max)))) if limit <= max => clipped(Some(limit), Some(max), inner),
            (false, Some((inner, Some(min), None))) if min <= limit => clipped(Some(min), Some(limit), inner),
            (true, _) => clipped(Some(limit), None, x),
            (false, _) => clipped(None, Some(limit), x),
        };
    }
    let (a, b) = operands(graph, value)?;
    for (x, scaled) in [(a, b), (b, a)] {
        let Some(sum) = expand(graph, scaled, &|v| v == x) else { continue };
        let alpha = sum.coefficient(&[x.into()]);
        let below = if maximum { alpha > 0.0 && alpha < 1.0 } else { alpha > 1.0 };
        if below && sum.is(&[(alpha, &[x.into()])]) {
            return Found::new(LeakyRelu { alpha: tidy(alpha) }, x);
        }
    }
    None
}

/// `1 / (1 + exp(-x))` with this denominator.
fn sigmoid(graph: &Graph, denominator: Value) -> Option<Found> {
    let power = arithmetic(graph, denominator).into_iter().find_map(|v| Some((v, unary(graph, v, Unary::Exp)?)));
    let (power, exponent) = power?;
    let sum = expand(graph, denominator, &|v| v == power)?;
    if !sum.is(&[(1.0, &[]), (1.0, &[power.into()])]) {
        return None;
    }
    let x = arithmetic(graph, exponent)
        .into_iter()
        .find(|&x| expand(graph, exponent, &|v| v == x).is_some_and(|sum| sum.is(&[(-1.0, &[x.into()])])))?;
    Found::new(Unary::Sigmoid, x)
}

fn quotient(graph: &Graph, value: Value) -> Option<Found> {
    let (x, denominator) = operands(graph, value)?;
    if number(graph, x) == Some(1.0) {
        return sigmoid(graph, denominator);
    }
    let size = arithmetic(graph, denominator).into_iter().find(|v| unary(graph, *v, Unary::Abs) == Some(x))?;
    let sum = expand(graph, denominator, &|v| v == size)?;
    if sum.is(&[(1.0, &[]), (1.0, &[size.into()])]) { Found::new(Unary::Softsign, x) } else { None }
}

/// Sums and products of a value and functions of it.
fn gated(graph: &Graph, value: Value) -> Option<Found> {
    for gate in arithmetic(graph, value).into_iter().skip(1) {
        let Some(inner) = graph.input_of(gate.node, 0) else { continue };
        let with = |x: Value| expand(graph, value, &|v| v == x || v == gate);
        let g = Factor::from(gate);
        // The arguments that the gate's own may be a function of.
        let argument = |is: &dyn Fn(&Sum, Factor) -> bool| {
            arithmetic(graph, inner)
                .into_iter()
                .find(|&x| expand(graph, inner, &|v| v == x).is_some_and(|sum| is(&sum, x.into())))
        };
        let found = match graph.op(gate.node) {
            Op::Unary(Unary::Erf) => {
                let x = argument(&|sum, x| sum.is(&[(ERF_SCALE, &[x])]));
                x.filter(|&x| with(x).is_some_and(|sum| is_half_gate(&sum, x.into(), g)))
                    .and_then(|x| Found::new(Gelu { approximate: false }, x))
            }
            Op::Unary(Unary::Tanh) => match unary(graph, inner, Unary::Softplus) {
                Some(x) if with(x).is_some_and(|sum| sum.is(&[(1.0, &[x.into(), g])])) => Found::new(Unary::Mish, x),
                _ => {
                    let x = argument(&|sum, x| is_cubic(sum, x, 1.0));
                    x.filter(|&x| with(x).is_some_and(|sum| is_half_gate(&sum, x.into(), g)))
                        .and_then(|x| Found::new(Gelu { approximate: true }, x))
                }
            },
            Op::Unary(Unary::Sigmoid) => {
                let product = |x: Value| with(x).is_some_and(|sum| sum.is(&[(1.0, &[x.into(), g])]));
                if product(inner) {
                    Found::new(Unary::Silu, inner)
                } else {
                    // The tanh form once more: (1 + tanh(z)) / 2 = sigmoid(2 z).
                    argument(&|sum, x| is_cubic(sum, x, 2.0))
                        .filter(|&x| product(x))
                        .and_then(|x| Found::new(Gelu { approximate: true }, x))
                }
            }
            Op::Unary(Unary::HardSigmoid) => with(inner)
                .filter(|sum| sum.is(&[(1.0, &[inner.into(), g])]))
                .and_then(|_| Found::new(Unary::HardSwish, inner)),
            Op::Unary(Unary::Relu6) => argument(&|sum, x| sum.is(&[(1.0, &[x]), (3.0, &[])])).and_then(|x| {
                let sum = with(x)?;
                if sum.is(&[(1.0 / 6.0, &[x.into(), g])]) {
                    Found::new(Unary::HardSwish, x)
                } else if sum.is(&[(1.0 / 6.0, &[g])]) {
                    Found::new(Unary::HardSigmoid, x)
                } else {
                    None
                }
            }),
            Op::Unary(Unary::Abs) => with(inner).and_then(|sum| {
                let (straight, bent) = (sum.coefficient(&[inner.into()]), sum.coefficient(&[g]));
                let leaky = sum.is(&[(straight, &[inner.into()]), (bent, &[g])]) && near(straight + bent, 1.0);
                if leaky { leaky_relu(straight - bent, inner) } else { None }
            }),
            Op::Unary(Unary::Relu) => rectified(graph, value, gate, inner),
            _ => None,
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

/// `x / 2 + x * gate / 2`
fn is_half_gate(sum: &Sum, x: Factor, gate: Factor) -> bool {
    sum.is(&[(0.5, &[x]), (0.5, &[x, gate])])
}

/// The argument of the tanh form of gelu, times a number.
fn is_cubic(sum: &Sum, x: Factor, scale: f64) -> bool {
    sum.is(&[(scale * TANH_SCALE, &[x]), (scale * TANH_SCALE * CUBIC, &[x, x, x])])
}

fn leaky_relu(alpha: f64, x: Value) -> Option<Found> {
    if alpha.abs() < 1e-9 { Found::new(Unary::Relu, x) } else { Found::new(LeakyRelu { alpha: tidy(alpha) }, x) }
}

/// Leaky and parametric relu from `positive = Relu(x)` and something on the negative side.
fn rectified(graph: &Graph, value: Value, positive: Value, x: Value) -> Option<Found> {
    let p = Factor::from(positive);
    let rest = expand(graph, value, &|v| v == positive || v == x)?;
    if !near(rest.coefficient(&[p]), 1.0) {
        return None;
    }
    // alpha * (x - |x|) / 2
    if let Some(size) = arithmetic(graph, value).into_iter().find(|v| unary(graph, *v, Unary::Abs) == Some(x)) {
        let (a, b) = rest.terms.iter().filter(|term| term.factors != [p]).fold((None, None), |found, term| {
            match (term.without(&[x.into()]), term.without(&[size.into()])) {
                (Some(rest), _) if found.0.is_none() => (Some((term.coefficient, rest)), found.1),
                (_, Some(rest)) if found.1.is_none() => (found.0, Some((term.coefficient, rest))),
                _ => found,
            }
        });
        let ((a, slope), (b, other)) = (a?, b?);
        let fits = rest.terms.len() == 3 && near(a, -b) && slope == other;
        return if fits { parametric(graph, &rest, 2.0 * a, &slope, x) } else { None };
    }
    // alpha * Minimum(x, 0) or -alpha * Relu(-x)
    for negative in arithmetic(graph, value) {
        let sign = match limited(graph, negative) {
            Some((inner, None, Some(0.0))) if inner == x => 1.0,
            Some((inner, Some(0.0), None)) => {
                let sum = expand(graph, inner, &|v| v == x);
                if !sum.is_some_and(|sum| sum.is(&[(-1.0, &[x.into()])])) {
                    continue;
                }
                -1.0
            }
            _ => continue,
        };
        let sum = expand(graph, value, &|v| v == positive || v == negative)?;
        let term = sum.terms.iter().find(|term| term.factors.contains(&negative.into()))?;
        let slope = term.without(&[negative.into()])?;
        return if sum.terms.len() == 2 { parametric(graph, &sum, sign * term.coefficient, &slope, x) } else { None };
    }
    None
}

/// Relu with the slope `coefficient * slope` on the negative side.
fn parametric(graph: &Graph, sum: &Sum, coefficient: f64, slope: &[Factor], x: Value) -> Option<Found> {
    match slope {
        [] => leaky_relu(coefficient, x),
        [Factor::Value(slope)] if near(coefficient, 1.0) && is_constant(graph, *slope) => {
            let shape = graph.shape(x);
            let axis = match varying_axes(sum.shape(graph, *slope), shape)?.as_slice() {
                [] => None,
                [axis] => Some(*axis),
                _ => return None,
            };
            let size = graph.shape(*slope).numel().known()?;
            let layout = match channel_layout(axis, shape) {
                Some(layout) => layout,
                None if size == 1 && shape.rank() >= 2 => crate::Layout::ChannelsLast,
                None => return None,
            };
            Some(Found { op: PRelu { layout }.into(), x, slope: Some((*slope, size)) })
        }
        _ => None,
    }
}

/// One thing where `x` is positive, another where it is negative.
fn selected(graph: &Graph, value: Value) -> Option<Found> {
    let condition = graph.input_of(value.node, 0)?;
    let (a, b) = operands(graph, condition)?;
    let Op::Binary(compare) = graph.op(condition.node) else { return None };
    let above = match compare {
        Binary::Greater | Binary::GreaterEqual => true,
        Binary::Less | Binary::LessEqual => false,
        _ => return None,
    };
    let (x, above) = match (is_zero(graph, a), is_zero(graph, b)) {
        (false, true) => (a, above),
        (true, false) => (b, !above),
        _ => return None,
    };
    let (yes, no) = (graph.input_of(value.node, 1)?, graph.input_of(value.node, 2)?);
    let (positive, negative) = if above { (yes, no) } else { (no, yes) };
    if positive == x && is_zero(graph, negative) {
        return Found::new(Unary::Relu, x);
    }
    if let Op::Elu(Elu { alpha: 1.0 }) = graph.op(positive.node)
        && graph.input_of(positive.node, 0) == Some(x)
    {
        let sum = expand(graph, negative, &|v| v == positive)?;
        let alpha = sum.coefficient(&[positive.into()]);
        let scaled = sum.is(&[(alpha, &[positive.into()])]);
        return if scaled { Found::new(Elu { alpha: tidy(alpha) }, x) } else { None };
    }
    if positive != x {
        return None;
    }
    let power = arithmetic(graph, negative)
        .into_iter()
        .find(|v| [Unary::Exp, Unary::Expm1].into_iter().any(|function| unary(graph, *v, function) == Some(x)));
    let sum = expand(graph, negative, &|v| v == x || Some(v) == power)?;
    if let Some(power) = power {
        let alpha = sum.coefficient(&[power.into()]);
        let exact = if unary(graph, power, Unary::Expm1).is_some() {
            sum.is(&[(alpha, &[power.into()])])
        } else {
            sum.is(&[(alpha, &[power.into()]), (-alpha, &[])])
        };
        return if exact { Found::new(Elu { alpha: tidy(alpha) }, x) } else { None };
    }
    match sum.terms.as_slice() {
        [term] => parametric(graph, &sum, term.coefficient, &term.without(&[x.into()])?, x),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
