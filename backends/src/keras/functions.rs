//! Functions of values: elementwise, activations, reductions, products.

use modelport_ir::op::{
    ArgReduce, Binary, Clip, CumSum, Extreme, L2Normalize, Lrn, MatMul, Op, Reduce, ReduceKind, TopK, Unary,
};
use modelport_ir::{DType, Dim, Graph, Shape};

use super::build::{Builder, Built, call_layer, dtype_lit, reshaped};
use super::layers::check_layout;
use crate::python::{Arg, Expr, Lit};

/// `axis=…`: one number or a tuple.
pub fn axis(axes: &[usize]) -> Arg {
    let axes = match axes {
        [axis] => Lit::size(*axis),
        axes => Lit::tuple(axes),
    };
    Arg::keyword("axis", Expr::slot("axis", axes), None)
}

/// A function of `keras.ops` of one value.
pub fn ops(name: &str, x: Expr) -> Expr {
    Expr::call(&format!("ops.{name}"), vec![Arg::new(x)])
}

fn float(value: f32) -> Expr {
    Expr::slot("value", Lit::float(value))
}

/// An activation as a layer: `layers.Activation("relu")(x)`.
fn activation(name: &str, x: Expr) -> Expr {
    let arg = Arg::or("activation", Expr::slot("activation", Lit::Str(name.to_owned())), Lit::None);
    call_layer("Activation", vec![arg], x)
}

/// Whether a graph has activations that Keras knows by name only.
fn has_named_activations(graph: &Graph) -> bool {
    use Unary::{HardSwish, Mish, Selu, Silu};
    graph.ids().into_iter().any(|id| matches!(graph.op(id), Op::Unary(HardSwish | Mish | Selu | Silu) | Op::Gelu(_)))
}

/// Functions of one element.
pub fn unary(b: &mut Builder<'_>, op: Unary) -> Built {
    use Unary::*;
    let x = b.tensor(0)?;
    let integer = !b.dtype(0)?.is_float();
    let name = match op {
        // Beside activations that have no layer of their own it is one more of them.
        Relu if has_named_activations(b.graph) => return Ok(activation("relu", x)),
        Relu => return Ok(call_layer("ReLU", Vec::new(), x)),
        Relu6 => {
            let limit = Arg::or("max_value", Expr::slot("max_value", Lit::float(6.0)), Lit::None);
            return Ok(call_layer("ReLU", vec![limit], x));
        }
        Sigmoid => return Ok(activation("sigmoid", x)),
        Tanh => return Ok(activation("tanh", x)),
        Softplus => return Ok(activation("softplus", x)),
        Softsign => return Ok(activation("softsign", x)),
        Selu => return Ok(activation("selu", x)),
        Silu => return Ok(activation("swish", x)),
        Mish => return Ok(activation("mish", x)),
        HardSigmoid if b.version == 3 => return Ok(activation("hard_sigmoid", x)),
        HardSwish if b.version == 3 => return Ok(activation("hard_swish", x)),
        HardSigmoid | HardSwish => {
            // Before version 3 Keras' own had another slope.
            let six = ops("relu6", x.clone().binary("+", float(3.0))).binary("/", float(6.0));
            return Ok(if op == HardSwish { x.binary("*", six) } else { six });
        }
        Neg => return Ok(Expr::Prefix("-", Box::new(x))),
        Not if b.dtype(0)? == DType::Bool => "logical_not",
        Not => "bitwise_not",
        Reciprocal => return Ok(float(1.0).binary("/", x)),
        Exp => "exp",
        Expm1 => "expm1",
        Log => "log",
        Log1p => "log1p",
        Sqrt => "sqrt",
        Rsqrt => "rsqrt",
        Square => "square",
        Abs => "abs",
        Sign => "sign",
        // Floor and the like of whole numbers are those.
        Floor | Ceil | Round if integer => return Ok(x),
        Floor => "floor",
        Ceil => "ceil",
        Round => "round",
        Sin => "sin",
        Cos => "cos",
        Tan => "tan",
        Asin => "arcsin",
        Acos => "arccos",
        Atan => "arctan",
        Sinh => "sinh",
        Cosh => "cosh",
        Asinh => "arcsinh",
        Acosh => "arccosh",
        Atanh => "arctanh",
        Erf => "erf",
        IsNan => "isnan",
        IsInf => "isinf",
        IsFinite => "isfinite",
    };
    Ok(ops(name, x))
}

/// `layers.LeakyReLU`.
pub fn leaky_relu(b: &mut Builder<'_>, alpha: f32) -> Built {
    let x = b.tensor(0)?;
    let slope = Arg::or("negative_slope", Expr::slot("negative_slope", Lit::float(alpha)), Lit::float(0.3));
    Ok(call_layer("LeakyReLU", vec![slope], x))
}

/// `layers.ELU`.
pub fn elu(b: &mut Builder<'_>, alpha: f32) -> Built {
    let x = b.tensor(0)?;
    let alpha = Arg::or("alpha", Expr::slot("alpha", Lit::float(alpha)), Lit::float(1.0));
    Ok(call_layer("ELU", vec![alpha], x))
}

/// `layers.Activation("gelu")`, or `ops.gelu` for its approximation.
pub fn gelu(b: &mut Builder<'_>, approximate: bool) -> Built {
    let x = b.tensor(0)?;
    if !approximate {
        return Ok(activation("gelu", x));
    }
    let how = Arg::keyword("approximate", Expr::slot("approximate", Lit::Bool(true)), None);
    Ok(Expr::call("ops.gelu", vec![Arg::new(x), how]))
}

/// `ops.clip`.
pub fn clip(b: &mut Builder<'_>, op: &Clip) -> Built {
    let x = b.tensor(0)?;
    let integer = b.dtype(0)?.is_int();
    let limit = |value: f32| Expr::slot("limit", if integer { Lit::Int(value as i64) } else { Lit::float(value) });
    Ok(match (op.min, op.max) {
        (Some(min), Some(max)) => Expr::call(
            "ops.clip",
            vec![Arg::new(x), Arg::or("x_min", limit(min), Lit::None), Arg::or("x_max", limit(max), Lit::None)],
        ),
        (Some(min), None) => Expr::call("ops.maximum", vec![Arg::new(x), Arg::new(limit(min))]),
        (None, Some(max)) => Expr::call("ops.minimum", vec![Arg::new(x), Arg::new(limit(max))]),
        (None, None) => x,
    })
}

/// `layers.Softmax`.
pub fn softmax(b: &mut Builder<'_>, at: usize) -> Built {
    let rank = b.shape(0)?.rank();
    let x = b.tensor(0)?;
    let last = if at + 1 == rank { Lit::Int(-1) } else { Lit::size(at) };
    Ok(call_layer("Softmax", vec![Arg::keyword("axis", Expr::slot("axis", last), Some(Lit::Int(-1)))], x))
}

/// `ops.log_softmax`.
pub fn log_softmax(b: &mut Builder<'_>, at: usize) -> Built {
    let x = b.tensor(0)?;
    let rank = b.shape(0)?.rank();
    let last = if at + 1 == rank { Lit::Int(-1) } else { Lit::size(at) };
    let axis = Arg::keyword("axis", Expr::slot("axis", last), Some(Lit::Int(-1)));
    Ok(Expr::call("ops.log_softmax", vec![Arg::new(x), axis]))
}

/// Functions of two elements.
pub fn binary(b: &mut Builder<'_>, op: Binary) -> Built {
    use Binary::*;
    let dtype = b.dtype(0)?;
    let boolean = dtype == DType::Bool;
    let both = b.is_constant(0) && b.is_constant(1);
    let (x, y) = if both { (b.tensor(0)?, b.tensor(1)?) } else { (b.operand(0)?, b.operand(1)?) };
    // What a number is for, should it differ between uses of a function.
    let role = match op {
        Mul | Div => "scale",
        Add | Sub => "offset",
        Pow => "exponent",
        _ => "value",
    };
    let named = |expr: Expr| match expr {
        Expr::Slot(slot) => Expr::slot(role, slot.value),
        other => other,
    };
    let (x, y) = (named(x), named(y));
    // JAX's arrays take no tensor of Keras behind an operator: it has to come first, or both go to a function.
    let array = !both && b.is_array(0);
    // Between two values that both flow through the network the idiom is a layer.
    let layer = match op {
        Add => Some("Add"),
        Mul => Some("Multiply"),
        Maximum => Some("Maximum"),
        _ => None,
    };
    let flows = |slot: usize| b.has(slot).is_some_and(|value| b.graph.tensor(value).is_none());
    let equal = b.shape(0)? == b.shape(1)? && b.shape(0)?.rank() > 0;
    let batched = b.shape(0)?.first().is_some_and(|dim| dim.known().is_none());
    if let (Some(layer), true, true, true, true) =
        (layer, flows(0) && flows(1), equal, batched, dtype.is_float() && b.has(0) != b.has(1))
    {
        return Ok(call_layer(layer, Vec::new(), Expr::List(vec![x, y])));
    }
    let function = match op {
        Maximum => "maximum",
        Minimum => "minimum",
        Atan2 => "arctan2",
        Equal => "equal",
        NotEqual => "not_equal",
        Less => "less",
        LessEqual => "less_equal",
        Greater => "greater",
        GreaterEqual => "greater_equal",
        And if boolean => "logical_and",
        Or if boolean => "logical_or",
        Xor if boolean => "logical_xor",
        And => "bitwise_and",
        Or => "bitwise_or",
        Xor => "bitwise_xor",
        FloorDiv => "floor_divide",
        Mod => "mod",
        Add => {
            let (a, b) = (b.shape(0)?, b.shape(1)?);
            return Ok(match (array || is_misread(a, b), is_misread(b, a)) {
                (false, _) => x.binary("+", y),
                (true, false) => y.binary("+", x),
                (true, true) => x.binary("-", Expr::Prefix("-", Box::new(y))),
            });
        }
        Sub if array => "subtract",
        Mul if array => return Ok(y.binary("*", x)),
        Pow if array => "power",
        SquaredDifference if array => return Ok(ops("square", y.binary("-", x))),
        Div if array && !dtype.is_int() => "divide",
        Sub => return Ok(x.binary("-", y)),
        Mul => return Ok(x.binary("*", y)),
        Pow => return Ok(x.binary("**", y)),
        SquaredDifference => return Ok(ops("square", x.binary("-", y))),
        Div if dtype.is_int() => {
            // Toward zero: by magnitudes, and the sign that both make.
            let call = |name: &str, a: Expr, b: Expr| Expr::call(name, vec![Arg::new(a), Arg::new(b)]);
            let size = call("ops.floor_divide", ops("abs", x.clone()), ops("abs", y.clone()));
            return Ok(ops("sign", x).binary("*", ops("sign", y)).binary("*", size));
        }
        Div => return Ok(x.binary("/", y)),
        Fmod => {
            let size = Expr::call("ops.mod", vec![Arg::new(ops("abs", x.clone())), Arg::new(ops("abs", y))]);
            return Ok(ops("sign", x).binary("*", size));
        }
    };
    Ok(Expr::call(&format!("ops.{function}"), vec![Arg::new(x), Arg::new(y)]))
}

/// Whether Keras may take `y` in `x + y` for a bias that it is not: with TensorFlow as its backend it does so with all
/// that has one axis, wherever that lies, whose size is that of the second or last axis of `x`.
fn is_misread(x: &Shape, y: &Shape) -> bool {
    let mut axes = (0..y.rank()).rev().filter(|&axis| y[axis].known() != Some(1));
    let (Some(axis), None) = (axes.next(), axes.next()) else { return false };
    let is_bias = axis + 1 == y.rank() && x.last() == y.last();
    let alike = |dim: &Dim| dim.known().is_none() || y[axis].known().is_none() || *dim == y[axis];
    x.rank() > 1 && !is_bias && [x.get(1), x.last()].into_iter().flatten().any(alike)
}

/// `ops.where`.
pub fn select(b: &mut Builder<'_>) -> Built {
    let condition = b.tensor(0)?;
    // Two numbers would lose the element type.
    let (yes, no) = if b.is_constant(1) && b.is_constant(2) {
        (b.tensor(1)?, b.tensor(2)?)
    } else {
        (b.operand(1)?, b.operand(2)?)
    };
    Ok(Expr::call("ops.where", vec![Arg::new(condition), Arg::new(yes), Arg::new(no)]))
}

/// `ops.cast`. Casting to whole numbers cuts toward zero.
pub fn cast(b: &mut Builder<'_>, dtype: DType) -> Built {
    let x = b.tensor(0)?;
    if dtype == DType::Bool && b.dtype(0)? != DType::Bool {
        let zero = if b.dtype(0)?.is_float() { Lit::float(0.0) } else { Lit::Int(0) };
        return Ok(Expr::call("ops.not_equal", vec![Arg::new(x), Arg::new(Expr::slot("value", zero))]));
    }
    Ok(cast_to(x, dtype))
}

/// As [`cast`].
pub fn cast_to(x: Expr, dtype: DType) -> Expr {
    Expr::call("ops.cast", vec![Arg::new(x), Arg::or("dtype", dtype_lit(dtype), Lit::None)])
}

/// `ops.cumsum`.
pub fn cumsum(b: &mut Builder<'_>, op: &CumSum) -> Built {
    let x = b.tensor(0)?;
    let along = |name: &str, x: Expr| Expr::call(name, vec![Arg::new(x), axis(&[op.axis])]);
    let flip = |x: Expr| along("ops.flip", x);
    let sum = if op.reverse { flip(along("ops.cumsum", flip(x.clone()))) } else { along("ops.cumsum", x.clone()) };
    Ok(if op.exclusive { sum.binary("-", x) } else { sum })
}

/// Reductions over axes; means over space are layers.
pub fn reduce(b: &mut Builder<'_>, op: &Reduce) -> Built {
    let shape = b.shape(0)?.clone();
    let dtype = b.dtype(0)?;
    let x = b.tensor(0)?;
    if op.axes.is_empty() {
        return Ok(if op.kind == ReduceKind::L2 { ops("abs", x) } else { x });
    }
    let rank = shape.rank();
    let spatial = (3..=5).contains(&rank) && op.axes.iter().copied().eq(1..rank - 1);
    let batched = shape.first().is_some_and(|dim| dim.known().is_none());
    let keep = Arg::keyword("keepdims", Expr::slot("keepdims", Lit::Bool(op.keep_dims)), Some(Lit::Bool(false)));
    if spatial && batched && dtype.is_float() && matches!(op.kind, ReduceKind::Mean | ReduceKind::Max) {
        let kind = if op.kind == ReduceKind::Mean { "Average" } else { "Max" };
        return Ok(call_layer(&format!("Global{kind}Pooling{}D", rank - 2), vec![keep], x));
    }
    let name = match op.kind {
        ReduceKind::Sum => "sum",
        ReduceKind::Mean if dtype.is_int() => {
            let count: Option<usize> = op.axes.iter().map(|&axis| shape.get(axis)?.known()).product();
            let count = count.ok_or_else(|| b.unknown("the size of a reduced axis"))?;
            let sum = Expr::call("ops.sum", vec![Arg::new(x), axis(&op.axes), keep]);
            let size = Expr::call(
                "ops.floor_divide",
                vec![Arg::new(ops("abs", sum.clone())), Arg::new(Expr::int("count", count))],
            );
            return Ok(cast_to(ops("sign", sum).binary("*", size), dtype));
        }
        ReduceKind::Mean => "mean",
        ReduceKind::Max => "max",
        ReduceKind::Min => "min",
        ReduceKind::LogSumExp => "logsumexp",
        ReduceKind::All => "all",
        ReduceKind::Any => "any",
        ReduceKind::Prod => "prod",
        ReduceKind::L2 => {
            let sum = Expr::call("ops.sum", vec![Arg::new(ops("square", x)), axis(&op.axes), keep]);
            return Ok(ops("sqrt", sum));
        }
    };
    let reduced = Expr::call(&format!("ops.{name}"), vec![Arg::new(x), axis(&op.axes), keep]);
    // Sums of short integers have a wider type in Keras.
    Ok(match op.kind {
        ReduceKind::Sum | ReduceKind::Prod if dtype.is_int() => cast_to(reduced, dtype),
        _ => reduced,
    })
}

/// `ops.argmax`.
pub fn arg_reduce(b: &mut Builder<'_>, op: &ArgReduce) -> Built {
    let x = b.tensor(0)?;
    let name = if op.kind == Extreme::Max { "ops.argmax" } else { "ops.argmin" };
    let keep = Arg::keyword("keepdims", Expr::slot("keepdims", Lit::Bool(op.keep_dims)), Some(Lit::Bool(false)));
    let index = Expr::call(name, vec![Arg::new(x), axis(&[op.axis]), keep]);
    // Keras' positions are int32 in one backend and int64 in another.
    Ok(cast_to(index, op.dtype))
}

/// `ops.top_k`.
pub fn top_k(b: &mut Builder<'_>, op: &TopK) -> Built {
    let x = b.tensor(0)?;
    b.results(vec!["values".to_owned(), "indices".to_owned()]);
    let call = Expr::call("ops.top_k", vec![Arg::new(x), Arg::or("k", Expr::int("k", op.k), Lit::None)]);
    let part = |i: usize| call.clone().index(vec![Expr::int("part", i)]);
    Ok(Expr::Tuple(vec![part(0), cast_to(part(1), op.index_dtype)]))
}

/// `ops.matmul`.
pub fn matmul(b: &mut Builder<'_>, op: &MatMul) -> Built {
    let mut side = |slot: usize, transpose: bool| -> Built {
        let rank = b.shape(slot)?.rank();
        let x = b.tensor(slot)?;
        if !transpose {
            return Ok(x);
        }
        let axes = (0..rank - 2).chain([rank - 1, rank - 2]).collect::<Vec<_>>();
        Ok(transposed(x, &axes))
    };
    let (x, y) = (side(0, op.transpose_a)?, side(1, op.transpose_b)?);
    Ok(Expr::call("ops.matmul", vec![Arg::new(x), Arg::new(y)]))
}

/// `ops.transpose`.
pub fn transposed(x: Expr, axes: &[usize]) -> Expr {
    Expr::call("ops.transpose", vec![Arg::new(x), Arg::or("axes", Expr::slot("axes", Lit::tuple(axes)), Lit::None)])
}

/// `ops.einsum`.
pub fn einsum(b: &mut Builder<'_>, equation: &str) -> Built {
    let equation = &in_small_letters(equation);
    let mut args = vec![Arg::or("subscripts", Expr::slot("equation", Lit::Str(equation.to_owned())), Lit::None)];
    for slot in 0..b.input_count() {
        args.push(Arg::new(b.tensor(slot)?));
    }
    Ok(Expr::call("ops.einsum", args))
}

/// An equation in the letters that Keras knows as axes: small ones. With more axes than these it stays as it is.
fn in_small_letters(equation: &str) -> String {
    let mut free = ('a'..='z').filter(|letter| !equation.contains(*letter));
    let mut capitals: Vec<char> = equation.chars().filter(char::is_ascii_uppercase).collect();
    capitals.sort_unstable();
    capitals.dedup();
    let names: Vec<(char, char)> = capitals.into_iter().map_while(|capital| Some((capital, free.next()?))).collect();
    let small = |letter| names.iter().find(|(capital, _)| *capital == letter).map_or(letter, |(_, small)| *small);
    equation.chars().map(small).collect()
}

/// Written out: Keras' own limits the norm elsewhere in every backend.
pub fn l2_normalize(b: &mut Builder<'_>, op: &L2Normalize) -> Built {
    let x = b.tensor(0)?;
    let keep = Arg::keyword("keepdims", Expr::slot("keepdims", Lit::Bool(true)), None);
    let sum = Expr::call("ops.sum", vec![Arg::new(ops("square", x.clone())), axis(&op.axes), keep]);
    let limited = Expr::call("ops.maximum", vec![Arg::new(sum), Arg::new(float(op.epsilon))]);
    Ok(x.binary("/", ops("sqrt", limited)))
}

/// Written out: the sum of squares over neighbouring channels is an average pool along them.
pub fn lrn(b: &mut Builder<'_>, op: &Lrn) -> Built {
    check_layout(b, op.layout)?;
    let shape = b.shape(0)?.clone();
    let rank = shape.rank();
    let channels = shape.last().and_then(Dim::known).ok_or_else(|| b.unknown("the number of channels"))?;
    let mut back = vec![Lit::Int(-1)];
    for dim in shape.iter().skip(1) {
        back.push(Lit::size(dim.known().ok_or_else(|| b.unknown("the size of the input"))?));
    }
    let x = b.tensor(0)?;
    // As many channels before as after; of an even window one more before.
    let (before, after) = (op.size / 2, op.size.saturating_sub(1) / 2);
    let mut width = vec![Lit::tuple(&[0, 0]); rank - 1];
    width.push(Lit::tuple(&[before, after]));
    let padded = Expr::call(
        "ops.pad",
        vec![
            Arg::new(ops("square", x.clone())),
            Arg::or("pad_width", Expr::slot("pad_width", Lit::Tuple(width)), Lit::None),
        ],
    );
    let total = channels + before + after;
    let rows = reshaped(padded, Lit::Tuple(vec![Lit::Int(-1), Lit::size(total), Lit::Int(1)]));
    let mean = Expr::call(
        "ops.average_pool",
        vec![
            Arg::new(rows),
            Arg::or("pool_size", Expr::int("size", op.size), Lit::None),
            Arg::or("strides", Expr::int("strides", 1), Lit::None),
        ],
    );
    let mean = reshaped(mean, Lit::Tuple(back));
    let alpha = Expr::slot("alpha", Lit::float(op.alpha * op.size as f32));
    let k = Expr::slot("k", Lit::float(op.k));
    let beta = Expr::slot("beta", Lit::float(op.beta));
    Ok(x.binary("/", k.binary("+", alpha.binary("*", mean)).binary("**", beta)))
}

/// Joins values: `layers.Concatenate`, or `ops.concatenate` along the batch.
pub fn concat(b: &mut Builder<'_>, at: usize) -> Built {
    let rank = b.shape(0)?.rank();
    let constant = (0..b.input_count()).any(|slot| b.is_constant(slot));
    let parts = (0..b.input_count()).map(|slot| b.tensor(slot)).collect::<Result<Vec<_>, _>>()?;
    let last = if at + 1 == rank { Lit::Int(-1) } else { Lit::size(at) };
    if constant || at == 0 || parts.len() < 2 {
        let axis = Arg::keyword("axis", Expr::slot("axis", last), Some(Lit::Int(0)));
        return Ok(Expr::call("ops.concatenate", vec![Arg::new(Expr::List(parts)), axis]));
    }
    let axis = Arg::keyword("axis", Expr::slot("axis", last), Some(Lit::Int(-1)));
    Ok(call_layer("Concatenate", vec![axis], Expr::List(parts)))
}

/// Whether a table of vectors is picked from by computed indices.
pub fn is_embedding(b: &Builder<'_>, op: &modelport_ir::op::Gather) -> bool {
    let table = b.has(0).and_then(|value| b.graph.tensor(value));
    let constant = |value: modelport_ir::Value| matches!(b.graph.op(value.node), Op::Constant(_));
    let reader =
        |(reader, slot): (modelport_ir::NodeId, usize)| slot == 0 && matches!(b.graph.op(reader), Op::Gather(_));
    // A table with which something else computes is no layer's own.
    let alone = b.has(0).is_some_and(|table| b.graph.consumers(table).into_iter().all(reader));
    alone
        && op.axis == 0
        && op.batch_dims == 0
        && b.has(1).is_some_and(|value| !constant(value))
        && table.is_some_and(|table| table.rank() == 2 && table.dtype().is_float())
}
