//! Recognises the division of a value by its own length.
//!
//! ```text
//! x * rsqrt(Maximum(Sum(x * x), eps))      x -> L2Normalize { epsilon: eps }
//! x / Maximum(ReduceL2(x), eps)            x -> L2Normalize { epsilon: eps ^ 2 }
//! x / Sqrt(Sum(Square(x)))                 x -> L2Normalize { epsilon: 0 }
//! ```

use super::pattern::{number, orders, reduction, squared, tidy, unary};
use super::rewrite::{Scopes, backward, fuse};
use super::terms::{Factor, expand};
use crate::diagnostic::Result;
use crate::graph::{Graph, Value};
use crate::op::{Binary, Clip, L2Normalize, Op, ReduceKind, Unary};

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize> {
    let scopes = Scopes::of(graph);
    backward(graph, |graph, id| {
        let Some((x, op)) = find(graph, id.into()) else { return Ok(false) };
        fuse(graph, &scopes, id, op, &[Some(x)])?;
        Ok(true)
    })
}

fn find(graph: &Graph, value: Value) -> Option<(Value, L2Normalize)> {
    if !matches!(graph.op(value.node), Op::Binary(Binary::Mul | Binary::Div)) {
        return None;
    }
    let (a, b) = super::pattern::operands(graph, value)?;
    for (x, scale) in [(a, b), (b, a)] {
        let Some(sum) = expand(graph, value, &|v| v == x) else { continue };
        let [term] = sum.terms.as_slice() else { continue };
        let Some(rest) = term.without(&[x.into()]).filter(|_| term.coefficient == 1.0) else { continue };
        let found = match rest.as_slice() {
            [Factor::InverseRoot(squares)] => {
                let (squares, epsilon) = at_least(graph, *squares);
                sum_of_squares(graph, squares).map(|(found, axes)| (found, axes, epsilon))
            }
            [Factor::Inverse(length)] => {
                let (length, epsilon) = at_least(graph, *length);
                length_of(graph, length).map(|(found, axes)| (found, axes, epsilon * epsilon))
            }
            _ => None,
        };
        if let Some((found, axes, epsilon)) = found
            && found == x
            && scale != x
        {
            return Some((x, L2Normalize { axes, epsilon: tidy(epsilon) }));
        }
    }
    None
}

/// The value and its lower limit, 0 if there is none.
fn at_least(graph: &Graph, value: Value) -> (Value, f64) {
    if let Op::Clip(Clip { min: Some(min), max: None }) = graph.op(value.node)
        && let Some(x) = graph.input_of(value.node, 0)
    {
        return (x, f64::from(*min));
    }
    let limited = orders(graph, value, Binary::Maximum).into_iter().find_map(|(x, min)| Some((x, number(graph, min)?)));
    limited.filter(|(_, min)| *min >= 0.0).unwrap_or((value, 0.0))
}

fn sum_of_squares(graph: &Graph, value: Value) -> Option<(Value, Vec<usize>)> {
    let (squares, axes) = reduction(graph, value, ReduceKind::Sum)?;
    Some((squared(graph, squares)?, axes))
}

fn length_of(graph: &Graph, value: Value) -> Option<(Value, Vec<usize>)> {
    match unary(graph, value, Unary::Sqrt) {
        Some(squares) => sum_of_squares(graph, squares),
        None => reduction(graph, value, ReduceKind::L2),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Net, the};
    use super::*;

    #[test]
    fn the_form_of_tensorflow() {
        for axes in [&[3][..], &[1, 2]] {
            let mut net = Net::new();
            let x = net.x(&[3, 4, 5]);
            let squares = net.un(Unary::Square, x);
            let sum = net.reduce(ReduceKind::Sum, squares, axes);
            let epsilon = net.num(1e-12);
            let max = net.bin(Binary::Maximum, sum, epsilon);
            let r = net.un(Unary::Rsqrt, max);
            let y = net.mul(r, x);
            let graph = net.check(&[y], run);
            let Op::L2Normalize(op) = graph.op(the(&graph, "L2Normalize")) else { panic!() };
            assert_eq!((op.axes.as_slice(), op.epsilon), (axes, 1e-12));
        }
    }

    #[test]
    fn by_the_length() {
        let mut net = Net::new();
        let x = net.x(&[6]);
        let length = net.reduce(ReduceKind::L2, x, &[1]);
        let y = net.div(x, length);
        let epsilon = net.num(0.5);
        let limited = net.bin(Binary::Maximum, epsilon, length);
        let z = net.div(x, limited);
        let squares = net.mul(x, x);
        let sum = net.reduce(ReduceKind::Sum, squares, &[1]);
        let root = net.un(Unary::Sqrt, sum);
        let w = net.div(x, root);
        assert_eq!(net.ops(&[y, z, w], run), ["L2Normalize"; 3]);
    }

    #[test]
    fn near_misses_stay() {
        let mut net = Net::new();
        let x = net.x(&[6]);
        let squares = net.mul(x, x);
        let mean = net.reduce(ReduceKind::Mean, squares, &[1]);
        let r = net.un(Unary::Rsqrt, mean);
        let y = net.mul(x, r);
        let other = net.plus(1.0, x);
        let squares = net.un(Unary::Square, other);
        let sum = net.reduce(ReduceKind::Sum, squares, &[1]);
        let r = net.un(Unary::Rsqrt, sum);
        let z = net.mul(x, r);
        let ops = net.ops(&[y, z], run);
        assert!(!ops.contains(&"L2Normalize".to_owned()), "{ops:?}");
    }
}
