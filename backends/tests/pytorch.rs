//! Small graphs become the code that is expected of them.

#![allow(clippy::unwrap_used)]

use modelport_backends::pytorch::{Options, generate};
use modelport_ir::op::{BatchNorm, Binary, Concat, Conv, Pads, Pool, PoolKind, Reduce, ReduceKind, Unary};
use modelport_ir::{DType, Dim, Graph, Layout, Shape, Tensor, Value};

struct Net(Graph);

impl Net {
    fn new(channels: usize, size: usize) -> (Net, Value) {
        let mut graph = Graph::new("net", "test");
        let shape = Shape(vec![Dim::symbol("N"), Dim::Known(channels), Dim::Known(size), Dim::Known(size)]);
        let x = graph.input("input", DType::Float32, shape).unwrap();
        (Net(graph), x)
    }

    fn conv_bn(&mut self, scope: &str, x: Value, out: usize, kernel: usize, stride: usize) -> Value {
        let channels = self.0.shape(x)[1].known().unwrap();
        let constant = |g: &mut Graph, name: &str, shape: &[usize]| {
            g.constant(&format!("{scope}/{name}"), Tensor::from_f32(shape, &[]))
        };
        let w = constant(&mut self.0, "weights", &[kernel, kernel, channels, out]);
        let pad = (kernel - 1) / 2;
        let conv = Conv {
            strides: vec![stride; 2],
            pads: Pads(vec![(pad, pad); 2]),
            dilations: vec![1; 2],
            groups: 1,
            layout: Layout::ChannelsFirst,
        };
        let x = self.0.add(conv, &format!("Net/{scope}/Conv2D"), &[x, w]).unwrap();
        let parameters: Vec<Value> = ["gamma", "beta", "moving_mean", "moving_variance"]
            .iter()
            .map(|name| constant(&mut self.0, &format!("BatchNorm/{name}"), &[out]))
            .collect();
        let bn = BatchNorm { epsilon: 0.001, momentum: Some(0.0003), layout: Layout::ChannelsFirst };
        let inputs = [x.into(), parameters[0], parameters[1], parameters[2], parameters[3]];
        let x = self.0.add(bn, &format!("Net/{scope}/BatchNorm/FusedBatchNormV3"), &inputs).unwrap();
        self.0.add(Unary::Relu, &format!("Net/{scope}/Relu"), &[x.into()]).unwrap().into()
    }

    fn mixed(&mut self, scope: &str, x: Value, pool_channels: usize) -> Value {
        let a = self.conv_bn(&format!("{scope}/Branch_0/Conv2d_0a_1x1"), x, 8, 1, 1);
        let b = self.conv_bn(&format!("{scope}/Branch_1/Conv2d_0a_1x1"), x, 4, 1, 1);
        let b = self.conv_bn(&format!("{scope}/Branch_1/Conv2d_0b_3x3"), b, 6, 3, 1);
        let pool = Pool {
            kind: PoolKind::Avg,
            kernel: vec![3; 2],
            strides: vec![1; 2],
            pads: Pads(vec![(1, 1); 2]),
            dilations: vec![1; 2],
            ceil_mode: false,
            count_include_pad: false,
            layout: Layout::ChannelsFirst,
        };
        let c = self.0.add(pool, &format!("Net/{scope}/Branch_2/AvgPool_0a_3x3/AvgPool"), &[x]).unwrap();
        let c = self.conv_bn(&format!("{scope}/Branch_2/Conv2d_0b_1x1"), c.into(), pool_channels, 1, 1);
        self.0.add(Concat { axis: 1 }, &format!("Net/{scope}/concat"), &[a, b, c]).unwrap().into()
    }
}

#[test]
fn scopes_become_classes_with_arguments() {
    let (mut net, x) = Net::new(3, 32);
    let x = net.conv_bn("Conv2d_1a_3x3", x, 8, 3, 2);
    let x = net.mixed("Mixed_5b", x, 2);
    let x = net.mixed("Mixed_5c", x, 4);
    let x = net.mixed("Mixed_5d", x, 4);
    let y = net.conv_bn("Shortcut", x, 18, 1, 1);
    let x = net.0.add(Binary::Add, "Net/add", &[x, y]).unwrap();
    let mean = Reduce { kind: ReduceKind::Mean, axes: vec![2, 3], keep_dims: false };
    let x = net.0.add(mean, "Net/Mean", &[x.into()]).unwrap();
    net.0.output("out", x.into());
    let generated = generate(&net.0, &options()).unwrap();
    check("mixed.py", &generated.code);
    let keys: Vec<&str> = generated.params.iter().map(|param| param.key.as_str()).collect();
    assert!(keys.contains(&"Mixed_5c.Branch_2.1.bn.running_var"), "{keys:?}");
    assert_eq!(keys.len(), 14 * 6);
}

#[test]
fn a_scope_that_the_flow_leaves_and_enters_again_is_split() {
    let (mut net, x) = Net::new(4, 8);
    let a = net.conv_bn("left/conv1", x, 4, 3, 1);
    let b = net.conv_bn("right/conv1", a, 4, 3, 1);
    let c = net.conv_bn("left/conv2", b, 4, 3, 1);
    let d = net.conv_bn("right/conv2", c, 4, 3, 1);
    let y = net.0.add(Binary::Add, "Net/add", &[a, d]).unwrap();
    net.0.output("out", y.into());
    check("circle.py", &generate(&net.0, &options()).unwrap().code);
}

#[test]
fn layers_that_share_weights_are_one_member() {
    let (mut net, x) = Net::new(4, 8);
    let y = net.conv_bn("tower", x, 4, 3, 1);
    let conv = net.0.find("Net/tower/Conv2D").unwrap();
    let (op, weights) = (net.0.op(conv).clone(), net.0.input_of(conv, 1).unwrap());
    let z = net.0.add(op, "Net/tower_1/Conv2D", &[y, weights]).unwrap();
    net.0.output("out", z.into());
    let generated = generate(&net.0, &options()).unwrap();
    check("shared.py", &generated.code);
    assert_eq!(generated.params.iter().filter(|param| param.source == "tower/weights").count(), 1);
}

#[test]
fn several_inputs_and_outputs_keep_their_order_and_names() {
    let (mut net, x) = Net::new(4, 8);
    let shape = net.0.shape(x).clone();
    let second = net.0.input("features/class", DType::Float32, shape).unwrap();
    let a = net.conv_bn("first", x, 4, 3, 1);
    let b = net.conv_bn("second", second, 4, 3, 1);
    let sum = net.0.add(Binary::Sub, "Net/sub", &[a, b]).unwrap();
    net.0.output("difference", sum.into());
    net.0.output("first", a);
    net.0.output("input", x);
    check("ports.py", &generate(&net.0, &options()).unwrap().code);
}

#[test]
fn blocks_and_stages_are_found_without_names() {
    let (mut net, x) = Net::new(3, 32);
    let mut x = net.conv_bn("stem", x, 8, 3, 2);
    for (stage, width) in [16, 32, 64].into_iter().enumerate() {
        for unit in 0..4 {
            let scope = format!("block{stage}/unit{unit}");
            let stride = if unit == 0 { 2 } else { 1 };
            let y = net.conv_bn(&format!("{scope}/conv1"), x, width / 2, 1, 1);
            let y = net.conv_bn(&format!("{scope}/conv2"), y, width / 2, 3, stride);
            let y = net.conv_bn(&format!("{scope}/conv3"), y, width, 1, 1);
            let shortcut = if unit == 0 { net.conv_bn(&format!("{scope}/shortcut"), x, width, 1, 2) } else { x };
            x = net.0.add(Binary::Add, &format!("Net/{scope}/add"), &[shortcut, y]).unwrap().into();
            x = net.0.add(Unary::Relu, &format!("Net/{scope}/Relu"), &[x]).unwrap().into();
        }
    }
    let mean = Reduce { kind: ReduceKind::Mean, axes: vec![2, 3], keep_dims: false };
    let x = net.0.add(mean, "Net/Mean", &[x]).unwrap();
    net.0.output("out", x.into());
    check("scoped.py", &generate(&net.0, &options()).unwrap().code);
    for (number, id) in net.0.ids().into_iter().enumerate() {
        net.0.rename(id, &format!("n{number}"));
    }
    check("nameless.py", &generate(&net.0, &options()).unwrap().code);
}

fn options() -> Options {
    Options { weights_file: "net.pth".to_owned(), ..Options::default() }
}

/// Compares with a stored text; `UPDATE_SNAPSHOTS=1` stores it.
fn check(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(stored, text, "{} differs; UPDATE_SNAPSHOTS=1 stores the new text", path.display());
}
