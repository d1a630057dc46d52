//! Where the network begins: placeholders, the ends of input pipelines, and nodes at which the graph is to be cut.

use std::collections::{BTreeMap, HashMap, HashSet};

use modelport_ir::{DType, Dim, Error, Graph, Problem, Result, Shape};

use super::clean::Resolver;
use super::graphdef::{self, Attr};
use super::net::{Net, Ref};

/// Operators that bring data into the graph.
const PIPELINE: &[&str] = &[
    "IteratorGetNext",
    "IteratorGetNextSync",
    "IteratorGetNextAsOptional",
    "QueueDequeue",
    "QueueDequeueV2",
    "QueueDequeueMany",
    "QueueDequeueManyV2",
    "QueueDequeueUpTo",
    "QueueDequeueUpToV2",
    "Batch",
    "ParseExample",
    "ParseExampleV2",
    "ParseSingleExample",
    "ParseSingleSequenceExample",
    "ReaderReadV2",
    "ReadFile",
    "DecodeJpeg",
    "DecodePng",
    "DecodeBmp",
    "DecodeGif",
    "DecodeImage",
    "DecodeAndCropJpeg",
    "DecodeRaw",
    "DecodeCSV",
    "Recv",
    "_Recv",
    "_Arg",
];

/// Most outputs of a node that brings data.
const MAX_OUTPUTS: usize = 1 << 12;

/// What one output of an input node is.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Name of the input.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Shape.
    pub shape: Shape,
}

/// The inputs of a network.
pub struct Inputs<'a> {
    net: &'a Net,
    /// Nodes at which the graph is cut, in the order that was asked for.
    cuts: Vec<Ref>,
    /// Shapes as they were given.
    given: Vec<Vec<i64>>,
    /// Types and shapes that the nodes at the cuts would have had.
    inferred: HashMap<Ref, (DType, Shape)>,
    flags: HashSet<usize>,
    shapes: BTreeMap<usize, Vec<i64>>,
    /// Values that the network reads.
    used: HashSet<Ref>,
}

impl<'a> Inputs<'a> {
    /// The inputs of a network that is cut at `cuts`, with shapes as given by the user: first those of the cuts, in
    /// order, then those of other inputs in file order.
    pub fn new(
        resolver: &Resolver<'a>,
        cuts: Vec<Ref>,
        given: Vec<Vec<i64>>,
        inferred: HashMap<Ref, (DType, Shape)>,
    ) -> Self {
        let net = resolver.net();
        let flags = (0..net.len()).filter(|&index| resolver.is_flag(index)).collect();
        Inputs { net, cuts, given, inferred, flags, shapes: BTreeMap::new(), used: HashSet::new() }
    }

    /// Whether data comes in at this node.
    pub fn is_input(&self, index: usize) -> bool {
        let op = self.net.op(index);
        let source = matches!(op, "Placeholder" | "PlaceholderV2" | "PlaceholderWithDefault") || PIPELINE.contains(&op);
        self.is_cut(index) || (source && !self.flags.contains(&index))
    }

    /// Whether numbers come in at this node.
    pub fn is_data(&self, index: usize) -> bool {
        let text = matches!(self.net.node(index).attrs.get("dtype"), Some(Attr::Type(code)) if graphdef::dtype(*code).is_none());
        self.is_input(index) && !text
    }

    fn is_cut(&self, index: usize) -> bool {
        self.cuts.iter().any(|cut| cut.node == index)
    }

    /// The nodes at the cuts, in the order that was asked for.
    pub fn first(&self) -> Vec<usize> {
        self.cuts.iter().map(|cut| cut.node).collect()
    }

    /// Finds out which shape that was given is whose, when it is known which nodes are needed and which values used.
    pub fn assign(&mut self, needed: &HashSet<usize>, used: HashSet<Ref>) -> Vec<Problem> {
        self.used = used;
        let mut problems = Vec::new();
        let mut order: Vec<usize> = self.first();
        for &index in order.iter().filter(|index| !needed.contains(index)) {
            let problem = Problem::new("the outputs do not depend on this input");
            problems.push(problem.node(&self.net.node(index).name).op(self.net.op(index)));
        }
        let mut others: Vec<usize> = needed
            .iter()
            .copied()
            .filter(|&index| self.is_input(index) && !self.is_cut(index))
            .filter(|&index| self.net.node(index).shape("shape").is_none_or(|shape| !shape.is_empty()))
            .collect();
        others.sort_unstable();
        order.extend(others);
        if self.given.len() > order.len() {
            let message = format!("{} shapes are given, and the network has {} inputs", self.given.len(), order.len());
            problems.push(Problem::new(message).hint(self.names(&order)));
        }
        self.shapes = order.into_iter().zip(self.given.iter().cloned()).collect();
        problems
    }

    fn names(&self, nodes: &[usize]) -> String {
        let names: Vec<&str> = nodes.iter().map(|&index| self.net.node(index).name.as_str()).collect();
        format!("The inputs are: {}.", names.join(", "))
    }

    /// Name, type and shape of every output of an input node; `None` for outputs that hold no numbers.
    ///
    /// # Errors
    /// When the rank is not known.
    pub fn specs(&self, index: usize, resolver: &Resolver) -> Result<Vec<Option<Spec>>> {
        let used = self.used.iter().chain(&self.cuts).filter(|value| value.node == index);
        let count = used.map(|value| value.output + 1).max().unwrap_or(1);
        if count > MAX_OUTPUTS {
            return Err(Error::new(format!("output {} of an input is read", count - 1)));
        }
        (0..count).map(|output| self.spec(Ref { node: index, output }, resolver)).collect()
    }

    fn spec(&self, value: Ref, resolver: &Resolver) -> Result<Option<Spec>> {
        let node = self.net.node(value.node);
        if !self.used.contains(&value) && !self.cuts.contains(&value) {
            return Ok(None);
        }
        let Some(dtype) = self.dtype(value) else { return Ok(None) };
        let name = match value.output {
            0 => node.name.clone(),
            output => format!("{}:{output}", node.name),
        };
        let known = self.known_shape(value, resolver);
        let given = self.shapes.get(&value.node);
        let base = name.rsplit('/').next().unwrap_or(&name).replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let free = |axis: usize| if axis == 0 { Dim::symbol("N") } else { Dim::symbol(&format!("{base}_{axis}")) };
        let dim = |size: i64, axis: usize| usize::try_from(size).map_or_else(|_| free(axis), Dim::Known);
        let shape: Shape = match (given, known) {
            (Some(given), Some(known)) if given.len() == known.len() => {
                let merged = given.iter().zip(known).enumerate();
                merged
                    .map(|(axis, (&given, known))| if given >= 0 { dim(given, axis) } else { dim(known, axis) })
                    .collect()
            }
            (Some(given), Some(known)) if given.len() + 1 == known.len() => {
                let rest = given.iter().zip(known.iter().skip(1)).enumerate();
                let rest = rest.map(|(i, (&given, &known))| dim(if given >= 0 { given } else { known }, i + 1));
                std::iter::once(free(0)).chain(rest).collect()
            }
            (Some(given), Some(known)) => {
                let message = format!("the shape {given:?} is given for an input of rank {}", known.len());
                return Err(Error::new(message));
            }
            // A batch is given as -1, or it is not given.
            (Some(given), None) if given.first().is_some_and(|&size| size < 0) => {
                given.iter().enumerate().map(|(axis, &size)| dim(size, axis)).collect()
            }
            (Some(given), None) => {
                let rest = given.iter().enumerate().map(|(i, &size)| dim(size, i + 1));
                std::iter::once(free(0)).chain(rest).collect()
            }
            (None, Some(known)) => known.into_iter().enumerate().map(|(axis, size)| dim(size, axis)).collect(),
            (None, None) => match self.inferred.get(&value) {
                Some((_, shape)) => shape
                    .iter()
                    .enumerate()
                    .map(|(axis, d)| match d {
                        Dim::Unknown => free(axis),
                        dim => dim.clone(),
                    })
                    .collect(),
                None => {
                    let problem = Problem::new("the shape of this input is not known").node(&name).op(&node.op);
                    let hint = format!("Give it: --inNodeName {name} --inputShape 224,224,3 (without the batch).");
                    return Err(problem.hint(hint).into());
                }
            },
        };
        Ok(Some(Spec { name, dtype, shape }))
    }

    fn reads(&self, reader: usize, value: Ref) -> bool {
        self.net.inputs(reader).contains(&Some(value))
    }

    fn dtype(&self, value: Ref) -> Option<DType> {
        let node = self.net.node(value.node);
        let listed = ["output_types", "component_types", "Tdense", "out_type"]
            .iter()
            .find_map(|key| node.attrs.contains_key(*key).then(|| node.dtype_at(key, value.output)));
        if let Some(Some(listed)) = listed {
            return Some(listed);
        }
        if let Some((dtype, _)) = self.inferred.get(&value) {
            return Some(*dtype);
        }
        if node.op.starts_with("Decode") && node.op != "DecodeRaw" {
            return Some(node.dtype("dtype").unwrap_or(DType::UInt8));
        }
        let named = ["dtype", "DstT", "output_type", "out_type", "Tparams", "T"];
        match named.iter().find(|key| node.attrs.contains_key(**key)) {
            Some(key) => node.dtype(key),
            None if listed.is_some() => None,
            None => self.is_cut(value.node).then_some(DType::Float32),
        }
    }

    fn known_shape(&self, value: Ref, resolver: &Resolver) -> Option<Vec<i64>> {
        let node = self.net.node(value.node);
        let cut = self.is_cut(value.node);
        let placeholder = node.op.starts_with("Placeholder");
        let own = if placeholder { node.shape("shape") } else { node.shape_at("output_shapes", value.output) };
        // TensorFlow 1.0 writes a scalar where it means that nothing is known.
        let legacy = placeholder && !cut && !node.attrs.contains_key("_output_shapes");
        let own = own.filter(|shape| !(legacy && shape.is_empty() && self.outranks_scalar(value)));
        let default = || resolver.net().input(value.node, 0).and_then(|d| resolver.net().node(d.node).tensor("value"));
        let shape = own.or_else(|| node.shape_at("_output_shapes", value.output)).map(<[i64]>::to_vec).or_else(|| {
            (node.op == "PlaceholderWithDefault")
                .then(default)
                .flatten()
                .map(|tensor| tensor.shape().iter().map(|&n| n as i64).collect())
        });
        if node.op.starts_with("Decode") && node.op != "DecodeRaw" && !cut && shape.is_none() {
            let channels = node.int("channels").filter(|&c| c > 0).unwrap_or(3);
            return Some(vec![-1, -1, channels]);
        }
        // Someone may know more: EnsureShape.
        let ensured = self.net.readers(value.node).iter().find_map(|&reader| {
            let ensures = self.net.op(reader) == "EnsureShape" && self.reads(reader, value);
            self.net.node(reader).shape("shape").filter(|_| ensures)
        });
        match (shape, ensured) {
            (Some(shape), Some(ensured)) if shape.len() == ensured.len() => {
                Some(shape.iter().zip(ensured).map(|(&a, &b)| if a < 0 { b } else { a }).collect())
            }
            (None, Some(ensured)) => Some(ensured.to_vec()),
            (shape, _) => shape,
        }
    }

    /// Whether a reader can't take a scalar.
    fn outranks_scalar(&self, value: Ref) -> bool {
        self.net.readers(value.node).iter().any(|&reader| {
            let first = self.net.input(reader, 0) == Some(value);
            let ops = ["Conv2D", "MatMul", "MaxPool", "AvgPool", "DepthwiseConv2dNative", "Transpose", "Conv3D", "LRN"];
            first && ops.contains(&self.net.op(reader))
        })
    }

    /// How to give the sizes that are not known.
    pub fn hint(&self, graph: &Graph) -> String {
        let free = |dim: &Dim| matches!(dim, Dim::Symbol { name, .. } if &**name != "N");
        let open = graph.inputs.iter().filter(|port| graph.shape(port.value).iter().any(free));
        let inputs: Vec<String> = open.map(|port| format!("'{}' {}", port.name, graph.shape(port.value))).collect();
        if inputs.is_empty() {
            return "Give the inputs' shapes with --inputShape.".to_owned();
        }
        format!("Give the sizes with --inputShape (without the batch); free are: {}.", inputs.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensorflow::testing::net;

    fn specs(text: &str, name: &str, given: &[&[i64]]) -> Result<Vec<Option<Spec>>> {
        let net = net(text);
        let resolver = Resolver::new(&net, false, HashSet::new());
        let given = given.iter().map(|shape| shape.to_vec()).collect();
        let mut inputs = Inputs::new(&resolver, Vec::new(), given, HashMap::new());
        let value = net.find(name).unwrap();
        let problems = inputs.assign(&HashSet::from([value.node]), HashSet::from([value]));
        Error::collect(problems)?;
        inputs.specs(value.node, &resolver)
    }

    fn shape(text: &str, name: &str, given: &[&[i64]]) -> String {
        specs(text, name, given).unwrap().into_iter().flatten().next().unwrap().shape.to_string()
    }

    #[test]
    fn shapes_come_with_and_without_the_batch() {
        let x = "x = Placeholder() | dtype=:float shape=<?,?,?,3>";
        assert_eq!(shape(x, "x", &[]), "[N, x_1, x_2, 3]");
        assert_eq!(shape(x, "x", &[&[8, 9, 3]]), "[N, 8, 9, 3]");
        assert_eq!(shape(x, "x", &[&[-1, 8, 9, -1]]), "[N, 8, 9, 3]");
        assert_eq!(shape(x, "x", &[&[2, 8, 9, 3]]), "[2, 8, 9, 3]");
        assert!(specs(x, "x", &[&[8, 3]]).is_err());
        assert!(specs(x, "x", &[&[8, 9, 3], &[1]]).is_err());
        assert_eq!(shape("x = Placeholder() | dtype=:float", "x", &[&[8, 9, 3]]), "[N, 8, 9, 3]");
        assert!(specs("x = Placeholder() | dtype=:float", "x", &[]).is_err());
    }

    #[test]
    fn pipelines_are_cut() {
        let next = "it = IteratorGetNext(i) | output_types=[:float,:int64] output_shapes=[<?,8,3>,<?>]\ni = Iterator()";
        let specs = specs(next, "it:1", &[]).unwrap();
        assert_eq!(specs.first(), Some(&None));
        let labels = specs.get(1).cloned().flatten().unwrap();
        assert_eq!(
            (labels.name.as_str(), labels.dtype, labels.shape.to_string()),
            ("it:1", DType::Int64, "[N]".into())
        );
    }
}
