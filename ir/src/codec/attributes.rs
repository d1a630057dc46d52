//! Reading and making the attributes that MMdnn's files have: lists over all dimensions, shapes with free sizes.

use super::proto::{AttrValue, Attributes, DimDef, ListValue, NodeDef, TensorShape, Value};
use crate::layout::Layout;
use crate::op::Pads;
use crate::shape::{Dim, Shape};
use crate::tensor::DType;

/// The shapes of a node's outputs.
pub(crate) const OUTPUT_SHAPES: &str = "_output_shapes";
/// Where the channels are, when they are not last.
pub(crate) const LAYOUT: &str = "_layout";

type Outcome<T> = Result<T, String>;

impl NodeDef {
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.attr.get(name).and_then(|attr| attr.value.as_ref())
    }

    /// A list of integers; one integer is a list of one.
    pub fn integers(&self, name: &str) -> Outcome<Option<Vec<i64>>> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::I(i)) => Ok(Some(vec![*i])),
            Some(Value::List(list)) => Ok(Some(list.i.clone())),
            Some(Value::Shape(shape)) => Ok(Some(shape.dim.iter().map(|dim| dim.size).collect())),
            Some(_) => Err(format!("the attribute '{name}' is no list of integers")),
        }
    }

    pub fn integer(&self, name: &str) -> Outcome<Option<i64>> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::I(i)) => Ok(Some(*i)),
            Some(Value::B(b)) => Ok(Some(i64::from(*b))),
            Some(_) => Err(format!("the attribute '{name}' is no integer")),
        }
    }

    pub fn size(&self, name: &str) -> Outcome<Option<usize>> {
        match self.integer(name)? {
            Some(i) => usize::try_from(i).map(Some).map_err(|_| format!("the attribute '{name}' is {i}")),
            None => Ok(None),
        }
    }

    pub fn float(&self, name: &str) -> Outcome<Option<f32>> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::F(f)) => Ok(Some(*f)),
            Some(Value::I(i)) => Ok(Some(*i as f32)),
            Some(_) => Err(format!("the attribute '{name}' is no number")),
        }
    }

    pub fn flag(&self, name: &str) -> Outcome<Option<bool>> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::B(b)) => Ok(Some(*b)),
            Some(Value::I(i @ (0 | 1))) => Ok(Some(*i == 1)),
            Some(_) => Err(format!("the attribute '{name}' is no truth value")),
        }
    }

    pub fn text(&self, name: &str) -> Outcome<Option<&str>> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::S(s)) => {
                std::str::from_utf8(s).map(Some).map_err(|_| format!("the attribute '{name}' is not UTF-8"))
            }
            Some(_) => Err(format!("the attribute '{name}' is no text")),
        }
    }

    pub fn texts(&self, name: &str) -> Outcome<Option<Vec<String>>> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::List(list)) => list
                .s
                .iter()
                .map(|s| String::from_utf8(s.clone()).map_err(|_| format!("the attribute '{name}' is not UTF-8")))
                .collect::<Outcome<_>>()
                .map(Some),
            Some(_) => Err(format!("the attribute '{name}' is no list of texts")),
        }
    }

    pub fn dtype(&self, name: &str) -> Outcome<Option<DType>> {
        match self.value(name) {
            None | Some(Value::Type(0)) => Ok(None),
            Some(Value::Type(code)) => {
                DType::from_code(*code).map(Some).ok_or_else(|| format!("elements of type {code} are not supported"))
            }
            Some(_) => Err(format!("the attribute '{name}' is no element type")),
        }
    }

    /// The shape of the first output, if the file says it; free sizes are unknown.
    pub fn output_shape(&self) -> Option<Shape> {
        match self.value(OUTPUT_SHAPES)? {
            Value::List(ListValue { shape, .. }) => shape.first().filter(|shape| !shape.unknown_rank).map(|shape| {
                let dim = |dim: &DimDef| usize::try_from(dim.size).map_or(Dim::Unknown, Dim::Known);
                shape.dim.iter().map(dim).collect()
            }),
            _ => None,
        }
    }

    /// Where the channels are, of an input of this shape, of which the weights want so many `channels`.
    ///
    /// Our files say it in an attribute of their own. MMdnn's have the channels last, whatever `data_format` says: some
    /// of its readers keep that word when they have turned everything. Only its TensorFlow reader turns nothing; so the
    /// word counts when a list or the number of channels proves it.
    pub fn layout(&self, x: &Shape, channels: Option<usize>) -> Outcome<Layout> {
        match self.text(LAYOUT)? {
            Some("channels_first") => return Ok(Layout::ChannelsFirst),
            Some("channels_last") => return Ok(Layout::ChannelsLast),
            Some(other) => {
                return Err(format!("the attribute '{LAYOUT}' is '{other}', expected channels_first or _last"));
            }
            None => {}
        }
        let rank = x.rank();
        let says_first = self.text("data_format")?.is_some_and(|format| format.starts_with("NC"))
            || (self.op == "BatchNorm" && self.integer("axis")? == Some(1));
        if rank < 3 || !says_first {
            return Ok(Layout::ChannelsLast);
        }
        for (name, plain) in [("strides", 1), ("dilations", 1), ("kernel_shape", 1), ("pads", 0)] {
            if name == "kernel_shape" && self.op != "Pool" {
                continue;
            }
            let list = self.integers(name)?.unwrap_or_default();
            for part in list.chunks(rank).filter(|part| part.len() == rank) {
                match (part.get(1), part.last()) {
                    (Some(second), Some(last)) if *second == plain && *last != plain => {
                        return Ok(Layout::ChannelsFirst);
                    }
                    (Some(second), Some(last)) if *second != plain && *last == plain => {
                        return Ok(Layout::ChannelsLast);
                    }
                    _ => {}
                }
            }
        }
        let channels = channels.map(Dim::Known);
        let proven = channels.is_some() && x.get(1) == channels.as_ref() && x.last() != channels.as_ref();
        Ok(if proven { Layout::ChannelsFirst } else { Layout::ChannelsLast })
    }

    /// A list over the spatial dimensions, which the file may give for all dimensions.
    pub fn window(&self, name: &str, rank: usize, layout: Layout) -> Outcome<Option<Vec<usize>>> {
        let Some(list) = self.integers(name)? else { return Ok(None) };
        let spatial = rank.saturating_sub(2);
        let list = match list.len() {
            n if n == rank => list.get(layout.spatial_axes(rank)).unwrap_or_default().to_vec(),
            n if n == spatial => list,
            // A list for other dimensions that says nothing.
            _ if list.iter().all(|&i| i == 1) => return Ok(None),
            _ => return Err(format!("the attribute '{name}' is {list:?}, expected {rank} or {spatial} numbers")),
        };
        sizes(name, &list).map(Some)
    }

    /// The padding of the spatial dimensions, as the list says: all begins, then all ends.
    pub fn pads(&self, rank: usize, layout: Layout) -> Outcome<Option<Pads>> {
        let Some(list) = self.integers("pads")?.filter(|list| !list.is_empty()) else { return Ok(None) };
        let list = sizes("pads", &list)?;
        let spatial = rank.saturating_sub(2);
        let (begins, ends) = match list.len() {
            n if n == spatial => (list.as_slice(), list.as_slice()),
            n => list.split_at(n / 2),
        };
        let range = match begins.len() {
            n if n != ends.len() => 0..0,
            n if n == rank => layout.spatial_axes(rank),
            n if n == spatial => 0..spatial,
            _ => 0..0,
        };
        match (begins.get(range.clone()), ends.get(range)) {
            (Some(begins), Some(ends)) if begins.len() == spatial => {
                Ok(Some(Pads(begins.iter().copied().zip(ends.iter().copied()).collect())))
            }
            _ => Err(format!("the attribute 'pads' is {list:?}, expected begins and ends of {rank} dimensions")),
        }
    }
}

/// Numbers that are sizes.
pub(crate) fn sizes(name: &str, list: &[i64]) -> Outcome<Vec<usize>> {
    list.iter()
        .map(|&i| {
            usize::try_from(i).map_err(|_| format!("the attribute '{name}' is {list:?}, expected no negative number"))
        })
        .collect()
}

/// An axis that may be counted from the end.
pub(crate) fn axis(axis: i64, rank: usize) -> Outcome<usize> {
    let absolute = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
    usize::try_from(absolute)
        .ok()
        .filter(|&absolute| absolute < rank)
        .ok_or_else(|| format!("axis {axis} does not exist in rank {rank}"))
}

pub(crate) fn integers(list: &[usize]) -> AttrValue {
    list.iter().map(|&i| i64::try_from(i).unwrap_or(i64::MAX)).collect::<Vec<_>>().into()
}

pub(crate) fn integer(i: usize) -> AttrValue {
    i64::try_from(i).unwrap_or(i64::MAX).into()
}

pub(crate) fn dtype(dtype: DType) -> AttrValue {
    Value::Type(dtype as i32).into()
}

/// A list over the spatial dimensions with the places of batch and channels written out.
pub(crate) fn over_all(list: &[usize], layout: Layout, other: usize) -> Vec<usize> {
    let mut all = list.to_vec();
    all.insert(0, other);
    all.insert(layout.channel_axis(all.len() + 1), other);
    all
}

/// Pads with the places of batch and channels written out: all begins, then all ends.
pub(crate) fn pads_over_all(pads: &Pads, layout: Layout) -> AttrValue {
    let ends: Vec<usize> = pads.0.iter().map(|pad| pad.1).collect();
    integers(&[over_all(&pads.begins(), layout, 0), over_all(&ends, layout, 0)].concat())
}

/// TensorFlow's name of a layout, and ours if it is not MMdnn's. The lists of such a node are in its own order.
pub(crate) fn say_layout(attr: &mut Attributes, layout: Layout, rank: usize) {
    let (names, other) = match layout {
        Layout::ChannelsLast => (["NWC", "NHWC", "NDHWC"], None),
        Layout::ChannelsFirst => (["NCW", "NCHW", "NCDHW"], Some("channels_first")),
    };
    if let Some(name) = rank.checked_sub(3).and_then(|i| names.get(i)) {
        attr.insert("data_format".to_owned(), (*name).into());
    }
    if let Some(other) = other.filter(|_| rank > 2) {
        attr.insert(LAYOUT.to_owned(), other.into());
    }
}

/// A shape; free sizes are -1, with a name.
pub(crate) fn shape(shape: &Shape) -> TensorShape {
    let dim = |dim: &Dim| match dim {
        Dim::Known(size) => DimDef { size: i64::try_from(*size).unwrap_or(-1), name: String::new() },
        free => DimDef { size: -1, name: free.to_string() },
    };
    TensorShape { dim: shape.iter().map(dim).collect(), unknown_rank: false }
}

/// A shape as the file says it. Free sizes without a name: the batch is `N`, others get the node's name.
pub(crate) fn read_shape(shape: &TensorShape, node: &str) -> Outcome<Shape> {
    if shape.unknown_rank {
        return Err("its shape is not known, not even the number of dimensions".to_owned());
    }
    let dim = |(axis, dim): (usize, &DimDef)| match usize::try_from(dim.size) {
        Ok(size) => Ok(Dim::Known(size)),
        Err(_) if !dim.name.is_empty() => {
            Dim::parse(&dim.name).ok_or_else(|| format!("'{}' is no dimension", dim.name))
        }
        Err(_) if axis == 0 => Ok(Dim::symbol("N")),
        Err(_) => Ok(Dim::symbol(&format!("{node}_{axis}"))),
    };
    shape.dim.iter().enumerate().map(dim).collect()
}

/// The shapes of several outputs.
pub(crate) fn shapes<'a>(all: impl Iterator<Item = &'a Shape>) -> AttrValue {
    Value::List(ListValue { shape: all.map(shape).collect(), ..ListValue::default() }).into()
}

/// Attributes from pairs.
pub(crate) fn attributes<const N: usize>(pairs: [(&str, AttrValue); N]) -> Attributes {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
