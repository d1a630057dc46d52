//! Functions of the library: calls, and branches that are decided, are replaced by the bodies. The nodes of a body
//! take the name of the calling node as their scope.

use std::collections::{BTreeMap, HashMap, HashSet};

use modelport_ir::{Error, Result};

use super::clean::Resolver;
use super::graphdef::{Attr, FunctionDef, GraphDef, NodeDef};
use super::loops;
use super::net::Net;

/// How deep functions may call functions.
const MAX_DEPTH: usize = 64;
/// How many nodes a graph may have in the end.
const MAX_NODES: usize = 2_000_000;

/// Replaces all calls by the functions' bodies.
///
/// # Errors
/// When functions nest without end or grow without measure.
pub fn inline(mut def: GraphDef, training: bool) -> Result<GraphDef> {
    let functions: HashMap<String, FunctionDef> =
        std::mem::take(&mut def.functions).into_iter().map(|f| (f.name.clone(), f)).collect();
    if functions.is_empty() {
        return Ok(def);
    }
    for _ in 0..MAX_DEPTH {
        let net = Net::new(def);
        let calls = calls(&net, training, &functions);
        def = GraphDef { nodes: net.into_nodes(), functions: Vec::new() };
        let is_loop = |node: &NodeDef| matches!(node.op.as_str(), "While" | "StatelessWhile");
        if calls.is_empty() && !def.nodes.iter().any(is_loop) {
            return Ok(def);
        }
        let mut names: HashSet<String> = def.nodes.iter().map(|node| node.name.clone()).collect();
        let mut nodes = Vec::with_capacity(def.nodes.len());
        for (index, node) in def.nodes.into_iter().enumerate() {
            match calls.get(&index).and_then(|call| Some((call, functions.get(&call.function)?))) {
                Some((call, function)) => expand(node, call, function, &mut names, &mut nodes),
                None if is_loop(&node) => write_loop(node, &mut nodes),
                None => nodes.push(node),
            }
            if nodes.len() > MAX_NODES {
                return Err(Error::new(format!("the graph's functions grow to more than {MAX_NODES} nodes")));
            }
        }
        def.nodes = nodes;
    }
    Err(Error::new(format!("the graph's functions call each other more than {MAX_DEPTH} deep")))
}

struct Call {
    function: String,
    /// How many of the node's inputs come before the arguments.
    skip: usize,
}

fn calls(net: &Net, training: bool, functions: &HashMap<String, FunctionDef>) -> HashMap<usize, Call> {
    let mut resolver = None;
    let mut calls = HashMap::new();
    for (index, node) in net.nodes().iter().enumerate() {
        let mut decide = || {
            let resolver = resolver.get_or_insert_with(|| Resolver::new(net, training, HashSet::new()));
            decision(net, resolver, index)
        };
        let call = match node.op.as_str() {
            "PartitionedCall" | "StatefulPartitionedCall" | "TPUPartitionedCall" => {
                node.function("f").map(|f| (f.to_owned(), 0))
            }
            "If" | "StatelessIf" => decide().and_then(|choice| {
                let branch = if choice != 0 { "then_branch" } else { "else_branch" };
                Some((node.function(branch)?.to_owned(), 1))
            }),
            "Case" | "StatelessCase" => decide().and_then(|choice| match node.attrs.get("branches") {
                // Any other number means the last branch.
                Some(Attr::List(branches)) => {
                    let branch = usize::try_from(choice).ok().and_then(|i| branches.get(i)).or(branches.last());
                    match branch {
                        Some(Attr::Function(name)) => Some((name.clone(), 1)),
                        _ => None,
                    }
                }
                _ => None,
            }),
            op if functions.contains_key(op) => Some((op.to_owned(), 0)),
            _ => None,
        };
        if let Some((function, skip)) = call.filter(|(function, _)| functions.contains_key(function)) {
            calls.insert(index, Call { function, skip });
        }
    }
    calls
}

/// The number that chooses a branch, when it is known.
fn decision(net: &Net, resolver: &Resolver, index: usize) -> Option<i64> {
    let choice = net.input(index, 0)?;
    if let Some(truth) = resolver.truth(choice) {
        return Some(i64::from(truth));
    }
    let constant = net.node(resolver.resolve(choice).node).tensor("value").filter(|tensor| tensor.numel() == 1)?;
    constant.to_i64().ok()?.first().copied()
}

fn expand(
    call_node: NodeDef,
    call: &Call,
    function: &FunctionDef,
    names: &mut HashSet<String>,
    nodes: &mut Vec<NodeDef>,
) {
    let taken = |scope: &str| function.nodes.iter().any(|body| names.contains(&format!("{scope}/{}", body.name)));
    let candidates = (0usize..).map(|i| match i {
        0 => call_node.name.clone(),
        _ => format!("{}_{i}", call_node.name),
    });
    let scope = candidates.take(names.len() + 2).find(|scope| !taken(scope)).unwrap_or_default();

    let (controls, data): (Vec<String>, Vec<String>) = call_node.inputs.into_iter().partition(|i| i.starts_with('^'));
    let data: Vec<String> = data.into_iter().skip(call.skip).collect();
    let arguments: HashMap<&str, &String> = function.arguments.iter().map(String::as_str).zip(&data).collect();
    let ops: HashMap<&str, &NodeDef> = function.nodes.iter().map(|body| (body.name.as_str(), body)).collect();
    let outer = |inner: &str| -> Option<String> {
        if let Some(control) = inner.strip_prefix('^') {
            return ops.contains_key(control).then(|| format!("^{scope}/{control}"));
        }
        if let Some(argument) = arguments.get(inner) {
            return Some((*argument).clone());
        }
        let mut parts = inner.splitn(3, ':');
        let (node, out, index) = (parts.next()?, parts.next(), parts.next());
        let index = index.and_then(|i| i.parse().ok()).unwrap_or(0usize);
        let Some(body) = ops.get(node) else {
            return arguments.get(node).map(|argument| (*argument).clone());
        };
        let output = match out {
            Some(out) => out.parse().unwrap_or_else(|_| output_number(body, out)) + index,
            None => 0,
        };
        Some(if output == 0 { format!("{scope}/{node}") } else { format!("{scope}/{node}:{output}") })
    };
    // A reference to nothing stays one, so that it is reported if it is needed.
    let outer_or_missing = |inner: &String| outer(inner).unwrap_or_else(|| format!("{scope}/{inner}"));
    let first = nodes.len();
    for body in &function.nodes {
        let inputs = body.inputs.iter().filter(|i| !i.starts_with('^') || outer(i).is_some());
        nodes.push(NodeDef {
            name: format!("{scope}/{}", body.name),
            op: body.op.clone(),
            inputs: inputs.map(outer_or_missing).collect(),
            attrs: body.attrs.clone(),
        });
    }
    let results = function.results.iter().map(|result| match function.returns.get(result) {
        Some(inner) => outer_or_missing(inner),
        None => format!("{scope}/{result}"),
    });
    let inputs: Vec<String> = results.chain(controls).collect();
    // What only the branch that is not taken reads was computed for it; it is no end of the network.
    let read: HashSet<&String> = nodes[first..].iter().flat_map(|node| &node.inputs).chain(&inputs).collect();
    let unread = data.iter().filter(|argument| !read.contains(argument));
    let unread: Vec<String> = unread.filter_map(|argument| Some(format!("^{}", argument.split(':').next()?))).collect();
    let inputs = inputs.into_iter().chain(unread).collect();
    names.extend(function.nodes.iter().map(|body| format!("{scope}/{}", body.name)));
    nodes.push(NodeDef { name: call_node.name, op: "IdentityN".to_owned(), inputs, attrs: BTreeMap::new() });
}

/// A loop of control flow 2 as control flow 1 has it, with calls of its condition and its body
/// (`core/common_runtime/lower_while_op.cc`).
fn write_loop(node: NodeDef, nodes: &mut Vec<NodeDef>) {
    let NodeDef { name, op: source, inputs, attrs } = node;
    let function = |key: &str| match attrs.get(key) {
        Some(Attr::Function(function)) => Some(function.clone()),
        _ => None,
    };
    let (Some(condition), Some(body)) = (function("cond"), function("body")) else {
        nodes.push(NodeDef { name, op: format!("_{source}"), inputs, attrs });
        return;
    };
    let (controls, data): (Vec<String>, Vec<String>) = inputs.into_iter().partition(|input| input.starts_with('^'));
    let mut add = |part: String, op: &str, inputs: Vec<String>| {
        let mut attrs = BTreeMap::new();
        if op == "LoopCond" {
            attrs.insert(loops::SOURCE.to_owned(), Attr::Bytes(source.clone().into_bytes()));
        }
        nodes.push(NodeDef { name: format!("{name}/{part}"), op: op.to_owned(), inputs, attrs });
    };
    let each =
        |part: &str, end: &str| -> Vec<String> { (0..data.len()).map(|i| format!("{name}/{part}_{i}{end}")).collect() };
    for (i, start) in data.iter().enumerate() {
        add(format!("Enter_{i}"), "Enter", vec![start.clone()]);
        add(format!("Merge_{i}"), "Merge", vec![format!("{name}/Enter_{i}"), format!("{name}/NextIteration_{i}")]);
        add(format!("Switch_{i}"), "Switch", vec![format!("{name}/Merge_{i}"), format!("{name}/LoopCond")]);
        let next = if i == 0 { format!("{name}/body") } else { format!("{name}/body:{i}") };
        add(format!("NextIteration_{i}"), "NextIteration", vec![next]);
        add(format!("Exit_{i}"), "Exit", vec![format!("{name}/Switch_{i}")]);
    }
    add("cond".to_owned(), &condition, each("Merge", ""));
    add("LoopCond".to_owned(), "LoopCond", vec![format!("{name}/cond")]);
    add("body".to_owned(), &body, each("Switch", ":1"));
    let results = each("Exit", "").into_iter().chain(controls).collect();
    nodes.push(NodeDef { name, op: "IdentityN".to_owned(), inputs: results, attrs: BTreeMap::new() });
}

/// The number of the first output that belongs to an output argument, for operators that have several.
fn output_number(node: &NodeDef, argument: &str) -> usize {
    let arguments: &[&str] = match node.op.as_str() {
        "FusedBatchNorm" | "FusedBatchNormV2" | "FusedBatchNormV3" => {
            &["y", "batch_mean", "batch_variance", "reserve_space_1", "reserve_space_2", "reserve_space_3"]
        }
        "Switch" | "RefSwitch" => &["output_false", "output_true"],
        "Merge" | "RefMerge" => &["output", "value_index"],
        "TopK" | "TopKV2" => &["values", "indices"],
        "MaxPoolWithArgmax" => &["output", "argmax"],
        "Unique" | "UniqueV2" => &["y", "idx"],
        "ListDiff" => &["out", "idx"],
        "BroadcastGradientArgs" => &["r0", "r1"],
        "SoftmaxCrossEntropyWithLogits" | "SparseSoftmaxCrossEntropyWithLogits" => &["loss", "backprop"],
        "LSTMBlockCell" | "BlockLSTM" | "BlockLSTMV2" => &["i", "cs", "f", "o", "ci", "co", "h"],
        "GRUBlockCell" => &["r", "u", "c", "h"],
        "NonMaxSuppressionV4" => &["selected_indices", "valid_outputs"],
        "NonMaxSuppressionV5" => &["selected_indices", "selected_scores", "valid_outputs"],
        _ => &[],
    };
    arguments.iter().position(|a| *a == argument).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensorflow::testing::{graph, node};

    fn function(name: &str, arguments: &[&str], body: &[&str], returns: &[(&str, &str)]) -> FunctionDef {
        FunctionDef {
            name: name.to_owned(),
            arguments: arguments.iter().map(|a| (*a).to_owned()).collect(),
            results: returns.iter().map(|r| r.0.to_owned()).collect(),
            nodes: body.iter().map(|line| node(line)).collect(),
            returns: returns.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        }
    }

    fn lines(def: &GraphDef) -> Vec<String> {
        def.nodes.iter().map(|n| format!("{} = {}({})", n.name, n.op, n.inputs.join(", "))).collect()
    }

    #[test]
    fn bodies_take_the_place_of_calls() {
        let mut def = graph("x = Placeholder()\ncall = PartitionedCall(x)\ny = Relu(call:1)");
        def.nodes[1].attrs.insert("f".to_owned(), Attr::Function("f".to_owned()));
        let top = ["n = Neg(a)", "t = TopKV2(n:y:0, n:y:0)"];
        def.functions = vec![function("f", &["a"], &top, &[("r0", "n:y:0"), ("r1", "t:indices:0")])];
        assert_eq!(
            lines(&inline(def, false).unwrap()),
            [
                "x = Placeholder()",
                "call/n = Neg(x)",
                "call/t = TopKV2(call/n, call/n)",
                "call = IdentityN(call/n, call/t:1)",
                "y = Relu(call:1)"
            ]
        );
    }

    #[test]
    fn constants_decide_branches_and_endless_calls_are_errors() {
        let mut def = graph("p = Const() | value=bool<>[0]\nx = Placeholder()\nif = If(p, x)");
        for (key, value) in [("then_branch", "f"), ("else_branch", "g")] {
            def.nodes[2].attrs.insert(key.to_owned(), Attr::Function(value.to_owned()));
        }
        def.functions = vec![
            function("f", &["a"], &["n = Neg(a)"], &[("r", "n:y:0")]),
            function("g", &["a"], &["n = Exp(a)"], &[("r", "n:y:0")]),
        ];
        assert!(lines(&inline(def.clone(), false).unwrap()).contains(&"if/n = Exp(x)".to_owned()));

        def.functions = vec![function("g", &["a"], &["n = g(a)"], &[("r", "n:r:0")])];
        assert!(inline(def, false).is_err());
    }
}
