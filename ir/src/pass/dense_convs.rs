//! Makes a convolution whose kernel covers its whole input map a dense layer, and so 1x1 ones on maps of 1x1.
//!
//! ```text
//! x [N, 7, 7, C] -> Conv 7x7 -> Relu -> Conv 1x1 -> Squeeze
//! x [N, 7, 7, C] -> Reshape [N, 49 C] -> Dense -> Relu -> Dense
//! ```
//!
//! The axes of size 1 that the map has left come back behind the functions that follow, where they often meet the
//! squeeze that takes them out.

use super::rewrite::{forward, view};
use crate::diagnostic::{Error, Result};
use crate::graph::{Graph, NodeId, Value};
use crate::layout::Layout;
use crate::op::{Conv, Dense, Op, Reduce, Reshape, Squeeze, Unsqueeze};
use crate::shape::{Dim, Shape};

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize> {
    forward(graph, |graph, id| match graph.op(id).clone() {
        Op::Conv(op) => dense(graph, id, &op),
        Op::Unary(_) | Op::LeakyRelu(_) | Op::Elu(_) | Op::Gelu(_) | Op::Clip(_) | Op::Dropout(_) => {
            before_unsqueeze(graph, id)
        }
        _ => Ok(false),
    })
}

/// Makes a convolution a dense layer, if its kernel is as large as what it reads.
fn dense(graph: &mut Graph, id: NodeId, op: &Conv) -> Result<bool> {
    let (Some(x), Some(weights)) = (graph.input_of(id, 0), graph.input_of(id, 1)) else { return Ok(false) };
    let Some(tensor) = graph.tensor(weights).cloned() else { return Ok(false) };
    let shape = graph.shape(x).clone();
    let (kernel, rank) = (tensor.shape(), shape.rank());
    let spatial: Vec<usize> = op.layout.spatial_axes(rank).collect();
    let covers = spatial.iter().zip(&kernel).zip(&op.dilations).all(|((&axis, &size), &dilation)| {
        shape.get(axis).and_then(Dim::known) == Some(size) && (size == 1 || dilation == 1)
    });
    let (Some(&outputs), Some(&inputs)) = (kernel.last(), kernel.iter().rev().nth(1)) else { return Ok(false) };
    if !covers || op.groups != 1 || !op.pads.is_zero() {
        return Ok(false);
    }
    let size = kernel.iter().take(spatial.len()).product::<usize>() * inputs;
    // In the order in which the map is flattened.
    let ordered = match op.layout {
        Layout::ChannelsLast => Ok(tensor),
        Layout::ChannelsFirst => {
            let perm: Vec<usize> = [rank - 2].into_iter().chain(0..spatial.len()).chain([rank - 1]).collect();
            tensor.permuted(&perm)
        }
    };
    let matrix = ordered.and_then(|tensor| tensor.reshaped(&[size, outputs])).map_err(Error::new)?;
    let matrix = view(graph, weights, matrix);
    let flat = flattened(graph, id, x, &spatial, size)?;
    let mut ports = graph.inputs_of(id);
    for (slot, value) in [flat, matrix].into_iter().enumerate() {
        if let Some(port) = ports.get_mut(slot) {
            *port = Some(value);
        }
    }
    graph.replace_op(id, Dense {}, &ports)?;
    if let Some((module, _)) = graph.node(id).name.clone().rsplit_once('/')
        && let Some(class) = graph.modules.get_mut(module)
    {
        *class = "Linear".to_owned();
    }
    unsqueezed(graph, id, spatial)?;
    Ok(true)
}

/// A map with all its elements on one axis.
fn flattened(graph: &mut Graph, id: NodeId, x: Value, spatial: &[usize], size: usize) -> Result<Value> {
    let shape = graph.shape(x).clone();
    if let Op::Unsqueeze(op) = graph.op(x.node)
        && op.axes == spatial
        && let Some(source) = graph.input_of(x.node, 0)
    {
        return Ok(source);
    }
    if let Op::Reduce(op) = graph.op(x.node).clone()
        && op.keep_dims
        && op.axes == spatial
        && graph.uses(x) == 1
    {
        // Only the reader that becomes a dense layer sees the other shape.
        let inputs = graph.inputs_of(x.node);
        graph.replace_op(x.node, Reduce { keep_dims: false, ..op }, &inputs)?;
        return Ok(x);
    }
    let name = beside(graph, id, "flatten");
    let batch = shape.first().cloned().unwrap_or(Dim::Unknown);
    let is_point = spatial.iter().all(|&axis| shape.get(axis) == Some(&Dim::Known(1)));
    let flat = match is_point {
        true => graph.add(Squeeze { axes: spatial.to_vec() }, &name, &[x])?,
        false => graph.add(Reshape { shape: Shape(vec![batch, Dim::Known(size)]) }, &name, &[x])?,
    };
    graph.place_beside(flat, id);
    Ok(flat.into())
}

/// Puts axes of size 1 behind a value.
fn unsqueezed(graph: &mut Graph, id: NodeId, axes: Vec<usize>) -> Result<()> {
    let name = beside(graph, id, "unflatten");
    graph.insert_after(id.into(), |graph, value| {
        let node = graph.add(Unsqueeze { axes }, &name, &[value])?;
        graph.place_beside(node, id);
        Ok(node.into())
    })?;
    Ok(())
}

/// Brings a function of single elements in front of the axes that were inserted before it.
fn before_unsqueeze(graph: &mut Graph, id: NodeId) -> Result<bool> {
    let Some(x) = graph.input_of(id, 0) else { return Ok(false) };
    let Op::Unsqueeze(unsqueeze) = graph.op(x.node).clone() else { return Ok(false) };
    let Some(source) = graph.input_of(x.node, 0).filter(|_| graph.uses(x) == 1) else { return Ok(false) };
    let mut behind = source.node;
    while !matches!(graph.op(behind), Op::Dense(_)) {
        let is_function = matches!(
            graph.op(behind),
            Op::Unary(_) | Op::LeakyRelu(_) | Op::Elu(_) | Op::Gelu(_) | Op::Clip(_) | Op::Dropout(_)
        );
        match graph.input_of(behind, 0).filter(|_| is_function) {
            Some(input) => behind = input.node,
            None => return Ok(false),
        }
    }
    let op = graph.op(id).clone();
    graph.replace_op(id, op, &[Some(source)])?;
    unsqueezed(graph, id, unsqueeze.axes)?;
    Ok(true)
}

/// A name for what stands beside a node: in the same scope, or in the module around the layer.
fn beside(graph: &Graph, id: NodeId, word: &str) -> String {
    let name = &graph.node(id).name;
    let Some((scope, _)) = name.rsplit_once('/') else { return word.to_owned() };
    if !graph.modules.contains_key(scope) {
        return format!("{scope}/{word}");
    }
    match scope.rsplit_once('.') {
        Some((around, _)) => format!("{around}/{word}"),
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Net, batch};
    use super::*;
    use crate::op::{Pads, ReduceKind, Unary};

    fn clean(graph: &mut Graph) -> Result<usize> {
        let count = run(graph)?;
        graph.prune();
        Ok(count + super::super::remove_noops::run(graph)?)
    }

    #[test]
    fn the_head_of_vgg() {
        for (layout, sizes, axes) in
            [(Layout::ChannelsLast, [3, 2, 4], vec![1, 2]), (Layout::ChannelsFirst, [4, 3, 2], vec![2, 3])]
        {
            let mut net = Net::new();
            let x = net.x(&sizes);
            let y = net.conv(x, &[3, 2, 4, 5], layout);
            let y = net.un(Unary::Relu, y);
            let y = net.conv(y, &[1, 1, 5, 6], layout);
            let y = net.op(Squeeze { axes }, &[y]);
            assert_eq!(net.ops(&[y], clean), ["Reshape", "Dense", "Relu", "Dense"]);
        }
    }

    #[test]
    fn a_pooled_map() {
        let mut net = Net::new();
        let x = net.x(&[3, 3, 4]);
        let y = net.reduce(ReduceKind::Mean, x, &[1, 2]);
        let y = net.conv(y, &[1, 1, 4, 2], Layout::ChannelsLast);
        let y = net.un(Unary::Sigmoid, y);
        let z = net.conv(y, &[1, 1, 2, 4], Layout::ChannelsLast);
        let z = net.mul(z, x);
        let y = net.reshape(y, batch(&[2]));
        assert_eq!(net.ops(&[y, z], clean), ["ReduceMean", "Dense", "Sigmoid", "Dense", "Unsqueeze", "Mul"]);
    }

    #[test]
    fn near_misses_stay() {
        // A smaller kernel, zeros around, dilation, groups.
        for (kernel, pads, dilation, groups) in
            [([2, 3, 4, 4], 0, 1, 1), ([3, 3, 4, 4], 1, 1, 1), ([2, 2, 4, 4], 0, 2, 1), ([3, 3, 2, 4], 0, 1, 2)]
        {
            let mut net = Net::new();
            let x = net.x(&[3, 3, 4]);
            let w = net.weight("w", &kernel);
            let op = Conv {
                strides: vec![1, 1],
                pads: Pads(vec![(pads, pads); 2]),
                dilations: vec![dilation; 2],
                groups,
                layout: Layout::ChannelsLast,
            };
            let y = net.op(op, &[x, w]);
            assert_eq!(net.ops(&[y], clean), ["Conv"]);
        }
    }
}
