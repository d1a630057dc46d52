//! Helpers of the passes' tests: small graphs, and the proof that a pass keeps what they compute.

use crate::diagnostic::Result;
use crate::eval::{self, Array};
use crate::graph::{Graph, NodeId, Value};
use crate::op::{Binary, Conv, Op, Pads, Reduce, ReduceKind, Reshape, Unary};
use crate::shape::{Dim, Shape};
use crate::tensor::{DType, Tensor};
use crate::{Layout, op};

/// A graph under construction. Constants and inputs have pseudo-random elements that are the same in every run.
pub struct Net {
    pub graph: Graph,
    pub scope: String,
    seed: u64,
}

impl Net {
    pub fn new() -> Net {
        Net { graph: Graph::new("test", "a test"), scope: String::new(), seed: 1 }
    }

    /// An input with a free batch in front of `sizes`.
    pub fn x(&mut self, sizes: &[usize]) -> Value {
        self.graph.input("x", DType::Float32, batch(sizes)).unwrap()
    }

    pub fn name(&self, name: &str) -> String {
        if self.scope.is_empty() { name.to_owned() } else { format!("{}/{name}", self.scope) }
    }

    /// A constant with elements from 0.5 to 1.5.
    pub fn weight(&mut self, name: &str, sizes: &[usize]) -> Value {
        let values: Vec<f32> = random(&mut self.seed, sizes).into_iter().map(|x| (x / 6.0 + 1.0) as f32).collect();
        let name = self.name(name);
        self.graph.constant(&name, Tensor::from_f32(sizes, &values))
    }

    pub fn num(&mut self, number: f32) -> Value {
        let name = self.name("const");
        self.graph.constant(&name, Tensor::from_f32(&[], &[number]))
    }

    pub fn op(&mut self, op: impl Into<Op>, inputs: &[Value]) -> Value {
        let op = op.into();
        let name = self.name(&op.name().to_lowercase());
        self.graph.add(op, &name, inputs).unwrap().into()
    }

    pub fn un(&mut self, op: Unary, x: Value) -> Value {
        self.op(op, &[x])
    }

    pub fn bin(&mut self, op: Binary, a: Value, b: Value) -> Value {
        self.op(op, &[a, b])
    }

    pub fn add(&mut self, a: Value, b: Value) -> Value {
        self.bin(Binary::Add, a, b)
    }

    pub fn sub(&mut self, a: Value, b: Value) -> Value {
        self.bin(Binary::Sub, a, b)
    }

    pub fn mul(&mut self, a: Value, b: Value) -> Value {
        self.bin(Binary::Mul, a, b)
    }

    pub fn div(&mut self, a: Value, b: Value) -> Value {
        self.bin(Binary::Div, a, b)
    }

    /// `number * x`
    pub fn times(&mut self, number: f32, x: Value) -> Value {
        let number = self.num(number);
        self.mul(number, x)
    }

    /// `number + x`
    pub fn plus(&mut self, number: f32, x: Value) -> Value {
        let number = self.num(number);
        self.add(number, x)
    }

    pub fn reduce(&mut self, kind: ReduceKind, x: Value, axes: &[usize]) -> Value {
        self.op(Reduce { kind, axes: axes.to_vec(), keep_dims: true }, &[x])
    }

    pub fn reshape(&mut self, x: Value, shape: Shape) -> Value {
        self.op(Reshape { shape }, &[x])
    }

    pub fn conv(&mut self, x: Value, kernel: &[usize], layout: Layout) -> Value {
        let w = self.weight("weights", kernel);
        let spatial = kernel.len() - 2;
        let op = Conv {
            strides: vec![1; spatial],
            pads: Pads::none(spatial),
            dilations: vec![1; spatial],
            groups: 1,
            layout,
        };
        self.op(op, &[x, w])
    }

    pub fn random_uniform(&mut self, like: Value) -> Value {
        let shape = self.graph.shape(like).clone();
        let foreign = op::Foreign { op: "RandomUniform".to_owned(), dtype: DType::Float32, shape };
        self.op(foreign, &[like])
    }

    /// Runs a pass on the graph with these outputs and checks that they stay the same.
    pub fn check(mut self, outputs: &[Value], pass: fn(&mut Graph) -> Result<usize>) -> Graph {
        for (i, &output) in outputs.iter().enumerate() {
            self.graph.output(&format!("output_{i}"), output);
        }
        let mut after = self.graph.clone();
        pass(&mut after).unwrap();
        after.prune();
        let shapes: Vec<Shape> = after.outputs.iter().map(|port| after.shape(port.value).clone()).collect();
        after.refresh().unwrap();
        for (port, shape) in after.outputs.iter().zip(shapes) {
            assert_eq!(*after.shape(port.value), shape, "the shape of {} is not up to date", port.name);
        }
        for size in [1, 3] {
            assert_same(&evaluate(&self.graph, size), &evaluate(&after, size));
        }
        after
    }

    /// The operators that are left after a pass, which must not change the results.
    pub fn ops(self, outputs: &[Value], pass: fn(&mut Graph) -> Result<usize>) -> Vec<String> {
        ops(&self.check(outputs, pass))
    }
}

/// The names of all operators but inputs and constants, producers first.
pub fn ops(graph: &Graph) -> Vec<String> {
    let inner = |id: &NodeId| !matches!(graph.op(*id), Op::Input(_) | Op::Constant(_));
    graph.order().unwrap().into_iter().filter(inner).map(|id| graph.op(id).name()).collect()
}

/// The only node of an operator.
pub fn the(graph: &Graph, op: &str) -> NodeId {
    let found: Vec<NodeId> = graph.ids().into_iter().filter(|&id| graph.op(id).name() == op).collect();
    assert_eq!(found.len(), 1, "{:?}", ops(graph));
    found[0]
}

/// A shape with a free batch.
pub fn batch(sizes: &[usize]) -> Shape {
    [Dim::symbol("N")].into_iter().chain(sizes.iter().copied().map(Dim::Known)).collect()
}

/// Elements from -3 to 3.
fn random(seed: &mut u64, sizes: &[usize]) -> Vec<f64> {
    let mut next = || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from((*seed >> 33) as u32) / f64::from(1u32 << 31) * 6.0 - 3.0
    };
    (0..sizes.iter().product()).map(|_| next()).collect()
}

/// The outputs on pseudo-random inputs, which are the same for every graph with these inputs.
fn evaluate(graph: &Graph, batch: usize) -> Vec<Array> {
    let input = |port: &crate::Port| {
        let info = graph.info(port.value);
        let sizes: Vec<usize> = info.shape.iter().map(|dim| dim.known().unwrap_or(batch)).collect();
        Array::from_f64(info.dtype, &sizes, random(&mut 7, &sizes)).unwrap()
    };
    let inputs: Vec<Array> = graph.inputs.iter().map(input).collect();
    eval::evaluate(graph, &inputs).unwrap_or_else(|error| panic!("{error}"))
}

fn assert_same(before: &[Array], after: &[Array]) {
    assert_eq!(before.len(), after.len());
    for (a, b) in before.iter().zip(after) {
        assert_eq!(a.shape(), b.shape());
        let (a, b) = (a.to_f64(), b.to_f64());
        let largest = a.iter().fold(0.0f64, |max, x| max.max(x.abs()));
        assert!(largest.is_finite() && largest > 0.0, "a test that compares nothing: {a:?}");
        for (x, y) in a.iter().zip(&b) {
            assert!((x - y).abs() <= 2e-6 * largest, "{x} became {y}");
        }
    }
}
