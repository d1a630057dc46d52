//! Where the network ends: the nodes that were asked for, those of a signature, or the one sensible end.

use std::collections::HashSet;

use modelport_ir::{Error, Problem, Result, Shape};

use super::clean::Resolver;
use super::metagraph::MetaGraph;
use super::near::near;
use super::net::{Net, Ref};

/// A node that may be an output.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Its operator.
    pub op: String,
    /// Its shape, if it is known.
    pub shape: Option<Shape>,
}

/// Parts of names of operators that are no part of a network: savers, summaries, initialisation, queues.
const OUTSIDE: &[&str] = &[
    "Dataset",
    "Filename",
    "Init",
    "Iterator",
    "MergeV2Checkpoints",
    "NoOp",
    "Queue",
    "Random",
    "Restore",
    "Save",
    "Stack",
    "String",
    "Summary",
    "TruncatedNormal",
];

/// Parts of names of operators that change variables or stop the program: what they read was computed for them.
const UPDATES: &[&str] = &["Apply", "Assert", "Assign", "Enqueue", "Scatter"];

/// Parts of names of operators with which training begins: what they lead to is no part of a network either.
const LOSSES: &[&str] = &["CrossEntropy", "CTCLoss", "InTopK", "L2Loss", "Backprop"];

/// Operators that ask for a shape, or make numbers of it; gradients do.
const SHAPES: &[&str] = &["Shape", "ShapeN", "Size", "Rank", "ConcatOffset", "ZerosLike", "OnesLike", "Fill"];

/// The values that were asked for by name, in order.
///
/// # Errors
/// All names that are not in the graph, each with names that come near.
pub fn named(net: &Net, names: &[String]) -> Result<Vec<(String, Ref)>> {
    let mut problems = Vec::new();
    let mut found = Vec::new();
    for name in names {
        match net.find(name).or_else(|| net.find(name.trim_start_matches('^'))) {
            Some(value) => found.push((name.clone(), value)),
            None => problems.push(unknown(net, name)),
        }
    }
    Error::collect(problems)?;
    Ok(found)
}

/// The problem that there is no such node.
pub fn unknown(net: &Net, name: &str) -> Problem {
    let node = name.split(':').next().unwrap_or(name);
    let problem = Problem::new(format!("there is no node '{name}' in the graph"));
    let mut close = near(node, net.nodes().iter().map(|node| node.name.as_str()), 5);
    if close.is_empty() {
        let inside = |other: &&str| other.to_lowercase().contains(&node.to_lowercase());
        close = net.nodes().iter().map(|node| node.name.as_str()).filter(inside).take(5).collect();
    }
    if close.is_empty() {
        problem.hint("'modelport inspect' lists the nodes at which a network may end.")
    } else {
        problem.hint(format!("Near it come: {}.", close.join(", ")))
    }
}

/// The outputs of the signature for serving, by name.
pub fn of_signature(net: &Net, meta: &MetaGraph) -> Option<Vec<(String, Ref)>> {
    let signature = meta.signatures.get("serving_default").or_else(|| {
        // Only one way to serve.
        let mut all = meta.signatures.iter().filter(|(name, _)| !name.starts_with("__"));
        all.next().filter(|_| all.next().is_none()).map(|(_, signature)| signature)
    })?;
    let found: Option<Vec<_>> = signature
        .outputs
        .values()
        .map(|info| Some((info.tensor.trim_end_matches(":0").to_owned(), net.find(&info.tensor)?)))
        .collect();
    found.filter(|found| !found.is_empty())
}

/// Nodes that depend on an input and that nothing but losses, summaries and the like reads.
pub fn ends(resolver: &Resolver, is_input: impl Fn(usize) -> bool) -> Vec<usize> {
    let net = resolver.net();
    let any = |parts: &[&str], index: usize| parts.iter().any(|part| net.op(index).contains(part));
    let transposed =
        |index: usize| net.op(index).ends_with("BackpropInput") || net.op(index).ends_with("BackpropInputV2");
    // A transposed convolution is written as a gradient: it is one when it comes after a loss.
    let gradient = |index: usize| net.op(index).contains("Grad") && !net.op(index).ends_with("Gradient");
    let losses = reached(net, |index| gradient(index) || (any(LOSSES, index) && !transposed(index)), |_| true);
    // What an input holds does not come through a shape, and text, a file's name say, is no data.
    let is_text =
        |index: usize| net.node(index).attrs.contains_key("dtype") && net.node(index).dtype("dtype").is_none();
    let inside = reached(net, |index| is_input(index) && !is_text(index), |index| !SHAPES.contains(&net.op(index)));
    let apart = |index: usize| any(OUTSIDE, index) || any(UPDATES, index) || !inside.contains(&index);
    // Handles and optional values, which branches keep for their gradients.
    let is_opaque = |index: usize| net.node(index).attrs.contains_key("T") && net.node(index).dtype("T").is_none();
    // A custom gradient (that of swish, say) leaves copies of its results beside itself.
    let is_copy = |index: usize| {
        let source = net.input(index, 0).filter(|_| net.op(index) == "Identity");
        let custom = |reader: &usize| net.node(*reader).attrs.contains_key("_gradient_op_type");
        source.is_some_and(|source| net.readers(source.node).iter().any(custom))
    };
    let gates: HashSet<usize> = (0..net.len()).flat_map(|index| net.controls(index)).copied().collect();
    let ends = |index: &usize, outside: &dyn Fn(usize) -> bool| {
        let readers = net.readers(*index);
        let own = !outside(*index) && !is_input(*index) && !net.op(*index).starts_with('_') && !is_opaque(*index);
        // What is only waited for is no result.
        let gate = readers.is_empty() && gates.contains(index);
        own && !gate
            && !(readers.is_empty() && is_copy(*index))
            && readers.iter().all(|&reader| outside(reader) && !any(UPDATES, reader))
    };
    let found: Vec<usize> = (0..net.len()).filter(|index| ends(index, &|i| apart(i) || losses.contains(&i))).collect();
    if !found.is_empty() {
        return found;
    }
    // All that there is may be a loss.
    (0..net.len()).filter(|index| ends(index, &apart)).collect()
}

/// Nodes that are among some, or read them, as far as `go` says.
fn reached(net: &Net, begin: impl Fn(usize) -> bool, go: impl Fn(usize) -> bool) -> HashSet<usize> {
    let mut reached = HashSet::new();
    let mut stack: Vec<usize> = (0..net.len()).filter(|&index| begin(index)).collect();
    while let Some(index) = stack.pop() {
        if go(index) && reached.insert(index) {
            stack.extend_from_slice(net.readers(index));
        }
    }
    reached
}

/// The error that the end of the network is not clear.
pub fn ambiguous(candidates: &[Candidate]) -> Error {
    if candidates.is_empty() {
        let problem = Problem::new("no node of the graph looks like an output of a network");
        return problem.hint("Name it with --dstNode.").into();
    }
    let list: Vec<String> = candidates
        .iter()
        .map(|c| match &c.shape {
            Some(shape) => format!("{} [{}] {shape}", c.name, c.op),
            None => format!("{} [{}]", c.name, c.op),
        })
        .collect();
    let message = format!("{} nodes may be the network's output", candidates.len());
    Problem::new(message).hint(format!("Choose with --dstNode:\n      {}", list.join("\n      "))).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensorflow::testing::net;

    fn found(text: &str) -> Vec<String> {
        let net = net(text);
        let resolver = Resolver::new(&net, false, HashSet::new());
        let input = |index: usize| net.op(index) == "Placeholder";
        ends(&resolver, input).into_iter().map(|index| net.node(index).name.clone()).collect()
    }

    #[test]
    fn savers_and_summaries_are_no_ends() {
        let text = "
            x = Placeholder()
            w = VariableV2()
            y = MatMul(x, w)
            out = Relu(y)
            s = HistogramSummary(tag, out)
            tag = Const()
            save = SaveV2(w)
            init = Assign(w, r)
            r = RandomUniform()";
        assert_eq!(found(text), ["out"]);
    }

    #[test]
    fn before_the_loss_is_an_end() {
        let text = "
            x = Placeholder()
            w = VariableV2()
            y = MatMul(x, w)
            labels = Placeholder()
            loss = SparseSoftmaxCrossEntropyWithLogits(y, labels)
            grad = MatMulGrad(x, loss)
            train = ApplyAdam(w, grad)";
        assert_eq!(found(text), ["y"]);
    }

    #[test]
    fn signals_updates_and_shapes_are_no_ends() {
        let text = "
            x = Placeholder()
            y = Relu(x)
            s = Shape(y)
            n = StridedSlice(s)
            zeros = ZerosLike(y)
            gradient = ReluGrad(zeros, y)
            signal = Identity(y, ^save)
            wait = NoOp(^signal)
            mean = VariableV2()
            step = Sub(mean, y)
            update = AssignSub(mean, step)
            out = Softmax(y)";
        assert_eq!(found(text), ["out"]);
    }

    #[test]
    fn what_serves_gradients_is_no_end() {
        let text = "
            x = Placeholder()
            mul = Mul(x, x)
            swish = IdentityN(mul, x) | _gradient_op_type='CustomGradient-1'
            copy = Identity(mul)
            optional = OptionalFromValue(x)
            kept = Identity(optional) | T=:variant
            out = Softmax(swish)";
        assert_eq!(found(text), ["out"]);
    }

    #[test]
    fn unknown_names_come_with_near_ones() {
        let net = net("net/Logits = Relu()\nnet/Conv = Relu()");
        let error = named(&net, &["Logits".to_owned(), "net/Conv:0".to_owned()]).unwrap_err();
        assert_eq!(error.problems.len(), 1);
        assert_eq!(error.problems[0].hint.as_deref(), Some("Near it come: net/Logits."));
    }
}
