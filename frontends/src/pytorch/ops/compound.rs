//! Operators that others say: each is written as PyTorch's documentation defines it.

use modelport_ir::op::ReduceKind;
use modelport_ir::weight_norm::{Entry as Part, WeightNorm};
use modelport_ir::{DType, Dim, Result, Tensor, Value, op};

use super::activation::real;
use super::{Call, Entry, op};
use crate::pytorch::arg::{Arg, Weight};

const TWO: &str = "self other";

pub const OPS: &[Entry] = &[
    op("bucketize", "self boundaries out_int32=False right=False", |call| bins(call, "self", "boundaries")),
    op("searchsorted", "sorted_sequence self out_int32=False right=False side=None sorter=None", |call| {
        bins(call, "self", "sorted_sequence")
    }),
    op("cosine_similarity", "x1 x2 dim=1 eps=1e-8", cosine_similarity),
    op("pairwise_distance", "x1 x2 p=2 eps=1e-6 keepdim=False", pairwise_distance),
    op("cdist", "x1 x2 p=2 compute_mode=None", distances),
    op("_cdist_forward", "x1 x2 p=2 compute_mode=None", distances),
    op("tensordot", "self other dims_self dims_other", tensordot),
    op("linalg_vecdot", "x y dim=-1", |call| {
        let product = call.call("mul", &[call.arg("x"), call.arg("y")])?;
        call.call("sum", &[product, call.arg("dim")])
    }),
    op("linalg_norm", "self ord=None dim=None keepdim=False dtype=None", linalg_norm),
    op("linalg_matrix_norm", "self ord=fro dim=[-2,-1] keepdim=False dtype=None", linalg_norm),
    op("frobenius_norm", "self dim=None keepdim=False", |call| {
        call.call("linalg_vector_norm", &[call.arg("self"), Arg::Float(2.0), call.arg("dim"), call.arg("keepdim")])
    }),
    op("_weight_norm", "v g dim=0", weight_norm),
    op("_weight_norm_interface", "v g dim=0", |call| Ok(vec![weight_norm(call)?, Arg::None].into())),
    op("nan_to_num", "self nan=None posinf=None neginf=None", nan_to_num),
    op("logaddexp", TWO, |call| log_of_sum(call, false)),
    op("logaddexp2", TWO, |call| log_of_sum(call, true)),
    op("hypot", TWO, |call| {
        let (a, b) = (call.call("square", &[call.arg("self")])?, call.call("square", &[call.arg("other")])?);
        let sum = call.call("add", &[a, b])?;
        call.call("sqrt", &[sum])
    }),
    op("copysign", TWO, |call| {
        let size = call.call("abs", &[call.arg("self")])?;
        let opposite = call.call("neg", std::slice::from_ref(&size))?;
        let negative = call.call("lt", &[call.arg("other"), 0.into()])?;
        call.call("where", &[negative, opposite, size])
    }),
    op("heaviside", "self values", |call| {
        let positive = call.call("gt", &[call.arg("self"), 0.into()])?;
        let step = call.call("type_as", &[positive, call.arg("self")])?;
        let zero = call.call("eq", &[call.arg("self"), 0.into()])?;
        call.call("where", &[zero, call.arg("values"), step])
    }),
    op("xlogy", TWO, |call| {
        let log = call.call("log", &[call.arg("other")])?;
        let product = call.call("mul", &[call.arg("self"), log])?;
        let zero = call.call("eq", &[call.arg("self"), 0.into()])?;
        call.call("where", &[zero, Arg::Float(0.0), product])
    }),
    op("sinc", "self", |call| {
        let angle = call.call("mul", &[call.arg("self"), Arg::Float(std::f64::consts::PI)])?;
        let sine = call.call("sin", std::slice::from_ref(&angle))?;
        let quotient = call.call("div", &[sine, angle])?;
        let zero = call.call("eq", &[call.arg("self"), 0.into()])?;
        call.call("where", &[zero, Arg::Float(1.0), quotient])
    }),
    op("deg2rad", "self", |call| call.call("mul", &[call.arg("self"), Arg::Float(std::f64::consts::PI / 180.0)])),
    op("rad2deg", "self", |call| call.call("mul", &[call.arg("self"), Arg::Float(180.0 / std::f64::consts::PI)])),
    op("isclose", "self other rtol=1e-5 atol=1e-8 equal_nan=False", is_close),
    op("count_nonzero", "self dim=None", |call| {
        let nonzero = call.call("ne", &[call.arg("self"), 0.into()])?;
        call.call("sum", &[nonzero, call.arg("dim")])
    }),
    op("nansum", "self dim=None keepdim=False", |call| {
        let missing = call.call("isnan", &[call.arg("self")])?;
        let x = call.call("masked_fill", &[call.arg("self"), missing, Arg::Float(0.0)])?;
        call.call("sum", &[x, call.arg("dim"), call.arg("keepdim")])
    }),
    op("aminmax", "self dim=None keepdim=False", |call| {
        let args = [call.arg("self"), call.arg("dim"), call.arg("keepdim")];
        let args = if args[1].is_none() { args.into_iter().take(1).collect() } else { args.to_vec() };
        Ok(vec![call.call("amin", &args)?, call.call("amax", &args)?].into())
    }),
    op("median", "self dim=-1 keepdim=False", |call| {
        let axis = call.axis("dim", call.shape("self")?.rank())?;
        let length = call.known(&call.shape("self")?, axis, "the length of the axis")?;
        kth(call, length.saturating_sub(1) / 2)
    }),
    op("kthvalue", "self k dim=-1 keepdim=False", |call| {
        let k = call.size("k")?;
        kth(call, k.checked_sub(1).ok_or_else(|| call.fail("k counts from 1"))?)
    }),
    op("msort", "self", |call| {
        let sorted = call.call("sort", &[call.arg("self"), 0.into()])?;
        Ok(sorted.list().and_then(|parts| parts.first()).cloned().unwrap_or_default())
    }),
    op("hstack", "tensors", |call| {
        let parts = at_least(call, 1)?;
        let axis = parts.first().map_or(0, |part| usize::from(call.lower.graph.shape(*part).rank() > 1));
        let parts: Vec<Arg> = parts.into_iter().map(Arg::from).collect();
        call.call("cat", &[parts.into(), axis.into()])
    }),
    op("vstack", "tensors", |call| {
        let parts: Vec<Arg> = at_least(call, 2)?.into_iter().map(Arg::from).collect();
        call.call("cat", &[parts.into(), 0.into()])
    }),
    op("dstack", "tensors", |call| {
        let parts: Vec<Arg> = at_least(call, 3)?.into_iter().map(Arg::from).collect();
        call.call("cat", &[parts.into(), 2.into()])
    }),
    op("atleast_1d", "self", |call| with_rank(call, "self", 1)),
    op("atleast_2d", "self", |call| with_rank(call, "self", 2)),
    op("atleast_3d", "self", |call| with_rank(call, "self", 3)),
    op("take", "self index", |call| {
        let flat = call.call("flatten", &[call.arg("self")])?;
        call.call("index", &[flat, vec![call.arg("index")].into()])
    }),
    op("diag_embed", "self offset=0 dim1=-2 dim2=-1", diag_embed),
    op("linalg_multi_dot", "tensors", |call| {
        let mut parts = call.values("tensors")?.into_iter();
        let mut product = Arg::from(parts.next().ok_or_else(|| call.fail("there are no matrices"))?);
        for part in parts {
            product = call.call("matmul", &[product, part.into()])?;
        }
        Ok(product)
    }),
    op("float_power", "self exponent", |call| {
        let x = call.call("double", &[call.arg("self")])?;
        call.call("pow", &[x, call.arg("exponent")])
    }),
    op("signbit", "self", |call| call.call("lt", &[call.arg("self"), 0.into()])),
    op("flipud", "self", |call| call.call("flip", &[call.arg("self"), vec![0.into()].into()])),
    op("fliplr", "self", |call| call.call("flip", &[call.arg("self"), vec![1.into()].into()])),
    op("rot90", "self k=1 dims=[0,1]", rotate),
    op("diff", "self n=1 dim=-1 prepend=None append=None", differences),
    op("cumprod", "self dim dtype=None", |call| running(call, ReduceKind::Prod, 1.0)),
    op("logcumsumexp", "self dim", |call| running(call, ReduceKind::LogSumExp, f64::NEG_INFINITY)),
    op("cummax", "self dim", |call| running(call, ReduceKind::Max, f64::NEG_INFINITY).map(first_of_two)),
    op("cummin", "self dim", |call| running(call, ReduceKind::Min, f64::INFINITY).map(first_of_two)),
    op("diagonal", "self offset=0 dim1=0 dim2=1", diagonal),
    op("trace", "self", |call| {
        let diagonal = call.call("diagonal", &[call.arg("self")])?;
        call.call("sum", &[diagonal])
    }),
    op("cross", "self other dim=None", cross),
    op("linalg_cross", "self other dim=-1", cross),
    op("addr", "self vec1 vec2 beta=1 alpha=1", |call| {
        let product = call.call("outer", &[call.arg("vec1"), call.arg("vec2")])?;
        let product = call.call("mul", &[product, call.arg("alpha")])?;
        let x = call.call("mul", &[call.arg("self"), call.arg("beta")])?;
        call.call("add", &[x, product])
    }),
    op("lstm_cell", "input hx w_ih w_hh b_ih=None b_hh=None", lstm_cell),
    op("gru_cell", "input hx w_ih w_hh b_ih=None b_hh=None", gru_cell),
    op("rnn_tanh_cell", "input hx w_ih w_hh b_ih=None b_hh=None", |call| simple_cell(call, "tanh")),
    op("rnn_relu_cell", "input hx w_ih w_hh b_ih=None b_hh=None", |call| simple_cell(call, "relu")),
];

/// `x1 · x2 / max(|x1| |x2|, eps)`, where each norm is at least `eps`.
fn cosine_similarity(call: &mut Call) -> Result<Arg> {
    let (dim, eps) = (call.arg("dim"), call.arg("eps"));
    let mut unit = Vec::new();
    for name in ["x1", "x2"] {
        let norm = call.call("linalg_vector_norm", &[call.arg(name), Arg::Float(2.0), dim.clone(), true.into()])?;
        let norm = call.call("clamp_min", &[norm, eps.clone()])?;
        unit.push(call.call("div", &[call.arg(name), norm])?);
    }
    let product = call.call("mul", &unit)?;
    call.call("sum", &[product, dim])
}

/// `|x1 - x2 + eps|_p` over the last axis.
fn pairwise_distance(call: &mut Call) -> Result<Arg> {
    let difference = call.call("sub", &[call.arg("x1"), call.arg("x2")])?;
    let difference = call.call("add", &[difference, call.arg("eps")])?;
    call.call("linalg_vector_norm", &[difference, call.arg("p"), (-1).into(), call.arg("keepdim")])
}

/// `y[i, j] = |x1[i] - x2[j]|_p`
fn distances(call: &mut Call) -> Result<Arg> {
    let rows = call.call("unsqueeze", &[call.arg("x1"), (-2).into()])?;
    let columns = call.call("unsqueeze", &[call.arg("x2"), (-3).into()])?;
    let difference = call.call("sub", &[rows, columns])?;
    call.call("linalg_vector_norm", &[difference, call.arg("p"), (-1).into()])
}

/// Sums over pairs of axes: an einsum.
fn tensordot(call: &mut Call) -> Result<Arg> {
    let (a, b) = (call.value("self")?, call.value("other")?);
    let rank = |call: &Call, value: Value| call.lower.graph.shape(value).rank();
    let (n, m) = (rank(call, a), rank(call, b));
    let (left, right) = (call.axes("dims_self", n)?, call.axes("dims_other", m)?);
    if n + m > 26 || left.len() != right.len() {
        return Err(call.fail("the axes do not fit"));
    }
    let letters: Vec<char> = ('a'..='z').collect();
    let own: Vec<char> = letters.iter().copied().take(n).collect();
    let mut other: Vec<char> = letters.iter().copied().skip(n).take(m).collect();
    for (&i, &j) in left.iter().zip(&right) {
        if let (Some(letter), Some(place)) = (own.get(i), other.get_mut(j)) {
            *place = *letter;
        }
    }
    let kept = |letter: &&char| own.contains(letter) != other.contains(letter);
    let result: String = own.iter().chain(&other).filter(kept).collect();
    let text = |letters: &[char]| letters.iter().collect::<String>();
    let equation = format!("{},{}->{result}", text(&own), text(&other));
    Ok(call.add(op::Einsum { equation }, &[a, b])?.into())
}

/// Norms of vectors, and the one of matrices that is a vector's.
fn linalg_norm(call: &mut Call) -> Result<Arg> {
    let (order, axes) = (call.arg("ord"), call.arg("dim"));
    let matrix = axes.list().is_some_and(|list| list.len() == 2)
        || (axes.is_none() && !order.is_none() && call.shape("self")?.rank() == 2);
    let frobenius = order.is_none() || matches!(&order, Arg::Str(text) if &**text == "fro");
    if matrix && !frobenius {
        return Err(call.fail("of the norms of matrices only Frobenius' is translated"));
    }
    let order = if frobenius { Arg::Float(2.0) } else { order };
    call.call("linalg_vector_norm", &[call.arg("self"), order, axes, call.arg("keepdim")])
}

/// `g * v / |v|`, where the norm is over all axes but one.
fn weight_norm(call: &mut Call) -> Result<Arg> {
    let rank = call.shape("v")?.rank();
    let dim = call.int("dim")?;
    // All axes count when the axis is said to be -1 or none.
    let kept = if dim == -1 { None } else { Some(call.axis("dim", rank)?) };
    if let (Some(direction), Some(length)) = (call.weight("v"), call.weight("g")) {
        let entry = |weight: Weight| Part { key: weight.name.to_string(), tensor: weight.tensor };
        let norm = WeightNorm { axis: kept, length: entry(length), direction: entry(direction) };
        if let Some(weight) = call.lower.weight_norm(norm)? {
            return Ok(weight);
        }
    }
    let axes: Vec<Arg> = (0..rank).filter(|&axis| Some(axis) != kept).map(Arg::from).collect();
    let norm = call.call("linalg_vector_norm", &[call.arg("v"), Arg::Float(2.0), axes.into(), true.into()])?;
    let factor = call.call("div", &[call.arg("g"), norm])?;
    call.call("mul", &[call.arg("v"), factor])
}

fn nan_to_num(call: &mut Call) -> Result<Arg> {
    let dtype = call.dtype("self")?;
    if !dtype.is_float() {
        return Ok(call.arg("self"));
    }
    let largest = if dtype == DType::Float64 { f64::MAX } else { f64::from(f32::MAX) };
    let or = |arg: Arg, default: f64| if arg.is_none() { Arg::Float(default) } else { arg };
    let missing = call.call("isnan", &[call.arg("self")])?;
    let (high, low) = (or(call.arg("posinf"), largest), or(call.arg("neginf"), -largest));
    let mut x = call.arg("self");
    for (limit, comparison, value) in [(f64::INFINITY, "eq", high), (f64::NEG_INFINITY, "eq", low)] {
        let there = call.call(comparison, &[x.clone(), Arg::Float(limit)])?;
        x = call.call("where", &[there, value, x])?;
    }
    call.call("where", &[missing, or(call.arg("nan"), 0.0), x])
}

/// `max + log(1 + exp(-|a - b|))`, which can't overflow.
fn log_of_sum(call: &mut Call, base_two: bool) -> Result<Arg> {
    let largest = call.call("maximum", &[call.arg("self"), call.arg("other")])?;
    let difference = call.call("sub", &[call.arg("self"), call.arg("other")])?;
    let difference = call.call("abs", &[difference])?;
    let difference = call.call("neg", &[difference])?;
    let power = call.call(if base_two { "exp2" } else { "exp" }, &[difference])?;
    let mut log = call.call("log1p", &[power])?;
    if base_two {
        log = call.call("mul", &[log, Arg::Float(std::f64::consts::LOG2_E)])?;
    }
    call.call("add", &[largest, log])
}

/// `|a - b| <= atol + rtol * |b|`
fn is_close(call: &mut Call) -> Result<Arg> {
    if call.bool("equal_nan")? {
        return Err(call.fail("comparing with equal_nan=True is not translated"));
    }
    let difference = call.call("sub", &[call.arg("self"), call.arg("other")])?;
    let difference = call.call("abs", &[difference])?;
    let size = call.call("abs", &[call.arg("other")])?;
    let slack = call.call("mul", &[size, call.arg("rtol")])?;
    let slack = call.call("add", &[slack, call.arg("atol")])?;
    call.call("le", &[difference, slack])
}

/// The element that `place` others are before, and where it is.
fn kth(call: &mut Call, place: usize) -> Result<Arg> {
    let rank = call.shape("self")?.rank();
    let axis: Arg = call.axis("dim", rank)?.into();
    let sorted = call.call("sort", &[call.arg("self"), axis.clone()])?;
    let function = if call.bool("keepdim")? { "narrow" } else { "select" };
    let mut parts = Vec::new();
    for part in sorted.list().unwrap_or_default() {
        let mut args = vec![part.clone(), axis.clone(), place.into()];
        if function == "narrow" {
            args.push(1.into());
        }
        parts.push(call.call(function, &args)?);
    }
    Ok(Arg::List(parts))
}

/// Quarter turns from the first of two axes to the second.
fn rotate(call: &mut Call) -> Result<Arg> {
    let rank = call.shape("self")?.rank();
    let axes = call.axes("dims", rank)?;
    let [first, second] = *axes.as_slice() else { return Err(call.fail("two axes turn, not more or fewer")) };
    let flip = |call: &mut Call, x: Arg, axis: usize| call.call("flip", &[x, vec![axis.into()].into()]);
    let x = call.arg("self");
    match call.int("k")?.rem_euclid(4) {
        0 => Ok(x),
        1 => {
            let x = flip(call, x, second)?;
            call.call("transpose", &[x, first.into(), second.into()])
        }
        2 => {
            let x = flip(call, x, first)?;
            flip(call, x, second)
        }
        _ => {
            let x = call.call("transpose", &[x, first.into(), second.into()])?;
            flip(call, x, second)
        }
    }
}

/// `x[1:] - x[:-1]`, as often as is said.
fn differences(call: &mut Call) -> Result<Arg> {
    let axis: Arg = call.axis("dim", call.shape("self")?.rank())?.into();
    let parts = [call.arg("prepend"), call.arg("self"), call.arg("append")];
    let parts: Vec<Arg> = parts.into_iter().filter(|part| !part.is_none()).collect();
    let mut x = match parts.as_slice() {
        [x] => x.clone(),
        _ => call.call("cat", &[Arg::List(parts), axis.clone()])?,
    };
    for _ in 0..call.size("n")?.min(64) {
        let later = call.call("slice", &[x.clone(), axis.clone(), 1.into()])?;
        let earlier = call.call("slice", &[x, axis.clone(), Arg::None, (-1).into()])?;
        x = call.call("sub", &[later, earlier])?;
    }
    Ok(x)
}

/// What is gathered up to each element, `y[i] = f(x[0], …, x[i])`: a reduction over a triangle of copies.
fn running(call: &mut Call, kind: ReduceKind, neutral: f64) -> Result<Arg> {
    let x = real(call, "self")?;
    let shape = call.lower.graph.shape(x).clone();
    let axis = call.axis("dim", shape.rank())?;
    let length = call.known(&shape, axis, "the length of the axis")?;
    if length > 1 << 12 {
        return Err(call.fail(format!("an axis of {length} elements is too long for a triangle of copies")));
    }
    // [..., 1, length, ...] with the triangle [length, length, 1...] gives [..., length, length, ...].
    let copies = call.add(op::Unsqueeze { axes: vec![axis] }, &[x])?;
    let triangle: Vec<i64> = (0..length).flat_map(|i| (0..length).map(move |j| i64::from(j <= i))).collect();
    let mut sides = vec![length, length];
    sides.resize(shape.rank() - axis + 1, 1);
    let triangle = call.constant(Tensor::from_i64(&sides, &triangle).cast(DType::Bool));
    let dtype = call.lower.graph.info(x).dtype;
    let neutral = call.scalar(dtype, neutral);
    let copies = call.add(op::Select {}, &[triangle, copies, neutral])?;
    Ok(call.add(op::Reduce { kind, axes: vec![axis + 1], keep_dims: false }, &[copies])?.into())
}

/// Positions beside the values are not known: whoever reads them is told.
/// The tensors of a list with at least this many axes.
fn at_least(call: &mut Call, rank: usize) -> Result<Vec<Value>> {
    let parts = call.values("tensors")?;
    parts.into_iter().map(|part| raised(call, part, rank)).collect()
}

fn with_rank(call: &mut Call, name: &str, rank: usize) -> Result<Arg> {
    let x = call.value(name)?;
    Ok(raised(call, x, rank)?.into())
}

/// New axes go in front, but the third comes last, as in NumPy.
fn raised(call: &mut Call, x: Value, rank: usize) -> Result<Value> {
    let own = call.lower.graph.shape(x).rank();
    let axes: Vec<usize> = match (own, rank) {
        (0, rank) => (0..rank).collect(),
        (1, 2) => vec![0],
        (1, 3) => vec![0, 2],
        (2, 3) => vec![2],
        _ => return Ok(x),
    };
    call.add(op::Unsqueeze { axes }, &[x])
}

/// Matrices with the last axis on their main diagonal.
fn diag_embed(call: &mut Call) -> Result<Arg> {
    let shape = call.shape("self")?;
    let rank = shape.rank() + 1;
    let axes = [call.int("dim1")?, call.int("dim2")?].map(|axis| call.axis_of(axis, rank));
    let [first, second] = axes;
    if call.int("offset")? != 0 || first? + 2 != rank || second? + 1 != rank {
        return Err(call.fail("only the main diagonal of the last two axes is translated"));
    }
    let size = call.known(&shape, rank - 2, "the length of the diagonal")?;
    let eye = call.call("eye", &[size.into()])?;
    let columns = call.call("unsqueeze", &[call.arg("self"), Arg::from(-1i64)])?;
    call.call("mul", &[columns, eye])
}

fn first_of_two(values: Arg) -> Arg {
    vec![values, Arg::None].into()
}

/// The elements on a diagonal of two axes, as the last axis.
fn diagonal(call: &mut Call) -> Result<Arg> {
    let x = call.value("self")?;
    let shape = call.lower.graph.shape(x).clone();
    let rank = shape.rank();
    let (first, second) = (call.axis("dim1", rank)?, call.axis("dim2", rank)?);
    let offset = call.int("offset")?;
    let (rows, columns) =
        (call.known(&shape, first, "the number of rows")?, call.known(&shape, second, "the number of columns")?);
    let below = usize::try_from(-offset).unwrap_or(0);
    let right = usize::try_from(offset).unwrap_or(0);
    let count = rows.saturating_sub(below).min(columns.saturating_sub(right));
    let perm: Vec<usize> =
        [first, second].into_iter().chain((0..rank).filter(|a| *a != first && *a != second)).collect();
    let x = call.add(op::Transpose { perm }, &[x])?;
    let places: Vec<i64> = (0..count).flat_map(|i| [(i + below) as i64, (i + right) as i64]).collect();
    let places = call.constant(Tensor::from_i64(&[count, 2], &places));
    let y = call.add(op::GatherNd {}, &[x, places])?;
    let perm: Vec<usize> = (1..rank - 1).chain([0]).collect();
    Ok(call.add(op::Transpose { perm }, &[y])?.into())
}

/// The product of vectors of three.
fn cross(call: &mut Call) -> Result<Arg> {
    let shape = call.shape("self")?;
    let axis: Arg = match call.has("dim") {
        true => call.axis("dim", shape.rank())?,
        false => shape.iter().position(|dim| *dim == Dim::Known(3)).unwrap_or(0),
    }
    .into();
    let mut turned = |name: &str, shift: i64| call.call("roll", &[call.arg(name), shift.into(), axis.clone()]);
    let (a1, b2) = (turned("self", -1)?, turned("other", -2)?);
    let (a2, b1) = (turned("self", -2)?, turned("other", -1)?);
    let (left, right) = (call.call("mul", &[a1, b2])?, call.call("mul", &[a2, b1])?);
    call.call("sub", &[left, right])
}

/// `x @ w.T + b` of input and state.
fn gates(call: &mut Call, state: Arg) -> Result<(Arg, Arg)> {
    let input = call.call("linear", &[call.arg("input"), call.arg("w_ih"), call.arg("b_ih")])?;
    let hidden = call.call("linear", &[state, call.arg("w_hh"), call.arg("b_hh")])?;
    Ok((input, hidden))
}

fn parts(call: &mut Call, gates: Arg, count: i64) -> Result<Vec<Arg>> {
    let parts = call.call("chunk", &[gates, count.into(), (-1).into()])?;
    match parts.list() {
        Some(parts) if parts.len() as i64 == count => Ok(parts.to_vec()),
        _ => Err(call.fail(format!("the weights do not have {count} gates"))),
    }
}

/// `torch.nn.LSTMCell`: gates in the order input, forget, cell, output.
fn lstm_cell(call: &mut Call) -> Result<Arg> {
    let states = call.arg("hx");
    let Some([hidden, cell]) = states.list() else { return Err(call.fail("an LSTM has two states")) };
    let (input, hidden) = gates(call, hidden.clone())?;
    let sum = call.call("add", &[input, hidden])?;
    let gates = parts(call, sum, 4)?;
    let mut active = Vec::new();
    for (gate, function) in gates.into_iter().zip(["sigmoid", "sigmoid", "tanh", "sigmoid"]) {
        active.push(call.call(function, &[gate])?);
    }
    let [input, forget, new, output] = active.as_slice() else { return Err(call.fail("an LSTM has four gates")) };
    let kept = call.call("mul", &[forget.clone(), cell.clone()])?;
    let added = call.call("mul", &[input.clone(), new.clone()])?;
    let cell = call.call("add", &[kept, added])?;
    let shown = call.call("tanh", std::slice::from_ref(&cell))?;
    let hidden = call.call("mul", &[output.clone(), shown])?;
    Ok(vec![hidden, cell].into())
}

/// `torch.nn.GRUCell`: gates in the order reset, update, new.
fn gru_cell(call: &mut Call) -> Result<Arg> {
    let state = call.arg("hx");
    let (input, hidden) = gates(call, state.clone())?;
    let (input, hidden) = (parts(call, input, 3)?, parts(call, hidden, 3)?);
    let ([r, z, n], [hr, hz, hn]) = (input.as_slice(), hidden.as_slice()) else {
        return Err(call.fail("a GRU has three gates"));
    };
    let mut gate = |a: &Arg, b: &Arg| -> Result<Arg> {
        let sum = call.call("add", &[a.clone(), b.clone()])?;
        call.call("sigmoid", &[sum])
    };
    let (reset, update) = (gate(r, hr)?, gate(z, hz)?);
    let hidden = call.call("mul", &[reset, hn.clone()])?;
    let new = call.call("add", &[n.clone(), hidden])?;
    let new = call.call("tanh", &[new])?;
    let way = call.call("sub", &[state, new.clone()])?;
    let part = call.call("mul", &[update, way])?;
    call.call("add", &[new, part])
}

fn simple_cell(call: &mut Call, function: &str) -> Result<Arg> {
    let state = call.arg("hx");
    let (input, hidden) = gates(call, state)?;
    let sum = call.call("add", &[input, hidden])?;
    call.call(function, &[sum])
}
/// How many bounds are smaller (or, on the right, not larger): the bin that an element falls into.
fn bins(call: &mut Call, x: &str, bounds: &str) -> Result<Arg> {
    let rank = call.shape(bounds)?.rank();
    if rank != 1 || !call.arg("sorter").is_none() {
        return Err(call.fail(format!("bounds of rank {rank}, expected one sorted list of them")));
    }
    let right = call.bool("right")? || matches!(call.arg("side"), Arg::Str(side) if &*side == "right");
    let x = call.call("unsqueeze", &[call.arg(x), Arg::from(-1i64)])?;
    let above = call.call(if right { "ge" } else { "gt" }, &[x, call.arg(bounds)])?;
    let dtype = if call.bool("out_int32")? { 3i64 } else { 4 };
    call.lower.call("sum", &[above, Arg::List(vec![Arg::from(-1i64)])], &[("dtype", Arg::from(dtype))])
}
