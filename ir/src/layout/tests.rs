//! Networks that people build, and what conversion must make of them.

use super::testing::{Net, converted, dump, proven, transposes};
use super::{Layout, Ports, convert};
use crate::graph::Value;
use crate::op::{self, Binary, Op, Pads, ReduceKind, Unary};
use crate::shape::Shape;
use crate::tensor::{DType, Tensor};

fn find<'a>(graph: &'a crate::Graph, family: &str) -> &'a Op {
    let id = graph.ids().into_iter().find(|&id| graph.op(id).family() == family);
    graph.op(id.unwrap_or_else(|| panic!("no {family} in\n{}", dump(graph))))
}

fn first(net: &Net) -> crate::Graph {
    converted(&net.graph, Layout::ChannelsFirst, Ports::Target, 2)
}

fn reduce(net: &mut Net, x: Value, axes: &[usize], keep_dims: bool) -> Value {
    net.add(op::Reduce { kind: ReduceKind::Max, axes: axes.to_vec(), keep_dims }, &[x])
}

#[test]
fn classifier() {
    for layout in [Layout::ChannelsLast, Layout::ChannelsFirst] {
        let mut net = Net::new(layout);
        let x = net.input(if layout == Layout::ChannelsLast { "N 8 8 3" } else { "N 3 8 8" });
        let a = net.conv(x, 4);
        let a = net.batch_norm(a);
        let a = net.relu(a);
        let b = net.conv(a, 4);
        let sum = net.binary(Binary::Add, a, b);
        let small = net.pool(sum);
        let (left, right) = (net.conv(small, 2), net.conv(small, 3));
        let joined = net.concat(&[left, right, left]);
        let mean = net.mean(joined, false);
        let logits = net.dense(mean, 5);
        let scores = net.add(op::Softmax { axis: 1 }, &[logits]);
        net.output(scores).output(joined);
        assert_eq!(proven(&net), 0);
        let mut graph = net.graph.clone();
        convert(&mut graph, layout, Ports::Target).unwrap();
        assert_eq!(dump(&graph), dump(&net.graph), "nothing to do");
    }
}

#[test]
fn ports_tell_how_they_changed() {
    let mut net = Net::last();
    let x = net.input("N 8 6 3");
    let y = net.conv(x, 4);
    net.output(y).output(x).output(y);
    let mut graph = first(&net);
    assert_eq!(graph.inputs[0].permutation.as_deref(), Some(&[0, 3, 1, 2][..]));
    assert!(graph.outputs.iter().all(|port| port.permutation.as_deref() == Some(&[0, 3, 1, 2])));
    assert_eq!(graph.shape(graph.outputs[0].value).to_string(), "[N, 4, 8, 6]");
    convert(&mut graph, Layout::ChannelsLast, Ports::Target).unwrap();
    assert!(graph.inputs.iter().chain(&graph.outputs).all(|port| port.permutation.is_none()));

    let kept = converted(&net.graph, Layout::ChannelsFirst, Ports::Source, 2);
    assert_eq!(transposes(&kept), 2, "one at each border\n{}", dump(&kept));
}

#[test]
fn flatten_and_dense() {
    let mut net = Net::last();
    let x = net.input("N 4 6 3");
    let x = net.conv(x, 5);
    let flat = net.reshape(x, "N 120");
    let flat = net.relu(flat);
    let flat = net.batch_norm(flat);
    let factor = net.weight(&[120]);
    let flat = net.binary(Binary::Mul, flat, factor);
    let flat = net.add(op::Dropout { rate: 0.5 }, &[flat]);
    let (a, b) = (net.dense(flat, 7), net.dense(flat, 3));
    net.output(a).output(b);
    assert_eq!(proven(&net), 0);
    // Somebody else reads it too: one transpose, before it is flattened.
    net.output(flat);
    let graph = first(&net);
    assert_eq!(transposes(&graph), 1, "{}", dump(&graph));
    assert_eq!(graph.outputs[2].permutation, None);
    let reshapes = graph.ids().into_iter().filter(|&id| matches!(graph.op(id), Op::Reshape(_))).count();
    assert_eq!(reshapes, 1);
}

#[test]
fn rearranged_weights_are_still_trained() {
    let mut net = Net::last();
    let x = net.input("N 2 2 3");
    let x = net.conv(x, 2);
    let gain = net.graph.variable("gain", Tensor::from_f32(&[2], &[2.0, 3.0]));
    let x = net.binary(Binary::Mul, x, gain);
    net.output(x);
    let graph = first(&net);
    let gain = graph.find("gain").unwrap();
    assert!(matches!(graph.op(gain), Op::Constant(c) if c.trainable && c.tensor.shape() == [2, 1, 1]));
}

#[test]
fn dense_and_unflatten() {
    let mut net = Net::last();
    let x = net.input("N 6");
    let x = net.dense(x, 24);
    let x = net.relu(x);
    let x = net.reshape(x, "N 2 3 4");
    let x = net.conv(x, 2);
    net.output(x);
    assert_eq!(proven(&net), 0);
}

#[test]
fn flatten_of_one_pixel_is_free() {
    let mut net = Net::last();
    let x = net.input("N 4 6 3");
    let x = net.conv(x, 5);
    let mean = net.mean(x, true);
    let flat = net.reshape(mean, "N 5");
    let squeezed = net.add(op::Squeeze { axes: vec![1, 2] }, &[mean]);
    net.output(flat).output(squeezed).output(mean);
    assert_eq!(proven(&net), 0);
}

#[test]
fn squeeze_and_excite() {
    let mut net = Net::last();
    let x = net.input("N 4 6 3");
    let x = net.conv(x, 4);
    let mean = net.mean(x, true);
    let gate = net.grouped_conv(mean, 4, 1, 1, 1);
    let gate = net.add(Unary::Sigmoid, &[gate]);
    let x = net.binary(Binary::Mul, x, gate);
    let mean = net.mean(x, false);
    let gate = net.dense(mean, 4);
    let gate = net.reshape(gate, "N 1 1 4");
    let x = net.binary(Binary::Mul, x, gate);
    let mean = net.mean(x, false);
    let gate = net.add(op::Unsqueeze { axes: vec![1, 2] }, &[mean]);
    let x = net.binary(Binary::Mul, gate, x);
    let x = net.conv(x, 2);
    net.output(x);
    assert_eq!(proven(&net), 0);
}

#[test]
fn encoder_and_decoder() {
    let mut net = Net::last();
    let x = net.input("N 8 12 3");
    let a = net.conv(x, 4);
    let b = net.pool(a);
    let b = net.conv(b, 6);
    let resize = op::Resize {
        mode: op::ResizeMode::Linear,
        size: vec![8, 12],
        coordinates: op::Coordinates::HalfPixel,
        scale: Vec::new(),
        layout: net.layout,
    };
    let up = net.add(resize, &[b]);
    let joined = net.concat(&[a, up]);
    let joined = net.add(
        op::Pad { pads: Pads(vec![(0, 0), (1, 2), (0, 3), (0, 1)]), mode: op::PadMode::Constant, value: 0.5 },
        &[joined],
    );
    let parts = net.add(op::Split { axis: 3, sizes: vec![5, 6] }, &[joined]);
    let part = net.conv(Value { node: parts.node, output: 1 }, 2);
    let scores = net.add(op::Softmax { axis: 3 }, &[part]);
    let best =
        net.add(op::ArgReduce { kind: op::Extreme::Max, axis: 3, keep_dims: false, dtype: DType::Int64 }, &[scores]);
    net.output(scores).output(best).output(parts);
    assert_eq!(proven(&net), 0);
    let graph = first(&net);
    assert_eq!(graph.outputs[1].permutation, None, "the channels are gone");
    assert!(matches!(find(&graph, "Concat"), Op::Concat(op) if op.axis == 1));
    assert!(matches!(find(&graph, "Pad"), Op::Pad(op) if op.pads.0 == [(0, 0), (0, 1), (1, 2), (0, 3)]));
}

#[test]
fn channel_shuffle() {
    let mut net = Net::last();
    let x = net.input("N 4 4 6");
    let x = net.grouped_conv(x, 6, 3, 1, 2);
    let split = net.reshape(x, "N 4 4 2 3");
    let swapped = net.transpose(split, &[0, 1, 2, 4, 3]);
    let x = net.reshape(swapped, "N 4 4 6");
    let x = net.grouped_conv(x, 6, 3, 1, 2);
    net.output(x);
    assert_eq!(proven(&net), 1);
    let graph = first(&net);
    assert!(matches!(find(&graph, "Transpose"), Op::Transpose(op) if op.perm == [0, 2, 1, 3, 4]));
    assert!(matches!(find(&graph, "Reshape"), Op::Reshape(op) if op.shape.to_string() == "[N, 2, 3, 4, 4]"));
}

#[test]
fn space_to_depth_by_hand() {
    let mut net = Net::last();
    let x = net.input("N 4 6 3");
    let x = net.conv(x, 3);
    let x = net.reshape(x, "N 2 2 3 2 3");
    let x = net.transpose(x, &[0, 1, 3, 2, 4, 5]);
    let x = net.reshape(x, "N 2 3 12");
    let x = net.conv(x, 8);
    let x = net.reshape(x, "N 2 3 2 2 2");
    let x = net.transpose(x, &[0, 1, 3, 2, 4, 5]);
    let x = net.reshape(x, "N 4 6 2");
    let x = net.conv(x, 2);
    net.output(x);
    assert_eq!(proven(&net), 2, "those of the source");
}

#[test]
fn transposes_of_the_source_vanish() {
    let mut net = Net::last();
    let x = net.input("N 3 4 6");
    let nhwc = net.transpose(x, &[0, 2, 3, 1]);
    let y = net.conv(nhwc, 5);
    let nchw = net.transpose(y, &[0, 3, 1, 2]);
    let nchw = net.add(op::Softmax { axis: 1 }, &[nchw]);
    let nhwc = net.transpose(nchw, &[0, 2, 3, 1]);
    let y = net.conv(nhwc, 2);
    let nchw = net.transpose(y, &[0, 3, 1, 2]);
    net.output(nchw);
    assert_eq!(proven(&net), 0);
    let graph = first(&net);
    assert_eq!((graph.inputs[0].permutation.clone(), graph.outputs[0].permutation.clone()), (None, None));
}

#[test]
fn mixed_layouts() {
    let mut net = Net::last();
    let x = net.input("N 4 6 3");
    let x = net.conv(x, 4);
    let x = net.transpose(x, &[0, 3, 1, 2]);
    net.layout = Layout::ChannelsFirst;
    let x = net.conv(x, 5);
    net.output(x);
    assert_eq!(transposes(&first(&net)), 0);
    let last = converted(&net.graph, Layout::ChannelsLast, Ports::Target, 2);
    assert_eq!(transposes(&last), 0);
}

#[test]
fn constants_broadcast() {
    let mut net = Net::last();
    let mut x = net.input("N 4 6 4");
    x = net.conv(x, 4);
    for shape in [&[4][..], &[6, 1], &[6, 4], &[1, 4], &[4, 6, 4], &[1, 1, 1, 4], &[1, 4, 6, 1], &[1], &[], &[1, 1]] {
        let c = net.weight(shape);
        x = net.binary(Binary::Add, x, c);
    }
    let (a, b) = (net.weight(&[4]), net.weight(&[6, 4]));
    let condition = net.binary(Binary::Less, x, a);
    let x = net.add(op::Select {}, &[condition, x, b]);
    net.output(x);
    assert_eq!(proven(&net), 0);
    let graph = first(&net);
    let shapes: Vec<Vec<usize>> = graph
        .ids()
        .into_iter()
        .filter(|&id| matches!(graph.op(id), Op::Binary(Binary::Add)))
        .map(|id| graph.tensor(graph.input_of(id, 1).unwrap()).unwrap().shape())
        .collect();
    let want: [&[usize]; 10] =
        [&[4, 1, 1], &[6], &[4, 1, 6], &[4, 1, 1], &[4, 4, 6], &[1, 4, 1, 1], &[1, 1, 4, 6], &[1], &[], &[1, 1]];
    assert_eq!(shapes, want);
    assert!(graph.find("weight_2").is_some(), "names stay");
}

#[test]
fn operands_of_lower_rank() {
    let mut net = Net::last();
    let x = net.input("N 4 6 4");
    let per_channel = net.graph.input("c", DType::Float32, Shape::known(&[4])).unwrap();
    let plane = net.graph.input("p", DType::Float32, Shape::known(&[6, 4])).unwrap();
    let image = net.graph.input("i", DType::Float32, Shape::known(&[4, 6, 4])).unwrap();
    let x = net.conv(x, 4);
    let x = net.binary(Binary::Mul, x, per_channel);
    let x = net.binary(Binary::Add, plane, x);
    let x = net.binary(Binary::Sub, x, image);
    net.output(x);
    // The plane has no channels to tell apart by itself: it is transposed.
    assert_eq!(proven(&net), 1);
    let graph = first(&net);
    assert_eq!(graph.inputs[3].permutation.as_deref(), Some(&[2, 0, 1][..]));
}

#[test]
fn axes_that_come_and_go() {
    let mut net = Net::last();
    let x = net.input("N 4 6 3");
    let x = net.conv(x, 5);
    let row = reduce(&mut net, x, &[1], false);
    let plane = reduce(&mut net, x, &[3], false);
    let wide = net.add(op::Unsqueeze { axes: vec![1] }, &[row]);
    let x = net.binary(Binary::Add, x, wide);
    let deep = net.add(op::Unsqueeze { axes: vec![3] }, &[plane]);
    let x = net.binary(Binary::Add, x, deep);
    let pack = net.add(op::Pack { axis: 1 }, &[x, x]);
    let halves = net.add(op::Unpack { axis: 1, count: 2 }, &[pack]);
    let picked = net.add(
        op::Slice { begins: vec![0, 1, -2, 0], ends: vec![i64::MAX, 2, i64::MAX, 4], steps: vec![1; 4] },
        &[Value { node: halves.node, output: 1 }],
    );
    let line = net.add(op::Squeeze { axes: vec![1] }, &[picked]);
    let indices = net.graph.constant("indices", Tensor::from_i64(&[2], &[1, 0]));
    let channels = net.add(op::Gather { axis: 2, batch_dims: 0 }, &[line, indices]);
    let one = net.graph.constant("index", Tensor::from_i64(&[], &[1]));
    let column = net.add(op::Gather { axis: 2, batch_dims: 0 }, &[x, one]);
    net.output(channels).output(row).output(plane).output(column).output(pack);
    assert_eq!(proven(&net), 0);
    let graph = first(&net);
    assert_eq!(graph.shape(graph.outputs[0].value).to_string(), "[N, 2, 2]");
    assert_eq!(graph.shape(graph.outputs[1].value).to_string(), "[N, 5, 6]");
    assert_eq!(graph.shape(graph.outputs[2].value).to_string(), "[N, 4, 6]");
    assert_eq!(graph.shape(graph.outputs[4].value).to_string(), "[N, 5, 2, 4, 6]");
}

#[test]
fn order_is_meaning() {
    let mut net = Net::last();
    let x = net.input("N 4 6 3");
    let x = net.conv(x, 8);
    let tokens = net.reshape(x, "N 24 8");
    let tokens = net.dense(tokens, 8);
    let tokens = net.add(op::LayerNorm { axes: vec![2], epsilon: 1e-5 }, &[tokens]);
    let scores = net.add(op::MatMul { transpose_a: false, transpose_b: true }, &[tokens, tokens]);
    let tokens = net.add(op::MatMul { transpose_a: false, transpose_b: false }, &[scores, tokens]);
    let other = net.reshape(x, "N 96 2");
    net.output(tokens).output(other);
    // One for the tokens, one for the reshape that cuts through space and channels: as before both, so once.
    assert_eq!(proven(&net), 1);
}

#[test]
fn non_local_block() {
    let mut net = Net::last();
    let x = net.input("N 4 6 3");
    let x = net.conv(x, 8);
    let (a, b) = (net.conv(x, 4), net.conv(x, 4));
    let (a, b) = (net.reshape(a, "N 24 4"), net.reshape(b, "N 24 4"));
    let scores = net.add(op::MatMul { transpose_a: false, transpose_b: true }, &[a, b]);
    net.output(scores);
    assert_eq!(proven(&net), 0, "read as transposed matrices");
}

#[test]
fn unknown_space() {
    let mut net = Net::last();
    let x = net.input("N ? ? 3");
    let x = net.conv(x, 4);
    let mean = net.mean(x, true);
    let y = net.binary(Binary::Sub, x, mean);
    let y = net.conv(y, 2);
    let tokens = net.reshape(y, "N ? 2");
    net.output(y).output(tokens);
    assert_eq!(proven(&net), 0);
    assert_eq!(first(&net).shape(first(&net).outputs[1].value).to_string(), "[N, 2, ?]");
}

#[test]
fn frames_in_the_batch() {
    let mut net = Net::last();
    let x = net.input("N 2 4 6 3");
    let frames = net.reshape(x, "2*N 4 6 3");
    let y = net.conv(frames, 4);
    let y = net.reshape(y, "N 2 4 6 4");
    net.output(y);
    assert_eq!(proven(&net), 0);
    assert_eq!(first(&net).inputs[0].permutation.as_deref(), Some(&[0, 1, 4, 2, 3][..]));
}

#[test]
fn layer_norm_parameters_follow() {
    let mut net = Net::last();
    let x = net.input("N 4 6 3");
    let x = net.conv(x, 5);
    let (scale, bias) = (net.weight(&[4, 6, 5]), net.weight(&[4, 6, 5]));
    let y = net.add(op::LayerNorm { axes: vec![1, 2, 3], epsilon: 1e-5 }, &[x, scale, bias]);
    let (scale, bias) = (net.weight(&[5]), net.weight(&[5]));
    let y = net.add(op::LayerNorm { axes: vec![3], epsilon: 1e-5 }, &[y, scale, bias]);
    let y = net.conv(y, 2);
    net.output(y);
    // Over the last axis alone it stays where it is, between two transposes.
    assert_eq!(proven(&net), 2);
    assert!(matches!(find(&first(&net), "LayerNorm"), Op::LayerNorm(op) if op.axes == [1, 2, 3]));
}

#[test]
fn free_shapes_and_other_sources() {
    let mut net = Net::last();
    let x = net.input("N 4 6 3");
    let x = net.conv(x, 4);
    let fill = net.add(op::Fill { shape: super::testing::shape("N 4 6 4"), value: 2.0, dtype: DType::Float32 }, &[x]);
    let x = net.binary(Binary::Mul, x, fill);
    let mean = net.mean(x, true);
    let spread = net.add(op::Expand { shape: super::testing::shape("N 4 6 4") }, &[mean, x]);
    let row = net.weight(&[4]);
    let rows = net.add(op::Expand { shape: super::testing::shape("N 4 6 4") }, &[row, x]);
    let tiled = net.add(op::Tile { repeats: Shape::known(&[1, 4, 6, 1]) }, &[mean]);
    let sizes = net.add(op::Dims { dims: super::testing::shape("N 4 6 4"), dtype: DType::Int32 }, &[x]);
    let joined = net.concat(&[x, spread, tiled, rows]);
    let y = net.conv(joined, 2);
    net.output(y).output(sizes);
    assert_eq!(proven(&net), 0);
}

#[test]
fn one_hot_and_embedding() {
    let mut net = Net::last();
    let labels = net.graph.input("labels", DType::Int32, super::testing::shape("N 4 6")).unwrap();
    let x = net.add(op::OneHot { depth: 3, axis: 3, on: 1.0, off: 0.0, dtype: DType::Float32 }, &[labels]);
    let x = net.conv(x, 2);
    let table = net.weight(&[2, 3]);
    let embedded = net.add(op::Gather { axis: 0, batch_dims: 0 }, &[table, labels]);
    let y = net.conv(embedded, 2);
    net.output(x).output(y);
    // A table that is looked up gives its rows last.
    assert_eq!(proven(&net), 1);
}

#[test]
fn sequences() {
    let mut net = Net::last();
    let x = net.input("N 12 3");
    let wide = net.add(op::Unsqueeze { axes: vec![1] }, &[x]);
    let y = net.grouped_conv(wide, 4, 1, 1, 1);
    let y = net.add(op::Squeeze { axes: vec![1] }, &[y]);
    let y = net.batch_norm(y);
    let y = net.conv(y, 5);
    let sums = net.add(op::CumSum { axis: 1, exclusive: false, reverse: true }, &[y]);
    let y = net.add(op::Reverse { axes: vec![1] }, &[sums]);
    net.output(y);
    assert_eq!(proven(&net), 0);
}

#[test]
fn networks_without_space_are_left_alone() {
    let mut net = Net::last();
    let x = net.input("N 12 4");
    let x = net.dense(x, 4);
    let x = net.add(op::LayerNorm { axes: vec![2], epsilon: 1e-5 }, &[x]);
    let heads = net.reshape(x, "N 12 2 2");
    let heads = net.transpose(heads, &[0, 2, 1, 3]);
    net.output(heads);
    let mut graph = net.graph.clone();
    convert(&mut graph, Layout::ChannelsFirst, Ports::Target).unwrap();
    assert_eq!(dump(&graph), dump(&net.graph));
}

#[test]
fn the_cut_takes_the_cheaper_side() {
    let mut net = Net::last();
    let x = net.input("N 8 8 3");
    let x = net.conv(x, 4);
    // Behind the pool there is a quarter of the data.
    let y = net.pool(x);
    let y = net.relu(y);
    let y = net.reshape(y, "N 2 32");
    net.output(y).output(x);
    let graph = first(&net);
    assert_eq!(transposes(&graph), 1);
    let transpose = graph.ids().into_iter().find(|&id| matches!(graph.op(id), Op::Transpose(_))).unwrap();
    assert_eq!(graph.node(transpose).outputs[0].shape.to_string(), "[N, 4, 4, 4]");
    let before = graph.input_of(transpose, 0).unwrap();
    assert!(matches!(graph.op(before.node), Op::Unary(Unary::Relu)), "as late as possible");
}

#[test]
fn the_same_answer_twice() {
    let mut net = Net::last();
    let x = net.input("N 8 8 3");
    let x = net.conv(x, 4);
    let (a, b) = (net.reshape(x, "N 4 64"), net.reshape(x, "N 2 128"));
    net.output(a).output(b);
    assert_eq!(dump(&first(&net)), dump(&first(&net)));
    assert_eq!(transposes(&first(&net)), 1);
}

#[test]
fn permutations_are_inverse() {
    let to_first = Layout::ChannelsLast.permutation_to(Layout::ChannelsFirst, 4);
    let to_last = Layout::ChannelsFirst.permutation_to(Layout::ChannelsLast, 4);
    assert_eq!((to_first.as_slice(), to_last.as_slice()), ([0, 3, 1, 2].as_slice(), [0, 2, 3, 1].as_slice()));
    assert_eq!(Layout::ChannelsLast.spatial_axes(4), 1..3);
    assert_eq!(Layout::ChannelsFirst.spatial_axes(5), 2..5);
}

/// Not a measurement, but a bound that a quadratic step would break.
#[test]
fn large_networks_take_no_time() {
    let mut net = Net::last();
    let mut x = net.input("N 16 16 8");
    for block in 0..600 {
        let y = net.conv(x, 8);
        let y = net.batch_norm(y);
        let y = net.relu(y);
        x = net.binary(Binary::Add, x, y);
        if block % 50 == 0 {
            let tokens = net.reshape(x, "N 8 256");
            net.output(tokens);
        }
    }
    net.output(x);
    assert!(net.graph.len() > 5000);
    let start = std::time::Instant::now();
    let mut graph = net.graph.clone();
    convert(&mut graph, Layout::ChannelsFirst, Ports::Source).unwrap();
    assert_eq!(transposes(&graph), 14);
    assert!(start.elapsed().as_secs() < 5);
}

#[test]
fn channels_first_sources() {
    let mut net = Net::new(Layout::ChannelsFirst);
    let x = net.input("N 3 4 6");
    let x = net.conv(x, 6);
    let split = net.reshape(x, "N 2 3 4 6");
    let swapped = net.transpose(split, &[0, 2, 1, 3, 4]);
    let x = net.reshape(swapped, "N 6 4 6");
    let pooled =
        net.add(op::AdaptivePool { kind: op::PoolKind::Avg, output_size: vec![1, 1], layout: net.layout }, &[x]);
    let gate = net.reshape(pooled, "N 6");
    let gate = net.dense(gate, 6);
    let gate = net.reshape(gate, "N 6 1 1");
    let x = net.binary(Binary::Mul, x, gate);
    let x = net.conv(x, 5);
    let flat = net.reshape(x, "N ?");
    let y = net.dense(flat, 4);
    net.output(y);
    assert_eq!(proven(&net), 1, "the shuffle's own");
}

#[test]
fn transposes_lie_between_the_scopes() {
    let mut net = Net::last();
    let x = net.input("N 4 6 3");
    let y = net.conv(x, 8);
    let z = net.reshape(y, "N 12 16");
    net.output(z);
    net.graph.rename(y.node, "net/block/conv");
    net.graph.rename(z.node, "net/head/reshape");
    let graph = first(&net);
    let transpose = graph.find("net/conv_transposed").unwrap();
    let order = graph.order().unwrap();
    let at = |id| order.iter().position(|&other| other == id).unwrap();
    assert_eq!(at(transpose) + 1, at(z.node));
}
