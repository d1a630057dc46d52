//! What a translation sees of its node: inputs in every form, attributes, and ways to add to the graph.

use modelport_ir::{DType, Dim, Error, Layout, Op, Problem, Result, Shape, Tensor, Value, op};

use crate::symbolic::{Elem, Sizes};
use crate::tensorflow::graphdef::NodeDef;
use crate::tensorflow::lower::{Entry, Lowering, Origin};
use crate::tensorflow::net::Ref;

/// One node that is being translated.
pub struct Call<'l, 'a> {
    /// The lowering that it is part of.
    pub lower: &'l mut Lowering<'a>,
    /// The node.
    pub node: &'a NodeDef,
    /// Its data inputs, resolved.
    pub inputs: Vec<Ref>,
}

/// One output.
pub fn one(value: Value) -> Vec<Entry> {
    vec![Entry::Data(value)]
}

impl<'a> Call<'_, 'a> {
    /// An error at this node that says what its inputs are.
    pub fn fail(&self, message: impl Into<String>) -> Error {
        self.problem(message).into()
    }

    /// As [`Call::fail`], for sizes that the user can give.
    pub fn fail_sizes(&self, message: impl Into<String>) -> Error {
        self.problem(message).hint(self.lower.free_inputs()).into()
    }

    fn problem(&self, message: impl Into<String>) -> Problem {
        let shapes: Vec<String> = self.inputs.iter().map(|value| self.describe(*value)).collect();
        let inputs = format!("({})", shapes.join(", "));
        Problem::new(message).node(&self.node.name).op(&self.node.op).inputs(inputs)
    }

    fn describe(&self, value: Ref) -> String {
        match self.lower.shape(value).zip(self.lower.dtype(value)) {
            Some((shape, dtype)) => format!("{dtype}{shape}"),
            None => "?".to_owned(),
        }
    }

    /// What an input is, unresolved.
    ///
    /// # Errors
    /// When there is no such input.
    pub fn input(&self, slot: usize) -> Result<Ref> {
        self.inputs.get(slot).copied().ok_or_else(|| self.fail(format!("has no input {slot}")))
    }

    /// An input as a value of the graph.
    ///
    /// # Errors
    /// When it is missing or no tensor of numbers.
    pub fn data(&mut self, slot: usize) -> Result<Value> {
        let value = self.input(slot)?;
        self.lower.value(value)
    }

    /// An input as a value of the graph, and its shape.
    ///
    /// # Errors
    /// As [`Call::data`].
    pub fn shaped(&mut self, slot: usize) -> Result<(Value, Shape)> {
        let value = self.data(slot)?;
        Ok((value, self.lower.graph.shape(value).clone()))
    }

    /// The shape of an input.
    ///
    /// # Errors
    /// When it is missing or no tensor of numbers.
    pub fn shape(&self, slot: usize) -> Result<Shape> {
        self.lower.shape(self.input(slot)?).ok_or_else(|| self.fail(format!("input {slot} is no tensor of numbers")))
    }

    /// The element type of an input.
    ///
    /// # Errors
    /// When it is missing or no tensor of numbers.
    pub fn dtype(&self, slot: usize) -> Result<DType> {
        self.lower.dtype(self.input(slot)?).ok_or_else(|| self.fail(format!("input {slot} is no tensor of numbers")))
    }

    /// An input that is a constant, and where it came from.
    pub fn constant(&self, slot: usize) -> Option<(Tensor, Origin)> {
        match self.lower.entry(*self.inputs.get(slot)?)? {
            Entry::Constant(tensor, origin) => Some((tensor.clone(), origin.clone())),
            Entry::Data(value) => {
                let tensor = self.lower.graph.tensor(*value)?.clone();
                let name = self.lower.graph.node(value.node).name.clone();
                Some((tensor, Origin { name, variable: false }))
            }
            _ => None,
        }
    }

    /// A constant input seen in another way, without reading it; `None` when it is no constant.
    ///
    /// # Errors
    /// When `view` does not fit.
    pub fn view(
        &self,
        slot: usize,
        view: impl Fn(&Tensor) -> std::result::Result<Tensor, String>,
    ) -> Result<Option<Entry>> {
        match self.constant(slot) {
            Some((tensor, name)) => {
                let tensor = view(&tensor).map_err(|message| self.fail(message))?;
                Ok(Some(Entry::Constant(tensor, name)))
            }
            None => Ok(None),
        }
    }

    /// An input that is a parameter, in another shape: a view when it is a constant.
    ///
    /// # Errors
    /// When the number of elements differs.
    pub fn reshaped(&mut self, slot: usize, shape: &[usize]) -> Result<Value> {
        if self.shape(slot)? == Shape::known(shape) {
            return self.data(slot);
        }
        if let Some(Entry::Constant(tensor, name)) = self.view(slot, |tensor| tensor.reshaped(shape))? {
            return Ok(self.lower.constant(&name, tensor));
        }
        let value = self.data(slot)?;
        self.helper("reshape", op::Reshape { shape: Shape::known(shape) }, &[value])
    }

    /// Numbers that are known up to sizes.
    ///
    /// # Errors
    /// When they depend on data; `what` says what they are.
    pub fn sizes(&self, slot: usize, what: &str) -> Result<Sizes> {
        let value = self.input(slot)?;
        self.lower.sizes(value).ok_or_else(|| {
            let name = &self.lower.source(value).name;
            self.fail(format!("{what} depends on data ('{name}'), and must be known at conversion time"))
        })
    }

    /// Whole numbers of an input.
    ///
    /// # Errors
    /// When they are not known; `what` says what they are.
    pub fn ints(&self, slot: usize, what: &str) -> Result<Vec<i64>> {
        let sizes = self.sizes(slot, what)?;
        sizes.ints().ok_or_else(|| self.fail_sizes(format!("{what} depends on sizes that are not known")))
    }

    /// The whole number of an input.
    ///
    /// # Errors
    /// As [`Call::ints`], and when there is not one.
    pub fn int(&self, slot: usize, what: &str) -> Result<i64> {
        match self.ints(slot, what)?.as_slice() {
            [int] => Ok(*int),
            _ => Err(self.fail(format!("{what} is not one number"))),
        }
    }

    /// The real number of an input with one element, if it is known.
    pub fn number(&self, slot: usize) -> Option<f64> {
        let sizes = self.lower.sizes(*self.inputs.get(slot)?)?;
        if sizes.elems.len() == 1 { sizes.elems.first()?.real() } else { None }
    }

    /// The number that all elements of an input are, when it is a small constant or a fill. For what a layer may leave
    /// out: a scale of ones.
    pub fn uniform(&self, slot: usize) -> Option<f64> {
        let value = *self.inputs.get(slot)?;
        let source = self.lower.source(value);
        match source.op.as_str() {
            "Fill" => {
                let filled = self.lower.source_inputs(value).get(1).copied().flatten()?;
                self.lower.sizes(filled)?.elems.first()?.real()
            }
            "OnesLike" => Some(1.0),
            "ZerosLike" => Some(0.0),
            "Const" => {
                let numbers = self.lower.sizes(value)?.reals()?;
                let first = *numbers.first()?;
                numbers.iter().all(|x| *x == first).then_some(first)
            }
            _ => None,
        }
    }

    /// An axis that may count from the end.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn axis(&self, axis: i64, rank: usize) -> Result<usize> {
        let from_start = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
        usize::try_from(from_start)
            .ok()
            .filter(|&axis| axis < rank)
            .ok_or_else(|| self.fail(format!("axis {axis} does not exist in rank {rank}")))
    }

    /// Axes that may count from the end: sorted, without repeats.
    ///
    /// # Errors
    /// When one does not exist.
    pub fn axes(&self, axes: &[i64], rank: usize) -> Result<Vec<usize>> {
        let mut axes = axes.iter().map(|&axis| self.axis(axis, rank)).collect::<Result<Vec<_>>>()?;
        axes.sort_unstable();
        axes.dedup();
        Ok(axes)
    }

    /// The layout that `data_format` says.
    pub fn layout(&self) -> Layout {
        self.node.layout()
    }

    /// The spatial part of an attribute that has one number per axis of the input; ones when it is absent.
    ///
    /// # Errors
    /// When a number is not positive, or the batch or the channels are not 1.
    pub fn spatial(&self, attr: &str, rank: usize) -> Result<Vec<usize>> {
        match self.node.ints(attr) {
            Some(list) if !list.is_empty() => self.spatial_of(&list, attr, rank),
            _ => Ok(vec![1; rank.saturating_sub(2)]),
        }
    }

    /// The spatial part of a list that has one number per axis of the input.
    ///
    /// # Errors
    /// As [`Call::spatial`].
    pub fn spatial_of(&self, list: &[i64], what: &str, rank: usize) -> Result<Vec<usize>> {
        let spatial = self.layout().spatial_axes(rank);
        let wrong = || self.fail(format!("{what} {list:?} are not supported for an input of rank {rank}"));
        if list.len() != rank || list.iter().enumerate().any(|(axis, &n)| !spatial.contains(&axis) && n != 1) {
            return Err(wrong());
        }
        let sizes = list.get(spatial).unwrap_or_default();
        sizes.iter().map(|&n| usize::try_from(n).ok().filter(|&n| n > 0).ok_or_else(wrong)).collect()
    }

    /// A size that has to be known: an error names the axis and what to give.
    ///
    /// # Errors
    /// When it is not known.
    pub fn known(&self, shape: &Shape, axis: usize, what: &str) -> Result<usize> {
        shape
            .get(axis)
            .and_then(Dim::known)
            .ok_or_else(|| self.fail_sizes(format!("needs {what}, and axis {axis} of its input {shape} is not known")))
    }

    /// Adds the node that gives the result.
    ///
    /// # Errors
    /// When the operator can't take these inputs.
    pub fn add(&mut self, op: impl Into<Op>, inputs: &[Value]) -> Result<Value> {
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        self.add_with(op, &inputs)
    }

    /// Adds the node that gives the result, with optional inputs.
    ///
    /// # Errors
    /// When the operator can't take these inputs.
    pub fn add_with(&mut self, op: impl Into<Op>, inputs: &[Option<Value>]) -> Result<Value> {
        self.lower.add(op, &self.node.name, inputs).map_err(|error| self.ours(error))
    }

    /// Adds a node on the way to the result.
    ///
    /// # Errors
    /// When the operator can't take these inputs.
    pub fn helper(&mut self, suffix: &str, op: impl Into<Op>, inputs: &[Value]) -> Result<Value> {
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        let name = format!("{}/{suffix}", self.node.name);
        self.lower.add(op, &name, &inputs).map_err(|error| self.ours(error))
    }

    /// The source's operator in place of the graph's in an error.
    fn ours(&self, mut error: Error) -> Error {
        for problem in &mut error.problems {
            problem.op = Some(self.node.op.clone());
            problem.node = Some(self.node.name.clone());
        }
        error
    }

    /// Adds a constant on the way to the result.
    pub fn helper_constant(&mut self, suffix: &str, tensor: Tensor) -> Value {
        let name = format!("{}/{suffix}", self.node.name);
        self.lower.graph.constant(&name, tensor)
    }

    /// Adds a scalar constant on the way to the result.
    pub fn scalar(&mut self, suffix: &str, value: f64, dtype: DType) -> Value {
        self.helper_constant(suffix, Tensor::from_f64(dtype, &[], [value]))
    }

    /// A shape of dimensions that are known up to sizes; -1 and the like are unknown.
    pub fn dims(&self, elems: &[Elem]) -> Shape {
        elems.iter().map(Elem::dim).collect()
    }
}
