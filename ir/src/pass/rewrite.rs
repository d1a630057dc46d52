//! How passes change the graph: the order in which they visit nodes, what a fused node is called, parameters as
//! vectors.

use std::collections::{HashMap, HashSet, VecDeque};

use super::pattern::is_regrouping;
use crate::diagnostic::{Error, Result};
use crate::graph::{Graph, NodeId, Value};
use crate::op::{Op, Reshape};
use crate::shape::Shape;
use crate::tensor::Tensor;

/// Nodes that one pattern may take.
const LIMIT: usize = 64;

/// Visits consumers before producers, so that the whole of a pattern is seen before its parts, and removes nodes that
/// nothing reads on the way. Returns how often `rewrite` said that it changed something.
pub fn backward(graph: &mut Graph, mut rewrite: impl FnMut(&mut Graph, NodeId) -> Result<bool>) -> Result<usize> {
    let mut count = 0;
    for id in graph.order()?.into_iter().rev() {
        if !graph.contains(id) {
            continue;
        }
        if is_dead(graph, id) {
            graph.remove(id);
        } else if rewrite(graph, id)? {
            count += 1;
        }
    }
    Ok(count)
}

/// Visits producers before consumers.
pub fn forward(graph: &mut Graph, mut rewrite: impl FnMut(&mut Graph, NodeId) -> Result<bool>) -> Result<usize> {
    let mut count = 0;
    for id in graph.order()? {
        if graph.contains(id) && !is_dead(graph, id) && rewrite(graph, id)? {
            count += 1;
        }
    }
    Ok(count)
}

fn is_dead(graph: &Graph, id: NodeId) -> bool {
    let outputs = graph.node(id).outputs.len();
    !matches!(graph.op(id), Op::Input(_)) && (0..outputs).all(|output| graph.uses(Value { node: id, output }) == 0)
}

/// How many operators (constants are none) each name scope holds.
pub struct Scopes(HashMap<String, usize>);

impl Scopes {
    /// Counts those of a graph.
    pub fn of(graph: &Graph) -> Scopes {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for id in graph.ids() {
            if !matches!(graph.op(id), Op::Constant(_)) {
                for scope in scopes(&graph.node(id).name) {
                    *counts.entry(scope.to_owned()).or_default() += 1;
                }
            }
        }
        Scopes(counts)
    }

    /// The scope that holds these nodes and no others: the name that they go by together. Among several the one that
    /// holds the parameters, else the outermost: `conv1/BatchNorm`, not `conv1/BatchNorm/batchnorm`.
    pub fn shared_by(&self, graph: &Graph, nodes: &[NodeId], parameters: &[NodeId]) -> Option<String> {
        let own: Vec<&str> =
            common(graph, nodes).into_iter().filter(|scope| self.0.get(*scope) == Some(&nodes.len())).collect();
        let home = common(graph, parameters).pop();
        let named = own.iter().find(|scope| Some(**scope) == home).or(own.first());
        named.map(|scope| (*scope).to_owned())
    }
}

/// The scopes that all these nodes lie in, from the outermost.
fn common<'a>(graph: &'a Graph, nodes: &[NodeId]) -> Vec<&'a str> {
    let mut names = nodes.iter().map(|&id| graph.node(id).name.as_str());
    let mut common: Vec<&str> = names.next().map(|name| scopes(name).collect()).unwrap_or_default();
    for name in names {
        let same = scopes(name).zip(&common).take_while(|(a, b)| a == *b).count();
        common.truncate(same);
    }
    common
}

/// The scopes that a name lies in, from the outermost.
fn scopes(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('/').take(32).map(|(end, _)| name.get(..end).unwrap_or_default())
}

/// The operators that only the result of `id` needs, down to `inputs`.
fn interior(graph: &Graph, id: NodeId, inputs: &[Option<Value>]) -> Vec<NodeId> {
    let stops: HashSet<NodeId> = inputs.iter().flatten().map(|value| value.node).collect();
    let mut nodes = vec![id];
    let mut members = HashSet::from([id]);
    let mut queue = VecDeque::from([id]);
    while let Some(at) = queue.pop_front() {
        for input in graph.inputs_of(at).into_iter().flatten() {
            let node = input.node;
            let taken = nodes.len() >= LIMIT
                || stops.contains(&node)
                || members.contains(&node)
                || matches!(graph.op(node), Op::Constant(_) | Op::Input(_))
                || (0..graph.node(node).outputs.len()).any(|output| {
                    let value = Value { node, output };
                    let readers = graph.consumers(value);
                    graph.uses(value) != readers.len() || readers.iter().any(|(reader, _)| !members.contains(reader))
                });
            if !taken {
                members.insert(node);
                nodes.push(node);
                queue.push_back(node);
            }
        }
    }
    nodes
}

/// Replaces the expression that ends in `id` by one operator. It takes the name of the scope that held just this
/// expression, if there is one and it is free, else keeps that of `id`.
pub fn fuse(graph: &mut Graph, scopes: &Scopes, id: NodeId, op: impl Into<Op>, inputs: &[Option<Value>]) -> Result<()> {
    let parameters: Vec<NodeId> =
        inputs.iter().flatten().map(|value| value.node).filter(|&id| matches!(graph.op(id), Op::Constant(_))).collect();
    let name = scopes.shared_by(graph, &interior(graph, id, inputs), &parameters);
    graph.replace_op(id, op, inputs)?;
    if let Some(name) = name
        && graph.find(&name).is_none()
    {
        graph.rename(id, &name);
    }
    Ok(())
}

/// A constant expression with another shape of as many elements: its own source where that has the shape already.
pub fn shaped(graph: &mut Graph, value: Value, sizes: &[usize]) -> Result<Value> {
    let want = Shape::known(sizes);
    let mut source = value;
    for _ in 0..LIMIT {
        if *graph.shape(source) == want {
            return Ok(source);
        }
        match graph.input_of(source.node, 0) {
            Some(input) if is_regrouping(graph.op(source.node)) => source = input,
            _ => break,
        }
    }
    if let Some(tensor) = graph.tensor(source)
        && !graph.is_state(source)
    {
        let tensor = tensor.reshaped(sizes).map_err(Error::new)?;
        return Ok(view(graph, source, tensor));
    }
    let name = graph.node(source.node).name.clone();
    Ok(graph.add(Reshape { shape: want }, &format!("{name}/shaped"), &[source])?.into())
}

/// A constant that is a view of another one. It inherits the name, which is that of the variable.
pub fn view(graph: &mut Graph, source: Value, tensor: Tensor) -> Value {
    let name = graph.node(source.node).name.clone();
    if graph.uses(source) <= 1 {
        graph.rename(source.node, &format!("{name}/source"));
    }
    named_view(graph, source, &name, tensor)
}

/// A constant that is a view of another one, under a name of its own. It is trained where the other one is.
pub fn named_view(graph: &mut Graph, source: Value, name: &str, tensor: Tensor) -> Value {
    match graph.op(source.node) {
        Op::Constant(constant) if constant.trainable => graph.variable(name, tensor),
        _ => graph.constant(name, tensor),
    }
}
