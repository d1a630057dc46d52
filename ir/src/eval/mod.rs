//! Reference evaluation of every operator on ndarray: slow, simple, exact. Folds constants, tests passes, verifies.
//!
//! Results are those of TensorFlow and PyTorch where they agree; where they do not, the operator's documentation and
//! the functions here say which one is followed. Shapes are checked by [`Op::infer`] on the actual sizes before
//! anything is computed, so the functions of the families may rely on them.

mod activation;
mod array;
mod erf;
mod math;
mod shape;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use array::{Array, MAX_ELEMENTS};
pub use erf::erf;

use crate::graph::ValueInfo;
use crate::op::Op;
use crate::shape::{Dim, Shape};

/// The sizes that free dimensions have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sizes(BTreeMap<Arc<str>, usize>);

impl Sizes {
    /// Learns the free sizes of a value from its actual shape.
    ///
    /// # Errors
    /// When the actual shape is not one that was declared.
    pub fn bind(&mut self, declared: &Shape, actual: &[usize]) -> Result<(), String> {
        let differs = || format!("the shape is {}, expected {declared}", Shape::known(actual));
        if declared.rank() != actual.len() {
            return Err(differs());
        }
        for (dim, &size) in declared.iter().zip(actual) {
            match dim {
                Dim::Known(known) if *known != size => return Err(differs()),
                Dim::Known(_) | Dim::Unknown => {}
                Dim::Symbol { factor, name } => {
                    let free = size.checked_div(*factor).filter(|free| free * factor == size).ok_or_else(differs)?;
                    let bound = *self.0.entry(name.clone()).or_insert(free);
                    if bound != free {
                        return Err(format!("{}, but {name} is {bound}", differs()));
                    }
                }
            }
        }
        Ok(())
    }

    /// The dimension with its free size put in; unknown when that is not known.
    fn resolve(&self, dim: &Dim) -> Dim {
        match dim {
            Dim::Symbol { factor, name } => {
                let size = self.0.get(name).and_then(|size| size.checked_mul(*factor));
                size.map_or(Dim::Unknown, Dim::Known)
            }
            dim => dim.clone(),
        }
    }

    fn resolve_all(&self, shape: &Shape) -> Shape {
        shape.iter().map(|dim| self.resolve(dim)).collect()
    }
}

/// The outputs of one operator. Free sizes in its attributes can't be resolved: see [`apply_with`].
///
/// # Errors
/// One sentence: what does not fit.
pub fn apply(op: &Op, inputs: &[Option<&Array>]) -> Result<Vec<Array>, String> {
    apply_sized(op, inputs, &Sizes::default())
}

/// The outputs of one operator whose inputs were declared with `infos`: these tell the free sizes.
///
/// # Errors
/// One sentence: what does not fit.
pub fn apply_with(op: &Op, inputs: &[Option<&Array>], infos: &[Option<&ValueInfo>]) -> Result<Vec<Array>, String> {
    let mut sizes = Sizes::default();
    for (array, info) in inputs.iter().zip(infos) {
        if let (Some(array), Some(info)) = (array, info) {
            sizes.bind(&info.shape, array.shape())?;
        }
    }
    apply_sized(op, inputs, &sizes)
}

/// The outputs of one operator, with known free sizes.
///
/// # Errors
/// One sentence: what does not fit.
pub fn apply_sized(op: &Op, inputs: &[Option<&Array>], sizes: &Sizes) -> Result<Vec<Array>, String> {
    let op = resolved(op, sizes);
    let infos: Vec<Option<ValueInfo>> = inputs.iter().map(|x| x.map(Array::info)).collect();
    let infos: Vec<Option<&ValueInfo>> = infos.iter().map(Option::as_ref).collect();
    let expected = op.infer(&infos)?;
    let mut shapes = Vec::with_capacity(expected.len());
    for info in &expected {
        let shape = info.shape.sizes().ok_or_else(|| format!("the size of {} is not known", info.shape))?;
        array::check_size(&shape)?;
        shapes.push(shape);
    }
    let outputs = compute(&op, inputs, &shapes)?;
    for (output, info) in outputs.iter().zip(&expected) {
        if output.info() != *info {
            let (got, want) = (output.info(), info);
            return Err(format!("computed {}{}, inferred {}{}", got.dtype, got.shape, want.dtype, want.shape));
        }
    }
    Ok(outputs)
}

/// The operator with free sizes in its attributes put in.
fn resolved(op: &Op, sizes: &Sizes) -> Op {
    let mut op = op.clone();
    match &mut op {
        Op::Reshape(reshape) => reshape.shape = sizes.resolve_all(&reshape.shape),
        Op::Fill(fill) => fill.shape = sizes.resolve_all(&fill.shape),
        Op::Expand(expand) => expand.shape = sizes.resolve_all(&expand.shape),
        Op::Tile(tile) => tile.repeats = sizes.resolve_all(&tile.repeats),
        Op::Dims(dims) => dims.dims = sizes.resolve_all(&dims.dims),
        Op::Range(range) => range.limit = sizes.resolve(&range.limit),
        _ => {}
    }
    op
}

/// The input in a slot that must be filled.
fn at<'a>(inputs: &[Option<&'a Array>], slot: usize) -> Result<&'a Array, String> {
    inputs.get(slot).copied().flatten().ok_or_else(|| format!("input {slot} is missing"))
}

/// `shapes` are those of the outputs.
fn compute(op: &Op, inputs: &[Option<&Array>], shapes: &[Vec<usize>]) -> Result<Vec<Array>, String> {
    let x = || at(inputs, 0);
    let all = || (0..inputs.len()).map(|slot| at(inputs, slot)).collect::<Result<Vec<_>, _>>();
    let shape = shapes.first().map_or(&[][..], Vec::as_slice);
    let one = match op {
        Op::Unary(op) => activation::unary(*op, x()?),
        Op::LeakyRelu(op) => activation::leaky_relu(op, x()?),
        Op::Elu(op) => activation::exponential_linear(op, x()?),
        Op::PRelu(op) => activation::prelu(op, x()?, at(inputs, 1)?),
        Op::Gelu(op) => activation::gelu(op, x()?),
        Op::Clip(op) => activation::clip(op, x()?),
        Op::Softmax(op) => activation::softmax(op.axis, false, x()?),
        Op::LogSoftmax(op) => activation::softmax(op.axis, true, x()?),
        Op::Binary(op) => math::binary(*op, x()?, at(inputs, 1)?, shape),
        Op::Select(_) => math::select(x()?, at(inputs, 1)?, at(inputs, 2)?, shape),
        Op::Cast(op) => Ok(x()?.cast(op.dtype)),
        Op::CumSum(op) => math::cumsum(op, x()?),
        Op::Reshape(_) | Op::Squeeze(_) | Op::Unsqueeze(_) => x()?.reshaped(shape),
        Op::Transpose(op) => Ok(x()?.transposed(&op.perm)),
        Op::Concat(op) => shape::concat(op, &all()?),
        Op::Split(op) => return shape::split(op, x()?),
        Op::Pack(op) => shape::pack(op, &all()?),
        Op::Unpack(op) => return shape::unpack(op, x()?),
        Op::Slice(op) => shape::slice(op, x()?),
        Op::Pad(op) => shape::pad(op, x()?, shape),
        Op::Tile(_) => shape::tile(x()?, shape),
        Op::Expand(_) => math::expand(x()?, shape),
        Op::Gather(op) => shape::gather(op, x()?, at(inputs, 1)?, shape),
        Op::GatherNd(_) => shape::gather_nd(x()?, at(inputs, 1)?, shape),
        Op::OneHot(op) => shape::one_hot(op, x()?),
        Op::Reverse(op) => shape::reverse(op, x()?),
        Op::Dropout(_) => Ok(x()?.clone()),
        Op::Constant(op) => Array::from_tensor(&op.tensor),
        op => Err(format!("{} can't be evaluated", op.name())),
    };
    Ok(vec![one?])
}
