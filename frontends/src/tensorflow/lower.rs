//! Lowering: visits the nodes that the outputs need, producers first, and has each translated by its function in
//! [`ops`](super::ops). Values are kept in the cheapest form: constants and shape arithmetic become nodes of the
//! graph only when data is asked for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

use modelport_ir::{DType, Dim, Error, Graph, Op, Problem, Result, Shape, Tensor, Value, op};

use super::clean::Resolver;
use super::inputs::Inputs;
use super::net::{Net, Ref};
use super::ops::{self, Call};
use super::sizes;
use crate::symbolic::{Elem, Expressions, MAX_ELEMENTS, Sizes};

/// How deep the graph is asked for values again while one is being made.
const MAX_DEPTH: usize = 48;

/// Where the values of variables come from.
pub trait Variables {
    /// The tensor of a variable by the names that it may be saved under, of the shape that the graph says.
    ///
    /// # Errors
    /// When it is missing or of another shape.
    fn find(&self, names: &[&str], shape: Option<&[i64]>) -> std::result::Result<Tensor, Problem>;
}

/// Most items of lists that are copied.
const MAX_COPIED: usize = 1 << 22;

/// How many operators a weight may be computed by.
const MAX_FIXED: usize = 64;

/// What is known of a value.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A value of the graph.
    Data(Value),
    /// A constant that is not (yet) in the graph.
    Constant(Tensor, Origin),
    /// Numbers that are known up to sizes.
    Sizes(Sizes),
    /// Tensors at places, which loops read from and write to.
    List(List),
    /// Nothing that a network computes with: a string, a handle.
    Other,
}

/// The tensors at the places of a list; `None` where nothing was written.
pub type List = Vec<Option<Value>>;

/// Where a constant came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The name of its variable or node.
    pub name: String,
    /// Whether it is or was a variable.
    pub variable: bool,
}

impl From<Value> for Entry {
    fn from(value: Value) -> Entry {
        Entry::Data(value)
    }
}

/// The state of one lowering.
pub struct Lowering<'a> {
    net: &'a Net,
    resolver: &'a Resolver<'a>,
    variables: &'a dyn Variables,
    inputs: Inputs<'a>,
    /// The graph that is being made.
    pub graph: Graph,
    /// What is not known of sizes.
    pub expressions: Expressions,
    entries: HashMap<Ref, Entry>,
    values: HashMap<Ref, Value>,
    /// Constants in the graph, by name.
    constants: HashMap<String, Vec<Value>>,
    /// Which input of the graph tells a free size.
    sources: BTreeMap<Arc<str>, Value>,
    /// How many nodes read a value.
    readers: HashMap<Ref, usize>,
    missing: Vec<Problem>,
    problems: Vec<Problem>,
    depth: usize,
    /// Items of lists that were copied.
    copied: usize,
}

impl<'a> Lowering<'a> {
    /// A lowering of the nodes that `resolver` shows.
    pub fn new(
        resolver: &'a Resolver<'a>,
        variables: &'a dyn Variables,
        inputs: Inputs<'a>,
        graph: Graph,
    ) -> Lowering<'a> {
        Lowering {
            net: resolver.net(),
            resolver,
            variables,
            inputs,
            graph,
            expressions: Expressions::default(),
            entries: HashMap::new(),
            values: HashMap::new(),
            constants: HashMap::new(),
            sources: BTreeMap::new(),
            readers: HashMap::new(),
            missing: Vec::new(),
            problems: Vec::new(),
            depth: 0,
            copied: 0,
        }
    }

    /// Lowers everything that `outputs` need; what went wrong is left in [`Lowering::problems`].
    pub fn run(&mut self, outputs: &[Ref]) {
        let needed = self.needed(outputs);
        let mut used: HashSet<Ref> = outputs.iter().map(|value| self.resolver.resolve(*value)).collect();
        used.extend(needed.iter().flat_map(|&index| self.dependencies(index)));
        self.problems.extend(self.inputs.assign(&needed, used));
        for &index in self.inputs.first().iter().filter(|index| needed.contains(index)) {
            self.lower(index);
        }
        let mut waiting: HashMap<usize, usize> = HashMap::new();
        let mut after: HashMap<usize, Vec<usize>> = HashMap::new();
        let mut ready = BinaryHeap::new();
        for &index in &needed {
            let mut sources = self.dependencies(index);
            for value in &sources {
                *self.readers.entry(*value).or_default() += 1;
            }
            sources.sort_unstable();
            sources.dedup_by_key(|value| value.node);
            for value in &sources {
                after.entry(value.node).or_default().push(index);
            }
            if sources.is_empty() {
                ready.push(Reverse(index));
            } else {
                waiting.insert(index, sources.len());
            }
        }
        while let Some(Reverse(index)) = ready.pop() {
            self.lower(index);
            for reader in after.remove(&index).unwrap_or_default() {
                if let Some(count) = waiting.get_mut(&reader) {
                    *count -= 1;
                    if *count == 0 {
                        waiting.remove(&reader);
                        ready.push(Reverse(reader));
                    }
                }
            }
        }
        self.report_loop(waiting.into_keys().collect());
    }

    /// What went wrong so far.
    pub fn problems(&mut self) -> Vec<Problem> {
        // Missing variables make one list, behind what the network itself lacks.
        let mut problems = std::mem::take(&mut self.problems);
        problems.append(&mut self.missing);
        problems
    }

    /// Nodes that the outputs depend on.
    fn needed(&self, outputs: &[Ref]) -> HashSet<usize> {
        let mut needed = HashSet::new();
        let mut stack: Vec<usize> = outputs.iter().map(|value| self.resolver.resolve(*value).node).collect();
        while let Some(index) = stack.pop() {
            if needed.insert(index) {
                stack.extend(self.dependencies(index).iter().map(|value| value.node));
            }
        }
        needed
    }

    fn dependencies(&self, index: usize) -> Vec<Ref> {
        if self.inputs.is_input(index) {
            return Vec::new();
        }
        self.resolver.inputs(index).into_iter().flatten().collect()
    }

    /// Nodes on and behind a cycle: a loop of the source.
    fn report_loop(&mut self, mut stuck: Vec<usize>) {
        stuck.sort_unstable();
        let mut found = false;
        for &index in &stuck {
            if !ops::is_supported(self.net.op(index)) {
                found = true;
                self.unsupported(index);
            }
        }
        if let (false, Some(&index)) = (found, stuck.first()) {
            self.problems.push(Problem::new("the graph has a cycle").node(&self.net.node(index).name));
        }
    }

    fn unsupported(&mut self, index: usize) {
        let node = self.net.node(index);
        let shapes: Vec<String> = self.resolver.inputs(index).into_iter().map(|input| self.describe(input)).collect();
        let mut problem = Problem::new("modelport has no translation for this TensorFlow op")
            .op(&node.op)
            .node(&node.name)
            .hint(ops::hint(&node.op));
        if !shapes.is_empty() {
            problem = problem.inputs(format!("({})", shapes.join(", ")));
        }
        self.problems.push(problem);
    }

    /// Type and shape of a value as text.
    fn describe(&self, value: Option<Ref>) -> String {
        match value.and_then(|value| self.shape(value).zip(self.dtype(value))) {
            Some((shape, dtype)) => format!("{dtype}{shape}"),
            None => "?".to_owned(),
        }
    }

    fn lower(&mut self, index: usize) {
        if self.entries.contains_key(&Ref { node: index, output: 0 }) {
            return;
        }
        match self.translate(index, true) {
            Ok(Some(entries)) => {
                for (output, entry) in entries.into_iter().enumerate() {
                    self.entries.insert(Ref { node: index, output }, entry);
                }
            }
            Ok(None) => {}
            Err(error) => {
                let node = self.net.node(index);
                let problems = error.at_node(&node.name).problems.into_iter();
                self.problems.extend(problems.map(|problem| match &problem.op {
                    Some(_) => problem,
                    None => problem.op(&node.op),
                }));
            }
        }
    }

    /// The entries of a node's outputs; `None` when an input is lacking, which has been reported.
    fn translate(&mut self, index: usize, symbolically: bool) -> Result<Option<Vec<Entry>>> {
        let net = self.net;
        let node = net.node(index);
        if self.inputs.is_input(index) {
            return self.input(index).map(Some);
        }
        if is_variable(&node.op) {
            return Ok(self.variable(index));
        }
        let mut inputs = Vec::new();
        for (slot, input) in self.resolver.inputs(index).into_iter().enumerate() {
            match input {
                Some(value) => inputs.push(value),
                None => {
                    let name = node.inputs.iter().filter(|i| !i.starts_with('^')).nth(slot);
                    let name = name.map_or("?", String::as_str);
                    return Err(Error::new(format!("reads '{name}', which is not in the graph")));
                }
            }
        }
        let complete = inputs.iter().all(|value| self.entries.contains_key(value));
        let Some(function) = ops::function(&node.op) else {
            if complete || !inputs.iter().all(|value| self.entries.contains_key(&Ref { node: value.node, output: 0 })) {
                self.unsupported(index);
            }
            return Ok(None);
        };
        if !complete {
            let lost = inputs.iter().find(|value| {
                !self.entries.contains_key(value) && self.entries.contains_key(&Ref { node: value.node, output: 0 })
            });
            return match lost {
                Some(value) => {
                    let (op, output) = (net.op(value.node), value.output);
                    Err(Error::new(format!("reads output {output} of {op}, which modelport does not compute")))
                }
                None => Ok(None),
            };
        }
        if symbolically && let Some(sizes) = sizes::evaluate(self, node, &inputs) {
            return Ok(Some(sizes.into_iter().map(Entry::Sizes).collect()));
        }
        function(&mut Call { lower: self, node, inputs }).map(Some)
    }

    fn input(&mut self, index: usize) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for spec in self.inputs.specs(index, self.resolver)? {
            let Some(spec) = spec else {
                entries.push(Entry::Other);
                continue;
            };
            let value = self.graph.input(&spec.name, spec.dtype, spec.shape.clone())?;
            for dim in spec.shape.iter() {
                if let Dim::Symbol { name, .. } = dim {
                    self.sources.entry(name.clone()).or_insert(value);
                }
            }
            entries.push(Entry::Data(value));
        }
        Ok(entries)
    }

    /// The tensor of a variable under its name; missing ones are noted.
    fn variable(&mut self, index: usize) -> Option<Vec<Entry>> {
        let node = self.net.node(index);
        let shared = node.text("shared_name").filter(|name| !name.is_empty());
        let names: Vec<&str> = std::iter::once(node.name.as_str()).chain(shared).collect();
        let wanted = node.shape("shape");
        match self.variables.find(&names, wanted) {
            Ok(tensor) => {
                let origin = Origin { name: node.name.clone(), variable: true };
                Some(vec![Entry::Constant(tensor, origin)])
            }
            Err(problem) => {
                self.missing.push(problem.node(&node.name));
                None
            }
        }
    }

    /// What is known of a value.
    pub fn entry(&self, value: Ref) -> Option<&Entry> {
        self.entries.get(&value)
    }

    /// A list to change: moved if it has one reader, else copied; `None` when too much was.
    pub fn take_list(&mut self, value: Ref) -> Option<List> {
        let alone = self.readers(value) == 1;
        let Some(Entry::List(list)) = self.entries.get_mut(&value) else { return None };
        if alone {
            return Some(std::mem::take(list));
        }
        self.copied += list.len();
        (self.copied <= MAX_COPIED).then(|| list.clone())
    }

    /// The node that computes a value, and its operator.
    pub fn source(&self, value: Ref) -> &'a super::graphdef::NodeDef {
        self.net.node(value.node)
    }

    /// The inputs of the node that computes a value, resolved.
    pub fn source_inputs(&self, value: Ref) -> Vec<Option<Ref>> {
        self.resolver.inputs(value.node)
    }

    /// How many nodes read a value.
    pub fn readers(&self, value: Ref) -> usize {
        self.readers.get(&value).copied().unwrap_or(0)
    }

    /// The boolean that a value is at conversion time.
    pub fn truth(&self, value: Ref) -> Option<bool> {
        self.resolver.truth(value)
    }

    /// Whether a value depends on no input: it is a constant, or will be when constants are folded.
    pub fn is_fixed(&self, value: Ref) -> bool {
        let start = match self.entries.get(&value) {
            Some(Entry::Data(value)) => value.node,
            Some(Entry::Constant(..)) => return true,
            Some(Entry::Sizes(sizes)) => return sizes.reals().is_some(),
            Some(Entry::List(_) | Entry::Other) | None => return false,
        };
        let (mut seen, mut stack) = (HashSet::new(), vec![start]);
        while let Some(id) = stack.pop() {
            if matches!(self.graph.op(id), Op::Input(_) | Op::Foreign(_)) || seen.len() > MAX_FIXED {
                return false;
            }
            if seen.insert(id) {
                stack.extend(self.graph.inputs_of(id).into_iter().flatten().map(|value| value.node));
            }
        }
        true
    }

    /// Where the values of variables come from.
    pub fn variables(&self) -> &'a dyn Variables {
        self.variables
    }

    /// Whether a node is read through an Identity, as variables are, also when they were frozen.
    pub fn is_read(&self, name: &str) -> bool {
        self.net
            .find(name)
            .is_some_and(|value| self.net.readers(value.node).iter().any(|&r| self.net.op(r) == "Identity"))
    }

    /// Whether training flags are set.
    pub fn training(&self) -> bool {
        self.resolver.training()
    }

    /// The inputs of the graph that have free sizes, as text for a hint.
    pub fn free_inputs(&self) -> String {
        self.inputs.hint(&self.graph)
    }

    /// The shape of a value, if anything is known of it.
    pub fn shape(&self, value: Ref) -> Option<Shape> {
        Some(match self.entries.get(&value)? {
            Entry::Data(value) => self.graph.shape(*value).clone(),
            Entry::Constant(tensor, _) => Shape::known(&tensor.shape()),
            Entry::Sizes(sizes) => Shape::known(sizes.elems.shape()),
            Entry::List(_) | Entry::Other => return None,
        })
    }

    /// The element type of a value.
    pub fn dtype(&self, value: Ref) -> Option<DType> {
        Some(match self.entries.get(&value)? {
            Entry::Data(value) => self.graph.info(*value).dtype,
            Entry::Constant(tensor, _) => tensor.dtype(),
            Entry::Sizes(sizes) => sizes.dtype,
            Entry::List(_) | Entry::Other => return None,
        })
    }

    /// Numbers that are known up to sizes: results of shape arithmetic, and small constants.
    pub fn sizes(&self, value: Ref) -> Option<Sizes> {
        match self.entries.get(&value)? {
            Entry::Sizes(sizes) => Some(sizes.clone()),
            Entry::Constant(tensor, _) => sizes::of_tensor(tensor),
            Entry::Data(value) => super::fold::fold(&self.graph, *value),
            Entry::List(_) | Entry::Other => None,
        }
    }

    /// The value in the graph.
    ///
    /// # Errors
    /// When it is no data, or depends on sizes that are not known.
    pub fn value(&mut self, value: Ref) -> Result<Value> {
        if let Some(known) = self.values.get(&value) {
            return Ok(*known);
        }
        let name = &self.net.node(value.node).name;
        let made = match self.entries.get(&value).cloned() {
            Some(Entry::Data(data)) => data,
            Some(Entry::Constant(tensor, origin)) => self.constant(&origin, tensor),
            Some(Entry::Sizes(sizes)) => self.computed(value, &sizes, name)?,
            Some(Entry::List(_) | Entry::Other) | None => {
                return Err(Error::new(format!("'{name}' is no tensor of numbers, and is used as one")));
            }
        };
        self.values.insert(value, made);
        Ok(made)
    }

    /// A constant in the graph; the same view of the same variable is one node.
    pub fn constant(&mut self, origin: &Origin, tensor: Tensor) -> Value {
        let known = self.constants.get(&origin.name).into_iter().flatten();
        let same = known.copied().find(|value| self.graph.tensor(*value).is_some_and(|other| other.is_same(&tensor)));
        same.unwrap_or_else(|| {
            let value = match origin.variable {
                true => self.graph.variable(&origin.name, tensor),
                false => self.graph.constant(&origin.name, tensor),
            };
            self.constants.entry(origin.name.clone()).or_default().push(value);
            value
        })
    }

    /// Shape arithmetic as data.
    fn computed(&mut self, value: Ref, sizes: &Sizes, name: &str) -> Result<Value> {
        let shape = sizes.elems.shape().to_vec();
        if let Some(numbers) = sizes.reals() {
            return Ok(self.graph.constant(name, Tensor::from_f64(sizes.dtype, &shape, numbers)));
        }
        let dims: Shape = sizes.elems.iter().map(Elem::dim).collect();
        if !dims.is_determined() {
            // More than a multiple of a size: computed where the network runs.
            return self.plainly(value);
        }
        let like = self.like(&dims, sizes.like)?;
        let dtype = if sizes.dtype.is_float() { DType::Int64 } else { sizes.dtype };
        let vector = sizes.elems.ndim() == 1;
        let last = |step: usize| if step == 0 { name.to_owned() } else { format!("{name}/sizes") };
        let steps = usize::from(!vector) + usize::from(dtype != sizes.dtype);
        let mut node = self.graph.add_with(op::Dims { dims, dtype }, &last(steps), &[like])?;
        if !vector {
            node = self.graph.add(op::Reshape { shape: Shape::known(&shape) }, &last(steps - 1), &[node.into()])?;
        }
        if dtype != sizes.dtype {
            node = self.graph.add(op::Cast { dtype: sizes.dtype }, name, &[node.into()])?;
        }
        Ok(node.into())
    }

    /// Has a node that was computed symbolically computed by the network instead.
    fn plainly(&mut self, value: Ref) -> Result<Value> {
        let name = &self.net.node(value.node).name;
        let message = format!("'{name}' is computed from sizes that are not known");
        let hint = self.free_inputs();
        let unknown = || Error::from(Problem::new(message).hint(hint));
        if self.depth >= MAX_DEPTH || self.net.op(value.node) == "Shape" {
            return Err(unknown());
        }
        self.depth += 1;
        let result = self.translate(value.node, false);
        self.depth -= 1;
        match result?.and_then(|entries| entries.into_iter().nth(value.output)) {
            Some(Entry::Data(data)) => Ok(data),
            _ => Err(unknown()),
        }
    }

    /// A value that has all free sizes of a shape; `None` when there are none.
    ///
    /// # Errors
    /// When no value has them all, or a size is not known at all.
    pub fn like(&mut self, shape: &Shape, preferred: Option<Value>) -> Result<Option<Value>> {
        let symbols: Vec<&Arc<str>> = shape
            .iter()
            .filter_map(|dim| match dim {
                Dim::Symbol { name, .. } => Some(name),
                _ => None,
            })
            .collect();
        if !shape.is_determined() {
            let message = format!("the size {shape} is not known");
            return Err(Problem::new(message).hint(self.free_inputs()).into());
        }
        if symbols.is_empty() {
            return Ok(None);
        }
        let has = |value: &Value, exact: bool| {
            symbols.iter().all(|symbol| {
                self.graph.shape(*value).iter().any(
                    |dim| matches!(dim, Dim::Symbol { factor, name } if name == *symbol && (!exact || *factor == 1)),
                )
            })
        };
        let candidates = || preferred.into_iter().chain(self.sources.values().copied());
        let found = candidates().find(|v| has(v, true)).or_else(|| candidates().find(|v| has(v, false)));
        let any = || self.graph.ids().into_iter().map(Value::from).find(|v| has(v, true));
        match found.or_else(any) {
            Some(value) => Ok(Some(value)),
            None => {
                Err(Problem::new(format!("no value has all free sizes of {shape}")).hint(self.free_inputs()).into())
            }
        }
    }

    /// The size of an element count that may be computed at conversion time.
    pub fn is_small(shape: &[usize]) -> bool {
        modelport_ir::tensor::numel(shape).is_some_and(|n| n <= MAX_ELEMENTS)
    }

    /// Adds a node to the graph.
    ///
    /// # Errors
    /// When the operator can't take these inputs.
    pub fn add(&mut self, op: impl Into<Op>, name: &str, inputs: &[Option<Value>]) -> Result<Value> {
        Ok(self.graph.add_with(op, name, inputs)?.into())
    }
}

/// Whether the node holds a variable.
pub fn is_variable(op: &str) -> bool {
    matches!(op, "Variable" | "VariableV2" | "VarHandleOp" | "AutoReloadVariable")
}
