//! Attributes that no sane file has: every operator answers with an error or a value, never with a panic.

use super::{Array, apply};
use crate::layout::Layout;
use crate::op::{
    AdaptivePool, ArgReduce, Attention, BatchNorm, Binary, Cast, Cell, Clip, Concat, Conv, ConvTranspose, Coordinates,
    CumSum, Dense, DepthToSpace, Dims, Dropout, Einsum, Elu, Expand, Extreme, Fill, Gather, GatherNd, Gelu, GridSample,
    GroupNorm, InstanceNorm, L2Normalize, LayerNorm, LeakyRelu, LogSoftmax, Lrn, MatMul, OneHot, Op, Outside, PRelu,
    Pack, Pad, PadMode, Pads, Pool, PoolKind, Range, Recurrent, Reduce, ReduceKind, Reshape, Resize, ResizeMode,
    Reverse, Scatter, Select, Slice, Softmax, SpaceToDepth, Split, Squeeze, Tile, TopK, Transpose, Unary, Unpack,
    Unsqueeze,
};
use crate::shape::{Dim, Shape};
use crate::tensor::DType;

/// A linear congruential generator: the same numbers on every run. Lists and shapes are mostly of one rank, so that
/// many go together.
struct Random {
    state: u64,
    rank: usize,
    length: usize,
    dtype: DType,
    /// Whether all numbers are small.
    tame: bool,
}

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) as usize % n
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    fn number(&mut self) -> usize {
        if self.tame {
            return self.pick(&[1, 1, 1, 2]);
        }
        self.pick(&[0, 1, 1, 1, 1, 2, 2, 3, 4, 1 << 31, usize::MAX / 2, usize::MAX])
    }

    fn length(&mut self) -> usize {
        if self.tame || self.below(20) > 0 { self.length } else { self.below(4) }
    }

    /// Begins anew with another rank.
    fn turn(&mut self) {
        self.rank = self.below(6);
        self.tame = self.below(3) == 0;
        let any = self.below(4);
        self.length = self.pick(&[self.rank, self.rank.saturating_sub(2), any]);
        self.dtype =
            self.pick(&[DType::Float32, DType::Float32, DType::Float32, DType::Int64, DType::Int8, DType::Bool]);
    }

    fn numbers(&mut self) -> Vec<usize> {
        (0..self.length()).map(|_| self.number()).collect()
    }

    fn signed(&mut self) -> Vec<i64> {
        (0..self.length()).map(|_| self.pick(&[0, 1, 1, 2, -1, -2, i64::MIN, i64::MAX])).collect()
    }

    fn pads(&mut self) -> Pads {
        Pads((0..self.length()).map(|_| (self.number(), self.number())).collect())
    }

    fn dim(&mut self) -> Dim {
        match self.below(8) {
            0 => Dim::Unknown,
            1 => Dim::Symbol { factor: self.number(), name: "N".into() },
            _ => Dim::Known(self.number()),
        }
    }

    fn shape(&mut self) -> Shape {
        (0..self.length()).map(|_| self.dim()).collect()
    }

    fn real(&mut self) -> f32 {
        self.pick(&[0.0, 0.5, -1.0, 1e30, f32::INFINITY, f32::NEG_INFINITY, f32::NAN])
    }

    fn array(&mut self) -> Array {
        let rank = self.pick(&[self.rank, self.rank, self.rank, 0, 1, 1, 1, 2]);
        let shape: Vec<usize> = (0..rank)
            .map(|_| if self.tame { self.pick(&[1, 1, 1, 2]) } else { self.pick(&[0, 1, 1, 2, 2, 4]) })
            .collect();
        let values: Vec<f64> = (0..shape.iter().product()).map(|_| self.below(7) as f64 - 3.0).collect();
        let dtype = if self.below(8) > 0 { self.dtype } else { DType::Int64 };
        Array::from_f64(dtype, &shape, values).unwrap()
    }

    fn recurrent(&mut self) -> Op {
        Recurrent {
            cell: self.pick(&[Cell::Lstm, Cell::Gru, Cell::GruResetBefore, Cell::Tanh, Cell::Relu]),
            hidden: self.number(),
            layers: self.number(),
            bidirectional: self.below(4) == 0,
            batch_first: self.below(2) == 0,
            bias: self.below(2) == 0,
            initial: self.below(4) == 0,
            dropout: self.real(),
        }
        .into()
    }

    fn op(&mut self) -> Op {
        let layout = self.pick(&[Layout::ChannelsFirst, Layout::ChannelsLast]);
        let kind = self.pick(&[PoolKind::Max, PoolKind::Avg]);
        let dtype = self.pick(&DType::ALL);
        let (axis, flag) = (self.pick(&[0, 1, 2, 5, usize::MAX]), self.below(2) == 0);
        let (epsilon, groups, block) = (self.real(), self.number(), self.number());
        let (strides, dilations) = (self.numbers(), self.numbers());
        match self.below(64) {
            0 => Fill { shape: self.shape(), value: epsilon, dtype }.into(),
            1 => Range { start: -1, limit: self.dim(), delta: self.pick(&[0, 1, -1, i64::MIN]), dtype }.into(),
            2 => Dims { dims: self.shape(), dtype }.into(),
            3..7 => Conv { strides, pads: self.pads(), dilations, groups, layout }.into(),
            7..11 => {
                let output_padding = self.numbers();
                ConvTranspose { strides, pads: self.pads(), output_padding, dilations, groups, layout }.into()
            }
            11..14 => {
                let (kernel, pads) = (self.numbers(), self.pads());
                Pool { kind, kernel, strides, pads, dilations, ceil_mode: flag, count_include_pad: flag, layout }.into()
            }
            14 => AdaptivePool { kind, output_size: strides, layout }.into(),
            15 | 57..60 => BatchNorm { epsilon, momentum: None, layout }.into(),
            16 => LayerNorm { axes: strides, epsilon }.into(),
            17 => InstanceNorm { epsilon, layout }.into(),
            18 => GroupNorm { groups, epsilon, layout }.into(),
            19 => Lrn { size: block, alpha: self.real(), beta: self.real(), k: 1.0, layout }.into(),
            20 => L2Normalize { axes: strides, epsilon }.into(),
            21 => Dropout { rate: epsilon }.into(),
            22 => self.pick(Unary::ALL).into(),
            23 => LeakyRelu { alpha: epsilon }.into(),
            24 => Elu { alpha: epsilon }.into(),
            25 => PRelu { layout }.into(),
            26 => Gelu { approximate: flag }.into(),
            27 => Clip { min: Some(epsilon), max: Some(self.real()) }.into(),
            28 => Softmax { axis }.into(),
            29 => LogSoftmax { axis }.into(),
            30 => self.pick(Binary::ALL).into(),
            31 => Select {}.into(),
            32 => Cast { dtype }.into(),
            33 => CumSum { axis, exclusive: flag, reverse: !flag }.into(),
            34 => Dense {}.into(),
            35 if flag => Attention { scale: epsilon, causal: axis == 0 }.into(),
            35 => MatMul { transpose_a: axis == 0, transpose_b: self.below(2) == 0 }.into(),
            36 => {
                let equation =
                    self.pick(&["->", "a->a", "ab,bc->ac", "aa->a", "a,b->aa", "ab->z", "ab,ab->", "-", "é->é"]);
                Einsum { equation: equation.to_owned() }.into()
            }
            37 => {
                let kinds =
                    [ReduceKind::Sum, ReduceKind::Mean, ReduceKind::Max, ReduceKind::LogSumExp, ReduceKind::All];
                Reduce { kind: self.pick(&kinds), axes: strides, keep_dims: flag }.into()
            }
            38 => ArgReduce { kind: Extreme::Max, axis, keep_dims: flag, dtype }.into(),
            39 => TopK { k: block, index_dtype: dtype }.into(),
            40 => Reshape { shape: self.shape() }.into(),
            41 => Transpose { perm: strides }.into(),
            42 => Squeeze { axes: strides }.into(),
            43 => Unsqueeze { axes: strides }.into(),
            44 => Concat { axis }.into(),
            45 => Split { axis, sizes: strides }.into(),
            46 => Pack { axis }.into(),
            47 => Unpack { axis, count: block.min(1 << 20) }.into(),
            48 => Slice { begins: self.signed(), ends: self.signed(), steps: self.signed() }.into(),
            49 => {
                let mode = self.pick(&[PadMode::Constant, PadMode::Reflect, PadMode::Symmetric, PadMode::Edge]);
                Pad { pads: self.pads(), mode, value: epsilon }.into()
            }
            50 => Tile { repeats: self.shape() }.into(),
            51 => Expand { shape: self.shape() }.into(),
            52 => match flag {
                true => Gather { axis, batch_dims: block }.into(),
                false => GatherNd {}.into(),
            },
            53 => match flag {
                true => OneHot { depth: block, axis, on: 1.0, off: epsilon, dtype }.into(),
                false => Reverse { axes: strides }.into(),
            },
            54 => {
                let mode =
                    self.pick(&[ResizeMode::Nearest, ResizeMode::Linear, ResizeMode::Cubic, ResizeMode::AreaCubic]);
                let places = [Coordinates::Asymmetric, Coordinates::HalfPixel, Coordinates::AlignCorners];
                let coordinates = self.pick(&places);
                Resize { mode, size: strides, coordinates, scale: vec![f64::from(epsilon)], layout }.into()
            }
            55 | 56 => {
                let outside = self.pick(&[Outside::Zeros, Outside::Edge, Outside::Mirrored]);
                GridSample { linear: flag, outside, align_corners: axis == 0 }.into()
            }
            _ => match flag {
                true => SpaceToDepth { block, channel_major: axis == 0, layout }.into(),
                false => DepthToSpace { block, channel_major: axis == 0, layout }.into(),
            },
        }
    }
}

#[test]
fn nothing_panics() {
    let mut random = Random { state: 1, rank: 0, length: 0, dtype: DType::Float32, tame: false };
    let mut evaluated = std::collections::BTreeSet::new();
    for _ in 0..200_000 {
        random.turn();
        let op = random.op();
        let count = if random.below(4) == 0 { random.below(6) } else { op.slots().len() };
        let inputs: Vec<Option<Array>> = (0..count).map(|_| (random.below(12) > 0).then(|| random.array())).collect();
        let inputs: Vec<Option<&Array>> = inputs.iter().map(Option::as_ref).collect();
        if apply(&op, &inputs).is_ok() {
            evaluated.insert(op.family());
        }
    }
    // Inputs that fit a recurrent layer hardly ever come by chance.
    let array = |shape: &[usize]| Array::from_f64(DType::Float32, shape, vec![0.5; shape.iter().product()]).unwrap();
    let inputs = [array(&[2, 1, 3]), array(&[1, 3]), array(&[1, 1]), array(&[1]), array(&[1])];
    for count in [3, 5] {
        for _ in 0..2000 {
            random.turn();
            let op = random.recurrent();
            let inputs: Vec<Option<&Array>> = inputs.iter().take(count).map(Some).collect();
            if apply(&op, &inputs).is_ok() {
                evaluated.insert(op.family());
            }
        }
    }
    // Nor do queries, keys and values.
    for _ in 0..2000 {
        random.turn();
        let op = Attention { scale: random.real(), causal: random.below(2) == 0 }.into();
        let inputs = [array(&[2, 1, 3]), array(&[2, random.below(3), 3]), array(&[2, random.below(3), 1])];
        let mask = random.array();
        let inputs: Vec<_> = inputs.iter().chain([&mask]).take(3 + random.below(2)).map(Some).collect();
        if apply(&op, &inputs).is_ok() {
            evaluated.insert(op.family());
        }
    }
    // Nor do places that lie in what is written into.
    let places = Array::from_i64(&[2, 1], &[0, 0]).unwrap();
    for _ in 0..2000 {
        random.turn();
        let op = Scatter { axis: random.number(), elements: random.below(2) == 0, add: random.below(2) == 0 }.into();
        let inputs = [random.array(), random.array(), random.array()];
        let inputs: Vec<_> = inputs.iter().map(|x| Some(if random.below(3) == 0 { x } else { &places })).collect();
        if apply(&op, &inputs).is_ok() {
            evaluated.insert(op.family());
        }
    }
    // Otherwise this would test nothing.
    let missed: Vec<_> = crate::op::FAMILIES.iter().filter(|family| !evaluated.contains(*family)).collect();
    assert_eq!(missed, [&"Input", &"Constant", &"Foreign"]);
}
