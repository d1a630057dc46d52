//! MMdnn's words as operators, for nodes that are one operator here too. Its files are read as its own programs read
//! them; the comments say where those differ from each other.

use super::attributes::{axis, read_shape, sizes};
use super::encode::flattened;
use super::proto::{NodeDef, Value};
use crate::graph::ValueInfo;
use crate::layout::Layout;
use crate::op::{
    BatchNorm, Cast, Conv, ConvTranspose, Coordinates, Dense, Dropout, Gather, Input, Lrn, Op, PRelu, Pack, Pad,
    PadMode, Pads, Pool, PoolKind, Reduce, ReduceKind, Reshape, Resize, ResizeMode, Slice, SpaceToDepth, Split,
    Squeeze, Unpack,
};
use crate::shape::{Dim, Shape, same_padding};
use crate::tensor::DType;

type Outcome<T> = Result<T, String>;

/// The most outputs that a node may announce by a number alone.
pub(crate) const MAX_OUTPUTS: usize = 1 << 16;

/// The operator of a node that MMdnn has a word for, from its attributes and inputs (by slot, weights included); `None`
/// for other names. Attributes with an underscore are not looked at, but for `_output_shapes`.
pub(crate) fn decode(def: &NodeDef, inputs: &[Option<&ValueInfo>]) -> Option<Outcome<Op>> {
    let node = Node { def, inputs };
    Some(match def.op.as_str() {
        "DataInput" => node.input(),
        "Conv" | "DepthwiseConv" => node.conv(),
        "ConvTranspose" => node.conv_transpose(),
        "Pool" => node.pool(),
        "BatchNorm" => node.batch_norm(),
        "LRN" => node.lrn(),
        "Dropout" => node.dropout(),
        "PRelu" => node.layout(node.size_of(1)).map(|layout| PRelu { layout }.into()),
        "FullyConnected" => Ok(Dense {}.into()),
        "Flatten" => node.flatten(),
        "Reshape" => node.reshape(),
        "Pad" => node.pad(),
        "Slice" => node.slice(),
        "Split" => node.split(),
        "Pack" => node.axis_or(0, 1).map(|axis| Pack { axis }.into()),
        "Unstack" => node.unstack(),
        "Squeeze" => node.squeeze(),
        "Embedding" => Ok(Gather { axis: 0, batch_dims: 0 }.into()),
        "Cast" => node.cast(),
        "UpSampling2D" => node.upsampling(),
        "SpaceToDepth" => node.space_to_depth(),
        _ => return None,
    })
}

struct Node<'a> {
    def: &'a NodeDef,
    inputs: &'a [Option<&'a ValueInfo>],
}

impl Node<'_> {
    fn info(&self, slot: usize) -> Outcome<&ValueInfo> {
        self.inputs.get(slot).copied().flatten().ok_or_else(|| format!("input {slot} is missing"))
    }

    fn shape(&self) -> Outcome<&Shape> {
        self.info(0).map(|info| &info.shape)
    }

    /// The rank of a value with spatial dimensions.
    fn spatial_rank(&self) -> Outcome<usize> {
        let shape = self.shape()?;
        if (3..=5).contains(&shape.rank()) { Ok(shape.rank()) } else { Err(format!("takes rank 3 to 5, got {shape}")) }
    }

    fn axis_or(&self, default: i64, more: usize) -> Outcome<usize> {
        axis(self.def.integer("axis")?.unwrap_or(default), self.shape()?.rank() + more)
    }

    fn input(&self) -> Outcome<Op> {
        let dtype = self.def.dtype("dtype")?.unwrap_or(DType::Float32);
        let shape = match (self.def.value("shape"), self.def.value("_output_shapes")) {
            (Some(Value::Shape(shape)), _) => shape,
            (_, Some(Value::List(list))) if list.shape.len() == 1 => {
                list.shape.first().ok_or("the input has no shape")?
            }
            _ => return Err("the input has no shape".to_owned()),
        };
        Ok(Input { dtype, shape: read_shape(shape, &self.def.name)? }.into())
    }

    fn layout(&self, channels: Option<usize>) -> Outcome<Layout> {
        self.def.layout(self.shape()?, channels)
    }

    /// The size of a weight that is a vector.
    fn size_of(&self, slot: usize) -> Option<usize> {
        self.info(slot).ok().and_then(|info| info.shape.first()).and_then(Dim::known)
    }

    /// The number of input channels that the weights of a convolution want.
    fn channels(&self) -> Outcome<Option<usize>> {
        let Some([.., a, b]) = self.info(1).ok().map(|info| info.shape.as_slice()) else { return Ok(None) };
        Ok(match self.def.op.as_str() {
            "ConvTranspose" => b.known(),
            // One multiplier or several: not told apart here.
            "DepthwiseConv" => self.def.integers("kernel_shape")?.and_then(|shape| {
                shape.get(shape.len().checked_sub(2)?).and_then(|&channels| usize::try_from(channels).ok())
            }),
            _ => a.known().zip(Some(self.groups()?)).and_then(|(a, groups)| a.checked_mul(groups)),
        })
    }

    /// Strides and dilations, and the kernel's spatial sizes.
    fn windows(&self, layout: Layout) -> Outcome<(Vec<usize>, Vec<usize>, Vec<usize>)> {
        let rank = self.spatial_rank()?;
        let spatial = rank - 2;
        let strides = self.def.window("strides", rank, layout)?.unwrap_or_else(|| vec![1; spatial]);
        let dilations = self.def.window("dilations", rank, layout)?.unwrap_or_else(|| vec![1; spatial]);
        let weights = &self.info(1)?.shape;
        let kernel = weights.get(..spatial).and_then(|kernel| kernel.iter().map(Dim::known).collect::<Option<_>>());
        let kernel = kernel.ok_or_else(|| format!("weights {weights} do not fit rank {rank}"))?;
        Ok((strides, dilations, kernel))
    }

    fn groups(&self) -> Outcome<usize> {
        Ok(self.def.size("group")?.unwrap_or(1))
    }

    fn conv(&self) -> Outcome<Op> {
        let layout = self.layout(self.channels()?)?;
        let (strides, dilations, kernel) = self.windows(layout)?;
        let pads = self.padding(layout, &kernel, &strides, &dilations)?;
        let groups = if self.def.op == "DepthwiseConv" {
            let shape = self.shape()?;
            let channels = shape.get(layout.channel_axis(shape.rank())).and_then(Dim::known);
            channels.ok_or_else(|| format!("the number of channels of {shape} is not known"))?
        } else {
            self.groups()?
        };
        Ok(Conv { strides, pads, dilations, groups, layout }.into())
    }

    /// The pads of a window. Both a word and numbers may be given. The word decides, as in MMdnn's programs, but not
    /// where an odd element goes: its Keras reader says `SAME_LOWER` of pads that are upper.
    fn padding(&self, layout: Layout, kernel: &[usize], strides: &[usize], dilations: &[usize]) -> Outcome<Pads> {
        let shape = self.shape()?;
        let listed = self.def.pads(shape.rank(), layout)?;
        let lower = match self.def.text("auto_pad")? {
            Some("VALID") => return Ok(Pads::none(kernel.len())),
            Some("SAME_UPPER" | "SAME") => false,
            Some("SAME_LOWER") => true,
            None | Some("" | "NOTSET") => return Ok(listed.unwrap_or_else(|| Pads::none(kernel.len()))),
            Some(other) => return Err(format!("the attribute 'auto_pad' is '{other}', expected VALID or SAME_…")),
        };
        let axes = kernel.iter().zip(strides).zip(dilations).zip(layout.spatial_axes(shape.rank()));
        axes.enumerate()
            .map(|(i, (((&kernel, &stride), &dilation), axis))| {
                let listed = listed.as_ref().and_then(|pads| pads.0.get(i)).copied();
                // With a stride of 1 the size does not matter.
                let size = shape.get(axis).and_then(Dim::known).or((stride == 1).then_some(kernel));
                let Some(size) = size else {
                    return listed.ok_or_else(|| {
                        format!(
                            "the padding '{}' of a free size {shape} is not known",
                            if lower { "SAME_LOWER" } else { "SAME" }
                        )
                    });
                };
                let (less, more) = same_padding(size, kernel, stride, dilation);
                match listed {
                    Some((before, after)) if before.checked_add(after) == Some(less + more) => Ok((before, after)),
                    _ if lower => Ok((more, less)),
                    _ => Ok((less, more)),
                }
            })
            .collect::<Outcome<_>>()
            .map(Pads)
    }

    /// With TensorFlow's words the output has the size that the file says, else `size * stride` for `SAME` and
    /// `size * stride + max(extent - stride, 0)` for `VALID`; what the kernel reaches beyond that is cut off.
    fn conv_transpose(&self) -> Outcome<Op> {
        let layout = self.layout(self.channels()?)?;
        let (strides, dilations, kernel) = self.windows(layout)?;
        let shape = self.shape()?;
        let rank = shape.rank();
        let groups = self.groups()?;
        let spatial = kernel.len();
        let word = self.def.text("auto_pad")?.unwrap_or_default();
        let (mut pads, mut output_padding) = (Pads::none(spatial), vec![0; spatial]);
        if word.is_empty() || word == "NOTSET" {
            pads = self.def.pads(rank, layout)?.unwrap_or(pads);
            return Ok(ConvTranspose { strides, pads, output_padding, dilations, groups, layout }.into());
        }
        let outputs = self.def.output_shape().filter(|outputs| outputs.rank() == rank);
        for (i, axis) in layout.spatial_axes(rank).enumerate() {
            let at = |list: &[usize]| list.get(i).copied().unwrap_or(1);
            let (kernel, stride, dilation) = (at(&kernel), at(&strides), at(&dilations));
            let extent = kernel.saturating_sub(1).saturating_mul(dilation).saturating_add(1);
            let full = |size: usize| size.checked_sub(1)?.checked_mul(stride)?.checked_add(extent);
            let full = shape.get(axis).and_then(Dim::known).and_then(full);
            let wanted = outputs.as_ref().and_then(|outputs| outputs.get(axis)).and_then(Dim::known);
            let (cut, extra) = match (full, wanted, word) {
                (_, _, "VALID") => (0, stride.saturating_sub(extent)),
                (Some(full), Some(wanted), _) => (full.saturating_sub(wanted), wanted.saturating_sub(full)),
                _ => (extent.saturating_sub(stride), stride.saturating_sub(extent)),
            };
            let (less, more) = (cut / 2, cut - cut / 2);
            if let (Some(pad), Some(padding)) = (pads.0.get_mut(i), output_padding.get_mut(i)) {
                *pad = if word == "SAME_LOWER" && !self.is_upper() { (more, less) } else { (less, more) };
                *padding = extra;
            }
        }
        Ok(ConvTranspose { strides, pads, output_padding, dilations, groups, layout }.into())
    }

    /// Whether the numbers beside the word put the odd element after.
    fn is_upper(&self) -> bool {
        let Ok(Some(list)) = self.def.integers("pads") else { return false };
        let (begins, ends) = list.split_at(list.len() / 2);
        begins.iter().zip(ends).any(|(before, after)| before < after)
    }

    fn pool(&self) -> Outcome<Op> {
        let layout = self.layout(None)?;
        let rank = self.spatial_rank()?;
        let kind = match self.def.text("pooling_type")? {
            Some("MAX") => PoolKind::Max,
            Some("AVG") => PoolKind::Avg,
            other => return Err(format!("the attribute 'pooling_type' is {other:?}, expected MAX or AVG")),
        };
        if self.def.flag("global_pooling")? == Some(true) {
            let kind = if kind == PoolKind::Max { ReduceKind::Max } else { ReduceKind::Mean };
            return Ok(Reduce { kind, axes: layout.spatial_axes(rank).collect(), keep_dims: true }.into());
        }
        let spatial = rank - 2;
        let kernel = match self.def.integers("kernel_shape")? {
            Some(_) => self.def.window("kernel_shape", rank, layout)?.unwrap_or_else(|| vec![1; spatial]),
            None => return Err("the attribute 'kernel_shape' is missing".to_owned()),
        };
        let strides = self.def.window("strides", rank, layout)?.unwrap_or_else(|| vec![1; spatial]);
        let dilations = self.def.window("dilations", rank, layout)?.unwrap_or_else(|| vec![1; spatial]);
        let pads = self.padding(layout, &kernel, &strides, &dilations)?;
        // Pads in numbers alone come from frameworks that count them in a mean.
        let count_include_pad = kind == PoolKind::Avg && !pads.is_zero() && self.def.text("auto_pad")?.is_none();
        Ok(Pool { kind, kernel, strides, pads, dilations, ceil_mode: false, count_include_pad, layout }.into())
    }

    fn batch_norm(&self) -> Outcome<Op> {
        let layout = self.layout(self.size_of(3))?;
        let epsilon = self.def.float("epsilon")?.ok_or("the attribute 'epsilon' is missing")?;
        Ok(BatchNorm { epsilon, momentum: None, layout }.into())
    }

    /// MMdnn multiplies TensorFlow's alpha by the size of the window.
    fn lrn(&self) -> Outcome<Op> {
        let missing = |name: &str| format!("the attribute '{name}' is missing");
        let size = self.def.size("size")?.filter(|&size| size > 0).ok_or_else(|| missing("size"))?;
        let alpha = self.def.float("alpha")?.ok_or_else(|| missing("alpha"))? / size as f32;
        let beta = self.def.float("beta")?.ok_or_else(|| missing("beta"))?;
        Ok(Lrn { size, alpha, beta, k: self.def.float("bias")?.unwrap_or(1.0), layout: self.layout(None)? }.into())
    }

    fn dropout(&self) -> Outcome<Op> {
        let keep = f64::from(self.def.float("keep_prob")?.unwrap_or(1.0));
        // 1 - 0.9f32 is no rate that anybody wrote.
        Ok(Dropout { rate: (((1.0 - keep) * 1e6).round() / 1e6) as f32 }.into())
    }

    fn flatten(&self) -> Outcome<Op> {
        let shape = self.shape()?;
        let unknown = || Shape(vec![shape.first().cloned().unwrap_or(Dim::Known(1)), Dim::Unknown]);
        Ok(Reshape { shape: flattened(shape).unwrap_or_else(unknown) }.into())
    }

    fn reshape(&self) -> Outcome<Op> {
        let list = self.def.integers("shape")?.ok_or("the attribute 'shape' is missing")?;
        let x = self.shape()?;
        let dim = |(axis, &size): (usize, &i64)| match (size, x.get(axis)) {
            (0, Some(dim)) if *dim != Dim::Known(0) => dim.clone(),
            _ => usize::try_from(size).map_or(Dim::Unknown, Dim::Known),
        };
        let mut shape: Shape = list.iter().enumerate().map(dim).collect();
        // Name what is left over, so that a free batch stays one. Several free sizes: the first is the batch.
        let open = |shape: &Shape| shape.iter().filter(|dim| **dim == Dim::Unknown).count();
        if open(&shape) > 1
            && let (Some(first @ Dim::Unknown), Some(batch @ Dim::Symbol { .. })) = (shape.first_mut(), x.first())
        {
            *first = batch.clone();
        }
        if open(&shape) == 1 {
            let given = shape.iter().filter(|dim| **dim != Dim::Unknown).fold(Dim::Known(1), |p, dim| p.times(dim));
            let rest = x.numel().divided_by(&given);
            if let Some(dim) = shape.iter_mut().find(|dim| **dim == Dim::Unknown) {
                *dim = rest;
            }
        }
        Ok(Reshape { shape }.into())
    }

    fn pad(&self) -> Outcome<Op> {
        let rank = self.shape()?.rank();
        let list = sizes("pads", &self.def.integers("pads")?.ok_or("the attribute 'pads' is missing")?)?;
        if list.len() != 2 * rank {
            return Err(format!("the attribute 'pads' is {list:?}, expected begins and ends of {rank} dimensions"));
        }
        let (begins, ends) = list.split_at(rank);
        let mode = match self.def.text("mode")?.unwrap_or("constant").to_ascii_lowercase().as_str() {
            "constant" => PadMode::Constant,
            "reflect" => PadMode::Reflect,
            "symmetric" => PadMode::Symmetric,
            "edge" => PadMode::Edge,
            other => return Err(format!("the padding mode '{other}' is not known")),
        };
        let value = self.def.float("constant_values")?.unwrap_or(0.0);
        Ok(Pad { pads: Pads(begins.iter().copied().zip(ends.iter().copied()).collect()), mode, value }.into())
    }

    /// As TensorFlow's strided slice without new and removed axes.
    fn slice(&self) -> Outcome<Op> {
        let rank = self.shape()?.rank();
        slice(self.def, rank)
    }

    fn split(&self) -> Outcome<Op> {
        let axis = self.axis_or(-1, 0)?;
        let sizes = match self.def.value("split") {
            Some(Value::I(count)) => {
                let size = self.shape()?.get(axis).and_then(Dim::known);
                let count = usize::try_from(*count).ok().filter(|&count| (1..=MAX_OUTPUTS).contains(&count));
                match (size, count) {
                    (Some(size), Some(count)) if size % count == 0 => vec![size / count; count],
                    _ => return Err(format!("axis {axis} of {} does not split into equal parts", self.shape()?)),
                }
            }
            _ => sizes("split", &self.def.integers("split")?.ok_or("the attribute 'split' is missing")?)?,
        };
        Ok(Split { axis, sizes }.into())
    }

    fn unstack(&self) -> Outcome<Op> {
        let axis = self.axis_or(0, 0)?;
        let known = self.shape()?.get(axis).and_then(Dim::known);
        let count = self.def.size("num")?.or(known).ok_or("the attribute 'num' is missing")?;
        if count > MAX_OUTPUTS {
            return Err(format!("{count} outputs are too many"));
        }
        Ok(Unpack { axis, count }.into())
    }

    /// No axes mean all of size 1.
    fn squeeze(&self) -> Outcome<Op> {
        let shape = self.shape()?;
        let list = self.def.integers("axes")?.unwrap_or_default();
        let mut axes: Vec<usize> = if list.is_empty() {
            (0..shape.rank()).filter(|&axis| shape.get(axis) == Some(&Dim::Known(1))).collect()
        } else {
            list.iter().map(|&i| axis(i, shape.rank())).collect::<Outcome<_>>()?
        };
        axes.sort_unstable();
        axes.dedup();
        Ok(Squeeze { axes }.into())
    }

    fn cast(&self) -> Outcome<Op> {
        let dtype = match self.def.text("dstType")?.ok_or("the attribute 'dstType' is missing")? {
            "float" => DType::Float32,
            "int" => DType::Int32,
            name => DType::ALL
                .into_iter()
                .find(|dtype| dtype.name() == name)
                .ok_or_else(|| format!("the element type '{name}' is not known"))?,
        };
        Ok(Cast { dtype }.into())
    }

    fn upsampling(&self) -> Outcome<Op> {
        let shape = self.shape()?;
        let layout = self.layout(None)?;
        let scales = self.def.integers("scales")?.ok_or("the attribute 'scales' is missing")?;
        let scales = sizes("scales", &scales)?;
        // Lists over all dimensions occur too.
        let scales = match scales.as_slice() {
            [_, height, width, _] => vec![*height, *width],
            _ => scales,
        };
        let size = |(axis, &scale): (usize, &usize)| shape.get(axis).and_then(Dim::known)?.checked_mul(scale);
        let size: Option<Vec<usize>> = layout.spatial_axes(shape.rank()).zip(&scales).map(size).collect();
        let size = size.ok_or_else(|| format!("the sizes of {shape} are not known"))?;
        let (mode, coordinates) = (ResizeMode::Nearest, Coordinates::Asymmetric);
        Ok(Resize { mode, size, coordinates, scale: Vec::new(), layout }.into())
    }

    fn space_to_depth(&self) -> Outcome<Op> {
        let block = self.def.size("blocksize")?.ok_or("the attribute 'blocksize' is missing")?;
        Ok(SpaceToDepth { block, channel_major: false, layout: self.layout(None)? }.into())
    }
}

/// The slice of a node on a value of this rank; axes beyond the lists are taken whole.
pub(crate) fn slice(def: &NodeDef, rank: usize) -> Outcome<Op> {
    let starts = def.integers("starts")?.ok_or("the attribute 'starts' is missing")?;
    let ends = def.integers("ends")?.ok_or("the attribute 'ends' is missing")?;
    let steps = def.integers("strides")?.filter(|steps| !steps.is_empty()).unwrap_or_else(|| vec![1; starts.len()]);
    if starts.len() != ends.len() || starts.len() != steps.len() || starts.len() > rank {
        return Err(format!("starts {starts:?}, ends {ends:?} and strides {steps:?} do not fit rank {rank}"));
    }
    let (begin_mask, end_mask) = (def.integer("begin_mask")?.unwrap_or(0), def.integer("end_mask")?.unwrap_or(0));
    let masked = |mask: i64, axis: usize| axis < 63 && mask >> axis & 1 == 1;
    let mut result = Slice::all(rank);
    let axes = result.begins.iter_mut().zip(&mut result.ends).zip(&mut result.steps);
    for (axis, (((begin, end), step), ((start, stop), stride))) in
        axes.zip(starts.iter().zip(&ends).zip(&steps)).enumerate()
    {
        *step = *stride;
        *begin = match (masked(begin_mask, axis), *stride < 0) {
            (true, true) => -1,
            (true, false) => 0,
            _ => *start,
        };
        *end = if masked(end_mask, axis) { Slice::OPEN } else { *stop };
    }
    Ok(result.into())
}
