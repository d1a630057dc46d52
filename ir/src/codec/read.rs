//! From the nodes and weights of the files to a graph.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::path::Path;

use super::node::{is_known, read, slots};
use super::proto::{GraphDef, NodeDef, Value as Attr};
use super::{CONSTANTS, Header, SLOTS, TRAINABLE, VALUE, arrange, weight_key};
use crate::diagnostic::{Error, Problem, Result};
use crate::graph::{Graph, NodeId, Port, Value, ValueInfo};
use crate::npy::Weights;
use crate::op::{Op, Slot, SlotKind};
use crate::tensor::{DType, Tensor, numel};
use crate::weight_norm::{Entry, WeightNorm};

/// Builds the graph of a file in `graph`, which has its name and source already, in case the file does not say them.
///
/// # Errors
/// All nodes that can't be read.
pub(super) fn from_files(def: GraphDef, weights: &Weights, graph: Graph, weights_file: Option<&Path>) -> Result<Graph> {
    let (headers, defs): (Vec<NodeDef>, Vec<NodeDef>) = def.node.into_iter().partition(|def| def.op == Header::OP);
    let mut problems = Vec::new();
    let mut names = HashMap::with_capacity(defs.len());
    for (index, def) in defs.iter().enumerate() {
        if def.name.is_empty() {
            problems.push(Problem::new("a node has no name").op(&def.op));
        } else if names.insert(def.name.clone(), index).is_some() {
            problems.push(Problem::new("two nodes have the same name").node(&def.name));
        }
    }
    Error::collect(problems)?;
    let mut loader = Loader {
        graph,
        values: vec![None; defs.len()],
        stored: vec![Vec::new(); defs.len()],
        names,
        weights,
        weights_file,
        constants: HashMap::new(),
        problems: Vec::new(),
    };
    let inputs = loader.resolve(&defs);
    for index in loader.order(&defs, &inputs)? {
        if let (Some(def), Some(inputs)) = (defs.get(index), inputs.get(index)) {
            loader.node(index, def, inputs);
        }
    }
    match headers.first() {
        Some(header) => loader.ports(header, &defs)?,
        None => loader.open_ends(&defs, &inputs),
    }
    Error::collect(loader.problems)?;
    Ok(loader.graph)
}

/// Which output of which node in the file an input is; `None`: there is no such node.
type Reference = Option<(usize, usize)>;

pub(super) struct Loader<'a> {
    pub graph: Graph,
    /// The outputs of every node in the file, if it could be read.
    values: Vec<Option<Vec<Value>>>,
    /// The names of the constants of every node's weights, by slot.
    stored: Vec<Vec<String>>,
    /// Nodes in the file by name.
    names: HashMap<String, usize>,
    weights: &'a Weights,
    weights_file: Option<&'a Path>,
    /// Constants of weights, by their name in the file.
    constants: HashMap<String, Value>,
    problems: Vec<Problem>,
}

impl Loader<'_> {
    fn reference(&self, text: &str) -> Reference {
        if let Some(&node) = self.names.get(text) {
            return Some((node, 0));
        }
        let (name, output) = text.rsplit_once(':')?;
        Some((*self.names.get(name)?, output.parse().ok()?))
    }

    /// The inputs of all nodes. MMdnn leaves out constant nodes and keeps their names as inputs: these are passed over
    /// where the node needs no value for them.
    fn resolve(&mut self, defs: &[NodeDef]) -> Vec<Vec<(usize, usize)>> {
        const SPARE: [&str; 12] = [
            "ConvTranspose",
            "Transpose",
            "Reshape",
            "Squeeze",
            "Unsqueeze",
            "ReduceMean",
            "Pad",
            "Slice",
            "Cast",
            "Embedding",
            "Gather",
            "UpSampling2D",
        ];
        let mut all = Vec::with_capacity(defs.len());
        for def in defs {
            let inputs: Vec<Reference> = def.input.iter().map(|text| self.reference(text)).collect();
            let spare = SPARE.contains(&def.op.as_str()) && inputs.iter().any(Option::is_some);
            if !spare {
                for (text, _) in def.input.iter().zip(&inputs).filter(|(_, input)| input.is_none()) {
                    let problem = Problem::new(format!("its input '{text}' is not in the file"));
                    self.problems.push(problem.node(&def.name).op(&def.op));
                }
            }
            all.push(inputs.into_iter().flatten().collect());
        }
        all
    }

    /// The nodes of the file, producers first; among those that are ready, the first in the file.
    fn order(&self, defs: &[NodeDef], inputs: &[Vec<(usize, usize)>]) -> Result<Vec<usize>> {
        let mut readers: Vec<Vec<usize>> = vec![Vec::new(); defs.len()];
        let mut missing: Vec<usize> = inputs.iter().map(Vec::len).collect();
        for (index, inputs) in inputs.iter().enumerate() {
            for (node, _) in inputs {
                if let Some(readers) = readers.get_mut(*node) {
                    readers.push(index);
                }
            }
        }
        let free = missing.iter().enumerate().filter(|(_, count)| **count == 0);
        let mut ready: BinaryHeap<Reverse<usize>> = free.map(|(index, _)| Reverse(index)).collect();
        let mut order = Vec::with_capacity(defs.len());
        while let Some(Reverse(index)) = ready.pop() {
            order.push(index);
            for &reader in readers.get(index).into_iter().flatten() {
                if let Some(count) = missing.get_mut(reader) {
                    *count -= 1;
                    if *count == 0 {
                        ready.push(Reverse(reader));
                    }
                }
            }
        }
        let stuck = missing.iter().zip(defs).find(|(count, _)| **count > 0);
        match stuck {
            Some((_, def)) if order.len() < defs.len() => {
                Err(Problem::new("the network has a cycle").node(&def.name).op(&def.op).into())
            }
            _ => Ok(order),
        }
    }

    /// Adds what a node of the file stands for. A node whose inputs could not be read is passed over: its turn comes
    /// when they can.
    fn node(&mut self, index: usize, def: &NodeDef, inputs: &[(usize, usize)]) {
        let mut values = Vec::with_capacity(inputs.len());
        for &(node, output) in inputs {
            let Some(Some(outputs)) = self.values.get(node) else { return };
            match outputs.get(output) {
                Some(&value) => values.push(value),
                None => {
                    let producer = self.graph.node(outputs.first().map_or(NodeId::end(), |value| value.node));
                    let message = format!("'{}' has no output {output}", producer.name);
                    self.problems.push(Problem::new(message).node(&def.name).op(&def.op));
                    return;
                }
            }
        }
        match self.outputs(index, def, values) {
            Ok(outputs) => {
                if let Some(place) = self.values.get_mut(index) {
                    *place = Some(outputs);
                }
            }
            Err(error) => {
                let located = error.at_node(&def.name).problems.into_iter();
                self.problems.extend(located.map(|p| if p.op.is_none() { p.op(&def.op) } else { p }));
            }
        }
    }

    fn outputs(&mut self, index: usize, def: &NodeDef, mut inputs: Vec<Value>) -> Result<Vec<Value>> {
        // TensorFlow's output shape is the first input of its transposed convolution.
        if def.op == "ConvTranspose"
            && let [shape, _, ..] = inputs[..]
            && self.graph.info(shape).dtype.is_int()
        {
            inputs.remove(0);
        }
        if let Some(outputs) = self.expand(def, &inputs)? {
            return Ok(outputs);
        }
        if !is_known(def) {
            let hint = match def.op.as_str() {
                "RNN" | "LSTM" | "GRU" => {
                    "recurrent layers in MMdnn's files do not say what they compute: convert the source anew"
                }
                _ => "convert the source anew, or cut the network before this node",
            };
            return Err(Problem::new("the operator is not known").hint(hint).into());
        }
        let slots = slots(def);
        let mut by_slot = self.stored_weights(index, def, slots)?;
        self.fill(def, inputs, &mut by_slot).map_err(Error::new)?;
        self.check_weights(def, slots, &by_slot)?;
        let infos: Vec<Option<&ValueInfo>> = by_slot.iter().map(|value| value.map(|v| self.graph.info(v))).collect();
        let op = read(def, &infos).map_err(Error::new)?;
        let id = self.graph.add_with(op, &def.name, &by_slot)?;
        Ok((0..self.graph.node(id).outputs.len()).map(|output| Value { node: id, output }).collect())
    }

    /// The weights of a node, by slot.
    fn stored_weights(&mut self, index: usize, def: &NodeDef, slots: &[Slot]) -> Result<Vec<Option<Value>>> {
        let named = def.texts(CONSTANTS).map_err(Error::new)?.unwrap_or_default();
        let named: HashMap<&str, &str> = named.iter().filter_map(|text| text.split_once('=')).collect();
        let mut by_slot = Vec::new();
        for slot in slots {
            let is_weight = matches!(slot.kind, SlotKind::Param | SlotKind::OptionalParam);
            let is_table = matches!(def.op.as_str(), "Embedding" | "Gather") && by_slot.is_empty();
            let value =
                if is_weight || is_table { self.weight(def, slot, named.get(slot.name).copied())? } else { None };
            if let Some(value) = value
                && let Some(stored) = self.stored.get_mut(index)
            {
                stored.push(self.graph.node(value.node).name.clone());
            }
            by_slot.push(value);
        }
        Ok(by_slot)
    }

    fn weight(&mut self, def: &NodeDef, slot: &Slot, name: Option<&str>) -> Result<Option<Value>> {
        if let Some(value) = name.and_then(|name| self.constants.get(name)) {
            return Ok(Some(*value));
        }
        // MMdnn's Keras reader has another name for embeddings.
        let keys = [if def.op == "Gather" { "weights" } else { weight_key(&def.op, slot.name) }, "embedding_weights"];
        let keys = if def.op == "Embedding" { keys.as_slice() } else { keys.get(..1).unwrap_or_default() };
        let Some(tensor) = keys.iter().find_map(|key| self.tensor(&def.name, key)) else { return Ok(None) };
        let tensor = match tensor.shape()[..] {
            [height, width, channels, multiplier] if def.op == "DepthwiseConv" && slot.name == "weights" => {
                let all = channels.checked_mul(multiplier).unwrap_or_default();
                tensor.reshaped(&[height, width, 1, all]).map_err(Error::new)?
            }
            _ => tensor,
        };
        let default = format!("{}/{}", def.name, slot.name);
        let fresh = self.fresh(name.unwrap_or(&default));
        let trained = match def.texts(TRAINABLE).map_err(Error::new)? {
            Some(trained) => trained.iter().any(|trained| trained == slot.name),
            // MMdnn does not say; statistics are not trained.
            None => def.value(CONSTANTS).is_none() && !matches!(slot.name, "mean" | "var"),
        };
        let value = if trained { self.graph.variable(&fresh, tensor) } else { self.graph.constant(&fresh, tensor) };
        if let Some(name) = name {
            self.constants.insert(name.to_owned(), value);
        }
        Ok(Some(value))
    }

    /// A tensor in the weights file.
    pub fn tensor(&self, node: &str, name: &str) -> Option<Tensor> {
        self.weights.get(node).and_then(|layer| layer.get(name)).cloned()
    }

    /// Adds a weight that is no node in the file.
    pub fn variable(&mut self, name: &str, tensor: Tensor) -> Value {
        let name = self.fresh(name);
        self.graph.variable(&name, tensor)
    }

    /// A name that no node in the file has.
    pub fn fresh(&self, name: &str) -> String {
        let mut fresh = name.to_owned();
        while self.names.contains_key(&fresh) {
            fresh.push('_');
        }
        fresh
    }

    /// Puts the inputs into the slots that weights left free.
    fn fill(
        &self,
        def: &NodeDef,
        inputs: Vec<Value>,
        by_slot: &mut Vec<Option<Value>>,
    ) -> std::result::Result<(), String> {
        let mut place = |slot: usize, value: Value| {
            if by_slot.len() <= slot {
                by_slot.resize(slot + 1, None);
            }
            by_slot.get_mut(slot).filter(|place| place.is_none()).map(|place| *place = Some(value))
        };
        if let Some(list) = def.integers(SLOTS)? {
            // Nothing has more optional slots than this between its inputs.
            let limit = inputs.len() + 64;
            let bad = || format!("the attribute '{SLOTS}' is {list:?}, which does not fit {} inputs", inputs.len());
            if list.len() != inputs.len() {
                return Err(bad());
            }
            for (&slot, &value) in list.iter().zip(&inputs) {
                let slot = usize::try_from(slot).ok().filter(|&slot| slot < limit).ok_or_else(bad)?;
                place(slot, value).ok_or_else(bad)?;
            }
            return Ok(());
        }
        let mut slot = 0;
        for value in inputs {
            while place(slot, value).is_none() {
                slot += 1;
            }
        }
        // Slots at the end that nothing fills are absent.
        while by_slot.last() == Some(&None) {
            by_slot.pop();
        }
        Ok(())
    }

    /// Fails when weights that the node must have, or says that it has, are not there.
    fn check_weights(&self, def: &NodeDef, slots: &[Slot], by_slot: &[Option<Value>]) -> Result<()> {
        let flag = |name: &str| def.flag(name).ok().flatten() == Some(true);
        let named = def.texts(CONSTANTS).ok().flatten().unwrap_or_default();
        let is_wanted = |slot: &Slot| match (slot.kind, slot.name) {
            (SlotKind::Param, _) => true,
            (SlotKind::OptionalParam, "bias") if flag("use_bias") || flag("bias") => true,
            (SlotKind::OptionalParam, "scale") if flag("scale") => true,
            (SlotKind::Data, "x") if def.op == "Embedding" => true,
            (_, name) => named.iter().any(|text| text.split_once('=').is_some_and(|(slot, _)| slot == name)),
        };
        let missing: Vec<&str> = slots
            .iter()
            .enumerate()
            .filter(|(i, slot)| is_wanted(slot) && by_slot.get(*i).copied().flatten().is_none())
            .map(|(_, slot)| weight_key(&def.op, slot.name))
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(self.missing(&missing).into()) }
    }

    /// That weights of a node are not in the file.
    pub fn missing(&self, names: &[&str]) -> Problem {
        let names = names.join(", ");
        match self.weights_file {
            Some(file) => Problem::new(format!("{} has no {names} for it", file.display()))
                .hint("is it the .npy that was written together with this network?"),
            None => {
                Problem::new(format!("there is no {names} for it")).hint("name the .npy that belongs to this network")
            }
        }
    }

    /// The tensor of a constant node: in the weights file, else among the attributes.
    pub fn constant_tensor(&self, def: &NodeDef) -> Result<Tensor> {
        if let Some(tensor) = self.tensor(&def.name, VALUE) {
            return Ok(tensor);
        }
        let dtype = def.dtype("dtype").map_err(Error::new)?;
        let (shape, values, default): (Vec<usize>, Vec<f64>, DType) = match def.value(VALUE) {
            Some(Attr::F(f)) => (vec![], vec![f64::from(*f)], DType::Float32),
            Some(Attr::I(i)) => (vec![], vec![*i as f64], DType::Int32),
            Some(Attr::B(b)) => (vec![], vec![f64::from(u8::from(*b))], DType::Bool),
            Some(Attr::List(list)) if !list.i.is_empty() => {
                (vec![list.i.len()], list.i.iter().map(|&i| i as f64).collect(), DType::Int32)
            }
            Some(Attr::List(list)) if !list.f.is_empty() => {
                (vec![list.f.len()], list.f.iter().map(|&f| f64::from(f)).collect(), DType::Float32)
            }
            _ => return Err(self.missing(&[VALUE]).into()),
        };
        debug_assert_eq!(numel(&shape), Some(values.len()));
        Ok(Tensor::from_f64(dtype.unwrap_or(default), &shape, values))
    }

    /// Name, source, inputs, outputs, modules and spare weights, as the file says them, and the order of all nodes.
    fn ports(&mut self, header: &NodeDef, defs: &[NodeDef]) -> Result<()> {
        let failed = |message: String| Error::from(Problem::new(message).node(&header.name));
        self.graph.name = header.text(Header::NAME).map_err(failed)?.unwrap_or_default().to_owned();
        self.graph.source = header.text(Header::SOURCE).map_err(failed)?.unwrap_or_default().to_owned();
        let list = |name: &str| header.texts(name).map_err(failed).map(Option::unwrap_or_default);
        let inputs =
            self.port_list(&list(Header::INPUTS)?, &list(Header::INPUT_VALUES)?, &list(Header::INPUT_PERMUTATIONS)?);
        let outputs =
            self.port_list(&list(Header::OUTPUTS)?, &list(Header::OUTPUT_VALUES)?, &list(Header::OUTPUT_PERMUTATIONS)?);
        for port in &inputs {
            if !matches!(self.graph.op(port.value.node), Op::Input(_)) {
                self.problems.push(Problem::new("an input of the network is no DataInput").node(&port.name));
            }
        }
        (self.graph.inputs, self.graph.outputs) = (inputs, outputs);

        // Class names have no `=`; paths may.
        let modules = list(Header::MODULES)?;
        let modules = modules.iter().filter_map(|text| text.rsplit_once('='));
        self.graph.modules = modules.map(|(path, class)| (path.to_owned(), class.to_owned())).collect();

        for key in list(Header::SPARE)? {
            match self.tensor(&key, VALUE) {
                Some(tensor) => drop(self.graph.spare.insert(key, tensor)),
                None => self.problems.push(self.missing(&[VALUE]).node(key)),
            }
        }

        for norm in list(Header::WEIGHT_NORMS)?.chunks_exact(4) {
            let [key, axis, length, direction] = norm else { continue };
            let mut entry = |key: &String| match self.tensor(key, VALUE) {
                Some(tensor) => Some(Entry { key: key.clone(), tensor }),
                None => {
                    self.problems.push(self.missing(&[VALUE]).node(key));
                    None
                }
            };
            if let (Some(length), Some(direction)) = (entry(length), entry(direction)) {
                let norm = WeightNorm { axis: axis.parse().ok(), length, direction };
                self.graph.weight_norms.insert(key.clone(), norm);
            }
        }

        let positions = header.integers(Header::POSITIONS).map_err(failed)?.unwrap_or_default();
        let mut default = Vec::with_capacity(self.graph.len());
        let mut placed = HashSet::new();
        for (def, stored) in defs.iter().zip(&self.stored) {
            default.extend(stored.iter().filter(|name| placed.insert(name.as_str())).map(|name| (name.as_str(), true)));
            default.push((def.name.as_str(), false));
        }
        let order: Vec<NodeId> =
            arrange(&default, &positions).into_iter().filter_map(|name| self.graph.find(name)).collect();
        self.graph.set_order(&order);
        Ok(())
    }

    fn port_list(&mut self, names: &[String], values: &[String], permutations: &[String]) -> Vec<Port> {
        if names.len() != values.len() {
            let message = format!("{} ports have {} values", names.len(), values.len());
            self.problems.push(Problem::new(message).op(Header::OP));
        }
        let mut ports = Vec::with_capacity(names.len());
        for (index, (name, text)) in names.iter().zip(values).enumerate() {
            let Some((node, output)) = self.reference(text) else {
                self.problems.push(Problem::new(format!("the port '{name}' is '{text}', which is not in the file")));
                continue;
            };
            // A node that could not be read is a problem already.
            let Some(Some(outputs)) = self.values.get(node) else { continue };
            let Some(&value) = outputs.get(output) else {
                self.problems
                    .push(Problem::new(format!("the port '{name}' is '{text}', which has no output {output}")));
                continue;
            };
            let permutation = permutations
                .get(index)
                .filter(|text| !text.is_empty())
                .and_then(|text| text.split(',').map(|axis| axis.parse().ok()).collect::<Option<Vec<usize>>>());
            ports.push(Port { name: name.clone(), value, permutation });
        }
        ports
    }

    /// Inputs and outputs of a file that does not say them, as MMdnn's programs find them: what takes no input, and
    /// what nothing reads.
    fn open_ends(&mut self, defs: &[NodeDef], inputs: &[Vec<(usize, usize)>]) {
        let read: HashSet<usize> = inputs.iter().flatten().map(|(node, _)| *node).collect();
        let mut ends = Vec::new();
        for (index, def) in defs.iter().enumerate() {
            let Some(Some(outputs)) = self.values.get(index) else { continue };
            let is_input = outputs.first().is_some_and(|value| matches!(self.graph.op(value.node), Op::Input(_)));
            let is_constant = outputs.first().is_some_and(|value| self.graph.tensor(*value).is_some());
            for (number, &value) in outputs.iter().enumerate() {
                let name = if number == 0 { def.name.clone() } else { format!("{}:{number}", def.name) };
                if is_input {
                    self.graph.inputs.push(Port { name, value, permutation: None });
                } else if !is_constant && !read.contains(&index) {
                    ends.push(Port { name, value, permutation: None });
                }
            }
        }
        self.graph.outputs.extend(ends);
        if self.problems.is_empty() {
            self.graph.prune();
        }
    }
}
