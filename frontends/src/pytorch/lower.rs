//! Lowering: calls of ATen operators become nodes of the neutral graph.
//!
//! Exported programs, TorchScript and the architecture registry all come here: they say in which module they are
//! ([`Lower::enter`]) and which operator is called on what ([`Lower::call`]); [`ops`](super::ops) has the operators.
//! Sizes are computed over dimensions, so that the batch stays free. Operators that change a tensor in place give a new
//! value, which takes the place of the old one from there on.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use modelport_ir::{DType, Dim, Error, Graph, Op, Problem, Result, Shape, Tensor, Value, pass};

use super::arg::{Arg, Weight};
use super::ops::{self, Call};
use crate::symbolic::{Elem, Expressions};

/// The state of one lowering.
#[derive(Debug, Default)]
pub struct Lower {
    /// The graph that is being made.
    pub graph: Graph,
    /// What is not known of sizes.
    pub expressions: Expressions,
    /// Dotted paths of the modules that are being computed, the innermost last.
    stack: Vec<String>,
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
        let changes = in_place.then(|| args.first().or(kwargs.first().map(|(_, arg)| arg))).flatten();
        let first = positional.first().or(named.first().map(|(_, arg)| arg)).cloned();
        let result = Call::new(self, entry, target, positional, named).and_then(Call::run)?;
        if let (Some(Arg::Tensor(old)), Some(Arg::Tensor(now))) = (changes, &first) {
            self.change(*old, *now, &result, target);
        } else if let (true, Some(Arg::Tensor(base))) = (ops::is_view(entry.name), &first) {
            for value in tensors(&result) {
                if value != *base {
                    self.views.entry(value).or_insert(*base);
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
            Arg::List(list) => Ok(Arg::List(list.iter().map(|arg| self.current(arg)).collect::<Result<_>>()?)),
            other => Ok(other.clone()),
        }
    }

    /// `old`, which is `now`, was changed and is `new` from here on. What shares elements with it can't be told.
    fn change(&mut self, old: Value, now: Value, new: &Arg, target: &str) {
        let root = |mut value: Value| {
            while let Some(&base) = self.views.get(&value) {
                value = base;
            }
            value
        };
        let base = root(now);
        let mut others: Vec<Value> = self.views.keys().copied().filter(|&view| root(view) == base).collect();
        others.push(base);
        let kept = tensors(new);
        for other in others {
            if other != now && other != old && !kept.contains(&other) {
                self.stale.insert(other, target.to_owned());
            }
        }
        if !kept.contains(&now) {
            self.changed.insert(now, new.clone());
        }
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

    /// Adds a node.
    ///
    /// # Errors
    /// When the operator can't take these inputs.
    pub fn add(&mut self, op: impl Into<Op>, name: &str, inputs: &[Option<Value>]) -> Result<Value> {
        let name = self.node_name(name);
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

/// All tensors of the graph in a result.
fn tensors(arg: &Arg) -> Vec<Value> {
    match arg {
        Arg::Tensor(value) => vec![*value],
        Arg::List(list) => list.iter().flat_map(tensors).collect(),
        _ => Vec::new(),
    }
}
