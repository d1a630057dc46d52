//! Functions of two elements, comparisons, selection, element types.

use modelport_ir::op::{Binary, Unary};
use modelport_ir::{DType, Result, Shape, Value, op};

use super::{Call, Entry, op};
use crate::pytorch::arg::Arg;
use crate::symbolic::{Arithmetic, Elem};

const TWO: &str = "self other";
const SCALED: &str = "self other alpha=1";

macro_rules! binary {
    ($($name:literal $schema:ident => $binary:ident,)*) => {
        &[$(op($name, $schema, |call| binary(call, Binary::$binary)),)*]
    };
}

/// Functions whose operands are promoted to a common type.
pub const BINARY: &[Entry] = binary! {
    "add" SCALED => Add,
    "sub" SCALED => Sub,
    "subtract" SCALED => Sub,
    "mul" TWO => Mul,
    "multiply" TWO => Mul,
    "maximum" TWO => Maximum,
    "minimum" TWO => Minimum,
    "fmax" TWO => Maximum,
    "fmin" TWO => Minimum,
    "remainder" TWO => Mod,
    "fmod" TWO => Fmod,
    "floor_divide" TWO => FloorDiv,
    "floordiv" TWO => FloorDiv,
    "eq" TWO => Equal,
    "ne" TWO => NotEqual,
    "lt" TWO => Less,
    "le" TWO => LessEqual,
    "gt" TWO => Greater,
    "ge" TWO => GreaterEqual,
    "bitwise_and" TWO => And,
    "bitwise_or" TWO => Or,
    "bitwise_xor" TWO => Xor,
    "__and__" TWO => And,
    "__or__" TWO => Or,
    "__xor__" TWO => Xor,
};

pub const OPS: &[Entry] = &[
    op("div", "self other rounding_mode=None", div),
    op("divide", "self other rounding_mode=None", div),
    op("true_divide", TWO, div),
    op("truediv", TWO, div),
    op("rsub", SCALED, rsub),
    op("pow", "self exponent", pow),
    op("atan2", TWO, |call| real_binary(call, Binary::Atan2)),
    op("arctan2", TWO, |call| real_binary(call, Binary::Atan2)),
    op("logical_and", TWO, |call| logical(call, Binary::And)),
    op("logical_or", TWO, |call| logical(call, Binary::Or)),
    op("logical_xor", TWO, |call| logical(call, Binary::Xor)),
    op("clamp", "self min=None max=None", clamp),
    op("clip", "self min=None max=None", clamp),
    op("clamp_min", "self min", clamp),
    op("clamp_max", "self max", clamp),
    op("where", "condition self other", select),
    op("masked_fill", "self mask value", masked_fill),
    op("addcmul", "self tensor1 tensor2 value=1", |call| add_combined(call, Binary::Mul)),
    op("addcdiv", "self tensor1 tensor2 value=1", |call| add_combined(call, Binary::Div)),
    op("lerp", "self end weight", lerp),
    op(
        "to",
        "self dtype=None non_blocking=None copy=None memory_format=None layout=None device=None pin_memory=None \
              other=None",
        to,
    ),
    op("_to_copy", "self dtype=None layout=None device=None pin_memory=None non_blocking=None memory_format=None", to),
    op("type_as", "self other", |call| {
        let dtype = call.dtype("other")?;
        cast(call, dtype)
    }),
    op("float", "self", |call| cast(call, DType::Float32)),
    op("double", "self", |call| cast(call, DType::Float64)),
    op("half", "self", |call| cast(call, DType::Float16)),
    op("long", "self", |call| cast(call, DType::Int64)),
    op("int", "self", |call| cast(call, DType::Int32)),
    op("bool", "self", |call| cast(call, DType::Bool)),
    op("_autocast_to_reduced_precision", "self cuda=None cpu=None cuda_dtype=None cpu_dtype=None", |call| {
        Ok(call.arg("self"))
    }),
    op("_autocast_to_full_precision", "self cuda=None cpu=None", |call| Ok(call.arg("self"))),
];

fn rank_of(dtype: DType) -> u8 {
    match dtype {
        DType::Bool => 0,
        DType::UInt8 => 1,
        DType::Int8 => 2,
        DType::Int16 | DType::UInt16 => 3,
        DType::Int32 | DType::UInt32 => 4,
        DType::Int64 | DType::UInt64 => 5,
        DType::Float16 | DType::BFloat16 => 6,
        DType::Float32 => 7,
        DType::Float64 => 8,
    }
}

/// The common type of two (`torch.promote_types`).
fn promoted(a: DType, b: DType) -> DType {
    match (a, b) {
        (DType::UInt8, DType::Int8) | (DType::Int8, DType::UInt8) => DType::Int16,
        (DType::Float16, DType::BFloat16) | (DType::BFloat16, DType::Float16) => DType::Float32,
        _ if rank_of(a) >= rank_of(b) => a,
        _ => b,
    }
}

fn category(dtype: DType) -> u8 {
    match dtype {
        DType::Bool => 0,
        dtype if dtype.is_int() => 1,
        _ => 2,
    }
}

/// The element type of a result: tensors with axes decide, unless those without or numbers are of a higher category
/// (`torch.result_type`).
pub fn result_type(call: &Call, args: &[&Arg]) -> DType {
    let mut by_kind: [Option<DType>; 3] = [None; 3];
    for arg in args {
        let (kind, dtype) = match (call.lower.info(arg), arg) {
            (Some((dtype, shape)), _) => (usize::from(shape.rank() == 0), dtype),
            (None, Arg::Float(_)) => (2, DType::Float32),
            (None, Arg::Bool(_)) => (2, DType::Bool),
            (None, _) => (2, DType::Int64),
        };
        if let Some(known) = by_kind.get_mut(kind) {
            *known = Some(known.map_or(dtype, |known| promoted(known, dtype)));
        }
    }
    let mut result: Option<DType> = None;
    for dtype in by_kind.into_iter().flatten() {
        result = Some(match result {
            Some(known) if category(known) >= category(dtype) => known,
            _ => dtype,
        });
    }
    result.unwrap_or(DType::Float32)
}

/// A tensor or number as a value of this element type.
///
/// # Errors
/// When it is neither, or depends on sizes that are not known.
pub fn operand(call: &mut Call, arg: &Arg, dtype: DType) -> Result<Value> {
    match arg {
        Arg::Tensor(_) | Arg::Weight(_) => {
            let value = call.lower.value(arg)?;
            call.cast(value, dtype)
        }
        Arg::Int(elem) if elem.int().is_none() => {
            let dims = Shape(vec![elem.dim()]);
            let like = call.lower.like(&dims)?;
            let sizes = call.add_with(op::Dims { dims, dtype: DType::Int64 }, &[like])?;
            let number = call.add(op::Reshape { shape: Shape::scalar() }, &[sizes])?;
            call.cast(number, dtype)
        }
        other => match other.float() {
            Some(number) => Ok(call.scalar(dtype, number)),
            None => Err(call.fail(format!("{} is used as a number", other.kind()))),
        },
    }
}

/// Both operands in their common type; `None` when both are plain numbers.
fn operands(call: &mut Call, a: &str, b: &str) -> Result<(Value, Value)> {
    let (a, b) = (call.arg(a), call.arg(b));
    let dtype = result_type(call, &[&a, &b]);
    Ok((operand(call, &a, dtype)?, operand(call, &b, dtype)?))
}

/// What two plain numbers give.
fn numbers(call: &mut Call, function: Binary, a: &Arg, b: &Arg) -> Option<Arg> {
    use Arithmetic as A;
    if a.is_tensor() || b.is_tensor() {
        return None;
    }
    let (arithmetic, swap) = match function {
        Binary::Add => (A::Add, false),
        Binary::Sub => (A::Sub, false),
        Binary::Mul => (A::Mul, false),
        Binary::FloorDiv => (A::FloorDiv, false),
        Binary::Mod => (A::FloorMod, false),
        Binary::Pow => (A::Pow, false),
        Binary::Maximum => (A::Maximum, false),
        Binary::Minimum => (A::Minimum, false),
        Binary::Equal => (A::Equal, false),
        Binary::NotEqual => (A::NotEqual, false),
        Binary::Less => (A::Less, false),
        Binary::LessEqual => (A::LessEqual, false),
        Binary::Greater => (A::Less, true),
        Binary::GreaterEqual => (A::LessEqual, true),
        _ => return None,
    };
    let elem = |arg: &Arg| match arg {
        Arg::Int(elem) => Some(elem.clone()),
        Arg::Bool(value) => Some(Elem::Int(i64::from(*value))),
        Arg::Float(number) => Some(Elem::Real(*number)),
        _ => None,
    };
    let (x, y) = (elem(a)?, elem(b)?);
    let (x, y) = if swap { (y, x) } else { (x, y) };
    let real = matches!(a, Arg::Float(_)) || matches!(b, Arg::Float(_));
    let dtype = if real { DType::Float64 } else { DType::Int64 };
    let result = call.lower.expressions.apply(arithmetic, &x, &y, dtype);
    Some(match result {
        Elem::Int(truth) if function.is_predicate() => Arg::Bool(truth != 0),
        Elem::Real(number) => Arg::Float(number),
        elem => Arg::Int(elem),
    })
}

fn binary(call: &mut Call, function: Binary) -> Result<Arg> {
    let (a, mut b) = (call.arg("self"), call.arg("other"));
    if let Some(number) = numbers(call, function, &a, &b) {
        return Ok(number);
    }
    let alpha = match matches!(function, Binary::Add | Binary::Sub) && call.has("alpha") {
        true => call.float("alpha")?,
        false => 1.0,
    };
    if alpha != 1.0 {
        b = times(call, &b, alpha)?;
    }
    let dtype = result_type(call, &[&a, &b]);
    let (a, b) = (operand(call, &a, dtype)?, operand(call, &b, dtype)?);
    // Sums and products of truth values are `or` and `and`.
    let function = match (function, dtype) {
        (Binary::Add | Binary::Maximum, DType::Bool) => Binary::Or,
        (Binary::Mul | Binary::Minimum, DType::Bool) => Binary::And,
        _ => function,
    };
    Ok(call.add(function, &[a, b])?.into())
}

fn times(call: &mut Call, x: &Arg, factor: f64) -> Result<Arg> {
    if let (false, Some(number)) = (x.is_tensor(), x.float()) {
        return Ok(Arg::Float(number * factor));
    }
    let factor = match factor.fract() == 0.0 {
        true => Arg::from(factor as i64),
        false => Arg::Float(factor),
    };
    call.call("mul", &[x.clone(), factor])
}

/// Whole numbers are divided as real ones, unless the result is to be rounded.
fn div(call: &mut Call) -> Result<Arg> {
    let (a, b) = (call.arg("self"), call.arg("other"));
    let rounding = match call.arg("rounding_mode") {
        Arg::Str(mode) => Some(mode),
        _ => None,
    };
    if !a.is_tensor() && !b.is_tensor() {
        if let (Some(x), Some(y), None) = (a.float(), b.float(), &rounding) {
            return Ok(Arg::Float(x / y));
        }
        // A quotient of sizes that divides stays a size.
        if let Some(number) = numbers(call, Binary::FloorDiv, &a, &b) {
            return Ok(number);
        }
    }
    let dtype = result_type(call, &[&a, &b]);
    match rounding.as_deref() {
        None => {
            let dtype = if dtype.is_float() { dtype } else { DType::Float32 };
            let (a, b) = (operand(call, &a, dtype)?, operand(call, &b, dtype)?);
            Ok(call.add(Binary::Div, &[a, b])?.into())
        }
        Some("floor") => binary(call, Binary::FloorDiv),
        Some("trunc") => {
            let (a, b) = (operand(call, &a, dtype)?, operand(call, &b, dtype)?);
            let quotient = call.add(Binary::Div, &[a, b])?;
            if dtype.is_float() { call.call("trunc", &[quotient.into()]) } else { Ok(quotient.into()) }
        }
        Some(mode) => Err(call.fail(format!("the rounding mode '{mode}' is not known"))),
    }
}

/// `other - alpha * self`
fn rsub(call: &mut Call) -> Result<Arg> {
    let (a, b, alpha) = (call.arg("self"), call.arg("other"), call.float("alpha")?);
    let a = if alpha == 1.0 { a } else { times(call, &a, alpha)? };
    call.call("sub", &[b, a])
}

fn pow(call: &mut Call) -> Result<Arg> {
    let (a, b) = (call.arg("self"), call.arg("exponent"));
    if let Some(number) = numbers(call, Binary::Pow, &a, &b) {
        return Ok(number);
    }
    let dtype = result_type(call, &[&a, &b]);
    let function = match (a.is_tensor() && !b.is_tensor(), b.float()) {
        (true, Some(1.0)) => return Ok(a),
        (true, Some(2.0)) => Some(Unary::Square),
        (true, Some(0.5)) => Some(Unary::Sqrt),
        (true, Some(-0.5)) => Some(Unary::Rsqrt),
        (true, Some(-1.0)) if dtype.is_float() => Some(Unary::Reciprocal),
        _ => None,
    };
    let x = operand(call, &a, dtype)?;
    if let Some(function) = function {
        return Ok(call.add(function, &[x])?.into());
    }
    let exponent = operand(call, &b, dtype)?;
    Ok(call.add(Binary::Pow, &[x, exponent])?.into())
}

fn real_binary(call: &mut Call, function: Binary) -> Result<Arg> {
    let (a, b) = (call.arg("self"), call.arg("other"));
    let dtype = result_type(call, &[&a, &b]);
    let dtype = if dtype.is_float() { dtype } else { DType::Float32 };
    let (a, b) = (operand(call, &a, dtype)?, operand(call, &b, dtype)?);
    Ok(call.add(function, &[a, b])?.into())
}

fn logical(call: &mut Call, function: Binary) -> Result<Arg> {
    let (a, b) = (call.value("self")?, call.value("other")?);
    let (a, b) = (truth(call, a)?, truth(call, b)?);
    Ok(call.add(function, &[a, b])?.into())
}

/// Whether elements are not 0.
pub fn truth(call: &mut Call, x: Value) -> Result<Value> {
    call.cast(x, DType::Bool)
}

fn clamp(call: &mut Call) -> Result<Arg> {
    let x = call.value("self")?;
    let (min, max) = (call.arg("min"), call.arg("max"));
    if min.is_tensor() || max.is_tensor() {
        let mut y = call.arg("self");
        if !min.is_none() {
            y = call.call("maximum", &[y, min])?;
        }
        if !max.is_none() {
            y = call.call("minimum", &[y, max])?;
        }
        return Ok(y);
    }
    let dtype = result_type(
        call,
        &[&call.arg("self"), &min, &max].map(|arg| if arg.is_none() { &Arg::Bool(false) } else { arg }),
    );
    let x = call.cast(x, dtype)?;
    let limit = |arg: &Arg| arg.float().map(|limit| limit as f32);
    let clip = op::Clip { min: limit(&min), max: limit(&max) };
    match (clip.min, clip.max) {
        (Some(0.0), None) => Ok(call.add(Unary::Relu, &[x])?.into()),
        (Some(0.0), Some(6.0)) => Ok(call.add(Unary::Relu6, &[x])?.into()),
        (None, None) => Err(call.fail("the limits are not known")),
        _ => Ok(call.add(clip, &[x])?.into()),
    }
}

fn select(call: &mut Call) -> Result<Arg> {
    let condition = call.value("condition")?;
    let condition = truth(call, condition)?;
    let (a, b) = operands(call, "self", "other")?;
    Ok(call.add(op::Select {}, &[condition, a, b])?.into())
}

fn masked_fill(call: &mut Call) -> Result<Arg> {
    let (x, mask) = (call.value("self")?, call.value("mask")?);
    let mask = truth(call, mask)?;
    let dtype = call.lower.graph.info(x).dtype;
    let value = operand(call, &call.arg("value"), dtype)?;
    Ok(call.add(op::Select {}, &[mask, value, x])?.into())
}

/// `self + value * tensor1 ∘ tensor2`
fn add_combined(call: &mut Call, function: Binary) -> Result<Arg> {
    let (a, b) = (call.value("tensor1")?, call.value("tensor2")?);
    let product = Arg::from(call.add(function, &[a, b])?);
    let factor = call.float("value")?;
    let product = if factor == 1.0 { product } else { times(call, &product, factor)? };
    let x = call.arg("self");
    call.call("add", &[x, product])
}

/// `self + weight * (end - self)`
fn lerp(call: &mut Call) -> Result<Arg> {
    let (start, end, weight) = (call.arg("self"), call.arg("end"), call.arg("weight"));
    let way = call.call("sub", &[end, start.clone()])?;
    let part = call.call("mul", &[way, weight])?;
    call.call("add", &[start, part])
}

/// An element type by itself or by its number in `c10::ScalarType`.
pub fn dtype(arg: &Arg) -> Option<DType> {
    match arg {
        Arg::DType(dtype) => Some(*dtype),
        Arg::Int(code) => Some(match code.int()? {
            0 => DType::UInt8,
            1 => DType::Int8,
            2 => DType::Int16,
            3 => DType::Int32,
            4 => DType::Int64,
            5 => DType::Float16,
            6 => DType::Float32,
            7 => DType::Float64,
            11 => DType::Bool,
            15 => DType::BFloat16,
            _ => return None,
        }),
        _ => None,
    }
}

/// The forms of `to` differ in the places of their arguments.
fn to(call: &mut Call) -> Result<Arg> {
    let places = ["dtype", "non_blocking", "other", "layout", "device"];
    let wanted = places.iter().find_map(|name| match call.arg(name) {
        arg if arg.is_tensor() => call.lower.info(&arg).map(|info| info.0),
        arg => dtype(&arg),
    });
    match wanted {
        Some(dtype) => cast(call, dtype),
        None => Ok(call.arg("self")),
    }
}

fn cast(call: &mut Call, dtype: DType) -> Result<Arg> {
    if let Some(weight) = call.weight("self") {
        let tensor = weight.tensor.cast(dtype);
        return Ok(crate::pytorch::arg::Weight { tensor, ..weight }.into());
    }
    if let (false, Some(number)) = (call.arg("self").is_tensor(), call.arg("self").float()) {
        return Ok(if dtype.is_float() { Arg::Float(number) } else { Arg::from(number as i64) });
    }
    let x = call.value("self")?;
    Ok(call.cast(x, dtype)?.into())
}
