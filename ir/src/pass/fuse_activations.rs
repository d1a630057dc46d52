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

use super::pattern::{arithmetic, binary, is_constant, near, number, operands, orders, tidy, unary, varying_axes};
use super::rewrite::{Scopes, backward, fuse, shaped};
use super::terms::{Factor, Sum, expand};
use super::{fuse_batch_norm::channel_layout, pattern::is_zero};
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
            let (x, limit) = super::pattern::with_number(graph, value, *kind)?;
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
                let leaky = sum.terms.len() == 2 && near(straight + bent, 1.0) && bent != 0.0;
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
mod tests {
    use super::super::testing::{Net, the};
    use super::*;
    use crate::op::Select;

    /// What is left of an expression of `x [N, 4, 3]`.
    fn left(build: impl Fn(&mut Net, Value) -> Value) -> Vec<String> {
        let mut net = Net::new();
        let x = net.x(&[4, 3]);
        let y = build(&mut net, x);
        net.ops(&[y], run)
    }

    fn erf_gate(net: &mut Net, x: Value, divide: bool) -> Value {
        let root = net.num(std::f32::consts::SQRT_2);
        let z = if divide { net.div(x, root) } else { net.times(std::f32::consts::FRAC_1_SQRT_2, x) };
        let erf = net.un(Unary::Erf, z);
        net.plus(1.0, erf)
    }

    fn cubic(net: &mut Net, x: Value, power: bool) -> Value {
        let cube = if power {
            let three = net.num(3.0);
            net.bin(Binary::Pow, x, three)
        } else {
            let square = net.un(Unary::Square, x);
            net.mul(square, x)
        };
        let cube = net.times(0.044715, cube);
        let sum = net.add(x, cube);
        net.times(0.797_884_6, sum)
    }

    #[test]
    fn gelu_in_every_association() {
        for order in 0..4 {
            for divide in [true, false] {
                let ops = left(|net, x| {
                    let gate = erf_gate(net, x, divide);
                    match order {
                        0 => {
                            let half = net.times(0.5, x);
                            net.mul(half, gate)
                        }
                        1 => {
                            let half = net.times(0.5, gate);
                            net.mul(x, half)
                        }
                        2 => {
                            let product = net.mul(gate, x);
                            net.times(0.5, product)
                        }
                        _ => {
                            let two = net.num(2.0);
                            let product = net.mul(gate, x);
                            net.div(product, two)
                        }
                    }
                });
                assert_eq!(ops, ["Gelu"]);
            }
        }
    }

    #[test]
    fn gelu_by_tanh() {
        for power in [true, false] {
            let ops = left(|net, x| {
                let z = cubic(net, x, power);
                let tanh = net.un(Unary::Tanh, z);
                let gate = net.plus(1.0, tanh);
                let half = net.times(0.5, gate);
                net.mul(x, half)
            });
            assert_eq!(ops, ["Gelu"]);
        }
        // The same with a sigmoid, and with x taken out of the brackets.
        let ops = left(|net, x| {
            let z = cubic(net, x, true);
            let double = net.times(2.0, z);
            let gate = net.un(Unary::Sigmoid, double);
            net.mul(gate, x)
        });
        assert_eq!(ops, ["Gelu"]);
        let ops = left(|net, x| {
            let square = net.mul(x, x);
            let square = net.times(0.044715, square);
            let bracket = net.plus(1.0, square);
            let scaled = net.times(0.797_884_6, x);
            let z = net.mul(scaled, bracket);
            let tanh = net.un(Unary::Tanh, z);
            let gate = net.plus(1.0, tanh);
            let product = net.mul(gate, x);
            net.times(0.5, product)
        });
        assert_eq!(ops, ["Gelu"]);
    }

    #[test]
    fn of_a_product_or_a_sum() {
        // The argument is arithmetic itself.
        let ops = left(|net, x| {
            let w = net.weight("w", &[3]);
            let scaled = net.mul(x, w);
            let x = net.add(scaled, x);
            let gate = net.un(Unary::Sigmoid, x);
            net.mul(x, gate)
        });
        assert_eq!(ops, ["Mul", "Add", "Silu"]);
    }

    #[test]
    fn gates() {
        let ops = left(|net, x| {
            let powers = net.un(Unary::Exp, x);
            let sum = net.plus(1.0, powers);
            let soft = net.un(Unary::Log, sum);
            let gate = net.un(Unary::Tanh, soft);
            net.mul(gate, x)
        });
        assert_eq!(ops, ["Mish"]);
        let ops = left(|net, x| {
            let negative = net.un(Unary::Neg, x);
            let powers = net.un(Unary::Exp, negative);
            let sum = net.plus(1.0, powers);
            let one = net.num(1.0);
            let gate = net.div(one, sum);
            net.mul(x, gate)
        });
        assert_eq!(ops, ["Silu"]);
        let ops = left(|net, x| {
            let size = net.un(Unary::Abs, x);
            let sum = net.plus(1.0, size);
            net.div(x, sum)
        });
        assert_eq!(ops, ["Softsign"]);
    }

    #[test]
    fn hard_forms() {
        for swish in [true, false] {
            for divide in [true, false] {
                let ops = left(|net, x| {
                    let moved = net.plus(3.0, x);
                    let zero = net.num(0.0);
                    let relu = net.bin(Binary::Maximum, zero, moved);
                    let six = net.num(6.0);
                    let gate = net.bin(Binary::Minimum, relu, six);
                    let y = if swish { net.mul(x, gate) } else { gate };
                    if divide { net.div(y, six) } else { net.times(1.0 / 6.0, y) }
                });
                assert_eq!(ops, [if swish { "HardSwish" } else { "HardSigmoid" }]);
            }
        }
    }

    #[test]
    fn leaky_relu() {
        let forms: [fn(&mut Net, Value) -> Value; 5] = [
            |net, x| {
                let scaled = net.times(0.2, x);
                net.bin(Binary::Maximum, x, scaled)
            },
            |net, x| {
                let scaled = net.times(0.2, x);
                net.bin(Binary::Maximum, scaled, x)
            },
            |net, x| {
                let size = net.un(Unary::Abs, x);
                let (a, b) = (net.times(0.6, x), net.times(0.4, size));
                net.add(a, b)
            },
            |net, x| {
                let zero = net.num(0.0);
                let positive = net.bin(Binary::Greater, x, zero);
                let scaled = net.times(0.2, x);
                net.op(Select {}, &[positive, x, scaled])
            },
            |net, x| {
                let zero = net.num(0.0);
                let negative = net.bin(Binary::Less, x, zero);
                let scaled = net.times(0.2, x);
                net.op(Select {}, &[negative, scaled, x])
            },
        ];
        for form in forms {
            let mut net = Net::new();
            let x = net.x(&[4, 3]);
            let y = form(&mut net, x);
            let graph = net.check(&[y], run);
            assert!(matches!(graph.op(the(&graph, "LeakyRelu")), Op::LeakyRelu(LeakyRelu { alpha: 0.2 })));
        }
    }

    #[test]
    fn prelu_in_all_forms() {
        let forms: [fn(&mut Net, Value, Value) -> Value; 5] = [
            |net, x, alpha| {
                let negative = net.un(Unary::Neg, x);
                let negative = net.un(Unary::Relu, negative);
                let negative = net.mul(alpha, negative);
                let positive = net.un(Unary::Relu, x);
                net.sub(positive, negative)
            },
            |net, x, alpha| {
                let size = net.un(Unary::Abs, x);
                let difference = net.sub(x, size);
                let scaled = net.mul(alpha, difference);
                let scaled = net.times(0.5, scaled);
                let positive = net.un(Unary::Relu, x);
                net.add(scaled, positive)
            },
            |net, x, alpha| {
                let zero = net.num(0.0);
                let negative = net.bin(Binary::Minimum, x, zero);
                let negative = net.mul(alpha, negative);
                let positive = net.bin(Binary::Maximum, zero, x);
                net.add(positive, negative)
            },
            |net, x, alpha| {
                let zero = net.num(0.0);
                let positive = net.bin(Binary::GreaterEqual, x, zero);
                let scaled = net.mul(alpha, x);
                net.op(Select {}, &[positive, x, scaled])
            },
            |net, x, alpha| {
                let negative = net.un(Unary::Neg, x);
                let negative = net.un(Unary::Relu, negative);
                let minus = net.un(Unary::Neg, alpha);
                let negative = net.mul(minus, negative);
                let positive = net.un(Unary::Relu, x);
                net.add(positive, negative)
            },
        ];
        for form in forms {
            for (sizes, layout) in
                [(&[3][..], "ChannelsLast"), (&[1, 1, 3], "ChannelsLast"), (&[3, 1, 1], "ChannelsFirst")]
            {
                let mut net = Net::new();
                let x = net.x(&[3, 3, 3]);
                let alpha = net.weight("alpha", sizes);
                let y = form(&mut net, x, alpha);
                let graph = net.check(&[y], run);
                let Op::PRelu(op) = graph.op(the(&graph, "PRelu")) else { panic!() };
                assert_eq!(format!("{:?}", op.layout), layout);
            }
        }
    }

    #[test]
    fn limits_of_both_sides() {
        let ops = left(|net, x| {
            let (low, high) = (net.num(-1.0), net.num(1.5));
            let y = net.bin(Binary::Minimum, x, high);
            net.bin(Binary::Maximum, y, low)
        });
        assert_eq!(ops, ["Clip"]);
        // Limits that cross are no range.
        let ops = left(|net, x| {
            let (low, high) = (net.num(1.0), net.num(-1.5));
            let y = net.bin(Binary::Minimum, x, high);
            net.bin(Binary::Maximum, y, low)
        });
        assert_eq!(ops, ["Clip", "Clip"]);
    }

    #[test]
    fn elu_with_another_limit() {
        let ops = left(|net, x| {
            let zero = net.num(0.0);
            let positive = net.bin(Binary::Greater, x, zero);
            let elu = net.op(Elu { alpha: 1.0 }, &[x]);
            let scaled = net.times(0.5, elu);
            net.op(Select {}, &[positive, elu, scaled])
        });
        assert_eq!(ops, ["Elu"]);
        let ops = left(|net, x| {
            let zero = net.num(0.0);
            let positive = net.bin(Binary::Less, zero, x);
            let powers = net.un(Unary::Exp, x);
            let one = net.num(1.0);
            let less = net.sub(powers, one);
            let scaled = net.times(0.5, less);
            net.op(Select {}, &[positive, x, scaled])
        });
        assert_eq!(ops, ["Elu"]);
    }

    #[test]
    fn near_misses_stay() {
        let untouched: [(fn(&mut Net, Value) -> Value, &[&str]); 6] = [
            // Slopes for which a maximum is no leaky relu.
            (
                |net, x| {
                    let scaled = net.times(1.5, x);
                    net.bin(Binary::Maximum, x, scaled)
                },
                &["Mul", "Maximum"],
            ),
            (
                |net, x| {
                    let scaled = net.times(0.5, x);
                    net.bin(Binary::Minimum, x, scaled)
                },
                &["Mul", "Minimum"],
            ),
            // A swish with another slope.
            (
                |net, x| {
                    let scaled = net.times(1.702, x);
                    let gate = net.un(Unary::Sigmoid, scaled);
                    net.mul(x, gate)
                },
                &["Mul", "Sigmoid", "Mul"],
            ),
            // Another number in the cubic.
            (
                |net, x| {
                    let cube = net.times(0.05, x);
                    let square = net.mul(x, x);
                    let cube = net.mul(square, cube);
                    let sum = net.add(x, cube);
                    let z = net.times(0.797_884_6, sum);
                    let tanh = net.un(Unary::Tanh, z);
                    let gate = net.plus(1.0, tanh);
                    let half = net.times(0.5, x);
                    net.mul(half, gate)
                },
                &["Mul", "Mul", "Mul", "Add", "Mul", "Tanh", "Add", "Mul", "Mul"],
            ),
            // Scaled by something else than 1/6.
            (
                |net, x| {
                    let moved = net.plus(3.0, x);
                    let gate = net.un(Unary::Relu6, moved);
                    net.times(0.2, gate)
                },
                &["Add", "Relu6", "Mul"],
            ),
            // The gate of another value.
            (
                |net, x| {
                    let other = net.plus(1.0, x);
                    let gate = net.un(Unary::Sigmoid, other);
                    net.mul(x, gate)
                },
                &["Add", "Sigmoid", "Mul"],
            ),
        ];
        for (form, ops) in untouched {
            let mut got = left(form);
            let mut want = ops.to_vec();
            got.sort();
            want.sort_unstable();
            assert_eq!(got, want);
        }
    }
}
