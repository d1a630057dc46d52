//! The forms in which TensorFlow and Keras write cells.

use super::super::testing::{Net, the};
use super::run;
use crate::graph::Value;
use crate::op::{Binary, Cell, Concat, Dense, Dropout, Fill, Op, Pack, Select, Split, Unary, Unpack, Unsqueeze};
use crate::shape::{Dim, Shape};
use crate::tensor::{DType, Tensor};

fn zeros(net: &mut Net, x: Value, hidden: usize) -> Value {
    let shape: Shape = [Dim::symbol("N"), Dim::Known(hidden)].into_iter().collect();
    net.op(Fill { shape, value: 0.0, dtype: crate::tensor::DType::Float32 }, &[x])
}

/// `BasicLSTMCell` of TensorFlow 1.
fn lstm(net: &mut Net, xs: &[Value], kernel: Value, bias: Value, start: (Value, Value)) -> Vec<Value> {
    let (mut h, mut c) = start;
    let mut hs = Vec::new();
    for &x in xs {
        let both = net.op(Concat { axis: 1 }, &[x, h]);
        let gates = net.op(Dense {}, &[both, kernel, bias]);
        let gates = net.op(Split { axis: 1, sizes: vec![4; 4] }, &[gates]);
        let [i, g, f, o] = [0, 1, 2, 3].map(|output| Value { node: gates.node, output });
        let f = net.plus(1.0, f);
        let [i, f, o] = [i, f, o].map(|gate| net.un(Unary::Sigmoid, gate));
        let g = net.un(Unary::Tanh, g);
        let (kept, new) = (net.mul(c, f), net.mul(i, g));
        c = net.add(kept, new);
        let squashed = net.un(Unary::Tanh, c);
        h = net.mul(squashed, o);
        hs.push(h);
    }
    hs.push(c);
    hs
}

fn parts(net: &mut Net, x: Value, axis: usize, count: usize) -> Vec<Value> {
    let node = net.op(Unpack { axis, count }, &[x]).node;
    (0..count).map(|output| Value { node, output }).collect()
}

#[test]
fn an_lstm_of_tensorflow() {
    for backwards in [false, true] {
        let mut net = Net::new();
        let x = net.x(&[5, 3]);
        let mut xs = parts(&mut net, x, 1, 5);
        if backwards {
            xs.reverse();
        }
        let (kernel, bias) = (net.weight("kernel", &[7, 16]), net.weight("bias", &[16]));
        let zero = zeros(&mut net, x, 4);
        let made = lstm(&mut net, &xs, kernel, bias, (zero, zero));
        let all = net.op(Pack { axis: 0 }, &made[..5]);
        let graph = net.check(&[all, made[4], made[5], made[1]], run);
        let Op::Recurrent(op) = graph.op(the(&graph, "Recurrent")) else { panic!() };
        assert_eq!((op.hidden, op.batch_first, op.initial), (4, true, false));
    }
}

#[test]
fn layers_on_each_other_and_given_states() {
    let mut net = Net::new();
    let x = net.x(&[4, 4]);
    let xs = parts(&mut net, x, 1, 4);
    let start = net.un(Unary::Relu, xs[0]);
    let (kernel, bias) = (net.weight("kernel", &[8, 16]), net.weight("bias", &[16]));
    let first = lstm(&mut net, &xs, kernel, bias, (start, start));
    let (kernel, bias) = (net.weight("kernel2", &[8, 16]), net.weight("bias2", &[16]));
    let zero = zeros(&mut net, x, 4);
    let second = lstm(&mut net, &first[..4], kernel, bias, (zero, zero));
    let ops = net.ops(&[second[3]], run);
    assert_eq!(ops.iter().filter(|op| *op == "Recurrent").count(), 2, "{ops:?}");
    assert!(!ops.iter().any(|op| op == "Dense" || op == "Pack"), "{ops:?}");
}

/// `DropoutWrapper` around the cells of two layers.
#[test]
fn dropout_of_all_steps_is_that_of_the_sequence() {
    let mut net = Net::new();
    let x = net.x(&[3, 4]);
    let mut steps = parts(&mut net, x, 1, 3);
    for layer in 0..2 {
        let [kernel, bias] = [("kernel", &[8, 16][..]), ("bias", &[16])].map(|(part, shape)| {
            let name = format!("{part}_{layer}");
            net.weight(&name, shape)
        });
        let zero = zeros(&mut net, x, 4);
        steps = lstm(&mut net, &steps, kernel, bias, (zero, zero));
        steps.truncate(3);
        steps = steps.into_iter().map(|h| net.op(Dropout { rate: 0.5 }, &[h])).collect();
    }
    let all = net.op(Pack { axis: 1 }, &steps);
    let ops = net.ops(&[all], run);
    assert_eq!(ops.iter().filter(|op| *op == "Dropout").count(), 2, "{ops:?}");
    assert!(!ops.iter().any(|op| op == "Pack" || op == "Dense"), "{ops:?}");
}

#[test]
fn a_gru_of_keras() {
    let mut net = Net::new();
    let x = net.x(&[3, 2]);
    let xs = parts(&mut net, x, 1, 3);
    let (input, state) = (net.weight("w", &[2, 12]), net.weight("u", &[4, 12]));
    let (input_bias, state_bias) = (net.weight("b", &[12]), net.weight("c", &[12]));
    let mut h = zeros(&mut net, x, 4);
    let mut hs = Vec::new();
    for x in xs {
        let sums = [(x, input, input_bias), (h, state, state_bias)].map(|(x, w, b)| {
            let sum = net.op(Dense {}, &[x, w, b]);
            net.op(Split { axis: 1, sizes: vec![4; 3] }, &[sum]).node
        });
        let part = |i: usize, output| Value { node: sums[i], output };
        let [z, r] = [0, 1].map(|output| {
            let sum = net.add(part(0, output), part(1, output));
            net.un(Unary::Sigmoid, sum)
        });
        let gated = net.mul(r, part(1, 2));
        let new = net.add(part(0, 2), gated);
        let new = net.un(Unary::Tanh, new);
        let one = net.num(1.0);
        let (kept, rest) = (net.mul(z, h), net.sub(one, z));
        let new = net.mul(rest, new);
        h = net.add(kept, new);
        hs.push(h);
    }
    let all = net.op(Pack { axis: 1 }, &hs);
    let graph = net.check(&[all], run);
    let Op::Recurrent(op) = graph.op(the(&graph, "Recurrent")) else { panic!() };
    assert_eq!((op.cell, op.hidden, op.bias), (Cell::Gru, 4, true));
}

/// `GRUCell` of TensorFlow 1.
#[test]
fn a_gru_whose_reset_comes_first() {
    let mut net = Net::new();
    let x = net.x(&[3, 2]);
    let [gates, gates_bias] = [net.weight("gates", &[6, 8]), net.weight("gates_bias", &[8])];
    let [new, new_bias] = [net.weight("new", &[6, 4]), net.weight("new_bias", &[4])];
    let mut h = zeros(&mut net, x, 4);
    let mut hs = Vec::new();
    for x in parts(&mut net, x, 1, 3) {
        let both = net.op(Concat { axis: 1 }, &[x, h]);
        let sum = net.op(Dense {}, &[both, gates, gates_bias]);
        let squashed = net.un(Unary::Sigmoid, sum);
        let node = net.op(Split { axis: 1, sizes: vec![4; 2] }, &[squashed]).node;
        let [r, z] = [0, 1].map(|output| Value { node, output });
        let reset = net.mul(r, h);
        let both = net.op(Concat { axis: 1 }, &[x, reset]);
        let sum = net.op(Dense {}, &[both, new, new_bias]);
        let candidate = net.un(Unary::Tanh, sum);
        let one = net.num(1.0);
        let (kept, rest) = (net.mul(z, h), net.sub(one, z));
        let added = net.mul(rest, candidate);
        h = net.add(kept, added);
        hs.push(h);
    }
    let all = net.op(Pack { axis: 1 }, &hs);
    let graph = net.check(&[all], run);
    let Op::Recurrent(op) = graph.op(the(&graph, "Recurrent")) else { panic!() };
    assert_eq!((op.cell, op.hidden, op.bias), (Cell::GruResetBefore, 4, true));
}

/// Two layers, whose second is given what the first computes, as `MultiRNNCell` has them; with `sequence_length`.
/// Gives the outputs, packed, and the last states.
fn lengths(net: &mut Net, ends: [&[usize]; 2]) -> (Value, [Value; 2], Vec<Value>) {
    let shape: Shape = [Dim::symbol("N")].into_iter().collect();
    // The inputs of the tests are 0, 2, 2: these sequences have two steps, or none.
    let [given, two] = [
        net.graph.input("given", DType::Int32, shape).unwrap(),
        net.graph.constant("two", Tensor::from_f64(DType::Int32, &[], [2.0])),
    ];
    let lengths = net.sub(two, given);
    let x = net.x(&[3, 4]);
    let mut steps = parts(net, x, 1, 3);
    let mut last = Vec::new();
    for (layer, ends) in ends.into_iter().enumerate() {
        let [kernel, bias] = [("kernel", &[8, 16][..]), ("bias", &[16])].map(|(part, shape)| {
            let name = format!("{part}_{layer}");
            net.weight(&name, shape)
        });
        let zero = zeros(net, x, 4);
        let (mut h, mut c) = (zero, zero);
        for (x, end) in steps.iter_mut().zip(ends) {
            let made = lstm(net, &[*x], kernel, bias, (h, c));
            let end = net.graph.constant("t", Tensor::from_f64(DType::Int32, &[], [*end as f64]));
            let ended = net.op(Binary::GreaterEqual, &[end, lengths]);
            let ended = net.op(Unsqueeze { axes: vec![1] }, &[ended]);
            (h, c) = (net.op(Select {}, &[ended, h, made[0]]), net.op(Select {}, &[ended, c, made[1]]));
            *x = made[0];
        }
        last.push(h);
    }
    let zero = zeros(net, x, 4);
    let outputs: Vec<Value> = steps
        .iter()
        .zip(ends[1])
        .map(|(step, end)| {
            let end = net.graph.constant("t", Tensor::from_f64(DType::Int32, &[], [*end as f64]));
            let ended = net.op(Binary::GreaterEqual, &[end, lengths]);
            let ended = net.op(Unsqueeze { axes: vec![1] }, &[ended]);
            net.op(Select {}, &[ended, zero, *step])
        })
        .collect();
    let packed = net.op(Pack { axis: 0 }, &outputs);
    (packed, [last[0], last[1]], steps)
}

#[test]
fn sequences_that_end_before_the_last_step() {
    for states in [false, true] {
        let mut net = Net::new();
        let (packed, [first, second], _) = lengths(&mut net, [&[0, 1, 2]; 2]);
        let outputs = if states { vec![packed, first, second] } else { vec![packed] };
        let ops = net.ops(&outputs, run);
        assert_eq!(ops.iter().filter(|op| *op == "Recurrent").count(), 2, "{ops:?}");
        assert!(!ops.iter().any(|op| op == "Dense" || op == "Pack"), "{ops:?}");
    }
}

#[test]
fn what_is_computed_behind_an_end_counts_where_it_is_read() {
    // What a step computes is read without a mask; steps that end at other places.
    let mut net = Net::new();
    let (packed, _, steps) = lengths(&mut net, [&[0, 1, 2]; 2]);
    let ops = net.ops(&[packed, steps[1]], run);
    assert!(ops.iter().filter(|op| *op == "Recurrent").count() < 2, "{ops:?}");
    let mut net = Net::new();
    let (packed, ..) = lengths(&mut net, [&[0, 2, 1]; 2]);
    let ops = net.ops(&[packed], run);
    assert!(!ops.contains(&"Recurrent".to_owned()), "{ops:?}");
}

#[test]
fn a_plain_cell_with_matrices_of_its_own() {
    let mut net = Net::new();
    let x = net.x(&[3, 2]);
    let xs = parts(&mut net, x, 1, 3);
    let (input, state, bias) = (net.weight("w", &[2, 4]), net.weight("u", &[4, 4]), net.weight("b", &[4]));
    let mut h = zeros(&mut net, x, 4);
    for x in xs {
        let (a, b) = (net.op(Dense {}, &[x, input]), net.op(Dense {}, &[h, state]));
        let sum = net.add(a, b);
        let sum = net.add(sum, bias);
        h = net.un(Unary::Tanh, sum);
    }
    let graph = net.check(&[h], run);
    let Op::Recurrent(op) = graph.op(the(&graph, "Recurrent")) else { panic!() };
    assert_eq!((op.cell, op.hidden, op.bias), (Cell::Tanh, 4, true));
}

#[test]
fn near_misses_stay() {
    // Other weights in one step; a cell state that something else reads.
    for other in [true, false] {
        let mut net = Net::new();
        let x = net.x(&[2, 3]);
        let xs = parts(&mut net, x, 1, 2);
        let (kernel, bias) = (net.weight("kernel", &[7, 16]), net.weight("bias", &[16]));
        let second = if other { net.weight("kernel2", &[7, 16]) } else { kernel };
        let zero = zeros(&mut net, x, 4);
        let first = lstm(&mut net, &xs[..1], kernel, bias, (zero, zero));
        let last = lstm(&mut net, &xs[1..], second, bias, (first[0], first[1]));
        let outputs = if other { vec![last[0]] } else { vec![last[0], first[1]] };
        let ops = net.ops(&outputs, run);
        assert!(!ops.contains(&"Recurrent".to_owned()), "{ops:?}");
    }
}
