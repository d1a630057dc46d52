//! Graphs written as text, for tests: `name = Op(input, other:1, ^control) | key=value …`, one node per line.
//!
//! Values: `3`, `0.5`, `true`, `SAME`, `[1, 2]` (no spaces), `:float` (a type), `<?,3>` (a shape),
//! `f32<2>[1,2]`, `i32<>[3]`, `bool<>[1]` (a tensor; missing elements are zero).

use modelport_ir::{DType, Tensor};

use super::graphdef::{Attr, GraphDef, NodeDef, TensorValue};
use super::net::Net;

pub fn graph(text: &str) -> GraphDef {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    GraphDef { nodes: lines.map(node).collect(), functions: Vec::new() }
}

pub fn net(text: &str) -> Net {
    Net::new(graph(text))
}

pub fn node(line: &str) -> NodeDef {
    let (head, attrs) = line.split_once(" | ").unwrap_or((line, ""));
    let (name, call) = head.split_once(" = ").expect("name = Op(…)");
    let (op, inputs) = call.trim().trim_end_matches(')').split_once('(').expect("Op(…)");
    let inputs = inputs.split(',').map(str::trim).filter(|i| !i.is_empty()).map(str::to_owned).collect();
    let attrs = attrs
        .split_whitespace()
        .map(|attr| {
            let (key, value) = attr.split_once('=').expect("key=value");
            (key.to_owned(), self::attr(value))
        })
        .collect();
    NodeDef { name: name.trim().to_owned(), op: op.to_owned(), inputs, attrs }
}

fn attr(text: &str) -> Attr {
    let list = split;
    if let Some(items) = text.strip_prefix('[') {
        return Attr::List(list(items.strip_suffix(']').expect("]")).iter().map(|item| attr(item)).collect());
    }
    if let Some(dims) = text.strip_prefix('<') {
        let dims = list(dims.trim_end_matches('>'));
        return Attr::Shape(Some(dims.iter().map(|d| d.parse().unwrap_or(-1)).collect()));
    }
    if let Some(name) = text.strip_prefix(':') {
        let types =
            [("float", 1), ("double", 2), ("int32", 3), ("int64", 9), ("bool", 10), ("string", 7), ("variant", 21)];
        return Attr::Type(types.iter().find(|t| t.0 == name).expect("a type").1);
    }
    for (prefix, dtype) in
        [("f32<", DType::Float32), ("i32<", DType::Int32), ("i64<", DType::Int64), ("bool<", DType::Bool)]
    {
        if let Some(rest) = text.strip_prefix(prefix) {
            let (dims, values) = rest.split_once('>').expect("shape");
            let shape: Vec<usize> = list(dims).iter().map(|d| d.parse().expect("size")).collect();
            let values = list(values.trim_matches(['[', ']']));
            let values = values.iter().map(|v| v.parse::<f64>().expect("number"));
            return Attr::Tensor(TensorValue::Numbers(Tensor::from_f64(dtype, &shape, values)));
        }
    }
    match text {
        "true" | "false" => Attr::Bool(text == "true"),
        _ => match (text.parse::<i64>(), text.parse::<f32>()) {
            (Ok(i), _) => Attr::Int(i),
            (_, Ok(x)) => Attr::Float(x),
            _ => Attr::Bytes(text.as_bytes().to_vec()),
        },
    }
}

/// Splits at commas that are not inside of brackets.
fn split(text: &str) -> Vec<String> {
    let mut depth = 0;
    let pieces = text.split(|c| {
        depth += i32::from(matches!(c, '<' | '[')) - i32::from(matches!(c, '>' | ']'));
        c == ',' && depth == 0
    });
    pieces.filter(|s| !s.is_empty()).map(str::to_owned).collect()
}
