//! Functions of values: elementwise, activations, reductions, products.

use modelport_ir::op::{
    ArgReduce, Attention, Binary, Clip, CumSum, Extreme, L2Normalize, Lrn, MatMul, Op, Reduce, ReduceKind, TopK, Unary,
};
use modelport_ir::{DType, Dim, Layout, Problem};

use super::build::{Builder, Built, torch_dtype};
use crate::python::{Arg, Expr, Lit};

/// `dim=…`: one number or a tuple.
pub fn dims(axes: &[usize]) -> Expr {
    match axes {
        [axis] => Expr::int("dim", *axis),
        axes => Expr::slot("dim", Lit::tuple(axes)),
    }
}

fn float(value: f32) -> Expr {
    Expr::slot("value", Lit::float(value))
}

/// Whether the input may be overwritten: a layer has made it, nobody else reads it, and no gradient needs it.
fn overwrites(b: &Builder<'_>) -> Result<bool, modelport_ir::Problem> {
    let input = b.input(0)?;
    let is_layer = matches!(b.graph.op(input.node), Op::Conv(_) | Op::BatchNorm(_));
    Ok(is_layer && b.graph.uses(input) == 1)
}

/// Functions of one element.
pub fn unary(b: &mut Builder<'_>, op: Unary) -> Built {
    use Unary::*;
    let x = b.tensor(0)?;
    // Activations have a module form; the rest are methods or functions of torch.
    let activation = match op {
        Relu => Some(("F.relu", "nn.ReLU")),
        Relu6 => Some(("F.relu6", "nn.ReLU6")),
        Sigmoid => Some(("torch.sigmoid", "nn.Sigmoid")),
        Tanh => Some(("torch.tanh", "nn.Tanh")),
        Softplus => Some(("F.softplus", "nn.Softplus")),
        Softsign => Some(("F.softsign", "nn.Softsign")),
        Selu => Some(("F.selu", "nn.SELU")),
        Silu => Some(("F.silu", "nn.SiLU")),
        Mish => Some(("F.mish", "nn.Mish")),
        HardSigmoid => Some(("F.hardsigmoid", "nn.Hardsigmoid")),
        HardSwish => Some(("F.hardswish", "nn.Hardswish")),
        _ => None,
    };
    if let Some((function, module)) = activation {
        // This one gained by it, 3 % of a mobilenet_v2; ReLU did not.
        let settings = if op == Relu6 && overwrites(b)? {
            vec![Arg::keyword("inplace", Expr::slot("inplace", Lit::Bool(true)), Some(Lit::Bool(false)))]
        } else {
            Vec::new()
        };
        b.as_module(Expr::call(module, settings.clone()));
        return Ok(Expr::call(function, std::iter::once(Arg::new(x)).chain(settings).collect()));
    }
    let method = match op {
        Neg => return Ok(Expr::Prefix("-", Box::new(x))),
        Not => return Ok(Expr::Prefix("~", Box::new(x))),
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
        Floor => "floor",
        Ceil => "ceil",
        Round => "round",
        Sin => "sin",
        Cos => "cos",
        Tan => "tan",
        Asin => "asin",
        Acos => "acos",
        Atan => "atan",
        Sinh => "sinh",
        Cosh => "cosh",
        Asinh => "asinh",
        Acosh => "acosh",
        Atanh => "atanh",
        Erf => "erf",
        IsNan => "isnan",
        IsInf => "isinf",
        IsFinite => "isfinite",
        Relu | Relu6 | Sigmoid | Tanh | Softplus | Softsign | Selu | Silu | Mish | HardSigmoid | HardSwish => {
            return Err(b.problem("an activation without a function"));
        }
    };
    Ok(x.method(method, Vec::new()))
}

/// A function of `torch.nn.functional` with one parameter, and its module form.
pub fn activation(b: &mut Builder<'_>, function: &str, module: &str, arg: Option<Arg>) -> Built {
    let x = b.tensor(0)?;
    b.as_module(Expr::call(module, arg.clone().into_iter().collect()));
    Ok(Expr::call(function, std::iter::once(Arg::new(x)).chain(arg).collect()))
}

/// `x.clamp(…)`.
pub fn clip(b: &mut Builder<'_>, op: &Clip) -> Built {
    let x = b.tensor(0)?;
    let integer = b.dtype(0)?.is_int();
    let limit = |value: f32| Expr::slot("limit", if integer { Lit::Int(value as i64) } else { Lit::float(value) });
    let args = match (op.min, op.max) {
        (Some(min), Some(max)) => vec![Arg::new(limit(min)), Arg::new(limit(max))],
        (Some(min), None) => vec![Arg::new(limit(min))],
        (None, Some(max)) => vec![Arg::keyword("max", limit(max), None)],
        (None, None) => return Ok(x),
    };
    Ok(x.method("clamp", args))
}

/// Softmax and its logarithm.
pub fn softmax(b: &mut Builder<'_>, function: &str, module: &str, axis: usize) -> Built {
    let rank = b.shape(0)?.rank();
    // The last axis of a matrix is 1 for everyone; of more axes it is the last.
    let dim = if axis + 1 == rank && rank > 2 { Lit::Int(-1) } else { Lit::size(axis) };
    let arg = Arg::keyword("dim", Expr::slot("dim", dim), None);
    activation(b, function, module, Some(arg))
}

/// Functions of two elements.
pub fn binary(b: &mut Builder<'_>, op: Binary) -> Built {
    use Binary::*;
    let dtype = b.dtype(0)?;
    let function = match op {
        Maximum | Minimum => {
            // A number is a limit.
            for (x, limit) in [(0, 1), (1, 0)] {
                let expr = b.operand(limit)?;
                if matches!(expr, Expr::Slot(_)) && !b.is_constant(x) {
                    let x = b.tensor(x)?;
                    let arg = match op {
                        Maximum => Arg::new(expr),
                        _ => Arg::keyword("max", expr, None),
                    };
                    return Ok(x.method("clamp", vec![arg]));
                }
            }
            Some(if op == Maximum { "torch.maximum" } else { "torch.minimum" })
        }
        Atan2 => Some("torch.atan2"),
        Fmod => Some("torch.fmod"),
        _ => None,
    };
    if let Some(function) = function {
        let (x, y) = (b.tensor(0)?, b.tensor(1)?);
        return Ok(Expr::call(function, vec![Arg::new(x), Arg::new(y)]));
    }
    // A constant on both sides: one must be a tensor.
    let (x, y) = if b.is_constant(0) && b.is_constant(1) {
        (b.tensor(0)?, b.tensor(1)?)
    } else {
        (b.operand(0)?, b.operand(1)?)
    };
    // What a number is for, should it differ between uses of a class.
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
    let operator = match op {
        Add => "+",
        Sub => "-",
        Mul => "*",
        Div if dtype.is_int() => {
            let mode = Arg::keyword("rounding_mode", Expr::slot("rounding_mode", Lit::Str("trunc".to_owned())), None);
            return Ok(Expr::call("torch.div", vec![Arg::new(x), Arg::new(y), mode]));
        }
        Div => "/",
        FloorDiv => "//",
        Mod => "%",
        Pow => "**",
        SquaredDifference => return Ok(x.binary("-", y).method("square", Vec::new())),
        Equal => "==",
        NotEqual => "!=",
        Less => "<",
        LessEqual => "<=",
        Greater => ">",
        GreaterEqual => ">=",
        And => "&",
        Or => "|",
        Xor => "^",
        Maximum | Minimum | Atan2 | Fmod => return Err(b.problem("a function without an operator")),
    };
    Ok(x.binary(operator, y))
}

/// `torch.where`.
pub fn select(b: &mut Builder<'_>) -> Built {
    let condition = b.tensor(0)?;
    // Two numbers would lose the element type.
    let (yes, no) = if b.is_constant(1) && b.is_constant(2) {
        (b.tensor(1)?, b.tensor(2)?)
    } else {
        (b.operand(1)?, b.operand(2)?)
    };
    Ok(Expr::call("torch.where", vec![Arg::new(condition), Arg::new(yes), Arg::new(no)]))
}

/// `x.to(…)`, or the short forms.
pub fn cast(b: &mut Builder<'_>, dtype: DType) -> Built {
    let x = b.tensor(0)?;
    let method = match dtype {
        DType::Float32 => "float",
        DType::Int64 => "long",
        DType::Int32 => "int",
        DType::Bool => "bool",
        other => return Ok(x.method("to", vec![Arg::new(Expr::name(&torch_dtype(other)))])),
    };
    Ok(x.method(method, Vec::new()))
}

/// `x.cumsum(…)`.
pub fn cumsum(b: &mut Builder<'_>, op: &CumSum) -> Built {
    let dtype = b.dtype(0)?;
    let x = b.tensor(0)?;
    let dim = || Arg::new(Expr::int("dim", op.axis));
    let flip = |x: Expr| x.method("flip", vec![dim()]);
    let mut args = vec![dim()];
    if dtype.is_int() && dtype != DType::Int64 {
        args.push(Arg::keyword("dtype", Expr::name(&torch_dtype(dtype)), None));
    }
    let sum = if op.reverse { flip(flip(x.clone()).method("cumsum", args)) } else { x.clone().method("cumsum", args) };
    Ok(if op.exclusive { sum.binary("-", x) } else { sum })
}

/// Reductions over axes.
pub fn reduce(b: &mut Builder<'_>, op: &Reduce) -> Built {
    let x = b.tensor(0)?;
    if let Some(pool) = global_pool(b, op)? {
        b.as_module(Expr::call(&pool, vec![Arg::new(Expr::int("output_size", 1))]));
    }
    if op.axes.is_empty() {
        return Ok(match op.kind {
            ReduceKind::L2 => x.method("abs", Vec::new()),
            _ => x,
        });
    }
    let dtype = b.dtype(0)?;
    let keep = Arg::keyword("keepdim", Expr::slot("keepdim", Lit::Bool(op.keep_dims)), Some(Lit::Bool(false)));
    let typed = |mut args: Vec<Arg>| {
        if dtype.is_int() && dtype != DType::Int64 {
            args.push(Arg::keyword("dtype", Expr::name(&torch_dtype(dtype)), None));
        }
        args
    };
    let method = match op.kind {
        ReduceKind::Sum => return Ok(x.method("sum", typed(vec![Arg::new(dims(&op.axes)), keep]))),
        ReduceKind::Mean if dtype.is_int() => {
            let sum = x.method("sum", vec![Arg::new(dims(&op.axes)), keep]);
            let count: Option<usize> = op.axes.iter().map(|&axis| b.shape(0).ok()?.get(axis)?.known()).product();
            let count = count.ok_or_else(|| b.problem("the size of a reduced axis is not known"))?;
            let mode = Arg::keyword("rounding_mode", Expr::slot("rounding_mode", Lit::Str("trunc".to_owned())), None);
            let mean = Expr::call("torch.div", vec![Arg::new(sum), Arg::new(Expr::int("count", count)), mode]);
            return Ok(mean.method("to", vec![Arg::new(Expr::name(&torch_dtype(dtype)))]));
        }
        ReduceKind::Mean => "mean",
        ReduceKind::Max => "amax",
        ReduceKind::Min => "amin",
        ReduceKind::LogSumExp => "logsumexp",
        ReduceKind::All | ReduceKind::Any => {
            let name = if op.kind == ReduceKind::All { "all" } else { "any" };
            return Ok(x.method(name, vec![Arg::new(dims(&op.axes)), keep]));
        }
        ReduceKind::L2 => {
            let dim = Arg::keyword("dim", dims(&op.axes), None);
            return Ok(Expr::call("torch.linalg.vector_norm", vec![Arg::new(x), dim, keep]));
        }
        ReduceKind::Prod => {
            // One axis at a time, the last first, so that the numbers of the others stay.
            return Ok(op
                .axes
                .iter()
                .rev()
                .fold(x, |x, &axis| x.method("prod", typed(vec![Arg::new(Expr::int("dim", axis)), keep.clone()]))));
        }
    };
    Ok(x.method(method, vec![Arg::new(dims(&op.axes)), keep]))
}

/// The module of the source that a mean over all places was: `nn.AdaptiveAvgPool2d`.
fn global_pool(b: &Builder<'_>, op: &Reduce) -> Result<Option<String>, Problem> {
    let kind = match op.kind {
        ReduceKind::Mean => "Avg",
        ReduceKind::Max => "Max",
        _ => return Ok(None),
    };
    let rank = b.shape(0)?.rank();
    let class = b.graph.module_of(b.node).and_then(|path| b.graph.modules.get(path)).map(String::as_str);
    let pool = format!("Adaptive{kind}Pool{}d", rank.saturating_sub(2));
    let all = op.keep_dims && op.axes.iter().copied().eq(2..rank);
    Ok((all && class == Some(pool.as_str())).then(|| format!("nn.{pool}")))
}

/// `x.argmax(…)`.
pub fn arg_reduce(b: &mut Builder<'_>, op: &ArgReduce) -> Built {
    let x = b.tensor(0)?;
    let name = if op.kind == Extreme::Max { "argmax" } else { "argmin" };
    let keep = Arg::keyword("keepdim", Expr::slot("keepdim", Lit::Bool(op.keep_dims)), Some(Lit::Bool(false)));
    let result = x.method(name, vec![Arg::new(Expr::int("dim", op.axis)), keep]);
    Ok(as_index(result, op.dtype))
}

/// PyTorch's positions are int64.
fn as_index(x: Expr, dtype: DType) -> Expr {
    match dtype {
        DType::Int64 => x,
        DType::Int32 => x.method("int", Vec::new()),
        other => x.method("to", vec![Arg::new(Expr::name(&torch_dtype(other)))]),
    }
}

/// `x.topk(k)`. The positions keep their type by a cast where they are used: see [`super`].
pub fn top_k(b: &mut Builder<'_>, op: &TopK) -> Built {
    let x = b.tensor(0)?;
    b.results(vec!["values".to_owned(), "indices".to_owned()]);
    if op.index_dtype == DType::Int64 {
        return Ok(x.method("topk", vec![Arg::new(Expr::int("k", op.k))]));
    }
    // A stable sort says which of equal elements comes first.
    let call = x.method("topk", vec![Arg::new(Expr::int("k", op.k))]);
    let part = |name: &str| Expr::Attr(Box::new(call.clone()), name.to_owned());
    Ok(Expr::Tuple(vec![part("values"), as_index(part("indices"), op.index_dtype)]))
}

/// `a @ b`.
pub fn matmul(b: &mut Builder<'_>, op: &MatMul) -> Built {
    let mut side = |slot: usize, transpose: bool| -> Built {
        let x = b.tensor(slot)?;
        Ok(if transpose { Expr::Attr(Box::new(x), "mT".to_owned()) } else { x })
    };
    let (x, y) = (side(0, op.transpose_a)?, side(1, op.transpose_b)?);
    Ok(x.binary("@", y))
}

/// `F.scaled_dot_product_attention`, whose own scale is the inverse root of the size of the query.
pub fn attention(b: &mut Builder<'_>, op: &Attention) -> Built {
    let size = b.shape(0)?.last().and_then(Dim::known).unwrap_or(0);
    let mut args = (0..3).map(|slot| b.tensor(slot).map(Arg::new)).collect::<Result<Vec<_>, _>>()?;
    if b.has(3).is_some() {
        args.push(Arg::keyword("attn_mask", b.tensor(3)?, None));
    }
    if op.causal {
        args.push(Arg::keyword("is_causal", Expr::slot("causal", Lit::Bool(true)), None));
    }
    let usual = 1.0 / (size as f32).sqrt();
    if (op.scale - usual).abs() > 1e-6 * usual {
        args.push(Arg::keyword("scale", Expr::slot("scale", Lit::float(op.scale)), None));
    }
    Ok(Expr::call("F.scaled_dot_product_attention", args))
}

/// `torch.einsum`.
pub fn einsum(b: &mut Builder<'_>, equation: &str) -> Built {
    let mut args = vec![Arg::new(Expr::slot("equation", Lit::Str(equation.to_owned())))];
    for slot in 0..b.input_count() {
        args.push(Arg::new(b.tensor(slot)?));
    }
    Ok(Expr::call("torch.einsum", args))
}

/// `F.normalize`: its `eps` limits the norm, ours the sum of squares. It is said to take one axis only.
pub fn l2_normalize(b: &mut Builder<'_>, op: &L2Normalize) -> Built {
    let x = b.tensor(0)?;
    if op.axes.len() > 1 {
        let keep = Expr::slot("keepdim", Lit::Bool(true));
        let norm = x
            .clone()
            .method("norm", vec![Arg::keyword("dim", dims(&op.axes), None), Arg::keyword("keepdim", keep, None)]);
        let limit = Arg::keyword("min", float(op.epsilon.sqrt()), None);
        return Ok(x.binary("/", norm.method("clamp", vec![limit])));
    }
    Ok(Expr::call(
        "F.normalize",
        vec![
            Arg::new(x),
            Arg::keyword("dim", dims(&op.axes), Some(Lit::Int(1))),
            Arg::keyword("eps", float(op.epsilon.sqrt()), Some(Lit::float(1e-12))),
        ],
    ))
}

/// `F.local_response_norm`: it divides alpha by the size of the window.
pub fn lrn(b: &mut Builder<'_>, op: &Lrn) -> Built {
    if op.layout != Layout::ChannelsFirst {
        return Err(b.problem("a layer was left with channels last, expected channels first"));
    }
    let args = vec![
        Arg::new(Expr::int("size", op.size)),
        Arg::keyword("alpha", Expr::slot("alpha", Lit::float(op.alpha * op.size as f32)), Some(Lit::float(1e-4))),
        Arg::keyword("beta", Expr::slot("beta", Lit::float(op.beta)), Some(Lit::float(0.75))),
        Arg::keyword("k", Expr::slot("k", Lit::float(op.k)), Some(Lit::float(1.0))),
    ];
    let x = b.tensor(0)?;
    b.as_module(Expr::call("nn.LocalResponseNorm", args.clone()));
    Ok(Expr::call("F.local_response_norm", std::iter::once(Arg::new(x)).chain(args).collect()))
}
