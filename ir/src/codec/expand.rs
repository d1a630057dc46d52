//! Nodes of MMdnn's files that are several operators here, or none.

use super::decode::slice;
use super::node::read;
use super::proto::NodeDef;
use super::read::Loader;
use super::{TRAINABLE, names, weight_key};
use crate::diagnostic::{Error, Problem, Result};
use crate::graph::{Value, ValueInfo};
use crate::op::{Binary, Constant, Conv, Dense, Dims, Fill, Op, Reshape, Slice, Squeeze, Transpose, Unsqueeze};
use crate::shape::{Dim, Shape};
use crate::tensor::DType;

type Outputs = Result<Option<Vec<Value>>>;

impl Loader<'_> {
    /// The outputs of a node that is not one operator of ours with MMdnn's attributes.
    pub(super) fn expand(&mut self, def: &NodeDef, inputs: &[Value]) -> Outputs {
        match (def.op.as_str(), inputs) {
            ("Constant" | "Const", _) => {
                let tensor = self.constant_tensor(def)?;
                let trainable = def.flag(TRAINABLE).map_err(Error::new)?.unwrap_or(false);
                self.last(def, Constant { tensor, trainable }, &[])
            }
            ("Scale", &[x]) => self.scale(def, x),
            ("SeparableConv", &[x]) => self.separable(def, x),
            ("FullyConnected", &[x]) => self.flat_dense(def, x),
            ("Slice", &[x]) => self.masked_slice(def, x),
            ("Crop", &[x, ..]) => self.crop(def, x),
            ("Shape", &[x]) => {
                let dims = self.graph.shape(x).clone();
                self.last(def, Dims { dims, dtype: DType::Int32 }, &[x])
            }
            ("Fill", &[dims]) if def.value("shape").is_none() && def.value("_shape").is_none() => {
                self.fill_dims(def, dims)
            }
            ("Transpose", &[x, perm]) => {
                let perm = self.graph.tensor(perm).ok_or_else(|| Problem::new("the permutation is no constant"))?;
                let perm = perm.to_i64().map_err(|error| Problem::new(error.to_string()))?;
                let perm = perm.into_iter().map(|axis| usize::try_from(axis).unwrap_or(usize::MAX)).collect();
                self.last(def, Transpose { perm }, &[x])
            }
            (op, _) => match names::family(op) {
                Some(("Binary", _)) if inputs.len() != 2 => self.folded(def, inputs),
                _ => Ok(None),
            },
        }
    }

    /// Adds the operator that has the node's name.
    fn last(&mut self, def: &NodeDef, op: impl Into<Op>, inputs: &[Value]) -> Outputs {
        let id = self.graph.add(op, &def.name, inputs)?;
        Ok(Some((0..self.graph.node(id).outputs.len()).map(|output| Value { node: id, output }).collect()))
    }

    /// Adds an operator on the way to the node's.
    fn step(&mut self, def: &NodeDef, suffix: &str, op: impl Into<Op>, inputs: &[Value]) -> Result<Value> {
        let name = self.fresh(&format!("{}/{suffix}", def.name));
        Ok(self.graph.add(op, &name, inputs)?.into())
    }

    fn stored(&mut self, def: &NodeDef, key: &str) -> Option<Value> {
        let tensor = self.tensor(&def.name, key)?;
        Some(self.variable(&format!("{}/{key}", def.name), tensor))
    }

    /// `x * scale + bias`, over the last axis.
    fn scale(&mut self, def: &NodeDef, x: Value) -> Outputs {
        let Some(scale) = self.stored(def, "scale") else { return Err(self.missing(&["scale"]).into()) };
        match self.stored(def, "bias") {
            Some(bias) => {
                let scaled = self.step(def, "mul", Binary::Mul, &[x, scale])?;
                self.last(def, Binary::Add, &[scaled, bias])
            }
            None if def.flag("use_bias").ok().flatten() == Some(true) => Err(self.missing(&["bias"]).into()),
            None => self.last(def, Binary::Mul, &[x, scale]),
        }
    }

    /// A depthwise and a pointwise convolution.
    fn separable(&mut self, def: &NodeDef, x: Value) -> Outputs {
        let (Some(depthwise), Some(pointwise)) =
            (self.tensor(&def.name, "depthwise_filter"), self.tensor(&def.name, "pointwise_filter"))
        else {
            return Err(self.missing(&["depthwise_filter", "pointwise_filter"]).into());
        };
        let [height, width, channels, multiplier] = depthwise.shape()[..] else {
            return Err(Problem::new(format!("the depthwise filter has shape {:?}", depthwise.shape())).into());
        };
        let all = channels.checked_mul(multiplier).unwrap_or_default();
        let depthwise = depthwise.reshaped(&[height, width, 1, all]).map_err(Error::new)?;
        let depthwise = self.variable(&format!("{}/depthwise/weights", def.name), depthwise);
        let pointwise = self.variable(&format!("{}/weights", def.name), pointwise);
        let infos = [Some(self.graph.info(x)), Some(self.graph.info(depthwise))];
        let conv = NodeDef { op: "DepthwiseConv".to_owned(), ..def.clone() };
        let conv = read(&conv, &infos).map_err(Error::new)?;
        let layout = def.layout(self.graph.shape(x), Some(channels)).map_err(Error::new)?;
        let spread = self.step(def, "depthwise", conv, &[x, depthwise])?;
        let one =
            Conv { strides: vec![1; 2], pads: crate::op::Pads::none(2), dilations: vec![1; 2], groups: 1, layout };
        match self.stored(def, "bias") {
            Some(bias) => self.last(def, one, &[spread, pointwise, bias]),
            None if def.flag("use_bias").ok().flatten() == Some(true) => Err(self.missing(&["bias"]).into()),
            None => self.last(def, one, &[spread, pointwise]),
        }
    }

    /// A dense layer on more than two dimensions: MMdnn flattens them when the file says an output of two, or when
    /// only then the weights fit.
    fn flat_dense(&mut self, def: &NodeDef, x: Value) -> Outputs {
        let shape = self.graph.shape(x);
        let Some(weights) = self.tensor(&def.name, weight_key(&def.op, "weights")) else { return Ok(None) };
        let features = weights.shape().first().copied();
        let fits_last = shape.last().and_then(Dim::known) == features;
        let wants_two = def.output_shape().is_some_and(|shape| shape.rank() == 2);
        if shape.rank() <= 2 || (fits_last && !wants_two) {
            return Ok(None);
        }
        let flat =
            Shape(vec![shape.first().cloned().unwrap_or(Dim::Unknown), features.map_or(Dim::Unknown, Dim::Known)]);
        let flat = self.step(def, "flatten", Reshape { shape: flat }, &[x])?;
        let weights = self.variable(&format!("{}/weights", def.name), weights);
        match self.stored(def, "bias") {
            Some(bias) => self.last(def, Dense {}, &[flat, weights, bias]),
            None if def.flag("use_bias").ok().flatten() == Some(true) => Err(self.missing(&["bias"]).into()),
            None => self.last(def, Dense {}, &[flat, weights]),
        }
    }

    /// TensorFlow's strided slice that removes or makes axes.
    fn masked_slice(&mut self, def: &NodeDef, x: Value) -> Outputs {
        let mask = |name: &str| def.integer(name).map(Option::unwrap_or_default).map_err(Error::new);
        let (shrink, new) = (mask("shrink_axis_mask")?, mask("new_axis_mask")?);
        if shrink == 0 && new == 0 {
            return Ok(None);
        }
        let bad = |message: &str| Problem::new(message.to_owned());
        let starts =
            def.integers("starts").map_err(Error::new)?.ok_or_else(|| bad("the attribute 'starts' is missing"))?;
        let set = |mask: i64, place: usize| place < 63 && mask >> place & 1 == 1;
        // Places of the lists that are about axes of x; the others are new axes.
        let places: Vec<usize> = (0..starts.len()).filter(|&place| !set(new, place)).collect();
        let mut plain = def.clone();
        for name in ["starts", "ends", "strides"] {
            if let Some(list) = def.integers(name).map_err(Error::new)? {
                let list: Vec<i64> = places.iter().filter_map(|&place| list.get(place).copied()).collect();
                plain.attr.insert(name.to_owned(), list.into());
            }
        }
        for name in ["begin_mask", "end_mask"] {
            let old = mask(name)?;
            let moved = places
                .iter()
                .enumerate()
                .filter(|(_, place)| set(old, **place))
                .fold(0i64, |m, (to, _)| m | 1 << to.min(62));
            plain.attr.insert(name.to_owned(), moved.into());
        }
        let rank = self.graph.shape(x).rank();
        let Op::Slice(mut op) = slice(&plain, rank).map_err(Error::new)? else { return Ok(None) };
        let removed: Vec<usize> =
            places.iter().enumerate().filter(|(_, place)| set(shrink, **place)).map(|(axis, _)| axis).collect();
        for &axis in &removed {
            // One element, whatever the end says.
            if let (Some(&begin), Some(end), Some(step)) =
                (op.begins.get(axis), op.ends.get_mut(axis), op.steps.get_mut(axis))
            {
                *end = if begin == -1 { Slice::OPEN } else { begin.saturating_add(1) };
                *step = 1;
            }
        }
        // New axes stand where they are in the lists, less the removed ones before them.
        let mut added = Vec::new();
        let mut at = 0;
        for place in 0..starts.len() {
            if set(new, place) {
                added.push(at);
                at += 1;
            } else if !set(shrink, place) {
                at += 1;
            }
        }
        let takes_all = (0..rank).all(|axis| op.takes_all(axis));
        if added.is_empty() {
            let part = if takes_all { x } else { self.step(def, "slice", op, &[x])? };
            return self.last(def, Squeeze { axes: removed }, &[part]);
        }
        let part = if takes_all { x } else { self.step(def, "slice", op, &[x])? };
        let part =
            if removed.is_empty() { part } else { self.step(def, "squeeze", Squeeze { axes: removed }, &[part])? };
        self.last(def, Unsqueeze { axes: added }, &[part])
    }

    /// `border` is what is cut off, before and after each spatial axis (from Keras), or the offsets (from Caffe), the
    /// size being that of the output.
    fn crop(&mut self, def: &NodeDef, x: Value) -> Outputs {
        let border = def
            .integers("border")
            .map_err(Error::new)?
            .ok_or_else(|| Problem::new("the attribute 'border' is missing"))?;
        let shape = self.graph.shape(x).clone();
        let layout = def.layout(&shape, None).map_err(Error::new)?;
        let wanted = def.output_shape().filter(|wanted| wanted.rank() == shape.rank());
        let spatial: Vec<usize> = layout.spatial_axes(shape.rank()).collect();
        let size = |axis: usize| shape.get(axis).and_then(Dim::known).and_then(|size| i64::try_from(size).ok());
        let target = |axis: usize| wanted.as_ref()?.get(axis)?.known().and_then(|size| i64::try_from(size).ok());
        let (pairs, _) = border.as_chunks::<2>();
        let by_pairs = pairs.len() == spatial.len()
            && pairs.iter().zip(&spatial).all(|([before, after], &axis)| {
                let left = size(axis).and_then(|size| size.checked_sub(*before)?.checked_sub(*after));
                left.is_some_and(|left| left > 0) && target(axis).is_none_or(|target| left == Some(target))
            });
        let mut op = Slice::all(shape.rank());
        for (i, &axis) in spatial.iter().enumerate() {
            let range = if by_pairs {
                pairs.get(i).zip(size(axis)).map(|([before, after], size)| (*before, size - after))
            } else {
                border
                    .get(i)
                    .zip(target(axis))
                    .and_then(|(&offset, target)| Some((offset, offset.checked_add(target)?)))
            };
            let Some((begin, end)) = range.filter(|(begin, _)| *begin >= 0) else {
                return Err(Problem::new(format!("the border {border:?} does not fit {shape}")).into());
            };
            if let (Some(first), Some(last)) = (op.begins.get_mut(axis), op.ends.get_mut(axis)) {
                (*first, *last) = (begin, end);
            }
        }
        self.last(def, op, &[x])
    }

    /// TensorFlow's fill: its input says the shape.
    fn fill_dims(&mut self, def: &NodeDef, dims: Value) -> Outputs {
        let integer = matches!(def.value("value"), Some(super::proto::Value::I(_)));
        let value =
            def.float("value").map_err(Error::new)?.ok_or_else(|| Problem::new("the attribute 'value' is missing"))?;
        let dtype = if integer { DType::Int32 } else { DType::Float32 };
        if let Some(tensor) = self.graph.tensor(dims) {
            let sizes = tensor.to_i64().map_err(|error| Problem::new(error.to_string()))?;
            let shape = sizes.into_iter().map(|size| usize::try_from(size).map_or(Dim::Unknown, Dim::Known)).collect();
            return self.last(def, Fill { shape, value, dtype }, &[]);
        }
        match self.graph.op(dims.node) {
            Op::Dims(op) => {
                let shape = op.dims.clone();
                let like: Vec<Value> = self.graph.input_of(dims.node, 0).into_iter().collect();
                self.last(def, Fill { shape, value, dtype }, &like)
            }
            _ => Err(Problem::new("the shape to fill is computed in the network").into()),
        }
    }

    /// A function of two values given more of them, or one and a weight.
    fn folded(&mut self, def: &NodeDef, inputs: &[Value]) -> Outputs {
        let mut inputs = inputs.to_vec();
        if inputs.len() == 1 {
            let weight = self.stored(def, "weights").or_else(|| self.stored(def, "alpha"));
            inputs.push(weight.ok_or_else(|| self.missing(&["weights"]))?);
        }
        let infos: Vec<Option<&ValueInfo>> = inputs.iter().map(|&value| Some(self.graph.info(value))).collect();
        let op = read(def, &infos).map_err(Error::new)?;
        let Some((&last, first)) = inputs.split_last() else {
            return Err(Problem::new("input 0 is missing").into());
        };
        let mut result: Option<Value> = None;
        for &value in first {
            result = Some(match result {
                Some(result) => self.step(def, "partial", op.clone(), &[result, value])?,
                None => value,
            });
        }
        match result {
            Some(result) => self.last(def, op, &[result, last]),
            None => Err(Problem::new("input 1 is missing").into()),
        }
    }
}
