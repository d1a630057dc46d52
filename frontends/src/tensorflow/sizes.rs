//! Evaluates arithmetic on shapes and small constants at conversion time, with sizes that may stay free.
//!
//! Only what comes from shapes, integers or truth values is evaluated: real constants are weights or parts of
//! patterns that passes look for, and join in only beside a number of the first kind.

use modelport_ir::{DType, Dim, Tensor, Value, op};
use ndarray::{ArrayD, ArrayViewD, Axis, IxDyn, concatenate, stack};

use super::graphdef::NodeDef;
use super::lower::{Entry, Lowering};
use super::net::Ref;
use super::strided::Strided;
use crate::symbolic::{Arithmetic, Elem, Expressions, MAX_ELEMENTS, Sizes, rounded};

/// Most elements of a real constant that joins in.
const MAX_PARTNER: usize = 64;

type Array = ArrayD<Elem>;

/// A small tensor as numbers.
pub fn of_tensor(tensor: &Tensor) -> Option<Sizes> {
    if tensor.numel() > MAX_ELEMENTS {
        return None;
    }
    let elems = if tensor.dtype().is_float() {
        tensor.to_f64().ok()?.into_iter().map(Elem::Real).collect()
    } else {
        tensor.to_i64().ok()?.into_iter().map(Elem::Int).collect()
    };
    let elems = ArrayD::from_shape_vec(IxDyn(&tensor.shape()), elems).ok()?;
    Some(Sizes { dtype: tensor.dtype(), elems, like: None })
}

/// The outputs of a node whose inputs are numbers known up to sizes, or that asks for a shape; `None` when it has to
/// be computed where the network runs.
pub fn evaluate(lower: &mut Lowering, node: &NodeDef, inputs: &[Ref]) -> Option<Vec<Sizes>> {
    match node.op.as_str() {
        "Shape" | "ShapeN" | "Size" | "Rank" => return inputs.iter().map(|v| of_shape(lower, node, *v)).collect(),
        _ => {}
    }
    let mut computed = matches!(node.op.as_str(), "Range" | "LinSpace");
    let mut args = Vec::with_capacity(inputs.len());
    let data = data_slots(&node.op, inputs.len());
    for (slot, &value) in inputs.iter().enumerate() {
        let sizes = match lower.entry(value)? {
            Entry::Sizes(sizes) => {
                computed |= data.contains(&slot);
                sizes.clone()
            }
            Entry::Constant(tensor, _) if tensor.dtype().is_float() => {
                computed |= node.op == "Cast" && node.dtype("DstT").is_some_and(|dtype| !dtype.is_float());
                if tensor.numel() > MAX_PARTNER {
                    return None;
                }
                of_tensor(tensor)?
            }
            Entry::Constant(tensor, _) => {
                computed |= data.contains(&slot);
                of_tensor(tensor)?
            }
            _ => return None,
        };
        args.push(sizes);
    }
    if !computed || args.is_empty() {
        return None;
    }
    let like = args.iter().find_map(|sizes| sizes.like);
    let dtype = result_type(node, &args)?;
    let results = Evaluation { expressions: &mut lower.expressions, node, args: &args, dtype }.run()?;
    // A real number that is not known is better computed by the network.
    let good = |array: &Array| {
        array.len() <= MAX_ELEMENTS
            && (!dtype.is_float() || array.iter().all(|elem| elem.dim() != Dim::Unknown || elem.real().is_some()))
    };
    results.iter().all(good).then(|| results.into_iter().map(|elems| Sizes { dtype, elems, like }).collect())
}

/// The inputs that hold numbers to compute with; others are axes and shapes, which make no weight a computed number.
fn data_slots(op: &str, count: usize) -> std::ops::Range<usize> {
    match op {
        "Reshape" | "Squeeze" | "ExpandDims" | "Transpose" | "Slice" | "StridedSlice" | "Gather" | "GatherV2"
        | "Tile" | "BroadcastTo" | "ReverseV2" | "SplitV" | "Prod" | "Sum" | "Max" | "Min" => 0..1,
        "ConcatV2" => 0..count.saturating_sub(1),
        "Concat" | "Split" => 1..count,
        _ => 0..count,
    }
}

fn of_shape(lower: &mut Lowering, node: &NodeDef, value: Ref) -> Option<Sizes> {
    let shape = lower.shape(value)?;
    let dtype = node.dtype("out_type").unwrap_or(DType::Int32);
    let like: Option<Value> = match lower.entry(value) {
        Some(Entry::Data(value)) => Some(*value),
        _ => None,
    };
    if node.op == "Rank" {
        return Some(Sizes::scalar(DType::Int32, Elem::Int(shape.rank() as i64), None));
    }
    let key = |axis: usize| format!("size|{}|{}|{axis}", value.node, value.output);
    let elems: Vec<Elem> =
        shape.iter().enumerate().map(|(axis, dim)| lower.expressions.of_dim(dim, || key(axis))).collect();
    if node.op == "Size" {
        let product = |all: Elem, elem: &Elem| lower.expressions.apply(Arithmetic::Mul, &all, elem, dtype);
        let size = elems.iter().fold(Elem::Int(1), product);
        return Some(Sizes::scalar(dtype, size, like));
    }
    Some(Sizes::vector(dtype, elems, like))
}

fn result_type(node: &NodeDef, args: &[Sizes]) -> Option<DType> {
    let of = |slot: usize| args.get(slot).map(|sizes| sizes.dtype);
    match node.op.as_str() {
        "Cast" => node.dtype("DstT"),
        "Equal" | "NotEqual" | "Less" | "LessEqual" | "Greater" | "GreaterEqual" | "LogicalAnd" | "LogicalOr"
        | "LogicalNot" => Some(DType::Bool),
        "Select" | "SelectV2" | "Fill" | "ScatterNd" | "Concat" => of(1),
        "Split" => of(1),
        "Where" => Some(DType::Int64),
        _ => of(0),
    }
}

struct Evaluation<'e> {
    expressions: &'e mut Expressions,
    node: &'e NodeDef,
    args: &'e [Sizes],
    dtype: DType,
}

impl Evaluation<'_> {
    fn run(&mut self) -> Option<Vec<Array>> {
        use Arithmetic::*;
        let op = self.node.op.as_str();
        let one = |array: Option<Array>| array.map(|array| vec![array]);
        match op {
            "Add" | "AddV2" => one(self.binary(Add, false)),
            "Sub" => one(self.binary(Sub, false)),
            "Mul" => one(self.binary(Mul, false)),
            "Div" | "RealDiv" | "TruncateDiv" => one(self.binary(Div, false)),
            "FloorDiv" => one(self.binary(FloorDiv, false)),
            "FloorMod" => one(self.binary(FloorMod, false)),
            "Mod" | "TruncateMod" => one(self.binary(TruncateMod, false)),
            "Maximum" => one(self.binary(Maximum, false)),
            "Minimum" => one(self.binary(Minimum, false)),
            "Pow" => one(self.binary(Pow, false)),
            "Equal" => one(self.binary(Equal, false)),
            "NotEqual" => one(self.binary(NotEqual, false)),
            "Less" => one(self.binary(Less, false)),
            "LessEqual" => one(self.binary(LessEqual, false)),
            "Greater" => one(self.binary(Less, true)),
            "GreaterEqual" => one(self.binary(LessEqual, true)),
            "LogicalAnd" => one(self.binary(And, false)),
            "LogicalOr" => one(self.binary(Or, false)),
            "AddN" => one(self.add_n()),
            "Neg" => one(self.map(|all, x, dtype| Some(all.apply(Sub, &Elem::Int(0), x, dtype)))),
            "Square" => one(self.map(|all, x, dtype| Some(all.apply(Mul, x, x, dtype)))),
            "Cast" => one(self.map(|_, x, dtype| cast(x, dtype))),
            "LogicalNot" => one(self.map(|_, x, _| x.int().map(|x| Elem::Int(i64::from(x == 0))))),
            "Abs" => one(self.map(|_, x, _| match x {
                Elem::Int(i) => i.checked_abs().map(Elem::Int),
                x => x.real().map(|x| Elem::Real(x.abs())),
            })),
            "Floor" => one(self.real(f64::floor)),
            "Ceil" => one(self.real(f64::ceil)),
            "Round" | "Rint" => one(self.real(f64::round_ties_even)),
            "Sqrt" => one(self.real(f64::sqrt)),
            "Exp" => one(self.real(f64::exp)),
            "Log" => one(self.real(f64::ln)),
            "Sin" => one(self.real(f64::sin)),
            "Cos" => one(self.real(f64::cos)),
            "Reciprocal" | "Inv" => one(self.real(f64::recip)),
            "Prod" => one(self.reduce(Mul)),
            "Sum" => one(self.reduce(Add)),
            "Max" => one(self.reduce(Maximum)),
            "Min" => one(self.reduce(Minimum)),
            "All" => one(self.reduce(And)),
            "Any" => one(self.reduce(Or)),
            "Range" => one(self.range()),
            "LinSpace" => one(self.linspace()),
            "Select" | "SelectV2" => one(self.select()),
            "Fill" => one(self.fill()),
            "ZerosLike" => one(Some(self.args.first()?.elems.mapv(|_| Elem::Int(0)))),
            "OnesLike" => one(Some(self.args.first()?.elems.mapv(|_| Elem::Int(1)))),
            "Reshape" => one(self.reshape()),
            "Squeeze" => one(self.squeeze()),
            "ExpandDims" => one(self.expand_dims()),
            "Transpose" => one(self.transpose()),
            "Pack" => one(self.pack()),
            "ConcatV2" | "Concat" => one(self.concat()),
            "Unpack" => self.unpack(),
            "Split" | "SplitV" => self.split(),
            "StridedSlice" => one(self.strided_slice()),
            "Slice" => one(self.slice()),
            "Gather" | "GatherV2" => one(self.gather()),
            "Tile" => one(self.tile()),
            "BroadcastTo" => {
                let shape = self.shape_from(1)?;
                one(Some(self.array(0)?.broadcast(IxDyn(&shape))?.to_owned()))
            }
            "BroadcastArgs" => one(self.broadcast_args()),
            "ReverseV2" => one(self.reverse()),
            "Where" => one(self.coordinates()),
            "ScatterNd" => one(self.scatter()),
            "InvertPermutation" => one(self.invert()),
            "ListDiff" => one(self.difference()),
            _ => None,
        }
    }

    fn array(&self, slot: usize) -> Option<ArrayViewD<'_, Elem>> {
        self.args.get(slot).map(|sizes| sizes.elems.view())
    }

    fn ints(&self, slot: usize) -> Option<Vec<i64>> {
        self.args.get(slot)?.ints()
    }

    fn int(&self, slot: usize) -> Option<i64> {
        match self.ints(slot)?.as_slice() {
            [i] => Some(*i),
            _ => None,
        }
    }

    /// A shape of which all sizes are known, with few enough elements.
    fn shape_from(&self, slot: usize) -> Option<Vec<usize>> {
        let shape: Vec<usize> = self.ints(slot)?.into_iter().map(|n| usize::try_from(n).ok()).collect::<Option<_>>()?;
        Lowering::is_small(&shape).then_some(shape)
    }

    fn axis(&self, axis: i64, rank: usize) -> Option<usize> {
        let axis = if axis < 0 { axis.checked_add(rank as i64)? } else { axis };
        usize::try_from(axis).ok().filter(|&axis| axis < rank)
    }

    fn binary(&mut self, op: Arithmetic, swapped: bool) -> Option<Array> {
        let (a, b) = (self.args.first()?, self.args.get(1)?);
        let shape = |sizes: &Sizes| modelport_ir::Shape::known(sizes.elems.shape());
        let common = modelport_ir::shape::broadcast(&shape(a), &shape(b)).ok()?.sizes()?;
        if !Lowering::is_small(&common) {
            return None;
        }
        let (x, y) = (a.elems.broadcast(IxDyn(&common))?, b.elems.broadcast(IxDyn(&common))?);
        // Comparisons are made in the operands' type.
        let dtype = if self.dtype == DType::Bool { a.dtype } else { self.dtype };
        let elems = x.iter().zip(y.iter()).map(|(x, y)| {
            let (x, y) = if swapped { (y, x) } else { (x, y) };
            self.expressions.apply(op, x, y, dtype)
        });
        let elems: Vec<Elem> = elems.collect();
        ArrayD::from_shape_vec(IxDyn(&common), elems).ok()
    }

    fn add_n(&mut self) -> Option<Array> {
        let mut total = self.args.first()?.elems.clone();
        for next in self.args.iter().skip(1) {
            if next.elems.shape() != total.shape() {
                return None;
            }
            total.zip_mut_with(&next.elems, |a, b| *a = self.expressions.apply(Arithmetic::Add, a, b, self.dtype));
        }
        Some(total)
    }

    fn map(&mut self, f: impl Fn(&mut Expressions, &Elem, DType) -> Option<Elem>) -> Option<Array> {
        let array = &self.args.first()?.elems;
        let elems = array.iter().map(|x| f(self.expressions, x, self.dtype)).collect::<Option<Vec<_>>>()?;
        ArrayD::from_shape_vec(array.raw_dim(), elems).ok()
    }

    fn real(&mut self, f: impl Fn(f64) -> f64) -> Option<Array> {
        self.map(|_, x, dtype| if dtype.is_float() { x.real().map(|x| rounded(f(x), dtype)) } else { None })
    }

    fn reduce(&mut self, op: Arithmetic) -> Option<Array> {
        let mut array = self.args.first()?.elems.clone();
        let rank = array.ndim();
        let axes = self.ints(1)?.into_iter().map(|axis| self.axis(axis, rank)).collect::<Option<Vec<_>>>()?;
        for axis in (0..rank).rev().filter(|axis| axes.contains(axis)) {
            let neutral = match op {
                Arithmetic::Add | Arithmetic::Or => Some(Elem::Int(0)),
                Arithmetic::Mul | Arithmetic::And => Some(Elem::Int(1)),
                _ => None,
            };
            if array.len_of(Axis(axis)) == 0 && neutral.is_none() {
                return None;
            }
            let dtype = self.dtype;
            array = array.map_axis(Axis(axis), |lane| {
                let mut elems = lane.iter();
                let first = elems.next().cloned().or(neutral.clone()).unwrap_or(Elem::Int(0));
                elems.fold(first, |all, elem| self.expressions.apply(op, &all, elem, dtype))
            });
            if self.node.flag("keep_dims") {
                array = array.insert_axis(Axis(axis));
            }
        }
        Some(array)
    }

    fn range(&mut self) -> Option<Array> {
        let number = |slot: usize| self.args.get(slot)?.elems.first()?.real();
        let (start, limit, delta) = (number(0)?, number(1)?, number(2)?);
        let count = ((limit - start) / delta).ceil();
        if !count.is_finite() || count > MAX_ELEMENTS as f64 {
            return None;
        }
        let values = (0..count.max(0.0) as usize).map(|i| start + delta * i as f64);
        let elem = |x: f64| if self.dtype.is_float() { rounded(x, self.dtype) } else { Elem::Int(x as i64) };
        let values: Vec<Elem> = values.map(elem).collect();
        Some(vector(values))
    }

    fn linspace(&mut self) -> Option<Array> {
        let number = |slot: usize| self.args.get(slot)?.elems.first()?.real();
        let (start, stop, count) = (number(0)?, number(1)?, number(2)?);
        if !(1.0..=MAX_ELEMENTS as f64).contains(&count) {
            return None;
        }
        let step = if count > 1.0 { (stop - start) / (count - 1.0) } else { 0.0 };
        Some(vector((0..count as usize).map(|i| rounded(start + step * i as f64, self.dtype)).collect()))
    }

    fn select(&mut self) -> Option<Array> {
        let (condition, a, b) = (self.array(0)?, self.array(1)?, self.array(2)?);
        let v1 = self.node.op == "Select" && condition.ndim() == 1 && a.ndim() > 1;
        if v1 || a.shape() != b.shape() {
            return None;
        }
        let condition = condition.broadcast(a.raw_dim())?;
        let choose = |((c, a), b): ((&Elem, &Elem), &Elem)| match c.int() {
            Some(c) => Some(if c != 0 { a.clone() } else { b.clone() }),
            None => (a == b).then(|| a.clone()),
        };
        let elems = condition.iter().zip(a.iter()).zip(b.iter()).map(choose).collect::<Option<Vec<_>>>()?;
        ArrayD::from_shape_vec(a.raw_dim(), elems).ok()
    }

    fn fill(&mut self) -> Option<Array> {
        // Real fills stay operators: they are the ones and zeros of layers.
        let value = self.args.get(1).filter(|value| !value.dtype.is_float())?.elems.first()?.clone();
        Some(ArrayD::from_elem(IxDyn(&self.shape_from(0)?), value))
    }

    fn reshape(&mut self) -> Option<Array> {
        let array = self.array(0)?;
        let mut shape = self.ints(1)?;
        let known: i64 = shape.iter().filter(|&&n| n >= 0).try_fold(1i64, |p, &n| p.checked_mul(n))?;
        if let Some(rest) = shape.iter_mut().find(|n| **n < 0) {
            *rest = (array.len() as i64).checked_div(known)?;
        }
        let shape = shape.into_iter().map(|n| usize::try_from(n).ok()).collect::<Option<Vec<_>>>()?;
        ArrayD::from_shape_vec(IxDyn(&shape), array.iter().cloned().collect()).ok()
    }

    fn squeeze(&mut self) -> Option<Array> {
        let mut array = self.args.first()?.elems.clone();
        let rank = array.ndim();
        let given = self.node.ints("squeeze_dims").unwrap_or_default();
        let axes = given.into_iter().map(|axis| self.axis(axis, rank)).collect::<Option<Vec<_>>>()?;
        for axis in (0..rank).rev() {
            if array.len_of(Axis(axis)) == 1 && (axes.is_empty() || axes.contains(&axis)) {
                array = array.index_axis_move(Axis(axis), 0);
            }
        }
        Some(array)
    }

    fn expand_dims(&mut self) -> Option<Array> {
        let array = self.args.first()?.elems.clone();
        let axis = self.axis(self.int(1)?, array.ndim() + 1)?;
        Some(array.insert_axis(Axis(axis)))
    }

    fn transpose(&mut self) -> Option<Array> {
        let array = self.args.first()?.elems.clone();
        let perm = self.ints(1)?.into_iter().map(|axis| self.axis(axis, array.ndim())).collect::<Option<Vec<_>>>()?;
        let mut sorted = perm.clone();
        sorted.sort_unstable();
        sorted.into_iter().eq(0..array.ndim()).then(|| array.permuted_axes(IxDyn(&perm)))
    }

    fn pack(&mut self) -> Option<Array> {
        let axis = self.axis(self.node.int("axis").unwrap_or(0), self.array(0)?.ndim() + 1)?;
        let views: Vec<_> = self.args.iter().map(|sizes| sizes.elems.view()).collect();
        stack(Axis(axis), &views).ok()
    }

    fn concat(&mut self) -> Option<Array> {
        let last = self.args.len().checked_sub(1)?;
        let (axis, from) = if self.node.op == "Concat" { (0, 1..=last) } else { (last, 0..=last.checked_sub(1)?) };
        let views: Vec<_> = self.args.get(from)?.iter().map(|sizes| sizes.elems.view()).collect();
        let axis = self.axis(self.int(axis)?, views.first()?.ndim())?;
        concatenate(Axis(axis), &views).ok()
    }

    fn unpack(&mut self) -> Option<Vec<Array>> {
        let array = self.array(0)?;
        let axis = self.axis(self.node.int("axis").unwrap_or(0), array.ndim())?;
        Some(array.axis_iter(Axis(axis)).map(|part| part.to_owned()).collect())
    }

    fn split(&mut self) -> Option<Vec<Array>> {
        let (slot, axis_slot) = if self.node.op == "Split" { (1, 0) } else { (0, 2) };
        let array = self.array(slot)?;
        let axis = self.axis(self.int(axis_slot)?, array.ndim())?;
        let size = array.len_of(Axis(axis));
        let sizes: Vec<usize> = if self.node.op == "Split" {
            let count = usize::try_from(self.node.int("num_split")?).ok().filter(|&n| n > 0 && n <= MAX_ELEMENTS)?;
            vec![size / count; count]
        } else {
            let given = self.ints(1)?;
            let known = given.iter().filter(|&&n| n >= 0).fold(0i64, |sum, &n| sum.saturating_add(n));
            given
                .iter()
                .map(|&n| usize::try_from(if n < 0 { size as i64 - known } else { n }).ok())
                .collect::<Option<_>>()?
        };
        let mut start = 0usize;
        let mut parts = Vec::new();
        for part in sizes {
            let indices: Vec<usize> = (start..start.checked_add(part)?).collect();
            start += part;
            if start > size {
                return None;
            }
            parts.push(array.select(Axis(axis), &indices));
        }
        Some(parts)
    }

    fn strided_slice(&mut self) -> Option<Array> {
        let mut array = self.args.first()?.elems.clone();
        let list = |slot: usize| self.args.get(slot).map(Sizes::list);
        let shape = modelport_ir::Shape::known(array.shape());
        let plan = Strided::new(self.node, &list(1)?, &list(2)?, &list(3)?, &shape, &[]).ok()?;
        array = sliced(array, &plan.slice);
        for &axis in plan.squeeze.iter().rev() {
            array = array.index_axis_move(Axis(axis), 0);
        }
        for &axis in &plan.unsqueeze {
            array = array.insert_axis(Axis(axis));
        }
        Some(array)
    }

    fn slice(&mut self) -> Option<Array> {
        let array = self.args.first()?.elems.clone();
        let (begins, sizes) = (self.ints(1)?, self.ints(2)?);
        if begins.len() != array.ndim() || sizes.len() != array.ndim() || begins.iter().any(|&b| b < 0) {
            return None;
        }
        let end = |(&begin, &size): (&i64, &i64)| if size < 0 { op::Slice::OPEN } else { begin.saturating_add(size) };
        let ends = begins.iter().zip(&sizes).map(end).collect();
        let steps = vec![1; begins.len()];
        Some(sliced(array, &op::Slice { begins, ends, steps }))
    }

    fn gather(&mut self) -> Option<Array> {
        let (array, indices) = (self.array(0)?, self.args.get(1)?);
        let axis = if self.args.len() > 2 { self.axis(self.int(2)?, array.ndim())? } else { 0 };
        let size = array.shape().get(axis).copied()?;
        if self.node.int("batch_dims").unwrap_or(0) != 0 {
            return None;
        }
        let flat = indices.ints()?.into_iter().map(|i| usize::try_from(i).ok().filter(|&i| i < size));
        let picked = array.select(Axis(axis), &flat.collect::<Option<Vec<_>>>()?);
        let mut shape = array.shape().to_vec();
        shape.splice(axis..=axis, indices.elems.shape().iter().copied());
        ArrayD::from_shape_vec(IxDyn(&shape), picked.iter().cloned().collect()).ok()
    }

    fn tile(&mut self) -> Option<Array> {
        let mut array = self.args.first()?.elems.clone();
        let repeats = self
            .shape_from(1)
            .or_else(|| self.ints(1)?.into_iter().map(|n| usize::try_from(n).ok()).collect::<Option<Vec<_>>>())?;
        let full: Option<usize> = repeats.iter().try_fold(array.len(), |n, &by| n.checked_mul(by));
        if repeats.len() != array.ndim() || full.is_none_or(|n| n > MAX_ELEMENTS) {
            return None;
        }
        for (axis, &count) in repeats.iter().enumerate() {
            let indices: Vec<usize> = (0..count).flat_map(|_| 0..array.len_of(Axis(axis))).collect();
            array = array.select(Axis(axis), &indices);
        }
        Some(array)
    }

    fn broadcast_args(&mut self) -> Option<Array> {
        let shape = |slot: usize| self.args.get(slot).map(|sizes| sizes.elems.iter().map(Elem::dim).collect());
        let common = modelport_ir::shape::broadcast(&shape(0)?, &shape(1)?).ok()?;
        let elems = common.iter().enumerate().map(|(axis, dim)| {
            let key = || format!("broadcast|{}|{axis}", self.node.name);
            self.expressions.of_dim(dim, key)
        });
        Some(vector(elems.collect()))
    }

    fn reverse(&mut self) -> Option<Array> {
        let mut array = self.args.first()?.elems.clone();
        for axis in self.ints(1)? {
            let axis = self.axis(axis, array.ndim())?;
            array.invert_axis(Axis(axis));
        }
        Some(array)
    }

    fn coordinates(&mut self) -> Option<Array> {
        let array = self.array(0)?;
        let mut rows = Vec::new();
        for (place, elem) in array.indexed_iter() {
            if elem.int()? != 0 {
                rows.extend((0..array.ndim()).map(|axis| Elem::Int(place[axis] as i64)));
            }
        }
        let count = rows.len().checked_div(array.ndim())?;
        ArrayD::from_shape_vec(IxDyn(&[count, array.ndim()]), rows).ok()
    }

    fn scatter(&mut self) -> Option<Array> {
        let (indices, updates, shape) = (self.args.first()?, self.array(1)?, self.shape_from(2)?);
        let depth = *indices.elems.shape().last()?;
        let mut result = ArrayD::from_elem(IxDyn(&shape), Elem::Int(0));
        let slice: usize = shape.get(depth..)?.iter().product();
        let updates: Vec<Elem> = updates.iter().cloned().collect();
        let rows: Vec<i64> = indices.ints()?;
        if depth == 0 || slice == 0 || rows.len() / depth * slice != updates.len() {
            return None;
        }
        let flat = result.as_slice_mut()?;
        for (row, update) in rows.chunks(depth).zip(updates.chunks(slice)) {
            let mut place = 0usize;
            for (&i, &size) in row.iter().zip(&shape) {
                place = place * size + usize::try_from(i).ok().filter(|&i| i < size)?;
            }
            for (old, new) in flat.get_mut(place * slice..(place + 1) * slice)?.iter_mut().zip(update) {
                *old = self.expressions.apply(Arithmetic::Add, old, new, self.dtype);
            }
        }
        Some(result)
    }

    fn invert(&mut self) -> Option<Array> {
        let perm = self.ints(0)?;
        let mut inverse = vec![Elem::Int(0); perm.len()];
        for (i, &p) in perm.iter().enumerate() {
            *inverse.get_mut(usize::try_from(p).ok()?)? = Elem::Int(i as i64);
        }
        Some(vector(inverse))
    }

    fn difference(&mut self) -> Option<Array> {
        let (all, without) = (self.ints(0)?, self.ints(1)?);
        Some(vector(all.into_iter().filter(|i| !without.contains(i)).map(Elem::Int).collect()))
    }
}

fn vector(elems: Vec<Elem>) -> Array {
    ndarray::Array1::from_vec(elems).into_dyn()
}

fn sliced(mut array: Array, slice: &op::Slice) -> Array {
    for axis in 0..array.ndim() {
        let (first, count) = slice.resolve(axis, array.len_of(Axis(axis)));
        let step = slice.steps.get(axis).copied().unwrap_or(1);
        let place = |i: usize| usize::try_from(first as i64 + i as i64 * step).unwrap_or(0);
        let indices: Vec<usize> = (0..count).map(place).collect();
        array = array.select(Axis(axis), &indices);
    }
    array
}

fn cast(x: &Elem, dtype: DType) -> Option<Elem> {
    Some(match (x, dtype) {
        (Elem::Linear(_), DType::Bool) => return None,
        (Elem::Linear(_), _) => x.clone(),
        (x, DType::Bool) => Elem::Int(i64::from(x.real()? != 0.0)),
        (x, dtype) if dtype.is_float() => rounded(x.real()?, dtype),
        (Elem::Int(i), _) => Elem::Int(*i),
        (x, _) => Elem::Int(x.real()?.trunc() as i64),
    })
}
