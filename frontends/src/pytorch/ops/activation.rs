//! Functions of one element, and softmax.

use modelport_ir::op::Unary;
use modelport_ir::{DType, Layout, Result, Value, op};

use super::{Call, Entry, op};
use crate::pytorch::arg::Arg;

macro_rules! unary {
    ($($name:literal => $unary:ident,)*) => {
        &[$(op($name, "self", |call| {
            let x = real(call, "self")?;
            Ok(call.add(Unary::$unary, &[x])?.into())
        }),)*]
    };
}

/// Functions without parameters, whose result is real.
pub const UNARY: &[Entry] = unary! {
    "relu6" => Relu6,
    "sigmoid" => Sigmoid,
    "tanh" => Tanh,
    "selu" => Selu,
    "silu" => Silu,
    "mish" => Mish,
    "hardsigmoid" => HardSigmoid,
    "hardswish" => HardSwish,
    "softsign" => Softsign,
    "exp" => Exp,
    "expm1" => Expm1,
    "log" => Log,
    "log1p" => Log1p,
    "sqrt" => Sqrt,
    "rsqrt" => Rsqrt,
    "reciprocal" => Reciprocal,
    "sin" => Sin,
    "cos" => Cos,
    "tan" => Tan,
    "asin" => Asin,
    "arcsin" => Asin,
    "acos" => Acos,
    "arccos" => Acos,
    "atan" => Atan,
    "arctan" => Atan,
    "sinh" => Sinh,
    "cosh" => Cosh,
    "asinh" => Asinh,
    "acosh" => Acosh,
    "atanh" => Atanh,
    "erf" => Erf,
};

macro_rules! same_type {
    ($($name:literal => $unary:ident,)*) => {
        &[$(op($name, "self", |call| {
            let x = call.value("self")?;
            Ok(call.add(Unary::$unary, &[x])?.into())
        }),)*]
    };
}

/// Functions without parameters that keep the element type.
pub const SAME_TYPE: &[Entry] = same_type! {
    "relu" => Relu,
    "square" => Square,
    "neg" => Neg,
    "negative" => Neg,
    "abs" => Abs,
    "sign" => Sign,
    "sgn" => Sign,
    "floor" => Floor,
    "ceil" => Ceil,
    "bitwise_not" => Not,
    "isnan" => IsNan,
    "isinf" => IsInf,
    "isfinite" => IsFinite,
};

pub const OPS: &[Entry] = &[
    op("leaky_relu", "self negative_slope=0.01", |call| {
        let alpha = call.float("negative_slope")? as f32;
        simple(call, op::LeakyRelu { alpha })
    }),
    op("rrelu", "self lower=0.125 upper=0.3333333333333333 training=False generator=None", |call| {
        let alpha = (call.float("lower")? + call.float("upper")?) as f32 / 2.0;
        simple(call, op::LeakyRelu { alpha })
    }),
    op("elu", "self alpha=1.0 scale=1.0 input_scale=1.0", elu),
    op("celu", "self alpha=1.0", celu),
    op("gelu", "self approximate=none", |call| {
        let approximate = call.text("approximate")? == "tanh";
        simple(call, op::Gelu { approximate })
    }),
    op("hardtanh", "self min_val=-1.0 max_val=1.0", |call| {
        let (min, max) = (call.float("min_val")? as f32, call.float("max_val")? as f32);
        match (min, max) {
            (0.0, 6.0) => simple(call, Unary::Relu6),
            _ => simple(call, op::Clip { min: Some(min), max: Some(max) }),
        }
    }),
    op("softplus", "self beta=1.0 threshold=20.0", softplus),
    op("softmax", "self dim dtype=None", |call| softmax(call, false)),
    op("_softmax", "self dim half_to_float=False", |call| softmax(call, false)),
    op("log_softmax", "self dim dtype=None", |call| softmax(call, true)),
    op("_log_softmax", "self dim half_to_float=False", |call| softmax(call, true)),
    op("softmin", "self dim dtype=None", |call| {
        let x = real(call, "self")?;
        let negative = call.add(Unary::Neg, &[x])?;
        let dim = call.arg("dim");
        call.call("softmax", &[negative.into(), dim])
    }),
    op("prelu", "self weight", prelu),
    op("_prelu_kernel", "self weight", prelu),
    op("log_sigmoid", "self", log_sigmoid),
    op("logsigmoid", "self", log_sigmoid),
    op("log_sigmoid_forward", "self", |call| Ok(vec![log_sigmoid(call)?, Arg::None].into())),
    op("hardshrink", "self lambd=0.5", hard_shrink),
    op("softshrink", "self lambd=0.5", soft_shrink),
    op("tanhshrink", "self", |call| {
        let x = call.value("self")?;
        let tanh = call.add(Unary::Tanh, &[x])?;
        Ok(call.add(op::Binary::Sub, &[x, tanh])?.into())
    }),
    op("threshold", "self threshold value", threshold),
    op("glu", "self dim=-1", glu),
    op("logit", "self eps=None", logit),
    op("erfc", "self", |call| {
        let x = real(call, "self")?;
        let erf = call.add(Unary::Erf, &[x])?;
        let one = call.scalar(DType::Float32, 1.0);
        Ok(call.add(op::Binary::Sub, &[one, erf])?.into())
    }),
    op("exp2", "self", |call| {
        let x = real(call, "self")?;
        let two = call.scalar(DType::Float32, 2.0);
        Ok(call.add(op::Binary::Pow, &[two, x])?.into())
    }),
    op("log2", "self", |call| logarithm(call, std::f64::consts::LN_2)),
    op("log10", "self", |call| logarithm(call, std::f64::consts::LN_10)),
    op("frac", "self", |call| {
        let x = call.value("self")?;
        let whole = call.call("trunc", &[x.into()])?;
        let whole = call.lower.value(&whole)?;
        Ok(call.add(op::Binary::Sub, &[x, whole])?.into())
    }),
    op("trunc", "self", |call| {
        let x = call.value("self")?;
        let sign = call.add(Unary::Sign, &[x])?;
        let size = call.add(Unary::Abs, &[x])?;
        let floor = call.add(Unary::Floor, &[size])?;
        Ok(call.add(op::Binary::Mul, &[sign, floor])?.into())
    }),
    op("round", "self decimals=0", |call| match call.int("decimals")? {
        0 => simple(call, Unary::Round),
        decimals => {
            let factor = Arg::Float(10f64.powi(i32::try_from(decimals).unwrap_or(i32::MAX)));
            let x = call.call("mul", &[call.arg("self"), factor.clone()])?;
            let x = call.call("round", &[x])?;
            call.call("div", &[x, factor])
        }
    }),
    op("logical_not", "self", |call| {
        let x = call.value("self")?;
        let truth = call.cast(x, DType::Bool)?;
        Ok(call.add(Unary::Not, &[truth])?.into())
    }),
];

/// A tensor of real numbers: whole ones are converted.
pub fn real(call: &mut Call, name: &str) -> Result<Value> {
    let x = call.value(name)?;
    match call.lower.graph.info(x).dtype.is_float() {
        true => Ok(x),
        false => call.cast(x, DType::Float32),
    }
}

fn simple(call: &mut Call, op: impl Into<op::Op>) -> Result<Arg> {
    let x = call.value("self")?;
    Ok(call.add(op, &[x])?.into())
}

fn elu(call: &mut Call) -> Result<Arg> {
    let (alpha, scale, input) = (call.float("alpha")?, call.float("scale")?, call.float("input_scale")?);
    if input != 1.0 {
        return Err(call.fail(format!("ELU with an input scale of {input} is not translated")));
    }
    if scale == 1.0 {
        return simple(call, op::Elu { alpha: alpha as f32 });
    }
    // SELU's own numbers (Klambauer et al. 2017).
    if (alpha - 1.673_263_242_354_377_2).abs() < 1e-6 && (scale - 1.050_700_987_355_480_5).abs() < 1e-6 {
        return simple(call, Unary::Selu);
    }
    let x = call.value("self")?;
    let y = call.add(op::Elu { alpha: alpha as f32 }, &[x])?;
    let scale = call.scalar(DType::Float32, scale);
    Ok(call.add(op::Binary::Mul, &[y, scale])?.into())
}

/// `alpha * elu(x / alpha)`
fn celu(call: &mut Call) -> Result<Arg> {
    let x = call.value("self")?;
    let alpha = call.float("alpha")?;
    if alpha == 1.0 {
        return simple(call, op::Elu { alpha: 1.0 });
    }
    let number = call.scalar(DType::Float32, alpha);
    let part = call.add(op::Binary::Div, &[x, number])?;
    let exp = call.add(op::Elu { alpha: 1.0 }, &[part])?;
    Ok(call.add(op::Binary::Mul, &[exp, number])?.into())
}

fn softplus(call: &mut Call) -> Result<Arg> {
    let x = call.value("self")?;
    let beta = call.float("beta")?;
    // Beyond the threshold PyTorch gives x itself, which a float32 can't tell from softplus from 20 on.
    let threshold = call.float("threshold")?;
    let (mut scaled, mut soft);
    if beta == 1.0 {
        (scaled, soft) = (x, call.add(Unary::Softplus, &[x])?);
    } else {
        let number = call.scalar(DType::Float32, beta);
        scaled = call.add(op::Binary::Mul, &[x, number])?;
        soft = call.add(Unary::Softplus, &[scaled])?;
        soft = call.add(op::Binary::Div, &[soft, number])?;
    }
    if threshold < 15.0 {
        let limit = call.scalar(DType::Float32, threshold);
        scaled = call.add(op::Binary::Greater, &[scaled, limit])?;
        soft = call.add(op::Select {}, &[scaled, x, soft])?;
    }
    Ok(soft.into())
}

fn softmax(call: &mut Call, logarithm: bool) -> Result<Arg> {
    let x = real(call, "self")?;
    let axis = call.axis("dim", call.lower.graph.shape(x).rank())?;
    let y = if logarithm { call.add(op::LogSoftmax { axis }, &[x])? } else { call.add(op::Softmax { axis }, &[x])? };
    Ok(y.into())
}

fn prelu(call: &mut Call) -> Result<Arg> {
    let x = call.value("self")?;
    let mut slope = call.arg("weight");
    // `_prelu_kernel` gets the slope with the axes of the input.
    if let Arg::Weight(weight) = &mut slope {
        let count = weight.tensor.numel();
        weight.tensor = weight.tensor.reshaped(&[count]).map_err(|message| call.fail(message))?;
    }
    let slope = call.lower.value(&slope)?;
    Ok(call.add(op::PRelu { layout: Layout::ChannelsFirst }, &[x, slope])?.into())
}

/// `-softplus(-x)`
fn log_sigmoid(call: &mut Call) -> Result<Arg> {
    let x = call.value("self")?;
    let negative = call.add(Unary::Neg, &[x])?;
    let soft = call.add(Unary::Softplus, &[negative])?;
    Ok(call.add(Unary::Neg, &[soft])?.into())
}

fn hard_shrink(call: &mut Call) -> Result<Arg> {
    let x = call.value("self")?;
    let limit = call.float("lambd")?;
    let size = call.add(Unary::Abs, &[x])?;
    let limit = call.scalar(DType::Float32, limit);
    let beyond = call.add(op::Binary::Greater, &[size, limit])?;
    let zero = call.scalar(DType::Float32, 0.0);
    Ok(call.add(op::Select {}, &[beyond, x, zero])?.into())
}

/// `x - clamp(x, -limit, limit)`
fn soft_shrink(call: &mut Call) -> Result<Arg> {
    let x = call.value("self")?;
    let limit = call.float("lambd")? as f32;
    let inside = call.add(op::Clip { min: Some(-limit), max: Some(limit) }, &[x])?;
    Ok(call.add(op::Binary::Sub, &[x, inside])?.into())
}

fn threshold(call: &mut Call) -> Result<Arg> {
    let x = call.value("self")?;
    let (limit, value) = (call.float("threshold")?, call.float("value")?);
    if (limit, value) == (0.0, 0.0) {
        return simple(call, Unary::Relu);
    }
    let limit = call.scalar(DType::Float32, limit);
    let beyond = call.add(op::Binary::Greater, &[x, limit])?;
    let value = call.scalar(DType::Float32, value);
    Ok(call.add(op::Select {}, &[beyond, x, value])?.into())
}

/// The first half, gated by the second.
fn glu(call: &mut Call) -> Result<Arg> {
    let x = call.value("self")?;
    let shape = call.lower.graph.shape(x).clone();
    let axis = call.axis("dim", shape.rank())?;
    let size = call.known(&shape, axis, "the size of the axis to halve")?;
    let halves = call.add(op::Split { axis, sizes: vec![size / 2; 2] }, &[x])?;
    let gate = call.add(Unary::Sigmoid, &[Value { node: halves.node, output: 1 }])?;
    Ok(call.add(op::Binary::Mul, &[halves, gate])?.into())
}

/// `log(x / (1 - x))`
fn logit(call: &mut Call) -> Result<Arg> {
    let mut x = real(call, "self")?;
    if call.has("eps") {
        let eps = call.float("eps")? as f32;
        x = call.add(op::Clip { min: Some(eps), max: Some(1.0 - eps) }, &[x])?;
    }
    let one = call.scalar(DType::Float32, 1.0);
    let rest = call.add(op::Binary::Sub, &[one, x])?;
    let odds = call.add(op::Binary::Div, &[x, rest])?;
    Ok(call.add(Unary::Log, &[odds])?.into())
}

fn logarithm(call: &mut Call, base: f64) -> Result<Arg> {
    let x = real(call, "self")?;
    let log = call.add(Unary::Log, &[x])?;
    let base = call.scalar(DType::Float32, base);
    Ok(call.add(op::Binary::Div, &[log, base])?.into())
}
