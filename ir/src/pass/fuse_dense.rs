//! Turns products with a constant matrix into dense layers.
//!
//! ```text
//! MatMul(x, W)                                   Dense(x, W)
//! MatMul(x, W) { transpose_b }                   Dense(x, W read with its axes swapped)
//! Transpose(MatMul(W, x) { transpose_b })        Dense(x, W read with its axes swapped)
//! MatMul(a, Transpose(b))                        MatMul(a, b) { transpose_b }
//! Einsum btc,cd->btd (x, W)                      Dense(x, W)
//! ```

use super::rewrite::{backward, view};
use crate::diagnostic::{Error, Result};
use crate::graph::{Graph, NodeId, Value};
use crate::op::{Dense, MatMul, Op, Transpose};

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize> {
    backward(graph, |graph, id| {
        let found = match graph.op(id).clone() {
            Op::Transpose(op) if graph.modules.is_empty() => of_transposed(graph, id, &op),
            Op::MatMul(op) => {
                let op = without_transposes(graph, id, op)?;
                of_matmul(graph, id, &op)
            }
            Op::Einsum(op) if graph.modules.is_empty() => of_einsum(graph, id, &op.equation),
            _ => None,
        };
        let Some((x, kernel, swap)) = found else { return Ok(false) };
        let kernel = if swap { swapped(graph, kernel)? } else { kernel };
        graph.replace_op(id, Dense {}, &[Some(x), Some(kernel)])?;
        Ok(true)
    })
}

/// Whether a value is a constant matrix.
fn is_matrix(graph: &Graph, value: Value) -> bool {
    graph.tensor(value).is_some_and(|tensor| tensor.rank() == 2)
}

/// The matrix with its axes swapped; other users keep theirs.
fn swapped(graph: &mut Graph, kernel: Value) -> Result<Value> {
    match graph.tensor(kernel).map(|tensor| tensor.permuted(&[1, 0])) {
        Some(tensor) => {
            let tensor = tensor.map_err(Error::new)?;
            Ok(view(graph, kernel, tensor))
        }
        None => Ok(kernel),
    }
}

/// Takes a transpose of the last two axes in front of an operand into the product.
fn without_transposes(graph: &mut Graph, id: NodeId, mut op: MatMul) -> Result<MatMul> {
    let mut inputs = graph.inputs_of(id);
    let mut changed = false;
    for (slot, flag) in [&mut op.transpose_a, &mut op.transpose_b].into_iter().enumerate() {
        if let Some(Some(input)) = inputs.get_mut(slot)
            && let Op::Transpose(transpose) = graph.op(input.node)
            && swaps_last(&transpose.perm)
            && let Some(source) = graph.input_of(input.node, 0)
        {
            *flag = !*flag;
            *input = source;
            changed = true;
        }
    }
    if changed {
        graph.replace_op(id, op.clone(), &inputs)?;
    }
    Ok(op)
}

fn swaps_last(perm: &[usize]) -> bool {
    let rank = perm.len();
    rank >= 2 && perm.iter().copied().eq((0..rank - 2).chain([rank - 1, rank - 2]))
}

fn of_matmul(graph: &Graph, id: NodeId, op: &MatMul) -> Option<(Value, Value, bool)> {
    let (x, kernel) = super::pattern::operands(graph, id.into())?;
    // A matrix that a module holds for its own product stands there as it is; layers' are transposed.
    let plain = !op.transpose_b && graph.is_state(kernel);
    let fits = !plain && !op.transpose_a && is_matrix(graph, kernel) && !is_matrix(graph, x);
    fits.then_some((x, kernel, op.transpose_b))
}

/// `(W x^T)^T = x W^T`
fn of_transposed(graph: &Graph, id: NodeId, op: &Transpose) -> Option<(Value, Value, bool)> {
    let product = graph.input_of(id, 0)?;
    let Op::MatMul(matmul) = graph.op(product.node) else { return None };
    let (kernel, mut x) = super::pattern::operands(graph, product)?;
    let mut transposed = matmul.transpose_b;
    if let Op::Transpose(transpose) = graph.op(x.node)
        && swaps_last(&transpose.perm)
    {
        x = graph.input_of(x.node, 0)?;
        transposed = !transposed;
    }
    let fits = op.perm == [1, 0] && transposed && is_matrix(graph, kernel) && graph.shape(x).rank() == 2;
    fits.then_some((x, kernel, !matmul.transpose_a))
}

/// A sum over the last axis of the first operand and an axis of a matrix, whose other axis comes last.
fn of_einsum(graph: &Graph, id: NodeId, equation: &str) -> Option<(Value, Value, bool)> {
    let (x, kernel) = super::pattern::operands(graph, id.into())?;
    let (terms, result) = equation.split_once("->")?;
    let (a, b) = terms.split_once(',')?;
    let (lead, inner) = a.split_at_checked(a.len().checked_sub(1)?)?;
    let outer = result.strip_prefix(lead)?;
    if !is_matrix(graph, kernel) || outer.len() != 1 || outer == inner || a.contains(outer) || lead.contains(inner) {
        return None;
    }
    if b == format!("{inner}{outer}") {
        Some((x, kernel, false))
    } else if b == format!("{outer}{inner}") {
        Some((x, kernel, true))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Net, ops, the};
    use super::*;
    use crate::op::Einsum;

    #[test]
    fn products_with_a_constant() {
        for transpose_b in [false, true] {
            for sizes in [&[4][..], &[6, 4]] {
                let mut net = Net::new();
                let x = net.x(sizes);
                let w = net.weight("w", if transpose_b { &[5, 4] } else { &[4, 5] });
                let y = net.op(MatMul { transpose_a: false, transpose_b }, &[x, w]);
                let graph = net.check(&[y], run);
                assert_eq!(ops(&graph), ["Dense"]);
                assert_eq!(graph.node(graph.input_of(the(&graph, "Dense"), 1).unwrap().node).name, "w");
            }
        }
    }

    #[test]
    fn the_weight_first() {
        let mut net = Net::new();
        let x = net.x(&[4]);
        let w = net.weight("w", &[5, 4]);
        let y = net.op(MatMul { transpose_a: false, transpose_b: true }, &[w, x]);
        let y = net.op(Transpose { perm: vec![1, 0] }, &[y]);
        let turned = net.op(Transpose { perm: vec![1, 0] }, &[x]);
        let z = net.op(MatMul { transpose_a: false, transpose_b: false }, &[w, turned]);
        let z = net.op(Transpose { perm: vec![1, 0] }, &[z]);
        assert_eq!(net.ops(&[y, z], run), ["Dense", "Dense"]);
    }

    #[test]
    fn a_shared_weight_keeps_its_other_users() {
        let mut net = Net::new();
        let x = net.x(&[6]);
        let w = net.weight("w", &[6, 4]);
        let y = net.op(MatMul { transpose_a: false, transpose_b: false }, &[x, w]);
        let z = net.op(MatMul { transpose_a: false, transpose_b: true }, &[y, w]);
        assert_eq!(net.ops(&[z], run), ["Dense", "Dense"]);
    }

    #[test]
    fn einsum_over_the_last_axis() {
        for (equation, sizes) in [("btc,cd->btd", [3, 5]), ("btc,dc->btd", [5, 3])] {
            let mut net = Net::new();
            let x = net.x(&[4, 3]);
            let w = net.weight("w", &sizes);
            let y = net.op(Einsum { equation: equation.to_owned() }, &[x, w]);
            assert_eq!(net.ops(&[y], run), ["Dense"]);
        }
        let mut net = Net::new();
        let x = net.x(&[4, 3]);
        let w = net.weight("w", &[5, 3]);
        let y = net.op(Einsum { equation: "bij,kj->bki".to_owned() }, &[x, w]);
        assert_eq!(net.ops(&[y], run), ["Einsum"]);
    }

    #[test]
    fn products_of_data_take_transposes_in() {
        let mut net = Net::new();
        let x = net.x(&[4, 3]);
        let turned = net.op(Transpose { perm: vec![0, 2, 1] }, &[x]);
        let y = net.op(MatMul { transpose_a: false, transpose_b: false }, &[x, turned]);
        assert_eq!(net.ops(&[y], run), ["MatMul"]);
        // The input turned, the kernel not: no dense layer.
        let mut net = Net::new();
        let x = net.x(&[4, 3]);
        let w = net.weight("w", &[4, 5]);
        let y = net.op(MatMul { transpose_a: true, transpose_b: false }, &[x, w]);
        assert_eq!(net.ops(&[y], run), ["MatMul"]);
    }
}
