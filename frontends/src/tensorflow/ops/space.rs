//! Blocks that move between space, depth and batch.

use modelport_ir::{Dim, Result, Shape, op};

use super::call::one;
use super::{Call, Family};
use crate::tensorflow::lower::Entry;

pub const OPS: Family = &[
    ("SpaceToDepth", |call| {
        let (x, block, layout) = (call.data(0)?, block_size(call)?, call.layout());
        Ok(one(call.add(op::SpaceToDepth { block, channel_major: false, layout }, &[x])?))
    }),
    ("DepthToSpace", |call| {
        let (x, block, layout) = (call.data(0)?, block_size(call)?, call.layout());
        Ok(one(call.add(op::DepthToSpace { block, channel_major: false, layout }, &[x])?))
    }),
    ("SpaceToBatch", space_to_batch),
    ("SpaceToBatchND", space_to_batch),
    ("BatchToSpace", batch_to_space),
    ("BatchToSpaceND", batch_to_space),
];

fn block_size(call: &Call) -> Result<usize> {
    let block = call.node.int("block_size").unwrap_or(0);
    usize::try_from(block).ok().filter(|&n| n > 0).ok_or_else(|| call.fail(format!("the block size is {block}")))
}

/// Sizes of a block, and pairs of paddings or crops.
type Blocks = (Vec<usize>, Vec<(usize, usize)>);

/// The block, and the pairs of the input behind it (or in its place).
fn blocks(call: &Call, what: &str) -> Result<Blocks> {
    let (block, slot) = match call.node.op.ends_with("ND") {
        true => (call.ints(1, "the block")?, 2),
        false => (vec![block_size(call)? as i64; 2], 1),
    };
    let list = call.ints(slot, what)?;
    let positive = |&n: &i64| usize::try_from(n).ok().filter(|&n| n > 0);
    let block: Option<Vec<usize>> = block.iter().map(positive).collect();
    let size = |n: i64| usize::try_from(n).ok();
    let pairs: Option<Vec<(usize, usize)>> = list
        .chunks(2)
        .map(|pair| match pair {
            [a, b] => size(*a).zip(size(*b)),
            _ => None,
        })
        .collect();
    match (block, pairs) {
        (Some(block), Some(pairs)) if block.len() == pairs.len() => Ok((block, pairs)),
        _ => Err(call.fail(format!("{what} {list:?} do not fit the block"))),
    }
}

/// Pads, cuts every spatial axis into blocks, and moves the places in a block in front of the batch.
fn space_to_batch(call: &mut Call) -> Result<Vec<Entry>> {
    let (mut x, shape) = call.shaped(0)?;
    let (block, pads) = blocks(call, "paddings")?;
    let (rank, m) = (shape.rank(), block.len());
    if rank <= m {
        return Err(call.fail(format!("a block of {m} axes does not fit {shape}")));
    }
    let mut full = vec![(0, 0); rank];
    for (axis, &pair) in pads.iter().enumerate() {
        if let Some(pad) = full.get_mut(axis + 1) {
            *pad = pair;
        }
    }
    let pads = op::Pads(full);
    if !pads.is_zero() {
        x = call.helper("pad", op::Pad { pads, mode: op::PadMode::Constant, value: 0.0 }, &[x])?;
    }
    let padded = call.lower.graph.shape(x).clone();
    let mut split = vec![padded[0].clone()];
    let mut batch = padded[0].clone();
    let mut spatial = Vec::new();
    for (axis, &size) in block.iter().enumerate() {
        let cut = padded[axis + 1].divided_by(&Dim::Known(size));
        if cut == Dim::Unknown {
            return Err(call.fail_sizes(format!("axis {} of {padded} does not divide by {size}", axis + 1)));
        }
        split.extend([cut.clone(), Dim::Known(size)]);
        spatial.push(cut);
        batch = batch.times(&Dim::Known(size));
    }
    let rest = padded.get(m + 1..).unwrap_or_default();
    split.extend_from_slice(rest);
    let places = (0..m).map(|i| 2 * i + 2);
    let perm = places.chain([0]).chain((0..m).map(|i| 2 * i + 1)).chain(2 * m + 1..split.len()).collect();
    let blocks = call.helper("blocks", op::Reshape { shape: Shape(split) }, &[x])?;
    let moved = call.helper("moved", op::Transpose { perm }, &[blocks])?;
    let shape = std::iter::once(batch).chain(spatial).chain(rest.iter().cloned()).collect();
    Ok(one(call.add(op::Reshape { shape }, &[moved])?))
}

/// The inverse: the places in a block come from the batch, and the border is cut off.
fn batch_to_space(call: &mut Call) -> Result<Vec<Entry>> {
    let (x, shape) = call.shaped(0)?;
    let (block, crops) = blocks(call, "crops")?;
    let (rank, m) = (shape.rank(), block.len());
    if rank <= m {
        return Err(call.fail(format!("a block of {m} axes does not fit {shape}")));
    }
    let count = block.iter().fold(Dim::Known(1), |all, &n| all.times(&Dim::Known(n)));
    let batch = shape[0].divided_by(&count);
    let mut split: Vec<Dim> = block.iter().map(|&n| Dim::Known(n)).collect();
    split.push(batch.clone());
    split.extend_from_slice(shape.get(1..).unwrap_or_default());
    let mut perm = vec![m];
    let mut joined = vec![batch];
    for (i, &size) in block.iter().enumerate() {
        perm.extend([m + 1 + i, i]);
        joined.push(shape[i + 1].times(&Dim::Known(size)));
    }
    perm.extend(2 * m + 1..split.len());
    joined.extend_from_slice(shape.get(m + 1..).unwrap_or_default());
    let parts = call.helper("parts", op::Reshape { shape: Shape(split) }, &[x])?;
    let moved = call.helper("moved", op::Transpose { perm }, &[parts])?;
    let reshape = op::Reshape { shape: Shape(joined) };
    if crops.iter().all(|&crop| crop == (0, 0)) {
        return Ok(one(call.add(reshape, &[moved])?));
    }
    let joined = call.helper("joined", reshape, &[moved])?;
    let mut crop = op::Slice::all(rank);
    for (axis, &(first, last)) in crops.iter().enumerate() {
        if let (Some(begin), Some(end)) = (crop.begins.get_mut(axis + 1), crop.ends.get_mut(axis + 1)) {
            *begin = first as i64;
            if last > 0 {
                *end = -(last as i64);
            }
        }
    }
    Ok(one(call.add(crop, &[joined])?))
}
