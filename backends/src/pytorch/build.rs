//! Putting a leaf together: operands, members and their weights.

use modelport_ir::op::Op;
use modelport_ir::{DType, Graph, NodeId, Problem, Shape, Tensor, Value};

use super::weight_norm;
use crate::plan::{Leaf, Member, MemberKind, ModuleForm, Param};
use crate::python::{Arg, Expr, Lit, snake_case};

/// A leaf in the making.
pub struct Builder<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// The node.
    pub node: NodeId,
    inputs: Vec<Option<Value>>,
    members: Vec<Member>,
    operands: Vec<Value>,
    results: Vec<String>,
    modules: Option<Vec<ModuleForm>>,
}

/// What a node is, or why PyTorch cannot say it.
pub type Built = Result<Expr, Problem>;

impl<'a> Builder<'a> {
    /// Starts the leaf of a node.
    pub fn new(graph: &'a Graph, node: NodeId) -> Self {
        let inputs = graph.inputs_of(node);
        Builder { graph, node, inputs, members: Vec::new(), operands: Vec::new(), results: Vec::new(), modules: None }
    }

    /// Ends it: `expr` is what it computes.
    pub fn leaf(self, role: &str, expr: Expr) -> Leaf {
        Leaf {
            node: self.node,
            role: role.to_owned(),
            members: self.members,
            expr,
            operands: self.operands,
            results: self.results,
            modules: self.modules,
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

    /// Element type of the value in a slot.
    pub fn dtype(&self, slot: usize) -> Result<DType, Problem> {
        Ok(self.graph.info(self.input(slot)?).dtype)
    }

    /// Shape of an output.
    pub fn output_shape(&self, output: usize) -> &'a Shape {
        &self.graph.node(self.node).outputs[output].shape
    }

    /// The value in a slot as an operand; numbers are written out, other constants are buffers.
    pub fn operand(&mut self, slot: usize) -> Built {
        let value = self.input(slot)?;
        match self.graph.tensor(value) {
            Some(_) if self.is_weight(value) => self.tensor(slot),
            Some(tensor) if tensor.rank() == 0 || (tensor.numel() == 1 && self.outranked(tensor)) => {
                self.literal(&tensor.clone())
            }
            _ => self.tensor(slot),
        }
    }

    /// Whether a constant is in the source's state dict: a number there stays a tensor.
    fn is_weight(&self, value: Value) -> bool {
        !self.graph.modules.is_empty()
            && matches!(self.graph.op(value.node), Op::Constant(constant) if constant.trainable)
    }

    /// Whether a constant of one element has no more axes than the result, so that a number says the same.
    fn outranked(&self, tensor: &Tensor) -> bool {
        let others = self.inputs.iter().flatten().filter(|value| self.graph.tensor(**value).is_none());
        others.map(|value| self.graph.shape(*value).rank()).max().is_some_and(|rank| tensor.rank() <= rank)
    }

    /// A constant of one element as a number.
    pub fn literal(&self, tensor: &Tensor) -> Built {
        let read = |e: std::io::Error| self.problem(format!("a constant can't be read: {e}"));
        let lit = match tensor.dtype() {
            DType::Bool => Lit::Bool(tensor.to_i64().map_err(read)?.first().is_some_and(|&v| v != 0)),
            dtype if dtype.is_int() => Lit::Int(tensor.to_i64().map_err(read)?.first().copied().unwrap_or(0)),
            _ => Lit::float(tensor.to_f32().map_err(read)?.first().copied().unwrap_or(0.0)),
        };
        Ok(Expr::slot("value", lit))
    }

    /// The value in a slot as a tensor: an operand, or a buffer that holds the constant.
    pub fn tensor(&mut self, slot: usize) -> Built {
        let value = self.input(slot)?;
        let Some(tensor) = self.graph.tensor(value).cloned() else {
            return Ok(self.operand_of(value));
        };
        let name = self.graph.node(value.node).name.clone();
        let role = buffer_role(&name, self.graph.op(self.node));
        let trained = matches!(self.graph.op(value.node), Op::Constant(constant) if constant.trainable);
        if trained && tensor.dtype().is_float() {
            let ctor = zeros(&tensor);
            let param = Param { key: String::new(), tensor, source: name };
            return Ok(self.add(MemberKind::Parameter, &role, ctor, vec![param]));
        }
        Ok(self.buffer(&role, tensor, &name))
    }

    /// A value that is no constant, as an operand.
    pub fn operand_of(&mut self, value: Value) -> Expr {
        let index = self.operands.iter().position(|known| *known == value).unwrap_or_else(|| {
            self.operands.push(value);
            self.operands.len() - 1
        });
        Expr::Operand(index)
    }

    /// A buffer with the elements of `tensor`.
    pub fn buffer(&mut self, role: &str, tensor: Tensor, source: &str) -> Expr {
        let ctor = zeros(&tensor);
        let param = Param { key: String::new(), tensor, source: source.to_owned() };
        self.add(MemberKind::Buffer, role, ctor, vec![param])
    }

    /// A member that is a module.
    pub fn module(&mut self, role: &str, ctor: Expr, params: Vec<Param>) -> Expr {
        self.add(MemberKind::Module, role, ctor, params)
    }

    fn add(&mut self, kind: MemberKind, role: &str, ctor: Expr, params: Vec<Param>) -> Expr {
        self.members.push(Member { kind, role: role.to_owned(), ctor, params });
        Expr::Member(self.members.len() - 1)
    }

    /// A layer: a module called with the value in slot 0, which is also its form in a chain.
    pub fn layer(&mut self, role: &str, ctor: Expr, params: Vec<Param>) -> Built {
        let x = self.tensor(0)?;
        let (ctor, params) = weight_norm::layer(self.graph, ctor, params);
        self.modules = Some(vec![ModuleForm { ctor: ctor.clone(), params: params.clone() }]);
        let member = self.module(role, ctor, params);
        Ok(Expr::Call(Box::new(member), vec![Arg::new(x)]))
    }

    /// Says that in a chain the leaf is this module without weights.
    pub fn as_module(&mut self, ctor: Expr) {
        self.modules = Some(vec![ModuleForm { ctor, params: Vec::new() }]);
    }

    /// Puts a module without weights in front of the chain form.
    pub fn before_module(&mut self, ctor: Expr) {
        if let Some(modules) = &mut self.modules {
            modules.insert(0, ModuleForm { ctor, params: Vec::new() });
        }
    }

    /// There is no form in a chain.
    pub fn no_module(&mut self) {
        self.modules = None;
    }

    /// Names the results of a node with several.
    pub fn results(&mut self, names: Vec<String>) {
        self.results = names;
    }

    /// The weight in a slot under `key`, its axes permuted; `None` when the slot is empty.
    ///
    /// # Errors
    /// When the slot holds no constant.
    pub fn param(&self, slot: usize, key: &str, perm: Option<&[usize]>) -> Result<Option<Param>, Problem> {
        let Some(value) = self.has(slot) else { return Ok(None) };
        let tensor = self.graph.tensor(value).ok_or_else(|| {
            self.problem(format!("the {key} is computed, not constant"))
                .hint("cut the graph behind this node, or freeze what computes the weight")
        })?;
        let tensor = match perm {
            Some(perm) => tensor.permuted(perm).map_err(|message| self.problem(message))?,
            None => tensor.clone(),
        };
        Ok(Some(Param { key: key.to_owned(), tensor, source: self.graph.node(value.node).name.clone() }))
    }

    /// Whether the value in a slot is a constant.
    pub fn is_constant(&self, slot: usize) -> bool {
        self.has(slot).is_some_and(|value| self.graph.tensor(value).is_some())
    }

    /// A size of an axis of the value in a slot: a number, or `x.shape[i]` where it is free.
    pub fn dim(&mut self, slot: usize, axis: usize, role: &str) -> Built {
        let shape = self.shape(slot)?;
        match shape.get(axis).and_then(modelport_ir::Dim::known) {
            Some(size) => Ok(Expr::int(role, size)),
            None => {
                let x = self.tensor(slot)?;
                Ok(Expr::Attr(Box::new(x), "shape".to_owned()).index(vec![Expr::name(&axis.to_string())]))
            }
        }
    }

    /// A size: a number, or found among the axes of the value in a slot, times its factor.
    pub fn size(&mut self, dim: &modelport_ir::Dim, slot: usize) -> Built {
        use modelport_ir::Dim;
        match dim {
            Dim::Known(size) => Ok(Expr::int("size", *size)),
            Dim::Unknown => Err(self.problem("a size is not known").hint("give the input's shape with --inputShape")),
            Dim::Symbol { factor, name } => {
                let shape = self.shape(slot)?.clone();
                let found = shape.iter().enumerate().find_map(|(axis, have)| match have {
                    Dim::Symbol { factor: f, name: n } if n == name => Some((axis, *f)),
                    _ => None,
                });
                let Some((axis, own)) = found else {
                    return Err(self.problem(format!("nothing tells the free size {name}")));
                };
                let value = self.has(slot);
                let x = match value.filter(|value| self.graph.tensor(*value).is_none()) {
                    Some(value) => self.operand_of(value),
                    None => return Err(self.problem(format!("nothing tells the free size {name}"))),
                };
                let mut size = Expr::Attr(Box::new(x), "shape".to_owned()).index(vec![Expr::name(&axis.to_string())]);
                if own > 1 {
                    size = size.binary("//", Expr::int("size", own));
                }
                if *factor > 1 {
                    size = Expr::int("size", *factor).binary("*", size);
                }
                Ok(size)
            }
        }
    }
}

/// `torch.zeros(…)` of a tensor's shape and type.
pub fn zeros(tensor: &Tensor) -> Expr {
    let shape = tensor.shape();
    let mut args: Vec<Arg> = shape.iter().map(|&size| Arg::new(Expr::int("size", size))).collect();
    if args.is_empty() {
        args.push(Arg::new(Expr::Tuple(Vec::new())));
    }
    if tensor.dtype() != DType::Float32 {
        args.push(Arg::keyword("dtype", Expr::name(&torch_dtype(tensor.dtype())), None));
    }
    Expr::call("torch.zeros", args)
}

/// `torch.float32` and so on.
pub fn torch_dtype(dtype: DType) -> String {
    format!("torch.{}", dtype.name())
}

/// A word for a constant that an operator reads: its own name if that says something, else its part in the operator.
fn buffer_role(name: &str, op: &Op) -> String {
    use modelport_ir::op::Binary;
    let own = snake_case(name.rsplit('/').next().unwrap_or(""));
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
