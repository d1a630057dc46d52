//! Nodes as MMdnn 0.3.1 writes them, by hand.

use super::proto::{AttrValue, Attributes, DimDef, ListValue, NodeDef, TensorShape, Value as Attr};
use super::*;
use crate::graph::Value;
use crate::layout::Layout::{ChannelsFirst, ChannelsLast};
use crate::op::*;
use crate::shape::Shape;
use crate::tensor::{DType, Tensor};

fn def<const N: usize>(op: &str, name: &str, inputs: &[&str], attr: [(&str, AttrValue); N]) -> NodeDef {
    NodeDef {
        name: name.to_owned(),
        op: op.to_owned(),
        input: inputs.iter().map(|input| (*input).to_owned()).collect(),
        attr: attr.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Attributes>(),
    }
}

fn dims(sizes: &[i64]) -> TensorShape {
    let dim = sizes.iter().map(|&size| DimDef { size, name: String::new() }).collect();
    TensorShape { dim, unknown_rank: false }
}

fn shape(sizes: &[i64]) -> AttrValue {
    Attr::Shape(dims(sizes)).into()
}

fn shapes(sizes: &[i64]) -> AttrValue {
    Attr::List(ListValue { shape: vec![dims(sizes)], ..ListValue::default() }).into()
}

fn ints(list: &[i64]) -> AttrValue {
    list.to_vec().into()
}

fn input(sizes: &[i64]) -> NodeDef {
    def("DataInput", "x", &[], [("shape", shape(sizes)), ("dtype", Attr::Type(10).into())])
}

fn counting(shape: &[usize]) -> Tensor {
    let n = shape.iter().product::<usize>();
    Tensor::from_f32(shape, &(0..n).map(|i| i as f32).collect::<Vec<_>>())
}

fn read(node: Vec<NodeDef>, weights: &[(&str, &str, &[usize])]) -> Result<Graph> {
    let mut all = Weights::new();
    for (layer, name, shape) in weights {
        all.entry((*layer).to_owned()).or_default().insert((*name).to_owned(), counting(shape));
    }
    let folder = tempfile::tempdir().unwrap();
    let (network, file) = (folder.path().join("net.pb"), folder.path().join("net.npy"));
    std::fs::write(&network, GraphDef { node, version: 0 }.encode_to_vec()).unwrap();
    npy::save(&file, &all).unwrap();
    load(&network, Some(&file))
}

fn op<'a>(graph: &'a Graph, name: &str) -> &'a Op {
    graph.op(graph.find(name).unwrap_or_else(|| panic!("no node {name}")))
}

fn result(graph: &Graph) -> String {
    graph.shape(graph.outputs[0].value).to_string()
}

/// The only node after the input.
fn single(node: NodeDef, x: &[i64], weights: &[(&str, &str, &[usize])]) -> (Graph, Op) {
    let name = node.name.clone();
    let graph = read(vec![input(x), node], weights).unwrap();
    let op = op(&graph, &name).clone();
    (graph, op)
}

macro_rules! expect {
    ($op:expr, $pattern:pat => $body:expr) => {
        match $op {
            $pattern => $body,
            other => panic!("{other:?}"),
        }
    };
}

#[test]
fn a_network_of_tensorflow() {
    let conv = [
        ("kernel_shape", ints(&[3, 3, 3, 8])),
        ("strides", ints(&[1, 2, 2, 1])),
        ("pads", ints(&[0, 0, 0, 0, 0, 1, 1, 0])),
        ("auto_pad", "SAME_UPPER".into()),
        ("data_format", "NHWC".into()),
        ("use_bias", true.into()),
        ("scope", "".into()),
        ("_output_shapes", shapes(&[-1, 16, 16, 8])),
    ];
    let norm = [("epsilon", 0.001f32.into()), ("scale", false.into()), ("bias", true.into())];
    let depthwise = [
        ("kernel_shape", ints(&[3, 3, 8, 2])),
        ("strides", ints(&[1, 1, 1, 1])),
        ("pads", ints(&[0; 8])),
        ("auto_pad", "VALID".into()),
    ];
    let pool = [("pooling_type", "AVG".into()), ("global_pooling", true.into()), ("strides", ints(&[1; 4]))];
    let graph = read(
        vec![
            input(&[-1, 32, 32, 3]),
            def("Conv", "conv/Conv2D", &["x"], conv),
            def("BatchNorm", "bn", &["conv/Conv2D"], norm),
            def("Relu6", "relu", &["bn"], []),
            def("DepthwiseConv", "dw", &["relu"], depthwise),
            def("Pool", "pool", &["dw"], pool),
            def("Flatten", "flat", &["pool"], [("_output_shapes", shapes(&[-1, 16]))]),
            def("Dropout", "drop", &["flat"], [("keep_prob", 0.9f32.into())]),
            def("FullyConnected", "fc", &["drop"], [("units", 5i64.into()), ("use_bias", true.into())]),
            def("Softmax", "prob", &["fc"], []),
        ],
        &[
            ("conv/Conv2D", "weights", &[3, 3, 3, 8]),
            ("conv/Conv2D", "bias", &[8]),
            ("bn", "bias", &[8]),
            ("bn", "mean", &[8]),
            ("bn", "var", &[8]),
            ("dw", "weights", &[3, 3, 8, 2]),
            ("fc", "weights", &[16, 5]),
            ("fc", "bias", &[5]),
        ],
    )
    .unwrap();
    assert_eq!((graph.name.as_str(), graph.source.as_str()), ("net", "MMdnn, net.pb"));
    assert_eq!((graph.inputs[0].name.as_str(), graph.outputs[0].name.as_str()), ("x", "prob"));
    assert_eq!((graph.inputs.len(), graph.outputs.len(), result(&graph)), (1, 1, "[N, 5]".to_owned()));
    expect!(op(&graph, "conv/Conv2D"), Op::Conv(conv) => {
        assert_eq!((&conv.pads, conv.groups, conv.layout), (&Pads(vec![(0, 1); 2]), 1, ChannelsLast));
    });
    expect!(op(&graph, "dw"), Op::Conv(conv) => assert_eq!((conv.groups, conv.dilations.as_slice()), (8, [1, 1].as_slice())));
    let dw = graph.inputs_of(graph.find("dw").unwrap())[1].unwrap();
    assert_eq!(graph.shape(dw), &Shape::known(&[3, 3, 1, 16]));
    assert_eq!(graph.node(dw.node).name, "dw/weights");
    let norm = graph.inputs_of(graph.find("bn").unwrap());
    assert!(norm[1].is_none() && norm[2].is_some());
    let trained = norm[2..].iter().flatten().map(|value| match graph.op(value.node) {
        Op::Constant(constant) => constant.trainable,
        other => panic!("{other:?}"),
    });
    assert_eq!(trained.collect::<Vec<_>>(), [true, false, false]);
    expect!(op(&graph, "drop"), Op::Dropout(drop) => assert_eq!(drop.rate, 0.1));
    expect!(op(&graph, "pool"), Op::Reduce(pool) => assert_eq!((&pool.axes, pool.keep_dims), (&vec![1, 2], true)));
    expect!(op(&graph, "prob"), Op::Softmax(op) => assert_eq!(op.axis, 1));
}

fn conv(extra: &[(&str, AttrValue)]) -> NodeDef {
    let mut node =
        def("Conv", "conv", &["x"], [("kernel_shape", ints(&[3, 3, 3, 4])), ("strides", ints(&[1, 2, 2, 1]))]);
    node.attr.extend(extra.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    node
}

#[test]
fn padding_in_words_and_numbers() {
    let pads = |size: i64, extra: &[(&str, AttrValue)]| {
        let (_, op) = single(conv(extra), &[-1, size, size, 3], &[("conv", "weights", &[3, 3, 3, 4])]);
        expect!(op, Op::Conv(conv) => conv.pads.0[0])
    };
    let word = |word: &str| ("auto_pad", AttrValue::from(word));
    let numbers = |before: i64, after: i64| ("pads", ints(&[0, before, before, 0, 0, after, after, 0]));
    assert_eq!(pads(8, &[word("SAME_UPPER")]), (0, 1));
    assert_eq!(pads(8, &[word("SAME_LOWER")]), (1, 0));
    // Keras says lower and means upper: the numbers know.
    assert_eq!(pads(8, &[word("SAME_LOWER"), numbers(0, 1)]), (0, 1));
    // Numbers that were computed without the dilation.
    assert_eq!(pads(8, &[word("SAME_UPPER"), numbers(0, 1), ("dilations", ints(&[1, 2, 2, 1]))]), (1, 2));
    assert_eq!(pads(8, &[word("VALID"), numbers(3, 3)]), (0, 0));
    assert_eq!(pads(8, &[numbers(2, 1)]), (2, 1));
    assert_eq!(pads(8, &[]), (0, 0));
    // A free size: the numbers are all there is.
    assert_eq!(pads(-1, &[word("SAME_UPPER"), numbers(0, 1)]), (0, 1));
    assert_eq!(pads(-1, &[word("SAME_UPPER"), ("strides", ints(&[1, 1, 1, 1]))]), (1, 1));
    let error = read(vec![input(&[-1, -1, 8, 3]), conv(&[word("SAME_UPPER")])], &[("conv", "weights", &[3, 3, 3, 4])]);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("of a free size") && error.contains("at conv"), "{error}");
}

#[test]
fn convolutions_of_all_kinds() {
    let channels_first = conv(&[("data_format", "NCHW".into()), ("strides", ints(&[1, 1, 2, 2]))]);
    let (graph, op) = single(channels_first, &[1, 3, 8, 8], &[("conv", "weights", &[3, 3, 3, 4])]);
    expect!(op, Op::Conv(conv) => assert_eq!((conv.layout, conv.strides), (ChannelsFirst, vec![2, 2])));
    assert_eq!(result(&graph), "[1, 4, 3, 3]");
    // Some of MMdnn's readers keep the word of the source and turn everything.
    let turned = conv(&[("data_format", "NCHW".into())]);
    let (_, op) = single(turned, &[1, 8, 8, 3], &[("conv", "weights", &[3, 3, 3, 4])]);
    expect!(op, Op::Conv(conv) => assert_eq!((conv.layout, conv.strides), (ChannelsLast, vec![2, 2])));
    let dense = conv(&[("data_format", "NCHW".into()), ("strides", ints(&[1; 4]))]);
    let (_, op) = single(dense, &[1, 3, 8, 8], &[("conv", "weights", &[3, 3, 3, 4])]);
    expect!(op, Op::Conv(conv) => assert_eq!(conv.layout, ChannelsFirst));

    let separable =
        def("SeparableConv", "sep", &["x"], [("strides", ints(&[1; 4])), ("auto_pad", "SAME_UPPER".into())]);
    let weights: [(&str, &str, &[usize]); 3] =
        [("sep", "depthwise_filter", &[3, 3, 3, 2]), ("sep", "pointwise_filter", &[1, 1, 6, 4]), ("sep", "bias", &[4])];
    let (graph, op) = single(separable, &[-1, 8, 8, 3], &weights);
    expect!(op, Op::Conv(conv) => assert_eq!(conv.groups, 1));
    expect!(self::op(&graph, "sep/depthwise"), Op::Conv(conv) => assert_eq!(conv.groups, 3));
    assert_eq!(result(&graph), "[N, 8, 8, 4]");

    // TensorFlow's transposed convolution: the output's shape comes first, and its constant is not in the file.
    let transposed = |inputs: &[&str], extra: &[(&str, AttrValue)]| {
        let mut node = def("ConvTranspose", "up", inputs, [("strides", ints(&[1, 2, 2, 1]))]);
        node.attr.extend(extra.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let (graph, op) = single(node, &[-1, 5, 5, 3], &[("up", "weights", &[3, 3, 4, 3])]);
        expect!(op, Op::ConvTranspose(op) => (op.pads.0[0], op.output_padding[0], result(&graph)))
    };
    let same = ("auto_pad", AttrValue::from("SAME_UPPER"));
    assert_eq!(transposed(&["shape", "x"], std::slice::from_ref(&same)), ((0, 1), 0, "[N, 10, 10, 4]".to_owned()));
    let nine = ("_output_shapes", shapes(&[-1, 9, 9, 4]));
    assert_eq!(transposed(&["x"], &[same, nine]), ((1, 1), 0, "[N, 9, 9, 4]".to_owned()));
    let valid = ("auto_pad", AttrValue::from("VALID"));
    assert_eq!(transposed(&["x"], &[valid]), ((0, 0), 0, "[N, 11, 11, 4]".to_owned()));
    let pads = ("pads", ints(&[0, 1, 1, 0, 0, 1, 1, 0]));
    assert_eq!(transposed(&["x"], &[pads]), ((1, 1), 0, "[N, 9, 9, 4]".to_owned()));
}

#[test]
fn pools_norms_and_the_like() {
    let pool = [
        ("pooling_type", "AVG".into()),
        ("kernel_shape", ints(&[1, 3, 3, 1])),
        ("strides", ints(&[1, 2, 2, 1])),
        ("pads", ints(&[0, 1, 1, 0, 0, 1, 1, 0])),
    ];
    let (_, op) = single(def("Pool", "p", &["x"], pool.clone()), &[-1, 8, 8, 3], &[]);
    expect!(op, Op::Pool(pool) => assert!(pool.count_include_pad && pool.pads.0[0] == (1, 1)));
    let mut same = def("Pool", "p", &["x"], pool);
    same.attr.insert("auto_pad".to_owned(), "SAME_UPPER".into());
    let (_, op) = single(same, &[-1, 8, 8, 3], &[]);
    expect!(op, Op::Pool(pool) => assert!(!pool.count_include_pad && pool.pads.0[0] == (0, 1)));

    let lrn = [("size", 5i64.into()), ("alpha", 0.5f32.into()), ("beta", 0.75f32.into()), ("bias", 2.0f32.into())];
    let (_, op) = single(def("LRN", "n", &["x"], lrn), &[-1, 8, 8, 3], &[]);
    expect!(op, Op::Lrn(lrn) => assert_eq!((lrn.alpha, lrn.k), (0.1, 2.0)));

    let (graph, _) = single(
        def("Scale", "s", &["x"], [("use_bias", true.into())]),
        &[-1, 8, 8, 3],
        &[("s", "scale", &[3]), ("s", "bias", &[3])],
    );
    assert!(matches!(self::op(&graph, "s"), Op::Binary(Binary::Add)));
    let (_, op) = single(def("PRelu", "r", &["x"], []), &[-1, 8, 8, 3], &[("r", "gamma", &[3])]);
    assert!(matches!(op, Op::PRelu(_)));
    let (graph, op) = single(def("UpSampling2D", "u", &["x"], [("scales", ints(&[2, 3]))]), &[-1, 8, 8, 3], &[]);
    expect!(op, Op::Resize(op) => assert_eq!((op.mode, result(&graph)), (ResizeMode::Nearest, "[N, 16, 24, 3]".to_owned())));
    let (_, op) = single(def("Elu", "e", &["x"], []), &[-1, 3], &[]);
    expect!(op, Op::Elu(op) => assert_eq!(op.alpha, 1.0));
    let border = |list: &[i64], output: &[i64]| {
        let attr = [("border", ints(list)), ("_output_shapes", shapes(output))];
        let (graph, op) = single(def("Crop", "c", &["x"], attr), &[-1, 8, 8, 3], &[]);
        expect!(op, Op::Slice(op) => (op.begins, result(&graph)))
    };
    assert_eq!(border(&[1, 2, 3, 0], &[-1, 5, 5, 3]), (vec![0, 1, 3, 0], "[N, 5, 5, 3]".to_owned()));
    assert_eq!(border(&[1, 2, 0, 0], &[-1, 4, 5, 3]), (vec![0, 1, 2, 0], "[N, 4, 5, 3]".to_owned()));
}

#[test]
fn shapes_and_slices() {
    let reshape = |list: &[i64], x: &[i64]| {
        let (graph, op) = single(def("Reshape", "r", &["x"], [("shape", ints(list))]), x, &[]);
        expect!(op, Op::Reshape(op) => (op.shape.to_string(), result(&graph)))
    };
    let both = |text: &str| (text.to_owned(), text.to_owned());
    assert_eq!(reshape(&[-1, 12], &[-1, 2, 6]), both("[N, 12]"));
    assert_eq!(reshape(&[-1, 6], &[-1, 2, 6]), both("[2*N, 6]"));
    assert_eq!(reshape(&[-1, 3, -1], &[-1, 12]), both("[N, 3, 4]"));
    assert_eq!(reshape(&[0, 3, 4], &[-1, 12]), both("[N, 3, 4]"));

    let slice = |attr: &[(&str, AttrValue)], x: &[i64]| {
        let mut node = def("Slice", "s", &["x"], []);
        node.attr.extend(attr.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        result(&single(node, x, &[]).0)
    };
    let lists = |starts: &[i64], ends: &[i64], strides: &[i64]| {
        vec![("starts", ints(starts)), ("ends", ints(ends)), ("strides", ints(strides))]
    };
    assert_eq!(slice(&lists(&[0, 1], &[2, 3], &[1, 1]), &[4, 5, 6]), "[2, 2, 6]");
    let masks = |begin: i64, end: i64, shrink: i64, new: i64| {
        [("begin_mask", begin), ("end_mask", end), ("shrink_axis_mask", shrink), ("new_axis_mask", new)]
            .map(|(name, mask)| (name, AttrValue::from(mask)))
    };
    let with =
        |lists: Vec<(&'static str, AttrValue)>, masks: [(&'static str, AttrValue); 4]| [lists, masks.to_vec()].concat();
    assert_eq!(slice(&with(lists(&[9, -2], &[0, 0], &[1, 1]), masks(1, 3, 0, 0)), &[-1, 5]), "[N, 2]");
    // x[:, -1], x[:, newaxis, 2:4], x[1, newaxis, :, 0]
    assert_eq!(slice(&with(lists(&[0, -1], &[0, 0], &[1, 1]), masks(1, 1, 2, 0)), &[-1, 5, 6]), "[N, 6]");
    assert_eq!(slice(&with(lists(&[0, 0, 2], &[0, 0, 4], &[1; 3]), masks(1, 1, 0, 2)), &[-1, 5, 6]), "[N, 1, 2, 6]");
    assert_eq!(slice(&with(lists(&[1, 0, 0, 0], &[2, 0, 0, 1], &[1; 4]), masks(4, 4, 9, 2)), &[4, 5, 6]), "[1, 5]");

    let (graph, _) =
        single(def("Squeeze", "s", &["x"], [("axes", Attr::List(ListValue::default()).into())]), &[-1, 1, 4, 1], &[]);
    assert_eq!(result(&graph), "[N, 4]");
    let (graph, _) =
        single(def("Split", "s", &["x"], [("axis", (-1i64).into()), ("split", 3i64.into())]), &[-1, 9], &[]);
    assert_eq!((graph.outputs.len(), graph.outputs[2].name.as_str()), (3, "s:2"));
    let (graph, _) = single(
        def("ReduceMean", "m", &["x"], [("axes", ints(&[-2, 1])), ("keepdims", false.into())]),
        &[-1, 4, 5, 6],
        &[],
    );
    assert_eq!(result(&graph), "[N, 6]");
    let (_, op) = single(def("Concat", "c", &["x", "x"], [("axis", 3i64.into())]), &[-1, 4], &[]);
    expect!(op, Op::Concat(op) => assert_eq!(op.axis, 1));
    let (_, op) = single(def("Cast", "c", &["x"], [("dstType", "int".into())]), &[-1, 4], &[]);
    expect!(op, Op::Cast(op) => assert_eq!(op.dtype, DType::Int32));
}

#[test]
fn constants_and_outputs_by_number() {
    let dtype = |code: i32| ("dtype", AttrValue::from(Attr::Type(code)));
    let nodes = vec![
        input(&[-1, 4]),
        def("Constant", "two", &[], [("value", 2.0f32.into()), dtype(10)]),
        def("Constant", "list", &[], [("value", ints(&[1, 0])), dtype(3)]),
        def("Constant", "table", &[], [dtype(10)]),
        def("Unstack", "parts", &["x"], [("axis", 1i64.into()), ("num", 4i64.into())]),
        def("Mul", "mul", &["parts:1", "two"], []),
        def("Add", "sum", &["mul", "parts:3", "parts"], []),
        def("Transpose", "turned", &["x", "list"], []),
        def("Matmul", "product", &["x", "table"], []),
        def("Add", "weighted", &["x"], [("feed_weights", true.into())]),
    ];
    let graph = read(nodes, &[("table", "value", &[4, 2]), ("weighted", "weights", &[4])]).unwrap();
    let names: Vec<&str> = graph.outputs.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(names, ["sum", "turned", "product", "weighted"]);
    let sum = graph.inputs_of(graph.find("sum").unwrap());
    assert_eq!(sum[1], Some(Value { node: graph.find("parts").unwrap(), output: 0 }));
    assert_eq!(graph.scalar(graph.find("two").unwrap().into()), Some(2.0));
    assert!(graph.find("list").is_none());
    expect!(op(&graph, "turned"), Op::Transpose(op) => assert_eq!(op.perm, [1, 0]));
    expect!(op(&graph, "weighted"), Op::Binary(op) => assert_eq!(*op, Binary::Add));
}

#[test]
fn dense_layers_flatten_what_they_are_given() {
    let dense = |output: &[i64]| {
        def("FullyConnected", "fc", &["x"], [("units", 5i64.into()), ("_output_shapes", shapes(output))])
    };
    let (graph, _) = single(dense(&[-1, 5]), &[-1, 2, 2, 4], &[("fc", "weights", &[16, 5]), ("fc", "bias", &[5])]);
    assert_eq!(result(&graph), "[N, 5]");
    let (graph, _) = single(dense(&[-1, 7, 5]), &[-1, 7, 16], &[("fc", "weights", &[16, 5])]);
    assert_eq!(result(&graph), "[N, 7, 5]");
    let (graph, _) = single(dense(&[-1, 5]), &[-1, 1, 16], &[("fc", "weights", &[16, 5])]);
    assert_eq!(result(&graph), "[N, 5]");
    let embedding = def("Embedding", "e", &["x"], [("input_dim", 9i64.into()), ("output_dim", 4i64.into())]);
    let (graph, op) = single(embedding, &[-1, 7], &[("e", "embedding_weights", &[9, 4])]);
    assert!(matches!(op, Op::Gather(_)));
    assert_eq!(result(&graph), "[N, 7, 4]");
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let nodes = vec![
        input(&[-1, 8, 8, 3]),
        conv(&[("use_bias", true.into())]),
        def("Relu", "after", &["conv"], []),
        def("LSTM", "lstm", &["x"], []),
        def("Unpool", "unpool", &["x"], []),
        def("Unpool", "unpool2", &["x"], []),
        def("BatchNorm", "bn", &["x"], [("epsilon", 0.1f32.into()), ("scale", true.into())]),
        def("Relu", "lost", &["nowhere"], []),
        def("Relu", "far", &["x:1"], []),
        def("Pad", "pad", &["x"], [("pads", ints(&[0, 1, -1, 0, 0, 0, 0, 0]))]),
    ];
    let error = read(nodes, &[("bn", "mean", &[3])]).unwrap_err();
    let text = error.to_string();
    for expected in [
        "has no weights, bias for it [Conv]\n    at conv",
        "the operator is not known [LSTM]\n    at lstm\n    recurrent layers",
        "the operator is not known [Unpool] (2 nodes)\n    at unpool\n    at unpool2",
        "has no scale, var for it [BatchNorm]\n    at bn",
        "its input 'nowhere' is not in the file [Relu]\n    at lost",
        "'x' has no output 1 [Relu]\n    at far",
        "'pads' is [0, 1, -1, 0, 0, 0, 0, 0], expected no negative number [Pad]\n    at pad",
    ] {
        assert!(text.contains(expected), "no '{expected}' in\n{text}");
    }
    // What only follows from them is not listed.
    assert!(!text.contains("at after"));
    assert!(error.problems.iter().all(|problem| problem.file.is_some()));

    let cycle = vec![def("Relu", "a", &["b"], []), def("Relu", "b", &["a"], [])];
    assert!(read(cycle, &[]).unwrap_err().to_string().contains("cycle"));
    let twice = vec![input(&[1]), input(&[1])];
    assert!(read(twice, &[]).unwrap_err().to_string().contains("two nodes have the same name"));
}
