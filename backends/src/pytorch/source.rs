//! The text around the calls: docstring, imports, classes, `load`; printed by `templates/pytorch.py.tera`.

use modelport_ir::{DType, Error, Graph, Layout, Result};
use serde::Serialize;

use super::Options;
use super::build::torch_dtype;
use super::recurrent::RESET_BEFORE;
use super::weight_norm;
use crate::docstring::results;
use crate::plan::{Class, LayerList, MemberKind, Program};
use crate::python::{Arg, Expr, Lit, comment, is_attribute, noted, signature, statement};

const TEMPLATE: &str = include_str!("../../../templates/pytorch.py.tera");
/// More scopes than this are not listed in a class's docstring.
const LISTED: usize = 8;

#[derive(Serialize)]
struct ClassText {
    name: String,
    base: String,
    init_super: Vec<String>,
    doc: Vec<String>,
    /// Of attributes that a type checker can't see in `__init__`.
    types: Vec<String>,
    init_head: Vec<String>,
    init: Vec<String>,
    forward_head: Vec<String>,
    body: Vec<String>,
}

/// The Python file.
///
/// # Errors
/// When the template is broken, which is a mistake in modelport.
pub fn render(graph: &Graph, program: &Program, options: &Options) -> Result<String> {
    let network = program.classes.last().map(|class| class.name.clone()).unwrap_or_default();
    let classes: Vec<ClassText> = program.classes.iter().map(class_text).collect();
    let uses = |word: &str| {
        classes.iter().any(|class| class.init.iter().chain(&class.body).any(|line| contains_name(line, word)))
    };
    // What PyTorch lacks has a class of its own.
    let (name, text) = RESET_BEFORE;
    let support: Vec<&str> = if uses(&format!("{name}(")) { vec![text.trim_end()] } else { Vec::new() };
    let mut imports = vec!["import torch".to_owned()];
    if uses("F.") || !support.is_empty() {
        imports.push("import torch.nn.functional as F".to_owned());
    }
    if uses("OrderedDict(") {
        imports.splice(0..0, ["from collections import OrderedDict".to_owned(), String::new()]);
    }
    imports.push("from torch import Tensor, nn".to_owned());
    if uses(&format!("{}(", weight_norm::CURRENT)) {
        imports.push(format!("from torch.nn.utils.parametrizations import {}", weight_norm::CURRENT));
    }

    let mut context = tera::Context::new();
    context.insert("doc", &docstring(graph, program, options));
    context.insert("imports", &imports);
    context.insert("lists", &program.lists.iter().map(list_text).collect::<Vec<_>>());
    context.insert("support", &support);
    context.insert("classes", &classes);
    context.insert("network", &network);
    context.insert("weights", &Lit::Str(options.weights_file.clone()).to_string());
    context.insert("kit_model", &options.kit_model);
    context.insert("restore", &options.restore);
    let mut members = program.classes.iter().flat_map(|class| &class.members);
    context.insert("constants", &members.any(|(kind, _, ctor)| *kind == MemberKind::Constant && is_stored(ctor)));
    context.insert("dtype", &element_type(program));
    // Said of a whole module, PyTorch takes it for kernels of two spatial axes alone.
    let ranks: Vec<usize> = program.params.iter().map(|param| param.tensor.rank()).collect();
    context.insert("channels_last", &(options.inference && ranks.contains(&4) && !ranks.contains(&5)));
    let mut tera = tera::Tera::default();
    tera.autoescape_on(Vec::new());
    let text = tera.add_raw_template("pytorch.py", TEMPLATE).and_then(|()| tera.render("pytorch.py", &context));
    text.map_err(|error| {
        use std::error::Error as _;
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        Error::new(format!("the PyTorch template can't be rendered: {error}{cause}"))
    })
}

fn contains_name(line: &str, word: &str) -> bool {
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.'))
}

fn docstring(graph: &Graph, program: &Program, options: &Options) -> Vec<String> {
    let network = program.classes.last();
    let title = network.map_or("Network", |class| class.name.as_str());
    let inputs = network.map(|class| class.body.args.clone()).unwrap_or_default();
    let args = match inputs.as_slice() {
        [x] if x == "x" && graph.inputs.iter().all(|port| graph.shape(port.value).rank() == 4) => "images".to_owned(),
        _ => inputs.join(", "),
    };
    let usage = [
        format!("model = load({})  # in eval mode", Lit::Str(options.weights_file.clone())),
        format!("{} = model({args})", results(graph)),
    ];
    crate::docstring::docstring(graph, title, &inputs, Layout::ChannelsFirst, &usage)
}

/// What all weights are, where that is not what modules are made with: `torch.float16`.
fn element_type(program: &Program) -> Option<String> {
    let mut types = program.params.iter().map(|param| param.tensor.dtype()).filter(|dtype| dtype.is_float());
    let first = types.next().filter(|dtype| *dtype != DType::Float32)?;
    types.all(|dtype| dtype == first).then(|| torch_dtype(first))
}

/// Whether a member gets its elements from the weights file.
fn is_stored(ctor: &Expr) -> bool {
    matches!(ctor, Expr::Call(function, _) if **function == Expr::name("torch.zeros"))
}

/// `torch.full((…), nan)` in the place of zeros.
fn unset(ctor: &Expr) -> Expr {
    let Expr::Call(_, args) = ctor else { return ctor.clone() };
    let (sizes, dtype): (Vec<&Arg>, Vec<&Arg>) = args.iter().partition(|arg| arg.name.is_none());
    if !is_stored(ctor) || !dtype.is_empty() {
        return ctor.clone();
    }
    let shape = Expr::Tuple(sizes.into_iter().map(|arg| arg.value.clone()).collect());
    Expr::call("torch.full", vec![Arg::new(shape), Arg::new(Expr::slot("value", Lit::float(f32::NAN)))])
}

fn buffer(name: &str, ctor: &Expr, persistent: bool) -> Expr {
    let persistent = Expr::slot("persistent", Lit::Bool(persistent));
    let name = Expr::slot("name", Lit::Str(name.to_owned()));
    let persistent = Arg::keyword("persistent", persistent, Some(Lit::Bool(true)));
    Expr::call("self.register_buffer", vec![Arg::new(name), Arg::new(ctor.clone()), persistent])
}

/// Modules that are made in a loop.
fn row(name: &str, ctor: &Expr) -> Vec<String> {
    let Expr::Repeat(entry, count) = ctor else { return Vec::new() };
    let add = Expr::call("self.add_module", vec![Arg::new(Expr::name(name)), Arg::new((**entry).clone())]);
    let mut lines = vec![format!("        for i in range({count}):")];
    lines.extend(statement(12, "", &add));
    lines
}

/// A function that lists layers.
fn list_text(list: &LayerList) -> Vec<String> {
    let args: Vec<String> = list.args.iter().map(ToString::to_string).collect();
    let mut lines = signature(0, &list.name, &args, " -> list[nn.Module]");
    lines.extend(statement(4, "return ", &Expr::List(list.layers.clone())));
    lines
}

fn class_text(class: &Class) -> ClassText {
    let (base, settings) = match (&class.chain, &class.base) {
        (Some(entries), _) => ("nn.Sequential".to_owned(), entries.clone()),
        (None, Some(Expr::Call(layer, settings))) => (layer.to_string(), settings.clone()),
        (None, _) => ("nn.Module".to_owned(), Vec::new()),
    };
    let init_super = statement(8, "", &Expr::call("super().__init__", settings));
    let mut init = Vec::new();
    for (name, value) in &class.kept_args {
        init.push(format!("        self.{name} = {value}"));
    }
    for (kind, name, ctor) in &class.members {
        let (prefix, expr) = match kind {
            MemberKind::Row => {
                init.extend(row(name, ctor));
                continue;
            }
            MemberKind::Base => continue,
            MemberKind::Module if !is_attribute(name) => (
                String::new(),
                Expr::call(
                    "self.add_module",
                    vec![Arg::new(Expr::slot("name", Lit::Str(name.clone()))), Arg::new(ctor.clone())],
                ),
            ),
            MemberKind::Module => (format!("self.{name} = "), ctor.clone()),
            MemberKind::Parameter => {
                (format!("self.{name} = "), Expr::call("nn.Parameter", vec![Arg::new(ctor.clone())]))
            }
            MemberKind::Buffer => (String::new(), buffer(name, ctor, true)),
            // In the weights file, where nothing else makes it; its elements are never there by chance.
            MemberKind::Constant => (String::new(), buffer(name, &unset(ctor), false)),
        };
        init.extend(noted(statement(8, &prefix, &expr), class.notes.get(name)));
    }
    for (to, from) in &class.ties {
        init.push(format!("        {to} = {from}"));
    }
    let mut body = Vec::new();
    for (targets, expr) in &class.body.statements {
        let prefix = match (targets.as_slice(), super::recurrent::gives_states(expr)) {
            ([], _) => String::new(),
            ([y, ..], true) if targets.iter().skip(1).all(|name| name == "_") => format!("{y}, _ = "),
            ([y, h, c], true) => format!("{y}, ({h}, {c}) = "),
            _ => format!("{} = ", targets.join(", ")),
        };
        body.extend(statement(8, &prefix, expr));
    }
    let returns = match class.body.result.as_slice() {
        [one] => {
            body.extend(statement(8, "return ", one));
            "Tensor"
        }
        many => {
            let items: Vec<String> = many.iter().map(ToString::to_string).collect();
            let line = format!("        return {}", items.join(", "));
            if line.chars().count() <= crate::python::WIDTH {
                body.push(line);
            } else {
                body.extend(statement(8, "return ", &Expr::Tuple(many.to_vec())));
            }
            "tuple[Tensor, ...]"
        }
    };
    let args = class.args.iter().map(ToString::to_string);
    let is_list = |index: usize| class.body.lists.get(index).copied().unwrap_or(false);
    let inputs = class.body.args.iter().enumerate();
    let inputs =
        inputs.map(|(index, name)| format!("{name}: {}", if is_list(index) { "list[Tensor]" } else { "Tensor" }));
    let inputs = std::iter::once("self".to_owned()).chain(inputs);
    let buffers = class.members.iter().filter(|(kind, name, _)| *kind == MemberKind::Buffer && is_attribute(name));
    let doc = match class.scopes.as_slice() {
        [] => Vec::new(),
        scopes if scopes.len() > LISTED => Vec::new(),
        scopes => {
            comment("", &format!("\"\"\"{}.\"\"\"", scopes.join(", ").replace('\\', "\\\\").replace("\"\"\"", "'''")))
        }
    };
    ClassText {
        name: class.name.clone(),
        base,
        init_super,
        doc,
        types: buffers.map(|(_, name, _)| format!("{name}: Tensor")).collect(),
        init_head: signature(4, "__init__", &std::iter::once("self".to_owned()).chain(args).collect::<Vec<_>>(), ""),
        init,
        forward_head: if class.body.result.is_empty() {
            Vec::new()
        } else {
            signature(4, "forward", &inputs.collect::<Vec<_>>(), &format!(" -> {returns}"))
        },
        body: if class.body.result.is_empty() { Vec::new() } else { body },
    }
}
