//! Follows the code of a TorchScript module: what it computes with plain data happens here, what it does with tensors
//! goes to [`Torch`]. Conditions must be known; what is asserted holds.

use std::collections::HashMap;
use std::rc::Rc;

use indexmap::IndexMap;

use super::ast::{Class, Expr, Function, Param, Stmt, StmtKind};
use super::scalar;
use super::value::Value;
use crate::symbolic::Expressions;

/// Deepest nesting of calls.
const MAX_CALLS: usize = 120;
/// Statements that are followed before the code is given up: a network has some thousand.
const MAX_STEPS: usize = 2_000_000;

/// What the interpreter needs of the graph that is made.
pub trait Torch {
    /// An operator of ATEN (`conv2d`, `add_`) on tensors and plain values.
    ///
    /// # Errors
    /// One sentence.
    fn call(&mut self, op: &str, args: &[Value], kwargs: &[(String, Value)]) -> Result<Value, Stop>;

    /// An attribute of a module: a weight becomes a constant of the graph.
    ///
    /// # Errors
    /// When there is none of this name, or it can't be read.
    fn attribute(&mut self, object: usize, name: &str) -> Result<Value, Stop>;

    /// Gives a module's attribute a value.
    fn set_attribute(&mut self, object: usize, name: &str, value: Value);

    /// The full name of an object's class.
    fn class(&self, object: usize) -> String;

    /// A number of `CONSTANTS`.
    ///
    /// # Errors
    /// When there is none of this name, or it can't be read.
    fn constant(&mut self, name: &str) -> Result<Value, Stop>;

    /// What is known of sizes.
    fn sizes(&mut self) -> &mut Expressions;

    /// The forward of a module begins.
    fn enter(&mut self, object: usize);

    /// And ends.
    fn exit(&mut self);
}

/// Functions and classes by their full names, `__torch__` included.
#[derive(Debug, Default)]
pub struct Program {
    /// Functions, with the file that each is in.
    pub functions: HashMap<String, (String, Function)>,
    /// Classes, with the file that each is in.
    pub classes: HashMap<String, (String, Class)>,
}

/// Why following the code ended.
enum Flow {
    /// It goes on with the next statement.
    Next,
    Break,
    Continue,
    Return(Value),
}

/// What went wrong: an error with its place, or an exception that the code itself raises.
#[derive(Debug)]
pub struct Stop {
    /// One sentence.
    pub message: String,
    /// File and line.
    pub place: Option<(String, usize)>,
    /// What an operator says instead.
    pub error: Option<modelport_ir::Error>,
    /// Whether an operator has no translation.
    pub unsupported: bool,
}

impl From<String> for Stop {
    fn from(message: String) -> Self {
        Stop { message, place: None, error: None, unsupported: false }
    }
}

impl From<modelport_ir::Error> for Stop {
    fn from(error: modelport_ir::Error) -> Self {
        Stop { error: Some(error), ..Stop::from(String::new()) }
    }
}

type Run<T> = Result<T, Stop>;

/// Follows code.
pub struct Interpreter<'a, T: Torch> {
    program: &'a Program,
    /// The graph.
    pub torch: T,
    depth: usize,
    steps: usize,
}

type Frame = HashMap<String, Value>;

impl<'a, T: Torch> Interpreter<'a, T> {
    /// Starts.
    pub fn new(program: &'a Program, torch: T) -> Self {
        Interpreter { program, torch, depth: 0, steps: 0 }
    }

    /// Calls a method of an object.
    ///
    /// # Errors
    /// What can't be followed, and where it is.
    pub fn method(&mut self, object: usize, name: &str, args: Vec<Value>, kwargs: Vec<(String, Value)>) -> Run<Value> {
        let class = self.torch.class(object);
        let Some((file, method)) = self.find_method(&class, name) else {
            return Err(format!("{class} has no method {name}").into());
        };
        let mut all = vec![Value::Object(object)];
        all.extend(args);
        // `forward1` and so on are further traces of one forward, `forward__1` its overloads.
        let number = name.strip_prefix("forward").map(|rest| rest.trim_start_matches("__"));
        let is_forward = number.is_some_and(|number| number.chars().all(|c| c.is_ascii_digit()));
        if is_forward {
            self.torch.enter(object);
        }
        let result = self.call(file, method, all, kwargs);
        if is_forward {
            self.torch.exit();
        }
        result
    }

    fn find_method(&self, class: &str, name: &str) -> Option<(&'a str, &'a Function)> {
        let (file, class) = self.program.classes.get(class)?;
        class.methods.iter().find(|method| method.name == name).map(|method| (file.as_str(), method))
    }

    fn call(
        &mut self,
        file: &'a str,
        function: &'a Function,
        args: Vec<Value>,
        kwargs: Vec<(String, Value)>,
    ) -> Run<Value> {
        if self.depth >= MAX_CALLS {
            return Err(format!("calls nest deeper than {MAX_CALLS}").into());
        }
        let mut frame = self.bind(&function.name, &function.params, args, kwargs)?;
        self.depth += 1;
        let result = self.block(file, &function.body, &mut frame);
        self.depth -= 1;
        Ok(match result? {
            Flow::Return(value) => value,
            _ => Value::None,
        })
    }

    fn bind(&mut self, name: &str, params: &'a [Param], args: Vec<Value>, kwargs: Vec<(String, Value)>) -> Run<Frame> {
        if args.len() > params.len() {
            return Err(format!("{name} takes {} arguments, not {}", params.len(), args.len()).into());
        }
        let mut frame: Frame = params.iter().zip(args).map(|(param, arg)| (param.name.clone(), arg)).collect();
        frame.extend(kwargs);
        for param in params {
            if frame.contains_key(&param.name) {
                continue;
            }
            let Some(default) = &param.default else {
                return Err(format!("{name} is called without its argument {}", param.name).into());
            };
            let value = self.expr(default, &Frame::new())?;
            frame.insert(param.name.clone(), value);
        }
        Ok(frame)
    }

    fn block(&mut self, file: &'a str, body: &'a [Stmt], frame: &mut Frame) -> Run<Flow> {
        for stmt in body {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return Err(format!("the code runs for more than {MAX_STEPS} statements").into());
            }
            let flow = self.statement(file, stmt, frame).map_err(|mut stop| {
                stop.place.get_or_insert_with(|| (file.to_owned(), stmt.line));
                stop
            })?;
            if !matches!(flow, Flow::Next) {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&mut self, file: &'a str, stmt: &'a Stmt, frame: &mut Frame) -> Run<Flow> {
        match &stmt.kind {
            StmtKind::Assign(targets, value) => {
                let value = self.expr(value, frame)?;
                for target in targets {
                    self.assign(target, value.clone(), frame)?;
                }
            }
            StmtKind::Update(target, op, value) => {
                let (old, value) = (self.expr(target, frame)?, self.expr(value, frame)?);
                let new = self.operator(function_of(op), &[old, value], &[])?;
                self.assign(target, new, frame)?;
            }
            StmtKind::Expr(value) => {
                self.expr(value, frame)?;
            }
            StmtKind::Return(value) => {
                let value = value.as_ref().map_or(Ok(Value::None), |value| self.expr(value, frame))?;
                return Ok(Flow::Return(value));
            }
            StmtKind::If(condition, then, other) => {
                let body = match self.condition(condition, frame) {
                    Ok(Some(true)) => then,
                    Ok(Some(false)) => other,
                    // What is asserted holds.
                    Ok(None) if raises(then) => other,
                    Ok(None) if raises(other) => then,
                    Ok(None) => return Err(undecided(condition).into()),
                    Err(_) if raises(then) => other,
                    Err(_) if raises(other) => then,
                    Err(stop) => return Err(stop),
                };
                return self.block(file, body, frame);
            }
            StmtKind::For(target, over, body) => {
                let over = self.expr(over, frame)?;
                let items = match over {
                    Value::Dict(items) => items.borrow().iter().map(|(key, _)| key.clone()).collect(),
                    Value::Size(size) => {
                        return Err(
                            format!("a loop runs {size} times, which is not known before the network runs").into()
                        );
                    }
                    over => over.items().ok_or_else(|| format!("{} can't be looped over", over.describe()))?,
                };
                for item in items {
                    self.assign(target, item, frame)?;
                    match self.block(file, body, frame)? {
                        Flow::Next | Flow::Continue => {}
                        Flow::Break => break,
                        flow => return Ok(flow),
                    }
                }
            }
            StmtKind::While(condition, body) => loop {
                match self.condition(condition, frame)? {
                    Some(true) => {}
                    Some(false) => break,
                    None => return Err(undecided(condition).into()),
                }
                match self.block(file, body, frame)? {
                    Flow::Next | Flow::Continue => {}
                    Flow::Break => break,
                    flow => return Ok(flow),
                }
                self.steps += 1;
                if self.steps > MAX_STEPS {
                    return Err(format!("the code runs for more than {MAX_STEPS} statements").into());
                }
            },
            StmtKind::Break => return Ok(Flow::Break),
            StmtKind::Continue => return Ok(Flow::Continue),
            StmtKind::Pass => {}
        }
        Ok(Flow::Next)
    }

    fn condition(&mut self, condition: &'a Expr, frame: &Frame) -> Run<Option<bool>> {
        Ok(self.expr(condition, frame)?.truth())
    }

    fn assign(&mut self, target: &'a Expr, value: Value, frame: &mut Frame) -> Run<()> {
        match target {
            Expr::Name(name) => {
                frame.insert(name.clone(), value);
            }
            Expr::Tuple(targets) | Expr::List(targets) => {
                let items = value.items().ok_or_else(|| format!("{} can't be unpacked", value.describe()))?;
                if items.len() != targets.len() {
                    return Err(format!("{} values for {} names", items.len(), targets.len()).into());
                }
                for (target, item) in targets.iter().zip(items) {
                    self.assign(target, item, frame)?;
                }
            }
            Expr::Attr(of, name) => match self.expr(of, frame)? {
                Value::Object(object) => self.torch.set_attribute(object, name, value),
                other => return Err(format!("{} has no attributes", other.describe()).into()),
            },
            Expr::Index(of, at) => {
                let (of, at) = (self.expr(of, frame)?, self.expr(at, frame)?);
                self.operator("_set_item", &[of, at, value], &[])?;
            }
            other => return Err(format!("{} can't be assigned to", other.shown()).into()),
        }
        Ok(())
    }

    fn expr(&mut self, expr: &'a Expr, frame: &Frame) -> Run<Value> {
        Ok(match expr {
            Expr::None => Value::None,
            Expr::Bool(value) => Value::Bool(*value),
            Expr::Int(value) => Value::Int(*value),
            Expr::Float(value) => Value::Float(*value),
            Expr::Str(value) => Value::text(value),
            Expr::Name(name) => match frame.get(name) {
                // What has no value may be given on, as long as nothing is made of it.
                Some(value) => value.clone(),
                None => return Err(format!("{name} has no value here").into()),
            },
            Expr::List(items) => Value::list(self.all(items, frame)?),
            Expr::Tuple(items) => Value::tuple(self.all(items, frame)?),
            Expr::Dict(items) => {
                let mut entries = Vec::with_capacity(items.len());
                for (key, value) in items {
                    entries.push((self.expr(key, frame)?, self.expr(value, frame)?));
                }
                Value::Dict(Rc::new(entries.into()))
            }
            Expr::Unary("not", of) => {
                let of = self.expr(of, frame)?;
                self.operator("__not__", &[of], &[])?
            }
            Expr::Unary("-", of) => {
                let of = self.expr(of, frame)?;
                self.operator("neg", &[of], &[])?
            }
            Expr::Unary("+", of) => self.expr(of, frame)?,
            Expr::Unary(op, of) => return Err(format!("{op} of {} can't be followed", of.shown()).into()),
            Expr::Binary("and", a, b) => match self.condition(a, frame)? {
                Some(true) => self.expr(b, frame)?,
                Some(false) => Value::Bool(false),
                None => return Err(undecided(a).into()),
            },
            Expr::Binary("or", a, b) => match self.condition(a, frame)? {
                Some(true) => Value::Bool(true),
                Some(false) => self.expr(b, frame)?,
                None => return Err(undecided(a).into()),
            },
            Expr::Binary("in", a, b) => {
                let (a, b) = (self.expr(a, frame)?, self.expr(b, frame)?);
                self.operator("__contains__", &[b, a], &[])?
            }
            Expr::Binary("not in", a, b) => {
                let (a, b) = (self.expr(a, frame)?, self.expr(b, frame)?);
                let inside = self.operator("__contains__", &[b, a], &[])?;
                self.operator("__not__", &[inside], &[])?
            }
            Expr::Binary(op, a, b) => {
                let (a, b) = (self.expr(a, frame)?, self.expr(b, frame)?);
                self.operator(function_of(op), &[a, b], &[])?
            }
            Expr::Choice(condition, then, other) => match self.condition(condition, frame)? {
                Some(true) => self.expr(then, frame)?,
                Some(false) => self.expr(other, frame)?,
                None => return Err(undecided(condition).into()),
            },
            Expr::Index(of, at) => {
                let (of, at) = (self.expr(of, frame)?, self.expr(at, frame)?);
                match of {
                    Value::Tensor(_) => self.operator("select", &[of, Value::Int(0), at], &[])?,
                    of => scalar::item(&of, &at)?,
                }
            }
            Expr::Slice(of, from, to) => {
                let of = self.expr(of, frame)?;
                let mut bound =
                    |expr: &'a Option<Box<Expr>>| expr.as_ref().map_or(Ok(Value::None), |expr| self.expr(expr, frame));
                let (from, to) = (bound(from)?, bound(to)?);
                match of {
                    Value::Tensor(_) => self.operator("slice", &[of, Value::Int(0), from, to, Value::Int(1)], &[])?,
                    of => self.operator("slice", &[of, from, to, Value::Int(1)], &[])?,
                }
            }
            Expr::Attr(of, name) => self.attribute(expr, of, name, frame)?,
            Expr::Call(callee, args, kwargs) => self.call_expr(callee, args, kwargs, frame)?,
        })
    }

    fn all(&mut self, items: &'a [Expr], frame: &Frame) -> Run<Vec<Value>> {
        items.iter().map(|item| self.expr(item, frame)).collect()
    }

    fn attribute(&mut self, whole: &Expr, of: &'a Expr, name: &'a str, frame: &Frame) -> Run<Value> {
        if let Expr::Name(root) = of
            && root == "CONSTANTS"
            && !frame.contains_key(root)
        {
            return self.torch.constant(name);
        }
        if let Some(path) = whole.path().filter(|path| path.starts_with("__torch__.")) {
            return Ok(Value::Function(path.into()));
        }
        match self.expr(of, frame)? {
            Value::Object(object) => {
                let class = self.torch.class(object);
                if self.find_method(&class, name).is_some() {
                    return Ok(Value::Method(object, name.into()));
                }
                self.torch.attribute(object, name)
            }
            // Fields of named tuples, and of tensors.
            value @ Value::Tensor(_) => self.operator(name, &[value], &[]),
            Value::Dict(items) => Ok(scalar::item(&Value::Dict(items), &Value::text(name))?),
            other => Err(format!("{} has no attribute {name}", other.describe()).into()),
        }
    }

    fn call_expr(
        &mut self,
        callee: &'a Expr,
        args: &'a [Expr],
        kwargs: &'a [(String, Expr)],
        frame: &Frame,
    ) -> Run<Value> {
        let path = callee.path().filter(|path| !frame.contains_key(path.split('.').next().unwrap_or_default()));
        // Types are no values.
        match (path.as_deref(), args) {
            (Some("annotate" | "unchecked_cast"), [_, value]) => return self.expr(value, frame),
            (Some("uninitialized"), _) => return Ok(Value::Uninitialized),
            (Some("isinstance"), [value, kind]) => {
                let value = self.expr(value, frame)?;
                return is_instance(&value, kind).map(Value::Bool).ok_or_else(|| {
                    Stop::from(format!("whether {} is a {} can't be told", value.describe(), kind.shown()))
                });
            }
            _ => {}
        }
        if path.as_deref() == Some("ops.prim.RaiseException") {
            let message = args.first().map(|message| self.expr(message, frame));
            let message = match message {
                Some(Ok(Value::Str(text))) => text.to_string(),
                _ => args.first().map(Expr::shown).unwrap_or_default(),
            };
            return Err(format!("the code raises an exception: {message}").into());
        }
        let values = self.all(args, frame)?;
        let named: Vec<(String, Value)> =
            kwargs.iter().map(|(name, value)| Ok((name.clone(), self.expr(value, frame)?))).collect::<Run<_>>()?;
        let Some(path) = path else {
            return match callee {
                Expr::Attr(of, method) => match self.expr(of, frame)? {
                    Value::Object(object) => self.method(object, method, values, named),
                    of => {
                        let args: Vec<Value> = std::iter::once(of).chain(values).collect();
                        self.operator(method, &args, &named)
                    }
                },
                callee => match self.expr(callee, frame)? {
                    Value::Function(name) => self.function(&name, values, named),
                    Value::Method(object, name) => self.method(object, &name, values, named),
                    Value::Object(object) => self.method(object, "forward", values, named),
                    other => Err(format!("{} can't be called", other.describe()).into()),
                },
            };
        };
        if path.starts_with("__torch__.") {
            return self.function(&path, values, named);
        }
        match (path.as_str(), values.as_slice()) {
            ("getattr", [Value::Object(object), Value::Str(name)]) => self.torch.attribute(*object, name),
            ("range", values) => self.range(values),
            ("int", [_]) => self.operator("Int", &values, &[]),
            ("float", [_]) => self.operator("Float", &values, &[]),
            ("bool", [_]) => self.operator("Bool", &values, &[]),
            ("str", [value]) => Ok(Value::text(&value.describe())),
            ("print", _) => Ok(Value::None),
            (path, _) => {
                let op = ["torch.", "ops.prim.", "ops.aten.", "ops."].iter().find_map(|p| path.strip_prefix(p));
                self.operator(op.unwrap_or(path), &values, &named)
            }
        }
    }

    fn range(&mut self, values: &[Value]) -> Run<Value> {
        let bounds: Option<Vec<i64>> = values.iter().map(Value::int).collect();
        let (from, to, step) = match bounds.as_deref() {
            Some(&[to]) => (0, to, 1),
            Some(&[from, to]) => (from, to, 1),
            Some(&[from, to, step]) if step != 0 => (from, to, step),
            _ => {
                let free = values.iter().find(|value| value.int().is_none());
                let what = free.map_or_else(String::new, Value::describe);
                return Err(format!("a loop runs to {what}, which is not known before the network runs").into());
            }
        };
        let span = if step > 0 { to.saturating_sub(from) } else { from.saturating_sub(to) };
        let length = (span.max(0) as u64).div_ceil(step.unsigned_abs());
        if length > MAX_STEPS as u64 / 2 {
            return Err(format!("a loop runs {length} times").into());
        }
        Ok(Value::list((0..length as i64).map(|i| Value::Int(from + i * step)).collect()))
    }

    fn function(&mut self, name: &str, args: Vec<Value>, kwargs: Vec<(String, Value)>) -> Run<Value> {
        if let Some((file, function)) = self.program.functions.get(name) {
            return self.call(file, function, args, kwargs);
        }
        match self.program.classes.get(name) {
            Some((_, class)) if class.base == "NamedTuple" => {
                let mut fields: IndexMap<&str, Value> =
                    class.fields.iter().zip(args).map(|((name, _), value)| (name.as_str(), value)).collect();
                for (name, value) in &kwargs {
                    fields.insert(name, value.clone());
                }
                for (name, default) in &class.fields {
                    if let (false, Some(default)) = (fields.contains_key(name.as_str()), default) {
                        let value = self.expr(default, &Frame::new())?;
                        fields.insert(name, value);
                    }
                }
                let fields = fields.into_iter().map(|(name, value)| (Value::text(name), value)).collect::<Vec<_>>();
                Ok(Value::Dict(Rc::new(fields.into())))
            }
            Some(_) => Err(format!("{name} makes an object of a class while the network runs").into()),
            None => Err(format!("{name} is not in the file").into()),
        }
    }

    /// An operator: on plain data at once, else in the graph.
    fn operator(&mut self, op: &str, args: &[Value], kwargs: &[(String, Value)]) -> Run<Value> {
        if let Some(used) = args.iter().find(|arg| matches!(arg, Value::Uninitialized)) {
            return Err(format!("{op} uses {}", used.describe()).into());
        }
        if op == "format" || op == "warn" {
            return Ok(args.first().filter(|_| op == "format").cloned().unwrap_or(Value::None));
        }
        let plain = match args.iter().any(|arg| matches!(arg, Value::Tensor(_))) {
            true => match (op, args) {
                ("__is__" | "__isnot__" | "append" | "_set_item" | "insert", _) => {
                    scalar::evaluate(self.torch.sizes(), op, args)
                }
                _ => None,
            },
            false => scalar::evaluate(self.torch.sizes(), op, args),
        };
        match plain {
            Some(result) => Ok(result?),
            None => self.torch.call(op, args, kwargs),
        }
    }
}

fn undecided(condition: &Expr) -> String {
    format!("what the network does depends on {}, and it is not known before it runs", condition.shown())
}

/// Whether a block does nothing but raise an exception.
fn raises(body: &[Stmt]) -> bool {
    body.last().is_some_and(|last| match &last.kind {
        StmtKind::Expr(Expr::Call(callee, ..)) => callee.path().as_deref() == Some("ops.prim.RaiseException"),
        _ => false,
    })
}

/// The function that an operator sign stands for.
fn function_of(op: &str) -> &'static str {
    match op {
        "+" => "add",
        "-" => "sub",
        "*" => "mul",
        "/" => "div",
        "//" => "floordiv",
        "%" => "remainder",
        "**" => "pow",
        "@" => "matmul",
        "==" => "eq",
        "!=" => "ne",
        "<" => "lt",
        "<=" => "le",
        ">" => "gt",
        ">=" => "ge",
        "&" => "__and__",
        "|" => "__or__",
        "^" => "__xor__",
        "<<" => "__lshift__",
        ">>" => "__rshift__",
        "is" => "__is__",
        "is not" => "__isnot__",
        _ => "",
    }
}

/// Whether a value is of a type, where that can be told.
fn is_instance(value: &Value, kind: &Expr) -> Option<bool> {
    let kind = match kind {
        Expr::Tuple(kinds) | Expr::List(kinds) => {
            return kinds.iter().map(|kind| is_instance(value, kind)).try_fold(false, |any, is| Some(any || is?));
        }
        Expr::Index(of, _) => of.path()?,
        kind => kind.path()?,
    };
    Some(match (value, kind.as_str()) {
        (Value::None, kind) => kind == "NoneType",
        (Value::Bool(_), kind) => kind == "bool",
        (Value::Int(_) | Value::Size(_), kind) => matches!(kind, "int" | "number"),
        (Value::Float(_), kind) => matches!(kind, "float" | "number"),
        (Value::Str(_), kind) => kind == "str",
        (Value::List(_), kind) => kind == "List" || kind == "list",
        (Value::Tuple(_), kind) => kind == "Tuple" || kind == "tuple",
        (Value::Dict(_), kind) => kind == "Dict",
        (Value::Tensor(_), kind) => kind == "Tensor",
        _ => return None,
    })
}
