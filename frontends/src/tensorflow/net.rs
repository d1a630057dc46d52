//! A `GraphDef` as a graph: inputs by node number instead of by name, and typed access to attributes.

use std::collections::HashMap;

use modelport_ir::{DType, Layout, Tensor};

use super::graphdef::{Attr, GraphDef, NodeDef, TensorValue, dtype};

/// One output of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ref {
    /// Number of the node.
    pub node: usize,
    /// Which of its outputs.
    pub output: usize,
}

/// The nodes of a graph, in file order.
#[derive(Debug, Default)]
pub struct Net {
    nodes: Vec<NodeDef>,
    names: HashMap<String, usize>,
    /// Data inputs by slot; `None` when the graph has no such node.
    inputs: Vec<Vec<Option<Ref>>>,
    controls: Vec<Vec<usize>>,
    readers: Vec<Vec<usize>>,
}

impl Net {
    /// Resolves the names of a graph. Of two nodes with one name the first is meant.
    pub fn new(def: GraphDef) -> Net {
        let nodes = def.nodes;
        let mut names = HashMap::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            names.entry(node.name.clone()).or_insert(index);
        }
        let mut net = Net {
            inputs: Vec::with_capacity(nodes.len()),
            controls: Vec::with_capacity(nodes.len()),
            readers: vec![Vec::new(); nodes.len()],
            names,
            nodes,
        };
        for (index, node) in net.nodes.iter().enumerate() {
            let (mut inputs, mut controls) = (Vec::new(), Vec::new());
            for input in &node.inputs {
                match input.strip_prefix('^') {
                    Some(name) => controls.extend(net.names.get(name).copied()),
                    None => inputs.push(parse(&net.names, input)),
                }
            }
            for source in inputs.iter().flatten() {
                if let Some(readers) = net.readers.get_mut(source.node)
                    && readers.last() != Some(&index)
                {
                    readers.push(index);
                }
            }
            net.inputs.push(inputs);
            net.controls.push(controls);
        }
        net
    }

    /// The nodes alone, in file order.
    pub fn into_nodes(self) -> Vec<NodeDef> {
        self.nodes
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// All nodes, in file order.
    pub fn nodes(&self) -> &[NodeDef] {
        &self.nodes
    }

    /// A node.
    pub fn node(&self, index: usize) -> &NodeDef {
        &self.nodes[index]
    }

    /// The node's operator.
    pub fn op(&self, index: usize) -> &str {
        &self.nodes[index].op
    }

    /// Data inputs by slot; `None` when the graph has no such node.
    pub fn inputs(&self, index: usize) -> &[Option<Ref>] {
        &self.inputs[index]
    }

    /// One data input.
    pub fn input(&self, index: usize, slot: usize) -> Option<Ref> {
        self.inputs[index].get(slot).copied().flatten()
    }

    /// Nodes that must run before.
    pub fn controls(&self, index: usize) -> &[usize] {
        &self.controls[index]
    }

    /// Nodes that read any output as data.
    pub fn readers(&self, index: usize) -> &[usize] {
        &self.readers[index]
    }

    /// The value that `name` or `name:1` means.
    pub fn find(&self, name: &str) -> Option<Ref> {
        parse(&self.names, name)
    }
}

fn parse(names: &HashMap<String, usize>, text: &str) -> Option<Ref> {
    if let Some(&node) = names.get(text) {
        return Some(Ref { node, output: 0 });
    }
    let (name, output) = text.rsplit_once(':')?;
    Some(Ref { node: *names.get(name)?, output: output.parse().ok()? })
}

/// Typed access to attributes. Absent attributes have TensorFlow's default, which the caller knows.
impl NodeDef {
    /// A whole number.
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.attrs.get(name) {
            Some(Attr::Int(i)) => Some(*i),
            _ => None,
        }
    }

    /// A real number.
    pub fn float(&self, name: &str) -> Option<f32> {
        match self.attrs.get(name) {
            Some(Attr::Float(x)) => Some(*x),
            _ => None,
        }
    }

    /// A truth value; false when it is absent.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.attrs.get(name), Some(Attr::Bool(true)))
    }

    /// A string.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.attrs.get(name) {
            Some(Attr::Bytes(bytes)) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// A list of whole numbers.
    pub fn ints(&self, name: &str) -> Option<Vec<i64>> {
        match self.attrs.get(name) {
            Some(Attr::List(list)) => list
                .iter()
                .map(|item| match item {
                    Attr::Int(i) => Some(*i),
                    _ => None,
                })
                .collect(),
            _ => None,
        }
    }

    /// An element type that modelport has.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        match self.attrs.get(name) {
            Some(Attr::Type(code)) => dtype(*code),
            _ => None,
        }
    }

    /// The element type at a place of a list of types.
    pub fn dtype_at(&self, name: &str, index: usize) -> Option<DType> {
        match self.attrs.get(name) {
            Some(Attr::List(list)) => match list.get(index) {
                Some(Attr::Type(code)) => dtype(*code),
                _ => None,
            },
            _ => None,
        }
    }

    /// A shape of known rank.
    pub fn shape(&self, name: &str) -> Option<&[i64]> {
        match self.attrs.get(name) {
            Some(Attr::Shape(shape)) => shape.as_deref(),
            _ => None,
        }
    }

    /// The shape at a place of a list of shapes.
    pub fn shape_at(&self, name: &str, index: usize) -> Option<&[i64]> {
        match self.attrs.get(name) {
            Some(Attr::List(list)) => match list.get(index) {
                Some(Attr::Shape(shape)) => shape.as_deref(),
                _ => None,
            },
            _ => None,
        }
    }

    /// A tensor of numbers.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        match self.attrs.get(name) {
            Some(Attr::Tensor(TensorValue::Numbers(tensor))) => Some(tensor),
            _ => None,
        }
    }

    /// The name of a function.
    pub fn function(&self, name: &str) -> Option<&str> {
        match self.attrs.get(name) {
            Some(Attr::Function(name)) => Some(name),
            _ => None,
        }
    }

    /// Whether a batch normalisation takes the batch's own statistics; the default of TensorFlow is that it does.
    pub fn is_training(&self) -> bool {
        !matches!(self.attrs.get("is_training"), Some(Attr::Bool(false)))
    }

    /// Where `data_format` puts the channels.
    pub fn layout(&self) -> Layout {
        match self.text("data_format") {
            Some(format) if format.starts_with("NC") => Layout::ChannelsFirst,
            _ => Layout::ChannelsLast,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensorflow::testing::net;

    #[test]
    fn names_resolve_with_and_without_output() {
        let net = net("a = Placeholder()\nb = Split(a, ^a)\nc = Relu(b:1)");
        assert_eq!(net.find("b:1"), Some(Ref { node: 1, output: 1 }));
        assert_eq!(net.input(2, 0), net.find("b:1"));
        assert_eq!((net.controls(1), net.readers(1)), ([0].as_slice(), [2].as_slice()));
        assert_eq!(net.find("d"), None);
    }
}
