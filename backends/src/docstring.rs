//! The docstring at the top of generated code: what the network is, its inputs and outputs, and how it is used.

use modelport_ir::{Graph, Layout, Port};

use crate::python::{Namer, WIDTH, snake_case};

/// The lines of the docstring. `title` is the network's name in the code, `inputs` are those of its arguments,
/// `layout` is the target's, and `usage` is what makes the network and calls it.
pub fn docstring(graph: &Graph, title: &str, inputs: &[String], layout: Layout, usage: &[String]) -> Vec<String> {
    let last = |port: &Port| port.name.rsplit('/').next().unwrap_or(&port.name).to_owned();
    let inputs = graph.inputs.iter().enumerate().map(|(i, port)| {
        let name = inputs.get(i).cloned().unwrap_or_else(|| last(port));
        ("Input", name, port)
    });
    let outputs = output_names(graph).into_iter().zip(&graph.outputs).map(|(name, port)| ("Output", name, port));
    let rows: Vec<[String; 4]> = inputs
        .chain(outputs)
        .map(|(kind, name, port)| {
            let info = graph.info(port.value);
            let source = source_of(graph, port, &name, layout);
            [kind.to_owned(), name, format!("{} {}", info.dtype, info.shape), source]
        })
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (name_width, type_width) = (width(1), width(2));
    let mut lines = vec![format!("{title}, converted from {}.", origin(&graph.source)), String::new()];
    for [kind, name, dtype, source] in &rows {
        let line = format!("{kind:<8} {name:<name_width$}  {dtype:<type_width$}  {source}").trim_end().to_owned();
        if line.chars().count() > WIDTH {
            lines.push(format!("{kind:<8} {name:<name_width$}  {dtype}"));
            lines.push(format!("{:<9}{source}", ""));
        } else {
            lines.push(line);
        }
    }
    lines.push(String::new());
    lines.extend(usage.iter().map(|line| format!("    {line}")));
    lines.into_iter().map(|line| line.replace('\\', "\\\\").replace("\"\"\"", "'''")).collect()
}

/// Longest list of results that is written out in the example.
const LONGEST: usize = 60;

/// What the results of a call are called: `y`, or the outputs' names.
pub fn results(graph: &Graph) -> String {
    match graph.outputs.len() {
        1 => "y".to_owned(),
        _ => {
            let mut namer = Namer::default();
            let names: Vec<String> = output_names(graph).iter().map(|name| namer.take(&snake_case(name))).collect();
            Some(names.join(", ")).filter(|names| names.len() <= LONGEST).unwrap_or_else(|| "outputs".to_owned())
        }
    }
}

/// The last word of every output's name that says something, and differs from the others' where any does.
fn output_names(graph: &Graph) -> Vec<String> {
    let paths: Vec<Vec<&str>> = graph.outputs.iter().map(|port| port.name.split('/').collect()).collect();
    let said = |path: &[&str]| (1..path.len()).rev().find(|&at| !is_operator(path[at])).unwrap_or(0);
    let name = |path: &Vec<&str>| {
        let own = path[said(path)];
        let others = || paths.iter().filter(|other| *other != path);
        if others().all(|other| other[said(other)] != own) {
            return own.to_owned();
        }
        let differs = |at: &usize| others().all(|other| other.get(*at) != path.get(*at));
        (0..path.len()).rev().find(differs).map_or(own, |at| path[at]).to_owned()
    };
    paths.iter().map(name).collect()
}

/// Whether a name only says which operator it is: `BiasAdd`, `SpatialSqueeze`, `Reshape_1`.
fn is_operator(name: &str) -> bool {
    const OPERATORS: &[&str] = &[
        "Add", "AddV2", "BiasAdd", "Conv2D", "Identity", "MatMul", "Mean", "Mul", "Relu", "Reshape", "Sigmoid",
        "Softmax", "Squeeze", "Tanh",
    ];
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let stem = stem.strip_suffix('_').unwrap_or(name);
    stem == "add" || OPERATORS.iter().any(|operator| stem.ends_with(operator))
}

/// "TensorFlow: x.meta" → "TensorFlow (x.meta)"; of a recognised state dict the reasons are left out.
fn origin(source: &str) -> String {
    match source.split_once(": ") {
        Some((what, _)) if what.contains("recognised as") => format!("a {what}"),
        Some((framework, file)) => format!("{framework} ({file})"),
        None if source.is_empty() => "a graph".to_owned(),
        None => source.to_owned(),
    }
}

/// What the source calls a port, and which layout it has there, where either differs.
fn source_of(graph: &Graph, port: &Port, name: &str, layout: Layout) -> String {
    let rank = graph.shape(port.value).rank();
    let layout = port.permutation.as_ref().map(|permutation| {
        let other = match layout {
            Layout::ChannelsFirst => Layout::ChannelsLast,
            Layout::ChannelsLast => Layout::ChannelsFirst,
        };
        let words = match (other, rank) {
            (Layout::ChannelsLast, 4) => "NHWC",
            (Layout::ChannelsLast, 5) => "NDHWC",
            (Layout::ChannelsLast, _) => "channels last",
            (Layout::ChannelsFirst, 4) => "NCHW",
            (Layout::ChannelsFirst, 5) => "NCDHW",
            (Layout::ChannelsFirst, _) => "channels first",
        };
        match *permutation == other.permutation_to(layout, rank) {
            true => words.to_owned(),
            false => format!("transposed by {permutation:?}"),
        }
    });
    let name = (port.name != name).then(|| port.name.clone());
    match name.into_iter().chain(layout).collect::<Vec<_>>() {
        said if said.is_empty() => String::new(),
        said => format!("source: {}", said.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::origin;

    #[test]
    fn origins() {
        assert_eq!(origin("TensorFlow: x.meta"), "TensorFlow (x.meta)");
        assert_eq!(origin("PyTorch state dict, recognised as vgg: all"), "a PyTorch state dict, recognised as vgg");
        assert_eq!(origin(""), "a graph");
    }
}
