//! Archives of `torch.export.save` (`.pt2`): the current layout (`models/model.json`, one file per weight) and the older
//! ones (`serialized_exported_program.json`, weights pickled together).
//!
//! Free sizes stay free. A program that was exported for one batch size is converted for any, if every value then has
//! the shape that the program says; else for the size that it was exported for.

mod batch;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;
use modelport_ir::tensor::Storage;
use modelport_ir::{Dim, Error, Graph, Problem, Result, Shape, Tensor};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::archive::Archive;
use super::arg::Arg;
use super::lower::{self, Lower};
use super::program::{self, Node, Payloads, Program, Size, TensorMeta, Union};
use super::state::StateDict;
use super::{content, fill, ops, state};
use crate::symbolic::Elem;
use batch::{Batch, Freed, TRIAL};

/// Most bytes of a program's text.
const MAX_TEXT: u64 = 1 << 29;
/// Deepest lists of arguments.
const MAX_DEPTH: usize = 8;

/// Reads an exported program. `shapes` are those of the inputs, where the user says them; `weights` take the place of
/// those in the archive.
///
/// # Errors
/// When the archive is damaged, and all operators that can't be converted.
pub fn read(path: &Path, archive: &Archive, shapes: &[Vec<i64>], weights: Option<StateDict>) -> Result<Graph> {
    let failed = |message: String| Error::from(Problem::new(message).file(path));
    let program = program(archive).map_err(failed)?;
    unsupported(&program).map_err(|error| error.in_file(path))?;
    let mut tensors = stored(path, archive, "weights")?;
    let constants = stored(path, archive, "constants")?;
    if let Some(weights) = weights {
        fill::fill(tensors.iter_mut().map(|(key, tensor)| (key.as_str(), tensor)), &weights, path)?;
    }
    let file = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let reader = Reader { program: &program, tensors, constants, shapes, file };
    reader.read().map_err(|error| error.in_file(path))
}

fn program(archive: &Archive) -> std::result::Result<Program, String> {
    let older = "serialized_exported_program.json";
    let newer = archive.names().find(|name| name.starts_with("models/") && name.ends_with(".json"));
    let name = match newer {
        Some(name) if !archive.has("models/model.json") => name.to_owned(),
        Some(_) => "models/model.json".to_owned(),
        None if archive.has(older) => older.to_owned(),
        None => return Err("has no program in it, expected models/model.json".to_owned()),
    };
    json(archive, &name)
}

fn json<T: DeserializeOwned>(archive: &Archive, name: &str) -> std::result::Result<T, String> {
    let text = archive.bytes(name, MAX_TEXT)?;
    serde_json::from_slice(&text).map_err(|error| format!("has {name}, which is damaged: {error}"))
}

/// All operators that there is no translation for, each with all its nodes.
fn unsupported(program: &Program) -> Result<()> {
    let mut problems = Vec::new();
    for node in &program.graph_module.graph.nodes {
        if !is_plain(&node.target) && !ops::is_supported(&node.target) {
            let name = node.outputs.first().and_then(result_name).unwrap_or_default();
            problems.push(ops::unsupported(&node.target).node(place(node, name)));
        }
    }
    Error::collect(problems)
}

/// Functions of Python on numbers, and statements about sizes that hold.
fn is_plain(target: &str) -> bool {
    target.starts_with("_operator.")
        || target.starts_with("operator.")
        || target.starts_with("math.")
        || target.starts_with("torch.sym_")
        || target.starts_with("torch._sym_")
        || is_statement(target)
}

fn is_statement(target: &str) -> bool {
    ["_assert", "sym_constrain_range", "_check", "set_grad_enabled", "_set_grad_enabled"]
        .iter()
        .any(|word| target.contains(word))
}

/// Where a node is, for people: its module and name.
fn place(node: &Node, name: &str) -> String {
    let stack = node.metadata.get("nn_module_stack").and_then(Json::as_str).unwrap_or_default();
    match program::modules(stack).pop() {
        Some((path, _)) if !path.is_empty() => format!("{path}/{name}"),
        _ => name.to_owned(),
    }
}

fn result_name(union: &Union) -> Option<&str> {
    let (kind, value) = union.iter().next()?;
    match kind.as_str() {
        "as_tensor" => value.get("name")?.as_str(),
        "as_sym_int" | "as_sym_bool" | "as_sym_float" => value.get("as_name")?.as_str(),
        _ => None,
    }
}

/// The tensors of a folder of `data`, in whichever way they are there.
fn stored(path: &Path, archive: &Archive, what: &str) -> Result<IndexMap<String, Tensor>> {
    let failed = |message: String| Error::from(Problem::new(message).file(path));
    let model = match what {
        "weights" => "model_weights_config.json",
        _ => "model_constants_config.json",
    };
    let config = format!("data/{what}/{model}");
    if archive.has(&config) {
        let payloads: Payloads = json(archive, &config).map_err(failed)?;
        let mut problems = Vec::new();
        let mut tensors = IndexMap::new();
        // Tied weights are one file.
        let mut files: HashMap<String, Arc<dyn Storage>> = HashMap::new();
        for (name, payload) in payloads.config {
            let file = format!("data/{what}/{}", payload.path_name);
            let tensor = match (payload.use_pickle, payload.tensor_meta) {
                (false, Some(meta)) => match files.get(&file) {
                    Some(bytes) => tensor(&meta, bytes.clone()),
                    None => archive.entry(&file).and_then(|bytes| {
                        files.insert(file, bytes.clone());
                        tensor(&meta, bytes)
                    }),
                },
                (false, None) => Err("has no type and shape".to_owned()),
                (true, _) => Err("is pickled by itself, which is not read".to_owned()),
            };
            match tensor {
                Ok(tensor) => drop(tensors.insert(name, tensor)),
                Err(message) => problems.push(Problem::new(message).file(path).node(name)),
            }
        }
        Error::collect(problems)?;
        return Ok(tensors);
    }
    let pickled = match what {
        "weights" => ["data/weights/model.pt", "data/weights/model.pth", "serialized_state_dict.pt"],
        _ => ["data/constants/model.pt", "data/constants/model.pth", "serialized_constants.pt"],
    };
    let Some(name) = pickled.into_iter().find(|name| archive.has(name)) else { return Ok(IndexMap::new()) };
    let bytes = archive.entry(name).map_err(failed)?;
    if bytes.is_empty() {
        return Ok(IndexMap::new());
    }
    let opened = content::zip(bytes).map_err(failed)?;
    match state::of_content(path, opened, &state::Selection::default()) {
        Ok(state) => {
            let state = state.unstripped();
            Ok(state.tensors.into_iter().chain(state.counters).collect())
        }
        // There may be no constants at all.
        Err(_) if what == "constants" => Ok(IndexMap::new()),
        Err(error) => Err(error),
    }
}

fn tensor(meta: &TensorMeta, bytes: Arc<dyn Storage>) -> std::result::Result<Tensor, String> {
    let dtype = program::dtype(meta.dtype).ok_or_else(|| format!("has the element type {}", meta.dtype))?;
    let known = |union: &Union| match program::size(union) {
        Size::Known(size) => usize::try_from(size).map_err(|_| "has a negative size".to_owned()),
        _ => Err("has a size that is not known".to_owned()),
    };
    let shape = meta.sizes.iter().map(known).collect::<std::result::Result<Vec<_>, _>>()?;
    let strides = meta.strides.iter().map(known).collect::<std::result::Result<Vec<_>, _>>()?;
    let count = modelport_ir::tensor::numel(&shape).ok_or("is too large")?;
    // A tensor without elements may have no file to speak of.
    if count == 0 {
        return Ok(Tensor::from_f64(dtype, &shape, []));
    }
    let offset = meta.storage_offset.as_ref().map_or(Ok(0), known)?;
    match strides.len() == shape.len() {
        true => Tensor::strided(dtype, &shape, &strides, offset, bytes),
        false => Tensor::new(dtype, &shape, bytes),
    }
}

struct Reader<'a> {
    program: &'a Program,
    tensors: IndexMap<String, Tensor>,
    constants: IndexMap<String, Tensor>,
    shapes: &'a [Vec<i64>],
    file: String,
}

impl Reader<'_> {
    fn read(&self) -> Result<Graph> {
        let inputs = self.user_inputs();
        let metas: Vec<&TensorMeta> = inputs.iter().filter_map(|name| self.meta(name)).collect();
        let sizes: Vec<Vec<Size>> = metas.iter().map(|meta| meta.sizes.iter().map(program::size).collect()).collect();
        let all_known = sizes.iter().flatten().all(|size| matches!(size, Size::Known(_)));
        if let (true, Some(axis)) = (all_known, self.free_axis(&sizes))
            && let Some(Size::Known(batch)) = sizes.first().and_then(|sizes| sizes.get(axis))
            && sizes.iter().any(|sizes| sizes.len() >= 2)
        {
            for made in [false, true] {
                let freed = Freed { example: *batch, axis, made, trial: None };
                if let Ok(graph) = self.lower(Batch::Free(freed))
                    && self.lower(Batch::Free(Freed { trial: Some(TRIAL), ..freed })).is_ok()
                {
                    return Ok(graph);
                }
            }
        }
        self.lower(Batch::AsExported)
    }

    /// The axis of the batch: the first, or the only one that the user says is free.
    fn free_axis(&self, sizes: &[Vec<Size>]) -> Option<usize> {
        let Some(first) = self.shapes.first() else { return Some(0) };
        let axis = first.iter().position(|size| *size < 0)?;
        let says = |(given, sizes): (&Vec<i64>, &Vec<Size>)| {
            let fits = |(place, (given, size)): (usize, (&i64, &Size))| match place == axis {
                true => *given < 0,
                false => *size == Size::Known(*given),
            };
            given.len() == sizes.len() && given.iter().zip(sizes).enumerate().all(fits)
        };
        (self.shapes.len() == sizes.len() && self.shapes.iter().zip(sizes).all(says)).then_some(axis)
    }

    fn meta(&self, name: &str) -> Option<&TensorMeta> {
        self.program.graph_module.graph.tensor_values.get(name)
    }

    /// The names of the inputs that are tensors.
    fn user_inputs(&self) -> Vec<String> {
        let specs = &self.program.graph_module.signature.input_specs;
        let name = |spec: &Union| {
            let arg = spec.get("user_input")?.get("arg")?;
            Some(arg.get("as_tensor")?.get("name")?.as_str()?.to_owned())
        };
        specs.iter().filter_map(name).collect()
    }

    fn lower(&self, batch: Batch) -> Result<Graph> {
        let stem = self.file.rsplit_once('.').map_or(self.file.as_str(), |(stem, _)| stem);
        let mut run = Run {
            reader: self,
            lower: Lower::new(stem, &format!("PyTorch: {}", self.file)),
            values: HashMap::new(),
            names: HashMap::new(),
            examples: HashMap::new(),
            inner: HashMap::new(),
            batch,
        };
        run.modules();
        run.lower.entries(self.tensors.iter().map(|(key, tensor)| (key.clone(), tensor.clone())));
        let tensors = run.reader.tensors.iter().map(|(key, tensor)| (key.as_str(), tensor));
        run.lower.tie(tensors);
        run.inputs()?;
        let mut problems = Vec::new();
        for node in &self.program.graph_module.graph.nodes {
            if let Err(error) = run.node(node) {
                problems.extend(error.problems);
                if batch != Batch::AsExported {
                    break;
                }
            }
        }
        Error::collect(problems)?;
        run.outputs()?;
        run.lower.finish()
    }
}

struct Run<'a> {
    reader: &'a Reader<'a>,
    lower: Lower,
    /// What the names of the program are.
    values: HashMap<String, Arg>,
    /// The program's names of free sizes, and ours.
    names: HashMap<String, Arc<str>>,
    /// The sizes that free ones had when the program was made.
    examples: HashMap<Arc<str>, i64>,
    /// How much of an axis with the batch in it is within one sample, by the program's names.
    inner: HashMap<String, i64>,
    batch: Batch,
}

impl Run<'_> {
    /// Declares all modules that computed something.
    fn modules(&mut self) {
        for node in &self.reader.program.graph_module.graph.nodes {
            let stack = node.metadata.get("nn_module_stack").and_then(Json::as_str).unwrap_or_default();
            for (path, class) in program::modules(stack) {
                if path.is_empty() { self.lower.root(&class) } else { self.lower.module(&path, &class) }
            }
        }
    }

    fn inputs(&mut self) -> Result<()> {
        let user = self.reader.user_inputs();
        let mut problems = Vec::new();
        for spec in &self.reader.program.graph_module.signature.input_specs {
            let Some((kind, spec)) = spec.iter().next() else { continue };
            let name = |key: &str| spec.get(key).and_then(Json::as_str).unwrap_or_default().to_owned();
            let arg = spec.get("arg").unwrap_or(&Json::Null);
            let placeholder = arg.get("name").and_then(Json::as_str).unwrap_or_default().to_owned();
            let (key, tensors) = match kind.as_str() {
                "parameter" => (name("parameter_name"), &self.reader.tensors),
                "buffer" if spec.get("persistent") == Some(&Json::Bool(false)) => {
                    (name("buffer_name"), &self.reader.constants)
                }
                "buffer" => (name("buffer_name"), &self.reader.tensors),
                "tensor_constant" => (name("tensor_constant_name"), &self.reader.constants),
                "user_input" | "constant_input" | "token" => {
                    if let Some(input) = arg.get("as_tensor").and_then(|tensor| tensor.get("name")) {
                        let input = input.as_str().unwrap_or_default();
                        let place = user.iter().position(|name| name == input).unwrap_or(0);
                        match self.input(input, place, user.len()) {
                            Ok(arg) => drop(self.values.insert(input.to_owned(), arg)),
                            Err(error) => problems.extend(error.problems),
                        }
                    }
                    continue;
                }
                other => {
                    problems.push(Problem::new(format!("an input is of the kind '{other}', which is not read")));
                    continue;
                }
            };
            let is_entry = kind != "tensor_constant" && spec.get("persistent") != Some(&Json::Bool(false));
            let found = tensors.get(&key).or_else(|| self.reader.tensors.get(&key));
            match (found.or_else(|| self.reader.constants.get(&key)).cloned(), kind.as_str()) {
                (Some(tensor), "parameter") => {
                    self.values.insert(placeholder, self.lower.parameter(&key, tensor));
                }
                (Some(tensor), _) => {
                    let name = if is_entry { key } else { lower::keyless(&key) };
                    self.values.insert(placeholder, self.lower.buffer(&name, tensor));
                }
                (None, _) => problems.push(Problem::new("a weight is missing in the archive").node(key)),
            }
        }
        Error::collect(problems)
    }

    /// One input, in the shape that the user says or else the program.
    fn input(&mut self, name: &str, place: usize, count: usize) -> Result<Arg> {
        let meta = self.reader.meta(name).ok_or_else(|| Error::new(format!("the input '{name}' has no shape")))?;
        let dtype = program::dtype(meta.dtype)
            .ok_or_else(|| Error::new(format!("the input '{name}' has the element type {}", meta.dtype)))?;
        let sizes: Vec<Size> = meta.sizes.iter().map(program::size).collect();
        let mut dims: Vec<Dim> = Vec::new();
        for (axis, size) in sizes.iter().enumerate() {
            dims.push(match size {
                Size::Known(size) if self.freed().is_some_and(|freed| (freed.axis, freed.example) == (axis, *size)) => {
                    self.examples.insert("N".into(), *size);
                    self.freed().map_or(Dim::Unknown, Freed::dim)
                }
                Size::Known(size) => Dim::Known(usize::try_from(*size).unwrap_or(0)),
                Size::Free(factor, symbol, hint) => {
                    let name = self.free(symbol, axis, name);
                    if let Some(example) = hint.map(|hint| hint / factor.max(&1)) {
                        self.examples.insert(name.clone(), example);
                    }
                    Dim::Symbol { factor: usize::try_from(*factor).unwrap_or(1), name }
                }
                Size::Other(_) => Dim::symbol(&format!("{name}_{axis}")),
            });
        }
        if self.freed().is_some() {
            // What the user says of the others is what the program says.
        } else if let Some(given) = self.reader.shapes.get(place) {
            dims = said(given, &dims).ok_or_else(|| {
                let message = format!("the shape {given:?} does not fit the input, which has {}", Shape(dims.clone()));
                Error::from(Problem::new(message).node(name))
            })?;
            self.examples.clear();
        } else if !self.reader.shapes.is_empty() && self.reader.shapes.len() != count {
            let message = format!("{} shapes were given for {count} inputs", self.reader.shapes.len());
            return Err(Error::new(message));
        }
        self.lower.input(name, dtype, Shape(dims))
    }

    /// Our name of a free size: `N` for the batch.
    fn free(&mut self, symbol: &str, axis: usize, input: &str) -> Arc<str> {
        if let Some(name) = self.names.get(symbol) {
            return name.clone();
        }
        let is_taken = self.names.values().any(|name| &**name == "N");
        let name: Arc<str> = match (axis, is_taken) {
            (0, false) => "N".into(),
            _ => format!("{input}_{axis}").into(),
        };
        self.names.insert(symbol.to_owned(), name.clone());
        name
    }

    fn node(&mut self, node: &Node) -> Result<()> {
        let stack = node.metadata.get("nn_module_stack").and_then(Json::as_str).unwrap_or_default();
        if let Some((path, _)) = program::modules(stack).pop() {
            self.lower.go_to(&path);
        }
        if is_statement(&node.target) {
            return Ok(());
        }
        let mut args = Vec::new();
        for input in &node.inputs {
            match self.arg(&input.arg, 0)? {
                Some(arg) => args.push((input.name.as_str(), arg)),
                // What it reads could not be computed, which has been said.
                None => return Ok(()),
            }
        }
        if let Some(freed) = self.freed() {
            self.free_batch(node, &mut args, freed);
        }
        let name = node.outputs.first().and_then(result_name).unwrap_or_default();
        let result = if is_plain(&node.target) {
            let function = node.target.rsplit('.').next().unwrap_or_default().trim_start_matches("sym_");
            let positional: Vec<Arg> = args.into_iter().map(|(_, arg)| arg).collect();
            self.lower.call(function, &positional, &[])
        } else {
            self.lower.call(&node.target, &[], &args)
        };
        let result = result.map_err(|error| error.at_node(&place(node, name)))?;
        let results: Vec<Arg> = match (node.outputs.as_slice(), result) {
            ([_], result) => vec![result],
            (_, Arg::List(results)) => results,
            (_, result) => vec![result],
        };
        for (output, result) in node.outputs.iter().zip(results) {
            self.keep(output, result, &place(node, name))?;
        }
        if let Some(freed) = self.freed() {
            self.follow_batch(node, freed);
        }
        Ok(())
    }

    /// Remembers a result under its name.
    fn keep(&mut self, output: &Union, result: Arg, node: &str) -> Result<()> {
        if let Some(name) = result_name(output) {
            self.check(name, &result).map_err(|error| error.at_node(node))?;
            self.values.insert(name.to_owned(), result);
            return Ok(());
        }
        if let (Some(names), Arg::List(results)) = (output.get("as_tensors").and_then(Json::as_array), result) {
            for (name, result) in names.iter().zip(results) {
                if let Some(name) = name.get("name").and_then(Json::as_str) {
                    self.check(name, &result).map_err(|error| error.at_node(node))?;
                    self.values.insert(name.to_owned(), result);
                }
            }
        }
        Ok(())
    }

    /// Whether a value has the shape that the program says, with free sizes as they were when it was made.
    fn check(&self, name: &str, result: &Arg) -> Result<()> {
        let (Some(meta), Some((_, shape))) = (self.reader.meta(name), self.lower.info(result)) else { return Ok(()) };
        if self.freed().is_some_and(|freed| freed.trial.is_some()) {
            return Ok(());
        }
        let expected: Vec<Option<i64>> = meta.sizes.iter().map(|size| program::size(size).example()).collect();
        let fits = |(dim, expected): (&Dim, &Option<i64>)| {
            let size = match dim {
                Dim::Known(size) => i64::try_from(*size).ok(),
                Dim::Symbol { factor, name } => {
                    self.examples.get(name).and_then(|n| n.checked_mul(i64::try_from(*factor).ok()?))
                }
                Dim::Unknown if self.batch != Batch::AsExported => return false,
                Dim::Unknown => None,
            };
            size.zip(*expected).is_none_or(|(size, expected)| size == expected)
        };
        let same_rank = expected.len() == shape.rank();
        let is_checked = self.reader.shapes.is_empty() || self.freed().is_some();
        if is_checked && !(same_rank && shape.iter().zip(&expected).all(fits)) {
            let expected: Vec<String> =
                expected.iter().map(|size| size.map_or("?".to_owned(), |n| n.to_string())).collect();
            let message = format!("came out with shape {shape}, the program says [{}]", expected.join(", "));
            return Err(Error::new(message));
        }
        Ok(())
    }

    /// An argument; `None` if it needs something that could not be computed.
    fn arg(&self, union: &Union, depth: usize) -> Result<Option<Arg>> {
        let Some((kind, value)) = union.iter().next() else { return Ok(Some(Arg::None)) };
        self.of_kind(kind, value, depth)
    }

    fn of_kind(&self, kind: &str, value: &Json, depth: usize) -> Result<Option<Arg>> {
        if depth > MAX_DEPTH {
            return Err(Error::new("lists of arguments are nested too deeply"));
        }
        let bad = || Error::new(format!("an argument is damaged: {kind}"));
        let named = |value: &Json, key: &str| -> Result<Option<Arg>> {
            let name = value.get(key).and_then(Json::as_str).ok_or_else(bad)?;
            Ok(self.values.get(name).cloned())
        };
        let list = |of: &str| -> Result<Option<Arg>> {
            let items = value.as_array().ok_or_else(bad)?;
            let mut args = Vec::with_capacity(items.len());
            for item in items {
                match self.of_kind(of, item, depth + 1)? {
                    Some(arg) => args.push(arg),
                    None => return Ok(None),
                }
            }
            Ok(Some(Arg::List(args)))
        };
        let union = |value: &Json| -> Result<Option<Arg>> {
            let (kind, value) = value.as_object().and_then(|map| map.iter().next()).ok_or_else(bad)?;
            self.of_kind(kind, value, depth + 1)
        };
        Ok(Some(match kind {
            "as_none" | "as_memory_format" | "as_layout" | "as_device" => Arg::None,
            "as_tensor" => return named(value, "name"),
            "as_name" => return Ok(value.as_str().and_then(|name| self.values.get(name)).cloned()),
            "as_sym_int" | "as_sym_bool" | "as_sym_float" | "as_optional_tensor" | "optional" => return union(value),
            "as_int" => Arg::Int(Elem::Int(value.as_i64().ok_or_else(bad)?)),
            "as_float" => Arg::Float(float(value).ok_or_else(bad)?),
            "as_bool" => Arg::Bool(value.as_bool().ok_or_else(bad)?),
            "as_string" => value.as_str().ok_or_else(bad)?.into(),
            "as_scalar_type" => match value.as_i64().and_then(program::dtype) {
                Some(dtype) => dtype.into(),
                None => return Err(Error::new(format!("the element type {value} is not known"))),
            },
            "as_ints" => return list("as_int"),
            "as_floats" => return list("as_float"),
            "as_bools" => return list("as_bool"),
            "as_strings" => return list("as_string"),
            "as_tensors" => return list("as_tensor"),
            "as_nested_tensors" => return list("as_tensors"),
            "as_sym_ints" | "as_sym_floats" | "as_sym_bools" | "as_optional_tensors" => return list("optional"),
            other => {
                return Err(Error::new(format!("an argument of the kind '{other}' is not read")));
            }
        }))
    }

    fn outputs(&mut self) -> Result<()> {
        let module = &self.reader.program.graph_module;
        let mut names = self.output_names().into_iter();
        let mut problems = Vec::new();
        for (place, output) in module.graph.outputs.iter().enumerate() {
            let spec = module.signature.output_specs.get(place);
            // Buffers that change are counters of training.
            if spec.is_some_and(|spec| !spec.contains_key("user_output")) {
                continue;
            }
            let Some(name) = result_name(output) else { continue };
            let port = names.next().unwrap_or_else(|| name.to_owned());
            let Some(arg) = self.values.get(name).cloned() else {
                problems.push(Problem::new("an output was not computed").node(name));
                continue;
            };
            if let (Some(freed), Some((_, shape)), Some(meta)) =
                (self.freed(), self.lower.info(&arg), self.reader.meta(name))
                && meta.sizes.get(freed.axis).map(program::size) == Some(Size::Known(freed.example))
                && shape.iter().all(|dim| freed.multiple(dim).is_none())
            {
                problems.push(Problem::new("an output lost the batch").node(name));
                continue;
            }
            if let Err(error) = self.lower.output(&port, &arg) {
                problems.extend(error.problems);
            }
        }
        Error::collect(problems)
    }

    /// The keys of a dictionary that the network gives.
    fn output_names(&self) -> Vec<String> {
        let calls = &self.reader.program.graph_module.module_call_graph;
        let root = calls.iter().find(|call| call.fqn.is_empty()).and_then(|call| call.signature.as_ref());
        let spec: Option<Json> = root.and_then(|signature| serde_json::from_str(&signature.out_spec).ok());
        let spec = spec.as_ref().and_then(|spec| spec.get(1));
        let kind = |spec: &Json| spec.get("type").and_then(Json::as_str).map(str::to_owned);
        match spec {
            Some(spec) if matches!(kind(spec).as_deref(), Some("builtins.dict" | "collections.OrderedDict")) => {
                let keys = spec.get("context").and_then(Json::as_str);
                let keys: Option<Vec<String>> = keys.and_then(|keys| serde_json::from_str(keys).ok());
                let children = spec.get("children_spec").and_then(Json::as_array).map_or(0, Vec::len);
                let flat = |spec: &Json| kind(spec).is_none();
                let all_flat = spec.get("children_spec").and_then(Json::as_array).is_some_and(|c| c.iter().all(flat));
                keys.filter(|keys| keys.len() == children && all_flat).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }
}

/// Numbers that JSON does not have are texts.
fn float(value: &Json) -> Option<f64> {
    value.as_f64().or_else(|| match value.as_str()? {
        "Infinity" | "inf" => Some(f64::INFINITY),
        "-Infinity" | "-inf" => Some(f64::NEG_INFINITY),
        "NaN" | "nan" => Some(f64::NAN),
        text => text.parse().ok(),
    })
}

/// A shape that the user gave, with or without the batch, -1 for what is free.
fn said(given: &[i64], dims: &[Dim]) -> Option<Vec<Dim>> {
    let dim = |(given, dim): (&i64, &Dim)| match (usize::try_from(*given), dim) {
        (Ok(size), _) => Dim::Known(size),
        (Err(_), Dim::Known(_)) => Dim::symbol("N"),
        (Err(_), free) => free.clone(),
    };
    if given.len() == dims.len() {
        return Some(given.iter().zip(dims).map(dim).collect());
    }
    let (batch, rest) = dims.split_first()?;
    let batch = if batch.known().is_some() { Dim::symbol("N") } else { batch.clone() };
    (given.len() == rest.len()).then(|| std::iter::once(batch).chain(given.iter().zip(rest).map(dim)).collect())
}
