//! Recognises softmax and its logarithm written out, with and without the maximum that keeps the powers small.
//!
//! ```text
//! Exp(x - Max(x)) / Sum(Exp(x - Max(x)))      x -> Softmax
//! x - Max(x) - Log(Sum(Exp(x - Max(x))))      x -> LogSoftmax
//! x - LogSumExp(x)                            x -> LogSoftmax
//! ```

use super::pattern::{arithmetic, binary, reduction, unary};
use super::rewrite::{Scopes, backward, fuse};
use super::terms::expand;
use crate::diagnostic::Result;
use crate::graph::{Graph, Value};
use crate::op::{Binary, LogSoftmax, Op, ReduceKind, Softmax, Unary};

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize> {
    let scopes = Scopes::of(graph);
    backward(graph, |graph, id| {
        let op: Option<(Op, Value)> = if let Some((x, axis)) = softmax(graph, id.into()) {
            Some((Softmax { axis }.into(), x))
        } else {
            log_softmax(graph, id.into()).map(|(x, axis)| (LogSoftmax { axis }.into(), x))
        };
        let Some((op, x)) = op else { return Ok(false) };
        fuse(graph, &scopes, id, op, &[Some(x)])?;
        Ok(true)
    })
}

/// What is reduced over a single axis.
fn along(graph: &Graph, value: Value, kind: ReduceKind) -> Option<(Value, usize)> {
    match reduction(graph, value, kind)? {
        (x, axes) if axes.len() == 1 => Some((x, axes.first().copied()?)),
        _ => None,
    }
}

fn softmax(graph: &Graph, value: Value) -> Option<(Value, usize)> {
    let (powers, sum) = binary(graph, value, Binary::Div)?;
    let (summed, axis) = along(graph, sum, ReduceKind::Sum)?;
    let exponent = unary(graph, powers, Unary::Exp)?;
    (summed == powers).then(|| (without_maximum(graph, exponent, axis), axis))
}

/// `x` of `x - Max(x)`, else the value itself.
fn without_maximum(graph: &Graph, value: Value, axis: usize) -> Value {
    match binary(graph, value, Binary::Sub) {
        Some((x, max)) if along(graph, max, ReduceKind::Max) == Some((x, axis)) => x,
        _ => value,
    }
}

fn log_softmax(graph: &Graph, value: Value) -> Option<(Value, usize)> {
    if !matches!(graph.op(value.node), Op::Binary(Binary::Sub | Binary::Add)) {
        return None;
    }
    for part in arithmetic(graph, value) {
        if let Some((x, axis)) = along(graph, part, ReduceKind::LogSumExp) {
            let sum = expand(graph, value, &|v| v == x || v == part)?;
            return sum.is(&[(1.0, &[x.into()]), (-1.0, &[part.into()])]).then_some((x, axis));
        }
        let Some(total) = unary(graph, part, Unary::Log) else { continue };
        let Some((powers, axis)) = along(graph, total, ReduceKind::Sum) else { continue };
        let Some(exponent) = unary(graph, powers, Unary::Exp) else { continue };
        let x = without_maximum(graph, exponent, axis);
        let sum = expand(graph, value, &|v| v == exponent || v == part)?;
        if sum.is(&[(1.0, &[exponent.into()]), (-1.0, &[part.into()])]) {
            return Some((x, axis));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Net, the};
    use super::*;

    fn powers(net: &mut Net, x: Value, stable: bool) -> (Value, Value) {
        let exponent = if stable {
            let max = net.reduce(ReduceKind::Max, x, &[2]);
            net.sub(x, max)
        } else {
            x
        };
        (exponent, net.un(Unary::Exp, exponent))
    }

    #[test]
    fn written_out() {
        for stable in [true, false] {
            let mut net = Net::new();
            let x = net.x(&[4, 5]);
            let (exponent, powers) = powers(&mut net, x, stable);
            let sum = net.reduce(ReduceKind::Sum, powers, &[2]);
            let y = net.div(powers, sum);
            let log = net.un(Unary::Log, sum);
            let z = net.sub(exponent, log);
            let graph = net.check(&[y, z], run);
            assert!(matches!(graph.op(the(&graph, "Softmax")), Op::Softmax(Softmax { axis: 2 })));
            for op in ["Softmax", "LogSoftmax"] {
                assert_eq!(graph.input_of(the(&graph, op), 0), Some(x));
            }
        }
    }

    #[test]
    fn from_log_sum_exp() {
        let mut net = Net::new();
        let x = net.x(&[4, 5]);
        let sum = net.reduce(ReduceKind::LogSumExp, x, &[1]);
        let y = net.sub(x, sum);
        assert_eq!(net.ops(&[y], run), ["LogSoftmax"]);
    }

    #[test]
    fn near_misses_stay() {
        // Two axes; the sum of something else.
        let mut net = Net::new();
        let x = net.x(&[4, 5]);
        let (_, powers) = powers(&mut net, x, false);
        let sum = net.reduce(ReduceKind::Sum, powers, &[1, 2]);
        let y = net.div(powers, sum);
        let shifted = net.plus(20.0, x);
        let sum = net.reduce(ReduceKind::Sum, shifted, &[2]);
        let z = net.div(powers, sum);
        let ops = net.ops(&[y, z], run);
        assert!(!ops.contains(&"Softmax".to_owned()), "{ops:?}");
    }
}
