//! What a translation sees of a call: arguments by name, and ways to add to the graph.

use modelport_ir::{DType, Dim, Error, Op, Problem, Result, Shape, Tensor, Value, op};

use super::Entry;
use super::schema::{self, Parameter};
use crate::pytorch::arg::{Arg, Weight};
use crate::pytorch::lower::Lower;
use crate::symbolic::Elem;

/// One call of an operator.
pub struct Call<'l> {
    /// The lowering that it is part of.
    pub lower: &'l mut Lower,
    /// The operator.
    pub entry: &'static Entry,
    target: String,
    args: Vec<(&'static str, Arg)>,
}

impl<'l> Call<'l> {
    /// A call with its arguments put in their places.
    ///
    /// # Errors
    /// When there are too many arguments, one is not known, or one that is needed is missing.
    pub fn new(
        lower: &'l mut Lower,
        entry: &'static Entry,
        target: &str,
        positional: Vec<Arg>,
        named: Vec<(&str, Arg)>,
    ) -> Result<Call<'l>> {
        let parameters = schema::parse(entry.schema);
        let mut call = Call { lower, entry, target: target.to_owned(), args: Vec::new() };
        if positional.len() > parameters.len() {
            let message = format!("takes {} arguments, got {}", parameters.len(), positional.len());
            return Err(call.fail(message));
        }
        let mut positional = positional.into_iter();
        let mut named = named;
        for Parameter { name, default } in parameters {
            let arg = positional.next().or_else(|| {
                let alike = |other: &str| matches!((name, other), ("self", "input") | ("input", "self"));
                let at = named.iter().position(|(other, _)| *other == name || alike(other))?;
                Some(named.swap_remove(at).1)
            });
            match arg.or(default) {
                Some(arg) => call.args.push((name, arg)),
                None => return Err(call.fail(format!("the argument '{name}' is missing"))),
            }
        }
        // Where and how results are stored makes no difference; their type is in the schema where it does.
        let ignored = ["dtype", "device", "layout", "pin_memory", "memory_format", "generator", "non_blocking", "out"];
        match named.iter().find(|(name, arg)| !ignored.contains(name) && !arg.is_none()) {
            Some((name, _)) => Err(call.fail(format!("the argument '{name}' is not known"))),
            None => Ok(call),
        }
    }

    /// Runs the operator's translation.
    ///
    /// # Errors
    /// Those of the translation; each names the node and the operator.
    pub fn run(mut self) -> Result<Arg> {
        let function = self.entry.function;
        function(&mut self).map_err(|error| {
            let node = self.node_name();
            let Error { problems } = error.at_node(&node);
            let with_op = |problem: Problem| match &problem.op {
                Some(_) => problem,
                None => problem.op(&self.target),
            };
            Error { problems: problems.into_iter().map(with_op).collect() }
        })
    }

    /// The target as it was called.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The overload, if one was said: `dim` of `aten.max.dim`.
    pub fn overload(&self) -> &str {
        let bare = self.target.strip_prefix("aten.").or_else(|| self.target.strip_prefix("torch.ops.aten."));
        bare.and_then(|bare| bare.split_once('.')).map_or("", |(_, overload)| overload)
    }

    fn node_name(&self) -> String {
        self.lower.node_name(self.base())
    }

    /// The operator's name without the overload that an entry may be of.
    fn base(&self) -> &'static str {
        let name = self.entry.name;
        name.split_once('.').map_or(name, |(base, _)| base)
    }

    /// An error at this call that says what its tensors are.
    pub fn fail(&self, message: impl Into<String>) -> Error {
        let shapes: Vec<String> = self
            .args
            .iter()
            .filter_map(|(_, arg)| self.lower.info(arg))
            .map(|(dtype, shape)| format!("{dtype}{shape}"))
            .collect();
        let mut problem = Problem::new(message).node(self.node_name()).op(&self.target);
        if !shapes.is_empty() {
            problem = problem.inputs(format!("({})", shapes.join(", ")));
        }
        problem.into()
    }

    /// The argument of a name; `None` where it was left out.
    pub fn arg(&self, name: &str) -> Arg {
        self.args.iter().find(|(other, _)| *other == name).map(|(_, arg)| arg.clone()).unwrap_or_default()
    }

    /// Whether an argument was given.
    pub fn has(&self, name: &str) -> bool {
        !self.arg(name).is_none()
    }

    fn unexpected(&self, name: &str, expected: &str) -> Error {
        self.fail(format!("'{name}' is {}, expected {expected}", self.arg(name).kind()))
    }

    /// A tensor as a value of the graph.
    ///
    /// # Errors
    /// When it is none.
    pub fn value(&mut self, name: &str) -> Result<Value> {
        let arg = self.arg(name);
        match arg.is_tensor() {
            true => self.lower.value(&arg),
            false => Err(self.unexpected(name, "a tensor")),
        }
    }

    /// A tensor that may be left out.
    ///
    /// # Errors
    /// When it is something else.
    pub fn optional(&mut self, name: &str) -> Result<Option<Value>> {
        if self.has(name) { self.value(name).map(Some) } else { Ok(None) }
    }

    /// The tensors of a list.
    ///
    /// # Errors
    /// When one is none.
    pub fn values(&mut self, name: &str) -> Result<Vec<Value>> {
        let arg = self.arg(name);
        let Some(list) = arg.list() else { return Err(self.unexpected(name, "a list of tensors")) };
        list.iter().map(|arg| self.lower.value(arg)).collect()
    }

    /// Shape of a tensor.
    ///
    /// # Errors
    /// When it is none.
    pub fn shape(&self, name: &str) -> Result<Shape> {
        self.lower.info(&self.arg(name)).map(|info| info.1).ok_or_else(|| self.unexpected(name, "a tensor"))
    }

    /// Element type of a tensor.
    ///
    /// # Errors
    /// When it is none.
    pub fn dtype(&self, name: &str) -> Result<DType> {
        self.lower.info(&self.arg(name)).map(|info| info.0).ok_or_else(|| self.unexpected(name, "a tensor"))
    }

    /// A tensor that is known, if it is.
    pub fn weight(&self, name: &str) -> Option<Weight> {
        match self.arg(name) {
            Arg::Weight(weight) => Some(weight),
            _ => None,
        }
    }

    /// A known tensor seen in another way; `None` when it is computed, or an entry of the state dict.
    ///
    /// # Errors
    /// Those of `view`.
    pub fn view(
        &self,
        name: &str,
        view: impl FnOnce(&Tensor) -> std::result::Result<Tensor, String>,
    ) -> Result<Option<Arg>> {
        let Some(weight) = self.weight(name).filter(|weight| !weight.is_state()) else { return Ok(None) };
        let tensor = view(&weight.tensor).map_err(|message| self.fail(message))?;
        Ok(Some(Weight { tensor, ..weight }.into()))
    }

    /// A weight with its axes reordered, as a value of the graph.
    ///
    /// # Errors
    /// When it is no tensor of this rank.
    pub fn permuted(&mut self, name: &str, perm: &[usize]) -> Result<Value> {
        if let Some(weight) = self.weight(name) {
            let tensor = weight.tensor.permuted(perm).map_err(|message| self.fail(message))?;
            return self.lower.value(&Weight { tensor, ..weight }.into());
        }
        let value = self.value(name)?;
        self.add(op::Transpose { perm: perm.to_vec() }, &[value])
    }

    /// A known whole number.
    ///
    /// # Errors
    /// When it is none.
    pub fn int(&self, name: &str) -> Result<i64> {
        self.arg(name).int().ok_or_else(|| match self.arg(name) {
            Arg::Int(_) => self.fail(format!("'{name}' depends on the input's size, expected a number that is known")),
            _ => self.unexpected(name, "a whole number that is known"),
        })
    }

    /// A known size.
    ///
    /// # Errors
    /// When it is none, or negative.
    pub fn size(&self, name: &str) -> Result<usize> {
        usize::try_from(self.int(name)?).map_err(|_| self.fail(format!("'{name}' is negative")))
    }

    /// A known number.
    ///
    /// # Errors
    /// When it is none.
    pub fn float(&self, name: &str) -> Result<f64> {
        self.arg(name).float().ok_or_else(|| self.unexpected(name, "a number that is known"))
    }

    /// A known truth value.
    ///
    /// # Errors
    /// When it is none.
    pub fn bool(&self, name: &str) -> Result<bool> {
        self.arg(name).bool().ok_or_else(|| self.unexpected(name, "a truth value that is known"))
    }

    /// A text.
    ///
    /// # Errors
    /// When it is none.
    pub fn text(&self, name: &str) -> Result<String> {
        match self.arg(name) {
            Arg::Str(text) => Ok(text.to_string()),
            _ => Err(self.unexpected(name, "a text")),
        }
    }

    /// Whole numbers that may have free sizes in them; a single number is a list of one.
    ///
    /// # Errors
    /// When it is something else.
    pub fn elems(&self, name: &str) -> Result<Vec<Elem>> {
        let one = |arg: &Arg| match arg {
            Arg::Int(elem) => Some(elem.clone()),
            other => other.int().map(Elem::Int),
        };
        let found = match self.arg(name) {
            Arg::List(list) => list.iter().map(one).collect(),
            Arg::Weight(weight) => weight.tensor.to_i64().ok().map(|ints| ints.into_iter().map(Elem::Int).collect()),
            other => one(&other).map(|elem| vec![elem]),
        };
        found.ok_or_else(|| self.unexpected(name, "a list of whole numbers"))
    }

    /// Known whole numbers; a single number is a list of one.
    ///
    /// # Errors
    /// When it is something else.
    pub fn ints(&self, name: &str) -> Result<Vec<i64>> {
        let ints: Option<Vec<i64>> = self.elems(name)?.iter().map(Elem::int).collect();
        ints.ok_or_else(|| self.fail(format!("'{name}' depends on sizes that are not known")))
    }

    /// Known sizes per spatial axis; one number counts for all.
    ///
    /// # Errors
    /// When there are not as many, or one is negative.
    pub fn spatial(&self, name: &str, count: usize) -> Result<Vec<usize>> {
        let ints = self.ints(name)?;
        let sizes: Option<Vec<usize>> = ints.iter().map(|&int| usize::try_from(int).ok()).collect();
        match sizes.as_deref() {
            Some([size]) => Ok(vec![*size; count]),
            Some(sizes) if sizes.len() == count => Ok(sizes.to_vec()),
            _ => Err(self.fail(format!("'{name}' is {ints:?}, expected {count} sizes"))),
        }
    }

    /// An axis, counted from the end when negative.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn axis_of(&self, axis: i64, rank: usize) -> Result<usize> {
        // A scalar has the axes 0 and -1.
        let n = rank.max(1) as i64;
        let place = if axis < 0 { axis.saturating_add(n) } else { axis };
        usize::try_from(place)
            .ok()
            .filter(|&place| place < rank.max(1))
            .ok_or_else(|| self.fail(format!("axis {axis} does not exist in rank {rank}")))
    }

    /// The axis that an argument says.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn axis(&self, name: &str, rank: usize) -> Result<usize> {
        self.axis_of(self.int(name)?, rank)
    }

    /// The axes that an argument says, in its order; all when it is left out or empty.
    ///
    /// # Errors
    /// When one does not exist.
    pub fn axes(&self, name: &str, rank: usize) -> Result<Vec<usize>> {
        if !self.has(name) {
            return Ok((0..rank).collect());
        }
        let ints = self.ints(name)?;
        if ints.is_empty() {
            return Ok((0..rank).collect());
        }
        ints.into_iter().map(|axis| self.axis_of(axis, rank)).collect()
    }

    /// The known size of an axis.
    ///
    /// # Errors
    /// When it is free.
    pub fn known(&self, shape: &Shape, axis: usize, what: &str) -> Result<usize> {
        shape.get(axis).and_then(Dim::known).ok_or_else(|| {
            let Error { problems } = self.fail(format!("{what} is not known: axis {axis} of {shape}"));
            let hint = "Give the inputs' shapes with --inputShape.";
            Error { problems: problems.into_iter().map(|problem| problem.hint(hint)).collect() }
        })
    }

    /// Adds a node named by the operator.
    ///
    /// # Errors
    /// When the operator can't take these inputs.
    pub fn add(&mut self, op: impl Into<Op>, inputs: &[Value]) -> Result<Value> {
        let inputs: Vec<Option<Value>> = inputs.iter().copied().map(Some).collect();
        self.add_with(op, &inputs)
    }

    /// Adds a node of which some inputs may be absent.
    ///
    /// # Errors
    /// When the operator can't take these inputs.
    pub fn add_with(&mut self, op: impl Into<Op>, inputs: &[Option<Value>]) -> Result<Value> {
        let base = self.base();
        self.lower.add(op, base, inputs)
    }

    /// A number as a constant without axes.
    pub fn scalar(&mut self, dtype: DType, number: f64) -> Value {
        let name = self.lower.constant_name("number");
        self.lower.graph.constant(&name, Tensor::from_f64(dtype, &[], [number]))
    }

    /// A constant that belongs to this call.
    pub fn constant(&mut self, tensor: Tensor) -> Value {
        let name = self.lower.constant_name(self.base());
        self.lower.graph.constant(&name, tensor)
    }

    /// A value in another element type.
    ///
    /// # Errors
    /// Never; the signature is that of [`Call::add`].
    pub fn cast(&mut self, value: Value, dtype: DType) -> Result<Value> {
        if self.lower.graph.info(value).dtype == dtype {
            return Ok(value);
        }
        if let Some(tensor) = self.lower.graph.tensor(value).filter(|tensor| tensor.numel() == 1) {
            let cast = tensor.cast(dtype);
            let name = self.lower.node_name("number");
            return Ok(self.lower.graph.constant(&name, cast));
        }
        self.add(op::Cast { dtype }, &[value])
    }

    /// Another operator on other arguments, as part of this one.
    ///
    /// # Errors
    /// Those of that operator.
    pub fn call(&mut self, target: &str, args: &[Arg]) -> Result<Arg> {
        self.lower.call(target, args, &[])
    }
}
