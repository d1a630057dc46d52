//! `inspect`: what is in a graph or in a file of weights, as a table.

use std::path::Path;

use clap::ArgMatches;
use modelport_frontends::kind::{self, Kind};
use modelport_frontends::pytorch::content::Content;
use modelport_frontends::tensorflow::checkpoint::Checkpoint;
use modelport_frontends::tensorflow::{self, Candidate, locate};
use modelport_frontends::{Framework, Source, framework, keras, pytorch};
use modelport_ir::tensor::{FileBytes, Tensor};
use modelport_ir::{DType, Error, Graph, Op, Port, Problem, Result, Shape, codec};
use serde_json::{Value, json};

use crate::args::source_of;
use crate::report::{shape_json, thousands};
use crate::ui::{Ui, bold};

/// What a file holds.
#[derive(Default)]
struct Findings {
    /// What the file is.
    kind: String,
    /// What the rows are.
    what: &'static str,
    rows: Vec<Row>,
    /// What else is to be told of the whole.
    facts: Vec<String>,
    ports: Vec<(&'static str, String, &'static str, Option<Shape>)>,
    problems: Vec<Problem>,
}

/// A line of the table: a node with its operator, or a tensor with its type.
struct Row {
    name: String,
    op: String,
    shape: Option<Shape>,
    parameters: usize,
}

/// Prints what a file holds.
pub fn inspect(matches: &ArgMatches, ui: &mut Ui) -> Result<()> {
    let source = source_of(matches);
    let path = source.network.clone().unwrap_or_default();
    let findings = ui.stage("read", None, |_| look(&path, &source))?;
    ui.report(|| findings.json(&path), || findings.text(&path))
}

fn look(path: &Path, source: &Source) -> Result<Findings> {
    if path.is_file() {
        let kind = FileBytes::open(path).and_then(|file| kind::of(file));
        let kind = kind.map_err(|error| Problem::new(format!("can't be read: {error}")).file(path))?;
        match kind {
            Kind::Npy => return pytorch_file(path, source),
            Kind::Ir | Kind::Json => return neutral_graph(path, source),
            Kind::Table => return checkpoint(path),
            _ => {}
        }
    }
    if keras::is_file(path) {
        return keras_file(path);
    }
    if framework(source) == Framework::PyTorch {
        return pytorch_file(path, source);
    }
    match tensorflow_graph(source) {
        // No graph, but maybe weights: a prefix, a shard, a folder.
        Err(error) => match locate::network(path) {
            Ok(_) => Err(error),
            Err(_) => checkpoint(path).map_err(|_| error),
        },
        found => found,
    }
}

fn keras_file(path: &Path) -> Result<Findings> {
    let stored = keras::open(path)?;
    let mut rows = Vec::new();
    for layer in &stored.layers {
        for variable in &layer.variables {
            let name = format!("{}/{}", layer.name, variable.name);
            rows.push(tensor_row(&name, variable.tensor.dtype(), &variable.tensor.shape()));
        }
    }
    let facts = match &stored.config {
        Some(_) => vec![format!("{} layers with weights, and the configuration of the model", stored.layers.len())],
        None => vec![format!("{} layers with weights", stored.layers.len())],
    };
    Ok(Findings { kind: stored.form.name().to_owned(), what: "tensors", rows, facts, ..Findings::default() })
}

fn pytorch_file(path: &Path, source: &Source) -> Result<Findings> {
    let opened = pytorch::content::open(path)?;
    let kind = opened.format;
    if matches!(opened.content, Content::Script(_) | Content::Exported(_)) {
        let graph = pytorch::read(source)?;
        return Ok(Findings { kind: kind.to_owned(), ..operators(&graph)? });
    }
    let state = pytorch::state::of_content(path, opened, &pytorch::selection(source))?.unstripped();
    let tensors = state.tensors.iter().chain(&state.counters);
    let rows = tensors.map(|(key, tensor)| tensor_row(key, tensor.dtype(), &tensor.shape())).collect();
    let facts = state.class.iter().map(|class| format!("a whole module of the class {class}")).collect();
    Ok(Findings { kind: state.origin(), what: "tensors", rows, facts, ..Findings::default() })
}

fn checkpoint(path: &Path) -> Result<Findings> {
    let checkpoint = Checkpoint::open(path)?;
    let rows = checkpoint.shapes().map(|(name, dtype, shape)| tensor_row(name, dtype, &shape)).collect();
    Ok(Findings { kind: "TensorFlow checkpoint".to_owned(), what: "tensors", rows, ..Findings::default() })
}

fn tensor_row(name: &str, dtype: DType, shape: &[usize]) -> Row {
    let parameters = shape.iter().product();
    Row { name: name.to_owned(), op: dtype.name().to_owned(), shape: Some(Shape::known(shape)), parameters }
}

fn neutral_graph(path: &Path, source: &Source) -> Result<Findings> {
    let graph = codec::load(path, source.weights.as_deref())?;
    let facts = if graph.source.is_empty() { Vec::new() } else { vec![format!("from {}", graph.source)] };
    Ok(Findings { kind: "neutral graph".to_owned(), facts, ..operators(&graph)? })
}

fn operators(graph: &Graph) -> Result<Findings> {
    let mut seen = std::collections::HashSet::new();
    let mut rows = Vec::new();
    for id in graph.order()? {
        let node = graph.node(id);
        if matches!(node.op, Op::Input(_) | Op::Constant(_)) {
            continue;
        }
        let inputs = graph.inputs_of(id).into_iter().flatten();
        let weights = inputs.filter_map(|value| Some((value, graph.tensor(value)?)));
        let is_weight = |tensor: &Tensor| tensor.dtype().is_float() && tensor.numel() > 1;
        let parameters =
            weights.filter(|(value, tensor)| is_weight(tensor) && seen.insert(*value)).map(|(_, t)| t.numel()).sum();
        let shape = node.outputs.first().map(|info| info.shape.clone());
        rows.push(Row { name: node.name.clone(), op: node.op.name(), shape, parameters });
    }
    let port = |kind: &'static str, graph: &Graph, port: &Port| {
        let info = graph.info(port.value);
        (kind, port.name.clone(), info.dtype.name(), Some(info.shape.clone()))
    };
    let inputs = graph.inputs.iter().map(|p| port("input", graph, p));
    let ports = inputs.chain(graph.outputs.iter().map(|p| port("output", graph, p))).collect();
    Ok(Findings { what: "operators", rows, ports, ..Findings::default() })
}

fn tensorflow_graph(source: &Source) -> Result<Findings> {
    let found = tensorflow::inspect(source)?;
    let rows = found.layers.into_iter().map(|layer| Row {
        name: layer.name,
        op: layer.op,
        shape: layer.shape,
        parameters: layer.parameters,
    });
    let end = |kind: &'static str| move |end: Candidate| (kind, format!("{} [{}]", end.name, end.op), "", end.shape);
    let inputs = found.inputs.into_iter().map(|(name, dtype, shape)| ("input", name, dtype.name(), Some(shape)));
    let outputs = found.outputs.into_iter().map(end("output"));
    let label = "candidate";
    Ok(Findings {
        kind: found.kind.to_owned(),
        what: "operators",
        rows: rows.collect(),
        facts: vec![format!("{} nodes in the file, {} variables", thousands(found.nodes), thousands(found.variables))],
        ports: inputs.chain(outputs).chain(found.candidates.into_iter().map(end(label))).collect(),
        problems: found.problems,
    })
}

impl Findings {
    fn parameters(&self) -> usize {
        self.rows.iter().map(|row| row.parameters).sum()
    }

    fn json(&self, path: &Path) -> Value {
        let row = |row: &Row| {
            let shape = row.shape.as_ref().map(shape_json);
            json!({"name": row.name, "op": row.op, "shape": shape, "parameters": row.parameters})
        };
        let port = |(kind, name, dtype, shape): &(&str, String, &str, Option<Shape>)| {
            let name = name.split(" [").next().unwrap_or(name);
            json!({"kind": kind, "name": name, "dtype": dtype, "shape": shape.as_ref().map(shape_json)})
        };
        json!({
            "command": "inspect",
            "file": path.to_string_lossy(),
            "kind": self.kind,
            "parameters": self.parameters(),
            self.what: self.rows.iter().map(row).collect::<Vec<_>>(),
            "ports": self.ports.iter().map(port).collect::<Vec<_>>(),
            "problems": self.problems.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>(),
        })
    }

    fn text(&self, path: &Path) -> String {
        let mut text = format!("{}: {}\n", bold(&path.display().to_string()), self.kind);
        self.facts.iter().for_each(|fact| text.push_str(&format!("{fact}\n")));
        let head = match self.what {
            "tensors" => ["tensor", "type", "shape", "elements"],
            _ => ["node", "op", "output shape", "parameters"],
        };
        let cells: Vec<[String; 4]> = self.rows.iter().map(Row::cells).collect();
        let width = |column: usize| {
            let cells = cells.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain(head.get(column).map(|cell| cell.len())).max().unwrap_or(0)
        };
        let widths = [width(0), width(1), width(2), width(3)];
        let line = |[name, op, shape, parameters]: [&str; 4]| {
            let [a, b, c, d] = widths;
            let line = format!("{name:<a$}  {op:<b$}  {shape:<c$}  {parameters:>d$}");
            format!("{}\n", line.trim_end())
        };
        text.push('\n');
        text.push_str(&bold(&line(head)));
        for cells in &cells {
            text.push_str(&line(cells.each_ref().map(String::as_str)));
        }
        let counts =
            format!("{} {}, {} parameters", thousands(self.rows.len()), self.what, thousands(self.parameters()));
        text.push_str(&format!("\n{}\n", bold(&counts)));
        for (kind, name, dtype, shape) in &self.ports {
            let shape = shape.as_ref().map_or_else(|| "of unknown shape".to_owned(), Shape::to_string);
            let words: Vec<&str> =
                [name.as_str(), *dtype, &shape].into_iter().filter(|word| !word.is_empty()).collect();
            text.push_str(&format!("{kind:<11}{}\n", words.join("  ")));
        }
        if !self.problems.is_empty() {
            let error = Error { problems: self.problems.clone() };
            text.push_str(&format!("\nCan't be converted as it is:\n{error}\n"));
        }
        text
    }
}

impl Row {
    fn cells(&self) -> [String; 4] {
        let shape = self.shape.as_ref().map_or_else(|| "?".to_owned(), Shape::to_string);
        let parameters = if self.parameters == 0 { String::new() } else { thousands(self.parameters) };
        [self.name.clone(), self.op.clone(), shape, parameters]
    }
}
