use std::collections::HashSet;

use super::fields::to_fields;
use super::proto::{DimDef, NodeDef, Value as Attr};
use super::samples::{everything, samples};
use super::*;
use crate::graph::{Port, Value};
use crate::layout::Layout;
use crate::op::*;
use crate::shape::{Dim, Shape};
use crate::tensor::{DType, Tensor};
use crate::weight_norm::{Entry, WeightNorm};

/// What a graph is, in words that can be compared: everything but the numbers of its nodes.
fn describe(graph: &Graph) -> Vec<String> {
    let reference = |value: Value| format!("{}:{}", graph.node(value.node).name, value.output);
    let port = |port: &crate::graph::Port| format!("{} = {} {:?}", port.name, reference(port.value), port.permutation);
    let mut lines = vec![format!("{} from {}", graph.name, graph.source)];
    lines.extend(graph.inputs.iter().map(|p| format!("input {}", port(p))));
    lines.extend(graph.outputs.iter().map(|p| format!("output {}", port(p))));
    lines.push(format!("{:?}", graph.modules));
    let spare = graph.spare.iter();
    lines.extend(spare.map(|(key, tensor)| format!("{key} {:?} {:?}", tensor.shape(), tensor.to_f64().unwrap())));
    lines.extend(graph.weight_norms.iter().map(|(key, norm)| {
        let [length, direction] = [&norm.length, &norm.direction].map(|e| (&e.key, e.tensor.to_f64().unwrap()));
        format!("{key} {:?} {length:?} {direction:?}", norm.axis)
    }));
    for id in graph.ids() {
        let node = graph.node(id);
        let inputs: Vec<_> = graph.inputs_of(id).into_iter().map(|value| value.map(reference)).collect();
        let op = match &node.op {
            Op::Constant(op) => {
                let tensor = &op.tensor;
                let bytes = tensor.to_bytes().unwrap();
                format!("{} {:?} {bytes:?} {}", tensor.dtype(), tensor.shape(), op.trainable)
            }
            op => format!("{:?}", to_fields(op).unwrap()),
        };
        lines.push(format!("{} {op} {inputs:?} -> {:?}", node.name, node.outputs));
    }
    lines
}

fn assert_same(a: &Graph, b: &Graph) {
    let (a, b) = (describe(a), describe(b));
    for (a, b) in a.iter().zip(&b) {
        assert_eq!(a, b);
    }
    assert_eq!(a.len(), b.len());
}

fn round_trip(graph: &Graph) -> Graph {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("net.v1");
    let files = save(graph, &base, Format::ALL).unwrap();
    let names: Vec<_> = files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["net.v1.json", "net.v1.pb", "net.v1.npy"]);
    let json = load(&files[0], Some(&files[2])).unwrap();
    let binary = load(&files[1], None).unwrap();
    assert_same(&json, &binary);
    let again = folder.path().join("again");
    let second = save(&binary, &again, Format::ALL).unwrap();
    for (first, second) in files.iter().zip(&second) {
        assert_eq!(std::fs::read(first).unwrap(), std::fs::read(second).unwrap());
    }
    binary
}

#[test]
fn there_is_a_sample_of_every_family() {
    let families: HashSet<&str> = samples().iter().map(|sample| sample.op.family()).collect();
    for family in FAMILIES {
        assert!(families.contains(family), "no sample of {family}");
    }
}

#[test]
fn every_operator_survives() {
    let mut graph = everything();
    let modules = [("", "Net"), ("layer1", "Sequential"), ("layer1.a=b", "Conv2d")];
    graph.modules = modules.map(|(path, class)| (path.to_owned(), class.to_owned())).into();
    graph.spare.insert("aux.weight".to_owned(), Tensor::from_f32(&[2, 1], &[0.5, -1.0]));
    let entry =
        |key: &str, shape: &[usize]| Entry { key: key.to_owned(), tensor: Tensor::from_f32(shape, &[1.5, 2.5]) };
    for (path, axis) in [("a", Some(1)), ("b", None)] {
        let (length, direction) =
            (entry(&format!("{path}.weight_g"), &[1, 2]), entry(&format!("{path}.weight_v"), &[1, 2]));
        graph.weight_norms.insert(format!("{path}.weight"), WeightNorm { axis, length, direction });
    }
    assert_same(&graph, &round_trip(&graph));
}

fn node(graph: &Graph, name: &str) -> NodeDef {
    let (def, _) = write::to_files(graph).unwrap();
    def.node.into_iter().find(|def| def.name == name).unwrap()
}

fn ints(def: &NodeDef, name: &str) -> Vec<i64> {
    def.integers(name).unwrap().unwrap()
}

fn constant(graph: &mut Graph, name: &str, shape: &[usize]) -> Value {
    let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| i as f32).collect();
    graph.constant(name, Tensor::from_f32(shape, &values))
}

fn image(graph: &mut Graph) -> Value {
    let shape = Shape(vec![Dim::symbol("N"), Dim::Known(8), Dim::Known(8), Dim::Known(3)]);
    graph.input("x", DType::Float32, shape).unwrap()
}

#[test]
fn files_speak_as_mmdnn_does() {
    let mut graph = Graph::new("g", "s");
    let x = image(&mut graph);
    let w = constant(&mut graph, "conv/w", &[3, 3, 3, 6]);
    let b = constant(&mut graph, "conv/b", &[6]);
    let same = Conv {
        strides: vec![2, 2],
        pads: Pads(vec![(0, 1); 2]),
        dilations: vec![1, 1],
        groups: 1,
        layout: Layout::ChannelsLast,
    };
    let conv = graph.add(same.clone(), "conv", &[x, w, b]).unwrap().into();
    let dw = constant(&mut graph, "dw/w", &[3, 3, 1, 12]);
    let depthwise = Conv { strides: vec![1, 1], groups: 6, pads: Pads::none(2), ..same };
    let depthwise = graph.add(depthwise, "dw", &[conv, dw]).unwrap();
    let flat = graph
        .add(Reshape { shape: Shape(vec![Dim::symbol("N"), Dim::Known(48)]) }, "flat", &[depthwise.into()])
        .unwrap();
    let dense = constant(&mut graph, "fc/w", &[48, 5]);
    let dense = graph.add(Dense {}, "fc", &[flat.into(), dense]).unwrap();
    graph.output("y", dense.into());

    let conv = node(&graph, "conv");
    assert_eq!((conv.op.as_str(), conv.input.as_slice()), ("Conv", ["x".to_owned()].as_slice()));
    assert_eq!(ints(&conv, "kernel_shape"), [3, 3, 3, 6]);
    assert_eq!(ints(&conv, "strides"), [1, 2, 2, 1]);
    assert_eq!(ints(&conv, "pads"), [0, 0, 0, 0, 0, 1, 1, 0]);
    assert_eq!(conv.text("auto_pad"), Ok(Some("SAME_UPPER")));
    assert_eq!(conv.flag("use_bias"), Ok(Some(true)));
    assert_eq!(conv.texts("_constants").unwrap().unwrap(), ["weights=conv/w", "bias=conv/b"]);
    let Some(Attr::List(shapes)) = conv.value("_output_shapes") else { panic!() };
    assert_eq!(shapes.shape[0].dim[0], DimDef { size: -1, name: "N".to_owned() });
    let underscored: Vec<&String> = conv.attr.keys().filter(|name| name.starts_with('_')).collect();
    assert_eq!(underscored, ["_constants", "_output_shapes"]);

    let dw = node(&graph, "dw");
    assert_eq!((dw.op.as_str(), ints(&dw, "kernel_shape")), ("DepthwiseConv", vec![3, 3, 6, 2]));
    assert_eq!(dw.text("auto_pad"), Ok(Some("VALID")));
    assert_eq!(node(&graph, "flat").op, "Flatten");
    assert_eq!((node(&graph, "fc").op.as_str(), node(&graph, "fc").integer("units")), ("FullyConnected", Ok(Some(5))));
    let (_, weights) = write::to_files(&graph).unwrap();
    assert_eq!(weights.keys().collect::<Vec<_>>(), ["conv", "dw", "fc"]);
    assert_eq!(weights["conv"].keys().collect::<Vec<_>>(), ["weights", "bias"]);
    assert_eq!(weights["dw"]["weights"].shape(), [3, 3, 6, 2]);
    assert_same(&graph, &round_trip(&graph));
}

#[test]
fn ports_order_repeated_inputs_and_gaps_survive() {
    let mut graph = Graph::new("net", "TensorFlow, x.pb");
    let a = image(&mut graph);
    let b = graph.input("b", DType::Float32, Shape::known(&[2, 10])).unwrap();
    let twice = graph.add(Concat { axis: 3 }, "twice", &[a, a]).unwrap();
    let split = graph.add(Split { axis: 1, sizes: vec![4, 6] }, "split", &[b]).unwrap();
    let second = Value { node: split, output: 1 };
    let sum = graph.add(Binary::Add, "sum", &[second, second]).unwrap();
    let like = graph.add_with(
        Foreign { op: "X".to_owned(), dtype: DType::Bool, shape: Shape::known(&[1]) },
        "gap",
        &[None, Some(a)],
    );
    // A node that was added late, in front of one that was added early.
    let late = graph.add(Unary::Relu, "late", &[a]).unwrap();
    graph.set_input(twice, 1, Some(late.into()));
    graph.outputs.push(Port { name: "first".to_owned(), value: sum.into(), permutation: Some(vec![1, 0]) });
    graph.output("again", sum.into());
    graph.output("second part", second);
    graph.output("twice", twice.into());
    graph.output("gap", like.unwrap().into());
    graph.inputs.reverse();
    graph.inputs[0].name = "renamed".to_owned();
    graph.inputs[1].permutation = Some(vec![0, 3, 1, 2]);
    assert_same(&graph, &round_trip(&graph));
}

#[test]
fn constants_keep_their_names_places_and_ties() {
    let mut graph = Graph::new("net", "");
    // Not right before their nodes, in another order, and read in several places.
    let bias = constant(&mut graph, "shared/bias", &[3]);
    let tied = constant(&mut graph, "embedding", &[3, 3]);
    let x = graph.input("x", DType::Float32, Shape::known(&[2, 3])).unwrap();
    let one = graph.add(Dense {}, "one", &[x, tied, bias]).unwrap();
    let two = graph.add(Dense {}, "two", &[one.into(), tied, bias]).unwrap();
    // A weight that is data elsewhere, an operand, and one that is an output.
    let both = constant(&mut graph, "both", &[3, 3]);
    let three = graph.add(Dense {}, "three", &[two.into(), both]).unwrap();
    let four = graph.add(Binary::Mul, "four", &[both, three.into()]);
    assert!(four.is_err());
    let four = graph.add(MatMul { transpose_a: false, transpose_b: false }, "four", &[three.into(), both]).unwrap();
    let alone = constant(&mut graph, "alone", &[2]);
    // Another node with the same tensor.
    let same = graph.tensor(tied).unwrap().clone();
    let same = graph.variable("same tensor", same);
    let five = graph.add(Dense {}, "five", &[four.into(), same]).unwrap();
    graph.output("y", five.into());
    graph.output("z", alone);

    let read = round_trip(&graph);
    assert_same(&graph, &read);
    let tensor = |name: &str| read.tensor(read.find(name).unwrap().into()).unwrap().clone();
    assert!(tensor("embedding").is_same(&tensor("same tensor")));
    assert!(!tensor("embedding").is_same(&tensor("both")));
    let (def, weights) = write::to_files(&graph).unwrap();
    assert!(weights["one"]["weights"].is_same(&weights["two"]["weights"]));
    let constants: Vec<&str> =
        def.node.iter().filter(|def| def.op == "Constant").map(|def| def.name.as_str()).collect();
    assert_eq!(constants, ["both", "alone"]);
    assert!(weights["both"].contains_key("value"));
}

#[test]
fn nothing_is_left_behind_by_a_save_that_fails() {
    let mut graph = Graph::new("net", "");
    #[derive(Debug)]
    struct Broken;
    impl crate::tensor::Storage for Broken {
        fn len(&self) -> u64 {
            4
        }
        fn read_at(&self, _: u64, _: &mut [u8]) -> std::io::Result<()> {
            Err(std::io::Error::other("the disk is gone"))
        }
    }
    let tensor = Tensor::new(DType::Float32, &[1], std::sync::Arc::new(Broken)).unwrap();
    let value = graph.constant("c", tensor);
    graph.output("c", value);
    let folder = tempfile::tempdir().unwrap();
    let error = save(&graph, &folder.path().join("net"), Format::ALL).unwrap_err().to_string();
    assert!(error.contains("net.npy: can't be written: the disk is gone"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn json_of_any_beginning_and_binary_are_told_apart() {
    let def = |name: String| GraphDef { node: vec![NodeDef { name, ..NodeDef::default() }], version: 0 };
    // A node of 123 bytes with a name of 34: "\n{\n\"…".
    let mut tricky = def("a".repeat(34));
    tricky.node[0].op = "b".repeat(85);
    let bytes = tricky.encode_to_vec();
    assert_eq!(&bytes[..4], b"\n{\n\"");
    assert_eq!(parse(&bytes), Ok(tricky));
    assert_eq!(parse(b"\xef\xbb\xbf\n { }"), Ok(GraphDef::default()));
    assert!(parse(b"{\"node\": 1}").unwrap_err().contains("JSON"));
    assert!(parse(b"PK\x03\x04").is_err());
}

/// Numbers that look random and are the same on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

#[test]
fn damaged_networks_do_not_panic() {
    let folder = tempfile::tempdir().unwrap();
    let files = save(&everything(), &folder.path().join("net"), Format::ALL).unwrap();
    let weights = npy::read(&files[2]).unwrap();
    let bytes = std::fs::read(&files[1]).unwrap();
    let mut random = Random(1);
    let extremes: [i64; 8] = [-1, 0, 2, 3, 1 << 16, 1 << 40, i64::MAX, i64::MIN];
    for _ in 0..100 {
        // Damage to the bytes, and to the meaning.
        let mut damaged = bytes.clone();
        for _ in 0..1 + random.below(3) {
            let at = random.below(damaged.len());
            damaged[at] = random.below(256) as u8;
        }
        drop(parse(&damaged).map(|def| read::from_files(def, &weights, Graph::default(), None)));

        let mut def = GraphDef::decode(bytes.as_slice()).unwrap();
        for _ in 0..8 {
            let count = def.node.len();
            let other = def.node[random.below(count)].clone();
            let node = &mut def.node[random.below(count)];
            match random.below(4) {
                0 => node.op = other.op,
                1 => node.input = other.input,
                2 => node.attr = other.attr,
                _ => {
                    let at = random.below(node.attr.len().max(1));
                    match node.attr.values_mut().nth(at).and_then(|attr| attr.value.as_mut()) {
                        Some(Attr::I(i)) => *i = extremes[random.below(8)],
                        Some(Attr::List(list)) => list.i.iter_mut().for_each(|i| *i = extremes[random.below(8)]),
                        Some(Attr::Shape(shape)) => {
                            shape.dim.iter_mut().for_each(|dim| dim.size = extremes[random.below(8)]);
                        }
                        _ => {}
                    }
                }
            }
        }
        drop(read::from_files(def, &weights, Graph::default(), None));
    }
}
