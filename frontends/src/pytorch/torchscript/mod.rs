//! TorchScript: what `torch.jit.trace` and `torch.jit.script` saved, frozen or not.
//!
//! The archive has code in a subset of Python ([`syntax`]), and the modules' attributes as a pickle ([`model`]). The
//! code of `forward` is followed ([`interpret`]): plain data is computed at once ([`scalar`]), tensors become calls of
//! ATEN's operators. A condition must follow from what is known; one that depends on what the network computes is an
//! error that names its line. Nothing is executed but what this module implements.

mod ast;
mod interpret;
mod model;
mod scalar;
mod syntax;
mod tokens;
mod value;

use std::path::Path;

use modelport_ir::{DType, Dim, Error, Graph, Problem, Result, Shape, Tensor};

use super::archive::Archive;
use super::arg::{Arg, Weight};
use super::fill;
use super::lower::{Lower, keyless};
use super::ops;
use super::state::StateDict;
use crate::Source;
use crate::symbolic::{Elem, Expressions};
use ast::{Expr, Stmt, StmtKind};
use interpret::{Interpreter, Program, Stop, Torch};
use model::{Instance, Model};
use value::Value;

/// Sizes of an image with its batch.
const IMAGE: usize = 4;

/// Operators that say something of a tensor without computing.
const QUERIES: &[&str] =
    &["size", "dim", "ndimension", "len", "numel", "dtype", "device", "layout", "shape", "is_cuda"];

/// Functions of plain data that straight-line code has.
const PLAIN: &[&str] =
    &["device", "list", "append", "floordiv", "format", "warn", "ScalarImplicit", "Int", "Float", "Bool"];

/// Why code can't be followed.
const UNKNOWN: &str = "what the network does depends on it, and it is not known before it runs";

/// Reads the network of an archive at `path`. Weights that are given take the place of its own.
///
/// # Errors
/// When the archive is damaged, the code does what can't be followed, weights do not fit, or operators have no
/// translation: all of them are named.
pub fn read(source: &Source, path: &Path, archive: &Archive, weights: Option<&StateDict>) -> Result<Graph> {
    let mut model = model::read(archive).map_err(|message| Problem::new(message).file(path))?;
    if let Some(weights) = weights {
        let fields = model.instances.iter_mut().flat_map(|instance| instance.fields.values_mut());
        let own = fields.filter_map(|field| match field {
            Value::Tensor(Arg::Weight(weight)) => Some(weight),
            _ => None,
        });
        let mut own: Vec<_> = own.map(|weight| (weight.name.to_string(), &mut weight.tensor)).collect();
        fill::fill(own.iter_mut().map(|(name, tensor)| (name.as_str(), &mut **tensor)), weights, path)?;
    }
    let first = typed(source, path, &model, false);
    // A script does not say how many axes its inputs have: four sizes are an image with its batch, or a volume without.
    let may_be_volume = model.traced.is_empty() && source.input_shapes.iter().any(|sizes| sizes.len() == IMAGE);
    match first {
        Err(error) if may_be_volume => typed(source, path, &model, true).map_err(|_| error.in_file(path)),
        first => first.map_err(|error| error.in_file(path)),
    }
}

/// Which inputs are whole numbers shows where they are used.
fn typed(source: &Source, path: &Path, model: &Model, volumes: bool) -> Result<Graph> {
    let mut whole = Vec::new();
    loop {
        let known = whole.len();
        match follow(source, path, model, &mut whole, volumes) {
            Err(_) if whole.len() > known => {}
            result => return result,
        }
    }
}

fn follow(source: &Source, path: &Path, model: &Model, whole: &mut Vec<usize>, volumes: bool) -> Result<Graph> {
    let Some(root) = model.instances.first() else { return Err(Error::new("holds no module")) };
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let mut lower = Lower::new(&stem, &format!("TorchScript ({file})"));
    lower.root(model::short(&root.class));
    let state = entries(model);
    lower.tie(state.iter().map(|(key, tensor)| (key.as_str(), tensor)));
    let frozen = state.is_empty();
    lower.entries(state);
    let args = inputs(source, model, root, (whole, volumes), &mut lower)?;
    let names = output_names(&model.program, &root.class);
    let fields = model.instances.iter().map(|instance| instance.fields.clone()).collect();
    let torch =
        Followed { model, lower, fields, training: source.training, frozen, inputs: args.clone(), whole: Vec::new() };
    let mut interpreter = Interpreter::new(&model.program, torch);
    let result = interpreter.method(0, "forward", args, Vec::new());
    let mut torch = interpreter.torch;
    whole.append(&mut torch.whole);
    whole.sort_unstable();
    whole.dedup();
    let result = result.map_err(|stop| problems(&model.program, stop))?;
    let mut outputs = Vec::new();
    name_outputs(&result, "", &names, &mut outputs);
    if outputs.is_empty() {
        return Err(Error::new("forward gives back no tensor"));
    }
    for (name, arg) in outputs {
        torch.lower.output(&name, &arg)?;
    }
    torch.lower.finish()
}

/// What the state dict has: parameters, and the statistics of norms. Of other buffers nothing says whether it has them.
fn entries(model: &Model) -> Vec<(String, Tensor)> {
    let statistic = |name: &str| matches!(name.rsplit('.').next(), Some("running_mean" | "running_var"));
    let fields = model.instances.iter().flat_map(|instance| instance.fields.values());
    let entry = |field: &Value| match field {
        Value::Tensor(Arg::Weight(weight)) if weight.trainable || statistic(&weight.name) => {
            (!weight.name.contains('/')).then(|| (weight.name.to_string(), weight.tensor.clone()))
        }
        _ => None,
    };
    fields.filter_map(entry).collect()
}

/// The tensors that forward takes: types and shapes as the user says, else as the trace was made.
fn inputs(
    source: &Source,
    model: &Model,
    root: &Instance,
    (whole, volumes): (&[usize], bool),
    lower: &mut Lower,
) -> Result<Vec<Value>> {
    let class = model.program.classes.get(&root.class);
    let forward = class.and_then(|(_, class)| class.methods.iter().find(|method| method.name == "forward"));
    let Some(forward) = forward else { return Err(Error::new(format!("{} has no forward", root.class))) };
    let mut args = Vec::new();
    let mut problems = Vec::new();
    for (index, param) in forward.params.iter().skip(1).enumerate() {
        if param.kind != "Tensor" {
            if param.default.is_some() {
                break;
            }
            let message = format!("the input {} is of the type {}", param.name, param.kind);
            let hint = "Trace the network with tensors alone: torch.jit.trace(model.eval(), inputs).";
            problems.push(Problem::new(message).hint(hint));
            continue;
        }
        let traced = model.traced.get(index);
        let given = source.input_shapes.get(index).map(Vec::as_slice);
        let Some(shape) = shape(given, traced.map(|(_, shape)| shape.as_slice()), volumes) else {
            let message = format!("the shape of the input {} is not known: the script does not tell it", param.name);
            problems.push(Problem::new(message).hint("Give it with --inputShape, such as --inputShape 3,224,224."));
            continue;
        };
        let dtype = match traced {
            Some((dtype, _)) => *dtype,
            None if whole.contains(&index) => DType::Int64,
            None => DType::Float32,
        };
        args.push(Value::Tensor(lower.input(&param.name, dtype, shape)?));
    }
    Error::collect(problems)?;
    Ok(args)
}

/// A shape with a free batch. Given sizes may have the batch or not; -1 is free as well.
fn shape(given: Option<&[i64]>, traced: Option<&[usize]>, volumes: bool) -> Option<Shape> {
    let rank = traced.map(<[usize]>::len);
    let dim = |(axis, size): (usize, i64)| match usize::try_from(size) {
        Ok(size) => Dim::Known(size),
        Err(_) if axis == 0 => Dim::symbol("N"),
        Err(_) => Dim::symbol(&format!("D{axis}")),
    };
    match (given, traced) {
        (Some(given), _) => {
            // Images and volumes with their batch have four and five sizes.
            let has_batch = rank.map_or(given.len() >= IMAGE + usize::from(volumes), |rank| given.len() == rank);
            let batch = if has_batch { None } else { Some(-1) };
            Some(batch.into_iter().chain(given.iter().copied()).enumerate().map(dim).collect())
        }
        (None, Some(sizes)) => {
            let rest = sizes.iter().skip(1).map(|&size| Dim::Known(size));
            Some(sizes.first().map(|_| Dim::symbol("N")).into_iter().chain(rest).collect())
        }
        (None, None) => None,
    }
}

/// The names of what forward gives back, where the code has any: those of the variables in its last statement.
fn output_names(program: &Program, class: &str) -> Vec<String> {
    let forward = program.classes.get(class).and_then(|(_, class)| class.methods.iter().find(|m| m.name == "forward"));
    let Some(StmtKind::Return(Some(Expr::Tuple(items)))) = forward.and_then(|f| f.body.last()).map(|last| &last.kind)
    else {
        return Vec::new();
    };
    let name = |item: &Expr| match item {
        Expr::Name(name) => name.clone(),
        _ => String::new(),
    };
    items.iter().map(name).collect()
}

fn name_outputs(result: &Value, path: &str, names: &[String], outputs: &mut Vec<(String, Arg)>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}_{name}") };
    match result {
        Value::Tensor(arg) => {
            let name = if path.is_empty() { "output" } else { path };
            outputs.push((name.to_owned(), arg.clone()));
        }
        Value::List(_) | Value::Tuple(_) => {
            for (index, item) in result.items().unwrap_or_default().iter().enumerate() {
                // Names that the printer made up say nothing.
                let name = names.get(index).filter(|name| !name.is_empty() && !name.starts_with('_'));
                let name = name.cloned().unwrap_or_else(|| format!("output_{index}"));
                name_outputs(item, &below(&name), &[], outputs);
            }
        }
        Value::Dict(items) => {
            for (key, item) in items.borrow().iter() {
                let name = match key {
                    Value::Str(name) => name.to_string(),
                    other => other.describe(),
                };
                name_outputs(item, &below(&name), &[], outputs);
            }
        }
        _ => {}
    }
}

/// What stopped the code, and every operator of it that has no translation.
fn problems(program: &Program, stop: Stop) -> Error {
    let mut error = stop.error.unwrap_or_else(|| Error::new(stop.message));
    if let Some((file, line)) = &stop.place {
        for problem in &mut error.problems {
            problem.message.push_str(&format!(" ({file}, line {line})"));
        }
    }
    if stop.unsupported {
        let mut unknown = std::collections::BTreeSet::new();
        let functions = program.functions.values().map(|(_, function)| function);
        let methods = program.classes.values().flat_map(|(_, class)| &class.methods);
        // What stands in a branch may never run.
        for function in functions.chain(methods).filter(|function| is_straight(&function.body)) {
            statements(&function.body, &mut unknown);
        }
        let named: Vec<String> = error.problems.iter().filter_map(|problem| problem.op.clone()).collect();
        for op in unknown.into_iter().filter(|op| !named.iter().any(|known| known.ends_with(op.as_str()))) {
            error.problems.push(ops::unsupported(&format!("aten.{op}")));
        }
    }
    error
}

fn is_straight(body: &[Stmt]) -> bool {
    !body.iter().any(|stmt| matches!(stmt.kind, StmtKind::If(..) | StmtKind::For(..) | StmtKind::While(..)))
}

/// Collects the operators in a body without branches that have no translation.
fn statements(body: &[Stmt], unknown: &mut std::collections::BTreeSet<String>) {
    for stmt in body {
        match &stmt.kind {
            StmtKind::Assign(_, value) | StmtKind::Update(_, _, value) | StmtKind::Expr(value) => calls(value, unknown),
            StmtKind::Return(value) => value.iter().for_each(|value| calls(value, unknown)),
            _ => {}
        }
    }
}

fn calls(expr: &Expr, unknown: &mut std::collections::BTreeSet<String>) {
    match expr {
        Expr::Call(callee, args, kwargs) => {
            // `torch.cdist`, and operators of libraries: `ops.torchvision.nms`.
            let named = |path: &str| -> Option<String> {
                let op = path.strip_prefix("torch.").or_else(|| path.strip_prefix("ops."))?;
                (!op.starts_with("prim.") && !PLAIN.contains(&op) && !QUERIES.contains(&op)).then(|| op.to_owned())
            };
            let path = callee.path();
            let op = path.as_deref().and_then(named).filter(|op| !ops::is_supported(op));
            unknown.extend(op);
            calls(callee, unknown);
            args.iter().chain(kwargs.iter().map(|(_, value)| value)).for_each(|arg| calls(arg, unknown));
        }
        Expr::Attr(of, _) | Expr::Unary(_, of) => calls(of, unknown),
        Expr::Index(a, b) | Expr::Binary(_, a, b) => {
            calls(a, unknown);
            calls(b, unknown);
        }
        Expr::List(items) | Expr::Tuple(items) => items.iter().for_each(|item| calls(item, unknown)),
        _ => {}
    }
}

/// Items that an argument of an operator may have, in all its lists.
const MAX_ITEMS: usize = 1 << 20;

/// The graph that following the code makes.
struct Followed<'a> {
    model: &'a Model,
    lower: Lower,
    /// Attributes of the modules as they are now.
    fields: Vec<indexmap::IndexMap<String, Value>>,
    training: bool,
    /// Whether weights are among the constants.
    frozen: bool,
    inputs: Vec<Value>,
    /// Inputs of which it has shown that they are whole numbers.
    whole: Vec<usize>,
}

impl Followed<'_> {
    fn arg(value: &Value) -> std::result::Result<Arg, Stop> {
        Self::arg_within(value, &mut { MAX_ITEMS })
    }

    /// Lists may share what is in them, again and again: `left` items may still come.
    fn arg_within(value: &Value, left: &mut usize) -> std::result::Result<Arg, Stop> {
        *left = left.checked_sub(1).ok_or_else(|| format!("an argument of more than {MAX_ITEMS} items"))?;
        Ok(match value {
            Value::None => Arg::None,
            Value::Bool(value) => Arg::Bool(*value),
            Value::Int(value) => Arg::Int(Elem::Int(*value)),
            Value::Size(elem) => Arg::Int(elem.clone()),
            Value::Float(value) => Arg::Float(*value),
            Value::Str(text) => Arg::Str(text.as_ref().into()),
            Value::Tensor(arg) => arg.clone(),
            Value::List(_) | Value::Tuple(_) => {
                let items = value.items().unwrap_or_default();
                Arg::List(items.iter().map(|item| Self::arg_within(item, left)).collect::<std::result::Result<_, _>>()?)
            }
            other => return Err(format!("{} is no argument of an operator", other.describe()).into()),
        })
    }

    fn value(arg: Arg) -> Value {
        match arg {
            Arg::None => Value::None,
            Arg::Bool(value) => Value::Bool(value),
            Arg::Int(elem) => elem.into(),
            Arg::Float(value) => Value::Float(value),
            Arg::Str(text) => Value::text(&text),
            Arg::DType(dtype) => scalar_type(dtype).map_or(Value::None, Value::Int),
            Arg::List(items) => Value::list(items.into_iter().map(Self::value).collect()),
            tensor => Value::Tensor(tensor),
        }
    }

    /// What can be said of a tensor without computing.
    fn query(&mut self, op: &str, arg: &Arg, rest: &[Value]) -> Option<std::result::Result<Value, Stop>> {
        let (dtype, shape) = self.lower.info(arg)?;
        let mut size = |axis: usize| -> Value {
            match arg {
                Arg::Tensor(value) => self.lower.size(*value, axis).into(),
                _ => shape.get(axis).and_then(Dim::known).map_or(Value::None, |size| Value::Int(size as i64)),
            }
        };
        Some(Ok(match (op, rest) {
            ("dim" | "ndimension" | "ndim", []) => Value::Int(shape.rank() as i64),
            ("size" | "shape", []) => Value::list((0..shape.rank()).map(size).collect()),
            ("size", [axis]) => {
                let axis = axis.int()?;
                let place = if axis < 0 { axis + shape.rank() as i64 } else { axis };
                match usize::try_from(place).ok().filter(|&place| place < shape.rank()) {
                    Some(place) => size(place),
                    None => return Some(Err(format!("axis {axis} does not exist in {shape}").into())),
                }
            }
            ("len", []) if shape.rank() > 0 => size(0),
            ("numel", []) => {
                let sizes: Vec<Value> = (0..shape.rank()).map(size).collect();
                let product = sizes.iter().try_fold(Value::Int(1), |product, size| {
                    scalar::evaluate(&mut self.lower.expressions, "mul", &[product, size.clone()])?.ok()
                });
                product?
            }
            ("dtype", []) => Value::Int(scalar_type(dtype)?),
            ("is_floating_point", []) => Value::Bool(dtype.is_float()),
            (
                "is_complex" | "is_cuda" | "is_nested" | "requires_grad" | "is_quantized" | "is_sparse" | "is_mkldnn",
                [],
            ) => Value::Bool(false),
            ("device" | "get_device", []) => Value::text("cpu"),
            ("layout", []) => Value::None,
            ("is_contiguous", _) => Value::Bool(true),
            ("detach" | "data" | "contiguous" | "clone" | "cpu" | "cuda" | "requires_grad_" | "implicit", _)
                if op != "clone" =>
            {
                Value::Tensor(arg.clone())
            }
            _ => return None,
        }))
    }
}

/// c10's `ScalarType`.
fn scalar_type(dtype: DType) -> Option<i64> {
    Some(match dtype {
        DType::UInt8 => 0,
        DType::Int8 => 1,
        DType::Int16 => 2,
        DType::Int32 => 3,
        DType::Int64 => 4,
        DType::Float16 => 5,
        DType::Float32 => 6,
        DType::Float64 => 7,
        DType::Bool => 11,
        DType::BFloat16 => 15,
        _ => return None,
    })
}

/// The element type of a `ScalarType`.
fn dtype_of(code: i64) -> Option<DType> {
    DType::ALL.into_iter().find(|dtype| scalar_type(*dtype) == Some(code))
}

/// The arguments of an operator with types instead of their codes: code has integers for both.
fn with_dtypes(op: &str, args: &mut [Arg], kwargs: &mut [(&str, Arg)]) {
    let typed = |arg: &mut Arg| {
        if let Some(dtype) = arg.int().filter(|_| matches!(arg, Arg::Int(_))).and_then(dtype_of) {
            *arg = Arg::DType(dtype);
        }
    };
    if let Some((_, arg)) = kwargs.iter_mut().find(|(name, _)| *name == "dtype") {
        typed(arg);
    }
    if op == "to" {
        if let Some(arg) = args.iter_mut().skip(1).take(2).find(|arg| matches!(arg, Arg::Int(_))) {
            typed(arg);
        }
        return;
    }
    let Some((entry, _)) = ops::find(op) else { return };
    let names = entry.schema.split(',').map(|param| param.trim().split(['=', ' ']).next().unwrap_or(""));
    if let Some(arg) = names.into_iter().position(|name| name == "dtype").and_then(|place| args.get_mut(place)) {
        typed(arg);
    }
}

/// The number that a tensor of one element is, where it is known.
fn known_number(op: &str, tensor: &Arg) -> Option<Value> {
    match op {
        "Bool" => tensor.float().map(|value| Value::Bool(value != 0.0)),
        "Int" | "IntImplicit" => tensor.int().map(Value::Int),
        "Float" | "FloatImplicit" => tensor.float().map(Value::Float),
        _ => tensor.int().map(Value::Int).or(tensor.float().map(Value::Float)),
    }
}

impl Torch for Followed<'_> {
    fn call(&mut self, op: &str, args: &[Value], kwargs: &[(String, Value)]) -> std::result::Result<Value, Stop> {
        if let Some((Value::Tensor(arg), rest)) = args.split_first() {
            let current = self.lower.current(arg)?;
            if (QUERIES.contains(&op) || !ops::is_supported(op) || op == "contiguous" || op == "detach")
                && let Some(result) = self.query(op, &current, rest)
            {
                return result;
            }
        }
        let mut list = args.iter().map(Self::arg).collect::<std::result::Result<Vec<Arg>, Stop>>()?;
        let mut named = kwargs
            .iter()
            .map(|(name, value)| Ok((name.as_str(), Self::arg(value)?)))
            .collect::<std::result::Result<Vec<(&str, Arg)>, Stop>>()?;
        with_dtypes(op, &mut list, &mut named);
        match (op, list.as_slice()) {
            (
                "is_autocast_enabled" | "is_autocast_cpu_enabled" | "is_grad_enabled" | "is_scripting" | "is_tracing",
                _,
            ) => {
                return Ok(Value::Bool(false));
            }
            ("Bool" | "Int" | "Float" | "item" | "ScalarImplicit" | "IntImplicit" | "FloatImplicit", [tensor]) => {
                return known_number(op, tensor).ok_or_else(|| Stop::from(format!("{op} of a tensor: {UNKNOWN}")));
            }
            _ => {}
        }
        // An index that is an input shows that the input has whole numbers.
        if let ("embedding" | "one_hot" | "index_select" | "gather" | "embedding_bag", [_, rest @ ..]) = (op, args) {
            let is = |arg: &Value| match arg {
                Value::Tensor(Arg::Tensor(value)) => self
                    .inputs
                    .iter()
                    .position(|input| matches!(input, Value::Tensor(Arg::Tensor(input)) if input == value)),
                _ => None,
            };
            let real = |index: &usize| match self.inputs.get(*index) {
                Some(Value::Tensor(arg)) => self.lower.info(arg).is_some_and(|(dtype, _)| dtype.is_float()),
                _ => false,
            };
            let found: Vec<usize> = rest.iter().filter_map(is).filter(real).collect();
            if !found.is_empty() {
                self.whole.extend(found);
                return Err(Stop::from("an index is a real number".to_owned()));
            }
        }
        if !ops::is_supported(op) {
            let mut stop = Stop::from(String::new());
            let name = self.lower.path().to_owned();
            let name = if name.is_empty() { "forward".to_owned() } else { name };
            stop.error = Some(ops::unsupported(&format!("aten.{op}")).node(name).into());
            stop.unsupported = true;
            return Err(stop);
        }
        Ok(Self::value(self.lower.call(op, &list, &named)?))
    }

    fn attribute(&mut self, object: usize, name: &str) -> std::result::Result<Value, Stop> {
        if name == "training" {
            return Ok(Value::Bool(self.training));
        }
        let value = self.fields.get(object).and_then(|fields| fields.get(name)).cloned();
        value.ok_or_else(|| {
            let class = self.class(object);
            format!("{class} has no attribute {name}").into()
        })
    }

    fn set_attribute(&mut self, object: usize, name: &str, value: Value) {
        if let Some(fields) = self.fields.get_mut(object) {
            fields.insert(name.to_owned(), value);
        }
    }

    fn class(&self, object: usize) -> String {
        self.model.instances.get(object).map(|instance| instance.class.clone()).unwrap_or_default()
    }

    fn constant(&mut self, name: &str) -> std::result::Result<Value, Stop> {
        let index = name.strip_prefix('c').and_then(|index| index.parse::<usize>().ok());
        let value = index.and_then(|index| self.model.constants.get(index)).cloned();
        // A frozen network has its weights here; in others what is computed with has no key.
        if let Some(Value::Tensor(Arg::Weight(weight))) = &value
            && (!self.frozen || !weight.tensor.dtype().is_float())
        {
            let name = keyless(&weight.name).into();
            return Ok(Value::Tensor(Weight { name, trainable: false, ..weight.clone() }.into()));
        }
        value.ok_or_else(|| format!("the constant {name} is missing").into())
    }

    fn sizes(&mut self) -> &mut Expressions {
        &mut self.lower.expressions
    }

    fn enter(&mut self, object: usize) {
        let (path, class) = match self.model.instances.get(object) {
            Some(instance) => (instance.path.clone(), model::short(&instance.class).to_owned()),
            None => Default::default(),
        };
        self.lower.enter_path(&path, &class);
    }

    fn exit(&mut self) {
        self.lower.exit();
    }
}
