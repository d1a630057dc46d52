//! From files to the neutral graph.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use modelport_ir::{DType, Error, Graph, Op, Problem, Result, Shape, pass};

use super::clean::Resolver;
use super::graphdef::{GraphDef, NodeDef};
use super::inputs::Inputs;
use super::lower::{Entry, Lowering, Variables};
use super::net::{Net, Ref};
use super::outputs::{self, Candidate};
use super::training::Average;
use super::variables::Saved;
use super::{dilation, functions, locate, loops, ops, training};
use crate::Source;

/// Most candidates that are looked at closely.
const MAX_CANDIDATES: usize = 32;

/// How many times loops are looked for: loops in loops, and one behind the other.
const MAX_LOOPS: usize = 64;

/// Reads a network.
///
/// # Errors
/// When files are missing or damaged, when inputs or outputs are not clear, and all operators that can't be converted.
pub fn read(source: &Source) -> Result<Graph> {
    let mut files = locate::open(source.network.as_deref(), source.weights.as_deref())?;
    let def = std::mem::take(&mut files.meta.graph);
    let variables = Saved::new(&files.meta, files.checkpoint.as_ref(), source.moving_averages);
    let network = Network::new(def, source).map_err(|error| error.in_file(&files.network))?;
    let wanted = |net: &Net| match source.outputs.is_empty() {
        false => outputs::named(net, &source.outputs).map(Some),
        true => Ok(outputs::of_signature(net, &files.meta)),
    };
    let graph = empty(&files.network);
    network.read(wanted, graph, &variables).map_err(|error| error.in_file(&files.network))
}

/// The nodes at which a network may end, with their shapes.
///
/// # Errors
/// When files are missing or damaged.
pub fn candidates(source: &Source) -> Result<Vec<Candidate>> {
    let mut files = locate::open(source.network.as_deref(), source.weights.as_deref())?;
    let def = std::mem::take(&mut files.meta.graph);
    let variables = Saved::new(&files.meta, files.checkpoint.as_ref(), source.moving_averages);
    let mut network = Network::new(def, source).map_err(|error| error.in_file(&files.network))?;
    network.unroll(&[], &variables)?;
    network.candidates(&variables)
}

fn empty(path: &Path) -> Graph {
    let file = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let stem = [".meta", ".pbtxt", ".pb", ".ckpt"]
        .iter()
        .fold(file.as_str(), |stem, end| stem.strip_suffix(end).unwrap_or(stem));
    Graph::new(stem, format!("TensorFlow: {file}"))
}

/// A graph with its functions in place, and what the user says of it.
pub(super) struct Network<'s> {
    pub(super) net: Net,
    source: &'s Source,
    averages: Vec<(String, f32)>,
    cuts: Vec<Ref>,
    inferred: HashMap<Ref, (DType, Shape)>,
    /// The scopes of loops.
    loops: Vec<String>,
}

impl<'s> Network<'s> {
    pub(super) fn new(def: GraphDef, source: &'s Source) -> Result<Network<'s>> {
        let net = Net::new(functions::inline(def, source.training)?);
        let cuts = cuts(&net, source)?;
        let nodes: HashSet<usize> = cuts.iter().map(|cut| cut.node).collect();
        let rates = training::rates(&net, &nodes);
        let net = edited(net, rates);
        let found = training::averages(&net);
        let averages = found.iter().filter_map(|average| named_momentum(&net, average)).collect();
        let edits = training::rewrite(&net, &found);
        let net = edited(net, edits);
        let cuts = self::cuts(&net, source)?;
        Ok(Network { net, source, averages, cuts, inferred: HashMap::new(), loops: Vec::new() })
    }

    pub(super) fn resolver(&self) -> Resolver<'_> {
        Resolver::new(&self.net, self.source.training, self.cuts.iter().map(|cut| cut.node).collect())
    }

    pub(super) fn inputs<'a>(&self, resolver: &Resolver<'a>) -> Inputs<'a> {
        let shapes = self.source.input_shapes.clone();
        Inputs::new(resolver, self.cuts.clone(), shapes, self.inferred.clone())
    }

    fn read(
        mut self,
        wanted: impl Fn(&Net) -> Result<Option<Vec<(String, Ref)>>>,
        graph: Graph,
        variables: &dyn Variables,
    ) -> Result<Graph> {
        let outputs = wanted(&self.net)?;
        self.unroll(outputs.as_deref().unwrap_or_default(), variables)?;
        let outputs = match outputs {
            Some(outputs) => outputs,
            None => self.only_end(variables)?,
        };
        self.infer_cuts(variables);
        self.check_loops(&outputs)?;
        let resolver = self.resolver();
        let needed = needed(&resolver, &self.inputs(&resolver), outputs.iter().map(|output| output.1));
        let edits = dilation::rewrite(&resolver, &needed);
        self.net = edited(self.net, edits);
        let mut graph = lowered(&self, &outputs, graph, variables)?;
        pass::run(&mut graph, pass::NORMALIZE)?;
        self.finish(&mut graph)?;
        Ok(graph)
    }

    /// Writes the steps of loops one after the other, where it is known how many there are. The number of one loop may
    /// follow from another's results.
    ///
    /// # Errors
    /// When an output is a value of every step.
    fn unroll(&mut self, outputs: &[(String, Ref)], variables: &dyn Variables) -> Result<()> {
        let wanted: HashSet<usize> = outputs.iter().map(|output| output.1.node).collect();
        for _ in 0..MAX_LOOPS {
            let loops = loops::find(&self.net);
            if loops.is_empty() {
                break;
            }
            let repeated = outputs.iter().filter(|output| loops.iter().any(|found| found.repeats(output.1.node)));
            Error::collect(repeated.map(|(name, _)| inside_loop(name)).collect())?;
            let scopes = loops.iter().filter_map(|found| found.name.rsplit_once('/'));
            self.loops.extend(scopes.map(|(scope, _)| format!("{scope}/")));
            let numbers: Vec<Ref> = loops.iter().flat_map(|found| found.numbers()).collect();
            let resolver = self.resolver();
            // The outputs as well, so that shapes go to the inputs that they were given for.
            let values: Vec<Ref> = numbers.into_iter().chain(outputs.iter().map(|output| output.1)).collect();
            let mut lowering = Lowering::new(&resolver, variables, self.inputs(&resolver), Graph::default());
            lowering.run(&values);
            let number = |value: Ref| lowering.sizes(resolver.resolve(value))?.elems.first()?.int();
            let mut edits = Vec::new();
            let mut done: Vec<&loops::Loop> = Vec::new();
            for found in &loops {
                let steps = found.steps(number).filter(|_| !done.iter().any(|other| other.overlaps(found)));
                if let Some(steps) = steps.and_then(|steps| found.unrolled(&self.net, steps, &wanted)) {
                    edits.extend(steps);
                    done.push(found);
                }
            }
            if edits.is_empty() {
                break;
            }
            self.net = edited(std::mem::take(&mut self.net), edits);
        }
        Ok(())
    }

    /// Loops that the outputs need and whose number of steps is not known.
    fn check_loops(&self, outputs: &[(String, Ref)]) -> Result<()> {
        let resolver = self.resolver();
        let inputs = self.inputs(&resolver);
        let needed = needed(&resolver, &inputs, outputs.iter().map(|output| output.1));
        let loops = loops::find(&self.net).into_iter().filter(|found| needed.iter().any(|&node| found.contains(node)));
        let problem = |found: loops::Loop| {
            let problem = Problem::new("how many steps this loop runs is not known, or is too many");
            problem.op(found.op).node(&found.name).hint(
                "Give the length of the sequence with --inputShape (without the batch). If it depends on data (on the \
                 lengths of sequences, say), begin behind the loop with --inNodeName.",
            )
        };
        Error::collect(loops.map(problem).collect())
    }

    /// Where the network may end. What a recurrent layer leaves beside that with which the network goes on is no end.
    fn ends(&self, resolver: &Resolver, inputs: &Inputs) -> Vec<usize> {
        let ends = outputs::ends(resolver, |index| inputs.is_data(index));
        let inside = |&end: &usize| self.loops.iter().any(|scope| self.net.node(end).name.starts_with(scope));
        let outside: Vec<usize> = ends.iter().copied().filter(|end| !inside(end)).collect();
        if outside.is_empty() { ends } else { outside }
    }

    /// The one sensible output.
    fn only_end(&self, variables: &dyn Variables) -> Result<Vec<(String, Ref)>> {
        let resolver = self.resolver();
        let inputs = self.inputs(&resolver);
        let ends = self.ends(&resolver, &inputs);
        match ends.as_slice() {
            [end] => Ok(vec![(self.net.node(*end).name.clone(), Ref { node: *end, output: 0 })]),
            _ => Err(outputs::ambiguous(&self.candidates(variables)?)),
        }
    }

    fn candidates(&self, variables: &dyn Variables) -> Result<Vec<Candidate>> {
        let resolver = self.resolver();
        let inputs = self.inputs(&resolver);
        let ends = self.ends(&resolver, &inputs);
        let values: Vec<Ref> = ends.iter().map(|&node| Ref { node, output: 0 }).collect();
        let mut lowering = Lowering::new(&resolver, variables, inputs, Graph::default());
        lowering.run(values.get(..MAX_CANDIDATES).unwrap_or(&values));
        let candidate = |value: &Ref| {
            let node = self.net.node(value.node);
            let shape = lowering.shape(resolver.resolve(*value));
            Candidate { name: node.name.clone(), op: node.op.clone(), shape }
        };
        Ok(values.iter().map(candidate).collect())
    }

    /// Finds the types and shapes that the values at cuts have in the whole graph.
    fn infer_cuts(&mut self, variables: &dyn Variables) {
        if self.cuts.is_empty() {
            return;
        }
        let resolver = Resolver::new(&self.net, self.source.training, HashSet::new());
        let inputs = Inputs::new(&resolver, Vec::new(), Vec::new(), HashMap::new());
        let mut lowering = Lowering::new(&resolver, variables, inputs, Graph::default());
        lowering.run(&self.cuts);
        let known = |cut: &Ref| {
            let value = resolver.resolve(*cut);
            Some((*cut, (lowering.dtype(value)?, lowering.shape(value)?)))
        };
        self.inferred = self.cuts.iter().filter_map(known).collect();
    }

    /// What can be said when all patterns are found: momenta, operators that nobody took, inputs that nobody reads.
    fn finish(&self, graph: &mut Graph) -> Result<()> {
        let momenta: HashMap<&str, f32> = self.averages.iter().map(|(name, m)| (name.as_str(), *m)).collect();
        let mut problems = Vec::new();
        for id in graph.ids() {
            let mean = graph.input_of(id, 3).map(|mean| graph.node(mean.node).name.clone());
            let momentum = mean.and_then(|mean| momenta.get(mean.as_str()).copied());
            if let (Op::BatchNorm(norm), Some(momentum)) = (graph.op_mut(id), momentum) {
                norm.momentum = norm.momentum.or(Some(momentum));
            }
            if let Op::Foreign(foreign) = graph.op(id) {
                let message = "modelport has no translation for this TensorFlow op";
                let problem = Problem::new(message).op(&foreign.op).node(&graph.node(id).name);
                problems.push(problem.hint(ops::hint(&foreign.op)));
            }
        }
        Error::collect(problems)?;
        // A dropout rate that was fed, say; an input with a batch stays, and so does one that was asked for.
        let asked: HashSet<&str> = self.cuts.iter().map(|cut| self.net.node(cut.node).name.as_str()).collect();
        let unread = |graph: &Graph, port: &modelport_ir::Port| {
            graph.uses(port.value) == 0 && graph.shape(port.value).rank() == 0 && !asked.contains(port.name.as_str())
        };
        let keep: Vec<bool> = graph.inputs.iter().map(|port| !unread(graph, port)).collect();
        let mut keep = keep.into_iter();
        graph.inputs.retain(|_| keep.next().unwrap_or(true));
        graph.prune();
        Ok(())
    }
}

fn inside_loop(name: &str) -> Problem {
    let problem = Problem::new("is inside of a loop, and has a value for every step").node(name);
    problem.hint("Name a node behind the loop with --dstNode: one that stacks the steps, or the last state.")
}

fn named_momentum(net: &Net, average: &Average) -> Option<(String, f32)> {
    Some((net.node(average.variable).name.clone(), average.momentum?))
}

/// The values at which the user cuts the graph.
fn cuts(net: &Net, source: &Source) -> Result<Vec<Ref>> {
    let mut problems = Vec::new();
    let mut cuts = Vec::new();
    for name in &source.inputs {
        match net.find(name) {
            Some(value) => cuts.push(value),
            None => problems.push(outputs::unknown(net, name)),
        }
    }
    Error::collect(problems)?;
    Ok(cuts)
}

/// A graph with some nodes changed; numbers beyond its end are new nodes.
fn edited(net: Net, edits: Vec<(usize, NodeDef)>) -> Net {
    if edits.is_empty() {
        return net;
    }
    let mut nodes = net.into_nodes();
    let mut added = Vec::new();
    for (index, node) in edits {
        match nodes.get_mut(index) {
            Some(old) => *old = node,
            None => added.push(node),
        }
    }
    nodes.append(&mut added);
    Net::new(GraphDef { nodes, functions: Vec::new() })
}

pub(super) fn needed(resolver: &Resolver, inputs: &Inputs, outputs: impl Iterator<Item = Ref>) -> HashSet<usize> {
    let mut needed = HashSet::new();
    let mut stack: Vec<usize> = outputs.map(|value| resolver.resolve(value).node).collect();
    while let Some(index) = stack.pop() {
        if needed.insert(index) && !inputs.is_input(index) {
            stack.extend(resolver.inputs(index).into_iter().flatten().map(|value| value.node));
        }
    }
    needed
}

fn lowered(network: &Network, outputs: &[(String, Ref)], graph: Graph, variables: &dyn Variables) -> Result<Graph> {
    let resolver = network.resolver();
    let mut lowering = Lowering::new(&resolver, variables, network.inputs(&resolver), graph);
    let values: Vec<Ref> = outputs.iter().map(|output| output.1).collect();
    lowering.run(&values);
    let mut problems = lowering.problems();
    for (name, value) in outputs {
        let value = resolver.resolve(*value);
        match lowering.entry(value) {
            Some(Entry::Other) => {
                problems.push(Problem::new("the output is no tensor of numbers").node(name));
            }
            Some(_) => match lowering.value(value) {
                Ok(value) => lowering.graph.output(name, value),
                Err(error) => problems.extend(error.at_node(name).problems),
            },
            None if problems.is_empty() => {
                let op = network.net.op(value.node);
                let message = format!("{op} has no output {}", value.output);
                problems.push(Problem::new(message).node(name));
            }
            None => {}
        }
    }
    Error::collect(problems)?;
    let mut graph = lowering.graph;
    graph.prune();
    Ok(graph)
}
