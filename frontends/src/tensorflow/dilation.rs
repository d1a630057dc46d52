//! Dilated convolution as graphs of TensorFlow 1 have it: SpaceToBatch, a convolution, BatchToSpace.
//!
//! ```text
//! SpaceToBatchND(x, rate, pads) -> Conv2D VALID -> [bias, activation] -> BatchToSpaceND(rate, crops)
//! ```
//! becomes `_DilatedConv2D(x, weights, pads, crops)` with the rates as attributes, and the rest as it was. The border
//! is settled when the sizes are known.

use std::collections::{HashMap, HashSet};

use super::clean::Resolver;
use super::graphdef::{Attr, NodeDef};
use super::net::Ref;

/// Elementwise operators that may stand between, and whose other operands are vectors over the channels.
const COMMUTING: &[&str] = &[
    "BiasAdd",
    "Add",
    "AddV2",
    "Sub",
    "Mul",
    "Relu",
    "Relu6",
    "LeakyRelu",
    "Elu",
    "Selu",
    "Sigmoid",
    "Tanh",
    "Softplus",
    "FusedBatchNorm",
    "FusedBatchNormV2",
    "FusedBatchNormV3",
];

/// How many operators may stand between the convolution and BatchToSpace.
const MAX_BETWEEN: usize = 8;

/// New nodes for those that the pattern changes, among the nodes that are needed.
pub fn rewrite(resolver: &Resolver, needed: &HashSet<usize>) -> Vec<(usize, NodeDef)> {
    let mut uses: HashMap<usize, usize> = HashMap::new();
    for &index in needed {
        for value in resolver.inputs(index).into_iter().flatten() {
            *uses.entry(value.node).or_default() += 1;
        }
    }
    let mut ends: Vec<usize> = needed.iter().copied().collect();
    ends.sort_unstable();
    ends.into_iter().filter_map(|end| dilated(resolver, &uses, end)).flatten().collect()
}

/// The block and the slot of the paddings or crops.
fn block(resolver: &Resolver, index: usize) -> Option<(Vec<i64>, usize)> {
    let node = resolver.net().node(index);
    if let Some(size) = node.int("block_size") {
        return Some((vec![size; 2], 1));
    }
    let block = resolver.resolve(resolver.net().input(index, 1)?);
    let tensor = resolver.net().node(block.node).tensor("value").filter(|tensor| tensor.numel() <= 3)?;
    Some((tensor.to_i64().ok()?, 2))
}

fn dilated(resolver: &Resolver, uses: &HashMap<usize, usize>, end: usize) -> Option<Vec<(usize, NodeDef)>> {
    let net = resolver.net();
    if !matches!(net.op(end), "BatchToSpaceND" | "BatchToSpace") {
        return None;
    }
    let (rates, crops_slot) = block(resolver, end)?;
    let single = |value: Ref| uses.get(&value.node) == Some(&1) && value.output == 0;
    let source = |index: usize, slot: usize| net.input(index, slot).map(|value| resolver.resolve(value));

    let mut value = source(end, 0)?;
    let mut squeezed = false;
    let mut steps = 0;
    while !matches!(net.op(value.node), "Conv2D" | "Conv3D" | "DepthwiseConv2dNative") {
        steps += 1;
        if steps > MAX_BETWEEN || !single(value) {
            return None;
        }
        match net.op(value.node) {
            "Squeeze" => squeezed = true,
            op if !COMMUTING.contains(&op) => return None,
            op if op.starts_with("FusedBatchNorm") && net.node(value.node).is_training() => return None,
            _ => {}
        }
        let vector = |value: Ref| {
            let node = net.node(value.node);
            let rank = node.tensor("value").map(|t| t.rank()).or_else(|| node.shape("shape").map(<[i64]>::len));
            rank.is_some_and(|rank| rank <= 1)
        };
        let inputs: Vec<Ref> = resolver.inputs(value.node).into_iter().collect::<Option<_>>()?;
        let squeeze = net.op(value.node) == "Squeeze";
        let mut data = inputs.into_iter().filter(|input| squeeze || !vector(*input));
        let next = data.next()?;
        if data.next().is_some() {
            return None;
        }
        value = next;
    }
    let conv = value.node;
    let node = net.node(conv);
    let unit = |attr: &str| node.ints(attr).unwrap_or_default().iter().all(|&n| n == 1);
    if !single(value) || !unit("strides") || !matches!(node.text("padding"), Some("VALID" | "SAME")) {
        return None;
    }

    // In one dimension the block is on a value of rank 3, which is expanded for the convolution.
    let mut begin = source(conv, 0)?;
    let mut expanded = None;
    if net.op(begin.node) == "ExpandDims" {
        let axis = resolver.net().node(source(begin.node, 1)?.node).tensor("value")?.to_i64().ok()?;
        let axis = match axis.as_slice() {
            [axis] if *axis < 0 => *axis + 4,
            [axis] => *axis,
            _ => return None,
        };
        if !single(begin) {
            return None;
        }
        expanded = Some((begin.node, axis));
        begin = source(begin.node, 0)?;
    }
    if squeezed != expanded.is_some() || !matches!(net.op(begin.node), "SpaceToBatchND" | "SpaceToBatch") {
        return None;
    }
    let (begin_rates, pads_slot) = block(resolver, begin.node)?;
    if begin_rates != rates {
        return None;
    }

    let rank = if node.op == "Conv3D" { 5 } else { 4 };
    let mut places = Vec::new();
    for axis in node.layout().spatial_axes(rank) {
        let axis = axis as i64;
        places.push(match expanded {
            Some((_, new)) if new == axis => -1,
            Some((_, new)) if new < axis => axis - 2,
            _ => axis - 1,
        });
    }
    // Every rate but 1 is on a spatial axis.
    let covered = |place: usize| places.contains(&(place as i64));
    if rates.iter().enumerate().any(|(place, &rate)| rate < 1 || (rate != 1 && !covered(place))) {
        return None;
    }
    let rate = |place: &i64| usize::try_from(*place).ok().and_then(|p| rates.get(p)).copied().unwrap_or(1);
    let list = |ints: Vec<i64>| Attr::List(ints.into_iter().map(Attr::Int).collect());
    let inside = |place: i64| if place < rates.len() as i64 { place } else { -1 };

    let text = |index: usize, slot: usize| net.node(index).inputs.get(slot).cloned();
    let start = text(begin.node, 0)?;
    let mut edits = Vec::new();
    let mut dilated = node.clone();
    dilated.op = format!("_Dilated{}", node.op);
    let first = match expanded {
        Some((expand, _)) => {
            let mut expand_node = net.node(expand).clone();
            *expand_node.inputs.first_mut()? = start;
            edits.push((expand, expand_node));
            text(conv, 0)?
        }
        None => start,
    };
    dilated.inputs = vec![first, text(conv, 1)?, text(begin.node, pads_slot)?, text(end, crops_slot)?];
    dilated.attrs.insert("_rates".to_owned(), list(places.iter().map(rate).collect()));
    dilated.attrs.insert("_places".to_owned(), list(places.into_iter().map(inside).collect()));
    edits.push((conv, dilated));
    let result = net.node(end);
    edits.push((
        end,
        NodeDef {
            name: result.name.clone(),
            op: "Identity".to_owned(),
            inputs: vec![text(end, 0)?],
            attrs: std::collections::BTreeMap::new(),
        },
    ));
    Some(edits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensorflow::testing::net;

    fn rewritten(text: &str) -> Vec<String> {
        let net = net(text);
        let resolver = Resolver::new(&net, false, HashSet::new());
        let edits = rewrite(&resolver, &(0..net.len()).collect());
        edits.into_iter().map(|(_, n)| format!("{} = {}({})", n.name, n.op, n.inputs.join(", "))).collect()
    }

    const CONV: &str = "
        x = Placeholder()
        block = Const() | value=i32<2>[2,2]
        pads = Const() | value=i32<2,2>[2,3,2,3]
        crops = Const() | value=i32<2,2>[0,1,0,1]
        w = Const() | value=f32<3,3,2,4>[]
        b = Const() | value=f32<4>[]
        s2b = SpaceToBatchND(x, block, pads)
        conv = Conv2D(s2b, w) | strides=[1,1,1,1] padding=VALID
        bias = BiasAdd(conv, b)
        relu = Relu(bias)
        b2s = BatchToSpaceND(relu, block, crops)";

    #[test]
    fn a_block_around_a_convolution_is_a_dilation() {
        assert_eq!(rewritten(CONV), ["conv = _DilatedConv2D(x, w, pads, crops)", "b2s = Identity(relu)"]);
    }

    #[test]
    fn other_readers_and_strides_forbid_it() {
        assert!(rewritten(&format!("{CONV}\nother = Neg(conv)")).is_empty());
        assert!(rewritten(&CONV.replace("strides=[1,1,1,1]", "strides=[1,2,2,1]")).is_empty());
        assert!(rewritten(&CONV.replace("Relu(bias)", "Softmax(bias)")).is_empty());
    }

    #[test]
    fn one_dimension_is_expanded() {
        let text = "
            x = Placeholder()
            block = Const() | value=i32<1>[2]
            pads = Const() | value=i32<1,2>[2,1]
            w = Const() | value=f32<1,2,3,4>[]
            one = Const() | value=i32<>[1]
            s2b = SpaceToBatchND(x, block, pads)
            e = ExpandDims(s2b, one)
            conv = Conv2D(e, w) | strides=[1,1,1,1] padding=VALID
            s = Squeeze(conv) | squeeze_dims=[1]
            b2s = BatchToSpaceND(s, block, pads)";
        let expected = ["e = ExpandDims(x, one)", "conv = _DilatedConv2D(e, w, pads, pads)", "b2s = Identity(s)"];
        assert_eq!(rewritten(text), expected);
    }
}
