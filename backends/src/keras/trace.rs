//! Following the functions as Python would run them, to the model that they build.

use std::collections::{HashMap, HashSet};

use modelport_ir::{DType, Error, Graph, Result};
use serde_json::{Map, Value as Json, json};

use super::build::PARAMETER;
use super::functional::{Function, Statement};
use super::model::{Argument, Call, Layer, Model, TensorRef, batch_shape};
use super::operations::{operation, operator};
use super::pooling::AVERAGE_POOL;
use crate::plan::{Declared, Param, Program};
use crate::python::{Arg, Expr, Lit, identifier};

/// Deepest nesting of functions.
const DEPTH: usize = 64;

/// The model that `build()` returns, and which of its layers have names that Keras gives to other layers by itself.
///
/// # Errors
/// When the functions use what has no form in a model's files.
pub fn model(
    graph: &Graph,
    program: &Program,
    functions: &[Function],
    joint: &str,
) -> Result<(Model, HashSet<String>)> {
    let Some(root) = functions.last() else { return Err(Error::new("there is no network to build")) };
    let mut weights: HashMap<String, Vec<Param>> = HashMap::new();
    for param in &program.params {
        let (layer, key) = param.key.rsplit_once('.').unwrap_or(("", &param.key));
        weights.entry(layer.to_owned()).or_default().push(Param { key: key.to_owned(), ..param.clone() });
    }
    let classes = program.classes.iter().map(|class| class.name.as_str()).zip(functions).collect();
    let mut keys = HashMap::new();
    find_keys(&classes, root, joint, "", "", &mut keys);
    let mut tracer = Tracer {
        functions,
        keys,
        weights,
        model: Model::default(),
        names: HashSet::new(),
        automatic: HashSet::new(),
        depth: 0,
    };
    tracer.names.extend(tracer.keys.keys().cloned());
    let mut scope = HashMap::new();
    for (port, name) in graph.inputs.iter().zip(&root.inputs) {
        let info = graph.info(port.value);
        let mut config = Map::new();
        config.insert("batch_shape".to_owned(), batch_shape(&info.shape));
        config.insert("dtype".to_owned(), info.dtype.name().into());
        let layer = tracer.layer(input_name(name).to_owned(), "InputLayer", "keras.layers", config);
        let tensor = TensorRef { layer, node: 0, tensor: 0, shape: Some(info.shape.clone()), dtype: info.dtype };
        tracer.model.inputs.push(tensor.clone());
        scope.insert(name.clone(), Val::Tensor(tensor));
    }
    let results = tracer.run(root, scope, "").map_err(Error::new)?;
    for (result, port) in results.into_iter().zip(&graph.outputs) {
        match result {
            Val::Tensor(mut tensor) => {
                tensor.shape = Some(graph.shape(port.value).clone());
                tracer.model.outputs.push(tensor);
            }
            _ => return Err(Error::new(format!("output {} depends on no input: Keras has no such models", port.name))),
        }
    }
    tracer.model.name = root.name.clone();
    let taken = tracer.keys.keys().filter(|name| {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let stem = stem.strip_suffix('_').filter(|_| stem.len() < name.len());
        tracer.automatic.contains(*name) || stem.is_some_and(|stem| tracer.automatic.contains(stem))
    });
    let taken = taken.cloned().collect();
    Ok((tracer.model.ordered(), taken))
}

/// The name of an input's layer.
pub fn input_name(name: &str) -> &str {
    if name == "x" { "input" } else { name }
}

/// Whether two layers would have one name.
pub fn collide(program: &Program, functions: &[Function], joint: &str) -> bool {
    let Some(root) = functions.last() else { return false };
    let classes: HashMap<&str, &Function> =
        program.classes.iter().map(|class| class.name.as_str()).zip(functions).collect();
    let mut keys = HashMap::new();
    find_keys(&classes, root, joint, "", "", &mut keys);
    let distinct: HashSet<&String> = keys.values().collect();
    let layers = program.params.iter().filter_map(|param| param.key.rsplit_once('.'));
    layers.map(|(layer, _)| layer.to_owned()).any(|layer| !distinct.contains(&layer))
}

/// For every name of a layer its key in the plan.
fn find_keys(
    classes: &HashMap<&str, &Function>,
    function: &Function,
    joint: &str,
    key: &str,
    name: &str,
    keys: &mut HashMap<String, String>,
) {
    let below = |outer: &str, joint: &str, inner: &str| match outer {
        "" => inner.to_owned(),
        outer => format!("{outer}{joint}{inner}"),
    };
    for part in &function.parts {
        let (key, name) = (below(key, ".", &part.key), below(name, joint, &part.name));
        match part.class.as_ref().and_then(|class| classes.get(class.as_str())) {
            Some(function) => find_keys(classes, function, joint, &key, &name, keys),
            None => {
                keys.insert(name, key);
            }
        }
    }
}

/// What an expression gives.
#[derive(Clone, Debug)]
enum Val {
    Tensor(TensorRef),
    /// A list or tuple.
    List(Vec<Val>),
    /// A literal, as Python has it.
    Plain(Json),
    /// A number that JSON does not have, as Python reads it.
    Endless(&'static str),
    /// A tensor that was made without any input.
    Constant {
        shape: Vec<usize>,
        dtype: String,
        values: Vec<Json>,
    },
    /// A layer that is not called yet.
    Layer(usize),
}

type Scope = HashMap<String, Val>;
type Traced<T> = std::result::Result<T, String>;

struct Tracer<'a> {
    functions: &'a [Function],
    keys: HashMap<String, String>,
    weights: HashMap<String, Vec<Param>>,
    model: Model,
    names: HashSet<String>,
    /// Names that Keras gives by itself, without their numbers.
    automatic: HashSet<String>,
    depth: usize,
}

impl Tracer<'_> {
    fn run(&mut self, function: &Function, mut scope: Scope, name: &str) -> Traced<Vec<Val>> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err("functions are nested too deeply".to_owned());
        }
        scope.insert("name".to_owned(), Val::Plain(name.into()));
        for statement in &function.statements {
            match statement {
                Statement::Assign(targets, expr) => {
                    let result = self.eval(expr, &scope)?;
                    match (targets.as_slice(), result) {
                        ([target], result) => {
                            scope.insert(target.clone(), result);
                        }
                        (targets, Val::List(items)) => scope.extend(targets.iter().cloned().zip(items)),
                        (targets, Val::Tensor(tensor)) => {
                            let each = |i| Val::Tensor(TensorRef { tensor: i, shape: None, ..tensor.clone() });
                            scope.extend(targets.iter().cloned().zip((0..targets.len()).map(each)));
                        }
                        _ => return Err("a result can't be taken apart".to_owned()),
                    }
                }
                Statement::Loop { start, end, target, call } => {
                    for i in *start..*end {
                        scope.insert("i".to_owned(), Val::Plain(i.into()));
                        let result = self.eval(call, &scope)?;
                        scope.insert(target.clone(), result);
                    }
                }
            }
        }
        self.depth -= 1;
        function.result.iter().map(|expr| self.eval(expr, &scope)).collect()
    }

    fn eval(&mut self, expr: &Expr, scope: &Scope) -> Traced<Val> {
        Ok(match expr {
            Expr::Name(text) => name(text, scope)?,
            Expr::Slot(slot) => match &slot.value {
                Lit::Float(bits) if !f32::from_bits(*bits).is_finite() => Val::Endless(endless(f32::from_bits(*bits))),
                value => Val::Plain(literal(value)),
            },
            Expr::Tuple(items) | Expr::List(items) => {
                Val::List(items.iter().map(|item| self.eval(item, scope)).collect::<Traced<_>>()?)
            }
            Expr::Prefix(_, value) => match self.eval(value, scope)? {
                Val::Plain(number) => Val::Plain(number.as_f64().map_or(Json::Null, |n| json!(-n))),
                value => self.operate("Negative", "numpy", Map::new(), vec![value], Vec::new())?,
            },
            Expr::Binary(a, symbol, b) => {
                let (a, b) = (self.eval(a, scope)?, self.eval(b, scope)?);
                match (&a, &b) {
                    (Val::Plain(a), Val::Plain(b)) => Val::Plain(arithmetic(a, symbol, b)?),
                    _ => {
                        let class = operator(symbol).ok_or_else(|| format!("'{symbol}' is no operation of Keras"))?;
                        self.operate(class, "numpy", Map::new(), vec![a, b], Vec::new())?
                    }
                }
            }
            Expr::If(some, test, none) => match self.eval(test, scope)? {
                Val::Plain(test) => self.eval(if truth(&test) { some } else { none }, scope)?,
                _ => return Err(format!("'{test}' is no condition")),
            },
            Expr::Index(value, items) => {
                let value = self.eval(value, scope)?;
                match (value, items.as_slice()) {
                    // Several results, of which one is taken.
                    (Val::Tensor(tensor), [Expr::Slot(slot)]) if slot.role == "part" => {
                        let part = literal(&slot.value).as_u64().unwrap_or(0) as usize;
                        Val::Tensor(TensorRef { tensor: part, shape: None, ..tensor })
                    }
                    (value, items) => {
                        // The rest is taken as it is anyway; the form of an .h5 can't say it.
                        let rest = Expr::name("...");
                        let items = items.strip_suffix(std::slice::from_ref(&rest)).unwrap_or(items);
                        let items = items.iter().map(|item| self.key(item, scope)).collect::<Traced<Vec<_>>>()?;
                        self.operate("GetItem", "numpy", Map::new(), vec![value, Val::List(items)], Vec::new())?
                    }
                }
            }
            Expr::Call(function, args) => self.call(function, args, scope)?,
            other => return Err(format!("'{other}' has no form in a model's file")),
        })
    }

    /// A part of an index.
    fn key(&mut self, item: &Expr, scope: &Scope) -> Traced<Val> {
        let mut range = |start: Option<&Expr>, stop: Option<&Expr>, step: Option<&Expr>| -> Traced<Val> {
            let mut bound = |part: Option<&Expr>| -> Traced<Json> {
                Ok(match part.map(|part| self.eval(part, scope)).transpose()? {
                    Some(Val::Plain(number)) => number,
                    _ => Json::Null,
                })
            };
            Ok(Val::Plain(slice(bound(start)?, bound(stop)?, bound(step)?)))
        };
        match item {
            Expr::Name(text) if text == ":" => range(None, None, None),
            Expr::Range(a, b, c) => range(a.as_deref(), b.as_deref(), c.as_deref()),
            other => self.eval(other, scope),
        }
    }

    fn call(&mut self, function: &Expr, args: &[Arg], scope: &Scope) -> Traced<Val> {
        let Expr::Name(callee) = function else {
            let layer = self.eval(function, scope)?;
            return match layer {
                Val::Layer(layer) => self.called_with(layer, args, scope),
                _ => Err(format!("'{function}' can't be called")),
            };
        };
        if let Some(Val::Layer(layer)) = scope.get(callee) {
            return self.called_with(*layer, args, scope);
        }
        let mut values = Vec::new();
        let mut named = Vec::new();
        for arg in args.iter().filter(|arg| !arg.is_default()) {
            let value = self.eval(&arg.value, scope)?;
            match &arg.name {
                Some(name) => named.push((name.clone(), value)),
                None => values.push(value),
            }
        }
        if let Some(class) = callee.strip_prefix("layers.") {
            let mut config = Map::new();
            for (name, value) in named {
                let value = match value {
                    Val::Layer(inner) => self.wrapped(inner)?,
                    value => plain(value)?,
                };
                config.insert(name, value);
            }
            let name = match config.get("name").and_then(Json::as_str) {
                Some(name) => name.to_owned(),
                None => self.auto_name(class),
            };
            return Ok(Val::Layer(self.layer(name, class, "keras.layers", config)));
        }
        if callee == PARAMETER {
            return self.parameter(values, named);
        }
        let rank = callee.strip_prefix(AVERAGE_POOL).and_then(|rest| rest.strip_suffix('d'));
        if let Some(rank) = rank.filter(|rank| ["1", "2", "3"].contains(rank)) {
            return self.average_pool(rank, values, named);
        }
        if let Some(name) = callee.strip_prefix("ops.") {
            return self.operation(name, values, named);
        }
        let functions = self.functions;
        let Some(function) = functions.iter().find(|function| function.name == *callee) else {
            return Err(format!("'{callee}' is not known"));
        };
        self.function(function, values, named)
    }

    /// A call of one of the program's functions.
    fn function(&mut self, function: &Function, values: Vec<Val>, named: Vec<(String, Val)>) -> Traced<Val> {
        let names = function.inputs.iter().chain(function.args.iter().map(|arg| &arg.name));
        let mut inner: Scope = names.cloned().zip(values).collect();
        for Declared { name, default, .. } in &function.args {
            if let Some(default) = default {
                inner.entry(name.clone()).or_insert_with(|| Val::Plain(literal(default)));
            }
        }
        let mut own = String::new();
        for (name, value) in named {
            match (name.as_str(), value) {
                ("name", Val::Plain(Json::String(text))) => own = text,
                (_, value) => {
                    inner.insert(name, value);
                }
            }
        }
        let mut results = self.run(function, inner, &own)?;
        Ok(if results.len() == 1 { results.remove(0) } else { Val::List(results) })
    }

    fn operation(&mut self, name: &str, values: Vec<Val>, named: Vec<(String, Val)>) -> Traced<Val> {
        let is_symbolic = |value: &Val| holds_tensor(value);
        if !values.iter().chain(named.iter().map(|(_, value)| value)).any(is_symbolic) {
            return constant(name, &values, &named);
        }
        let operation = operation(name).ok_or_else(|| format!("'ops.{name}' has no form in a model's file"))?;
        let mut config = Map::new();
        if ["average_pool", "conv"].contains(&name) {
            // The function fills it in, the operation alone does not.
            config.insert("data_format".to_owned(), "channels_last".into());
        }
        let mut kwargs = Vec::new();
        let mut values = values;
        for (key, value) in named {
            if operation.config.contains(&key.as_str()) {
                config.insert(key, plain(value)?);
            } else if key == "indices" {
                values.push(value);
            } else {
                kwargs.push((key, value));
            }
        }
        self.operate(operation.class, operation.module, config, values, kwargs)
    }

    fn operate(
        &mut self,
        class: &str,
        module: &str,
        config: Map<String, Json>,
        args: Vec<Val>,
        kwargs: Vec<(String, Val)>,
    ) -> Traced<Val> {
        let name = self.auto_name(class);
        let layer = self.layer(name, class, &format!("keras.src.ops.{module}"), config);
        let result = self.called(layer, args)?;
        let kwargs = kwargs.into_iter().map(|(key, value)| Ok((key, argument(value)?))).collect::<Traced<Vec<_>>>()?;
        if let Some(call) = self.model.layers[layer].calls.last_mut() {
            call.kwargs = kwargs;
        }
        Ok(result)
    }

    /// What the function `parameter` of the generated code does.
    fn parameter(&mut self, values: Vec<Val>, named: Vec<(String, Val)>) -> Traced<Val> {
        let x = values.into_iter().next().ok_or("a parameter needs a tensor")?;
        let mut shape = json!([]);
        let mut config = Map::new();
        for (key, value) in named {
            let value = plain(value)?;
            if key == "shape" {
                shape = value;
            } else {
                config.insert(key, value);
            }
        }
        let count: u64 = shape.as_array().into_iter().flatten().filter_map(Json::as_u64).product();
        let map = |key: &str, value: Json| Map::from_iter([(key.to_owned(), value)]);
        let row = self.operate("Reshape", "numpy", map("newshape", json!([-1, 1])), vec![x], Vec::new())?;
        let part = |stop: Json| Val::Plain(slice(Json::Null, stop, Json::Null));
        let key = Val::List(vec![part(json!(1)), part(Json::Null)]);
        let first = self.operate("GetItem", "numpy", Map::new(), vec![row, key], Vec::new())?;
        let one = self.operate("OnesLike", "numpy", map("dtype", json!("float32")), vec![first], Vec::new())?;
        config.insert("units".to_owned(), count.into());
        config.insert("use_bias".to_owned(), false.into());
        let name = config.get("name").and_then(Json::as_str).unwrap_or(PARAMETER).to_owned();
        let dense = self.layer(name, "Dense", "keras.layers", config);
        let weights = self.called(dense, vec![one])?;
        self.operate("Reshape", "numpy", map("newshape", shape), vec![weights], Vec::new())
    }

    /// What the function `average_pool2d` of the generated code does.
    fn average_pool(&mut self, rank: &str, values: Vec<Val>, named: Vec<(String, Val)>) -> Traced<Val> {
        let x = values.into_iter().next().ok_or("a pool needs a tensor")?;
        let (mut pad, mut pool) = (Map::new(), Map::new());
        for (key, value) in named {
            if key == "padding" { &mut pad } else { &mut pool }.insert(key, plain(value)?);
        }
        let classes = [format!("ZeroPadding{rank}D"), format!("AveragePooling{rank}D")];
        let name = self.auto_name(&classes[0]);
        let pad = self.layer(name, &classes[0], "keras.layers", pad);
        let name = self.auto_name(&classes[1]);
        let pool = self.layer(name, &classes[1], "keras.layers", pool);
        let padded = self.called(pad, vec![x.clone()])?;
        let sums = self.called(pool, vec![padded])?;
        let part = |stop: Json| Val::Plain(slice(Json::Null, stop, Json::Null));
        let middle = (1..=3).take_while(|n| n.to_string().as_str() <= rank).map(|_| part(Json::Null));
        let key = std::iter::once(part(json!(1))).chain(middle).chain([part(json!(1))]).collect();
        let key = Val::List(key);
        let first = self.operate("GetItem", "numpy", Map::new(), vec![x, key], Vec::new())?;
        let ones = self.operate("OnesLike", "numpy", Map::new(), vec![first], Vec::new())?;
        let padded = self.called(pad, vec![ones])?;
        let counts = self.called(pool, vec![padded])?;
        self.operate("TrueDivide", "numpy", Map::new(), vec![sums, counts], Vec::new())
    }

    /// Adds a layer, with its weights.
    fn layer(&mut self, name: String, class: &str, module: &str, mut config: Map<String, Json>) -> usize {
        config.insert("name".to_owned(), name.clone().into());
        let weights = self.keys.get(&name).and_then(|key| self.weights.remove(key)).unwrap_or_default();
        self.names.insert(name.clone());
        let layer =
            Layer { name, class_name: class.to_owned(), module: module.to_owned(), config, calls: Vec::new(), weights };
        self.model.layers.push(layer);
        self.model.layers.len() - 1
    }

    /// The configuration of a layer that is part of another, and of the model only there.
    fn wrapped(&mut self, layer: usize) -> Traced<Json> {
        if layer + 1 != self.model.layers.len() {
            return Err("a layer of another stands in several places".to_owned());
        }
        let layer = self.model.layers.remove(layer);
        let (module, class) = (layer.module, layer.class_name);
        Ok(json!({"module": module, "class_name": class, "config": layer.config, "registered_name": null}))
    }

    /// A call of a layer with arguments of which some have names.
    fn called_with(&mut self, layer: usize, args: &[Arg], scope: &Scope) -> Traced<Val> {
        let (mut values, mut kwargs) = (Vec::new(), Vec::new());
        for arg in args {
            let value = self.eval(&arg.value, scope)?;
            match &arg.name {
                Some(name) => kwargs.push((name.clone(), argument(value)?)),
                None => values.push(value),
            }
        }
        let result = self.called(layer, values)?;
        if let Some(call) = self.model.layers[layer].calls.last_mut() {
            call.kwargs = kwargs;
        }
        Ok(result)
    }

    fn called(&mut self, layer: usize, args: Vec<Val>) -> Traced<Val> {
        let args = args.into_iter().map(argument).collect::<Traced<Vec<_>>>()?;
        let calls = &mut self.model.layers[layer].calls;
        calls.push(Call { args, kwargs: Vec::new() });
        let node = calls.len() - 1;
        Ok(Val::Tensor(TensorRef { layer, node, tensor: 0, shape: None, dtype: DType::Float32 }))
    }

    /// As Keras names layers that have no name: `re_lu`, `re_lu_1`.
    fn auto_name(&mut self, class: &str) -> String {
        let stem = keras_snake_case(class);
        self.automatic.insert(stem.clone());
        let mut number = 0;
        let mut name = stem.clone();
        while !self.names.insert(name.clone()) {
            number += 1;
            name = format!("{stem}_{number}");
        }
        name
    }
}

fn slice(start: Json, stop: Json, step: Json) -> Json {
    json!({"class_name": "__slice__", "config": {"start": start, "stop": stop, "step": step}})
}

/// A name in the code: a text in quotes, a variable.
fn name(text: &str, scope: &Scope) -> Traced<Val> {
    let quoted = text.strip_prefix('f').unwrap_or(text);
    if let Some(inner) = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        let mut filled = inner.to_owned();
        for key in ["name", "i"] {
            if let Some(Val::Plain(value)) = scope.get(key) {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                filled = filled.replace(&format!("{{{key}}}"), &value);
            }
        }
        return Ok(Val::Plain(filled.into()));
    }
    scope.get(text).cloned().ok_or_else(|| format!("the name '{text}' is not known"))
}

/// A literal as JSON; floats as Python reads them.
fn literal(lit: &Lit) -> Json {
    match lit {
        Lit::None | Lit::Any | Lit::Module(_) => Json::Null,
        Lit::Bool(value) => json!(value),
        Lit::Int(value) => json!(value),
        Lit::Float(bits) if !f32::from_bits(*bits).is_finite() => json!(endless(f32::from_bits(*bits))),
        Lit::Float(_) => json!(lit.to_string().parse::<f64>().unwrap_or(f64::NAN)),
        Lit::Str(text) => json!(text),
        Lit::Tuple(items) | Lit::List(items) => items.iter().map(literal).collect(),
    }
}

fn endless(value: f32) -> &'static str {
    match value {
        value if value.is_nan() => "nan",
        value if value > 0.0 => "inf",
        _ => "-inf",
    }
}

/// As Python sees it.
fn truth(value: &Json) -> bool {
    match value {
        Json::Null => false,
        Json::Bool(value) => *value,
        Json::Number(number) => number.as_f64() != Some(0.0),
        Json::String(text) => !text.is_empty(),
        Json::Array(items) => !items.is_empty(),
        Json::Object(_) => true,
    }
}

fn arithmetic(a: &Json, symbol: &str, b: &Json) -> Traced<Json> {
    match symbol {
        "==" => return Ok((a == b).into()),
        "!=" => return Ok((a != b).into()),
        "or" => return Ok(if truth(a) { a.clone() } else { b.clone() }),
        "and" => return Ok(if truth(a) { b.clone() } else { a.clone() }),
        _ => {}
    }
    let failed = || format!("{a} {symbol} {b} can't be computed");
    if let (Some(a), Some(b)) = (a.as_i64(), b.as_i64()) {
        let result = match symbol {
            "*" => a.checked_mul(b),
            "//" => a.checked_div_euclid(b),
            "+" => a.checked_add(b),
            "-" => a.checked_sub(b),
            _ => None,
        };
        return result.map(Json::from).ok_or_else(failed);
    }
    Err(failed())
}

fn holds_tensor(value: &Val) -> bool {
    match value {
        Val::Tensor(_) => true,
        Val::List(items) => items.iter().any(holds_tensor),
        _ => false,
    }
}

/// What can stand in a configuration.
fn plain(value: Val) -> Traced<Json> {
    match value {
        Val::Plain(value) => Ok(value),
        Val::List(items) => items.into_iter().map(plain).collect(),
        Val::Constant { .. } | Val::Tensor(_) | Val::Layer(_) | Val::Endless(_) => {
            Err("a tensor stands where a model's file has a number".to_owned())
        }
    }
}

fn argument(value: Val) -> Traced<Argument> {
    Ok(match value {
        Val::Tensor(tensor) => Argument::Tensor(tensor),
        Val::List(items) => Argument::List(items.into_iter().map(argument).collect::<Traced<_>>()?),
        Val::Plain(value) => Argument::Plain(value),
        Val::Endless(value) => {
            Argument::Plain(json!({"class_name": "__numpy__", "config": {"value": value, "dtype": "float32"}}))
        }
        Val::Constant { shape, dtype, values } => {
            // An array is read by NumPy, which knows infinities by name.
            let kind = if values.iter().any(Json::is_string) { "__numpy__" } else { "__tensor__" };
            let mut values = values.into_iter();
            let value = nested(&mut values, &shape);
            Argument::Plain(json!({"class_name": kind, "config": {"value": value, "dtype": dtype}}))
        }
        Val::Layer(_) => return Err("a layer stands where a tensor is expected".to_owned()),
    })
}

fn nested(values: &mut dyn Iterator<Item = Json>, shape: &[usize]) -> Json {
    match shape {
        [] => values.next().unwrap_or(Json::Null),
        [size, rest @ ..] => (0..*size).map(|_| nested(values, rest)).collect(),
    }
}

/// Most elements of a constant that is written into a model's configuration.
const LARGEST: usize = 1 << 20;

/// A function of constants alone runs when the model is built.
fn constant(name: &str, values: &[Val], named: &[(String, Val)]) -> Traced<Val> {
    let get = |key: &str| named.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
    let number = |key: &str| match get(key) {
        Some(Val::Plain(value)) => value.as_i64(),
        _ => None,
    };
    let text = |key: &str, default: &str| match get(key) {
        Some(Val::Plain(Json::String(text))) => text,
        _ => default.to_owned(),
    };
    let sizes = |value: Option<Val>| -> Vec<i64> {
        value.and_then(|value| plain(value).ok()).map_or(Vec::new(), |value| match value {
            Json::Array(items) => items.iter().filter_map(Json::as_i64).collect(),
            other => other.as_i64().into_iter().collect(),
        })
    };
    match (name, values.first()) {
        ("convert_to_tensor", Some(Val::Plain(value))) => {
            let mut shape = Vec::new();
            let mut at = value;
            while let Json::Array(items) = at {
                shape.push(items.len());
                let Some(first) = items.first() else { break };
                at = first;
            }
            let mut flat = Vec::new();
            flatten(value, &mut flat);
            Ok(Val::Constant { shape, dtype: text("dtype", "float32"), values: flat })
        }
        ("arange", _) => {
            let (start, stop) = (number("start").unwrap_or(0), number("stop").unwrap_or(0));
            let step = number("step").unwrap_or(1);
            let up = (0..).map(|i| start + i * step).take_while(|&n| if step > 0 { n < stop } else { n > stop });
            let values: Vec<Json> = up.take(if step == 0 { 0 } else { LARGEST }).map(Json::from).collect();
            Ok(Val::Constant { shape: vec![values.len()], dtype: text("dtype", "int32"), values })
        }
        ("full", _) => {
            let shape: Vec<usize> = sizes(get("shape")).into_iter().map(|size| size.max(0) as usize).collect();
            let count = modelport_ir::tensor::numel(&shape).filter(|&count| count <= LARGEST);
            let count = count.ok_or("a constant is too large for a model's file")?;
            let Some(Val::Plain(value)) = get("fill_value") else { return Err("a constant has no value".to_owned()) };
            Ok(Val::Constant { shape, dtype: text("dtype", "float32"), values: vec![value; count] })
        }
        ("reshape", Some(Val::Constant { values, dtype, .. })) => {
            let wanted = sizes(get("newshape"));
            let known: i64 = wanted.iter().filter(|&&size| size >= 0).product();
            let rest = values.len() as i64 / known.max(1);
            let shape = wanted.into_iter().map(|size| if size < 0 { rest } else { size } as usize).collect();
            Ok(Val::Constant { shape, dtype: dtype.clone(), values: values.clone() })
        }
        ("cast", Some(Val::Constant { values, shape, .. })) => {
            Ok(Val::Constant { shape: shape.clone(), dtype: text("dtype", "float32"), values: values.clone() })
        }
        _ => Err(format!("'ops.{name}' of constants alone has no form in a model's file")),
    }
}

fn flatten(value: &Json, into: &mut Vec<Json>) {
    match value {
        Json::Array(items) => items.iter().for_each(|item| flatten(item, into)),
        other => into.push(other.clone()),
    }
}

/// Keras' own rule: `ReLU` → `re_lu`, `Conv2DTranspose` → `conv2d_transpose`.
fn keras_snake_case(class: &str) -> String {
    let chars: Vec<char> = class.chars().collect();
    let mut name = String::new();
    for (i, &c) in chars.iter().enumerate() {
        let next_lower = chars.get(i + 1).is_some_and(char::is_ascii_lowercase);
        let previous_lower = i > 0 && chars[i - 1].is_ascii_lowercase();
        if i > 0 && c.is_ascii_uppercase() && (next_lower || previous_lower) {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    identifier(&name).trim_end_matches('_').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_without_names_are_named_as_keras_does() {
        let cases = [("ReLU", "re_lu"), ("Conv2DTranspose", "conv2d_transpose"), ("GetItem", "get_item")];
        for (class, name) in cases {
            assert_eq!(keras_snake_case(class), name);
        }
        assert_eq!(keras_snake_case("ZeroPadding2D"), "zero_padding2d");
    }
}
