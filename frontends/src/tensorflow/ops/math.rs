//! Elementwise arithmetic, comparison and logic; casts, selection, running sums.

use modelport_ir::op::{Binary, Unary};
use modelport_ir::{DType, Dim, Result, Value, op};

use super::activation::unary;
use super::call::one;
use super::{Call, Family};
use crate::tensorflow::lower::Entry;

pub const OPS: Family = &[
    ("Abs", |call| unary(call, Unary::Abs)),
    ("Acos", |call| unary(call, Unary::Acos)),
    ("Acosh", |call| unary(call, Unary::Acosh)),
    ("Asin", |call| unary(call, Unary::Asin)),
    ("Asinh", |call| unary(call, Unary::Asinh)),
    ("Atan", |call| unary(call, Unary::Atan)),
    ("Atanh", |call| unary(call, Unary::Atanh)),
    ("Ceil", |call| unary(call, Unary::Ceil)),
    ("Cos", |call| unary(call, Unary::Cos)),
    ("Cosh", |call| unary(call, Unary::Cosh)),
    ("Erf", |call| unary(call, Unary::Erf)),
    ("Erfc", erfc),
    ("Exp", |call| unary(call, Unary::Exp)),
    ("Expm1", |call| unary(call, Unary::Expm1)),
    ("Floor", |call| unary(call, Unary::Floor)),
    ("Inv", |call| unary(call, Unary::Reciprocal)),
    ("IsFinite", |call| unary(call, Unary::IsFinite)),
    ("IsInf", |call| unary(call, Unary::IsInf)),
    ("IsNan", |call| unary(call, Unary::IsNan)),
    ("Log", |call| unary(call, Unary::Log)),
    ("Log1p", |call| unary(call, Unary::Log1p)),
    ("Invert", |call| unary(call, Unary::Not)),
    ("LogicalNot", |call| unary(call, Unary::Not)),
    ("Neg", |call| unary(call, Unary::Neg)),
    ("Reciprocal", |call| unary(call, Unary::Reciprocal)),
    ("Rint", |call| unary(call, Unary::Round)),
    ("Round", |call| unary(call, Unary::Round)),
    ("Rsqrt", |call| unary(call, Unary::Rsqrt)),
    ("Sign", |call| unary(call, Unary::Sign)),
    ("Sin", |call| unary(call, Unary::Sin)),
    ("Sinh", |call| unary(call, Unary::Sinh)),
    ("Sqrt", |call| unary(call, Unary::Sqrt)),
    ("Square", |call| unary(call, Unary::Square)),
    ("Tan", |call| unary(call, Unary::Tan)),
    ("Add", |call| binary(call, Binary::Add)),
    ("AddV2", |call| binary(call, Binary::Add)),
    ("Atan2", |call| binary(call, Binary::Atan2)),
    ("BitwiseAnd", |call| binary(call, Binary::And)),
    ("BitwiseOr", |call| binary(call, Binary::Or)),
    ("BitwiseXor", |call| binary(call, Binary::Xor)),
    ("Div", |call| binary(call, Binary::Div)),
    ("Equal", |call| binary(call, Binary::Equal)),
    ("FloorDiv", |call| binary(call, Binary::FloorDiv)),
    ("FloorMod", |call| binary(call, Binary::Mod)),
    ("Greater", |call| binary(call, Binary::Greater)),
    ("GreaterEqual", |call| binary(call, Binary::GreaterEqual)),
    ("Less", |call| binary(call, Binary::Less)),
    ("LessEqual", |call| binary(call, Binary::LessEqual)),
    ("LogicalAnd", |call| binary(call, Binary::And)),
    ("LogicalOr", |call| binary(call, Binary::Or)),
    ("Maximum", |call| binary(call, Binary::Maximum)),
    ("Minimum", |call| binary(call, Binary::Minimum)),
    ("Mod", |call| binary(call, Binary::Fmod)),
    ("Mul", |call| binary(call, Binary::Mul)),
    ("NotEqual", |call| binary(call, Binary::NotEqual)),
    ("Pow", |call| binary(call, Binary::Pow)),
    ("RealDiv", |call| binary(call, Binary::Div)),
    ("SquaredDifference", |call| binary(call, Binary::SquaredDifference)),
    ("Sub", |call| binary(call, Binary::Sub)),
    ("TruncateDiv", truncate_div),
    ("TruncateMod", |call| binary(call, Binary::Fmod)),
    ("LeftShift", |call| shift(call, Binary::Mul)),
    ("RightShift", |call| shift(call, Binary::FloorDiv)),
    ("DivNoNan", div_no_nan),
    ("MulNoNan", mul_no_nan),
    ("Xdivy", xdivy),
    ("Xlogy", |call| times_function(call, Unary::Log)),
    ("Xlog1py", |call| times_function(call, Unary::Log1p)),
    ("AddN", add_n),
    ("AccumulateNV2", add_n),
    ("Cast", cast),
    ("ClipByValue", clip),
    ("Cross", cross),
    ("Cumprod", cumprod),
    ("Cumsum", cumsum),
    ("Select", select),
    ("SelectV2", select),
    ("ApproximateEqual", approximate_equal),
];

fn binary(call: &mut Call, function: Binary) -> Result<Vec<Entry>> {
    let (a, b) = (call.data(0)?, call.data(1)?);
    Ok(one(call.add(function, &[a, b])?))
}

fn erfc(call: &mut Call) -> Result<Vec<Entry>> {
    let x = call.data(0)?;
    let dtype = call.dtype(0)?;
    let erf = call.helper("erf", Unary::Erf, &[x])?;
    let one_ = call.scalar("one", 1.0, dtype);
    Ok(one(call.add(Binary::Sub, &[one_, erf])?))
}

/// Division that rounds toward zero, which for reals is a division and a cut.
fn truncate_div(call: &mut Call) -> Result<Vec<Entry>> {
    let dtype = call.dtype(0)?;
    if !dtype.is_float() {
        return binary(call, Binary::Div);
    }
    let (a, b) = (call.data(0)?, call.data(1)?);
    let quotient = call.helper("quotient", Binary::Div, &[a, b])?;
    let magnitude = call.helper("magnitude", Unary::Abs, &[quotient])?;
    let whole = call.helper("whole", Unary::Floor, &[magnitude])?;
    let sign = call.helper("sign", Unary::Sign, &[quotient])?;
    Ok(one(call.add(Binary::Mul, &[sign, whole])?))
}

/// A shift of bits is a product with a power of two, or a division by one.
fn shift(call: &mut Call, by: Binary) -> Result<Vec<Entry>> {
    let (x, bits) = (call.data(0)?, call.data(1)?);
    let dtype = call.dtype(1)?;
    let two = call.scalar("two", 2.0, dtype);
    let power = call.helper("power", Binary::Pow, &[two, bits])?;
    Ok(one(call.add(by, &[x, power])?))
}

/// Zero where a tested value is zero, else the result.
fn zero_where_zero(call: &mut Call, tested: Value, result: Value) -> Result<Vec<Entry>> {
    let dtype = call.dtype(0)?;
    let zero = call.scalar("zero", 0.0, dtype);
    let is_zero = call.helper("is_zero", Binary::Equal, &[tested, zero])?;
    Ok(one(call.add(op::Select {}, &[is_zero, zero, result])?))
}

fn div_no_nan(call: &mut Call) -> Result<Vec<Entry>> {
    let (a, b) = (call.data(0)?, call.data(1)?);
    let quotient = call.helper("quotient", Binary::Div, &[a, b])?;
    zero_where_zero(call, b, quotient)
}

fn mul_no_nan(call: &mut Call) -> Result<Vec<Entry>> {
    let (a, b) = (call.data(0)?, call.data(1)?);
    let product = call.helper("product", Binary::Mul, &[a, b])?;
    zero_where_zero(call, b, product)
}

fn xdivy(call: &mut Call) -> Result<Vec<Entry>> {
    let (x, y) = (call.data(0)?, call.data(1)?);
    let quotient = call.helper("quotient", Binary::Div, &[x, y])?;
    zero_where_zero(call, x, quotient)
}

/// `x * function(y)`, zero where `x` is.
fn times_function(call: &mut Call, function: Unary) -> Result<Vec<Entry>> {
    let (x, y) = (call.data(0)?, call.data(1)?);
    let y = call.helper("function", function, &[y])?;
    let product = call.helper("product", Binary::Mul, &[x, y])?;
    zero_where_zero(call, x, product)
}

fn add_n(call: &mut Call) -> Result<Vec<Entry>> {
    let values = (0..call.inputs.len()).map(|slot| call.data(slot)).collect::<Result<Vec<_>>>()?;
    let Some((last, rest)) = values.split_last() else { return Err(call.fail("adds nothing")) };
    let Some((first, middle)) = rest.split_first() else { return Ok(one(*last)) };
    let mut sum = *first;
    for value in middle {
        sum = call.helper("sum", Binary::Add, &[sum, *value])?;
    }
    Ok(one(call.add(Binary::Add, &[sum, *last])?))
}

fn cast(call: &mut Call) -> Result<Vec<Entry>> {
    let Some(dtype) = call.node.dtype("DstT") else {
        return Err(call.fail("casts to a type that modelport does not have"));
    };
    if let Some(entry) = call.view(0, |tensor| Ok(tensor.cast(dtype)))?
        && dtype != DType::Bool
    {
        return Ok(vec![entry]);
    }
    let x = call.data(0)?;
    if call.dtype(0)? == dtype {
        return Ok(one(x));
    }
    if dtype == DType::Bool {
        let from = call.dtype(0)?;
        let zero = call.scalar("zero", 0.0, from);
        return Ok(one(call.add(Binary::NotEqual, &[x, zero])?));
    }
    Ok(one(call.add(op::Cast { dtype }, &[x])?))
}

fn clip(call: &mut Call) -> Result<Vec<Entry>> {
    let x = call.data(0)?;
    if let (Some(min), Some(max)) = (call.number(1), call.number(2))
        && call.dtype(0)?.is_float()
    {
        return Ok(one(call.add(op::Clip { min: Some(min as f32), max: Some(max as f32) }, &[x])?));
    }
    let (min, max) = (call.data(1)?, call.data(2)?);
    let lower = call.helper("lower", Binary::Maximum, &[x, min])?;
    Ok(one(call.add(Binary::Minimum, &[lower, max])?))
}

/// The product of vectors in space, along the last axis.
fn cross(call: &mut Call) -> Result<Vec<Entry>> {
    let ((a, shape), b) = (call.shaped(0)?, call.data(1)?);
    let axis = call.axis(-1, shape.rank())?;
    if shape.last() != Some(&Dim::Known(3)) {
        return Err(call.fail("takes vectors of 3 elements"));
    }
    let turned = |call: &mut Call, x: Value, name: &str, order: [usize; 3]| {
        let split = call.helper(name, op::Split { axis, sizes: vec![1; 3] }, &[x])?;
        let parts = order.map(|output| Value { node: split.node, output });
        call.helper(&format!("{name}_turned"), op::Concat { axis }, &parts)
    };
    let (a1, a2) = (turned(call, a, "a1", [1, 2, 0])?, turned(call, a, "a2", [2, 0, 1])?);
    let (b1, b2) = (turned(call, b, "b1", [1, 2, 0])?, turned(call, b, "b2", [2, 0, 1])?);
    let left = call.helper("left", Binary::Mul, &[a1, b2])?;
    let right = call.helper("right", Binary::Mul, &[a2, b1])?;
    Ok(one(call.add(Binary::Sub, &[left, right])?))
}

fn cumsum(call: &mut Call) -> Result<Vec<Entry>> {
    let (x, shape) = call.shaped(0)?;
    let axis = call.int(1, "the axis")?;
    let axis = call.axis(axis, shape.rank())?;
    let (exclusive, reverse) = (call.node.flag("exclusive"), call.node.flag("reverse"));
    Ok(one(call.add(op::CumSum { axis, exclusive, reverse }, &[x])?))
}

/// Longest axis along which products are written out.
const MAX_PRODUCTS: usize = 256;

/// Running products, written out: an axis is cut into slices that are multiplied one by one.
fn cumprod(call: &mut Call) -> Result<Vec<Entry>> {
    let (x, shape) = call.shaped(0)?;
    let axis = call.int(1, "the axis")?;
    let axis = call.axis(axis, shape.rank())?;
    let size = call.known(&shape, axis, "the length of the axis")?;
    if size == 0 || size > MAX_PRODUCTS {
        return Err(call.fail(format!("running products of {size} elements; at most {MAX_PRODUCTS} are written out")));
    }
    let (exclusive, reverse) = (call.node.flag("exclusive"), call.node.flag("reverse"));
    let split = call.helper("slices", op::Split { axis, sizes: vec![1; size] }, &[x])?;
    let mut slices: Vec<Value> = (0..size).map(|output| Value { node: split.node, output }).collect();
    if reverse {
        slices.reverse();
    }
    if exclusive {
        let dtype = call.dtype(0)?;
        let first = slices.first().copied().unwrap_or(split);
        let zeros = call.helper("zeros", Binary::Sub, &[first, first])?;
        let one = call.scalar("one", 1.0, dtype);
        let ones = call.helper("ones", Binary::Add, &[zeros, one])?;
        slices.pop();
        slices.insert(0, ones);
    }
    let mut products: Vec<Value> = Vec::with_capacity(size);
    for slice in slices {
        let product = match products.last() {
            Some(last) => call.helper("product", Binary::Mul, &[*last, slice])?,
            None => slice,
        };
        products.push(product);
    }
    if reverse {
        products.reverse();
    }
    Ok(one(call.add(op::Concat { axis }, &products)?))
}

fn select(call: &mut Call) -> Result<Vec<Entry>> {
    let condition = call.input(0)?;
    let scalar = call.shape(0)?.rank() == 0;
    // A choice that is made at conversion time: a training flag.
    if let Some(truth) = call.lower.truth(condition).filter(|_| scalar && call.shape(1).ok() == call.shape(2).ok()) {
        return Ok(one(call.data(if truth { 1 } else { 2 })?));
    }
    let (mut condition, a, b) = (call.data(0)?, call.data(1)?, call.data(2)?);
    let rank = call.shape(1)?.rank();
    let rows = call.shape(0)?;
    if call.node.op == "Select" && rows.rank() == 1 && rank > 1 {
        // The old Select chooses rows.
        condition = call.helper("rows", op::Unsqueeze { axes: (1..rank).collect() }, &[condition])?;
    }
    Ok(one(call.add(op::Select {}, &[condition, a, b])?))
}

fn approximate_equal(call: &mut Call) -> Result<Vec<Entry>> {
    let (a, b) = (call.data(0)?, call.data(1)?);
    let dtype = call.dtype(0)?;
    let difference = call.helper("difference", Binary::Sub, &[a, b])?;
    let distance = call.helper("distance", Unary::Abs, &[difference])?;
    let tolerance = call.scalar("tolerance", f64::from(call.node.float("tolerance").unwrap_or(1e-5)), dtype);
    Ok(one(call.add(Binary::Less, &[distance, tolerance])?))
}
