//! Makes zeros that are padded in front of a convolution or average pooling the layer's own padding.
//!
//! ```text
//! x -> Pad [(0, 0), (1, 2), (1, 2), (0, 0)] -> Conv { pads: none }      x -> Conv { pads: [(1, 2), (1, 2)] }
//! ```
//!
//! Max pooling never takes its padding, so zeros in front of it stay; so does a padding that others read.

use super::rewrite::forward;
use crate::diagnostic::Result;
use crate::graph::{Graph, NodeId};
use crate::layout::Layout;
use crate::op::{Op, Pad, PadMode, Pads, PoolKind};

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize> {
    forward(graph, |graph, id| {
        let Some(input) = graph.input_of(id, 0) else { return Ok(false) };
        let (Op::Pad(pad), 1) = (graph.op(input.node).clone(), graph.uses(input)) else { return Ok(false) };
        if graph.module_of(input.node) != graph.module_of(id) {
            return Ok(false);
        }
        let rank = graph.shape(input).rank();
        let op = match graph.op(id).clone() {
            Op::Conv(mut op) => match joined(&pad, &op.pads, op.layout, rank) {
                Some(pads) => {
                    op.pads = pads;
                    Op::Conv(op)
                }
                None => return Ok(false),
            },
            Op::Pool(mut op) if op.kind == PoolKind::Avg && !op.ceil_mode => {
                let counts = op.pads.is_zero() || op.count_include_pad;
                match joined(&pad, &op.pads, op.layout, rank).filter(|_| counts) {
                    Some(pads) => {
                        op.pads = pads;
                        op.count_include_pad = true;
                        Op::Pool(op)
                    }
                    None => return Ok(false),
                }
            }
            _ => return Ok(false),
        };
        let mut inputs = graph.inputs_of(id);
        if let Some(slot) = inputs.first_mut() {
            *slot = graph.input_of(input.node, 0);
        }
        replace(graph, id, op, &inputs)
    })
}

fn replace(graph: &mut Graph, id: NodeId, op: Op, inputs: &[Option<crate::Value>]) -> Result<bool> {
    graph.replace_op(id, op, inputs)?;
    Ok(true)
}

/// Both paddings together, if the first adds zeros to spatial axes alone.
fn joined(pad: &Pad, pads: &Pads, layout: Layout, rank: usize) -> Option<Pads> {
    let zeros = pad.mode == PadMode::Constant && pad.value == 0.0;
    let spatial = layout.spatial_axes(rank);
    let outside = pad.pads.0.iter().enumerate().any(|(axis, &size)| size != (0, 0) && !spatial.contains(&axis));
    if !zeros || outside {
        return None;
    }
    let add = |(axis, &(before, after)): (usize, &(usize, usize))| {
        let &(more_before, more_after) = pad.pads.0.get(axis)?;
        Some((before.checked_add(more_before)?, after.checked_add(more_after)?))
    };
    spatial.zip(&pads.0).map(add).collect::<Option<_>>().map(Pads)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Net, the};
    use super::*;
    use crate::graph::Value;
    use crate::op::{Pool, Unary};

    fn pad(net: &mut Net, x: Value, pads: [(usize, usize); 4], value: f32) -> Value {
        net.op(Pad { pads: Pads(pads.to_vec()), mode: PadMode::Constant, value }, &[x])
    }

    fn pool(kind: PoolKind, pads: usize, count_include_pad: bool) -> Pool {
        Pool {
            kind,
            kernel: vec![3, 3],
            strides: vec![2, 2],
            pads: Pads(vec![(pads, pads); 2]),
            dilations: vec![1, 1],
            ceil_mode: false,
            count_include_pad,
            layout: Layout::ChannelsLast,
        }
    }

    const SPATIAL: [(usize, usize); 4] = [(0, 0), (1, 2), (0, 1), (0, 0)];

    #[test]
    fn zeros_on_spatial_axes() {
        for (layout, pads) in
            [(Layout::ChannelsLast, SPATIAL), (Layout::ChannelsFirst, [(0, 0), (0, 0), (1, 2), (0, 1)])]
        {
            let mut net = Net::new();
            let x = net.x(&[4, 4, 4]);
            let y = pad(&mut net, x, pads, 0.0);
            let y = net.conv(y, &[3, 3, 4, 4], layout);
            let graph = net.check(&[y], run);
            let Op::Conv(op) = graph.op(the(&graph, "Conv")) else { panic!() };
            assert_eq!(op.pads, Pads(vec![(1, 2), (0, 1)]));
            assert_eq!(graph.ids().len(), 3);
        }
        for counts in [true, false] {
            let mut net = Net::new();
            let x = net.x(&[4, 4, 3]);
            let y = pad(&mut net, x, SPATIAL, 0.0);
            let y = net.op(pool(PoolKind::Avg, 0, counts), &[y]);
            assert_eq!(net.ops(&[y], run), ["Pool"]);
        }
    }

    #[test]
    fn near_misses_stay() {
        // Not zeros; not on spatial axes; maximum; a mean that does not count its own padding; another reader.
        for (pads, value) in [(SPATIAL, 1.0), ([(0, 0), (1, 1), (1, 1), (0, 1)], 0.0)] {
            let mut net = Net::new();
            let x = net.x(&[4, 4, 3]);
            let y = pad(&mut net, x, pads, value);
            let channels = if value == 0.0 { 4 } else { 3 };
            let y = net.conv(y, &[3, 3, channels, 4], Layout::ChannelsLast);
            assert_eq!(net.ops(&[y], run), ["Pad", "Conv"]);
        }
        for op in [pool(PoolKind::Max, 0, false), pool(PoolKind::Avg, 1, false)] {
            let mut net = Net::new();
            let x = net.x(&[4, 4, 3]);
            let y = pad(&mut net, x, SPATIAL, 0.0);
            let y = net.op(op, &[y]);
            assert_eq!(net.ops(&[y], run), ["Pad", "Pool"]);
        }
        let mut net = Net::new();
        let x = net.x(&[4, 4, 3]);
        let padded = pad(&mut net, x, SPATIAL, 0.0);
        let y = net.conv(padded, &[3, 3, 3, 4], Layout::ChannelsLast);
        let z = net.un(Unary::Relu, padded);
        assert_eq!(net.ops(&[y, z], run), ["Pad", "Conv", "Relu"]);
    }
}
