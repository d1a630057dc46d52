//! What PyTorch says in another way than the graph: rewrites that keep what it computes, for this target alone.

use modelport_ir::op::{Gather, Op};
use modelport_ir::pass::fuse_attention;
use modelport_ir::{Graph, NodeId, Result, Tensor};

/// The graph as it is planned.
///
/// # Errors
/// When the graph has a cycle.
pub fn prepared(graph: &Graph) -> Result<Graph> {
    let mut graph = graph.clone();
    fuse_attention::run(&mut graph)?;
    for id in graph.ids() {
        pick(&mut graph, id)?;
    }
    graph.prune();
    Ok(graph)
}

/// One place of an axis, which is gone then, is picked by its index.
///
/// ```text
/// x -> Slice [:, 0:1] -> Squeeze [1]      x -> Gather 0 of axis 1
/// ```
fn pick(graph: &mut Graph, id: NodeId) -> Result<()> {
    let Op::Squeeze(squeeze) = graph.op(id) else { return Ok(()) };
    let ([axis], Some(part)) = (squeeze.axes.as_slice(), graph.input_of(id, 0)) else { return Ok(()) };
    let (Op::Slice(slice), Some(x)) = (graph.op(part.node), graph.input_of(part.node, 0)) else { return Ok(()) };
    let only = (0..graph.shape(x).rank()).all(|other| slice.takes_all(other) != (other == *axis));
    if !only || graph.uses(part) != 1 || slice.steps.get(*axis) != Some(&1) {
        return Ok(());
    }
    let (axis, Some(&at)) = (*axis, slice.begins.get(*axis)) else { return Ok(()) };
    let name = graph.node(part.node).name.clone();
    let index = graph.constant(&format!("{name}/index"), Tensor::from_i64(&[], &[at]));
    graph.replace_op(id, Gather { axis, batch_dims: 0 }, &[Some(x), Some(index)])
}
