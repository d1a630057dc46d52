//! One example of every family of operators, for tests that must not forget one.

use crate::graph::{Graph, Value};
use crate::layout::Layout::{ChannelsFirst, ChannelsLast};
use crate::op::*;
use crate::shape::{Dim, Shape};
use crate::tensor::{DType, Tensor};

/// What enters a slot.
#[derive(Clone, Debug)]
pub(crate) enum Feed {
    /// Nothing.
    Absent,
    /// A value of this type and shape (`["N", "8", "8", "3"]`) that is computed in the network.
    Data(DType, Vec<&'static str>),
    /// A float32 constant.
    Weight(Vec<usize>),
}

/// An operator with inputs that it takes.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub op: Op,
    pub inputs: Vec<Feed>,
}

fn data<const N: usize>(dims: [&'static str; N]) -> Feed {
    Feed::Data(DType::Float32, dims.to_vec())
}

fn typed<const N: usize>(dtype: DType, dims: [&'static str; N]) -> Feed {
    Feed::Data(dtype, dims.to_vec())
}

fn weight<const N: usize>(sizes: [usize; N]) -> Feed {
    Feed::Weight(sizes.to_vec())
}

fn shape<const N: usize>(dims: [&str; N]) -> Shape {
    dims.into_iter().map(|dim| Dim::parse(dim).unwrap()).collect()
}

/// At least one sample of every family in [`FAMILIES`], and of every form that files write differently.
pub(crate) fn samples() -> Vec<Sample> {
    let image = || data(["N", "8", "8", "6"]);
    let image_first = || data(["N", "6", "8", "8"]);
    let rows = || data(["N", "10"]);
    let mut all: Vec<(Op, Vec<Feed>)> = Vec::new();
    let mut add = |op: Op, inputs: Vec<Feed>| all.push((op, inputs));

    add(Input { dtype: DType::Float32, shape: shape(["N", "16*N", "?", "7"]) }.into(), vec![]);
    add(Input { dtype: DType::BFloat16, shape: shape([]) }.into(), vec![]);
    add(Constant { tensor: Tensor::from_i64(&[2], &[3, -4]), trainable: false }.into(), vec![]);
    add(Fill { shape: shape(["N", "3"]), value: f32::NEG_INFINITY, dtype: DType::Float16 }.into(), vec![rows()]);
    add(Fill { shape: shape(["2"]), value: 0.1, dtype: DType::Int32 }.into(), vec![]);
    add(Range { start: 0, limit: Dim::symbol("N"), delta: 1, dtype: DType::Int32 }.into(), vec![rows()]);
    add(Range { start: 9, limit: Dim::Known(2), delta: -3, dtype: DType::Int64 }.into(), vec![]);
    add(Dims { dims: shape(["N", "10"]), dtype: DType::Int32 }.into(), vec![rows()]);
    add(
        Foreign { op: "RandomUniform".to_owned(), dtype: DType::Float32, shape: shape(["N"]) }.into(),
        vec![Feed::Absent, rows()],
    );

    let conv = |groups: usize, pads: Vec<(usize, usize)>, strides: Vec<usize>, dilations: Vec<usize>, layout| {
        Op::from(Conv { strides, pads: Pads(pads), dilations, groups, layout })
    };
    let same = vec![(1, 1), (1, 1)];
    let none = vec![(0, 0), (0, 0)];
    add(conv(1, same.clone(), vec![1, 1], vec![1, 1], ChannelsLast), vec![image(), weight([3, 3, 6, 4]), weight([4])]);
    add(conv(1, vec![(0, 1), (1, 0)], vec![2, 2], vec![1, 1], ChannelsLast), vec![image(), weight([3, 3, 6, 4])]);
    add(conv(1, vec![(0, 1), (0, 1)], vec![2, 2], vec![1, 1], ChannelsLast), vec![image(), weight([3, 3, 6, 4])]);
    add(conv(1, none.clone(), vec![1, 2], vec![2, 3], ChannelsLast), vec![image(), weight([2, 2, 6, 4]), weight([4])]);
    add(
        conv(3, same.clone(), vec![1, 1], vec![1, 1], ChannelsFirst),
        vec![image_first(), weight([3, 3, 2, 9]), weight([9])],
    );
    add(
        conv(6, same.clone(), vec![1, 1], vec![1, 1], ChannelsLast),
        vec![image(), weight([3, 3, 1, 12]), weight([12])],
    );
    add(conv(6, same.clone(), vec![2, 2], vec![1, 1], ChannelsFirst), vec![image_first(), weight([3, 3, 1, 6])]);
    // Kernels and biases that are computed.
    add(conv(6, none.clone(), vec![1, 1], vec![1, 1], ChannelsLast), vec![image(), data(["3", "3", "1", "6"])]);
    add(conv(1, none.clone(), vec![1, 1], vec![1, 1], ChannelsLast), vec![image(), weight([3, 3, 6, 4]), data(["4"])]);
    add(conv(1, vec![(2, 2)], vec![1], vec![1], ChannelsLast), vec![data(["N", "T", "6"]), weight([5, 6, 4])]);
    add(
        conv(1, vec![(1, 1); 3], vec![2; 3], vec![1; 3], ChannelsFirst),
        vec![data(["2", "3", "5", "6", "7"]), weight([3, 3, 3, 3, 2])],
    );
    let transpose = |strides: usize, pads: (usize, usize), output_padding: usize, groups: usize, layout| {
        let (strides, pads, output_padding) = (vec![strides; 2], Pads(vec![pads; 2]), vec![output_padding; 2]);
        Op::from(ConvTranspose { strides, pads, output_padding, dilations: vec![1; 2], groups, layout })
    };
    add(transpose(2, (0, 1), 0, 1, ChannelsLast), vec![image(), weight([3, 3, 5, 6]), weight([5])]);
    add(transpose(2, (1, 1), 1, 2, ChannelsFirst), vec![image_first(), weight([3, 3, 5, 6]), weight([10])]);
    add(transpose(2, (0, 0), 0, 1, ChannelsLast), vec![data(["N", "H", "W", "6"]), weight([2, 2, 5, 6])]);
    add(transpose(3, (0, 0), 1, 1, ChannelsLast), vec![image(), weight([2, 2, 5, 6]), data(["5"])]);

    let pool = |kind, kernel: usize, stride: usize, pads: (usize, usize), ceil_mode, count_include_pad, layout| {
        let (kernel, strides, pads) = (vec![kernel; 2], vec![stride; 2], Pads(vec![pads; 2]));
        Op::from(Pool { kind, kernel, strides, pads, dilations: vec![1; 2], ceil_mode, count_include_pad, layout })
    };
    add(pool(PoolKind::Max, 3, 2, (0, 1), false, false, ChannelsLast), vec![image()]);
    add(pool(PoolKind::Max, 3, 2, (1, 1), true, true, ChannelsFirst), vec![image_first()]);
    add(pool(PoolKind::Avg, 3, 1, (1, 1), false, false, ChannelsLast), vec![image()]);
    add(pool(PoolKind::Avg, 3, 1, (1, 1), false, true, ChannelsLast), vec![image()]);
    add(pool(PoolKind::Avg, 3, 2, (1, 0), false, false, ChannelsLast), vec![image()]);
    add(
        AdaptivePool { kind: PoolKind::Avg, output_size: vec![3, 3], layout: ChannelsFirst }.into(),
        vec![image_first()],
    );

    let norm = |layout| Op::from(BatchNorm { epsilon: 0.001, momentum: None, layout });
    let c = || weight([6]);
    add(norm(ChannelsLast), vec![image(), c(), c(), c(), c()]);
    add(norm(ChannelsFirst), vec![image_first(), Feed::Absent, c(), c(), c()]);
    add(norm(ChannelsFirst), vec![data(["N", "6"]), Feed::Absent, Feed::Absent, c(), c()]);
    add(
        BatchNorm { epsilon: 1e-5, momentum: Some(0.003), layout: ChannelsLast }.into(),
        vec![image(), c(), Feed::Absent, data(["6"]), data(["6"])],
    );
    add(LayerNorm { axes: vec![3], epsilon: 1e-6 }.into(), vec![image(), c(), c()]);
    add(LayerNorm { axes: vec![1], epsilon: 1e-6 }.into(), vec![rows()]);
    add(InstanceNorm { epsilon: 1e-5, layout: ChannelsFirst }.into(), vec![image_first(), Feed::Absent, c()]);
    add(GroupNorm { groups: 2, epsilon: 1e-5, layout: ChannelsLast }.into(), vec![image(), c(), c()]);
    let rnn = |cell, hidden, batch_first, bias, bidirectional| Recurrent {
        cell,
        hidden,
        layers: 1,
        bidirectional,
        batch_first,
        bias,
        initial: false,
        dropout: 0.25,
    };
    let sequence = || data(["5", "N", "6"]);
    let lstm = || [weight([12, 6]), weight([12, 3]), weight([12]), weight([12])];
    add(
        rnn(Cell::Lstm, 3, false, true, true).into(),
        std::iter::once(sequence()).chain(lstm()).chain(lstm()).collect(),
    );
    add(rnn(Cell::Gru, 2, true, false, false).into(), vec![data(["N", "5", "6"]), weight([6, 6]), weight([6, 2])]);
    add(Lrn { size: 5, alpha: 1e-4, beta: 0.75, k: 2.0, layout: ChannelsLast }.into(), vec![image()]);
    add(Lrn { size: 7, alpha: 0.3, beta: 0.5, k: 1.0, layout: ChannelsFirst }.into(), vec![image_first()]);
    add(L2Normalize { axes: vec![1, 3], epsilon: 1e-12 }.into(), vec![image()]);
    for rate in [0.5, 0.1, 0.2, 0.123_456_79, 0.0] {
        add(Dropout { rate }.into(), vec![rows()]);
    }

    for &op in Unary::ALL {
        add(op.into(), vec![rows()]);
    }
    add(LeakyRelu { alpha: 0.1 }.into(), vec![rows()]);
    add(Elu { alpha: 1.0 }.into(), vec![rows()]);
    add(PRelu { layout: ChannelsLast }.into(), vec![image(), c()]);
    add(PRelu { layout: ChannelsFirst }.into(), vec![image_first(), weight([1])]);
    add(Gelu { approximate: true }.into(), vec![rows()]);
    add(Clip { min: None, max: Some(f32::INFINITY) }.into(), vec![rows()]);
    add(Clip { min: Some(-1.5), max: None }.into(), vec![rows()]);
    add(Softmax { axis: 1 }.into(), vec![rows()]);
    add(Softmax { axis: 1 }.into(), vec![image()]);
    add(LogSoftmax { axis: 0 }.into(), vec![rows()]);

    for &op in Binary::ALL {
        add(op.into(), vec![rows(), data(["10"])]);
    }
    add(Binary::Add.into(), vec![rows(), weight([10])]);
    add(Select {}.into(), vec![typed(DType::Bool, ["N", "1"]), rows(), weight([])]);
    for dtype in DType::ALL {
        add(Cast { dtype }.into(), vec![rows()]);
    }
    add(CumSum { axis: 1, exclusive: true, reverse: false }.into(), vec![rows()]);

    add(Dense {}.into(), vec![rows(), weight([10, 4]), weight([4])]);
    add(Dense {}.into(), vec![data(["N", "1", "10"]), weight([10, 4])]);
    add(MatMul { transpose_a: false, transpose_b: true }.into(), vec![data(["N", "5", "3"]), data(["N", "4", "3"])]);
    add(Einsum { equation: "nij,njk->nik".to_owned() }.into(), vec![data(["N", "5", "3"]), data(["N", "3", "2"])]);

    let heads = |length: &'static str, size: &'static str| data(["N", "2", length, size]);
    let attention = || vec![heads("5", "4"), heads("3", "4"), heads("3", "6")];
    add(Attention { scale: 0.5, causal: true }.into(), attention());
    let masks = [typed(DType::Bool, ["N", "1", "1", "3"]), weight([5, 3])];
    for mask in masks {
        add(Attention { scale: 0.1, causal: false }.into(), attention().into_iter().chain([mask]).collect());
    }

    use ReduceKind::*;
    for kind in [Sum, Mean, Max, Min, Prod, All, Any, L2, LogSumExp] {
        add(Reduce { kind, axes: vec![1, 2], keep_dims: false }.into(), vec![image()]);
    }
    add(Reduce { kind: Mean, axes: vec![], keep_dims: true }.into(), vec![image()]);
    add(ArgReduce { kind: Extreme::Max, axis: 1, keep_dims: false, dtype: DType::Int64 }.into(), vec![rows()]);
    add(ArgReduce { kind: Extreme::Min, axis: 0, keep_dims: true, dtype: DType::Int32 }.into(), vec![rows()]);
    add(TopK { k: 3, index_dtype: DType::Int32 }.into(), vec![rows()]);

    for dims in [["N", "384", "1"], ["?", "8", "48"], ["2", "?", "8"], ["4*N", "8", "12"]] {
        add(Reshape { shape: shape(dims) }.into(), vec![image()]);
    }
    add(Reshape { shape: shape(["N", "384"]) }.into(), vec![image()]);
    add(Reshape { shape: shape(["?", "384"]) }.into(), vec![image()]);
    add(Reshape { shape: shape(["5", "2"]) }.into(), vec![data(["10"])]);
    add(Reshape { shape: shape(["0", "2"]) }.into(), vec![data(["4", "0"])]);
    add(Transpose { perm: vec![0, 3, 1, 2] }.into(), vec![image()]);
    add(Squeeze { axes: vec![1, 3] }.into(), vec![data(["N", "1", "4", "1"])]);
    add(Squeeze { axes: vec![1] }.into(), vec![data(["1", "1", "4"])]);
    add(Squeeze { axes: vec![] }.into(), vec![data(["1", "4"])]);
    add(Unsqueeze { axes: vec![0, 3] }.into(), vec![rows()]);
    add(Concat { axis: 3 }.into(), vec![image(), image(), weight([1, 8, 8, 2])]);
    add(Concat { axis: 0 }.into(), vec![rows()]);
    add(Split { axis: 1, sizes: vec![5, 5] }.into(), vec![rows()]);
    add(Split { axis: 1, sizes: vec![3, 7] }.into(), vec![rows()]);
    add(Split { axis: 1, sizes: vec![4, 4] }.into(), vec![data(["N", "T"])]);
    add(Pack { axis: 2 }.into(), vec![rows(), rows()]);
    add(Unpack { axis: 1, count: 10 }.into(), vec![rows()]);
    let slice = |begins: &[i64], ends: &[i64], steps: &[i64]| {
        Op::from(Slice { begins: begins.to_vec(), ends: ends.to_vec(), steps: steps.to_vec() })
    };
    add(slice(&[0, 1], &[Slice::OPEN, -1], &[1, 2]), vec![rows()]);
    add(slice(&[-1, -1], &[Slice::OPEN, 0], &[-1, -1]), vec![rows()]);
    for mode in [PadMode::Constant, PadMode::Reflect, PadMode::Symmetric, PadMode::Edge] {
        let pads = Pads(vec![(0, 0), (1, 2), (3, 0), (0, 0)]);
        add(Pad { pads, mode, value: f32::NEG_INFINITY }.into(), vec![image()]);
    }
    add(Tile { repeats: shape(["1", "N"]) }.into(), vec![data(["10", "2"]), rows()]);
    add(Expand { shape: shape(["N", "10"]) }.into(), vec![data(["1", "10"]), rows()]);
    add(Gather { axis: 0, batch_dims: 0 }.into(), vec![weight([20, 4]), typed(DType::Int64, ["N", "5"])]);
    add(Gather { axis: 0, batch_dims: 0 }.into(), vec![weight([20]), typed(DType::Int64, ["N"])]);
    add(Gather { axis: 1, batch_dims: 1 }.into(), vec![rows(), typed(DType::Int32, ["N", "5"])]);
    add(GatherNd {}.into(), vec![rows(), typed(DType::Int32, ["7", "2"])]);
    for (axis, elements, add_up) in [(1, false, true), (0, true, false)] {
        let op = Scatter { axis, elements, add: add_up };
        let index = if elements { typed(DType::Int64, ["N", "10"]) } else { typed(DType::Int64, ["10"]) };
        add(op.into(), vec![rows(), index, rows()]);
    }
    add(
        OneHot { depth: 5, axis: 1, on: 1.0, off: -0.5, dtype: DType::Float32 }.into(),
        vec![typed(DType::Int32, ["N", "7"])],
    );
    add(Reverse { axes: vec![1] }.into(), vec![rows()]);

    let resize = |mode, size: usize, coordinates, scale, layout| {
        Op::from(Resize { mode, size: vec![size; 2], coordinates, scale, layout })
    };
    use Coordinates::*;
    add(resize(ResizeMode::Nearest, 16, Asymmetric, Vec::new(), ChannelsLast), vec![image()]);
    add(resize(ResizeMode::Nearest, 24, HalfPixel, Vec::new(), ChannelsLast), vec![image()]);
    add(resize(ResizeMode::Nearest, 13, AlignCorners, Vec::new(), ChannelsFirst), vec![image_first()]);
    add(resize(ResizeMode::Linear, 16, HalfPixel, Vec::new(), ChannelsLast), vec![image()]);
    add(resize(ResizeMode::CatmullRom, 16, HalfPixel, vec![0.5; 2], ChannelsLast), vec![image()]);
    let grid = data(["N", "6", "5", "2"]);
    add(
        GridSample { linear: true, outside: Outside::Mirrored, align_corners: false }.into(),
        vec![image_first(), grid],
    );
    add(SpaceToDepth { block: 2, channel_major: false, layout: ChannelsLast }.into(), vec![image()]);
    add(SpaceToDepth { block: 2, channel_major: true, layout: ChannelsFirst }.into(), vec![image_first()]);
    add(DepthToSpace { block: 1, channel_major: false, layout: ChannelsLast }.into(), vec![image()]);

    all.into_iter().map(|(op, inputs)| Sample { op, inputs }).collect()
}

/// A graph of all samples; every value is an output.
pub(crate) fn everything() -> Graph {
    let mut graph = Graph::new("everything", "a test, by hand");
    for (number, sample) in samples().into_iter().enumerate() {
        let name = format!("scope_{number}/{}", sample.op.name());
        let mut inputs = Vec::new();
        for (slot, feed) in sample.inputs.iter().enumerate() {
            inputs.push(match feed {
                Feed::Absent => None,
                Feed::Data(dtype, dims) => {
                    let shape = dims.iter().map(|dim| Dim::parse(dim).unwrap()).collect();
                    Some(graph.input(&format!("{name}/input_{slot}"), *dtype, shape).unwrap())
                }
                Feed::Weight(sizes) => {
                    let values: Vec<f32> = (0..sizes.iter().product()).map(|i| (i + number) as f32).collect();
                    Some(graph.constant(&format!("{name}/weight_{slot}"), Tensor::from_f32(sizes, &values)))
                }
            });
        }
        let id = graph.add_with(sample.op, &name, &inputs).unwrap();
        for output in 0..graph.node(id).outputs.len() {
            graph.output(&format!("result {number} {output}"), Value { node: id, output });
        }
    }
    graph
}
