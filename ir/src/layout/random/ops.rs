//! One step of a random graph, per family of operators.

use super::Maker;
use crate::Layout;
use crate::graph::Value;
use crate::op::{self, Binary, Extreme, Pads, PoolKind, ReduceKind, Unary};
use crate::shape::{Dim, Shape};
use crate::tensor::DType;

impl Maker {
    /// Adds something, unless it does not fit.
    pub(super) fn grow(&mut self) -> Option<()> {
        match self.dice.below(12) {
            0..=2 => self.spatial(),
            3..=4 => self.elementwise(),
            5 => self.norm(),
            6 => self.matrix(),
            7 => self.reduce(),
            8 => self.reshape(),
            9 => self.join(),
            10 => self.cut(),
            _ => self.index(),
        }
    }

    fn spatial(&mut self) -> Option<()> {
        let x = self.value();
        let (rank, layout) = (self.rank(x), self.layout());
        if !(3..=5).contains(&rank) {
            return None;
        }
        let space = rank - 2;
        let channels = self.known(x, layout.channel_axis(rank))?;
        let kernel = 1 + self.dice.below(3);
        let strides: Vec<usize> = (0..space).map(|_| 1 + self.dice.below(2)).collect();
        let pads = Pads((0..space).map(|_| (self.dice.below(kernel), self.dice.below(kernel))).collect());
        let dilations = vec![1; space];
        let groups = if channels % 2 == 0 && self.dice.chance(30) { 2 } else { 1 };
        let out = self.size() * groups;
        match self.dice.below(8) {
            0..=2 => {
                let mut shape = vec![kernel; space];
                shape.extend([channels / groups, out]);
                let (weights, bias) = (self.weight(&shape), self.weight(&[out]));
                self.add(op::Conv { strides, pads, dilations, groups, layout }, &[x, weights, bias])
            }
            3 => {
                let mut shape = vec![kernel; space];
                shape.extend([out / groups, channels]);
                let (weights, output_padding) = (self.weight(&shape), vec![0; space]);
                let op = op::ConvTranspose { strides, pads, output_padding, dilations, groups, layout };
                self.add(op, &[x, weights])
            }
            4 => {
                let kind = self.dice.pick(&[PoolKind::Max, PoolKind::Avg]);
                let pads = Pads(pads.0.iter().map(|&(a, b)| (a.min(kernel / 2), b.min(kernel / 2))).collect());
                let (kernel, count_include_pad) = (vec![kernel; space], self.dice.chance(50));
                let op =
                    op::Pool { kind, kernel, strides, pads, dilations, ceil_mode: false, count_include_pad, layout };
                self.add(op, &[x])
            }
            5 => {
                let output_size = (0..space).map(|_| 1 + self.dice.below(3)).collect();
                self.add(op::AdaptivePool { kind: PoolKind::Avg, output_size, layout }, &[x])
            }
            6 => {
                let size = (0..space).map(|_| self.size()).collect();
                let mode = op::ResizeMode::Linear;
                let coordinates = op::Coordinates::HalfPixel;
                self.add(op::Resize { mode, size, coordinates, scale: Vec::new(), layout }, &[x])
            }
            _ => {
                let channel_major = self.dice.chance(50);
                if self.dice.chance(50) {
                    self.add(op::SpaceToDepth { block: 2, channel_major, layout }, &[x])
                } else {
                    self.add(op::DepthToSpace { block: 2, channel_major, layout }, &[x])
                }
            }
        }
        .map(drop)
    }

    fn elementwise(&mut self) -> Option<()> {
        let x = self.value();
        let binary = self.dice.pick(&[Binary::Add, Binary::Sub, Binary::Mul, Binary::Maximum]);
        match self.dice.below(9) {
            0 => {
                let unary = self.dice.pick(&[Unary::Relu, Unary::Tanh, Unary::Sigmoid, Unary::Sin, Unary::Abs]);
                self.add(unary, &[x])
            }
            1 => match self.dice.below(5) {
                0 => self.add(op::LeakyRelu { alpha: 0.1 }, &[x]),
                1 => self.add(op::Elu { alpha: 1.0 }, &[x]),
                2 => self.add(op::Gelu { approximate: true }, &[x]),
                3 => self.add(op::Clip { min: Some(-2.0), max: Some(2.0) }, &[x]),
                _ => self.add(op::Dropout { rate: 0.5 }, &[x]),
            },
            2 => {
                let layout = self.layout();
                if self.rank(x) < 2 {
                    return None;
                }
                let slope = if self.dice.chance(30) { self.weight(&[1]) } else { self.vector(x, layout)? };
                self.add(op::PRelu { layout }, &[x, slope])
            }
            3 => {
                let axis = self.dice.below(self.rank(x));
                if self.dice.chance(80) {
                    self.add(op::Softmax { axis }, &[x])
                } else {
                    self.add(op::LogSoftmax { axis }, &[x])
                }
            }
            4..=5 => {
                // A constant that broadcasts.
                let c = self.operand(x)?;
                let operands = if self.dice.chance(50) { [x, c] } else { [c, x] };
                self.add(binary, &operands)
            }
            6 => {
                let y = self.value();
                self.add(binary, &[x, y])
            }
            7 => {
                let (y, c) = (self.value(), self.operand(x)?);
                let condition = self.add(Binary::Less, &[x, c])?;
                let operands = if self.dice.chance(50) { [condition, x, y] } else { [condition, c, x] };
                self.add(op::Select {}, &operands)
            }
            _ => {
                let op = op::CumSum {
                    axis: self.dice.below(self.rank(x)),
                    exclusive: self.dice.chance(50),
                    reverse: self.dice.chance(50),
                };
                self.add(op, &[x])
            }
        }
        .map(drop)
    }

    /// A constant that broadcasts to a value.
    fn operand(&mut self, x: Value) -> Option<Value> {
        let shape = self.shape(x);
        let start = self.dice.below(shape.rank() + 1);
        let size = |dim: &Dim| dim.known().unwrap_or(1);
        let sizes: Vec<usize> =
            shape[start..].iter().map(|dim| if self.dice.chance(40) { 1 } else { size(dim) }).collect();
        Some(self.weight(&sizes))
    }

    fn norm(&mut self) -> Option<()> {
        let x = self.value();
        let (rank, layout) = (self.rank(x), self.layout());
        let epsilon = 0.1;
        let axis = self.dice.below(rank);
        match self.dice.below(6) {
            0..=1 => {
                let n = self.known(x, layout.channel_axis(rank))?;
                let inputs = [x, self.weight(&[n]), self.weight(&[n]), self.weight(&[n]), self.positive(n)];
                self.add(op::BatchNorm { epsilon, momentum: None, layout }, &inputs)
            }
            2 => {
                let mut axes: Vec<usize> = (1..rank).filter(|_| self.dice.chance(60)).collect();
                if self.dice.chance(30) {
                    axes.reverse();
                }
                let sizes: Option<Vec<usize>> = axes.iter().map(|&axis| self.known(x, axis)).collect();
                let scale = self.weight(&sizes?);
                self.add(op::LayerNorm { axes, epsilon }, &[x, scale])
            }
            3 => {
                let scale = self.vector(x, layout)?;
                if rank < 3 {
                    return None;
                }
                self.add(op::InstanceNorm { epsilon, layout }, &[x, scale])
            }
            4 => {
                if self.dice.chance(50) && self.known(x, layout.channel_axis(rank))? % 2 == 0 {
                    self.add(op::GroupNorm { groups: 2, epsilon, layout }, &[x])
                } else if rank >= 3 {
                    self.add(op::Lrn { size: 3, alpha: 0.5, beta: 0.75, k: 1.0, layout }, &[x])
                } else {
                    None
                }
            }
            _ => self.add(op::L2Normalize { axes: vec![axis], epsilon }, &[x]),
        }
        .map(drop)
    }

    fn matrix(&mut self) -> Option<()> {
        let (x, y) = (self.value(), self.value());
        match self.dice.below(7) {
            5 => {
                let features = self.known(x, 2)?;
                let weights = [[2, features], [2, 2]].map(|shape| self.weight(&shape));
                let op = op::Recurrent {
                    cell: op::Cell::Tanh,
                    hidden: 2,
                    layers: 1,
                    bidirectional: false,
                    batch_first: self.dice.chance(50),
                    bias: false,
                    initial: false,
                    dropout: 0.0,
                };
                self.add(op, &[x, weights[0], weights[1]])
            }
            0..=2 => {
                let features = self.known(x, self.rank(x).checked_sub(1)?)?;
                let out = self.size();
                let (weights, bias) = (self.weight(&[features, out]), self.weight(&[out]));
                self.add(op::Dense {}, &[x, weights, bias])
            }
            3 => {
                let causal = self.dice.chance(50);
                self.add(op::Attention { scale: 0.5, causal }, &[x, x, x])
            }
            4 => {
                let op = op::MatMul { transpose_a: self.dice.chance(50), transpose_b: self.dice.chance(50) };
                self.add(op, &[x, y])
            }
            _ => {
                let letters: String = "abcdef".chars().take(self.rank(x)).collect();
                let last = letters.chars().last()?;
                let n = self.known(x, self.rank(x) - 1)?;
                let w = self.weight(&[n, 2]);
                let out = letters.replace(last, "z");
                self.add(op::Einsum { equation: format!("{letters},{last}z->{out}") }, &[x, w])
            }
        }
        .map(drop)
    }

    fn reduce(&mut self) -> Option<()> {
        let x = self.value();
        let rank = self.rank(x);
        let keep_dims = self.dice.chance(50);
        match self.dice.below(6) {
            0..=2 => {
                let kind = self.dice.pick(&[ReduceKind::Mean, ReduceKind::Max, ReduceKind::Sum]);
                let axes = (0..rank).filter(|axis| self.dice.chance(if *axis == 0 { 5 } else { 40 })).collect();
                self.add(op::Reduce { kind, axes, keep_dims }, &[x])
            }
            3 => {
                let axes = self.layout.spatial_axes(rank).collect();
                self.add(op::Reduce { kind: ReduceKind::Mean, axes, keep_dims }, &[x])
            }
            4 => {
                let axis = self.dice.below(rank);
                let op = op::ArgReduce { kind: Extreme::Max, axis, keep_dims, dtype: DType::Int64 };
                let best = self.add(op, &[x])?;
                if self.dice.chance(50) {
                    self.real(best);
                } else {
                    let depth = self.known(x, axis)?;
                    let axis = self.dice.below(self.rank(best) + 1);
                    self.add(op::OneHot { depth, axis, on: 1.0, off: -1.0, dtype: DType::Float64 }, &[best]);
                }
                Some(best)
            }
            _ => {
                let top = self.add(op::TopK { k: 1, index_dtype: DType::Int64 }, &[x])?;
                self.real(Value { output: 1, ..top });
                Some(top)
            }
        }
        .map(drop)
    }

    fn reshape(&mut self) -> Option<()> {
        let x = self.value();
        let mut shape = self.shape(x);
        let rank = shape.rank();
        match self.dice.below(10) {
            0..=1 => {
                // Merge neighbours.
                let start = self.dice.below(rank);
                let end = (start + 2 + self.dice.below(2)).min(rank);
                let merged = shape.get(start..end)?.iter().fold(Dim::Known(1), |n, dim| n.times(dim));
                shape.splice(start..end, [merged]);
                self.add(op::Reshape { shape }, &[x])
            }
            2 => {
                // Flatten, and be dense.
                let lead = shape.first()?.clone();
                let rest = shape[1..].iter().fold(Dim::Known(1), |n, dim| n.times(dim));
                let flat = self.add(op::Reshape { shape: Shape(vec![lead, rest]) }, &[x])?;
                let n = self.known(flat, 1)?;
                let mut flat = flat;
                for _ in 0..self.dice.below(3) {
                    flat = match self.dice.below(5) {
                        0 => self.add(Unary::Tanh, &[flat])?,
                        1 => {
                            let inputs =
                                [flat, self.weight(&[n]), self.weight(&[n]), self.weight(&[n]), self.positive(n)];
                            let layout = self.layout();
                            self.add(op::BatchNorm { epsilon: 0.1, momentum: None, layout }, &inputs)?
                        }
                        2 => {
                            let bias = self.weight(&[n]);
                            self.add(Binary::Add, &[bias, flat])?
                        }
                        3 => self.add(Binary::Mul, &[flat, flat])?,
                        _ => {
                            let scale = self.weight(&[n]);
                            self.add(op::LayerNorm { axes: vec![1], epsilon: 0.1 }, &[flat, scale])?
                        }
                    };
                }
                let out = self.size();
                let weights = self.weight(&[n, out]);
                self.add(op::Dense {}, &[flat, weights])
            }
            3 => {
                // Split an axis, somewhere.
                let axis = self.dice.below(rank);
                let n = shape.get(axis)?.known().filter(|n| n % 2 == 0)?;
                let parts = if self.dice.chance(50) { [2, n / 2] } else { [n / 2, 2] };
                shape.splice(axis..=axis, parts.map(Dim::Known));
                self.add(op::Reshape { shape }, &[x])
            }
            4 => {
                // Any other shape of the same size.
                let lead = shape.first()?.clone();
                let rest: usize = shape[1..].iter().map(Dim::known).product::<Option<usize>>()?;
                let first = (1..=rest).filter(|n| rest.is_multiple_of(*n)).collect::<Vec<_>>();
                let first = self.dice.pick(&first);
                let second = (1..=rest / first).filter(|n| (rest / first).is_multiple_of(*n)).collect::<Vec<_>>();
                let second = self.dice.pick(&second);
                let sizes = [first, second, rest / first / second].map(Dim::Known);
                self.add(op::Reshape { shape: std::iter::once(lead).chain(sizes).collect() }, &[x])
            }
            5..=6 => {
                let layout = self.layout;
                let perm = match self.dice.below(3) {
                    0 => Layout::ChannelsLast.permutation_to(Layout::ChannelsFirst, rank),
                    1 => Layout::ChannelsFirst.permutation_to(Layout::ChannelsLast, rank),
                    _ => {
                        let mut perm: Vec<usize> = (0..rank).collect();
                        for i in (1..rank).rev() {
                            perm.swap(i, self.dice.below(i + 1));
                        }
                        perm
                    }
                };
                self.layout = layout;
                self.add(op::Transpose { perm }, &[x])
            }
            7 => {
                let ones = (0..rank).filter(|&axis| self.known(x, axis) == Some(1)).collect::<Vec<_>>();
                let axes = ones.into_iter().filter(|_| self.dice.chance(70)).collect();
                self.add(op::Squeeze { axes }, &[x])
            }
            8 => {
                let axis = self.dice.below(rank + 1);
                let axes = if self.dice.chance(50) { vec![axis] } else { vec![axis, axis + 1] };
                self.add(op::Unsqueeze { axes }, &[x])
            }
            _ => {
                // Shuffle channels.
                let axis = self.layout.channel_axis(rank);
                let n = shape.get(axis)?.known().filter(|n| n % 2 == 0)?;
                let whole = shape.clone();
                shape.splice(axis..=axis, [Dim::Known(2), Dim::Known(n / 2)]);
                let split = self.add(op::Reshape { shape }, &[x])?;
                let mut perm: Vec<usize> = (0..=rank).collect();
                perm.swap(axis, axis + 1);
                let swapped = self.add(op::Transpose { perm }, &[split])?;
                self.add(op::Reshape { shape: whole }, &[swapped])
            }
        }
        .map(drop)
    }

    fn join(&mut self) -> Option<()> {
        let (x, y) = (self.value(), self.value());
        let rank = self.rank(x);
        let pair = if self.shape(x) == self.shape(y) { [x, y] } else { [x, x] };
        match self.dice.below(6) {
            0..=1 => {
                let (axis, other) = (self.dice.below(rank), self.value());
                self.add(op::Concat { axis }, &[x, other]).or_else(|| self.add(op::Concat { axis }, &pair))
            }
            2 => {
                let axis = self.dice.below(rank + 1);
                self.add(op::Pack { axis }, &pair)
            }
            3 => {
                let mut repeats: Shape = (0..rank).map(|_| Dim::Known(1)).collect();
                *repeats.get_mut(self.dice.below(rank))? = Dim::Known(2);
                self.add(op::Tile { repeats }, &[x])
            }
            4 => {
                let shape = self.shape(x);
                let c = self.operand(x)?;
                self.add(op::Expand { shape }, &[c, x])
            }
            _ => {
                let shape = self.shape(x);
                let fill = self.add(op::Fill { shape: shape.clone(), value: 0.5, dtype: DType::Float64 }, &[x])?;
                let dims = self.add(op::Dims { dims: shape, dtype: DType::Int64 }, &[x])?;
                self.real(dims);
                let range = op::Range { start: 0, limit: Dim::Known(self.size()), delta: 1, dtype: DType::Int64 };
                let range = self.add(range, &[])?;
                self.real(range);
                self.add(Binary::Mul, &[x, fill])
            }
        }
        .map(drop)
    }

    fn cut(&mut self) -> Option<()> {
        let x = self.value();
        let (rank, axis) = (self.rank(x), self.dice.below(self.rank(x)));
        match self.dice.below(5) {
            0 => {
                let n = self.known(x, axis).filter(|n| *n > 1)?;
                self.add(op::Split { axis, sizes: vec![1, n - 1] }, &[x])
            }
            1 => {
                let count = self.known(x, axis)?;
                self.add(op::Unpack { axis, count }, &[x])
            }
            2 => {
                let mut slice = op::Slice::all(rank);
                let n = self.known(x, axis)? as i64;
                slice.begins[axis] = self.dice.below(2) as i64 - i64::from(self.dice.chance(30));
                slice.steps[axis] = self.dice.pick(&[1, 1, 2, -1]);
                slice.ends[axis] = if self.dice.chance(50) { op::Slice::OPEN } else { n };
                self.add(slice, &[x])
            }
            3 => {
                let mode = self.dice.pick(&[op::PadMode::Constant, op::PadMode::Symmetric, op::PadMode::Edge]);
                let mut pads = Pads::none(rank);
                self.known(x, axis)?;
                pads.0[axis] = (self.dice.below(2), 1);
                self.add(op::Pad { pads, mode, value: 0.5 }, &[x])
            }
            _ => self.add(op::Reverse { axes: vec![axis] }, &[x]),
        }
        .map(drop)
    }

    fn index(&mut self) -> Option<()> {
        let x = self.value();
        let (rank, axis) = (self.rank(x), self.dice.below(self.rank(x)));
        let n = self.known(x, axis)?;
        match self.dice.below(6) {
            0..=1 => {
                let shape = self.dice.pick(&[vec![], vec![2], vec![2, 2]]);
                let indices = self.indices(&shape, n);
                self.add(op::Gather { axis, batch_dims: 0 }, &[x, indices])
            }
            2 => {
                let all: Option<Vec<usize>> = (0..2).map(|axis| self.known(x, axis)).collect();
                let indices = self.indices(&[3, 2], all?.into_iter().min()?);
                self.add(op::GatherNd {}, &[x, indices])
            }
            4 if rank > 1 => {
                let source = self.add(op::Reverse { axes: vec![axis] }, &[x])?;
                let index = self.indices(&[n], n);
                self.add(op::Scatter { axis, elements: false, add: true }, &[x, index, source])
            }
            3 if (4..=5).contains(&rank) => {
                let mut shape = vec![2; rank];
                *shape.first_mut()? = self.known(x, 0)?;
                *shape.last_mut()? = rank - 2;
                let grid = self.weight(&shape);
                let (linear, align_corners) = (self.dice.chance(50), self.dice.chance(50));
                self.add(op::GridSample { linear, outside: op::Outside::Mirrored, align_corners }, &[x, grid])
            }
            _ => {
                let table = self.weight(&[n, 3]);
                let op = op::ArgReduce { kind: Extreme::Max, axis, keep_dims: rank < 2, dtype: DType::Int64 };
                let indices = self.add(op, &[x])?;
                self.add(op::Gather { axis: 0, batch_dims: 0 }, &[table, indices])
            }
        }
        .map(drop)
    }
}
