//! From a graph to the nodes and weights of the files.

use std::collections::{HashMap, HashSet};

use super::attributes::{OUTPUT_SHAPES, dtype, shapes, sizes};
use super::node::to_node;
use super::proto::{AttrValue, Attributes, GraphDef, NodeDef};
use super::{CONSTANTS, Header, SLOTS, TRAINABLE, VALUE, arrange, weight_key};
use crate::diagnostic::{Error, Problem, Result};
use crate::graph::{Graph, NodeId, Port, Value, ValueInfo};
use crate::npy::Weights;
use crate::op::{Constant, Gather, Op, SlotKind};
use crate::tensor::Tensor;

/// The nodes of a graph, and its constants by node and name.
///
/// # Errors
/// All nodes that files can't say.
pub(crate) fn to_files(graph: &Graph) -> Result<(GraphDef, Weights)> {
    let ids = graph.ids();
    let stored: HashSet<NodeId> = ids.iter().copied().filter(|&id| is_stored(graph, id)).collect();
    let mut writer = Writer { graph, stored, weights: Weights::new(), problems: Vec::new() };
    let mut defs = Vec::with_capacity(ids.len());
    // The names of the nodes in the order of the file, each after the constants that it stores first.
    let mut default = Vec::with_capacity(ids.len());
    let mut placed = HashSet::new();
    for &id in &ids {
        if writer.stored.contains(&id) {
            continue;
        }
        for constant in writer.stored_inputs(id) {
            if placed.insert(constant) {
                default.push((graph.node(constant).name.as_str(), true));
            }
        }
        default.push((graph.node(id).name.as_str(), false));
        defs.push(writer.node(id));
    }
    let places: HashMap<&str, usize> =
        ids.iter().enumerate().map(|(place, &id)| (graph.node(id).name.as_str(), place)).collect();
    let stored = default.iter().filter(|(_, stored)| *stored);
    let positions: Vec<i64> = stored.filter_map(|(name, _)| Some(*places.get(name)? as i64)).collect();
    let in_order = arrange(&default, &[]).iter().map(|name| places.get(name).copied()).eq((0..ids.len()).map(Some));
    for (key, tensor) in &graph.spare {
        writer.insert(key, VALUE, tensor.clone());
    }
    for entry in graph.weight_norms.values().flat_map(|norm| [&norm.length, &norm.direction]) {
        writer.insert(&entry.key, VALUE, entry.tensor.clone());
    }
    let header = writer.header(if in_order { Vec::new() } else { positions });
    defs.insert(0, header);
    Error::collect(writer.problems)?;
    Ok((GraphDef { node: defs, version: 1 }, writer.weights))
}

/// Whether a node is a constant that only weight slots read.
fn is_stored(graph: &Graph, id: NodeId) -> bool {
    let value = id.into();
    let Some(tensor) = graph.tensor(value) else { return false };
    let consumers = graph.consumers(value);
    !consumers.is_empty()
        && graph.outputs.iter().all(|port| port.value != value)
        && consumers.iter().all(|&(node, slot)| match graph.op(node) {
            // MMdnn's embedding.
            Op::Gather(Gather { axis: 0, batch_dims: 0 }) => slot == 0 && tensor.rank() == 2,
            op => op.slot(slot).is_some_and(|slot| matches!(slot.kind, SlotKind::Param | SlotKind::OptionalParam)),
        })
}

struct Writer<'a> {
    graph: &'a Graph,
    stored: HashSet<NodeId>,
    weights: Weights,
    problems: Vec<Problem>,
}

impl Writer<'_> {
    /// The constants that a node stores, by slot.
    fn stored_inputs(&self, id: NodeId) -> impl Iterator<Item = NodeId> {
        let inputs = self.graph.inputs_of(id).into_iter().flatten();
        inputs.map(|value| value.node).filter(|node| self.stored.contains(node))
    }

    fn node(&mut self, id: NodeId) -> NodeDef {
        let graph = self.graph;
        let node = graph.node(id);
        if let Op::Constant(constant) = &node.op {
            self.insert(&node.name, VALUE, constant.tensor.clone());
            let attr = [
                ("dtype", dtype(constant.tensor.dtype())),
                (OUTPUT_SHAPES, shapes(node.outputs.iter().map(|info| &info.shape))),
            ];
            let mut attr: Attributes = attr.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            if constant.trainable {
                attr.insert(TRAINABLE.to_owned(), true.into());
            }
            return NodeDef { name: node.name.clone(), op: "Constant".to_owned(), input: Vec::new(), attr };
        }
        let inputs = graph.inputs_of(id);
        let infos: Vec<Option<&ValueInfo>> = inputs.iter().map(|value| value.map(|value| graph.info(value))).collect();
        let stored: Vec<bool> =
            inputs.iter().map(|value| value.is_some_and(|value| self.stored.contains(&value.node))).collect();
        let mut def = to_node(&node.op, &infos, &node.outputs, &stored).unwrap_or_else(|message| {
            self.problems.push(Problem::new(message).node(&node.name).op(node.op.name()));
            NodeDef::default()
        });
        def.name = node.name.clone();
        let mut constants = Vec::new();
        let mut trainable = Vec::new();
        let mut slots = Vec::new();
        for (slot, value) in inputs.iter().enumerate() {
            let Some(value) = *value else { continue };
            if !stored.get(slot).copied().unwrap_or(false) {
                slots.push(slot);
                def.input.push(self.reference(value));
                continue;
            }
            let name = node.op.slot(slot).map_or("", |slot| slot.name);
            constants.push(format!("{name}={}", graph.node(value.node).name));
            if let Op::Constant(Constant { tensor, trainable: is_trainable }) = graph.op(value.node) {
                if *is_trainable {
                    trainable.push(name.to_owned());
                }
                match stored_form(&def, name, tensor) {
                    Ok(tensor) => self.insert(&node.name, weight_key(&def.op, name), tensor),
                    Err(message) => self.problems.push(Problem::new(message).node(&node.name).op(node.op.name())),
                }
            }
        }
        if !constants.is_empty() {
            def.attr.insert(CONSTANTS.to_owned(), constants.into());
        }
        if !trainable.is_empty() {
            def.attr.insert(TRAINABLE.to_owned(), trainable.into());
        }
        let free = (0..).filter(|&slot| !stored.get(slot).copied().unwrap_or(false));
        if !free.take(slots.len()).eq(slots.iter().copied()) {
            def.attr.insert(SLOTS.to_owned(), slots.iter().map(|&slot| slot as i64).collect::<Vec<_>>().into());
        }
        def
    }

    fn insert(&mut self, node: &str, name: &str, tensor: Tensor) {
        self.weights.entry(node.to_owned()).or_default().insert(name.to_owned(), tensor);
    }

    /// How an input says which value it is.
    fn reference(&mut self, value: Value) -> String {
        let name = &self.graph.node(value.node).name;
        if value.output == 0 {
            return name.clone();
        }
        let reference = format!("{name}:{}", value.output);
        if self.graph.find(&reference).is_some() {
            let message = format!("output {} and the node '{reference}' can't be told apart", value.output);
            self.problems.push(Problem::new(message).node(name).hint("rename one of them"));
        }
        reference
    }

    /// The node that says what is about the whole graph. It has no edges: MMdnn passes over such nodes.
    fn header(&mut self, positions: Vec<i64>) -> NodeDef {
        let graph = self.graph;
        let mut attr = Attributes::new();
        let mut set = |name: &str, value: AttrValue| drop(attr.insert(name.to_owned(), value));
        set(Header::NAME, graph.name.as_str().into());
        set(Header::SOURCE, graph.source.as_str().into());
        for (names, values, permutations, ports) in [
            (Header::INPUTS, Header::INPUT_VALUES, Header::INPUT_PERMUTATIONS, &graph.inputs),
            (Header::OUTPUTS, Header::OUTPUT_VALUES, Header::OUTPUT_PERMUTATIONS, &graph.outputs),
        ] {
            set(names, ports.iter().map(|port| port.name.clone()).collect::<Vec<_>>().into());
            set(values, ports.iter().map(|port| self.reference(port.value)).collect::<Vec<_>>().into());
            if ports.iter().any(|port| port.permutation.is_some()) {
                set(permutations, ports.iter().map(permutation_text).collect::<Vec<_>>().into());
            }
        }
        if !graph.modules.is_empty() {
            let modules = graph.modules.iter().map(|(path, class)| format!("{path}={class}"));
            set(Header::MODULES, modules.collect::<Vec<_>>().into());
        }
        if !graph.spare.is_empty() {
            set(Header::SPARE, graph.spare.keys().cloned().collect::<Vec<_>>().into());
        }
        if !graph.weight_norms.is_empty() {
            let norms = graph.weight_norms.iter().flat_map(|(key, norm)| {
                let axis = norm.axis.map_or(String::new(), |axis| axis.to_string());
                [key.clone(), axis, norm.length.key.clone(), norm.direction.key.clone()]
            });
            set(Header::WEIGHT_NORMS, norms.collect::<Vec<_>>().into());
        }
        if !positions.is_empty() {
            set(Header::POSITIONS, positions.into());
        }
        let mut name = "_graph".to_owned();
        while graph.find(&name).is_some() {
            name.insert(0, '_');
        }
        NodeDef { name, op: Header::OP.to_owned(), input: Vec::new(), attr }
    }
}

fn permutation_text(port: &Port) -> String {
    let axes = port.permutation.iter().flatten();
    axes.map(usize::to_string).collect::<Vec<_>>().join(",")
}

/// A weight as the node in the file has it: MMdnn's depthwise kernels are `[h, w, channels, multiplier]`, ours
/// `[h, w, 1, channels * multiplier]`, with the same elements in the same order.
fn stored_form(def: &NodeDef, slot: &str, tensor: &Tensor) -> std::result::Result<Tensor, String> {
    match def.integers("kernel_shape")? {
        Some(shape) if def.op == "DepthwiseConv" && slot == "weights" => {
            tensor.reshaped(&sizes("kernel_shape", &shape)?)
        }
        _ => Ok(tensor.clone()),
    }
}
