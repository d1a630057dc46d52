//! Small networks for tests of this pass, and the proof that a conversion computes the same.

use ndarray::{ArrayD, IxDyn};

use super::{Layout, Ports, convert};
use crate::eval::{Array, evaluate};
use crate::graph::{Graph, Value};
use crate::op::{self, Op, Pads};
use crate::shape::{Dim, Shape};
use crate::tensor::{DType, Tensor};
use crate::validate::validate;

/// Numbers that look random and are the same on every run (xorshift).
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Below `n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 20) as usize) % n.max(1)
    }

    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(super) fn pick<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }

    /// From -1 to 1.
    pub(super) fn real(&mut self) -> f64 {
        self.below(2001) as f64 / 1000.0 - 1.0
    }
}

pub(super) fn shape(text: &str) -> Shape {
    Shape(text.split_whitespace().map(|dim| Dim::parse(dim).unwrap()).collect())
}

/// A network in the making.
pub(super) struct Net {
    pub(super) graph: Graph,
    pub(super) layout: Layout,
    pub(super) dice: Dice,
}

impl Net {
    pub(super) fn new(layout: Layout) -> Self {
        Net { graph: Graph::new("net", "test"), layout, dice: Dice::new(7) }
    }

    pub(super) fn last() -> Self {
        Net::new(Layout::ChannelsLast)
    }

    pub(super) fn input(&mut self, text: &str) -> Value {
        self.graph.input("x", DType::Float32, shape(text)).unwrap()
    }

    pub(super) fn output(&mut self, value: Value) -> &mut Self {
        let name = format!("out{}", self.graph.outputs.len());
        self.graph.output(&name, value);
        self
    }

    pub(super) fn add(&mut self, op: impl Into<Op>, inputs: &[Value]) -> Value {
        let op = op.into();
        let name = op.name().to_lowercase();
        self.graph.add(op, &name, inputs).unwrap_or_else(|error| panic!("{error}")).into()
    }

    pub(super) fn sizes(&self, value: Value) -> Vec<Option<usize>> {
        self.graph.shape(value).iter().map(Dim::known).collect()
    }

    pub(super) fn rank(&self, value: Value) -> usize {
        self.graph.shape(value).rank()
    }

    pub(super) fn channels(&self, value: Value) -> usize {
        self.sizes(value)[self.layout.channel_axis(self.rank(value))].unwrap()
    }

    pub(super) fn weight(&mut self, shape: &[usize]) -> Value {
        let n = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|_| self.dice.real() as f32).collect();
        self.graph.constant("weight", Tensor::from_f32(shape, &values))
    }

    pub(super) fn positive(&mut self, n: usize) -> Value {
        let values: Vec<f32> = (0..n).map(|_| self.dice.real().abs() as f32 + 0.5).collect();
        self.graph.constant("weight", Tensor::from_f32(&[n], &values))
    }

    pub(super) fn conv_op(&self, rank: usize, kernel: usize, stride: usize, groups: usize) -> op::Conv {
        op::Conv {
            strides: vec![stride; rank - 2],
            pads: Pads(vec![(kernel / 2, kernel - 1 - kernel / 2); rank - 2]),
            dilations: vec![1; rank - 2],
            groups,
            layout: self.layout,
        }
    }

    pub(super) fn grouped_conv(&mut self, x: Value, out: usize, kernel: usize, stride: usize, groups: usize) -> Value {
        let (rank, channels) = (self.rank(x), self.channels(x));
        let mut shape = vec![kernel; rank - 2];
        shape.extend([channels / groups, out]);
        let (weights, bias) = (self.weight(&shape), self.weight(&[out]));
        self.add(self.conv_op(rank, kernel, stride, groups), &[x, weights, bias])
    }

    pub(super) fn conv(&mut self, x: Value, out: usize) -> Value {
        self.grouped_conv(x, out, 3, 1, 1)
    }

    pub(super) fn batch_norm(&mut self, x: Value) -> Value {
        let n = self.channels(x);
        let parameters = [self.weight(&[n]), self.weight(&[n]), self.weight(&[n]), self.positive(n)];
        let [scale, bias, mean, var] = parameters;
        let op = op::BatchNorm { epsilon: 1e-3, momentum: None, layout: self.layout };
        self.add(op, &[x, scale, bias, mean, var])
    }

    pub(super) fn relu(&mut self, x: Value) -> Value {
        self.add(op::Unary::Relu, &[x])
    }

    pub(super) fn pool(&mut self, x: Value) -> Value {
        let space = self.rank(x) - 2;
        let op = op::Pool {
            kind: op::PoolKind::Max,
            kernel: vec![2; space],
            strides: vec![2; space],
            pads: Pads::none(space),
            dilations: vec![1; space],
            ceil_mode: false,
            count_include_pad: false,
            layout: self.layout,
        };
        self.add(op, &[x])
    }

    /// The mean over space.
    pub(super) fn mean(&mut self, x: Value, keep_dims: bool) -> Value {
        let axes = self.layout.spatial_axes(self.rank(x)).collect();
        self.add(op::Reduce { kind: op::ReduceKind::Mean, axes, keep_dims }, &[x])
    }

    pub(super) fn dense(&mut self, x: Value, out: usize) -> Value {
        let features = self.sizes(x).last().copied().flatten().unwrap();
        let (weights, bias) = (self.weight(&[features, out]), self.weight(&[out]));
        self.add(op::Dense {}, &[x, weights, bias])
    }

    pub(super) fn binary(&mut self, op: op::Binary, a: Value, b: Value) -> Value {
        self.add(op, &[a, b])
    }

    pub(super) fn concat(&mut self, values: &[Value]) -> Value {
        let axis = self.layout.channel_axis(self.rank(values[0]));
        self.add(op::Concat { axis }, values)
    }

    pub(super) fn reshape(&mut self, x: Value, text: &str) -> Value {
        self.add(op::Reshape { shape: shape(text) }, &[x])
    }

    pub(super) fn transpose(&mut self, x: Value, perm: &[usize]) -> Value {
        self.add(op::Transpose { perm: perm.to_vec() }, &[x])
    }
}

/// Values for the inputs of a graph; free sizes are `batch`.
pub(super) fn feed(graph: &Graph, batch: usize, dice: &mut Dice) -> Vec<Array> {
    let fill = |port: &crate::graph::Port| {
        let info = graph.info(port.value);
        let size = |dim: &Dim| match dim {
            Dim::Known(n) => *n,
            Dim::Symbol { factor, .. } => factor * batch,
            Dim::Unknown => batch + 1,
        };
        let sizes: Vec<usize> = info.shape.iter().map(size).collect();
        let n = sizes.iter().product();
        if info.dtype.is_float() {
            let values = (0..n).map(|_| dice.real()).map(|x| f64::from(x as f32)).collect();
            Array::Float(ArrayD::from_shape_vec(IxDyn(&sizes), values).unwrap(), info.dtype)
        } else {
            let values = (0..n).map(|_| dice.below(2) as i64).collect();
            Array::Int(ArrayD::from_shape_vec(IxDyn(&sizes), values).unwrap(), info.dtype)
        }
    };
    graph.inputs.iter().map(fill).collect()
}

fn permuted(array: Array, perm: Option<&[usize]>) -> Array {
    let Some(perm) = perm else { return array };
    match array {
        Array::Float(a, dtype) => Array::Float(a.permuted_axes(IxDyn(perm)).as_standard_layout().to_owned(), dtype),
        Array::Int(a, dtype) => Array::Int(a.permuted_axes(IxDyn(perm)).as_standard_layout().to_owned(), dtype),
        Array::Bool(a) => Array::Bool(a.permuted_axes(IxDyn(perm)).as_standard_layout().to_owned()),
    }
}

fn assert_close(want: &Array, got: &Array, what: &str) {
    match (want, got) {
        (Array::Float(want, _), Array::Float(got, _)) => {
            assert_eq!(want.shape(), got.shape(), "{what}");
            for (a, b) in want.iter().zip(got) {
                let same = a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-4 * (1.0 + a.abs());
                assert!(same, "{what}: {a} and {b}");
            }
        }
        _ => assert_eq!(want, got, "{what}"),
    }
}

/// One line per node, for messages.
pub(super) fn dump(graph: &Graph) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for id in graph.order().unwrap() {
        let node = graph.node(id);
        let shapes: Vec<String> = node.outputs.iter().map(|info| info.shape.to_string()).collect();
        let inputs: Vec<String> = graph
            .inputs_of(id)
            .into_iter()
            .map(|v| v.map_or("-".into(), |v| format!("{}:{}", graph.node(v.node).name, v.output)))
            .collect();
        let op = match &node.op {
            Op::Constant(_) => "Constant".to_owned(),
            op => format!("{op:?}"),
        };
        writeln!(text, "{} = {op}({}) {}", node.name, inputs.join(", "), shapes.join(" ")).unwrap();
    }
    for port in &graph.outputs {
        writeln!(text, "-> {} {:?}", graph.node(port.value.node).name, port.permutation).unwrap();
    }
    text
}

/// Converts a copy, and proves that it computes what the graph computes.
pub(super) fn converted(graph: &Graph, target: Layout, ports: Ports, batch: usize) -> Graph {
    let mut copy = graph.clone();
    let what = || format!("to {target:?}, ports {ports:?}\n{}", dump(graph));
    convert(&mut copy, target, ports).unwrap_or_else(|error| panic!("{error}\n{}", what()));
    let inputs = feed(graph, batch, &mut Dice::new(11));
    let want = evaluate(graph, &inputs).unwrap_or_else(|error| panic!("{error}\n{}", what()));
    let fed = inputs
        .into_iter()
        .zip(&copy.inputs)
        .map(|(x, port)| permuted(x, port.permutation.as_deref()))
        .collect::<Vec<_>>();
    let got = evaluate(&copy, &fed).unwrap_or_else(|error| panic!("{error}\n{}\n{}", what(), dump(&copy)));
    for ((want, got), port) in want.into_iter().zip(&got).zip(&copy.outputs) {
        let want = permuted(want, port.permutation.as_deref());
        assert_close(&want, got, &format!("{} {}\n{}", port.name, what(), dump(&copy)));
    }
    if validate(graph).is_ok() {
        validate(&copy).unwrap_or_else(|error| panic!("{error}\n{}\n{}", what(), dump(&copy)));
    }
    for id in copy.ids() {
        let spatial = copy.op(id).layout();
        assert!(spatial.is_none_or(|layout| layout == target), "{}", copy.node(id).name);
    }
    if ports == Ports::Source {
        assert!(copy.inputs.iter().chain(&copy.outputs).all(|port| port.permutation.is_none()));
    }
    copy
}

pub(super) fn transposes(graph: &Graph) -> usize {
    graph.ids().into_iter().filter(|&id| matches!(graph.op(id), Op::Transpose(_))).count()
}

/// The number of transposes after conversion to the other layout, with the ports of the target; conversion with
/// the ports of the source, and to the layout that the network has, is proven too.
pub(super) fn proven(net: &Net) -> usize {
    let other = match net.layout {
        Layout::ChannelsLast => Layout::ChannelsFirst,
        Layout::ChannelsFirst => Layout::ChannelsLast,
    };
    for batch in [1, 2, 4] {
        converted(&net.graph, other, Ports::Source, batch);
        converted(&net.graph, net.layout, Ports::Target, batch);
    }
    transposes(&converted(&net.graph, other, Ports::Target, 2))
}
