//! The text around the calls: docstring, imports, classes, `load`; printed by `templates/pytorch.py.tera`.

use modelport_ir::{Error, Graph, Layout, Port, Result};
use serde::Serialize;

use super::Options;
use crate::plan::{Class, MemberKind, Program};
use crate::python::{Expr, Lit, comment, is_attribute, signature, statement};

const TEMPLATE: &str = include_str!("../../../templates/pytorch.py.tera");
/// More scopes than this are not listed in a class's docstring.
const LISTED: usize = 8;

#[derive(Serialize)]
struct ClassText {
    name: String,
    base: &'static str,
    init_super: Vec<String>,
    doc: Vec<String>,
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
    let mut imports = vec!["import torch".to_owned()];
    if uses("F.") {
        imports.push("import torch.nn.functional as F".to_owned());
    }
    if uses("OrderedDict(") {
        imports.splice(0..0, ["from collections import OrderedDict".to_owned(), String::new()]);
    }
    imports.push("from torch import Tensor, nn".to_owned());

    let mut context = tera::Context::new();
    context.insert("doc", &docstring(graph, program, options));
    context.insert("imports", &imports);
    context.insert("classes", &classes);
    context.insert("network", &network);
    context.insert("weights", &Lit::Str(options.weights_file.clone()).to_string());
    context.insert("kit_model", &options.kit_model);
    context.insert("restore", &options.restore);
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
    let title = program.classes.last().map_or("Network", |class| class.name.as_str());
    let mut lines = vec![format!("{title}, converted from {}.", source_words(&graph.source)), String::new()];
    let ports: Vec<(&str, &Port)> = graph
        .inputs
        .iter()
        .map(|port| ("Input", port))
        .chain(graph.outputs.iter().map(|port| ("Output", port)))
        .collect();
    let last = program.classes.last();
    let names: Vec<String> = ports
        .iter()
        .enumerate()
        .map(|(i, (kind, port))| match (*kind, last.and_then(|class| class.body.args.get(i))) {
            ("Input", Some(name)) => name.clone(),
            _ => port.name.rsplit('/').next().unwrap_or(&port.name).to_owned(),
        })
        .collect();
    let types: Vec<String> = ports
        .iter()
        .map(|(_, port)| {
            let info = graph.info(port.value);
            format!("{} {}", info.dtype, info.shape)
        })
        .collect();
    let name_width = names.iter().map(String::len).max().unwrap_or(0);
    let type_width = types.iter().map(String::len).max().unwrap_or(0);
    for (((kind, port), name), dtype) in ports.iter().zip(&names).zip(&types) {
        let layout = layout_words(graph, port);
        let line = format!("{kind:<8} {name:<name_width$}  {dtype:<type_width$}  source: {}{layout}", port.name);
        lines.push(line.trim_end().to_owned());
    }
    lines.push(String::new());
    let args: Vec<String> = graph.inputs.iter().zip(&names).map(|(_, name)| name.clone()).collect();
    let call = if args == ["x"] { "images".to_owned() } else { args.join(", ") };
    let call =
        if graph.inputs.len() == 1 && graph.shape(graph.inputs[0].value).rank() != 4 { args.join(", ") } else { call };
    lines.push(format!("    model = load({})  # in eval mode", Lit::Str(options.weights_file.clone())));
    let results: Vec<String> = (1..=graph.outputs.len()).map(|i| format!("y{i}")).collect();
    let results = if results.len() == 1 { "y".to_owned() } else { results.join(", ") };
    lines.push(format!("    {results} = model({call})"));
    lines.into_iter().map(|line| line.replace('\\', "\\\\").replace("\"\"\"", "'''")).collect()
}

/// "TensorFlow: x.meta" → "TensorFlow (x.meta)".
fn source_words(source: &str) -> String {
    match source.split_once(": ") {
        Some((framework, file)) => format!("{framework} ({file})"),
        None if source.is_empty() => "a graph".to_owned(),
        None => source.to_owned(),
    }
}

/// Which layout the source had, where the target's differs.
fn layout_words(graph: &Graph, port: &Port) -> String {
    let rank = graph.shape(port.value).rank();
    let Some(perm) = &port.permutation else { return String::new() };
    if *perm == Layout::ChannelsLast.permutation_to(Layout::ChannelsFirst, rank) {
        return match rank {
            4 => ", NHWC".to_owned(),
            5 => ", NDHWC".to_owned(),
            _ => ", channels last".to_owned(),
        };
    }
    format!(", transposed by {perm:?}")
}

fn is_zeros(ctor: &Expr) -> bool {
    matches!(ctor, Expr::Call(function, _) if **function == Expr::name("torch.zeros"))
}

fn class_text(class: &Class) -> ClassText {
    let init_super = match &class.chain {
        Some(entries) => statement(8, "", &Expr::call("super().__init__", entries.clone())),
        None => vec!["        super().__init__()".to_owned()],
    };
    let mut init = Vec::new();
    for (name, value) in &class.kept_args {
        init.push(format!("        self.{name} = {value}"));
    }
    for (kind, name, ctor) in &class.members {
        let (prefix, expr) = match kind {
            MemberKind::Module if !is_attribute(name) => (
                String::new(),
                Expr::call(
                    "self.add_module",
                    vec![
                        crate::python::Arg::new(Expr::slot("name", Lit::Str(name.clone()))),
                        crate::python::Arg::new(ctor.clone()),
                    ],
                ),
            ),
            MemberKind::Module => (format!("self.{name} = "), ctor.clone()),
            MemberKind::Parameter => {
                (format!("self.{name} = "), Expr::call("nn.Parameter", vec![crate::python::Arg::new(ctor.clone())]))
            }
            MemberKind::Buffer => (
                String::new(),
                Expr::call(
                    "self.register_buffer",
                    vec![
                        crate::python::Arg::new(Expr::slot("name", Lit::Str(name.clone()))),
                        crate::python::Arg::new(ctor.clone()),
                        // What is made with its elements is in no weights file.
                        crate::python::Arg::keyword(
                            "persistent",
                            Expr::slot("persistent", Lit::Bool(is_zeros(ctor))),
                            Some(Lit::Bool(true)),
                        ),
                    ],
                ),
            ),
        };
        init.extend(statement(8, &prefix, &expr));
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
    let args = class.args.iter().map(|(name, default)| match default {
        Some(default) => format!("{name}={default}"),
        None => name.clone(),
    });
    let inputs = class.body.args.iter().map(|name| format!("{name}: Tensor"));
    let inputs = std::iter::once("self".to_owned()).chain(inputs);
    let doc = match class.scopes.as_slice() {
        [] => Vec::new(),
        scopes if scopes.len() > LISTED => Vec::new(),
        scopes => comment("", &format!("\"\"\"{}.\"\"\"", scopes.join(", ").replace('\\', "\\\\"))),
    };
    ClassText {
        name: class.name.clone(),
        base: if class.chain.is_some() { "nn.Sequential" } else { "nn.Module" },
        init_super,
        doc,
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
