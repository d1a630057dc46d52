//! The text around the calls: docstring, imports, functions, `load`; printed by `templates/keras.py.tera`.

use modelport_ir::{Error, Graph, Layout, Result};

use super::Options;
use super::build::PARAMETER;
use super::functional::{Function, Statement};
use super::pooling::AVERAGE_POOL;
use super::trace::input_name;
use super::version2;
use crate::docstring::results;
use crate::python::{Expr, Lit, comment, noted, signature, statement};

const TEMPLATE: &str = include_str!("../../../templates/keras.py.tera");
/// More scopes than this are not listed in a function's docstring.
const LISTED: usize = 8;

/// The function that gives a tensor of weights which belongs to no layer.
const PARAMETER_CODE: &str = r#"def parameter(x, shape, trainable=True, name=None):
    """Weights that belong to no layer. Keras keeps weights in layers: here as what a one is multiplied by."""
    one = ops.ones_like(ops.reshape(x, (-1, 1))[:1, :], dtype="float32")
    weights = layers.Dense(math.prod(shape), use_bias=False, trainable=trainable, name=name)(one)
    return ops.reshape(weights, shape)"#;

/// Averages over images of `n` axes that leave out padding.
fn average_pool_code(n: usize) -> String {
    format!(
        r#"def average_pool{n}d(x, pool_size, strides, padding):
    """Means without what is padding, which AveragePooling{n}D does not leave out on all backends."""
    pad, pool = layers.ZeroPadding{n}D(padding), layers.AveragePooling{n}D(pool_size, strides)
    return pool(pad(x)) / pool(pad(ops.ones_like(x[:1, ..., :1])))"#
    )
}

/// The Python file.
///
/// # Errors
/// When the template is broken, which is a mistake in modelport.
pub fn render(graph: &Graph, functions: &[Function], options: &Options) -> Result<String> {
    let version = options.version;
    let count = functions.len();
    let texts: Vec<Vec<String>> = functions
        .iter()
        .enumerate()
        .map(|(i, function)| if i + 1 == count { build(graph, function, version) } else { text(function, version) })
        .collect();
    let uses = |texts: &[Vec<String>], word: &str| texts.iter().flatten().any(|line| line.contains(word));
    let has_parameters = uses(&texts, &format!("{PARAMETER}("));
    let averages =
        (1..=3).filter(|n| uses(&texts, &format!("{AVERAGE_POOL}{n}d("))).map(average_pool_code).collect::<Vec<_>>();
    let helpers = has_parameters.then(|| PARAMETER_CODE.to_owned()).into_iter().chain(averages);
    let helpers = helpers.map(|code| if version == 2 { version2::text(&code) } else { code });
    let texts: Vec<Vec<String>> = helpers.map(|code| code.lines().map(str::to_owned).collect()).chain(texts).collect();
    let mut imports = Vec::new();
    if has_parameters {
        imports.extend(["import math", ""]);
    }
    let has_layers = uses(&texts, "layers.");
    if version == 2 {
        if uses(&texts, "tf.") {
            imports.push("import tensorflow as tf");
        }
        imports.push("from tensorflow import keras");
        if has_layers {
            imports.push("from tensorflow.keras import layers");
        }
    } else {
        imports.push("import keras");
        match (has_layers, uses(&texts, "ops.")) {
            (true, true) => imports.push("from keras import layers, ops"),
            (true, false) => imports.push("from keras import layers"),
            (false, true) => imports.push("from keras import ops"),
            (false, false) => {}
        }
    }
    let mut context = tera::Context::new();
    context.insert("doc", &docstring(graph, functions, options));
    context.insert("imports", &imports);
    context.insert("functions", &texts);
    context.insert("weights", &Lit::Str(options.weights_file.clone()).to_string());
    context.insert("kit_model", &options.kit_model);
    context.insert("version", &version);
    context.insert("bidirectional", &uses(&texts, "layers.Bidirectional("));
    let mut tera = tera::Tera::default();
    tera.autoescape_on(Vec::new());
    let text = tera.add_raw_template("keras.py", TEMPLATE).and_then(|()| tera.render("keras.py", &context));
    text.map_err(|error| {
        use std::error::Error as _;
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        Error::new(format!("the Keras template can't be rendered: {error}{cause}"))
    })
}

fn docstring(graph: &Graph, functions: &[Function], options: &Options) -> Vec<String> {
    let network = functions.last();
    let title = network.map_or("network", |function| function.name.as_str());
    let inputs: Vec<String> = network
        .map(|network| network.inputs.iter().map(|name| input_name(name).to_owned()).collect())
        .unwrap_or_default();
    let args = if inputs.len() == 1 { inputs.join("") } else { format!("[{}]", inputs.join(", ")) };
    let usage = [
        format!("model = load({})", Lit::Str(options.weights_file.clone())),
        format!("{} = model({args})  # training=True for batches to train on", results(graph)),
    ];
    crate::docstring::docstring(graph, title, &inputs, Layout::ChannelsLast, &usage)
}

fn body(function: &Function, version: u8) -> Vec<String> {
    let said = |expr: &Expr| if version == 2 { version2::expression(expr) } else { expr.clone() };
    let mut lines = Vec::new();
    let note = |expr: &Expr| {
        let mut note = None;
        expr.visit(&mut |part| {
            if let Expr::Name(name) = part {
                note = note.or(function.notes.get(name));
            }
        });
        note
    };
    for item in &function.statements {
        match item {
            // What is only done under a condition.
            Statement::Assign(targets, Expr::If(some, test, none)) if **none == Expr::name(&targets.join(", ")) => {
                lines.push(format!("    if {}:", said(test)));
                lines.extend(statement(8, &format!("{} = ", targets.join(", ")), &said(some)));
            }
            Statement::Assign(targets, expr) => {
                let assigned = statement(4, &format!("{} = ", targets.join(", ")), &said(expr));
                lines.extend(noted(assigned, note(expr)));
            }
            Statement::Loop { start, end, target, call } => {
                let range = if *start == 0 { end.to_string() } else { format!("{start}, {end}") };
                lines.push(format!("    for i in range({range}):"));
                lines.extend(statement(8, &format!("{target} = "), &said(call)));
            }
        }
    }
    lines
}

/// A function that builds a block.
fn text(function: &Function, version: u8) -> Vec<String> {
    let args = function.args.iter().map(|arg| match &arg.default {
        Some(default) => format!("{}={default}", arg.name),
        None => arg.name.clone(),
    });
    let mut args: Vec<String> = function.inputs.iter().cloned().chain(args).collect();
    let mut lines = Vec::new();
    // Behind a default only a keyword can have none.
    if function.args.iter().any(|arg| arg.default.is_some()) {
        args.push("*".to_owned());
    }
    args.push("name".to_owned());
    lines.extend(signature(0, &function.name, &args, ""));
    let scopes = if function.scopes.len() <= LISTED { function.scopes.join(", ") } else { String::new() };
    let said = [scopes.as_str(), function.shapes.as_str()].into_iter().filter(|part| !part.is_empty());
    let doc = said.collect::<Vec<_>>().join(": ").replace('\\', "\\\\").replace("\"\"\"", "'''");
    if !doc.is_empty() {
        lines.extend(comment("    ", &format!("\"\"\"{doc}.\"\"\"")));
    }
    lines.extend(body(function, version));
    let said = |expr: &Expr| if version == 2 { version2::expression(expr) } else { expr.clone() };
    match function.result.as_slice() {
        [one] => lines.extend(statement(4, "return ", &said(one))),
        many => {
            let items: Vec<String> = many.iter().map(|expr| said(expr).to_string()).collect();
            lines.push(format!("    return {}", items.join(", ")));
        }
    }
    lines
}

/// The function that builds the network.
fn build(graph: &Graph, function: &Function, version: u8) -> Vec<String> {
    let mut lines = vec!["def build() -> keras.Model:".to_owned()];
    lines.push("    \"\"\"The network, with new weights.\"\"\"".to_owned());
    let inputs: Vec<String> = graph
        .inputs
        .iter()
        .zip(&function.inputs)
        .map(|(port, name)| {
            let info = graph.info(port.value);
            let size = |dim: &modelport_ir::Dim| dim.known().map_or(Lit::None, Lit::size);
            let sizes: Vec<Lit> = info.shape.iter().map(size).collect();
            let shape = match sizes.split_first() {
                Some((Lit::None, rest)) => Lit::Tuple(rest.to_vec()).to_string(),
                _ => format!("batch_shape={}", Lit::Tuple(sizes)),
            };
            let dtype = match info.dtype {
                modelport_ir::DType::Float32 => String::new(),
                other => format!(", dtype=\"{other}\""),
            };
            format!("keras.Input({shape}{dtype}, name=\"{}\")", input_name(name))
        })
        .collect();
    match (function.inputs.as_slice(), inputs.as_slice()) {
        ([name], [input]) => lines.push(format!("    inputs = {name} = {input}")),
        (names, inputs) => {
            lines.push("    inputs = [".to_owned());
            lines.extend(inputs.iter().map(|input| format!("        {input},")));
            lines.push("    ]".to_owned());
            lines.push(format!("    {} = inputs", names.join(", ")));
        }
    }
    lines.extend(body(function, version));
    let said = |expr: &Expr| if version == 2 { version2::expression(expr) } else { expr.clone() };
    let outputs = match function.result.as_slice() {
        [one] => said(one),
        many => Expr::List(many.iter().map(said).collect()),
    };
    use crate::python::Arg;
    let name = Expr::slot("name", Lit::Str(function.name.clone()));
    let model = Expr::call(
        "keras.Model",
        vec![Arg::new(Expr::name("inputs")), Arg::new(outputs), Arg::keyword("name", name, None)],
    );
    lines.extend(statement(4, "return ", &model));
    lines
}
