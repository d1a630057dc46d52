//! What is in a graph, for people who look for its inputs, its outputs, and where its weights are.
//!
//! Nothing needs to be convertible, and the weights need not be there: variables have the shapes that the graph says.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use modelport_ir::tensor::{FileBytes, Storage, numel};
use modelport_ir::{DType, Graph, Problem, Result, Shape, Tensor};

use super::inputs::Inputs;
use super::locate;
use super::lower::{Entry, Lowering, Variables, is_variable};
use super::net::{Net, Ref};
use super::outputs::{self, Candidate};
use super::read::{Network, needed};
use super::variables::Saved;
use crate::Source;
use crate::kind;

/// A node that computes something.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Its name.
    pub name: String,
    /// Its operator.
    pub op: String,
    /// The shape of its first output, as far as it is known.
    pub shape: Option<Shape>,
    /// Elements of the weights that it reads; weights that several nodes read count for the first.
    pub parameters: usize,
}

/// What is known of a graph.
#[derive(Clone, Debug, Default)]
pub struct Inspection {
    /// What the file is.
    pub kind: &'static str,
    /// All nodes of the file, those outside of the network too.
    pub nodes: usize,
    /// Variables of the network.
    pub variables: usize,
    /// The network from its inputs to its outputs, or to all that may be outputs.
    pub layers: Vec<Layer>,
    /// Inputs: name, type, shape.
    pub inputs: Vec<(String, DType, Shape)>,
    /// Outputs that were asked for, that a signature names, or the only sensible one.
    pub outputs: Vec<Candidate>,
    /// Where else the network may end.
    pub candidates: Vec<Candidate>,
    /// What would keep it from being converted up to its outputs, where these are known.
    pub problems: Vec<Problem>,
}

/// Looks into a graph.
///
/// # Errors
/// When files are missing or damaged, or nodes that were asked for are not in the graph.
pub fn inspect(source: &Source) -> Result<Inspection> {
    let files = locate::open(source.network.as_deref(), source.weights.as_deref())?;
    let kind = FileBytes::open(&files.network).and_then(|file| kind::of(file));
    let kind = kind.map_err(|error| kind::unreadable(&files.network, &error))?;
    let saved = Saved::new(&files.meta, files.checkpoint.as_ref(), source.moving_averages);
    let variables = Declared(files.checkpoint.is_some().then_some(&saved));
    let network = Network::new(files.meta.graph.clone(), source).map_err(|error| error.in_file(&files.network))?;
    let named = match source.outputs.is_empty() {
        false => Some(outputs::named(&network.net, &source.outputs).map_err(|error| error.in_file(&files.network))?),
        true => outputs::of_signature(&network.net, &files.meta),
    };
    let inspection = Inspection { kind: kind.name(), nodes: files.meta.graph.nodes.len(), ..Inspection::default() };
    Ok(look(&network, named, &variables, inspection))
}

fn look(
    network: &Network,
    named: Option<Vec<(String, Ref)>>,
    variables: &dyn Variables,
    inspection: Inspection,
) -> Inspection {
    let (net, resolver) = (&network.net, network.resolver());
    let inputs = network.inputs(&resolver);
    let ends: Vec<(String, Ref)> = outputs::ends(&resolver, |index| inputs.is_input(index))
        .into_iter()
        .map(|node| (net.node(node).name.clone(), Ref { node, output: 0 }))
        .collect();
    let (outputs, others) = match named {
        Some(named) => {
            let others = ends.into_iter().filter(|end| named.iter().all(|(_, value)| *value != end.1)).collect();
            (named, others)
        }
        None if ends.len() == 1 => (ends, Vec::new()),
        None => (Vec::new(), ends),
    };
    let shown: Vec<Ref> = if outputs.is_empty() { &others } else { &outputs }.iter().map(|(_, value)| *value).collect();
    let inside = needed(&resolver, &inputs, shown.iter().copied());
    let mut lowering = Lowering::new(&resolver, variables, network.inputs(&resolver), Graph::default());
    let all: Vec<Ref> = outputs.iter().chain(&others).map(|(_, value)| *value).collect();
    lowering.run(&all);

    let candidate = |(name, value): &(String, Ref)| Candidate {
        name: name.clone(),
        op: net.op(value.node).to_owned(),
        shape: lowering.shape(resolver.resolve(*value)),
    };
    let mut seen = HashSet::new();
    let mut layers = Vec::new();
    for index in (0..net.len()).filter(|index| inside.contains(index)) {
        if is_part(net, &inputs, &lowering, index) {
            let value = Ref { node: index, output: 0 };
            let weights = resolver.inputs(index).into_iter().flatten().filter(|value| seen.insert(*value));
            let (name, op) = (net.node(index).name.clone(), net.op(index).to_owned());
            let parameters = weights.map(|value| elements(lowering.entry(value))).sum();
            layers.push(Layer { name, op, shape: lowering.shape(value), parameters });
        }
    }
    let port = |port: &modelport_ir::Port| {
        let info = lowering.graph.info(port.value);
        (port.name.clone(), info.dtype, info.shape.clone())
    };
    let mut inspection = Inspection {
        variables: inside.iter().filter(|&&index| is_variable(net.op(index))).count(),
        layers,
        inputs: lowering.graph.inputs.iter().map(port).collect(),
        outputs: outputs.iter().map(candidate).collect(),
        candidates: others.iter().map(candidate).collect(),
        ..inspection
    };
    if !outputs.is_empty() {
        let named: HashSet<&str> = inside.iter().map(|&index| net.node(index).name.as_str()).collect();
        let problems = lowering.problems().into_iter();
        let concerns = |problem: &Problem| problem.node.as_deref().is_none_or(|node| named.contains(node));
        inspection.problems = problems.filter(concerns).collect();
    }
    inspection
}

/// Whether a node computes with data, rather than naming weights or working out sizes.
fn is_part(net: &Net, inputs: &Inputs, lowering: &Lowering, index: usize) -> bool {
    let known = lowering.entry(Ref { node: index, output: 0 });
    !inputs.is_input(index)
        && !is_variable(net.op(index))
        && !matches!(known, Some(Entry::Constant(..) | Entry::Sizes(_) | Entry::Other))
}

/// The elements of a weight: a number is a setting, not a weight, unless it is a variable.
fn elements(entry: Option<&Entry>) -> usize {
    match entry {
        Some(Entry::Constant(tensor, origin)) if origin.variable || tensor.dtype().is_float() && tensor.numel() > 1 => {
            tensor.numel()
        }
        _ => 0,
    }
}

/// Variables as the checkpoint has them, or of the shapes that the graph says, without their elements.
struct Declared<'a>(Option<&'a Saved<'a>>);

impl Variables for Declared<'_> {
    fn find(&self, names: &[&str], shape: Option<&[i64]>) -> std::result::Result<Tensor, Problem> {
        if let Some(tensor) = self.0.and_then(|saved| saved.find(names, shape).ok()) {
            return Ok(tensor);
        }
        let unknown = || Problem::new("the graph does not say the shape of a variable");
        let sizes: Option<Vec<usize>> = shape.unwrap_or(&[-1]).iter().map(|&size| usize::try_from(size).ok()).collect();
        let sizes = sizes.ok_or_else(unknown)?;
        let bytes = numel(&sizes).and_then(|n| n.checked_mul(DType::Float32.size())).ok_or_else(unknown)?;
        Tensor::new(DType::Float32, &sizes, Arc::new(Zeros(bytes as u64))).map_err(Problem::new)
    }
}

#[derive(Debug)]
struct Zeros(u64);

impl Storage for Zeros {
    fn len(&self) -> u64 {
        self.0
    }

    fn read_at(&self, _: u64, buffer: &mut [u8]) -> io::Result<()> {
        buffer.fill(0);
        Ok(())
    }
}
