//! A tensor of equal numbers that something of the full shape is computed with is a number.
//!
//! ```text
//! Select(mask, Mul(Fill [N, T, T] with 1, -1e9), x [N, T, T])      Select(mask, -1e9, x)
//! ```
//!
//! TensorFlow's `where` asked for operands of one shape, so that its users filled tensors (`tf.ones_like`).

use super::pattern::{number, orders};
use super::rewrite::forward;
use crate::diagnostic::Result;
use crate::graph::{Graph, NodeId, Value};
use crate::op::{Binary, Fill, Op};
use crate::shape::{Shape, broadcast};
use crate::tensor::Tensor;

/// Runs the pass. Where the source has modules it stays as it is.
pub fn run(graph: &mut Graph) -> Result<usize> {
    if !graph.modules.is_empty() {
        return Ok(0);
    }
    forward(graph, |graph, id| {
        if let Some((like, fill)) = scaled(graph, id) {
            let inputs: Vec<Option<Value>> = like.into_iter().map(Some).collect();
            graph.replace_op(id, fill, &inputs)?;
            return Ok(true);
        }
        let Some((slot, fill)) = narrowed(graph, id) else { return Ok(false) };
        let name = format!("{}/number", graph.node(id).name);
        let number = graph.constant(&name, Tensor::from_f64(fill.dtype, &[], [f64::from(fill.value)]));
        let mut inputs = graph.inputs_of(id);
        inputs[slot] = Some(number);
        let op = graph.op(id).clone();
        graph.replace_op(id, op, &inputs)?;
        Ok(true)
    })
}

/// A fill times a number, as a fill, and what tells its size.
fn scaled(graph: &Graph, id: NodeId) -> Option<(Option<Value>, Fill)> {
    orders(graph, id.into(), Binary::Mul).into_iter().find_map(|(filled, factor)| {
        let Op::Fill(fill) = graph.op(filled.node) else { return None };
        let value = (f64::from(fill.value) * number(graph, factor)?) as f32;
        let fits = fill.shape.rank() > 0 && fill.dtype.is_float();
        fits.then(|| (graph.input_of(filled.node, 0), Fill { value, ..fill.clone() }))
    })
}

/// An operand that is a fill, where the others have the shape of the result without it.
fn narrowed(graph: &Graph, id: NodeId) -> Option<(usize, Fill)> {
    let first = match graph.op(id) {
        Op::Select(_) => 1,
        Op::Binary(_) => 0,
        _ => return None,
    };
    let inputs: Vec<Value> = graph.inputs_of(id).into_iter().flatten().collect();
    inputs.iter().enumerate().skip(first).find_map(|(slot, input)| {
        let Op::Fill(fill) = graph.op(input.node) else { return None };
        let others = inputs.iter().enumerate().filter(|(other, _)| *other != slot).map(|(_, value)| *value);
        let common = others.clone().try_fold(Shape::scalar(), |all, value| broadcast(&all, graph.shape(value)).ok())?;
        // A number beside numbers would lose the element type.
        let data =
            others.skip(first).all(|value| graph.tensor(value).is_none() && graph.info(value).dtype == fill.dtype);
        let fits = fill.shape.rank() > 0 && data && common == *graph.shape(id.into()) && common.is_determined();
        fits.then(|| (slot, fill.clone()))
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Net, batch};
    use super::*;
    use crate::op::Select;
    use crate::tensor::DType;

    fn fill(net: &mut Net, x: Value, sizes: &[usize], value: f32) -> Value {
        net.op(Fill { shape: batch(sizes), value, dtype: DType::Float32 }, &[x])
    }

    #[test]
    fn what_a_mask_puts_in_place_is_a_number() {
        let mut net = Net::new();
        let x = net.x(&[4, 4]);
        let ones = fill(&mut net, x, &[4, 4], 1.0);
        let low = net.times(-1e3, ones);
        let zero = net.num(0.0);
        let mask = net.bin(Binary::Less, x, zero);
        let y = net.op(Select {}, &[mask, low, x]);
        let ops = net.ops(&[y], run);
        assert_eq!(ops, ["Less", "Select"]);
    }

    #[test]
    fn a_fill_that_makes_the_shape_stays() {
        let mut net = Net::new();
        let x = net.x(&[1, 4]);
        let ones = fill(&mut net, x, &[3, 4], 2.0);
        let y = net.add(x, ones);
        let ops = net.ops(&[y], run);
        assert!(ops.contains(&"Fill".to_owned()), "{ops:?}");
    }
}
