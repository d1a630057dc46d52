//! The graph: nodes with typed operators over petgraph's stable graph, values with shapes, in a deterministic order.
//!
//! Every edge says which output it leaves and which input slot it enters. Iteration order never depends on petgraph's
//! own order: nodes are visited by the order in which they were added, subject to dataflow.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use petgraph::Direction;
use petgraph::stable_graph::{EdgeIndex, NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;

use crate::diagnostic::{Error, Problem, Result};
use crate::op::Op;
use crate::shape::Shape;
use crate::tensor::{DType, Tensor};
use crate::weight_norm::WeightNorm;

/// A node of one graph.
pub type NodeId = NodeIndex<u32>;

/// One output of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value {
    /// The node that computes it.
    pub node: NodeId,
    /// Which of the node's outputs.
    pub output: usize,
}

impl From<NodeId> for Value {
    fn from(node: NodeId) -> Self {
        Value { node, output: 0 }
    }
}

/// Type and shape of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueInfo {
    /// Element type.
    pub dtype: DType,
    /// Shape; the rank is always known.
    pub shape: Shape,
}

impl ValueInfo {
    /// A type and a shape.
    pub fn new(dtype: DType, shape: Shape) -> Self {
        ValueInfo { dtype, shape }
    }
}

/// An operator in the graph.
#[derive(Clone, Debug)]
pub struct Node {
    /// Unique in the graph; the source's name, its scopes separated by `/`. Planners make module trees of it.
    pub name: String,
    /// What it does.
    pub op: Op,
    /// Type and shape of every output.
    pub outputs: Vec<ValueInfo>,
    sequence: u64,
}

#[derive(Clone, Copy, Debug)]
struct Edge {
    output: usize,
    slot: usize,
}

/// A named input or output of the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The name by which people know it.
    pub name: String,
    /// The value; for an input, output 0 of its `Input` node.
    pub value: Value,
    /// Set when the layout changed: `target = source.transpose(permutation)`.
    pub permutation: Option<Vec<usize>>,
}

/// A network.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// What to call the network, such as `inception_v3`.
    pub name: String,
    /// Where it came from, in words: framework and file name (no path).
    pub source: String,
    /// The inputs in order; their nodes are `Op::Input`.
    pub inputs: Vec<Port>,
    /// The outputs in the order that was asked for. One value may be several outputs.
    pub outputs: Vec<Port>,
    /// The source's modules, where it has any (PyTorch, Keras): dotted path (`layer1.0.conv1`; the root is ``) → class
    /// name (`Conv2d`). Containers and leaves alike. Nodes that a module computes are named `PATH/…`, and weights by
    /// their state-dict key `PATH.weight`: see [`Graph::module_of`]. Empty for sources that only have name scopes.
    pub modules: BTreeMap<String, String>,
    /// Weights of the source that no output needs, by state-dict key: of heads that only train.
    pub spare: BTreeMap<String, Tensor>,
    /// How the source makes weights that its state dict does not have itself, by the key that each would have there.
    pub weight_norms: BTreeMap<String, WeightNorm>,
    nodes: StableDiGraph<Node, Edge, u32>,
    names: HashMap<String, NodeId>,
    next: u64,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<String>, source: impl Into<String>) -> Self {
        Graph { name: name.into(), source: source.into(), ..Graph::default() }
    }

    /// Adds a node whose inputs are all present. See [`Graph::add_with`].
    ///
    /// # Errors
    /// When the operator can't take these inputs.
    pub fn add(&mut self, op: impl Into<Op>, name: &str, inputs: &[Value]) -> Result<NodeId> {
        let inputs: Vec<Option<Value>> = inputs.iter().copied().map(Some).collect();
        self.add_with(op, name, &inputs)
    }

    /// Adds a node; `inputs` are by slot, `None` for an optional one that is absent. A name that is taken gets a
    /// suffix `_1`, `_2`, … Outputs are inferred.
    ///
    /// # Errors
    /// When the operator can't take these inputs; the problem names the node and its input shapes.
    pub fn add_with(&mut self, op: impl Into<Op>, name: &str, inputs: &[Option<Value>]) -> Result<NodeId> {
        let op = op.into();
        let outputs = self.infer(&op, name, inputs)?;
        let name = self.free_name(name);
        let id = self.nodes.add_node(Node { name: name.clone(), op, outputs, sequence: self.next });
        self.next += 1;
        self.names.insert(name, id);
        self.connect(id, inputs);
        Ok(id)
    }

    /// Adds a constant that is not trained.
    pub fn constant(&mut self, name: &str, tensor: Tensor) -> Value {
        self.add_tensor(name, tensor, false)
    }

    /// Adds a constant that was a variable: training changes it.
    pub fn variable(&mut self, name: &str, tensor: Tensor) -> Value {
        self.add_tensor(name, tensor, true)
    }

    fn add_tensor(&mut self, name: &str, tensor: Tensor, trainable: bool) -> Value {
        let info = ValueInfo::new(tensor.dtype(), Shape::known(&tensor.shape()));
        let name = self.free_name(name);
        let op = Op::Constant(crate::op::Constant { tensor, trainable });
        let id = self.nodes.add_node(Node { name: name.clone(), op, outputs: vec![info], sequence: self.next });
        self.next += 1;
        self.names.insert(name, id);
        id.into()
    }

    /// Adds an input of the graph.
    ///
    /// # Errors
    /// Never for a well-formed shape; the signature is that of [`Graph::add`].
    pub fn input(&mut self, name: &str, dtype: DType, shape: Shape) -> Result<Value> {
        let id = self.add(crate::op::Input { dtype, shape }, name, &[])?;
        let name = self.node(id).name.clone();
        self.inputs.push(Port { name, value: id.into(), permutation: None });
        Ok(id.into())
    }

    /// Makes a value an output of the graph.
    pub fn output(&mut self, name: &str, value: Value) {
        self.outputs.push(Port { name: name.to_owned(), value, permutation: None });
    }

    /// A node. Ids stay valid until the node is removed.
    ///
    /// # Panics
    /// When the node was removed: that is a mistake in modelport, not in a model.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    /// A node's operator, to change its attributes; call [`Graph::refresh`] when the shapes may change.
    pub fn op_mut(&mut self, id: NodeId) -> &mut Op {
        &mut self.nodes[id].op
    }

    /// Shorthand for `node(id).op`.
    pub fn op(&self, id: NodeId) -> &Op {
        &self.nodes[id].op
    }

    /// Whether the node is still in the graph.
    pub fn contains(&self, id: NodeId) -> bool {
        self.nodes.contains_node(id)
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.node_count()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The path in [`Graph::modules`] of the module that computes a node, or that holds a constant; `None` where the
    /// source has no modules.
    ///
    /// `layer1.0/add` is computed in `layer1.0`, and `layer1.0.conv1.weight` is of `layer1.0.conv1`. Whatever passes
    /// append after a further `/` changes nothing. What says no module is of the root.
    pub fn module_of(&self, id: NodeId) -> Option<&str> {
        let node = &self.nodes[id];
        let path = |name: &str| self.modules.get_key_value(name).map(|(path, _)| path.as_str());
        let outwards = |name| std::iter::successors(Some(name), |name: &&str| Some(name.rsplit_once('/')?.0));
        let name = node.name.as_str();
        if !matches!(node.op, Op::Constant(_)) {
            return outwards(name).find_map(path).or_else(|| path(""));
        }
        // The constant `scale` of the root is not of the module `scale`.
        let key = name.split('/').next().unwrap_or_default();
        let mut holders = std::iter::successors(key.rsplit_once('.'), |(holder, _)| holder.rsplit_once('.'));
        outwards(name)
            .skip(1)
            .find_map(path)
            .or_else(|| holders.find_map(|(holder, _)| path(holder)))
            .or_else(|| path(""))
    }

    /// Whether the source has modules that hold something: others than the network itself, or entries of a state dict
    /// in the network itself.
    pub fn has_modules(&self) -> bool {
        self.modules.len() > 1 || self.ids().into_iter().any(|id| self.is_state(id.into()))
    }

    /// Whether a value is an entry of the source's state dict: what a source with modules has under a key of its own
    /// keeps its shape, so that the code which comes of it takes the source's own weights.
    pub fn is_state(&self, value: Value) -> bool {
        let node = &self.nodes[value.node];
        !self.modules.is_empty() && matches!(node.op, Op::Constant(_)) && !node.name.contains('/')
    }

    /// The node called `name`.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.names.get(name).copied()
    }

    /// Gives a node another name (made unique).
    pub fn rename(&mut self, id: NodeId, name: &str) {
        let old = self.nodes[id].name.clone();
        if old != name {
            self.names.remove(&old);
            let name = self.free_name(name);
            self.names.insert(name.clone(), id);
            self.nodes[id].name = name;
        }
    }

    /// Type and shape of a value.
    pub fn info(&self, value: Value) -> &ValueInfo {
        &self.nodes[value.node].outputs[value.output]
    }

    /// Shape of a value.
    pub fn shape(&self, value: Value) -> &Shape {
        &self.info(value).shape
    }

    /// The values that enter a node, by slot.
    pub fn inputs_of(&self, id: NodeId) -> Vec<Option<Value>> {
        let mut inputs = Vec::new();
        for edge in self.nodes.edges_directed(id, Direction::Incoming) {
            let Edge { output, slot } = *edge.weight();
            if inputs.len() <= slot {
                inputs.resize(slot + 1, None);
            }
            inputs[slot] = Some(Value { node: edge.source(), output });
        }
        inputs
    }

    /// The number of values that enter a node.
    pub(crate) fn input_count(&self, id: NodeId) -> usize {
        self.nodes.edges_directed(id, Direction::Incoming).count()
    }

    /// The value in one input slot.
    pub fn input_of(&self, id: NodeId, slot: usize) -> Option<Value> {
        self.nodes
            .edges_directed(id, Direction::Incoming)
            .find(|edge| edge.weight().slot == slot)
            .map(|edge| Value { node: edge.source(), output: edge.weight().output })
    }

    /// Who reads a value: nodes and slots, in the order in which the nodes were added.
    pub fn consumers(&self, value: Value) -> Vec<(NodeId, usize)> {
        let mut consumers: Vec<_> = self
            .nodes
            .edges_directed(value.node, Direction::Outgoing)
            .filter(|edge| edge.weight().output == value.output)
            .map(|edge| (edge.target(), edge.weight().slot))
            .collect();
        consumers.sort_by_key(|&(node, slot)| (self.nodes[node].sequence, slot));
        consumers
    }

    /// How often a value is read, by nodes and as an output of the graph.
    pub fn uses(&self, value: Value) -> usize {
        self.consumers(value).len() + self.outputs.iter().filter(|port| port.value == value).count()
    }

    /// The tensor of a value that is a constant.
    pub fn tensor(&self, value: Value) -> Option<&Tensor> {
        match &self.nodes[value.node].op {
            Op::Constant(constant) => Some(&constant.tensor),
            _ => None,
        }
    }

    /// The single number of a constant with one element.
    pub fn scalar(&self, value: Value) -> Option<f64> {
        let tensor = self.tensor(value)?;
        if tensor.numel() != 1 {
            return None;
        }
        tensor.to_f64().ok()?.first().copied()
    }

    /// All nodes, in the order in which they were added.
    pub fn ids(&self) -> Vec<NodeId> {
        let mut ids: Vec<_> = self.nodes.node_indices().collect();
        ids.sort_by_key(|&id| self.nodes[id].sequence);
        ids
    }

    /// Makes nodes count as added in this order; those that it leaves out come after them, in their old order.
    pub fn set_order(&mut self, order: &[NodeId]) {
        let named: std::collections::HashSet<&NodeId> = order.iter().collect();
        let rest = self.ids().into_iter().filter(|id| !named.contains(id));
        let all: Vec<NodeId> = order.iter().copied().chain(rest).collect();
        for id in all {
            if let Some(node) = self.nodes.node_weight_mut(id) {
                node.sequence = self.next;
                self.next += 1;
            }
        }
    }

    /// All nodes, producers before consumers; among those that are ready, the one added first.
    ///
    /// # Errors
    /// When the graph has a cycle; the problem names a node on it.
    pub fn order(&self) -> Result<Vec<NodeId>> {
        let mut missing: HashMap<NodeId, usize> = HashMap::with_capacity(self.len());
        let mut ready = BinaryHeap::new();
        for id in self.nodes.node_indices() {
            let count = self.nodes.edges_directed(id, Direction::Incoming).count();
            missing.insert(id, count);
            if count == 0 {
                ready.push(Reverse((self.nodes[id].sequence, id)));
            }
        }
        let mut order = Vec::with_capacity(self.len());
        while let Some(Reverse((_, id))) = ready.pop() {
            order.push(id);
            for edge in self.nodes.edges_directed(id, Direction::Outgoing) {
                if let Some(count) = missing.get_mut(&edge.target()) {
                    *count -= 1;
                    if *count == 0 {
                        ready.push(Reverse((self.nodes[edge.target()].sequence, edge.target())));
                    }
                }
            }
        }
        if order.len() < self.len() {
            let stuck = self.ids().into_iter().find(|id| missing.get(id).is_some_and(|&count| count > 0));
            let name = stuck.map(|id| self.nodes[id].name.clone()).unwrap_or_default();
            return Err(Problem::new("the graph has a cycle").node(name).into());
        }
        Ok(order)
    }

    /// Replaces a node's operator and inputs in place, keeping its name, id and consumers.
    ///
    /// # Errors
    /// When the operator can't take these inputs; the graph is then unchanged.
    pub fn replace_op(&mut self, id: NodeId, op: impl Into<Op>, inputs: &[Option<Value>]) -> Result<()> {
        let op = op.into();
        let outputs = self.infer(&op, &self.nodes[id].name, inputs)?;
        self.nodes[id].op = op;
        self.nodes[id].outputs = outputs;
        self.disconnect(id);
        self.connect(id, inputs);
        Ok(())
    }

    /// Makes a node take the place of `other` in the order of the graph: it comes when that would come, or before.
    pub fn place_beside(&mut self, id: NodeId, other: NodeId) {
        self.nodes[id].sequence = self.nodes[other].sequence;
    }

    /// Replaces one input of a node. Shapes are not inferred anew: see [`Graph::refresh`].
    pub fn set_input(&mut self, id: NodeId, slot: usize, value: Option<Value>) {
        let old = self.nodes.edges_directed(id, Direction::Incoming).find(|edge| edge.weight().slot == slot);
        if let Some(edge) = old.map(|edge| edge.id()) {
            self.nodes.remove_edge(edge);
        }
        if let Some(value) = value {
            self.nodes.add_edge(value.node, id, Edge { output: value.output, slot });
        }
    }

    /// Makes every reader of `old`, the graph's outputs included, read `new`.
    pub fn replace_uses(&mut self, old: Value, new: Value) {
        for (node, slot) in self.consumers(old) {
            if node != new.node {
                self.set_input(node, slot, Some(new));
            }
        }
        for port in &mut self.outputs {
            if port.value == old {
                port.value = new;
            }
        }
    }

    /// Puts a node between a value and all its readers: `make` gets the graph and the value and returns the new value.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn insert_after(
        &mut self,
        value: Value,
        make: impl FnOnce(&mut Graph, Value) -> Result<Value>,
    ) -> Result<Value> {
        let readers = self.consumers(value);
        let new = make(self, value)?;
        for (node, slot) in readers {
            self.set_input(node, slot, Some(new));
        }
        for port in &mut self.outputs {
            if port.value == value {
                port.value = new;
            }
        }
        Ok(new)
    }

    /// Removes a node that nothing reads.
    pub fn remove(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.remove_node(id) {
            self.names.remove(&node.name);
        }
    }

    /// Removes all nodes that no output depends on; inputs of the graph stay. Returns how many went.
    pub fn prune(&mut self) -> usize {
        let mut live: std::collections::HashSet<NodeId> = self.inputs.iter().map(|port| port.value.node).collect();
        let mut stack: Vec<NodeId> = self.outputs.iter().map(|port| port.value.node).collect();
        while let Some(id) = stack.pop() {
            if live.insert(id) {
                stack.extend(self.nodes.neighbors_directed(id, Direction::Incoming));
            }
        }
        let dead: Vec<NodeId> = self.nodes.node_indices().filter(|id| !live.contains(id)).collect();
        for &id in &dead {
            self.remove(id);
        }
        dead.len()
    }

    /// Infers the outputs of all nodes anew, in order.
    ///
    /// # Errors
    /// All nodes that can't take their inputs.
    pub fn refresh(&mut self) -> Result<()> {
        let mut problems = Vec::new();
        for id in self.order()? {
            let inputs = self.inputs_of(id);
            match self.infer(&self.nodes[id].op, &self.nodes[id].name, &inputs) {
                Ok(outputs) => self.nodes[id].outputs = outputs,
                Err(error) => problems.extend(error.problems),
            }
        }
        Error::collect(problems)
    }

    /// What the outputs of `op` would be on these inputs.
    ///
    /// # Errors
    /// When the operator can't take these inputs; the problem names the node and its input shapes.
    pub fn infer(&self, op: &Op, name: &str, inputs: &[Option<Value>]) -> Result<Vec<ValueInfo>> {
        let infos: Vec<Option<&ValueInfo>> = inputs.iter().map(|value| value.map(|v| self.info(v))).collect();
        op.infer(&infos).map_err(|message| {
            let shapes: Vec<String> =
                infos.iter().map(|info| info.map_or("-".to_owned(), |i| format!("{}{}", i.dtype, i.shape))).collect();
            Problem::new(message).node(name).op(op.name()).inputs(format!("({})", shapes.join(", "))).into()
        })
    }

    /// The total number of elements of constants that are parameters of layers, and of those that are not trained.
    pub fn parameters(&self) -> usize {
        self.ids()
            .into_iter()
            .filter_map(|id| self.tensor(id.into()))
            .filter(|tensor| tensor.dtype().is_float())
            .map(Tensor::numel)
            .sum()
    }

    fn free_name(&self, name: &str) -> String {
        let name = if name.is_empty() { "node" } else { name };
        if !self.names.contains_key(name) {
            return name.to_owned();
        }
        let numbered = |i: u64| format!("{name}_{i}");
        let is_taken = |i: u64| self.names.contains_key(&numbered(i));
        if is_taken(1000) {
            // So many nodes of one name have numbers without gaps: the last is found in few steps.
            let (mut taken, mut free) = (1000, 2000);
            while is_taken(free) {
                (taken, free) = (free, free * 2);
            }
            while free - taken > 1 {
                let middle = taken + (free - taken) / 2;
                if is_taken(middle) { taken = middle } else { free = middle }
            }
            return numbered(free);
        }
        let free = (1..=1000).find(|&i| !is_taken(i)).unwrap_or_default();
        numbered(free)
    }

    fn connect(&mut self, id: NodeId, inputs: &[Option<Value>]) {
        for (slot, value) in inputs.iter().enumerate() {
            if let Some(value) = value {
                self.nodes.add_edge(value.node, id, Edge { output: value.output, slot });
            }
        }
    }

    fn disconnect(&mut self, id: NodeId) {
        let edges: Vec<EdgeIndex<u32>> =
            self.nodes.edges_directed(id, Direction::Incoming).map(|edge| edge.id()).collect();
        for edge in edges {
            self.nodes.remove_edge(edge);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::Unary;

    #[test]
    fn nodes_and_weights_say_their_module() {
        let mut graph = Graph::new("net", "test");
        let paths = ["", "layer1", "layer1.0", "layer1.0.conv1", "scale"];
        graph.modules = paths.iter().map(|path| ((*path).to_owned(), "Module".to_owned())).collect();
        let x = graph.input("x", DType::Float32, Shape::known(&[1])).unwrap();
        let of = |graph: &mut Graph, name: &str| {
            let id = graph.add(Unary::Relu, name, &[x]).unwrap();
            graph.module_of(id).map(str::to_owned).unwrap()
        };
        assert_eq!(of(&mut graph, "layer1.0/relu"), "layer1.0");
        assert_eq!(of(&mut graph, "layer1.0.conv1/conv2d/unfolded"), "layer1.0.conv1");
        assert_eq!(of(&mut graph, "layer1.0.conv1"), "layer1.0.conv1");
        assert_eq!(of(&mut graph, "/relu"), "");
        assert_eq!(of(&mut graph, "relu"), "");
        let of = |graph: &mut Graph, name: &str| {
            let value = graph.constant(name, Tensor::from_f32(&[1], &[1.0]));
            graph.module_of(value.node).map(str::to_owned).unwrap()
        };
        assert_eq!(of(&mut graph, "layer1.0.conv1.weight"), "layer1.0.conv1");
        assert_eq!(of(&mut graph, "layer1.0.conv1.weight/part_0"), "layer1.0.conv1");
        assert_eq!(of(&mut graph, "layer1.0.parametrizations.weight"), "layer1.0");
        assert_eq!(of(&mut graph, "layer1.0/mul"), "layer1.0");
        assert_eq!(of(&mut graph, "scale"), "");
        graph.modules.clear();
        assert_eq!(graph.module_of(x.node), None);
    }
}
