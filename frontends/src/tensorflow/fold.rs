//! Constants that are computed from constants, for attributes: axes, paddings, sizes.

use modelport_ir::eval::{self, Array};
use modelport_ir::{Graph, Op, Tensor, Value};
use ndarray::{ArrayD, IxDyn};

use crate::symbolic::{Elem, MAX_ELEMENTS, Sizes};

/// How many operators deep an attribute may be computed.
const MAX_DEPTH: usize = 32;
/// How many operators an attribute may be computed by.
const MAX_STEPS: usize = 256;

/// The elements of a value, when it is a small constant or computed from such.
pub fn fold(graph: &Graph, value: Value) -> Option<Sizes> {
    let mut steps = 0;
    let dtype = graph.info(value).dtype;
    let (shape, elems): (Vec<usize>, Vec<Elem>) = match evaluate(graph, value, 0, &mut steps)? {
        Array::Float(array, _) => (array.shape().to_vec(), array.iter().map(|&x| Elem::Real(x)).collect()),
        Array::Int(array, _) => (array.shape().to_vec(), array.iter().map(|&i| Elem::Int(i)).collect()),
        Array::Bool(array) => (array.shape().to_vec(), array.iter().map(|&b| Elem::Int(i64::from(b))).collect()),
    };
    Some(Sizes { dtype, elems: ArrayD::from_shape_vec(IxDyn(&shape), elems).ok()?, like: None })
}

fn evaluate(graph: &Graph, value: Value, depth: usize, steps: &mut usize) -> Option<Array> {
    *steps += 1;
    let sizes = graph.shape(value).sizes()?;
    let small = modelport_ir::tensor::numel(&sizes).is_some_and(|n| n <= MAX_ELEMENTS);
    if depth > MAX_DEPTH || *steps > MAX_STEPS || !small {
        return None;
    }
    match graph.op(value.node) {
        Op::Constant(constant) => array(&constant.tensor),
        Op::Input(_) | Op::Foreign(_) => None,
        op => {
            let inputs: Vec<Option<Array>> = graph
                .inputs_of(value.node)
                .into_iter()
                .map(|input| match input {
                    Some(input) => evaluate(graph, input, depth + 1, steps).map(Some),
                    None => Some(None),
                })
                .collect::<Option<_>>()?;
            let inputs: Vec<Option<&Array>> = inputs.iter().map(Option::as_ref).collect();
            eval::apply(op, &inputs).ok()?.into_iter().nth(value.output)
        }
    }
}

fn array(tensor: &Tensor) -> Option<Array> {
    let shape = IxDyn(&tensor.shape());
    Some(if tensor.dtype().is_float() {
        Array::Float(ArrayD::from_shape_vec(shape, tensor.to_f64().ok()?).ok()?, tensor.dtype())
    } else {
        let ints = tensor.to_i64().ok()?;
        match tensor.dtype() {
            modelport_ir::DType::Bool => {
                Array::Bool(ArrayD::from_shape_vec(shape, ints.into_iter().map(|i| i != 0).collect()).ok()?)
            }
            dtype => Array::Int(ArrayD::from_shape_vec(shape, ints).ok()?, dtype),
        }
    })
}
