//! Every activation in every form that it is written in, and what only looks like one.

use super::*;
use crate::op::Select;
use crate::pass::testing::{Net, the};

/// Builds an expression of a value.
type Form = fn(&mut Net, Value) -> Value;

/// What is left of an expression of `x [N, 4, 3]`.
fn left(build: impl Fn(&mut Net, Value) -> Value) -> Vec<String> {
    let mut net = Net::new();
    let x = net.x(&[4, 3]);
    let y = build(&mut net, x);
    net.ops(&[y], run)
}

fn erf_gate(net: &mut Net, x: Value, divide: bool) -> Value {
    let root = net.num(std::f32::consts::SQRT_2);
    let z = if divide { net.div(x, root) } else { net.times(std::f32::consts::FRAC_1_SQRT_2, x) };
    let erf = net.un(Unary::Erf, z);
    net.plus(1.0, erf)
}

fn cubic(net: &mut Net, x: Value, power: bool) -> Value {
    let cube = if power {
        let three = net.num(3.0);
        net.bin(Binary::Pow, x, three)
    } else {
        let square = net.un(Unary::Square, x);
        net.mul(square, x)
    };
    let cube = net.times(0.044715, cube);
    let sum = net.add(x, cube);
    net.times(0.797_884_6, sum)
}

#[test]
fn gelu_in_every_association() {
    for order in 0..4 {
        for divide in [true, false] {
            let ops = left(|net, x| {
                let gate = erf_gate(net, x, divide);
                match order {
                    0 => {
                        let half = net.times(0.5, x);
                        net.mul(half, gate)
                    }
                    1 => {
                        let half = net.times(0.5, gate);
                        net.mul(x, half)
                    }
                    2 => {
                        let product = net.mul(gate, x);
                        net.times(0.5, product)
                    }
                    _ => {
                        let two = net.num(2.0);
                        let product = net.mul(gate, x);
                        net.div(product, two)
                    }
                }
            });
            assert_eq!(ops, ["Gelu"]);
        }
    }
}

#[test]
fn gelu_by_tanh() {
    for power in [true, false] {
        let ops = left(|net, x| {
            let z = cubic(net, x, power);
            let tanh = net.un(Unary::Tanh, z);
            let gate = net.plus(1.0, tanh);
            let half = net.times(0.5, gate);
            net.mul(x, half)
        });
        assert_eq!(ops, ["Gelu"]);
    }
    // The same with a sigmoid, and with x taken out of the brackets.
    let ops = left(|net, x| {
        let z = cubic(net, x, true);
        let double = net.times(2.0, z);
        let gate = net.un(Unary::Sigmoid, double);
        net.mul(gate, x)
    });
    assert_eq!(ops, ["Gelu"]);
    let ops = left(|net, x| {
        let square = net.mul(x, x);
        let square = net.times(0.044715, square);
        let bracket = net.plus(1.0, square);
        let scaled = net.times(0.797_884_6, x);
        let z = net.mul(scaled, bracket);
        let tanh = net.un(Unary::Tanh, z);
        let gate = net.plus(1.0, tanh);
        let product = net.mul(gate, x);
        net.times(0.5, product)
    });
    assert_eq!(ops, ["Gelu"]);
}

#[test]
fn of_a_product_or_a_sum() {
    // The argument is arithmetic itself.
    let ops = left(|net, x| {
        let w = net.weight("w", &[3]);
        let scaled = net.mul(x, w);
        let x = net.add(scaled, x);
        let gate = net.un(Unary::Sigmoid, x);
        net.mul(x, gate)
    });
    assert_eq!(ops, ["Mul", "Add", "Silu"]);
}

#[test]
fn gates() {
    let ops = left(|net, x| {
        let powers = net.un(Unary::Exp, x);
        let sum = net.plus(1.0, powers);
        let soft = net.un(Unary::Log, sum);
        let gate = net.un(Unary::Tanh, soft);
        net.mul(gate, x)
    });
    assert_eq!(ops, ["Mish"]);
    let ops = left(|net, x| {
        let negative = net.un(Unary::Neg, x);
        let powers = net.un(Unary::Exp, negative);
        let sum = net.plus(1.0, powers);
        let one = net.num(1.0);
        let gate = net.div(one, sum);
        net.mul(x, gate)
    });
    assert_eq!(ops, ["Silu"]);
    let ops = left(|net, x| {
        let size = net.un(Unary::Abs, x);
        let sum = net.plus(1.0, size);
        net.div(x, sum)
    });
    assert_eq!(ops, ["Softsign"]);
}

#[test]
fn hard_forms() {
    for swish in [true, false] {
        for divide in [true, false] {
            let ops = left(|net, x| {
                let moved = net.plus(3.0, x);
                let zero = net.num(0.0);
                let relu = net.bin(Binary::Maximum, zero, moved);
                let six = net.num(6.0);
                let gate = net.bin(Binary::Minimum, relu, six);
                let y = if swish { net.mul(x, gate) } else { gate };
                if divide { net.div(y, six) } else { net.times(1.0 / 6.0, y) }
            });
            assert_eq!(ops, [if swish { "HardSwish" } else { "HardSigmoid" }]);
        }
    }
}

#[test]
fn leaky_relu() {
    let forms: [Form; 5] = [
        |net, x| {
            let scaled = net.times(0.2, x);
            net.bin(Binary::Maximum, x, scaled)
        },
        |net, x| {
            let scaled = net.times(0.2, x);
            net.bin(Binary::Maximum, scaled, x)
        },
        |net, x| {
            let size = net.un(Unary::Abs, x);
            let (a, b) = (net.times(0.6, x), net.times(0.4, size));
            net.add(a, b)
        },
        |net, x| {
            let zero = net.num(0.0);
            let positive = net.bin(Binary::Greater, x, zero);
            let scaled = net.times(0.2, x);
            net.op(Select {}, &[positive, x, scaled])
        },
        |net, x| {
            let zero = net.num(0.0);
            let negative = net.bin(Binary::Less, x, zero);
            let scaled = net.times(0.2, x);
            net.op(Select {}, &[negative, scaled, x])
        },
    ];
    for form in forms {
        let mut net = Net::new();
        let x = net.x(&[4, 3]);
        let y = form(&mut net, x);
        let graph = net.check(&[y], run);
        assert!(matches!(graph.op(the(&graph, "LeakyRelu")), Op::LeakyRelu(LeakyRelu { alpha: 0.2 })));
    }
}

#[test]
fn prelu_in_all_forms() {
    let forms: [fn(&mut Net, Value, Value) -> Value; 5] = [
        |net, x, alpha| {
            let negative = net.un(Unary::Neg, x);
            let negative = net.un(Unary::Relu, negative);
            let negative = net.mul(alpha, negative);
            let positive = net.un(Unary::Relu, x);
            net.sub(positive, negative)
        },
        |net, x, alpha| {
            let size = net.un(Unary::Abs, x);
            let difference = net.sub(x, size);
            let scaled = net.mul(alpha, difference);
            let scaled = net.times(0.5, scaled);
            let positive = net.un(Unary::Relu, x);
            net.add(scaled, positive)
        },
        |net, x, alpha| {
            let zero = net.num(0.0);
            let negative = net.bin(Binary::Minimum, x, zero);
            let negative = net.mul(alpha, negative);
            let positive = net.bin(Binary::Maximum, zero, x);
            net.add(positive, negative)
        },
        |net, x, alpha| {
            let zero = net.num(0.0);
            let positive = net.bin(Binary::GreaterEqual, x, zero);
            let scaled = net.mul(alpha, x);
            net.op(Select {}, &[positive, x, scaled])
        },
        |net, x, alpha| {
            let negative = net.un(Unary::Neg, x);
            let negative = net.un(Unary::Relu, negative);
            let minus = net.un(Unary::Neg, alpha);
            let negative = net.mul(minus, negative);
            let positive = net.un(Unary::Relu, x);
            net.add(positive, negative)
        },
    ];
    for form in forms {
        for (sizes, layout) in [(&[3][..], "ChannelsLast"), (&[1, 1, 3], "ChannelsLast"), (&[3, 1, 1], "ChannelsFirst")]
        {
            let mut net = Net::new();
            let x = net.x(&[3, 3, 3]);
            let alpha = net.weight("alpha", sizes);
            let y = form(&mut net, x, alpha);
            let graph = net.check(&[y], run);
            let Op::PRelu(op) = graph.op(the(&graph, "PRelu")) else { panic!() };
            assert_eq!(format!("{:?}", op.layout), layout);
        }
    }
}

#[test]
fn limits_of_both_sides() {
    let ops = left(|net, x| {
        let (low, high) = (net.num(-1.0), net.num(1.5));
        let y = net.bin(Binary::Minimum, x, high);
        net.bin(Binary::Maximum, y, low)
    });
    assert_eq!(ops, ["Clip"]);
    // Limits that cross are no range.
    let ops = left(|net, x| {
        let (low, high) = (net.num(1.0), net.num(-1.5));
        let y = net.bin(Binary::Minimum, x, high);
        net.bin(Binary::Maximum, y, low)
    });
    assert_eq!(ops, ["Clip", "Clip"]);
}

#[test]
fn elu_with_another_limit() {
    let ops = left(|net, x| {
        let zero = net.num(0.0);
        let positive = net.bin(Binary::Greater, x, zero);
        let elu = net.op(Elu { alpha: 1.0 }, &[x]);
        let scaled = net.times(0.5, elu);
        net.op(Select {}, &[positive, elu, scaled])
    });
    assert_eq!(ops, ["Elu"]);
    let ops = left(|net, x| {
        let zero = net.num(0.0);
        let positive = net.bin(Binary::Less, zero, x);
        let powers = net.un(Unary::Exp, x);
        let one = net.num(1.0);
        let less = net.sub(powers, one);
        let scaled = net.times(0.5, less);
        net.op(Select {}, &[positive, x, scaled])
    });
    assert_eq!(ops, ["Elu"]);
}

#[test]
fn near_misses_stay() {
    let untouched: [(Form, &[&str]); 7] = [
        // Slopes for which a maximum is no leaky relu.
        (
            |net, x| {
                let scaled = net.times(1.5, x);
                net.bin(Binary::Maximum, x, scaled)
            },
            &["Mul", "Maximum"],
        ),
        (
            |net, x| {
                let scaled = net.times(0.5, x);
                net.bin(Binary::Minimum, x, scaled)
            },
            &["Mul", "Minimum"],
        ),
        // The number is no multiple of the value.
        (
            |net, x| {
                let size = net.un(Unary::Abs, x);
                net.plus(1.0, size)
            },
            &["Abs", "Add"],
        ),
        // A swish with another slope.
        (
            |net, x| {
                let scaled = net.times(1.702, x);
                let gate = net.un(Unary::Sigmoid, scaled);
                net.mul(x, gate)
            },
            &["Mul", "Sigmoid", "Mul"],
        ),
        // Another number in the cubic.
        (
            |net, x| {
                let cube = net.times(0.05, x);
                let square = net.mul(x, x);
                let cube = net.mul(square, cube);
                let sum = net.add(x, cube);
                let z = net.times(0.797_884_6, sum);
                let tanh = net.un(Unary::Tanh, z);
                let gate = net.plus(1.0, tanh);
                let half = net.times(0.5, x);
                net.mul(half, gate)
            },
            &["Mul", "Mul", "Mul", "Add", "Mul", "Tanh", "Add", "Mul", "Mul"],
        ),
        // Scaled by something else than 1/6.
        (
            |net, x| {
                let moved = net.plus(3.0, x);
                let gate = net.un(Unary::Relu6, moved);
                net.times(0.2, gate)
            },
            &["Add", "Relu6", "Mul"],
        ),
        // The gate of another value.
        (
            |net, x| {
                let other = net.plus(1.0, x);
                let gate = net.un(Unary::Sigmoid, other);
                net.mul(x, gate)
            },
            &["Add", "Sigmoid", "Mul"],
        ),
    ];
    for (form, ops) in untouched {
        let mut got = left(form);
        let mut want = ops.to_vec();
        got.sort();
        want.sort_unstable();
        assert_eq!(got, want);
    }
}
