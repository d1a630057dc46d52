//! Putting a leaf together: operands, layers and their weights.

use modelport_ir::op::{Op, SlotKind};
use modelport_ir::{DType, Dim, Graph, NodeId, Problem, Shape, Tensor, Value};

use crate::plan::{Leaf, Member, MemberKind, ModuleForm, Param};
use crate::python::{Arg, Expr, Lit, snake_case};

/// The function of generated code that gives a tensor of weights which belongs to no layer.
pub const PARAMETER: &str = "parameter";
/// Constants of at most this many elements are written into the code.
const LITERAL: usize = 16;
/// Whole numbers up to here are exact in float32.
const EXACT: i64 = 1 << 24;

/// A leaf in the making.
pub struct Builder<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// The node.
    pub node: NodeId,
    /// The version of Keras.
    pub version: u8,
    inputs: Vec<Option<Value>>,
    members: Vec<Member>,
    operands: Vec<Value>,
    results: Vec<String>,
    modules: Option<Vec<ModuleForm>>,
}

/// What a node is, or why Keras cannot say it.
pub type Built = Result<Expr, Problem>;

impl<'a> Builder<'a> {
    /// Starts the leaf of a node.
    pub fn new(graph: &'a Graph, node: NodeId, version: u8) -> Self {
        Builder {
            graph,
            node,
            version,
            inputs: graph.inputs_of(node),
            members: Vec::new(),
            operands: Vec::new(),
            results: Vec::new(),
            modules: None,
        }
    }

    /// Ends it: `expr` is what it computes.
    pub fn leaf(self, role: &str, expr: Expr) -> Leaf {
        // In a chain a function of one value is itself, with that value left open.
        let plain = self.members.is_empty() && self.operands.len() == 1 && self.results.is_empty();
        let modules = match self.modules {
            None if plain => Some(vec![ModuleForm { ctor: expr.clone(), params: Vec::new() }]),
            modules => modules,
        };
        Leaf {
            node: self.node,
            role: role.to_owned(),
            members: self.members,
            expr,
            operands: self.operands,
            results: self.results,
            modules,
            functional: None,
        }
    }

    /// An error at this node.
    pub fn problem(&self, message: impl Into<String>) -> Problem {
        let shapes: Vec<String> =
            self.inputs.iter().flatten().map(|value| self.graph.shape(*value).to_string()).collect();
        Problem::new(message)
            .node(self.graph.node(self.node).name.clone())
            .op(self.graph.op(self.node).name())
            .inputs(format!("({})", shapes.join(", ")))
    }

    /// The error for a size that has to be known.
    pub fn unknown(&self, what: &str) -> Problem {
        self.problem(format!("{what} is not known")).hint("give the input's shape with --inputShape")
    }

    /// The value in a slot.
    pub fn input(&self, slot: usize) -> Result<Value, Problem> {
        self.has(slot).ok_or_else(|| self.problem(format!("input {slot} is missing")))
    }

    /// The value in a slot, if there is one.
    pub fn has(&self, slot: usize) -> Option<Value> {
        self.inputs.get(slot).copied().flatten()
    }

    /// How many input slots there are.
    pub fn input_count(&self) -> usize {
        self.inputs.len()
    }

    /// Shape of the value in a slot.
    pub fn shape(&self, slot: usize) -> Result<&'a Shape, Problem> {
        Ok(self.graph.shape(self.input(slot)?))
    }

    /// Sizes of some axes of the value in a slot.
    pub fn sizes(&self, slot: usize, axes: std::ops::Range<usize>) -> Result<Vec<usize>, Problem> {
        let shape = self.shape(slot)?;
        axes.map(|axis| shape.get(axis).and_then(Dim::known).ok_or_else(|| self.unknown("the size of the input")))
            .collect()
    }

    /// Element type of the value in a slot.
    pub fn dtype(&self, slot: usize) -> Result<DType, Problem> {
        Ok(self.graph.info(self.input(slot)?).dtype)
    }

    /// Shape of an output.
    pub fn output_shape(&self, output: usize) -> &'a Shape {
        &self.graph.node(self.node).outputs[output].shape
    }

    /// The value in a slot as an operand; numbers are written out.
    pub fn operand(&mut self, slot: usize) -> Built {
        let value = self.input(slot)?;
        match self.graph.tensor(value) {
            Some(tensor) if self.is_number(value, tensor) => self.literal(&tensor.clone()),
            _ => self.tensor(slot),
        }
    }

    /// Whether a constant is as good as a number: it has one element, and no more axes than another operand.
    fn is_number(&self, value: Value, tensor: &Tensor) -> bool {
        let trained = matches!(self.graph.op(value.node), Op::Constant(constant) if constant.trainable);
        let others = self.inputs.iter().flatten().filter(|value| self.graph.tensor(**value).is_none());
        let outranked = others.map(|value| self.graph.shape(*value).rank()).max().is_some_and(|r| tensor.rank() <= r);
        !trained && tensor.numel() == 1 && (tensor.rank() == 0 || outranked)
    }

    /// A constant of one element as a number.
    pub fn literal(&self, tensor: &Tensor) -> Built {
        let numbers = self.numbers(tensor)?;
        Ok(Expr::slot("value", numbers.into_iter().next().unwrap_or(Lit::None)))
    }

    fn numbers(&self, tensor: &Tensor) -> Result<Vec<Lit>, Problem> {
        let read = |e: std::io::Error| self.problem(format!("a constant can't be read: {e}"));
        Ok(match tensor.dtype() {
            DType::Bool => tensor.to_i64().map_err(read)?.into_iter().map(|v| Lit::Bool(v != 0)).collect(),
            dtype if dtype.is_int() => tensor.to_i64().map_err(read)?.into_iter().map(Lit::Int).collect(),
            _ => tensor.to_f32().map_err(read)?.into_iter().map(Lit::float).collect(),
        })
    }

    /// The value in a slot as a tensor: an operand, or a constant.
    pub fn tensor(&mut self, slot: usize) -> Built {
        let value = self.input(slot)?;
        let Some(tensor) = self.graph.tensor(value).cloned() else {
            return Ok(self.operand_of(value));
        };
        let name = self.graph.node(value.node).name.clone();
        let role = constant_role(&name, self.graph.op(self.node));
        let trained = matches!(self.graph.op(value.node), Op::Constant(constant) if constant.trainable);
        let parameter = self.graph.op(self.node).slot(slot).is_some_and(|slot| slot.kind != SlotKind::Data);
        self.constant(&role, &tensor, &name, trained || parameter)
    }

    /// A short constant as nested lists of numbers, for functions that take these.
    pub fn short_list(&self, slot: usize) -> Result<Option<Expr>, Problem> {
        let tensor =
            self.graph.tensor(self.input(slot)?).filter(|tensor| tensor.numel() <= LITERAL && tensor.rank() > 0);
        let Some(tensor) = tensor else { return Ok(None) };
        let list = nested(&mut self.numbers(tensor)?.into_iter(), &tensor.shape());
        Ok(Some(Expr::slot("indices", list)))
    }

    /// A value that is no constant, as an operand.
    pub fn operand_of(&mut self, value: Value) -> Expr {
        let index = self.operands.iter().position(|known| *known == value).unwrap_or_else(|| {
            self.operands.push(value);
            self.operands.len() - 1
        });
        Expr::Operand(index)
    }

    /// A constant: written out where it is short and not trained, else the weights of a layer that does nothing else.
    pub fn constant(&mut self, role: &str, tensor: &Tensor, source: &str, trained: bool) -> Built {
        // What is returned must depend on the input; a literal does not.
        let returned = matches!(self.graph.op(self.node), Op::Constant(_));
        if !trained && !returned && tensor.numel() <= LITERAL {
            let mut numbers = self.numbers(tensor)?.into_iter();
            let value = Expr::slot("value", nested(&mut numbers, &tensor.shape()));
            let dtype = Lit::Str(tensor.dtype().name().to_owned());
            return Ok(Expr::call(
                "ops.convert_to_tensor",
                vec![Arg::new(value), Arg::or("dtype", Expr::slot("dtype", dtype), Lit::Str("float32".to_owned()))],
            ));
        }
        let is_float = tensor.dtype().is_float();
        if !is_float {
            let numbers = tensor.to_i64().map_err(|e| self.problem(format!("a constant can't be read: {e}")))?;
            if numbers.iter().any(|n| n.abs() > EXACT) {
                return Err(self.problem("a constant of whole numbers above 2^24 has no place in Keras' weights"));
            }
        }
        let shape = shape_of(Lit::tuple(&tensor.shape()));
        let ctor = Expr::call(
            PARAMETER,
            vec![
                Arg::or("shape", shape, Lit::None),
                Arg::keyword(
                    "trainable",
                    Expr::slot("trainable", Lit::Bool(trained && is_float)),
                    Some(Lit::Bool(true)),
                ),
            ],
        );
        let row = tensor.reshaped(&[1, tensor.numel()]).map_err(|message| self.problem(message))?;
        let row = if is_float { row } else { row.cast(DType::Float32) };
        let param = Param { key: "kernel".to_owned(), tensor: row, source: source.to_owned() };
        let member = self.add(MemberKind::Parameter, role, ctor, vec![param]);
        Ok(match is_float {
            true => member,
            false => {
                Expr::call("ops.cast", vec![Arg::new(member), Arg::or("dtype", dtype_lit(tensor.dtype()), Lit::None)])
            }
        })
    }

    /// A layer that keeps weights, called with `x`.
    pub fn layer_of(&mut self, role: &str, ctor: Expr, params: Vec<Param>, x: Expr) -> Expr {
        Expr::Call(Box::new(self.member(role, ctor, params)), vec![Arg::new(x)])
    }

    /// A layer that keeps weights, to be called.
    pub fn member(&mut self, role: &str, ctor: Expr, params: Vec<Param>) -> Expr {
        self.add(MemberKind::Module, role, ctor, params)
    }

    fn add(&mut self, kind: MemberKind, role: &str, ctor: Expr, params: Vec<Param>) -> Expr {
        self.members.push(Member { kind, role: role.to_owned(), ctor, params });
        Expr::Member(self.members.len() - 1)
    }

    /// A layer that keeps weights, called with the value in slot 0 after what `before` makes of it; which is also its
    /// form in a chain.
    pub fn layer(
        &mut self,
        role: &str,
        ctor: Expr,
        params: Vec<Param>,
        before: Option<&dyn Fn(Expr) -> Expr>,
    ) -> Built {
        let mut x = self.tensor(0)?;
        let mut modules = Vec::new();
        if let Some(before) = before {
            x = before(x);
            modules.push(ModuleForm { ctor: x.clone(), params: Vec::new() });
        }
        modules.push(ModuleForm { ctor: ctor.clone(), params: params.clone() });
        self.modules = (self.operands.len() == 1).then_some(modules);
        Ok(self.layer_of(role, ctor, params, x))
    }

    /// There is no form in a chain.
    pub fn no_module(&mut self) {
        self.modules = None;
    }

    /// Names the results of a node with several.
    pub fn results(&mut self, names: Vec<String>) {
        self.results = names;
    }

    /// The weight in a slot under `key`; `None` when the slot is empty.
    ///
    /// # Errors
    /// When the slot holds no constant.
    pub fn param(&self, slot: usize, key: &str) -> Result<Option<Param>, Problem> {
        let Some(value) = self.has(slot) else { return Ok(None) };
        let tensor = self.graph.tensor(value).ok_or_else(|| {
            self.problem(format!("the {key} is computed, not constant"))
                .hint("cut the graph behind this node, or freeze what computes the weight")
        })?;
        let source = self.graph.node(value.node).name.clone();
        Ok(Some(Param { key: key.to_owned(), tensor: tensor.clone(), source }))
    }

    /// The weight in a slot, which must be there.
    pub fn required(&self, slot: usize, key: &str) -> Result<Param, Problem> {
        self.param(slot, key)?.ok_or_else(|| self.problem(format!("the {key} is missing")))
    }

    /// Whether the value in a slot is a constant.
    pub fn is_constant(&self, slot: usize) -> bool {
        self.has(slot).is_some_and(|value| self.graph.tensor(value).is_some())
    }

    /// Whether the value in a slot is an array of the backend in the code, and nothing that flows through the network.
    pub fn is_array(&self, slot: usize) -> bool {
        self.has(slot).is_some_and(|value| match (self.graph.op(value.node), self.graph.tensor(value)) {
            (Op::Constant(constant), Some(tensor)) => {
                !constant.trainable && tensor.numel() <= LITERAL && !self.is_number(value, tensor)
            }
            (Op::Input(_), _) => false,
            _ => self.graph.inputs_of(value.node).iter().all(Option::is_none),
        })
    }

    /// Zeros of shape `[N, 1, …]` (of `rank` axes, `N` at `axis`), where the free size `N` is that of an axis of the
    /// value in slot `like`.
    pub fn free_zeros(&mut self, dim: &Dim, like: usize, axis: usize, rank: usize, dtype: DType) -> Built {
        let zeros = self.free_vector("zeros_like", dim, like, dtype)?;
        if rank == 1 {
            return Ok(zeros);
        }
        let shape = (0..rank).map(|i| Lit::Int(if i == axis { -1 } else { 1 })).collect();
        Ok(reshaped(zeros, Lit::Tuple(shape)))
    }

    /// As many zeros or ones as a free size, which is that of an axis of the value in slot `like`.
    pub fn free_vector(&mut self, function: &str, dim: &Dim, like: usize, dtype: DType) -> Built {
        let Dim::Symbol { factor, name } = dim else { return Err(self.unknown("a size")) };
        let shape = self.shape(like)?.clone();
        let found = shape.iter().position(|have| matches!(have, Dim::Symbol { factor: 1, name: n } if n == name));
        let (Some(found), 1) = (found, *factor) else {
            return Err(self.problem(format!("a free size {dim} can't be made in Keras from those of {shape}")));
        };
        let value = self.input(like)?;
        let mut x = self.operand_of(value);
        let items: Vec<Expr> =
            (0..shape.rank()).map(|i| if i == found { Expr::name(":") } else { Expr::int("index", 0) }).collect();
        if items.len() > 1 {
            x = x.index(items);
        }
        let kept = Arg::or("dtype", dtype_lit(dtype), Lit::Str(self.dtype(like)?.name().to_owned()));
        Ok(Expr::call(&format!("ops.{function}"), vec![Arg::new(x), kept]))
    }
}

/// `ops.reshape(…)`.
pub fn reshaped(x: Expr, shape: Lit) -> Expr {
    Expr::call("ops.reshape", vec![Arg::new(x), Arg::or("newshape", shape_of(shape), Lit::None)])
}

/// A shape; its sizes are told apart, since each may follow from something else where they differ between blocks.
pub fn shape_of(shape: Lit) -> Expr {
    match shape {
        Lit::Tuple(items) => Expr::Tuple(items.into_iter().map(|item| Expr::slot("size", item)).collect()),
        other => Expr::slot("size", other),
    }
}

/// A type as Keras names it.
pub fn dtype_lit(dtype: DType) -> Expr {
    Expr::slot("dtype", Lit::Str(dtype.name().to_owned()))
}

/// A call of a layer that has no weights: `layers.ReLU()(x)`.
pub fn call_layer(class: &str, args: Vec<Arg>, x: Expr) -> Expr {
    Expr::Call(Box::new(Expr::call(&format!("layers.{class}"), args)), vec![Arg::new(x)])
}

/// A pair of pads per axis as Keras takes it: `1`, `(1, 2)`, `((0, 1), (0, 1))`.
pub fn pad_lit(pads: &[(usize, usize)]) -> Lit {
    let pair = |pad: &(usize, usize)| Lit::tuple(&[pad.0, pad.1]);
    match pads {
        [one] if one.0 == one.1 => Lit::size(one.0),
        [one] => pair(one),
        all if all.iter().all(|pad| pad.0 == pad.1) => Lit::sizes(&all.iter().map(|pad| pad.0).collect::<Vec<_>>()),
        all => Lit::Tuple(all.iter().map(pair).collect()),
    }
}

/// Numbers as nested lists of a shape.
fn nested(numbers: &mut dyn Iterator<Item = Lit>, shape: &[usize]) -> Lit {
    match shape {
        [] => numbers.next().unwrap_or(Lit::None),
        [size, rest @ ..] => Lit::List((0..*size).map(|_| nested(numbers, rest)).collect()),
    }
}

/// A word for a constant that an operator reads: its own name if that says something, else its part in the operator.
fn constant_role(name: &str, op: &Op) -> String {
    use modelport_ir::op::Binary;
    // A module's weight is what the module is called.
    let name = name.strip_suffix(".weight").unwrap_or(name);
    let own = snake_case(name.rsplit(['/', '.']).next().unwrap_or(""));
    let stem = own.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_');
    if stem.len() > 1 && !["const", "read", "readvariableop", "value", "shape", "axis", "node"].contains(&stem) {
        return own;
    }
    match op {
        Op::Binary(Binary::Add | Binary::Sub) => "offset",
        Op::Binary(Binary::Mul | Binary::Div) => "scale",
        Op::Gather(_) => "indices",
        Op::MatMul(_) | Op::Einsum(_) => "matrix",
        _ => "constant",
    }
    .to_owned()
}
