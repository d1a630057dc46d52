//! Operators in MMdnn's words: its names and attributes, for as much as they can say.
//!
//! What they leave open is found by reading the result back ([`super::node`]), so nothing here need be complete.

use super::attributes::{attributes, dtype, integer, integers, over_all, pads_over_all, say_layout, shape};
use super::proto::{AttrValue, Attributes, Value};
use crate::graph::ValueInfo;
use crate::layout::Layout;
use crate::op::{
    Cast, Conv, ConvTranspose, Coordinates, Gather, Lrn, Op, Pad, PadMode, Pads, Pool, PoolKind, ReduceKind, Reshape,
    Resize, ResizeMode, Slice, Split,
};
use crate::shape::{Dim, Shape, same_padding};
use crate::tensor::DType;

/// MMdnn's name and attributes of an operator; `None` when it has no word for it. `stored` says which inputs are
/// weights in the `.npy`.
pub(crate) fn encode(op: &Op, inputs: &[Option<&ValueInfo>], stored: &[bool]) -> Option<(&'static str, Attributes)> {
    let x = inputs.first().copied().flatten();
    let weights = inputs.get(1).copied().flatten().and_then(|info| info.shape.sizes());
    let has_bias = inputs.get(2).is_some_and(Option::is_some);
    let is_stored = |slot: usize| stored.get(slot).copied().unwrap_or(false);
    let (name, mut attr) = match op {
        Op::Input(op) => {
            let shape = Value::Shape(shape(&op.shape)).into();
            ("DataInput", attributes([("shape", shape), ("dtype", dtype(op.dtype))]))
        }
        Op::Conv(op) => conv(op, x?, &weights?, has_bias, is_stored(1))?,
        Op::ConvTranspose(op) => conv_transpose(op, &weights?, has_bias)?,
        Op::Pool(op) => pool(op, &x?.shape),
        Op::BatchNorm(op) => {
            let attr = [
                ("epsilon", op.epsilon.into()),
                ("scale", inputs.get(1).is_some_and(Option::is_some).into()),
                ("bias", has_bias.into()),
                ("axis", integer(op.layout.channel_axis(x?.shape.rank()))),
            ];
            ("BatchNorm", attributes(attr))
        }
        Op::Lrn(Lrn { size, alpha, beta, k, .. }) => (
            "LRN",
            attributes([
                ("size", integer(*size)),
                ("alpha", (alpha * *size as f32).into()),
                ("beta", (*beta).into()),
                ("bias", (*k).into()),
            ]),
        ),
        Op::Dropout(op) => ("Dropout", attributes([("keep_prob", (1.0 - op.rate).into())])),
        Op::PRelu(_) => ("PRelu", Attributes::new()),
        // MMdnn flattens what has more dimensions.
        Op::Dense(_) if x?.shape.rank() == 2 => {
            let units = *weights?.get(1)?;
            ("FullyConnected", attributes([("units", integer(units)), ("use_bias", has_bias.into())]))
        }
        Op::Reduce(op) if op.kind == ReduceKind::Mean => {
            ("ReduceMean", attributes([("axes", integers(&op.axes)), ("keepdims", op.keep_dims.into())]))
        }
        Op::Reshape(op) => reshape(op, x?),
        Op::Pad(op) => pad(op),
        Op::Slice(op) => slice(op),
        Op::Split(Split { axis, sizes }) => {
            let split = match sizes.first() {
                Some(first) if sizes.iter().all(|size| size == first) => integer(sizes.len()),
                _ => integers(sizes),
            };
            ("Split", attributes([("axis", integer(*axis)), ("split", split)]))
        }
        Op::Pack(op) => ("Pack", attributes([("axis", integer(op.axis)), ("N", integer(inputs.len()))])),
        Op::Unpack(op) => ("Unstack", attributes([("axis", integer(op.axis)), ("num", integer(op.count))])),
        Op::Gather(Gather { axis: 0, batch_dims: 0 }) if is_stored(0) => {
            let [rows, columns] = x?.shape.sizes()?[..] else { return None };
            let dims = [("input_dim", integer(rows)), ("output_dim", integer(columns))];
            let [rows, columns] = dims;
            ("Embedding", attributes([rows, columns, ("axis", 0i64.into()), ("mask_zero", false.into())]))
        }
        Op::Cast(Cast { dtype }) => {
            let name = match dtype {
                DType::Float32 => "float",
                DType::Int32 => "int",
                other => other.name(),
            };
            ("Cast", attributes([("dstType", name.into())]))
        }
        Op::Resize(op) => upsampling(op, x?)?,
        Op::SpaceToDepth(op) => ("SpaceToDepth", attributes([("blocksize", integer(op.block))])),
        _ => return None,
    };
    let layout = match op {
        Op::Conv(op) => Some(op.layout),
        Op::ConvTranspose(op) => Some(op.layout),
        Op::Pool(op) => Some(op.layout),
        Op::BatchNorm(op) => Some(op.layout),
        Op::Lrn(op) => Some(op.layout),
        Op::PRelu(op) => Some(op.layout),
        Op::SpaceToDepth(op) => Some(op.layout),
        _ => None,
    };
    if let Some(layout) = layout {
        say_layout(&mut attr, layout, x?.shape.rank());
    }
    Some((name, attr))
}

/// MMdnn's word for padding that it has a name for; the numbers are written besides.
fn auto_pad(pads: &Pads, is_same: bool) -> Option<AttrValue> {
    if pads.is_zero() {
        Some("VALID".into())
    } else if is_same {
        Some("SAME_UPPER".into())
    } else {
        None
    }
}

/// Whether pads are TensorFlow's `SAME` for an input of this shape.
fn is_same(pads: &Pads, x: &Shape, layout: Layout, kernel: &[usize], strides: &[usize], dilations: &[usize]) -> bool {
    layout.spatial_axes(x.rank()).enumerate().all(|(i, axis)| {
        let window = (kernel.get(i), strides.get(i), dilations.get(i), x.get(axis).and_then(Dim::known));
        match window {
            (Some(&k), Some(&s), Some(&d), Some(size)) => pads.0.get(i) == Some(&same_padding(size, k, s, d)),
            _ => false,
        }
    })
}

fn conv(
    op: &Conv,
    x: &ValueInfo,
    weights: &[usize],
    has_bias: bool,
    stored: bool,
) -> Option<(&'static str, Attributes)> {
    let (layout, rank) = (op.layout, x.shape.rank());
    let [kernel @ .., per_group, out] = weights else { return None };
    let mut attr = attributes([
        ("strides", integers(&over_all(&op.strides, layout, 1))),
        ("dilations", integers(&over_all(&op.dilations, layout, 1))),
        ("pads", pads_over_all(&op.pads, layout)),
        ("use_bias", has_bias.into()),
    ]);
    let same = is_same(&op.pads, &x.shape, layout, kernel, &op.strides, &op.dilations);
    if let Some(auto_pad) = auto_pad(&op.pads, same) {
        attr.insert("auto_pad".to_owned(), auto_pad);
    }
    // One input channel per group, in two dimensions: MMdnn's depthwise kernels are [h, w, channels, multiplier].
    let channels = x.shape.get(layout.channel_axis(rank)).and_then(Dim::known)?;
    let depthwise = stored && rank == 4 && op.groups > 1 && *per_group == 1 && channels == op.groups;
    let kernel_shape = if depthwise {
        [kernel, &[channels, out / channels]].concat()
    } else {
        attr.insert("group".to_owned(), integer(op.groups));
        // All channels, where the weights have those of a group.
        [kernel, &[per_group.saturating_mul(op.groups), *out]].concat()
    };
    attr.insert("kernel_shape".to_owned(), integers(&kernel_shape));
    Some((if depthwise { "DepthwiseConv" } else { "Conv" }, attr))
}

fn conv_transpose(op: &ConvTranspose, weights: &[usize], has_bias: bool) -> Option<(&'static str, Attributes)> {
    let layout = op.layout;
    let [kernel @ .., per_group, channels] = weights else { return None };
    // MMdnn means all channels where groups have some of them.
    let kernel_shape = [kernel, &[per_group.saturating_mul(op.groups), *channels]].concat();
    let mut attr = attributes([
        ("kernel_shape", integers(&kernel_shape)),
        ("strides", integers(&over_all(&op.strides, layout, 1))),
        ("dilations", integers(&over_all(&op.dilations, layout, 1))),
        ("pads", pads_over_all(&op.pads, layout)),
        ("group", integer(op.groups)),
        ("use_bias", has_bias.into()),
    ]);
    // The sizes of TensorFlow's two kinds of padding: see the decoder.
    let axes = kernel.iter().zip(&op.strides).zip(&op.dilations).zip(&op.output_padding).zip(&op.pads.0);
    let (mut valid, mut same) = (true, true);
    for ((((&kernel, &stride), &dilation), &extra), &pads) in axes {
        let extent = kernel.saturating_sub(1).saturating_mul(dilation).saturating_add(1);
        let total = extent.saturating_sub(stride);
        let fits = extra == stride.saturating_sub(extent);
        valid &= fits && pads == (0, 0);
        same &= fits && pads == (total / 2, total - total / 2);
    }
    if valid || same {
        attr.insert("auto_pad".to_owned(), if valid { "VALID" } else { "SAME_UPPER" }.into());
    }
    Some(("ConvTranspose", attr))
}

fn pool(op: &Pool, x: &Shape) -> (&'static str, Attributes) {
    let layout = op.layout;
    let mut attr = attributes([
        ("pooling_type", if op.kind == PoolKind::Max { "MAX" } else { "AVG" }.into()),
        ("kernel_shape", integers(&over_all(&op.kernel, layout, 1))),
        ("strides", integers(&over_all(&op.strides, layout, 1))),
        ("dilations", integers(&over_all(&op.dilations, layout, 1))),
        ("pads", pads_over_all(&op.pads, layout)),
        ("global_pooling", false.into()),
    ]);
    let same = is_same(&op.pads, x, layout, &op.kernel, &op.strides, &op.dilations);
    if let Some(auto_pad) = auto_pad(&op.pads, same) {
        attr.insert("auto_pad".to_owned(), auto_pad);
    }
    ("Pool", attr)
}

fn reshape(op: &Reshape, x: &ValueInfo) -> (&'static str, Attributes) {
    if flattened(&x.shape).as_ref() == Some(&op.shape) {
        return ("Flatten", Attributes::new());
    }
    let sizes: Vec<i64> =
        op.shape.iter().map(|dim| dim.known().and_then(|n| i64::try_from(n).ok()).unwrap_or(-1)).collect();
    ("Reshape", attributes([("shape", sizes.into())]))
}

/// The shape with all axes but the batch made one, if there is something to flatten.
pub(crate) fn flattened(x: &Shape) -> Option<Shape> {
    match x.as_slice() {
        [batch, rest @ ..] if rest.len() > 1 => {
            let features = rest.iter().fold(Dim::Known(1), |product, dim| product.times(dim));
            Some(Shape(vec![batch.clone(), features]))
        }
        _ => None,
    }
}

fn pad(op: &Pad) -> (&'static str, Attributes) {
    let mode = match op.mode {
        PadMode::Constant => "constant",
        PadMode::Reflect => "reflect",
        PadMode::Symmetric => "symmetric",
        PadMode::Edge => "edge",
    };
    let ends: Vec<usize> = op.pads.0.iter().map(|pad| pad.1).collect();
    let pads = integers(&[op.pads.begins(), ends].concat());
    ("Pad", attributes([("mode", mode.into()), ("pads", pads), ("constant_values", op.value.into())]))
}

fn slice(op: &Slice) -> (&'static str, Attributes) {
    let open = op.ends.iter().enumerate().filter(|(_, end)| **end == Slice::OPEN);
    let mask = open.filter(|(axis, _)| *axis < 63).fold(0i64, |mask, (axis, _)| mask | 1 << axis);
    let ends: Vec<i64> = op.ends.iter().map(|&end| if end == Slice::OPEN { 0 } else { end }).collect();
    let attr = [
        ("starts", op.begins.clone().into()),
        ("ends", ends.into()),
        ("strides", op.steps.clone().into()),
        ("begin_mask", 0i64.into()),
        ("end_mask", mask.into()),
        ("shrink_axis_mask", 0i64.into()),
        ("new_axis_mask", 0i64.into()),
    ];
    ("Slice", attributes(attr))
}

/// Nearest neighbours, channels last, whole factors: all that MMdnn's upsampling does.
fn upsampling(op: &Resize, x: &ValueInfo) -> Option<(&'static str, Attributes)> {
    let nearest = op.mode == ResizeMode::Nearest && op.coordinates != Coordinates::AlignCorners;
    if !nearest || !op.scale.is_empty() || op.layout != Layout::ChannelsLast || x.shape.rank() != 4 {
        return None;
    }
    let scale = |(axis, &size): (usize, &usize)| {
        let old = x.shape.get(axis)?.known().filter(|&old| old > 0 && size % old == 0)?;
        Some(size / old)
    };
    let scales: Vec<usize> = op.layout.spatial_axes(4).zip(&op.size).map(scale).collect::<Option<_>>()?;
    Some(("UpSampling2D", attributes([("scales", integers(&scales))])))
}
