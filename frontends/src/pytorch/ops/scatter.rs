//! Operators that write at computed places, or into a part.

use modelport_ir::op::{Scatter, Slice};
use modelport_ir::{DType, Dim, Op, Result, Shape, Value, op};

use super::math::{operand, truth};
use super::{Call, Entry, op};
use crate::pytorch::arg::Arg;

pub const OPS: &[Entry] = &[
    op("scatter", "self dim index src=None value=None reduce=None", |call| match call.arg("reduce") {
        Arg::None => scatter(call, false),
        Arg::Str(reduce) if &*reduce == "add" => scatter(call, true),
        _ => Err(call.fail("only sums and what overwrites are translated")),
    }),
    op("scatter_add", "self dim index src", |call| scatter(call, true)),
    op("scatter_reduce", "self dim index src reduce include_self=True", |call| {
        match (call.text("reduce")?.as_str(), call.bool("include_self")?) {
            ("sum", true) => scatter(call, true),
            (reduce, _) => Err(call.fail(format!("scatter_reduce by '{reduce}' is not translated"))),
        }
    }),
    op("index_add", "self dim index source alpha=1", |call| {
        let alpha = call.float("alpha")?;
        let source = match alpha == 1.0 {
            true => call.value("source")?,
            false => {
                let scaled = call.call("mul", &[call.arg("source"), call.arg("alpha")])?;
                call.lower.value(&scaled)?
            }
        };
        slices(call, source, true)
    }),
    op("index_copy", "self dim index source", |call| {
        let source = call.value("source")?;
        slices(call, source, false)
    }),
    op("index_fill", "self dim index value", |call| {
        let dtype = call.dtype("self")?;
        let number = operand(call, &call.arg("value"), dtype)?;
        slices(call, number, false)
    }),
    op("index_put", "self indices values accumulate=False", index_put),
    op("_unsafe_index_put", "self indices values accumulate=False", index_put),
    op("slice_scatter", "self src dim=0 start=None end=None step=1", slice_scatter),
    op("select_scatter", "self src dim index", |call| {
        let axis = call.axis("dim", call.shape("self")?.rank())?;
        let source = call.call("unsqueeze", &[call.arg("src"), axis.into()])?;
        let start = call.int("index")?;
        let end = if start == -1 { Arg::None } else { (start + 1).into() };
        call.call("slice_scatter", &[call.arg("self"), source, axis.into(), start.into(), end])
    }),
];

/// A place for every element. An index that is alike on all other axes is a list of slices.
fn scatter(call: &mut Call, add: bool) -> Result<Arg> {
    let (x, index) = (call.value("self")?, call.value("index")?);
    let (dtype, shape, places) =
        (call.dtype("self")?, call.lower.graph.shape(x).clone(), call.lower.graph.shape(index).clone());
    let axis = call.axis("dim", shape.rank())?;
    let number = [call.arg("src"), if add { Arg::None } else { call.arg("value") }];
    let number = number.into_iter().find(|arg| !arg.is_none()).unwrap_or_default();
    let mut source = operand(call, &number, dtype)?;
    let differs = (0..shape.rank()).any(|other| other != axis && shape.get(other) != places.get(other));
    if differs || places.rank() != shape.rank() {
        return Err(call.fail(format!("indices {places} do not share all other axes with {shape}")));
    }
    let own = call.lower.graph.shape(source).clone();
    if own.rank() == shape.rank() && own != places {
        // Elements that no index is for are left out.
        let mut slice = Slice::all(own.rank());
        for (at, end) in slice.ends.iter_mut().enumerate().filter(|(at, _)| own.get(*at) != places.get(*at)) {
            *end = i64::try_from(call.known(&places, at, "the number of indices")?).unwrap_or(i64::MAX);
        }
        source = call.add(slice, &[source])?;
    }
    if let Some(list) = alike(call, index, axis)? {
        return Ok(call.add(Scatter { axis, elements: false, add }, &[x, list, source])?.into());
    }
    Ok(call.add(Scatter { axis, elements: true, add }, &[x, index, source])?.into())
}

/// The list that an index repeats on all other axes, if it does.
fn alike(call: &mut Call, index: Value, axis: usize) -> Result<Option<Value>> {
    let Op::Expand(_) = call.lower.graph.op(index.node) else { return Ok(None) };
    let Some(list) = call.lower.graph.input_of(index.node, 0) else { return Ok(None) };
    let (shape, whole) = (call.lower.graph.shape(list).clone(), call.lower.graph.shape(index).rank());
    let Some(at) = (axis + shape.rank()).checked_sub(whole) else { return Ok(None) };
    let repeats = (0..shape.rank()).all(|other| other == at || shape.get(other) == Some(&Dim::Known(1)));
    let Some(length) = shape.get(at).filter(|_| repeats).cloned() else { return Ok(None) };
    let same = call.lower.graph.shape(index).get(axis) == Some(&length);
    match same {
        true if shape.rank() == 1 => Ok(Some(list)),
        true => Ok(Some(call.add(op::Reshape { shape: Shape(vec![length]) }, &[list])?)),
        false => Ok(None),
    }
}

/// A place for every slice.
fn slices(call: &mut Call, source: Value, add: bool) -> Result<Arg> {
    let (x, mut index) = (call.value("self")?, call.value("index")?);
    let axis = call.axis("dim", call.lower.graph.shape(x).rank())?;
    if call.lower.graph.shape(index).rank() == 0 {
        index = call.add(op::Unsqueeze { axes: vec![0] }, &[index])?;
    }
    Ok(call.add(Scatter { axis, elements: false, add }, &[x, index, source])?.into())
}

/// `x[mask] = number`, `x[:, rows, columns] = values`: places by tensors on neighbouring axes.
fn index_put(call: &mut Call) -> Result<Arg> {
    let arg = call.arg("indices");
    let Some(indices) = arg.list().map(<[Arg]>::to_vec) else { return Err(call.fail("the indices are no list")) };
    let (x, add) = (call.value("self")?, call.bool("accumulate")?);
    let (dtype, shape) = (call.lower.graph.info(x).dtype, call.lower.graph.shape(x).clone());
    let values = operand(call, &call.arg("values"), dtype)?;
    let mut places = Vec::new();
    for (axis, arg) in indices.iter().enumerate().filter(|(_, arg)| !arg.is_none()) {
        places.push((axis, call.lower.value(arg)?));
    }
    let (Some(&(first, index)), Some(&(last, _))) = (places.first(), places.last()) else {
        return Err(call.fail("there are no indices"));
    };
    if let ([_], DType::Bool | DType::UInt8) = (places.as_slice(), call.lower.graph.info(index).dtype) {
        return masked(call, x, (first, index), values);
    }
    if last - first + 1 != places.len() {
        return Err(call.fail("indices on axes that are not neighbours are not translated"));
    }
    // All indices in one shape, and as one number behind the other.
    let mut common = Shape::scalar();
    for (_, place) in &places {
        let own = call.lower.graph.shape(*place).clone();
        common = modelport_ir::shape::broadcast(&common, &own).map_err(|message| call.fail(message))?;
    }
    let mut position: Option<Value> = None;
    for &(axis, place) in &places {
        let dtype = call.lower.graph.info(place).dtype;
        if !dtype.is_int() {
            return Err(call.fail("a mask beside other indices is not translated"));
        }
        position = Some(match position {
            None => place,
            Some(before) => {
                let size = call.known(&shape, axis, "the size of an indexed axis")?;
                let size = call.scalar(dtype, size as f64);
                let before = call.cast(before, dtype)?;
                let rows = call.add(op::Binary::Mul, &[before, size])?;
                call.add(op::Binary::Add, &[rows, place])?
            }
        });
    }
    let Some(position) = position else { return Err(call.fail("there are no indices")) };
    let count = common.numel();
    let list = call.add(op::Reshape { shape: Shape(vec![count.clone()]) }, &[position])?;
    let around = |middle: &[Dim]| -> Shape {
        let (front, back) = (shape.iter().take(first), shape.iter().skip(last + 1));
        front.chain(middle).chain(back).cloned().collect()
    };
    let merged = around(&[shape.iter().skip(first).take(places.len()).fold(Dim::Known(1), |all, dim| all.times(dim))]);
    let source = match call.lower.graph.shape(values).rank() {
        0 if !add => values,
        _ => {
            let whole = around(&common);
            let like = call.lower.like(&whole)?;
            let whole = match *call.lower.graph.shape(values) == whole {
                true => values,
                false => call.add_with(op::Expand { shape: whole }, &[Some(values), like])?,
            };
            call.add(op::Reshape { shape: around(&[count]) }, &[whole])?
        }
    };
    let flat = if merged == shape { x } else { call.add(op::Reshape { shape: merged.clone() }, &[x])? };
    let y = call.add(Scatter { axis: first, elements: false, add }, &[flat, list, source])?;
    Ok(if merged == shape { y.into() } else { call.add(op::Reshape { shape }, &[y])?.into() })
}

/// What a mask over the axes from `first` on is true for becomes a number.
fn masked(call: &mut Call, x: Value, (first, mask): (usize, Value), values: Value) -> Result<Arg> {
    if call.lower.graph.shape(values).numel() != Dim::Known(1) {
        return Err(call.fail("a mask says by the data how many values are written: only a number is translated"));
    }
    let (rank, own) = (call.lower.graph.shape(x).rank(), call.lower.graph.shape(mask).rank());
    let mut mask = truth(call, mask)?;
    if first + own < rank {
        mask = call.add(op::Unsqueeze { axes: (own..rank - first).collect() }, &[mask])?;
    }
    let number = call.add(op::Reshape { shape: Shape::scalar() }, &[values])?;
    Ok(call.add(op::Select {}, &[mask, number, x])?.into())
}

/// What is before a part, another part, and what is behind it.
fn slice_scatter(call: &mut Call) -> Result<Arg> {
    let shape = call.shape("self")?;
    let axis = call.axis("dim", shape.rank())?;
    let source = call.value("src")?;
    let part =
        call.call("slice", &[call.arg("self"), axis.into(), call.arg("start"), call.arg("end"), call.arg("step")])?;
    let part = call.lower.value(&part)?;
    let (x, wanted) = (call.value("self")?, call.lower.graph.shape(part).clone());
    let Op::Slice(slice) = call.lower.graph.op(part.node).clone() else {
        // The whole of it.
        return broadcast(call, source, wanted);
    };
    call.known(&shape, axis, "the size of the axis that is written into")?;
    if part == x || slice.steps.get(axis) != Some(&1) {
        return Err(call.fail("writing into every so many places is not translated"));
    }
    let source = broadcast(call, source, wanted)?;
    let source = call.lower.value(&source)?;
    match call.lower.put(x, &shape, &slice, source)? {
        Some(whole) => Ok(whole.into()),
        None => Err(call.fail("what is written into can't be put together")),
    }
}

fn broadcast(call: &mut Call, source: Value, shape: Shape) -> Result<Arg> {
    if *call.lower.graph.shape(source) == shape {
        return Ok(source.into());
    }
    let like = call.lower.like(&shape)?;
    Ok(call.add_with(op::Expand { shape }, &[Some(source), like])?.into())
}
