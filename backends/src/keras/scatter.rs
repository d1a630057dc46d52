//! Writing elements into a value. Keras writes rows alone; the rest is said by comparing places.

use modelport_ir::op::Scatter;
use modelport_ir::{DType, Tensor};

use super::build::{Builder, Built, dtype_lit, reshaped};
use super::functions::{axis, transposed};
use crate::python::{Arg, Expr, Lit};

/// A write: into `x`, at the places `index` along an axis of `size`, what `source` says.
struct Write<'a> {
    op: &'a Scatter,
    rank: usize,
    size: usize,
    x: Expr,
    index: Expr,
    source: Expr,
    /// Whether the source is one number.
    number: bool,
}

/// Slices are written as rows, where rows come first; elements where a comparison of places says so.
pub fn scatter(b: &mut Builder<'_>, op: &Scatter) -> Built {
    let shape = b.shape(0)?.clone();
    let number = b.shape(2)?.rank() == 0;
    let (x, index) = (b.tensor(0)?, b.tensor(1)?);
    let source = if number { b.operand(2)? } else { b.tensor(2)? };
    let size = shape[op.axis].known().ok_or_else(|| b.unknown("the size of the axis that is written along"))?;
    let write = Write { op, rank: shape.rank(), size, x, index, source, number };
    if !op.elements && !number {
        return Ok(write.rows());
    }
    if let (false, Some(places)) = (op.elements, b.graph.tensor(b.input(1)?).cloned()) {
        return write.masked(b, &places);
    }
    write.compared(b)
}

impl Write<'_> {
    /// Whole rows.
    fn rows(self) -> Expr {
        let Write { op, rank, size, x, index, source, .. } = self;
        let first: Vec<usize> = [op.axis].into_iter().chain((0..rank).filter(|&at| at != op.axis)).collect();
        let back: Vec<usize> = (1..=op.axis).chain([0]).chain(op.axis + 1..rank).collect();
        let moved = |x: Expr, axes: &[usize]| if op.axis == 0 { x } else { transposed(x, axes) };
        if op.add {
            let count = Arg::keyword("num_segments", Expr::int("num_segments", size), None);
            let rows = vec![Arg::new(moved(source, &first)), Arg::new(index), count];
            return x.binary("+", moved(Expr::call("ops.segment_sum", rows), &back));
        }
        let index = reshaped(index, Lit::Tuple(vec![Lit::Int(-1), Lit::Int(1)]));
        let rows = vec![Arg::new(moved(x, &first)), Arg::new(index), Arg::new(moved(source, &first))];
        moved(Expr::call("ops.scatter_update", rows), &back)
    }

    /// A number at known places.
    fn masked(self, b: &mut Builder<'_>, places: &Tensor) -> Built {
        let places = places.to_i64().map_err(|error| b.problem(format!("the places can't be read: {error}")))?;
        let at = |place: usize| places.iter().any(|&written| usize::try_from(written) == Ok(place));
        let mask = (0..self.size).map(|place| f64::from(u8::from(at(place))));
        let shape: Vec<usize> = [self.size].into_iter().chain(vec![1; self.rank - self.op.axis - 1]).collect();
        let mask = b.constant("mask", &Tensor::from_f64(DType::Bool, shape.as_slice(), mask), "mask", false)?;
        Ok(chosen(mask, self.source, self.x))
    }

    /// Every place beside all that may be written there: `[.., size, count, ..]`, a new axis in front of the source's.
    fn compared(self, b: &Builder<'_>) -> Built {
        let Write { op, rank, size, x, index, source, number } = self;
        let behind = if op.elements { rank - op.axis } else { 1 };
        let dtype = Arg::keyword("dtype", dtype_lit(b.dtype(1)?), None);
        let places = Expr::call("ops.arange", vec![Arg::or("stop", Expr::int("size", size), Lit::None), dtype]);
        let places = reshaped(places, Lit::Tuple([-1].into_iter().chain(vec![1; behind]).map(Lit::Int).collect()));
        let over = if op.elements { op.axis + 1 } else { 1 };
        let between = |x: Expr| Expr::call("ops.expand_dims", vec![Arg::new(x), axis(&[op.axis])]);
        let index = match op.elements {
            true => between(index),
            false => reshaped(index, Lit::Tuple(vec![Lit::Int(1), Lit::Int(-1)])),
        };
        let hits = Expr::call("ops.equal", vec![Arg::new(index), Arg::new(places)]);
        if op.add {
            let sums = chosen(hits, between(source), Expr::slot("value", Lit::float(0.0)));
            return Ok(x.binary("+", Expr::call("ops.sum", vec![Arg::new(sums), axis(&[over])])));
        }
        let mut any = Expr::call("ops.any", vec![Arg::new(hits.clone()), axis(&[over])]);
        if number {
            if !op.elements && op.axis + 1 < rank {
                let shape = [-1].into_iter().chain(vec![1; rank - op.axis - 1]).map(Lit::Int).collect();
                any = reshaped(any, Lit::Tuple(shape));
            }
            return Ok(chosen(any, source, x));
        }
        if !b.dtype(2)?.is_float() {
            return Err(b.problem("elements that are no real numbers can't be written at computed places in Keras"));
        }
        let least = Expr::slot("value", Lit::float(f32::MIN));
        let written = Expr::call("ops.max", vec![Arg::new(chosen(hits, between(source), least)), axis(&[over])]);
        Ok(chosen(any, written, x))
    }
}

fn chosen(test: Expr, one: Expr, other: Expr) -> Expr {
    Expr::call("ops.where", vec![Arg::new(test), Arg::new(one), Arg::new(other)])
}
