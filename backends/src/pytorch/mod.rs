//! PyTorch: every operator as modules and expressions, and the code around them.

mod build;
mod functional;
mod functions;
mod layers;
mod prepare;
mod recurrent;
mod shapes;
mod source;
mod spare;
mod spatial;
mod weight_norm;

use modelport_ir::op::Op;
use modelport_ir::{Error, Graph, NodeId, Problem, Result, Value};

use crate::plan::{self, Dialect, Leaf, Param};
use crate::python::{Arg, Expr, Lit};
use build::{Builder, Built};

/// What the generated file offers.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Also a `KitModel(weights)`, as MMdnn's files had.
    pub kit_model: bool,
    /// Also what a pickled whole module needs to come back.
    pub restore: bool,
    /// Whether the network only has to be fast: `load` then keeps kernels, and so the data, with channels last in
    /// memory, which suits the CPU's convolutions. Shapes and results are the same.
    pub inference: bool,
    /// Name of the weights file, for the docstring and as the default of `load`.
    pub weights_file: String,
}

/// A program and its weights.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Python source.
    pub code: String,
    /// The state dict, in the order in which modules are registered.
    pub params: Vec<Param>,
}

/// Writes a graph as PyTorch code. The graph is channels-first and valid.
///
/// # Errors
/// Every node that PyTorch cannot say.
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
        match leaf(graph, id) {
            Ok(leaf) => leaves.push(leaf),
            Err(problem) => problems.push(problem),
        }
    }
    Error::collect(problems)?;
    let spare = if options.inference { Vec::new() } else { spare::weights(graph) };
    let (sequential, identity) = ("nn.Sequential", "nn.Identity");
    let dialect = Dialect { sequential, identity, functional: false, holder: spare::layer };
    let mut program = plan::plan(graph, leaves, spare, &dialect)?;
    plan::list_layers(&mut program, sequential);
    let code = source::render(graph, &program, options)?;
    Ok(Generated { code, params: program.params })
}

/// A node as a leaf.
fn leaf(graph: &Graph, id: NodeId) -> std::result::Result<Leaf, Problem> {
    let mut b = Builder::new(graph, id);
    let (role, expr) = expression(&mut b, graph.op(id))?;
    let mut leaf = b.leaf(&role, expr);
    if leaf.members.is_empty() {
        name_attended(graph, id, &mut leaf);
    }
    if !graph.modules.is_empty() {
        leaf.functional = functional::form(graph, id, &leaf);
    }
    Ok(leaf)
}

/// Calls what goes into an attention as everyone does.
fn name_attended(graph: &Graph, id: NodeId, leaf: &mut Leaf) {
    let outputs = graph.node(id).outputs.len();
    let names: Option<Vec<&str>> = (0..outputs).map(|output| attended(graph, Value { node: id, output })).collect();
    match names.as_deref() {
        Some([name]) => leaf.role = (*name).to_owned(),
        Some(names) if leaf.results.is_empty() => leaf.results = names.iter().map(|&name| name.to_owned()).collect(),
        _ => {}
    }
}

/// Whether a value is the query, the key or the value of an attention, in the end.
fn attended(graph: &Graph, mut value: Value) -> Option<&'static str> {
    for _ in 0..4 {
        let readers = graph.consumers(value);
        let [(reader, slot)] = readers.as_slice() else { return None };
        match graph.op(*reader) {
            Op::Attention(_) => return ["q", "k", "v"].get(*slot).copied(),
            Op::Transpose(_) | Op::Reshape(_) | Op::Squeeze(_) | Op::Unsqueeze(_) => value = (*reader).into(),
            _ => return None,
        }
    }
    None
}

fn named(role: &str, built: Built) -> std::result::Result<(String, Expr), Problem> {
    built.map(|expr| (role.to_owned(), expr))
}

fn expression(b: &mut Builder<'_>, op: &Op) -> std::result::Result<(String, Expr), Problem> {
    use functions as f;
    use layers as l;
    use shapes as s;
    match op {
        Op::Input(_) => Err(b.problem("an input is no call")),
        Op::Constant(op) => {
            let name = b.graph.node(b.node).name.clone();
            Ok(("constant".to_owned(), b.buffer("constant", op.tensor.clone(), &name)))
        }
        Op::Foreign(_) => Err(b.problem("no translation for this operator")),
        Op::Fill(op) => named("fill", s::fill(b, op)),
        Op::Range(op) => named("positions", s::range(b, op)),
        Op::Dims(op) => named("sizes", s::sizes(b, &op.dims, op.dtype)),
        Op::Conv(op) => named("conv", l::conv(b, op)),
        Op::ConvTranspose(op) => named("conv", l::conv_transpose(b, op)),
        Op::Pool(op) => named("pool", l::pool(b, op)),
        Op::AdaptivePool(op) => named("pool", l::adaptive_pool(b, op)),
        Op::BatchNorm(op) => named("bn", l::batch_norm(b, op)),
        Op::LayerNorm(op) => named("norm", l::layer_norm(b, op)),
        Op::InstanceNorm(op) => named("norm", l::instance_norm(b, op.epsilon, op.layout)),
        Op::GroupNorm(op) => named("norm", l::group_norm(b, op)),
        Op::Lrn(op) => named("lrn", f::lrn(b, op)),
        Op::L2Normalize(op) => named("normalized", f::l2_normalize(b, op)),
        Op::Dropout(op) => named("dropout", l::dropout(b, op.rate)),
        Op::Unary(op) => named(&format!("{op:?}").to_lowercase(), f::unary(b, *op)),
        Op::LeakyRelu(op) => {
            let arg = Arg::or("negative_slope", Expr::slot("negative_slope", Lit::float(op.alpha)), Lit::float(0.01));
            named("leaky_relu", f::activation(b, "F.leaky_relu", "nn.LeakyReLU", Some(arg)))
        }
        Op::Elu(op) => {
            let arg = Arg::or("alpha", Expr::slot("alpha", Lit::float(op.alpha)), Lit::float(1.0));
            named("elu", f::activation(b, "F.elu", "nn.ELU", Some(arg)))
        }
        Op::Gelu(op) => {
            let arg = op
                .approximate
                .then(|| Arg::keyword("approximate", Expr::slot("approximate", Lit::Str("tanh".to_owned())), None));
            named("gelu", f::activation(b, "F.gelu", "nn.GELU", arg))
        }
        Op::PRelu(_) => named("prelu", l::prelu(b)),
        Op::Clip(op) => named("clipped", f::clip(b, op)),
        Op::Softmax(op) => named("softmax", f::softmax(b, "F.softmax", "nn.Softmax", op.axis)),
        Op::LogSoftmax(op) => named("log_softmax", f::softmax(b, "F.log_softmax", "nn.LogSoftmax", op.axis)),
        Op::Binary(op) => named("y", f::binary(b, *op)),
        Op::Select(_) => named("selected", f::select(b)),
        Op::Cast(op) => named("y", f::cast(b, op.dtype)),
        Op::CumSum(op) => named("sums", f::cumsum(b, op)),
        Op::Dense(_) => named("fc", l::dense(b)),
        Op::MatMul(op) => named("product", f::matmul(b, op)),
        Op::Einsum(op) => named("product", f::einsum(b, &op.equation)),
        Op::Attention(op) => named("attention", f::attention(b, op)),
        Op::Recurrent(op) => named("rnn", recurrent::recurrent(b, op)),
        Op::Reduce(op) => named(&format!("{:?}", op.kind).to_lowercase(), f::reduce(b, op)),
        Op::ArgReduce(op) => named("index", f::arg_reduce(b, op)),
        Op::TopK(op) => named("top", f::top_k(b, op)),
        Op::Reshape(_) => named("y", s::reshape(b)),
        Op::Transpose(op) => named("y", s::transpose(b, &op.perm)),
        Op::Squeeze(op) => named("y", s::squeeze(b, &op.axes)),
        Op::Unsqueeze(op) => named("y", s::unsqueeze(b, &op.axes)),
        Op::Concat(op) => named("y", s::join(b, "torch.cat", op.axis)),
        Op::Pack(op) => named("y", s::join(b, "torch.stack", op.axis)),
        Op::Split(op) => named("part", s::split(b, op)),
        Op::Unpack(op) => named("part", s::unpack(b, op.axis)),
        Op::Slice(op) => named("part", s::slice(b, op)),
        Op::Pad(op) => named("padded", s::pad(b, op)),
        Op::Tile(op) => named("y", s::tile(b, op)),
        Op::Expand(_) => named("y", s::expand(b)),
        Op::Gather(op) => match is_embedding(b, op) {
            true => named("embedding", l::embedding(b)),
            false => named("picked", s::gather(b, op)),
        },
        Op::GatherNd(_) => named("picked", s::gather_nd(b)),
        Op::Scatter(op) => named("written", s::scatter(b, op)),
        Op::OneHot(op) => named("one_hot", s::one_hot(b, op)),
        Op::Reverse(op) => named("y", s::reverse(b, op)),
        Op::Resize(op) => named("resized", spatial::resize(b, op)),
        Op::GridSample(op) => named("sampled", spatial::grid_sample(b, op)),
        Op::SpaceToDepth(op) => named("y", spatial::space_to_depth(b, op)),
        Op::DepthToSpace(op) => named("y", spatial::depth_to_space(b, op)),
    }
}

/// A table of vectors that is picked from by computed indices.
fn is_embedding(b: &Builder<'_>, op: &modelport_ir::op::Gather) -> bool {
    let table = b.has(0).and_then(|value| b.graph.tensor(value));
    op.axis == 0
        && op.batch_dims == 0
        && !b.is_constant(1)
        && table.is_some_and(|table| table.rank() == 2 && table.dtype().is_float())
}
