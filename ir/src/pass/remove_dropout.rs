//! Recognises dropout in all its written forms: random numbers, a comparison with the rate, a scaled product.
//!
//! ```text
//! x -> Div keep -> Mul(Floor(Add(RandomUniform, keep)))                       x -> Dropout { rate }
//! x -> Mul 1/keep -> Mul(Cast(GreaterEqual(RandomUniform, rate)))             x -> Dropout { rate }
//! Select(GreaterEqual(RandomUniform, rate), x -> Div keep, 0)                 x -> Dropout { rate }
//! ```
//!
//! A rate that is fed (a placeholder for `keep_prob`) is not known: the dropout gets the rate 0.5 and the input goes.
//! Where the scale does not make up for what is dropped, the network would compute something else at inference; such
//! an expression is left, and its random operator is reported.

use super::pattern::{binary, is_zero, near, number, operands, tidy, unary};
use super::rewrite::{Scopes, backward, fuse};
use super::terms::{Factor, expand};
use crate::diagnostic::Result;
use crate::graph::{Graph, NodeId, Value};
use crate::op::{Binary, Dropout, Op, Unary};

/// The rate where the graph does not tell it.
const UNKNOWN_RATE: f64 = 0.5;
/// Nodes between a product and its random numbers.
const DEPTH: usize = 8;

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize> {
    let fed: Vec<NodeId> = graph.inputs.iter().map(|port| port.value.node).filter(|&id| is_used(graph, id)).collect();
    let scopes = Scopes::of(graph);
    let count = backward(graph, |graph, id| {
        let Some((x, rate)) = find(graph, id.into()) else { return Ok(false) };
        if rate == 0.0 {
            graph.replace_uses(id.into(), x);
        } else {
            fuse(graph, &scopes, id, Dropout { rate: tidy(rate) }, &[Some(x)])?;
        }
        Ok(true)
    })?;
    if count > 0 {
        graph.prune();
        let unfed: Vec<NodeId> = fed.into_iter().filter(|&id| !is_used(graph, id)).collect();
        graph.inputs.retain(|port| !unfed.contains(&port.value.node));
    }
    Ok(count)
}

fn is_used(graph: &Graph, id: NodeId) -> bool {
    graph.uses(id.into()) > 0
}

/// Which elements are kept.
struct Mask {
    /// The probability that an element is; `None` if it comes from a number that is fed.
    keep: Option<f64>,
}

/// What is dropped out, and at which rate.
fn find(graph: &Graph, value: Value) -> Option<(Value, f64)> {
    let (mask, scaled, stop) = match graph.op(value.node) {
        Op::Select(_) => {
            let condition = graph.input_of(value.node, 0)?;
            let (a, b) = (graph.input_of(value.node, 1)?, graph.input_of(value.node, 2)?);
            if is_zero(graph, b) {
                (threshold(graph, condition)?, a, None)
            } else if is_zero(graph, a) {
                let Mask { keep } = threshold(graph, condition)?;
                (Mask { keep: keep.map(|keep| 1.0 - keep) }, b, None)
            } else {
                return None;
            }
        }
        Op::Binary(Binary::Mul | Binary::Div) => {
            let factor = factors(graph, value).into_iter().find(|v| is_random(graph, *v))?;
            (mask(graph, factor)?, value, Some(factor))
        }
        _ => return None,
    };
    // The largest part of the product that is left when mask and scale are taken away.
    for x in factors(graph, scaled) {
        if Some(x) == stop || graph.shape(x) != graph.shape(value) || is_random(graph, x) && stop.is_some() {
            continue;
        }
        let Some(sum) = expand(graph, scaled, &|v| v == x || Some(v) == stop) else { continue };
        let [term] = sum.terms.as_slice() else { continue };
        let mut wanted = vec![x.into()];
        wanted.extend(stop.map(Factor::from));
        let Some(rest) = term.without(&wanted) else { continue };
        match mask.keep {
            Some(keep) if rest.is_empty() && near(term.coefficient * keep, 1.0) && 0.0 < keep && keep <= 1.0 => {
                return Some((x, 1.0 - keep));
            }
            None if !rest.is_empty() && rest.iter().all(|factor| is_fed_factor(graph, *factor)) => {
                return Some((x, UNKNOWN_RATE));
            }
            _ => {}
        }
    }
    None
}

fn is_fed_factor(graph: &Graph, factor: Factor) -> bool {
    match factor {
        Factor::Value(v) | Factor::Inverse(v) | Factor::Root(v) | Factor::InverseRoot(v) => is_fed_number(graph, v),
    }
}

/// The values of a tree of products, from the outside in.
fn factors(graph: &Graph, value: Value) -> Vec<Value> {
    let mut found = vec![value];
    let mut next = 0;
    while let Some(&at) = found.get(next) {
        next += 1;
        if let Op::Binary(Binary::Mul | Binary::Div) = graph.op(at.node)
            && found.len() < DEPTH * 2
        {
            found.extend(graph.inputs_of(at.node).into_iter().flatten());
        }
    }
    found
}

/// Whether a value is random itself: a function of random numbers, without a product with data.
fn is_random(graph: &Graph, mut value: Value) -> bool {
    for _ in 0..DEPTH {
        value = match graph.op(value.node) {
            Op::Foreign(op) => return op.op.contains("Random"),
            Op::Unary(Unary::Floor) | Op::Cast(_) => match graph.input_of(value.node, 0) {
                Some(input) => input,
                None => return false,
            },
            Op::Binary(_) => match operands(graph, value) {
                Some((a, b)) if is_rate(graph, b) => a,
                Some((a, b)) if is_rate(graph, a) => b,
                _ => return false,
            },
            _ => return false,
        };
    }
    false
}

/// A number, or one that is fed.
fn is_rate(graph: &Graph, value: Value) -> bool {
    number(graph, value).is_some() || is_fed_number(graph, value)
}

/// Whether a value without axes depends on fed numbers and constants alone.
fn is_fed_number(graph: &Graph, value: Value) -> bool {
    let mut stack = vec![value];
    for _ in 0..DEPTH * 2 {
        let Some(at) = stack.pop() else { return true };
        if graph.shape(at).rank() != 0 || matches!(graph.op(at.node), Op::Foreign(_)) {
            return false;
        }
        stack.extend(graph.inputs_of(at.node).into_iter().flatten());
    }
    false
}

/// A factor that is 1 where an element is kept and else 0.
fn mask(graph: &Graph, value: Value) -> Option<Mask> {
    if let Some(sum) = unary(graph, value, Unary::Floor) {
        // floor(keep + uniform)
        let (a, b) = binary(graph, sum, Binary::Add)?;
        let keep = if is_uniform(graph, a) {
            b
        } else if is_uniform(graph, b) {
            a
        } else {
            return None;
        };
        return rate(graph, keep);
    }
    match graph.op(value.node) {
        Op::Cast(_) => threshold(graph, graph.input_of(value.node, 0)?),
        _ => None,
    }
}

/// A comparison of uniform random numbers with the rate.
fn threshold(graph: &Graph, value: Value) -> Option<Mask> {
    let Op::Binary(op) = graph.op(value.node) else { return None };
    let (a, b) = operands(graph, value)?;
    let (limit, swapped) = if is_uniform(graph, a) {
        (b, false)
    } else if is_uniform(graph, b) {
        (a, true)
    } else {
        return None;
    };
    let above = match op {
        Binary::Greater | Binary::GreaterEqual => !swapped,
        Binary::Less | Binary::LessEqual => swapped,
        _ => return None,
    };
    let Mask { keep } = rate(graph, limit)?;
    Some(Mask { keep: if above { keep.map(|rate| 1.0 - rate) } else { keep } })
}

fn rate(graph: &Graph, value: Value) -> Option<Mask> {
    match number(graph, value) {
        Some(rate) => Some(Mask { keep: Some(rate) }),
        None => is_fed_number(graph, value).then_some(Mask { keep: None }),
    }
}

/// Uniform random numbers from 0 to 1, with the scaling by 1 and the shift by 0 that `tf.random.uniform` writes.
fn is_uniform(graph: &Graph, mut value: Value) -> bool {
    for _ in 0..DEPTH {
        if let Op::Foreign(op) = graph.op(value.node) {
            return op.op.contains("RandomUniform");
        }
        let Some((a, b)) = operands(graph, value) else { return false };
        let neutral = match graph.op(value.node) {
            Op::Binary(Binary::Mul) => 1.0,
            Op::Binary(Binary::Add) => 0.0,
            _ => return false,
        };
        value = match (number(graph, a), number(graph, b)) {
            (_, Some(n)) if n == neutral => a,
            (Some(n), _) if n == neutral => b,
            _ => return false,
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Net, ops, the};
    use super::*;
    use crate::op::{Cast, Select};
    use crate::shape::Shape;
    use crate::tensor::DType;

    /// Runs the pass, checks that the result is `x`, and returns the rate; `None` if nothing of dropout is left.
    fn rate(mut net: Net, x: Value, y: Value) -> Option<f32> {
        let y = net.un(Unary::Neg, y);
        net.graph.output("y", y);
        let mut graph = net.graph;
        assert_eq!(run(&mut graph).unwrap(), 1);
        // A division by a probability of 1 may be left.
        super::super::remove_noops::run(&mut graph).unwrap();
        graph.prune();
        graph.refresh().unwrap();
        let end = graph.input_of(the(&graph, "Neg"), 0).unwrap();
        assert_eq!(graph.inputs.len(), 1);
        match graph.op(end.node) {
            Op::Dropout(op) => {
                assert_eq!((graph.input_of(end.node, 0), ops(&graph).len()), (Some(x), 2));
                Some(op.rate)
            }
            _ => {
                assert_eq!(end, x);
                None
            }
        }
    }

    fn keep_form(net: &mut Net, x: Value, keep: Value, swap: bool) -> Value {
        let random = net.random_uniform(x);
        let sum = if swap { net.add(keep, random) } else { net.add(random, keep) };
        let mask = net.un(Unary::Floor, sum);
        let scaled = net.div(x, keep);
        if swap { net.mul(mask, scaled) } else { net.mul(scaled, mask) }
    }

    #[test]
    fn by_floor() {
        for swap in [true, false] {
            let mut net = Net::new();
            let x = net.x(&[4]);
            let keep = net.num(0.8);
            let y = keep_form(&mut net, x, keep, swap);
            assert_eq!(rate(net, x, y), Some(0.2));
        }
        let mut net = Net::new();
        let x = net.x(&[4]);
        let keep = net.num(1.0);
        let y = keep_form(&mut net, x, keep, false);
        assert_eq!(rate(net, x, y), None);
    }

    #[test]
    fn by_comparison() {
        for (compare, limit, first) in [
            (Binary::GreaterEqual, 0.4, true),
            (Binary::Greater, 0.4, true),
            (Binary::Less, 0.6, true),
            (Binary::LessEqual, 0.4, false),
        ] {
            for select in [true, false] {
                let mut net = Net::new();
                let x = net.x(&[4]);
                let random = net.random_uniform(x);
                // What tf.random.uniform adds.
                let random = net.times(1.0, random);
                let random = net.plus(0.0, random);
                let limit = net.num(limit);
                let kept = if first { net.bin(compare, random, limit) } else { net.bin(compare, limit, random) };
                let scaled = net.times(1.0 / 0.6, x);
                let y = if select {
                    let zero = net.num(0.0);
                    net.op(Select {}, &[kept, scaled, zero])
                } else {
                    let mask = net.op(Cast { dtype: DType::Float32 }, &[kept]);
                    net.mul(mask, scaled)
                };
                assert_eq!(rate(net, x, y), Some(0.4));
            }
        }
    }

    #[test]
    fn a_rate_that_is_fed() {
        let mut net = Net::new();
        let x = net.x(&[4]);
        let keep = net.graph.input("keep_prob", DType::Float32, Shape::scalar()).unwrap();
        let y = keep_form(&mut net, x, keep, false);
        assert_eq!(rate(net, x, y), Some(0.5));
        let mut net = Net::new();
        let x = net.x(&[4]);
        let keep = net.graph.input("keep_prob", DType::Float32, Shape::scalar()).unwrap();
        let one = net.num(1.0);
        let dropped = net.sub(one, keep);
        let kept = net.sub(one, dropped);
        let scale = net.div(one, kept);
        let scaled = net.mul(x, scale);
        let random = net.random_uniform(x);
        let mask = net.bin(Binary::GreaterEqual, random, dropped);
        let mask = net.op(Cast { dtype: DType::Float32 }, &[mask]);
        let y = net.mul(scaled, mask);
        assert_eq!(rate(net, x, y), Some(0.5));
    }

    #[test]
    fn the_input_may_be_a_product() {
        let mut net = Net::new();
        let input = net.x(&[4]);
        let w = net.weight("w", &[4]);
        let x = net.mul(input, w);
        let keep = net.num(0.5);
        let y = keep_form(&mut net, x, keep, true);
        let y = net.un(Unary::Neg, y);
        net.graph.output("y", y);
        run(&mut net.graph).unwrap();
        net.graph.prune();
        assert_eq!(ops(&net.graph), ["Mul", "Dropout", "Neg"]);
    }

    #[test]
    fn near_misses_stay() {
        // Not scaled, scaled by something else, not uniform.
        for (scale, name) in [(1.0, "RandomUniform"), (3.0, "RandomUniform"), (2.0, "RandomStandardNormal")] {
            let mut net = Net::new();
            let x = net.x(&[4]);
            let random = net.random_uniform(x);
            if let Op::Foreign(op) = net.graph.op_mut(random.node) {
                op.op = name.to_owned();
            }
            let half = net.plus(0.5, random);
            let mask = net.un(Unary::Floor, half);
            let scaled = net.times(scale, x);
            let y = net.mul(scaled, mask);
            net.graph.output("y", y);
            assert_eq!(run(&mut net.graph).unwrap(), 0);
        }
    }
}
