//! Tensors that are made in the network: fills, ranges, masks.

use modelport_ir::op::Binary;
use modelport_ir::{DType, Dim, Result, Shape, Tensor, Value, op};

use super::math::{dtype, operand};
use super::{Call, Entry, op};
use crate::pytorch::arg::{Arg, Weight};
use crate::symbolic::{Arithmetic, Elem};

pub const OPS: &[Entry] = &[
    op("full", "size fill_value dtype=None layout=None device=None pin_memory=None", |call| full(call, "size", None)),
    op("zeros", "size dtype=None layout=None device=None pin_memory=None", |call| full(call, "size", Some(0.0))),
    op("ones", "size dtype=None layout=None device=None pin_memory=None", |call| full(call, "size", Some(1.0))),
    op("empty", "size dtype=None layout=None device=None pin_memory=None memory_format=None", |call| {
        full(call, "size", Some(0.0))
    }),
    op("new_full", "self size fill_value dtype=None layout=None device=None pin_memory=None", |call| {
        full(call, "size", None)
    }),
    op("new_zeros", "self size dtype=None layout=None device=None pin_memory=None", |call| {
        full(call, "size", Some(0.0))
    }),
    op("new_ones", "self size dtype=None layout=None device=None pin_memory=None", |call| {
        full(call, "size", Some(1.0))
    }),
    op("new_empty", "self size dtype=None layout=None device=None pin_memory=None", |call| {
        full(call, "size", Some(0.0))
    }),
    op("full_like", "self fill_value dtype=None layout=None device=None pin_memory=None memory_format=None", |call| {
        full(call, "self", None)
    }),
    op("zeros_like", "self dtype=None layout=None device=None pin_memory=None memory_format=None", |call| {
        full(call, "self", Some(0.0))
    }),
    op("ones_like", "self dtype=None layout=None device=None pin_memory=None memory_format=None", |call| {
        full(call, "self", Some(1.0))
    }),
    op("empty_like", "self dtype=None layout=None device=None pin_memory=None memory_format=None", |call| {
        full(call, "self", Some(0.0))
    }),
    op("fill", "self value", |call| {
        let value = call.arg("value");
        match value.float() {
            Some(_) => call.lower.call("full_like", &[call.arg("self"), value], &[]),
            None => Err(call.fail("the number to fill with is not known")),
        }
    }),
    op("zero", "self", |call| call.call("zeros_like", &[call.arg("self")])),
    op("copy", "self src non_blocking=False", copy),
    op("arange", "start=None end=None step=1 dtype=None layout=None device=None pin_memory=None", |call| {
        // With one number that is the end.
        let (start, end) = match (call.arg("start"), call.arg("end")) {
            (end, Arg::None) => (Arg::from(0i64), end),
            (Arg::None, end) => (Arg::from(0i64), end),
            both => both,
        };
        let step = call.arg("step");
        range(call, start, end, step)
    }),
    op("linspace", "start end steps dtype=None layout=None device=None pin_memory=None", |call| {
        let (start, end, steps) = (call.float("start")?, call.float("end")?, call.size("steps")?);
        if steps > 1 << 24 {
            return Err(call.fail(format!("has {steps} elements")));
        }
        let at = |i: usize| if steps < 2 { start } else { start + (end - start) * i as f64 / (steps - 1) as f64 };
        let dtype = dtype(&call.arg("dtype")).unwrap_or(DType::Float32);
        Ok(known(call, Tensor::from_f64(dtype, &[steps], (0..steps).map(at))))
    }),
    op("eye", "n m=None dtype=None layout=None device=None pin_memory=None", eye),
    op("scalar_tensor", "s dtype=None layout=None device=None pin_memory=None", |call| {
        let dtype = dtype(&call.arg("dtype"));
        number(call, "s", dtype)
    }),
    op("tensor", "data dtype=None device=None requires_grad=False", |call| {
        let dtype = dtype(&call.arg("dtype"));
        if call.arg("data").list().is_some() {
            let numbers: Option<Vec<f64>> =
                call.arg("data").list().map(|l| l.iter().map(Arg::float).collect()).unwrap_or(None);
            let reals = call.arg("data").list().is_some_and(|list| list.iter().any(|arg| matches!(arg, Arg::Float(_))));
            let numbers = numbers.ok_or_else(|| call.fail("the numbers of a tensor are not known"))?;
            let dtype = dtype.unwrap_or(if reals { DType::Float32 } else { DType::Int64 });
            return Ok(known(call, Tensor::from_f64(dtype, &[numbers.len()], numbers)));
        }
        number(call, "data", dtype)
    }),
    op("tril", "self diagonal=0", |call| triangle(call, true)),
    op("triu", "self diagonal=0", |call| triangle(call, false)),
    op("meshgrid", "tensors indexing=ij", meshgrid),
    op("broadcast_tensors", "tensors", |call| {
        let values = call.values("tensors")?;
        let mut shape = Shape::scalar();
        for value in &values {
            let own = call.lower.graph.shape(*value).clone();
            shape = modelport_ir::shape::broadcast(&shape, &own).map_err(|message| call.fail(message))?;
        }
        let like = call.lower.like(&shape)?;
        let expanded = |value| Ok(call.add_with(op::Expand { shape: shape.clone() }, &[Some(value), like])?.into());
        Ok(Arg::List(values.into_iter().map(expanded).collect::<Result<_>>()?))
    }),
];

/// A tensor that is known at conversion time.
pub fn known(call: &Call, tensor: Tensor) -> Arg {
    let op = call.entry.name.split('.').next().unwrap_or_default();
    Weight { name: call.lower.constant_name(op).into(), tensor, trainable: false }.into()
}

fn number(call: &mut Call, name: &str, wanted: Option<DType>) -> Result<Arg> {
    let arg = call.arg(name);
    let own = match arg {
        Arg::Float(_) => DType::Float32,
        Arg::Bool(_) => DType::Bool,
        _ => DType::Int64,
    };
    let dtype = wanted.unwrap_or(own);
    match arg.float() {
        Some(number) if !arg.is_tensor() => Ok(known(call, Tensor::from_f64(dtype, &[], [number]))),
        _ => Ok(operand(call, &arg, dtype)?.into()),
    }
}

/// One number everywhere.
fn full(call: &mut Call, shape: &str, value: Option<f64>) -> Result<Arg> {
    let value = match value {
        Some(value) => value,
        None => call.float("fill_value")?,
    };
    let of_value = match call.arg("fill_value") {
        Arg::Int(_) => DType::Int64,
        Arg::Bool(_) => DType::Bool,
        _ => DType::Float32,
    };
    let like_self = call.has("self").then(|| call.dtype("self")).transpose()?;
    let dtype = dtype(&call.arg("dtype")).or(like_self).unwrap_or(of_value);
    let shape: Shape = match call.arg(shape).is_tensor() {
        true => call.shape(shape)?,
        false => call.elems(shape)?.iter().map(Elem::dim).collect(),
    };
    match shape.sizes() {
        // A small one is a constant that can be computed with.
        Some(sizes) if modelport_ir::tensor::numel(&sizes).is_some_and(|n| n <= 1 << 16) => {
            let count = modelport_ir::tensor::numel(&sizes).unwrap_or(0);
            // A node, not a weight: it may be written to.
            Ok(call.constant(Tensor::from_f64(dtype, &sizes, std::iter::repeat_n(value, count))).into())
        }
        _ => {
            let like = call.lower.like(&shape)?;
            Ok(call.add_with(op::Fill { shape, value: value as f32, dtype }, &[like])?.into())
        }
    }
}

/// Another tensor's elements in this one's shape and type.
fn copy(call: &mut Call) -> Result<Arg> {
    let (shape, dtype) = (call.shape("self")?, call.dtype("self")?);
    let source = operand(call, &call.arg("src"), dtype)?;
    if *call.lower.graph.shape(source) == shape {
        return Ok(source.into());
    }
    let like = call.lower.like(&shape)?;
    Ok(call.add_with(op::Expand { shape }, &[Some(source), like])?.into())
}

fn range(call: &mut Call, start: Arg, end: Arg, step: Arg) -> Result<Arg> {
    let real = [&start, &end, &step].iter().any(|arg| matches!(arg, Arg::Float(_)));
    let dtype = dtype(&call.arg("dtype")).unwrap_or(if real { DType::Float32 } else { DType::Int64 });
    if let (Some(first), Some(last), Some(step)) = (start.float(), end.float(), step.float()) {
        let count = ((last - first) / step).ceil().max(0.0);
        if !(step != 0.0 && count <= f64::from(1 << 24)) {
            return Err(call.fail(format!("has {count} elements")));
        }
        let count = count as usize;
        return Ok(known(call, Tensor::from_f64(dtype, &[count], (0..count).map(|i| first + i as f64 * step))));
    }
    let (Arg::Int(first), Arg::Int(last), Some(1)) = (&start, &end, step.int()) else {
        return Err(call.fail("a range depends on sizes that are not known"));
    };
    let count = call.lower.expressions.apply(Arithmetic::Sub, last, first, DType::Int64).dim();
    let like = call.lower.like(&Shape(vec![count.clone()]))?;
    let y = call.add_with(op::Range { start: 0, limit: count, delta: 1, dtype }, &[like])?;
    if first.int() == Some(0) {
        return Ok(y.into());
    }
    let first = operand(call, &start, dtype)?;
    Ok(call.add(Binary::Add, &[y, first])?.into())
}

fn eye(call: &mut Call) -> Result<Arg> {
    let rows = call.size("n")?;
    let columns = if call.has("m") { call.size("m")? } else { rows };
    if rows.saturating_mul(columns) > 1 << 24 {
        return Err(call.fail(format!("has {rows} rows and {columns} columns")));
    }
    let dtype = dtype(&call.arg("dtype")).unwrap_or(DType::Float32);
    let elements = (0..rows).flat_map(|row| (0..columns).map(move |column| f64::from(u8::from(row == column))));
    Ok(known(call, Tensor::from_f64(dtype, &[rows, columns], elements)))
}

/// Keeps the lower or upper triangle of the last two axes.
fn triangle(call: &mut Call, lower: bool) -> Result<Arg> {
    let x = call.value("self")?;
    let shape = call.lower.graph.shape(x).clone();
    let dtype = call.lower.graph.info(x).dtype;
    let rank = shape.rank();
    let diagonal = call.int("diagonal")?;
    if rank < 2 {
        return Err(call.fail("a triangle takes a matrix"));
    }
    let mask = inside(call, (&shape[rank - 2], &shape[rank - 1]), diagonal, lower)?;
    if dtype == DType::Bool {
        return Ok(call.add(Binary::And, &[x, mask])?.into());
    }
    let zero = call.scalar(dtype, 0.0);
    Ok(call.add(op::Select {}, &[mask, x, zero])?.into())
}

/// Truth at the places of a matrix that lie on a diagonal or below it (`lower`), or on it or above.
pub(super) fn inside(call: &mut Call, (rows, columns): (&Dim, &Dim), diagonal: i64, lower: bool) -> Result<Value> {
    Ok(match (rows.clone(), columns.clone()) {
        (Dim::Known(rows), Dim::Known(columns)) if rows.saturating_mul(columns) <= 1 << 24 => {
            let inside = |row: usize, column: usize| {
                let distance = column as i64 - row as i64;
                if lower { distance <= diagonal } else { distance >= diagonal }
            };
            let elements = (0..rows).flat_map(|row| (0..columns).map(move |c| f64::from(u8::from(inside(row, c)))));
            call.constant(Tensor::from_f64(DType::Bool, &[rows, columns], elements.collect::<Vec<_>>()))
        }
        (rows, columns) => {
            let mut place = |dim: Dim| -> Result<Value> {
                let like = call.lower.like(&Shape(vec![dim.clone()]))?;
                call.add_with(op::Range { start: 0, limit: dim, delta: 1, dtype: DType::Int64 }, &[like])
            };
            let (row, column) = (place(rows)?, place(columns)?);
            let row = call.add(op::Unsqueeze { axes: vec![1] }, &[row])?;
            let distance = call.add(Binary::Sub, &[column, row])?;
            let limit = call.scalar(DType::Int64, diagonal as f64);
            call.add(if lower { Binary::LessEqual } else { Binary::GreaterEqual }, &[distance, limit])?
        }
    })
}

fn meshgrid(call: &mut Call) -> Result<Arg> {
    let values = call.values("tensors")?;
    let rank = values.len();
    let swapped = call.text("indexing")? == "xy" && rank >= 2;
    let place = |i: usize| match (swapped, i) {
        (true, 0) => 1,
        (true, 1) => 0,
        _ => i,
    };
    let mut shape = Shape::known(&vec![1; rank]);
    for (i, value) in values.iter().enumerate() {
        let own = call.lower.graph.shape(*value).numel();
        if let Some(dim) = shape.get_mut(place(i)) {
            *dim = own;
        }
    }
    let like = call.lower.like(&shape)?;
    let mut grids = Vec::new();
    for (i, value) in values.into_iter().enumerate() {
        let mut own = Shape::known(&vec![1; rank]);
        if let (Some(dim), Some(size)) = (own.get_mut(place(i)), shape.get(place(i))) {
            *dim = size.clone();
        }
        let reshaped = call.add(op::Reshape { shape: own }, &[value])?;
        grids.push(call.add_with(op::Expand { shape: shape.clone() }, &[Some(reshaped), like])?.into());
    }
    Ok(Arg::List(grids))
}
