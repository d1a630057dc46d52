//! The weights of a state dict in the place of those that a graph has.

use std::collections::HashMap;
use std::path::Path;

use modelport_ir::{Error, Graph, NodeId, Op, Problem, Result, Tensor};

use super::state::StateDict;

/// Puts the tensors of `state` into the place of `parameters`, the parameters and buffers of a graph by key. Element
/// types stay the graph's. A counter or a buffer that the state dict does not have stays as it is.
///
/// # Errors
/// Everything that does not match: what is missing, what is surplus, and shapes that differ.
pub fn fill<'a>(
    parameters: impl IntoIterator<Item = (&'a str, &'a mut Tensor)>,
    state: &StateDict,
    graph: &Path,
) -> Result<()> {
    let parameters: Vec<(&str, &mut Tensor)> = parameters.into_iter().collect();
    let keys: Vec<&str> = parameters.iter().map(|(key, _)| *key).collect();
    let variant = variant(&keys, state);
    let mut left: HashMap<&str, &Tensor> = variant.tensors.iter().map(|(key, tensor)| (key.as_str(), tensor)).collect();
    let mut problems = Vec::new();
    for (key, own) in parameters {
        match left.remove(key) {
            Some(tensor) if tensor.shape() == own.shape() => *own = tensor.cast(own.dtype()),
            Some(tensor) => {
                let message =
                    format!("the graph wants the shape {:?}, the weights have {:?}", own.shape(), tensor.shape());
                problems.push(Problem::new(message).file(&state.path).node(key));
            }
            None if is_optional(key) => {}
            None => {
                let message = format!("the weights lack a parameter that {} has", file_name(graph));
                problems.push(Problem::new(message).file(&state.path).node(key));
            }
        }
    }
    for key in variant.tensors.keys().filter(|key| left.contains_key(key.as_str())) {
        let message = format!("the weights have what {} has not", file_name(graph));
        problems.push(Problem::new(message).file(&state.path).node(key));
    }
    Error::collect(problems)
}

/// The same for a neutral graph whose constants are named by their keys.
///
/// # Errors
/// As [`fill`].
pub fn fill_graph(graph: &mut Graph, state: &StateDict, path: &Path) -> Result<()> {
    let is_made = |graph: &Graph, id: NodeId| graph.weight_norms.contains_key(&graph.node(id).name);
    let named: Vec<(NodeId, String, Vec<usize>, Tensor)> = graph
        .ids()
        .into_iter()
        .filter_map(|id| {
            let Op::Constant(constant) = graph.op(id) else { return None };
            let order = order(graph, id, constant.tensor.rank());
            let is_parameter = constant.trainable || order.is_some();
            let order = order.unwrap_or_else(|| (0..constant.tensor.rank()).collect());
            let tensor = constant.tensor.permuted(&inverse(&order)).ok()?;
            (is_parameter && !is_made(graph, id)).then(|| (id, graph.node(id).name.clone(), order, tensor))
        })
        .collect();
    let mut tensors: Vec<Tensor> = named.iter().map(|(.., tensor)| tensor.clone()).collect();
    let read = named.iter().map(|(_, name, ..)| name.as_str()).zip(&mut tensors);
    let spare = graph.spare.iter_mut().map(|(key, tensor)| (key.as_str(), tensor));
    let parts = graph.weight_norms.values_mut().flat_map(|norm| [&mut norm.length, &mut norm.direction]);
    let parts = parts.map(|entry| (entry.key.as_str(), &mut entry.tensor));
    fill(read.chain(spare).chain(parts), state, path)?;
    for ((id, _, order, _), tensor) in named.into_iter().zip(tensors) {
        let tensor = tensor.permuted(&order).map_err(Error::new)?;
        if let Op::Constant(constant) = graph.op_mut(id) {
            constant.tensor = tensor;
        }
    }
    let made: Vec<(NodeId, Tensor)> = graph
        .ids()
        .into_iter()
        .filter_map(|id| Some((id, graph.weight_norms.get(&graph.node(id).name)?)))
        .map(|(id, norm)| {
            let weight = norm.weight()?;
            let order = order(graph, id, weight.rank()).unwrap_or_else(|| (0..weight.rank()).collect());
            Ok((id, weight.permuted(&order).map_err(Error::new)?))
        })
        .collect::<Result<_>>()?;
    for (id, weight) in made {
        if let Op::Constant(constant) = graph.op_mut(id) {
            constant.tensor = weight;
        }
    }
    graph.refresh()
}

/// How the axes of a layer's weight are ordered in the neutral graph: `neutral = pytorch.permuted(order)`. `None` for
/// what is the weight of no layer.
fn order(graph: &Graph, id: NodeId, rank: usize) -> Option<Vec<usize>> {
    let mut readers = graph.consumers(id.into()).into_iter();
    readers.find_map(|(node, slot)| {
        let op = graph.op(node);
        let name = op.slot(slot)?.name;
        let spatial = 2..rank;
        Some(match (op, name) {
            (Op::Conv(_) | Op::ConvTranspose(_), "weights") if rank >= 2 => spatial.chain([1, 0]).collect(),
            (Op::Dense(_), "weights") if rank == 2 => vec![1, 0],
            (Op::Conv(_) | Op::ConvTranspose(_) | Op::Dense(_) | Op::BatchNorm(_), _) if slot > 0 => {
                (0..rank).collect()
            }
            (Op::LayerNorm(_) | Op::GroupNorm(_) | Op::InstanceNorm(_) | Op::PRelu(_), _) if slot > 0 => {
                (0..rank).collect()
            }
            _ => return None,
        })
    })
}

fn inverse(order: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; order.len()];
    for (to, &from) in order.iter().enumerate() {
        if let Some(place) = inverse.get_mut(from) {
            *place = to;
        }
    }
    inverse
}

/// The state dict with the keys that fit the graph's best: with prefixes taken off, or as they are in the file.
fn variant(keys: &[&str], state: &StateDict) -> StateDict {
    let full = state.unstripped();
    let fitting = |state: &StateDict| keys.iter().filter(|key| state.tensors.contains_key(**key)).count();
    if fitting(&full) > fitting(state) { full } else { state.clone() }
}

/// What state dicts may lack: counters, and buffers that are computed when a module is made.
fn is_optional(key: &str) -> bool {
    let name = key.rsplit('.').next().unwrap_or(key);
    matches!(name, "num_batches_tracked" | "position_ids" | "relative_position_index" | "attn_mask" | "inv_freq")
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use modelport_ir::op::{Conv, Dense, Pads};
    use modelport_ir::{DType, Layout, Shape};

    use super::*;

    fn count(shape: &[usize]) -> Tensor {
        let n = shape.iter().product::<usize>() as i64;
        Tensor::from_i64(shape, &(0..n).collect::<Vec<_>>()).cast(DType::Float32)
    }

    /// A convolution and a dense layer, with zeros for weights.
    fn graph() -> Graph {
        let mut graph = Graph::new("net", "");
        let zeros = |shape: &[usize]| Tensor::from_f32(shape, &[]);
        let x = graph.input("x", DType::Float32, Shape::known(&[1, 4, 4, 2])).unwrap();
        let kernel = graph.variable("conv.weight", zeros(&[3, 3, 2, 5]));
        let conv = Conv {
            strides: vec![1, 1],
            pads: Pads(vec![(1, 1), (1, 1)]),
            dilations: vec![1, 1],
            groups: 1,
            layout: Layout::ChannelsLast,
        };
        let y = graph.add(conv, "conv/conv2d", &[x, kernel]).unwrap();
        let (kernel, bias) = (graph.variable("fc.weight", zeros(&[5, 7])), graph.variable("fc.bias", zeros(&[7])));
        let y = graph.add(Dense {}, "fc/linear", &[y.into(), kernel, bias]).unwrap();
        graph.output("y", y.into());
        graph
    }

    fn state(tensors: &[(&str, &[usize])]) -> StateDict {
        let tensors = tensors.iter().map(|(key, shape)| ((*key).to_owned(), count(shape))).collect();
        StateDict { path: "w.pth".into(), tensors, ..StateDict::default() }
    }

    #[test]
    fn weights_take_their_places_in_the_graphs_order() {
        let mut graph = graph();
        let given = state(&[("conv.weight", &[5, 2, 3, 3]), ("fc.weight", &[7, 5]), ("fc.bias", &[7])]);
        fill_graph(&mut graph, &given, Path::new("net.pb")).unwrap();
        let tensor = |name: &str| graph.tensor(graph.find(name).unwrap().into()).unwrap().to_f32().unwrap();
        // Element [0, 0, 0, 1] is that of output channel 1: 2 * 3 * 3 further on.
        assert_eq!(tensor("conv.weight").get(..3).unwrap(), [0.0, 18.0, 36.0]);
        assert_eq!(tensor("fc.weight").get(..3).unwrap(), [0.0, 5.0, 10.0]);
        assert_eq!(tensor("fc.bias"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }

    #[test]
    fn prefixes_of_either_side_fit() {
        let mut given = state(&[("conv.weight", &[5, 2, 3, 3]), ("fc.weight", &[7, 5]), ("fc.bias", &[7])]);
        given.prefix = "module.".to_owned();
        fill_graph(&mut graph(), &given, Path::new("net.pb")).unwrap();
        let mut own = [("module.fc.bias", Tensor::from_f32(&[7], &[]))];
        let mut given = state(&[("fc.bias", &[7])]);
        given.prefix = "module.".to_owned();
        fill(own.iter_mut().map(|(key, tensor)| (*key, tensor)), &given, Path::new("net.pt2")).unwrap();
        assert_eq!(own.first().unwrap().1.to_f32().unwrap().last(), Some(&6.0));
    }

    #[test]
    fn everything_that_does_not_match_is_told() {
        let given = state(&[("conv.weight", &[5, 3, 3, 3]), ("fc.weight", &[7, 5]), ("head.weight", &[7])]);
        let error = fill_graph(&mut graph(), &given, Path::new("net.pb")).unwrap_err();
        let said: Vec<String> =
            error.problems.iter().map(|p| format!("{}: {}", p.node.clone().unwrap(), p.message)).collect();
        assert_eq!(
            said,
            [
                "conv.weight: the graph wants the shape [5, 2, 3, 3], the weights have [5, 3, 3, 3]",
                "fc.bias: the weights lack a parameter that net.pb has",
                "head.weight: the weights have what net.pb has not",
            ]
        );
    }
}
