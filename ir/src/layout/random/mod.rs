//! Random graphs over all operators compute the same in any layout, also when all sizes are equal.

mod ops;

use std::collections::BTreeMap;

use super::testing::{Dice, converted, feed};
use super::{Layout, Ports};
use crate::eval::evaluate;
use crate::graph::{Graph, Value};
use crate::op::{self, Op};
use crate::shape::{Dim, Shape};
use crate::tensor::{DType, Tensor};

/// Elements that a value may have, with a batch of 1.
const MOST: usize = 3000;

struct Maker {
    graph: Graph,
    dice: Dice,
    layout: Layout,
    /// The sizes that axes get; all equal or all different.
    sizes: Vec<usize>,
    values: Vec<Value>,
    used: BTreeMap<&'static str, usize>,
}

impl Maker {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let layout = dice.pick(&[Layout::ChannelsLast, Layout::ChannelsLast, Layout::ChannelsFirst]);
        let sizes = dice.pick(&[vec![4], vec![2], vec![2, 3, 4, 5, 6], vec![1, 2, 3, 4]]);
        let mut maker = Maker {
            graph: Graph::new("random", "test"),
            dice,
            layout,
            sizes,
            values: Vec::new(),
            used: BTreeMap::new(),
        };
        let free = maker.dice.chance(70);
        for _ in 0..1 + maker.dice.below(2) {
            let rank = maker.dice.pick(&[4, 4, 4, 3, 5, 2]);
            let mut shape: Shape = (0..rank).map(|_| Dim::Known(maker.size())).collect();
            if free {
                shape[0] = Dim::symbol("N");
            }
            if rank > 2 && maker.dice.chance(15) {
                shape[1 + maker.dice.below(rank - 1)] = Dim::Unknown;
            }
            let value = maker.graph.input("x", DType::Float64, shape).unwrap();
            maker.values.push(value);
        }
        maker
    }

    fn size(&mut self) -> usize {
        let sizes = self.sizes.clone();
        self.dice.pick(&sizes)
    }

    fn shape(&self, value: Value) -> Shape {
        self.graph.shape(value).clone()
    }

    fn rank(&self, value: Value) -> usize {
        self.graph.shape(value).rank()
    }

    fn known(&self, value: Value, axis: usize) -> Option<usize> {
        self.graph.shape(value).get(axis)?.known()
    }

    /// A value made lately, more often than not.
    fn value(&mut self) -> Value {
        let n = self.values.len();
        let back = if self.dice.chance(60) { self.dice.below(n.min(3)) } else { self.dice.below(n) };
        self.values[n - 1 - back]
    }

    fn weight(&mut self, shape: &[usize]) -> Value {
        let n: usize = shape.iter().product();
        let values: Vec<f64> = (0..n).map(|_| self.dice.real()).collect();
        self.graph.constant("w", Tensor::from_f64(DType::Float64, shape, values))
    }

    fn positive(&mut self, n: usize) -> Value {
        let values: Vec<f64> = (0..n).map(|_| self.dice.real().abs() + 0.5).collect();
        self.graph.constant("w", Tensor::from_f64(DType::Float64, &[n], values))
    }

    fn indices(&mut self, shape: &[usize], below: usize) -> Value {
        let n: usize = shape.iter().product();
        let values: Vec<i64> = (0..n).map(|_| self.dice.below(below) as i64).collect();
        self.graph.constant("i", Tensor::from_i64(shape, &values))
    }

    /// Adds a node if its operator takes the inputs; keeps what is a small real value.
    fn add(&mut self, op: impl Into<Op>, inputs: &[Value]) -> Option<Value> {
        let op = op.into();
        let (name, family) = (op.name().to_lowercase(), op.family());
        let id = self.graph.add(op, &name, inputs).ok()?;
        let infos = self.graph.node(id).outputs.clone();
        let small = |shape: &Shape| {
            let sizes = shape.iter().map(|dim| match dim {
                Dim::Symbol { factor, .. } => *factor,
                dim => dim.known().unwrap_or(5),
            });
            let n = sizes.fold(1usize, |n, size| n.saturating_mul(size));
            (1..=MOST).contains(&n) && shape.rank() <= 6
        };
        if infos.iter().any(|info| !small(&info.shape)) {
            self.graph.remove(id);
            return None;
        }
        *self.used.entry(family).or_default() += 1;
        for (output, info) in infos.iter().enumerate() {
            let value = Value { node: id, output };
            if info.dtype == DType::Float64 {
                self.values.push(value);
            }
        }
        Some(id.into())
    }

    /// The same as reals.
    fn real(&mut self, value: Value) {
        if self.graph.info(value).dtype != DType::Float64 {
            self.add(op::Cast { dtype: DType::Float64 }, &[value]);
        }
    }

    fn layout(&mut self) -> Layout {
        let other = match self.layout {
            Layout::ChannelsLast => Layout::ChannelsFirst,
            Layout::ChannelsFirst => Layout::ChannelsLast,
        };
        if self.dice.chance(85) { self.layout } else { other }
    }

    fn vector(&mut self, x: Value, layout: Layout) -> Option<Value> {
        let n = self.known(x, layout.channel_axis(self.rank(x)))?;
        Some(self.weight(&[n]))
    }

    fn finish(mut self) -> (Graph, BTreeMap<&'static str, usize>) {
        let count = 1 + self.dice.below(3);
        for index in 0..count {
            let value = if index == 0 { self.values[self.values.len() - 1] } else { self.value() };
            self.graph.output(&format!("out{index}"), value);
        }
        self.graph.prune();
        (self.graph, self.used)
    }
}

fn prove(seeds: std::ops::Range<u64>, steps: usize) -> BTreeMap<&'static str, usize> {
    let mut all = BTreeMap::new();
    let (mut proven, mut tried) = (0, 0);
    for seed in seeds {
        tried += 1;
        let mut maker = Maker::new(seed);
        for _ in 0..steps {
            let _ = maker.grow();
        }
        let batch = maker.sizes[0];
        let (graph, used) = maker.finish();
        // A free size that meets a known one may be wrong for this batch.
        if evaluate(&graph, &feed(&graph, batch, &mut Dice::new(11))).is_err() {
            continue;
        }
        proven += 1;
        for (family, n) in used {
            *all.entry(family).or_default() += n;
        }
        for target in [Layout::ChannelsFirst, Layout::ChannelsLast] {
            for ports in [Ports::Target, Ports::Source] {
                let mut there = converted(&graph, target, ports, batch);
                // And on to the other, from wherever it is now.
                let back = if target == Layout::ChannelsFirst { Layout::ChannelsLast } else { Layout::ChannelsFirst };
                if seed % 4 == 0 {
                    for port in there.inputs.iter_mut().chain(&mut there.outputs) {
                        port.permutation = None;
                    }
                    converted(&there, back, ports, batch);
                }
            }
        }
    }
    assert!(proven * 4 > tried * 3, "{proven} of {tried} graphs");
    all
}

#[test]
fn small_graphs() {
    prove(0..400, 12);
}

#[test]
fn large_graphs() {
    let used = prove(10000..10080, 60);
    let missing: Vec<&str> = op::FAMILIES
        .iter()
        .copied()
        .filter(|family| !matches!(*family, "Input" | "Constant" | "Foreign") && !used.contains_key(family))
        .collect();
    assert!(missing.is_empty(), "never made: {missing:?}");
}
