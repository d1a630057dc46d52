//! Lowering: calls of ATen operators become nodes of the neutral graph.
//!
//! Exported programs, TorchScript and the architecture registry all come here: they say in which module they are
//! ([`Lower::enter`]) and which operator is called on what ([`Lower::call`]); [`ops`](super::ops) has the operators.
//! Sizes are computed over dimensions, so that the batch stays free. Operators that change a tensor in place give a new
//! value, which takes the place of the old one from there on.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use modelport_ir::weight_norm::Entry;
use modelport_ir::{DType, Dim, Error, Graph, Op, Problem, Result, Shape, Tensor, Value, WeightNorm, op, pass};

use super::arg::{Arg, Weight};
use super::ops::{self, Call};
use crate::symbolic::{Elem, Expressions};

/// Most views between a tensor and a part of it that is written to.
const MAX_STEPS: usize = 16;

/// Most nodes of a network: a loop that never ends must not fill the memory.
const MAX_NODES: usize = 1 << 17;

/// The state of one lowering.
#[derive(Debug, Default)]
pub struct Lower {
    /// The graph that is being made.
    pub graph: Graph,
    /// What is not known of sizes.
    pub expressions: Expressions,
    /// Dotted paths of the modules that are being computed, the innermost last.
    stack: Vec<String>,
    /// What the state dict has.
    entries: Vec<(String, Tensor)>,
    /// Other keys of the same weight.
    tied: HashMap<Arc<str>, Vec<Arc<str>>>,
    /// Weights that were made of others, by the keys that they would have.
    made: HashMap<String, Tensor>,
    /// Constants in the graph, by name.
    constants: HashMap<Arc<str>, Vec<Value>>,
    /// What took the place of a value that was changed in place.
    changed: HashMap<Value, Arg>,
    /// Which value another one shares its elements with.
    views: HashMap<Value, Value>,
    /// Values that share elements with one that was changed in place, and the operator that did it.
    stale: HashMap<Value, String>,
}

impl Lower {
    /// A lowering into a graph of this name that comes from `source`, in words.
    pub fn new(name: &str, source: &str) -> Lower {
        let mut graph = Graph::new(name, source);
        graph.modules.insert(String::new(), "Module".to_owned());
        Lower { graph, ..Lower::default() }
    }

    /// Says the class of the network itself.
    pub fn root(&mut self, class: &str) {
        self.graph.modules.insert(String::new(), class.to_owned());
    }

    /// From here on, until [`Lower::exit`], everything is computed in this child of the current module. The name may
    /// be a path (`layer1.0`), whose parents are declared by their own calls or by [`Lower::module`].
    pub fn enter(&mut self, name: &str, class: &str) {
        let path = match self.path() {
            "" => name.to_owned(),
            path if name.is_empty() => path.to_owned(),
            path => format!("{path}.{name}"),
        };
        self.module(&path, class);
        self.stack.push(path);
    }

    /// From here on, until [`Lower::exit`], everything is computed in the module of this full path.
    pub fn enter_path(&mut self, path: &str, class: &str) {
        self.module(path, class);
        self.stack.push(path.to_owned());
    }

    /// Goes back to the module around.
    pub fn exit(&mut self) {
        self.stack.pop();
    }

    /// Goes to the module of this full path, whatever the current one is.
    pub fn go_to(&mut self, path: &str) {
        self.stack = vec![path.to_owned()];
    }

    /// Declares a module by its full path; the first class that is said of it counts.
    pub fn module(&mut self, path: &str, class: &str) {
        self.graph.modules.entry(path.to_owned()).or_insert_with(|| class.to_owned());
    }

    /// The path of the current module.
    pub fn path(&self) -> &str {
        self.stack.last().map_or("", String::as_str)
    }

    /// An input of the network.
    ///
    /// # Errors
    /// As [`Graph::input`].
    pub fn input(&mut self, name: &str, dtype: DType, shape: Shape) -> Result<Arg> {
        Ok(self.graph.input(name, dtype, shape)?.into())
    }

    /// A parameter, by its key in the state dict.
    pub fn parameter(&self, key: &str, tensor: Tensor) -> Arg {
        Weight { name: key.into(), tensor, trainable: true }.into()
    }

    /// A buffer or another constant, by its key in the state dict.
    pub fn buffer(&self, key: &str, tensor: Tensor) -> Arg {
        Weight { name: key.into(), tensor, trainable: false }.into()
    }

    /// The weight that is kept as a length and a direction, under the key that it would have itself; `None` when the
    /// keys are not those that PyTorch's functions give.
    ///
    /// # Errors
    /// When the two do not fit each other.
    pub fn weight_norm(&mut self, norm: WeightNorm) -> Result<Option<Arg>> {
        let Some(key) = norm.key() else { return Ok(None) };
        let tensor = match self.made.get(&key) {
            Some(tensor) => tensor.clone(),
            None => norm.weight()?,
        };
        self.made.insert(key.clone(), tensor.clone());
        let weight = self.parameter(&key, tensor);
        // A module under two names has the weight under both.
        let keys = |entry: &Entry| match self.tied.get(entry.key.as_str()) {
            Some(keys) => keys.clone(),
            None => vec![entry.key.as_str().into()],
        };
        let (lengths, directions) = (keys(&norm.length), keys(&norm.direction));
        let entry = |key: &Arc<str>, of: &Entry| Entry { key: key.to_string(), tensor: of.tensor.clone() };
        let mut tied: Vec<Arc<str>> = Vec::new();
        for (length, direction) in lengths.iter().flat_map(|length| directions.iter().map(move |other| (length, other)))
        {
            let (length, direction) = (entry(length, &norm.length), entry(direction, &norm.direction));
            let norm = WeightNorm { axis: norm.axis, length, direction };
            if let Some(key) = norm.key() {
                tied.push(key.as_str().into());
                self.graph.weight_norms.insert(key, norm);
            }
        }
        self.tied.extend(tied.iter().map(|key| (key.clone(), tied.clone())));
        Ok(Some(weight))
    }

    /// Says what the state dict has, for those entries that no output will need.
    pub fn entries(&mut self, entries: impl IntoIterator<Item = (String, Tensor)>) {
        self.entries = entries.into_iter().collect();
    }

    /// Finds keys of the state dict that are one weight. Each module computes with its own key.
    pub fn tie<'a>(&mut self, entries: impl IntoIterator<Item = (&'a str, &'a Tensor)>) {
        let mut rest: Vec<(&str, &Tensor)> = entries.into_iter().collect();
        while let Some((key, tensor)) = rest.pop() {
            if tensor.numel() == 0 {
                continue;
            }
            let (same, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|(_, other)| other.is_same(tensor));
            if !same.is_empty() {
                let keys: Vec<Arc<str>> = same.iter().map(|(key, _)| *key).chain([key]).map(Arc::from).collect();
                self.tied.extend(keys.iter().map(|key| (key.clone(), keys.clone())));
            }
            rest = others;
        }
    }

    /// Makes a value an output of the network.
    ///
    /// # Errors
    /// When it is no tensor.
    pub fn output(&mut self, name: &str, arg: &Arg) -> Result<()> {
        let arg = self.current(arg)?;
        let value = self.value(&arg).map_err(|error| error.at_node(name))?;
        self.graph.output(name, value);
        Ok(())
    }

    /// The finished graph: without what no output needs, and in normal form.
    ///
    /// # Errors
    /// Those of the passes.
    pub fn finish(mut self) -> Result<Graph> {
        self.graph.prune();
        let mut norms = std::mem::take(&mut self.graph.weight_norms);
        norms.retain(|key, _| self.graph.find(key).is_some());
        let parts = norms.values().flat_map(|norm| [norm.length.key.as_str(), norm.direction.key.as_str()]);
        let read: HashSet<&str> =
            self.constants.keys().map(|key| &**key).filter(|key| self.graph.find(key).is_some()).chain(parts).collect();
        // The counters of norms that are used are made with these.
        let counts = |key: &str| {
            key.strip_suffix("num_batches_tracked")
                .is_some_and(|path| read.contains(format!("{path}running_mean").as_str()))
        };
        let spare = self.entries.iter().filter(|(key, _)| !read.contains(key.as_str()) && !counts(key));
        self.graph.spare = spare.cloned().collect();
        self.graph.weight_norms = norms;
        pass::run(&mut self.graph, pass::NORMALIZE)?;
        self.graph.prune();
        Ok(self.graph)
    }

    /// What an operator computes: `aten.conv2d`, `aten::conv2d` or `conv2d`, with or without an overload
    /// (`aten.add.Tensor`). Several results are a list. Arguments that are left out have their defaults.
    ///
    /// # Errors
    /// When there is no translation, or the arguments do not fit.
    pub fn call(&mut self, target: &str, args: &[Arg], kwargs: &[(&str, Arg)]) -> Result<Arg> {
        let Some((entry, in_place)) = ops::find(target) else { return Err(ops::unsupported(target).into()) };
        let positional = args.iter().map(|arg| self.current(arg)).collect::<Result<Vec<Arg>>>()?;
        let named = kwargs.iter().map(|(name, arg)| Ok((*name, self.current(arg)?))).collect::<Result<Vec<_>>>()?;
        let first = positional.first().or(named.first().map(|(_, arg)| arg)).cloned();
        let result = Call::new(self, entry, target, positional, named).and_then(Call::run)?;
        if let (true, Some(Arg::Tensor(now))) = (in_place, &first) {
            let name = self.node_name(entry.name);
            self.change(*now, &result, target).map_err(|error| error.at_node(&name))?;
        } else if let (true, Some(Arg::Weight(weight)), Arg::Tensor(_)) = (in_place, &first, &result) {
            return Err(Problem::new("a weight is changed in place").op(target).node(&*weight.name).into());
        } else if let (true, Some(Arg::Tensor(base))) = (ops::is_view(entry.name), &first) {
            for value in tensors(&result) {
                if value != *base {
                    self.views.insert(value, *base);
                }
            }
        }
        Ok(result)
    }

    /// What a value is now.
    pub fn current(&self, arg: &Arg) -> Result<Arg> {
        match arg {
            Arg::Tensor(value) => {
                let mut now = arg;
                let mut seen = HashSet::from([*value]);
                while let Arg::Tensor(value) = now
                    && let Some(next) = self.changed.get(value)
                {
                    now = next;
                    if let Arg::Tensor(value) = next
                        && !seen.insert(*value)
                    {
                        break;
                    }
                }
                if let Arg::Tensor(value) = now
                    && let Some(op) = self.stale.get(value)
                {
                    let message = format!("a part of a tensor was changed in place by {op}, and the whole is read");
                    let hint = "Write the network without the assignment: make the parts and join them.";
                    return Err(Problem::new(message).hint(hint).into());
                }
                Ok(now.clone())
            }
            Arg::Weight(weight) => Ok(self.own_key(weight).into()),
            Arg::List(list) => Ok(Arg::List(list.iter().map(|arg| self.current(arg)).collect::<Result<_>>()?)),
            other => Ok(other.clone()),
        }
    }

    /// A tied weight under the key that the current module has for it, or else the nearest of those around it.
    fn own_key(&self, weight: &Weight) -> Weight {
        let depth = |key: &&Arc<str>| {
            let (module, _) = key.rsplit_once('.')?;
            let rest = self.path().strip_prefix(module)?;
            (rest.is_empty() || rest.starts_with('.')).then_some(module.len())
        };
        let keys = self.tied.get(&weight.name).into_iter().flatten();
        let key = keys.filter(|key| depth(key).is_some()).max_by_key(depth);
        Weight { name: key.unwrap_or(&weight.name).clone(), ..weight.clone() }
    }

    /// `old` was changed and is `new` from here on; so is the part of a tensor that it is a view of. What else shares
    /// elements with it can't be told.
    ///
    /// # Errors
    /// When the tensor can't be put together.
    fn change(&mut self, old: Value, new: &Arg, target: &str) -> Result<()> {
        let Arg::Tensor(new) = *new else { return Ok(()) };
        if old == new {
            return Ok(());
        }
        let mut replaced = vec![(old, new)];
        let (mut part, mut now) = (old, new);
        let mut known = true;
        while let Some(&base) = self.views.get(&part) {
            match self.write_back(base, part, now)? {
                Some(whole) if known => {
                    replaced.push((base, whole));
                    (part, now) = (base, whole);
                }
                _ => {
                    known = false;
                    self.stale.insert(base, target.to_owned());
                    part = base;
                }
            }
        }
        let root = |mut value: Value| {
            while let Some(&base) = self.views.get(&value) {
                value = base;
            }
            value
        };
        let fresh = |value: &Value| replaced.iter().any(|(a, b)| a == value || b == value);
        let others: Vec<Value> =
            self.views.keys().copied().filter(|view| root(*view) == part && !fresh(view)).collect();
        for other in others {
            self.stale.insert(other, target.to_owned());
        }
        for pair in replaced.windows(2) {
            if let [(_, part), (_, whole)] = pair {
                self.views.insert(*part, *whole);
            }
        }
        for (old, new) in replaced {
            self.changed.insert(old, new.into());
        }
        Ok(())
    }

    /// The tensor `base` whose view `part` has become `now`; `None` when the view can't be undone.
    fn write_back(&mut self, base: Value, part: Value, now: Value) -> Result<Option<Value>> {
        // The nodes between them, from the view on.
        let mut steps = Vec::new();
        let mut value = part;
        while value != base {
            match self.graph.input_of(value.node, 0) {
                Some(source) if steps.len() < MAX_STEPS => {
                    steps.push(value);
                    value = source;
                }
                _ => return Ok(None),
            }
        }
        let mut now = now;
        for step in steps {
            let Some(source) = self.graph.input_of(step.node, 0) else { return Ok(None) };
            let (shape, before) = (self.graph.shape(step).clone(), self.graph.shape(source).clone());
            // What was written may broadcast.
            if *self.graph.shape(now) != shape {
                let like = self.like(&shape)?;
                now = self.add(op::Expand { shape: shape.clone() }, "written", &[Some(now), like])?;
            }
            now = match self.graph.op(step.node).clone() {
                Op::Squeeze(squeeze) => self.add(op::Unsqueeze { axes: squeeze.axes }, "written", &[Some(now)])?,
                Op::Unsqueeze(unsqueeze) => self.add(op::Squeeze { axes: unsqueeze.axes }, "written", &[Some(now)])?,
                Op::Reshape(_) if before.is_determined() => {
                    self.add(op::Reshape { shape: before }, "written", &[Some(now)])?
                }
                Op::Transpose(transpose) => {
                    let mut perm = vec![0; transpose.perm.len()];
                    for (to, &from) in transpose.perm.iter().enumerate() {
                        if let Some(place) = perm.get_mut(from) {
                            *place = to;
                        }
                    }
                    self.add(op::Transpose { perm }, "written", &[Some(now)])?
                }
                Op::Slice(slice) => match self.put(source, &before, &slice, now)? {
                    Some(whole) => whole,
                    None => return Ok(None),
                },
                _ => return Ok(None),
            };
        }
        Ok(Some(now))
    }

    /// `base` with `part` in the place of what a slice of one axis takes.
    pub(super) fn put(&mut self, base: Value, shape: &Shape, slice: &op::Slice, part: Value) -> Result<Option<Value>> {
        let axes: Vec<usize> = (0..shape.rank()).filter(|&axis| !slice.takes_all(axis)).collect();
        let [axis] = axes.as_slice() else { return Ok(None) };
        let (Some(size), Some(&1)) = (shape.get(*axis).and_then(Dim::known), slice.steps.get(*axis)) else {
            return Ok(None);
        };
        let (start, count) = slice.resolve(*axis, size);
        let mut parts = vec![part];
        let mut rest = |lower: &mut Lower, begin: usize, end: usize, place: usize| -> Result<()> {
            let mut outside = op::Slice::all(shape.rank());
            if let (Some(b), Some(e)) = (outside.begins.get_mut(*axis), outside.ends.get_mut(*axis)) {
                *b = begin as i64;
                *e = if end == size { op::Slice::OPEN } else { end as i64 };
            }
            let value = lower.add(outside, "kept", &[Some(base)])?;
            parts.insert(place, value);
            Ok(())
        };
        if start > 0 {
            rest(self, 0, start, 0)?;
        }
        let end = start.saturating_add(count);
        if end < size {
            rest(self, end, size, usize::from(start > 0) + 1)?;
        }
        if parts.len() == 1 {
            return Ok(Some(part));
        }
        let parts: Vec<Option<Value>> = parts.into_iter().map(Some).collect();
        Ok(Some(self.add(op::Concat { axis: *axis }, "written", &parts)?))
    }

    /// The value in the graph of a tensor.
    ///
    /// # Errors
    /// When it is no tensor.
    pub fn value(&mut self, arg: &Arg) -> Result<Value> {
        match arg {
            Arg::Tensor(value) => Ok(*value),
            Arg::Weight(weight) => Ok(self.constant(weight)),
            other => Err(Error::new(format!("{} is used as a tensor", other.kind()))),
        }
    }

    /// A weight in the graph; the same view of the same weight is one node.
    pub fn constant(&mut self, weight: &Weight) -> Value {
        let known = self.constants.get(&weight.name).into_iter().flatten();
        let same =
            known.copied().find(|value| self.graph.tensor(*value).is_some_and(|other| other.is_same(&weight.tensor)));
        same.unwrap_or_else(|| {
            let value = match weight.trainable {
                true => self.graph.variable(&weight.name, weight.tensor.clone()),
                false => self.graph.constant(&weight.name, weight.tensor.clone()),
            };
            self.constants.entry(weight.name.clone()).or_default().push(value);
            value
        })
    }

    /// Type and shape of a tensor.
    pub fn info(&self, arg: &Arg) -> Option<(DType, Shape)> {
        match arg {
            Arg::Tensor(value) => {
                let info = self.graph.info(*value);
                Some((info.dtype, info.shape.clone()))
            }
            Arg::Weight(weight) => Some((weight.tensor.dtype(), Shape::known(&weight.tensor.shape()))),
            _ => None,
        }
    }

    /// A dimension of a value as a number.
    pub fn size(&mut self, value: Value, axis: usize) -> Elem {
        let dim = self.graph.shape(value).get(axis).cloned().unwrap_or(Dim::Unknown);
        self.expressions.of_dim(&dim, || format!("{}:{}:{axis}", value.node.index(), value.output))
    }

    /// What a node of this operator is called in the current module.
    pub fn node_name(&self, op: &str) -> String {
        match self.path() {
            "" => op.to_owned(),
            path => format!("{path}/{op}"),
        }
    }

    /// The name of a constant that an operator makes, which is no key of the state dict.
    pub fn constant_name(&self, op: &str) -> String {
        if self.path().is_empty() { keyless(op) } else { self.node_name(op) }
    }

    /// Adds a node.
    ///
    /// # Errors
    /// When the operator can't take these inputs.
    pub fn add(&mut self, op: impl Into<Op>, name: &str, inputs: &[Option<Value>]) -> Result<Value> {
        let name = self.node_name(name);
        if self.graph.len() >= MAX_NODES {
            return Err(Problem::new(format!("the network has more than {MAX_NODES} nodes")).node(name).into());
        }
        Ok(self.graph.add_with(op, &name, inputs)?.into())
    }

    /// A value that has all free sizes of a shape; `None` when there are none.
    ///
    /// # Errors
    /// When no value has them all, or a size is not known at all.
    pub fn like(&self, shape: &Shape) -> Result<Option<Value>> {
        if !shape.is_determined() {
            let message = format!("the size {shape} is not known");
            return Err(Problem::new(message).hint("Give the inputs' shapes with --inputShape.").into());
        }
        let names: Vec<&Arc<str>> = shape
            .iter()
            .filter_map(|dim| match dim {
                Dim::Symbol { name, .. } => Some(name),
                _ => None,
            })
            .collect();
        if names.is_empty() {
            return Ok(None);
        }
        let has = |value: &Value, exact: bool| {
            names.iter().all(|name| {
                self.graph.shape(*value).iter().any(
                    |dim| matches!(dim, Dim::Symbol { factor, name: other } if other == *name && (!exact || *factor == 1)),
                )
            })
        };
        let inputs = || self.graph.inputs.iter().map(|port| port.value);
        let found = inputs().find(|value| has(value, true)).or_else(|| inputs().find(|value| has(value, false)));
        let any = || self.graph.ids().into_iter().map(Value::from).find(|value| has(value, true));
        let message = || Error::new(format!("no value has all free sizes of {shape}"));
        found.or_else(any).map(Some).ok_or_else(message)
    }
}

/// The name of a constant that is no entry of the state dict, though it has a key: of a buffer that is not saved.
pub fn keyless(key: &str) -> String {
    match key.rsplit_once('.') {
        Some((path, name)) => format!("{path}/{name}"),
        None => format!("constants/{key}"),
    }
}

/// All tensors of the graph in a result.
fn tensors(arg: &Arg) -> Vec<Value> {
    match arg {
        Arg::Tensor(value) => vec![*value],
        Arg::List(list) => list.iter().flat_map(tensors).collect(),
        _ => Vec::new(),
    }
}
