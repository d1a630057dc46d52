//! Keras: every operator as layers and functions, the code around them, and the model as Keras' files have it.
//!
//! The planner's classes become functions of the functional API ([`functional`]). The model is what these functions
//! build when they run, found by following them ([`trace`]): code and model can't differ.

mod build;
pub mod files;
mod functional;
mod functions;
mod fuse;
mod layers;
pub mod model;
mod operations;
mod pooling;
mod prepare;
pub mod read;
mod recurrent;
mod scatter;
mod shapes;
mod source;
mod tidy;
mod trace;
mod version2;

use std::collections::HashSet;

use modelport_ir::op::Op;
use modelport_ir::{Error, Graph, NodeId, Problem, Result};

use crate::plan::{self, Dialect, Leaf, Param};
use crate::python::Expr;
use build::{Builder, Built};
use model::Model;

/// The planner's word for a chain.
const CHAIN: &str = "chain";
/// The layer that gives back what it gets.
const IDENTITY: &str = "layers.Identity";
/// What joins the scopes in a layer's name. Keras forbids `/`, and with PyTorch as its backend the dot; the second where
/// the first would give two layers one name.
const JOINTS: [&str; 2] = ["_", "__"];

/// What the generated file offers.
#[derive(Clone, Debug)]
pub struct Options {
    /// Also a `KitModel(weights)`, as MMdnn's files had.
    pub kit_model: bool,
    /// Name of the weights file, for the docstring and as the default of `load`.
    pub weights_file: String,
    /// 3, or 2 for `tf.keras` of TensorFlow 2.12 to 2.15.
    pub version: u8,
}

impl Default for Options {
    fn default() -> Options {
        Options { kit_model: false, weights_file: String::new(), version: 3 }
    }
}

/// A program, its weights, and the model that it builds.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Python source.
    pub code: String,
    /// Weights by `layer name/variable`, in the order of the model's layers.
    pub params: Vec<Param>,
    /// The model, for its own files.
    pub model: Model,
}

/// Writes a graph as Keras code. The graph is channels-last and valid.
///
/// # Errors
/// Every node that Keras cannot say.
pub fn generate(graph: &Graph, options: &Options) -> Result<Generated> {
    let graph = &prepare::prepared(graph)?;
    let mut leaves = Vec::new();
    let mut problems = Vec::new();
    for id in graph.order()? {
        // A constant that is an output has to be kept like a weight.
        let is_output = graph.outputs.iter().any(|port| port.value.node == id);
        if matches!(graph.op(id), Op::Input(_)) || (matches!(graph.op(id), Op::Constant(_)) && !is_output) {
            continue;
        }
        match leaf(graph, id, options.version) {
            Ok(leaf) => leaves.push(leaf),
            Err(problem) => problems.push(problem),
        }
    }
    Error::collect(problems)?;
    let dialect = Dialect { sequential: CHAIN, identity: IDENTITY, functional: true, holder: |_| None };
    let program = plan::plan(graph, leaves, Vec::new(), &dialect)?;
    let mut joint = JOINTS[0];
    let mut functions = functional::functions(&program, joint, &HashSet::new());
    if trace::collide(&program, &functions, joint) {
        joint = JOINTS[1];
        functions = functional::functions(&program, joint, &HashSet::new());
    }
    let (mut model, taken) = trace::model(graph, &program, &functions, joint)?;
    if !taken.is_empty() {
        functions = functional::functions(&program, joint, &taken);
        (model, _) = trace::model(graph, &program, &functions, joint)?;
    }
    let code = source::render(graph, &functions, options)?;
    let params = model.params();
    Ok(Generated { code, params, model })
}

/// A node as a leaf.
fn leaf(graph: &Graph, id: NodeId, version: u8) -> std::result::Result<Leaf, Problem> {
    let mut b = Builder::new(graph, id, version);
    let (role, expr) = expression(&mut b, graph.op(id))?;
    Ok(b.leaf(&role, expr))
}

fn named(role: &str, built: Built) -> std::result::Result<(String, Expr), Problem> {
    built.map(|expr| (role.to_owned(), expr))
}

fn expression(b: &mut Builder<'_>, op: &Op) -> std::result::Result<(String, Expr), Problem> {
    use functions as f;
    use layers as l;
    use pooling as p;
    use shapes as s;
    match op {
        Op::Input(_) => Err(b.problem("an input is no call")),
        Op::Constant(op) => {
            let name = b.graph.node(b.node).name.clone();
            named("constant", b.constant("constant", &op.tensor, &name, op.trainable))
        }
        Op::Foreign(_) => Err(b.problem("no translation for this operator")),
        Op::Fill(op) => named("fill", s::fill(b, op)),
        Op::Range(op) => named("positions", s::range(b, op)),
        Op::Dims(op) => named("sizes", s::sizes(b, &op.dims, op.dtype)),
        Op::Conv(op) => named("conv", l::conv(b, op)),
        Op::ConvTranspose(op) => named("conv", l::conv_transpose(b, op)),
        Op::Pool(op) => named("pool", p::pool(b, op)),
        Op::AdaptivePool(op) => named("pool", p::adaptive_pool(b, op)),
        Op::BatchNorm(op) => named("bn", l::batch_norm(b, op)),
        Op::LayerNorm(op) => named("norm", l::layer_norm(b, op)),
        Op::InstanceNorm(op) => named("norm", l::instance_norm(b, op.epsilon, op.layout)),
        Op::GroupNorm(op) => named("norm", l::group_norm(b, op)),
        Op::Lrn(op) => named("lrn", f::lrn(b, op)),
        Op::L2Normalize(op) => named("normalized", f::l2_normalize(b, op)),
        Op::Dropout(op) => named("dropout", l::dropout(b, op.rate)),
        Op::Unary(op) => named(&format!("{op:?}").to_lowercase(), f::unary(b, *op)),
        Op::LeakyRelu(op) => named("leaky_relu", f::leaky_relu(b, op.alpha)),
        Op::Elu(op) => named("elu", f::elu(b, op.alpha)),
        Op::Gelu(op) => named("gelu", f::gelu(b, op.approximate)),
        Op::PRelu(op) => named("prelu", l::prelu(b, op)),
        Op::Clip(op) => named("clipped", f::clip(b, op)),
        Op::Softmax(op) => named("softmax", f::softmax(b, op.axis)),
        Op::LogSoftmax(op) => named("log_softmax", f::log_softmax(b, op.axis)),
        Op::Binary(op) => named("y", f::binary(b, *op)),
        Op::Select(_) => named("selected", f::select(b)),
        Op::Cast(op) => named("y", f::cast(b, op.dtype)),
        Op::CumSum(op) => named("sums", f::cumsum(b, op)),
        Op::Dense(_) => named("fc", l::dense(b)),
        Op::MatMul(op) => named("product", f::matmul(b, op)),
        Op::Attention(_) => Err(b.problem("attention is written out for Keras")),
        Op::Recurrent(op) => named("rnn", recurrent::recurrent(b, op)),
        Op::Einsum(op) => named("product", f::einsum(b, &op.equation)),
        Op::Reduce(op) => named(&format!("{:?}", op.kind).to_lowercase(), f::reduce(b, op)),
        Op::ArgReduce(op) => named("index", f::arg_reduce(b, op)),
        Op::TopK(op) => named("top", f::top_k(b, op)),
        Op::Reshape(_) => named("y", s::reshape(b)),
        Op::Transpose(op) => named("y", s::transpose(b, &op.perm)),
        Op::Squeeze(op) => named("y", s::squeeze(b, &op.axes)),
        Op::Unsqueeze(op) => named("y", s::unsqueeze(b, &op.axes)),
        Op::Concat(op) => named("y", f::concat(b, op.axis)),
        Op::Pack(op) => named("y", s::pack(b, op.axis)),
        Op::Split(op) => named("part", s::split(b, op)),
        Op::Unpack(op) => named("part", s::unpack(b, op.axis, op.count)),
        Op::Slice(op) => named("part", s::slice(b, op)),
        Op::Pad(op) => named("padded", s::pad(b, op)),
        Op::Tile(op) => named("y", s::tile(b, op)),
        Op::Expand(_) => named("y", s::expand(b)),
        Op::Gather(op) => match f::is_embedding(b, op) {
            true => named("embedding", l::embedding(b)),
            false => named("picked", s::gather(b, op)),
        },
        Op::GatherNd(_) => named("picked", s::gather_nd(b)),
        Op::Scatter(op) => named("written", scatter::scatter(b, op)),
        Op::OneHot(op) => named("one_hot", s::one_hot(b, op)),
        Op::Reverse(op) => named("y", s::reverse(b, op)),
        Op::Resize(op) => named("resized", s::resize(b, op)),
        Op::GridSample(_) => Err(b.problem("Keras has no operation that samples at computed places")),
        Op::SpaceToDepth(op) => named("y", s::space_to_depth(b, op)),
        Op::DepthToSpace(op) => named("y", s::depth_to_space(b, op)),
    }
}
