//! Reference evaluation of every operator on ndarray: slow, simple, exact. Folds constants, tests passes, verifies.
//!
//! Results are those of TensorFlow and PyTorch where they agree; where they do not, the operator's documentation and
//! the functions here say which one is followed. Shapes are checked by [`Op::infer`] on the actual sizes before
//! anything is computed, so the functions of the families may rely on them.

mod activation;
mod array;
mod attention;
mod conv;
mod dense;
mod erf;
#[cfg(test)]
mod hostile;
mod io;
mod math;
mod norm;
mod pool;
mod recurrent;
mod reduce;
mod run;
mod sample;
mod scatter;
mod shape;
mod spatial;
#[cfg(test)]
mod testing;
mod window;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use array::{Array, MAX_ELEMENTS};
pub use erf::erf;
pub use run::evaluate;

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
    let optional = |slot: usize| inputs.get(slot).copied().flatten();
    let all = || (0..inputs.len()).map(|slot| at(inputs, slot)).collect::<Result<Vec<_>, _>>();
    let shape = shapes.first().map_or(&[][..], Vec::as_slice);
    let one = match op {
        Op::Input(_) => Err("an input has no value of its own".to_owned()),
        Op::Foreign(op) => Err(format!("no evaluation of {}, which has no translation", op.op)),
        Op::Constant(op) => Array::from_tensor(&op.tensor),
        Op::Fill(op) => io::fill(op, shape),
        Op::Range(op) => io::range(op, shape),
        Op::Dims(op) => io::dims(op),
        Op::Conv(op) => conv::conv(op, x()?, at(inputs, 1)?, optional(2), shape),
        Op::ConvTranspose(op) => conv::conv_transpose(op, x()?, at(inputs, 1)?, optional(2), shape),
        Op::Pool(op) => pool::pool(op, x()?, shape),
        Op::AdaptivePool(op) => pool::adaptive(op, x()?, shape),
        Op::BatchNorm(op) => norm::batch_norm(op, x()?, inputs),
        Op::LayerNorm(op) => norm::layer_norm(op, x()?, inputs),
        Op::InstanceNorm(op) => norm::instance_norm(op, x()?, inputs),
        Op::GroupNorm(op) => norm::group_norm(op, x()?, inputs),
        Op::Lrn(op) => norm::lrn(op, x()?),
        Op::L2Normalize(op) => norm::l2_normalize(op, x()?),
        Op::Dropout(_) => Ok(x()?.clone()),
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
        Op::Dense(_) => dense::dense(x()?, at(inputs, 1)?, optional(2), shape),
        Op::MatMul(op) => dense::matmul(op, x()?, at(inputs, 1)?, shape),
        Op::Einsum(op) => dense::einsum(op, &all()?),
        Op::Attention(op) => attention::attention(op, x()?, at(inputs, 1)?, at(inputs, 2)?, optional(3), shape),
        Op::Recurrent(op) => return recurrent::recurrent(op, &all()?, shapes),
        Op::Reduce(op) => reduce::reduce(op, x()?, shape),
        Op::ArgReduce(op) => reduce::arg_reduce(op, x()?, shape),
        Op::TopK(op) => return reduce::top_k(op, x()?, shape),
        Op::Reshape(_) | Op::Squeeze(_) | Op::Unsqueeze(_) => x()?.reshaped(shape),
        Op::Transpose(op) => Ok(x()?.transposed(&op.perm)),
        Op::Concat(op) => shape::joined(&all()?, op.axis),
        Op::Split(op) => return shape::split(op, x()?),
        Op::Pack(op) => shape::pack(op, &all()?),
        Op::Unpack(op) => return shape::unpack(op, x()?),
        Op::Slice(op) => shape::slice(op, x()?),
        Op::Pad(op) => shape::pad(op, x()?, shape),
        Op::Tile(_) => shape::tile(x()?, shape),
        Op::Expand(_) => math::expand(x()?, shape),
        Op::Gather(op) => shape::gather(op, x()?, at(inputs, 1)?, shape),
        Op::GatherNd(_) => shape::gather_nd(x()?, at(inputs, 1)?, shape),
        Op::Scatter(op) => scatter::scatter(op, x()?, at(inputs, 1)?, at(inputs, 2)?),
        Op::OneHot(op) => shape::one_hot(op, x()?),
        Op::Reverse(op) => shape::reverse(op, x()?),
        Op::Resize(op) => spatial::resize(op, x()?, shape),
        Op::GridSample(op) => sample::grid_sample(op, x()?, at(inputs, 1)?),
        Op::SpaceToDepth(op) => spatial::space_to_depth(op.block, op.channel_major, op.layout, x()?),
        Op::DepthToSpace(op) => spatial::depth_to_space(op.block, op.channel_major, op.layout, x()?),
    };
    Ok(vec![one?])
}

#[cfg(test)]
mod tests {
    use super::testing::{check, ramp, reals};
    use super::*;
    use crate::op::{Binary, Dims, Expand, Fill, Foreign, Range, Reshape, Tile};
    use crate::tensor::DType;

    fn shape(dims: &[&str]) -> Shape {
        dims.iter().map(|dim| Dim::parse(dim).unwrap()).collect()
    }

    /// Runs an operator on inputs that were declared with a free batch.
    fn run(op: impl Into<Op>, inputs: &[(&Array, &[&str])]) -> Result<(Vec<usize>, Vec<f64>), String> {
        let infos: Vec<_> = inputs.iter().map(|(x, dims)| ValueInfo::new(x.dtype(), shape(dims))).collect();
        let arrays: Vec<_> = inputs.iter().map(|(x, _)| Some(*x)).collect();
        let output = apply_with(&op.into(), &arrays, &infos.iter().map(Some).collect::<Vec<_>>())?.remove(0);
        Ok((output.shape().to_vec(), output.to_f64()))
    }

    #[test]
    fn free_sizes_are_those_of_the_inputs() {
        let x = ramp(&[6, 2]);
        let like: (&Array, &[&str]) = (&x, &["2*N", "2"]);
        let dtype = DType::Int32;
        assert_eq!(run(Reshape { shape: shape(&["N", "4"]) }, &[like]).unwrap().0, [3, 4]);
        assert_eq!(run(Fill { shape: shape(&["N"]), value: 1.0, dtype }, &[like]).unwrap(), (vec![3], vec![1.; 3]));
        assert_eq!(run(Dims { dims: shape(&["4*N", "7"]), dtype }, &[like]).unwrap(), (vec![2], vec![12., 7.]));
        let range = Range { start: 0, limit: Dim::symbol("N"), delta: 1, dtype };
        assert_eq!(run(range, &[like]).unwrap(), (vec![3], vec![0., 1., 2.]));
        let one = ramp(&[1]);
        assert_eq!(run(Expand { shape: shape(&["N", "1"]) }, &[(&one, &["1"]), like]).unwrap().0, [3, 1]);
        assert_eq!(run(Tile { repeats: shape(&["N"]) }, &[(&one, &["1"]), like]).unwrap().1, [-1.25; 3]);
    }

    #[test]
    fn free_sizes_must_agree() {
        let (x, y) = (ramp(&[3]), ramp(&[1]));
        let error = run(Binary::Add, &[(&x, &["N"]), (&y, &["N"])]).unwrap_err();
        assert!(error.contains("N is 3"), "{error}");
        assert!(run(Binary::Add, &[(&x, &["2*N"]), (&x, &["?"])]).unwrap_err().contains("expected [2*N]"));
        let alone = Fill { shape: shape(&["N"]), value: 0.0, dtype: DType::Float32 };
        assert!(apply(&alone.into(), &[]).is_err());
    }

    #[test]
    fn ranges_count_up_and_down() {
        let range = |start, limit, delta| Range { start, limit: Dim::Known(limit), delta, dtype: DType::Float32 };
        check(range(1, 8, 3), &[], &[3], &[1., 4., 7.]);
        check(range(5, 0, -2), &[], &[3], &[5., 3., 1.]);
        check(range(5, 2, 1), &[], &[0], &[]);
    }

    #[test]
    fn nothing_is_computed_that_could_not_be_held() {
        let fill = Fill { shape: Shape::known(&[1 << 20, 1 << 20]), value: 0.0, dtype: DType::Int8 };
        assert!(apply(&fill.into(), &[]).unwrap_err().contains("too large"));
        let tile = Tile { repeats: Shape::known(&[usize::MAX]) };
        assert!(apply(&tile.into(), &[Some(&reals(&[2], &[1., 2.]))]).is_err());
    }

    #[test]
    fn foreign_operators_are_named() {
        let op = Foreign { op: "MatrixInverse".to_owned(), dtype: DType::Float32, shape: Shape::scalar() };
        assert!(apply(&op.into(), &[]).unwrap_err().contains("MatrixInverse"));
    }
}
