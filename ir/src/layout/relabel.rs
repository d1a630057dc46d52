//! Carries a decided plan out: renumbers the axes of every operator, rearranges constants, inserts transposes.
//!
//! Works node by node, producers first. Every value of the source has one value that is made in its place, in some
//! order; whoever reads it in another order gets a transpose, made once. Right for any decision of the cut.

use std::collections::HashMap;

use super::Layout;
use super::plan::{End, Plan};
use super::role::Order;
use crate::diagnostic::{Problem, Result};
use crate::graph::{Graph, NodeId, Value};
use crate::op::{Op, Reshape, Transpose, Unsqueeze};
use crate::shape::{Dim, Shape};
use crate::tensor::Tensor;

/// Carries the plan out, with the variables in `moved` in the target's order.
pub(super) fn relabel(graph: &mut Graph, order: &[NodeId], plan: &Plan, moved: &[bool], target: Layout) -> Result<()> {
    let mut relabel = Relabel {
        graph,
        target,
        made: HashMap::new(),
        read: HashMap::new(),
        transposes: HashMap::new(),
        reader: None,
        old: Vec::new(),
        constants: Vec::new(),
    };
    for &id in order {
        let Some(node) = plan.nodes.get(&id) else { continue };
        let actual =
            |end: &End| if is_moved(end, moved) { end.order.clone() } else { Order::source(end.order.perm.len()) };
        let inputs: Vec<Option<Order>> = node.inputs.iter().map(|end| end.as_ref().map(actual)).collect();
        let outputs: Vec<Order> = node.outputs.iter().map(actual).collect();
        relabel.reader = Some(id);
        relabel.node(id, &inputs, &outputs)?;
    }
    relabel.reader = None;
    relabel.ports(plan)?;
    relabel.clean();
    Ok(())
}

fn is_moved(end: &End, moved: &[bool]) -> bool {
    moved.get(end.var.0).copied().unwrap_or(false)
}

/// A constant as it is read: in which order, and where axes of size 1 are inserted.
type Form = (Value, Order, Vec<usize>);

struct Relabel<'a> {
    graph: &'a mut Graph,
    target: Layout,
    /// By value of the source: what is made in its place, in which order; absent when nothing changed.
    made: HashMap<Value, (Value, Order)>,
    /// Values of the source, read in another form.
    read: HashMap<Form, Value>,
    transposes: HashMap<(Value, Vec<usize>), Value>,
    /// The node that is being worked on; none at the outputs of the graph.
    reader: Option<NodeId>,
    /// Transposes that may have lost their readers.
    old: Vec<NodeId>,
    /// Constants that may have lost their readers, and those that came in their place.
    constants: Vec<(NodeId, NodeId)>,
}

impl Relabel<'_> {
    fn made(&self, value: Value) -> (Value, Order) {
        let unchanged = || (value, Order::source(self.graph.shape(value).rank()));
        self.made.get(&value).cloned().unwrap_or_else(unchanged)
    }

    fn node(&mut self, id: NodeId, inputs: &[Option<Order>], outputs: &[Order]) -> Result<()> {
        let op = self.graph.op(id).clone();
        match op {
            Op::Constant(_) => return Ok(()),
            Op::Transpose(op) => return self.transpose_node(id, &op.perm, outputs),
            _ => {}
        }
        let values = self.graph.inputs_of(id);
        let rank = values.first().copied().flatten().map_or(0, |x| self.graph.shape(x).rank());
        let source = Order::source(rank);
        let x = inputs.first().cloned().flatten().unwrap_or(source);
        let y = outputs.first().cloned().unwrap_or_else(|| Order::source(0));
        let broadcasts = matches!(op, Op::Binary(_) | Op::Select(_) | Op::Expand(_));
        let mut news = Vec::with_capacity(values.len());
        for (slot, value) in values.iter().enumerate() {
            let Some(value) = *value else {
                news.push(None);
                continue;
            };
            let many = self.graph.tensor(value).is_some_and(|tensor| tensor.numel() > 1);
            let parameter = parameter_order(&op, slot, &x, &y).filter(|_| many);
            let end = parameter.or_else(|| inputs.get(slot).cloned().flatten());
            news.push(Some(match end {
                None => self.made(value).0,
                Some(order) => {
                    let ones = if broadcasts { self.ones(value, &y) } else { Vec::new() };
                    self.read(value, &order, ones)?
                }
            }));
        }
        let mut op = renumbered(op, inputs, &x, &y);
        if op.layout().is_some() && rank >= 2 {
            op.set_layout(self.target);
        }
        self.graph.replace_op(id, op, &news)?;
        for (output, order) in outputs.iter().enumerate().filter(|(_, order)| !order.is_source()) {
            let value = Value { node: id, output };
            self.made.insert(value, (value, order.clone()));
        }
        Ok(())
    }

    /// A transpose of the source: from whatever order its input is made in to that of its output.
    fn transpose_node(&mut self, id: NodeId, perm: &[usize], outputs: &[Order]) -> Result<()> {
        let Some(x) = self.graph.input_of(id, 0) else { return Ok(()) };
        let output = outputs.first().cloned().unwrap_or_else(|| Order::source(perm.len()));
        let (mut value, mut order) = self.made(x);
        if order.is_factored() {
            order = Order::source(perm.len());
            value = self.read(x, &order, Vec::new())?;
        }
        let to = output.after(perm);
        let perm: Vec<usize> = to.perm.iter().map(|&axis| order.place(axis)).collect();
        let (root, perm) = self.root(value, perm);
        let result = if perm.is_sorted() {
            root
        } else if let Some(&same) = self.transposes.get(&(root, perm.clone())) {
            same
        } else {
            self.graph.replace_op(id, Transpose { perm: perm.clone() }, &[Some(root)])?;
            self.transposes.insert((root, perm), id.into());
            id.into()
        };
        self.old.push(id);
        self.made.insert(id.into(), (result, output));
        Ok(())
    }

    /// What a transposition of a value is of the value before the transposes that made it.
    fn root(&mut self, value: Value, perm: Vec<usize>) -> (Value, Vec<usize>) {
        let (mut value, mut perm) = (value, perm);
        while let Op::Transpose(op) = self.graph.op(value.node)
            && let Some(x) = self.graph.input_of(value.node, 0)
        {
            perm = perm.iter().filter_map(|&axis| op.perm.get(axis).copied()).collect();
            self.old.push(value.node);
            value = x;
        }
        (value, perm)
    }

    /// Where an operand of lower rank needs axes of size 1 between its own, to meet a result in this order.
    fn ones(&self, value: Value, result: &Order) -> Vec<usize> {
        let shape = self.graph.shape(self.made(value).0);
        let missing = result.perm.len().saturating_sub(shape.rank());
        if shape.iter().all(|dim| *dim == Dim::Known(1)) {
            return Vec::new();
        }
        let axes = result.perm.iter().skip_while(|&&axis| axis < missing);
        axes.enumerate().filter(|(_, axis)| **axis < missing).map(|(place, _)| place).collect()
    }

    /// A value of the source in some order, with axes of size 1 inserted.
    fn read(&mut self, value: Value, order: &Order, ones: Vec<usize>) -> Result<Value> {
        let (made, have) = self.made(value);
        if have == *order && ones.is_empty() {
            return Ok(made);
        }
        let form = (value, order.clone(), ones);
        if let Some(&ready) = self.read.get(&form) {
            return Ok(ready);
        }
        let (_, _, ones) = &form;
        let new = if let Some(tensor) = self.graph.tensor(made) {
            self.constant(made, &tensor.clone(), order, ones)?
        } else if ones.is_empty() {
            self.rearrange(made, &have, order)?
        } else {
            let ordered = self.read(value, order, Vec::new())?;
            self.insert(Unsqueeze { axes: ones.clone() }, ordered, "expanded")?
        };
        self.read.insert(form, new);
        Ok(new)
    }

    /// Adds a node between a value and its reader, in the innermost scope (or module of the source) that both are in.
    fn insert(&mut self, op: impl Into<Op>, value: Value, suffix: &str) -> Result<Value> {
        let name = &self.graph.node(value.node).name;
        let (_, leaf) = name.rsplit_once('/').unwrap_or(("", name));
        let reader = self.reader.map_or("", |id| self.graph.node(id).name.as_str());
        let scopes = |name: &str| -> Vec<String> {
            name.rsplit_once('/').map_or_else(Vec::new, |(scope, _)| scope.split('/').map(str::to_owned).collect())
        };
        let module = |id| self.graph.module_of(id).map(str::to_owned);
        if let (Some(made), Some(read)) = (module(value.node), module(self.reader.unwrap_or(value.node))) {
            let same = made.split('.').zip(read.split('.')).take_while(|(a, b)| a == b).map(|(a, _)| a);
            let name = format!("{}/{leaf}_{suffix}", same.collect::<Vec<_>>().join("."));
            return self.insert_named(op, value, &name);
        }
        let common = scopes(name).into_iter().zip(scopes(reader)).take_while(|(a, b)| a == b).map(|(a, _)| a);
        let name = common.chain([format!("{leaf}_{suffix}")]).collect::<Vec<_>>().join("/");
        self.insert_named(op, value, &name)
    }

    fn insert_named(&mut self, op: impl Into<Op>, value: Value, name: &str) -> Result<Value> {
        let id = self.graph.add(op, name, &[value])?;
        if let Some(reader) = self.reader {
            self.graph.place_beside(id, reader);
        }
        Ok(id.into())
    }

    /// A constant in some order, with axes of size 1 inserted and leading ones dropped where it only broadcasts.
    fn constant(&mut self, value: Value, tensor: &Tensor, order: &Order, ones: &[usize]) -> Result<Value> {
        let name = self.graph.node(value.node).name.clone();
        let located = |message: String| Problem::new(message).node(&name);
        let mut tensor = order.tensor(tensor).map_err(located)?;
        if !ones.is_empty() {
            let mut shape = tensor.shape();
            for &axis in ones {
                shape.insert(axis.min(shape.len()), 1);
            }
            let lead = shape.iter().take_while(|size| **size == 1).count();
            tensor = tensor.reshaped(shape.get(lead..).unwrap_or_default()).map_err(located)?;
        }
        let trainable = matches!(self.graph.op(value.node), Op::Constant(constant) if constant.trainable);
        let new = if trainable { self.graph.variable(&name, tensor) } else { self.graph.constant(&name, tensor) };
        self.constants.push((value.node, new.node));
        Ok(new)
    }

    /// A value brought from one order to another.
    fn rearrange(&mut self, value: Value, from: &Order, to: &Order) -> Result<Value> {
        let now = self.graph.shape(value).clone();
        let shape: Shape =
            (0..now.rank()).map(|axis| now.get(from.place(axis)).cloned().unwrap_or(Dim::Unknown)).collect();
        let Some(steps) = from.steps(to, &shape) else {
            let source = Order::source(shape.rank());
            let plain = self.rearrange(value, from, &source)?;
            return self.rearrange(plain, &source, to);
        };
        if steps.is_nothing() {
            return Ok(value);
        }
        if steps.is_reshape(&now) {
            return self.insert(Reshape { shape: steps.shape }, value, "reshaped");
        }
        let Some(factors) = steps.factors else {
            return self.transposed(value, steps.perm);
        };
        let split = self.insert(Reshape { shape: factors }, value, "split")?;
        let transposed = self.transposed(split, steps.perm)?;
        self.insert(Reshape { shape: steps.shape }, transposed, "merged")
    }

    fn transposed(&mut self, value: Value, perm: Vec<usize>) -> Result<Value> {
        let (root, perm) = self.root(value, perm);
        if perm.is_sorted() {
            return Ok(root);
        }
        if let Some(&same) = self.transposes.get(&(root, perm.clone())) {
            return Ok(same);
        }
        let new = self.insert(Transpose { perm: perm.clone() }, root, "transposed")?;
        self.transposes.insert((root, perm), new);
        Ok(new)
    }

    /// Gives the inputs and outputs of the graph their values and permutations.
    fn ports(&mut self, plan: &Plan) -> Result<()> {
        for index in 0..self.graph.inputs.len() {
            let Some(value) = self.graph.inputs.get(index).map(|port| port.value) else { continue };
            let (_, order) = self.made(value);
            if let Some(port) = self.graph.inputs.get_mut(index) {
                port.permutation = composed(port.permutation.as_deref(), &order.perm);
            }
        }
        for (index, end) in plan.ports.iter().enumerate() {
            let Some(value) = self.graph.outputs.get(index).map(|port| port.value) else { continue };
            let (value, order) = match end {
                None => self.made(value),
                Some(end) => (self.read(value, &end.order, Vec::new())?, end.order.clone()),
            };
            if let Some(port) = self.graph.outputs.get_mut(index) {
                port.value = value;
                port.permutation = composed(port.permutation.as_deref(), &order.perm);
            }
        }
        Ok(())
    }

    /// Removes what has lost its readers; constants that came in the place of others take over their names.
    fn clean(&mut self) {
        let transposes: Vec<NodeId> = std::mem::take(&mut self.old);
        for id in transposes.into_iter().rev() {
            self.remove_unread(id);
        }
        for (old, new) in std::mem::take(&mut self.constants) {
            if let Some(name) = self.remove_unread(old) {
                self.graph.rename(new, &name);
            }
        }
    }

    /// Removes a node unless something reads it; returns its name.
    fn remove_unread(&mut self, id: NodeId) -> Option<String> {
        if !self.graph.contains(id) {
            return None;
        }
        let outputs = self.graph.node(id).outputs.len();
        if (0..outputs).any(|output| self.graph.uses(Value { node: id, output }) > 0) {
            return None;
        }
        let name = self.graph.node(id).name.clone();
        self.graph.remove(id);
        Some(name)
    }
}

/// The permutation of a port after one more reordering; `None` when nothing is left of it.
fn composed(before: Option<&[usize]>, perm: &[usize]) -> Option<Vec<usize>> {
    let perm: Vec<usize> = match before {
        Some(before) => perm.iter().filter_map(|&axis| before.get(axis).copied()).collect(),
        None => perm.to_vec(),
    };
    (!perm.is_sorted()).then_some(perm)
}

/// The order in which a parameter must be when the data is not in the source's.
fn parameter_order(op: &Op, slot: usize, x: &Order, y: &Order) -> Option<Order> {
    match (op, slot) {
        (Op::Dense(_), 1) => Some(Order::kernel(x, y)),
        (Op::Dense(_), 2) => Some(y.of_axis(y.perm.len().checked_sub(1)?)),
        (Op::BatchNorm(_) | Op::InstanceNorm(_) | Op::PRelu(_), 1..) if x.is_factored() => Some(x.of_axis(1)),
        (Op::LayerNorm(op), 1..) if !x.is_source() => Some(x.of_axes(&op.axes)),
        _ => None,
    }
}

/// The operator for data in the order `x` and a result in the order `y`.
fn renumbered(op: Op, inputs: &[Option<Order>], x: &Order, y: &Order) -> Op {
    let mut op = op;
    match &mut op {
        Op::Input(op) => op.shape = op.shape.permuted(&y.perm),
        Op::Fill(op) => op.shape = op.shape.permuted(&y.perm),
        Op::Softmax(op) => op.axis = x.place(op.axis),
        Op::LogSoftmax(op) => op.axis = x.place(op.axis),
        Op::CumSum(op) => op.axis = x.place(op.axis),
        Op::Concat(op) => op.axis = x.place(op.axis),
        Op::Split(op) => op.axis = x.place(op.axis),
        Op::ArgReduce(op) => op.axis = x.place(op.axis),
        Op::Unpack(op) => op.axis = x.place(op.axis),
        Op::Gather(op) => op.axis = x.place(op.axis),
        Op::Pack(op) => op.axis = y.place(op.axis),
        Op::OneHot(op) => op.axis = y.place(op.axis),
        Op::Reduce(op) => op.axes = x.places(&op.axes),
        Op::L2Normalize(op) => op.axes = x.places(&op.axes),
        Op::Reverse(op) => op.axes = x.places(&op.axes),
        Op::Squeeze(op) => op.axes = x.places(&op.axes),
        Op::Unsqueeze(op) => op.axes = y.places(&op.axes),
        Op::LayerNorm(op) if !x.is_source() => op.axes = x.places(&op.axes),
        Op::Slice(op) => {
            op.begins = x.list(&op.begins);
            op.ends = x.list(&op.ends);
            op.steps = x.list(&op.steps);
        }
        Op::Pad(op) => op.pads.0 = x.list(&op.pads.0),
        Op::Tile(op) => op.repeats = op.repeats.permuted(&x.perm),
        Op::Expand(op) if !y.is_source() => {
            let missing = y.perm.len().saturating_sub(op.shape.rank());
            let full: Shape = std::iter::repeat_n(Dim::Known(1), missing).chain(op.shape.iter().cloned()).collect();
            op.shape = full.permuted(&y.perm);
        }
        Op::Reshape(op) => op.shape = op.shape.permuted(&y.perm),
        Op::MatMul(op) => {
            let swaps = |slot: usize| inputs.get(slot).and_then(Option::as_ref).is_some_and(Order::swaps_matrix);
            op.transpose_a ^= swaps(0);
            op.transpose_b ^= swaps(1);
        }
        _ => {}
    }
    op
}
