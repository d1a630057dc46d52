//! All operators: one small struct each, in families, and the enum over them.
//!
//! To add one: write its struct with [`Operator`] in a family file and name it in the `ops!` list below. The compiler
//! then shows every place that must know it: layout, evaluation, the backends.

/// The slots of an operator: `slots![Data "x", Param "weights"]`.
macro_rules! slots {
    ($($kind:ident $name:literal),*) => {
        &[$($crate::op::Slot { name: $name, kind: $crate::op::SlotKind::$kind }),*]
    };
}

pub mod activation;
pub mod attention;
pub mod conv;
pub mod dense;
pub mod io;
pub mod math;
pub mod norm;
pub mod pool;
pub mod recurrent;
pub mod reduce;
pub mod resize;
pub mod sample;
pub mod scatter;
pub mod shape;
pub mod spatial;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use activation::{Clip, Elu, Gelu, LeakyRelu, LogSoftmax, PRelu, Softmax, Unary};
pub use attention::Attention;
pub use conv::{Conv, ConvTranspose};
pub use dense::{Dense, Einsum, MatMul};
pub use io::{Constant, Dims, Fill, Foreign, Input, Range};
pub use math::{Binary, Cast, CumSum, Select};
pub use norm::{BatchNorm, Dropout, GroupNorm, InstanceNorm, L2Normalize, LayerNorm, Lrn};
pub use pool::{AdaptivePool, Pool, PoolKind};
pub use recurrent::{Cell, Recurrent};
pub use reduce::{ArgReduce, Extreme, Reduce, ReduceKind, TopK};
pub use resize::{Coordinates, Resize, ResizeMode};
pub use sample::{GridSample, Outside};
pub use scatter::Scatter;
pub use shape::{
    Concat, Expand, Gather, GatherNd, OneHot, Pack, Pad, PadMode, Reshape, Reverse, Slice, Split, Squeeze, Tile,
    Transpose, Unpack, Unsqueeze,
};
pub use spatial::{DepthToSpace, SpaceToDepth};

use crate::graph::ValueInfo;

/// What every operator tells of itself.
pub trait Operator {
    /// Its inputs, by slot.
    fn slots(&self) -> &'static [Slot];

    /// Type and shape of every output, from those of the inputs (`None`: an optional input that is absent).
    ///
    /// # Errors
    /// One sentence: which input does not fit and why.
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String>;
}

/// One input of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its name; for parameters that under which weights are saved (`weights`, `bias`, `mean`, …).
    pub name: &'static str,
    /// What it is for.
    pub kind: SlotKind,
}

/// What an input is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotKind {
    /// Data that flows through the network.
    Data,
    /// A weight of the layer, usually a constant.
    Param,
    /// A weight that may be absent.
    OptionalParam,
    /// A value of which only the shape is used, to find the free dimensions; present when there are any.
    Like,
    /// Any number of data inputs, from this slot on.
    Variadic,
}

macro_rules! ops {
    ($($name:ident,)*) => {
        /// An operator.
        #[derive(Clone, Debug, Serialize, Deserialize)]
        pub enum Op {
            $(#[doc = concat!("See [`", stringify!($name), "`].")] $name($name),)*
        }

        impl Op {
            /// The operator's family, as in this enum.
            pub fn family(&self) -> &'static str {
                match self { $(Op::$name(_) => stringify!($name),)* }
            }

            /// The operator as what it tells of itself.
            pub fn as_operator(&self) -> &dyn Operator {
                match self { $(Op::$name(op) => op,)* }
            }
        }

        /// The families of operators, as in [`Op`].
        pub const FAMILIES: &[&str] = &[$(stringify!($name),)*];

        $(impl From<$name> for Op {
            fn from(op: $name) -> Op {
                Op::$name(op)
            }
        })*
    };
}

ops! {
    Input, Constant, Fill, Range, Dims, Foreign,
    Conv, ConvTranspose,
    Pool, AdaptivePool,
    BatchNorm, LayerNorm, InstanceNorm, GroupNorm, Lrn, L2Normalize, Dropout,
    Unary, LeakyRelu, Elu, PRelu, Gelu, Clip, Softmax, LogSoftmax,
    Binary, Select, Cast, CumSum,
    Dense, MatMul, Einsum, Attention, Recurrent,
    Reduce, ArgReduce, TopK,
    Reshape, Transpose, Squeeze, Unsqueeze, Concat, Split, Pack, Unpack, Slice, Pad, Tile, Expand, Gather, GatherNd,
    Scatter, OneHot, Reverse,
    Resize, GridSample, SpaceToDepth, DepthToSpace,
}

impl Op {
    /// The name that people know: `Conv`, `Relu`, `Add`, `ReduceMean`.
    pub fn name(&self) -> String {
        match self {
            Op::Unary(op) => format!("{op:?}"),
            Op::Binary(op) => format!("{op:?}"),
            Op::Reduce(op) => format!("Reduce{:?}", op.kind),
            Op::ArgReduce(op) => format!("Arg{:?}", op.kind),
            Op::Foreign(op) => op.op.clone(),
            op => op.family().to_owned(),
        }
    }

    /// The inputs, by slot. For a variadic operator the last slot stands for all that follow.
    pub fn slots(&self) -> &'static [Slot] {
        self.as_operator().slots()
    }

    /// The slot of this number.
    pub fn slot(&self, index: usize) -> Option<Slot> {
        let slots = self.slots();
        slots.get(index).or(slots.last().filter(|slot| slot.kind == SlotKind::Variadic)).copied()
    }

    /// Type and shape of every output. See [`Operator::infer`].
    ///
    /// # Errors
    /// One sentence: which input is missing, too many, or does not fit, and why.
    pub fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let slots = self.slots();
        let variadic = slots.last().is_some_and(|slot| slot.kind == SlotKind::Variadic);
        if inputs.len() > slots.len() && !variadic {
            return Err(format!("takes at most {} inputs, got {}", slots.len(), inputs.len()));
        }
        for (index, slot) in slots.iter().enumerate() {
            let needed = matches!(slot.kind, SlotKind::Data | SlotKind::Param | SlotKind::Variadic);
            if needed && inputs.get(index).copied().flatten().is_none() {
                return Err(format!("input {index} ({}) is missing", slot.name));
            }
        }
        self.as_operator().infer(inputs)
    }
}

/// The input in a slot; `Op::infer` has checked that those that are needed are there.
fn input<'a>(inputs: &[Option<&'a ValueInfo>], slot: usize) -> Result<&'a ValueInfo, String> {
    inputs.get(slot).copied().flatten().ok_or_else(|| format!("input {slot} is missing"))
}

fn optional<'a>(inputs: &[Option<&'a ValueInfo>], slot: usize) -> Option<&'a ValueInfo> {
    inputs.get(slot).copied().flatten()
}

/// Fails unless `axis` exists in a value of this rank.
fn check_axis(axis: usize, rank: usize) -> Result<(), String> {
    if axis < rank { Ok(()) } else { Err(format!("axis {axis} does not exist in rank {rank}")) }
}

/// Padding before and after every axis that it is about (the spatial ones of a window, all of a `Pad`).
///
/// In files it is one list, all befores then all afters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pads(pub Vec<(usize, usize)>);

impl Pads {
    /// No padding on `rank` axes.
    pub fn none(rank: usize) -> Self {
        Pads(vec![(0, 0); rank])
    }

    /// Whether there is no padding at all.
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|&pad| pad == (0, 0))
    }

    /// Whether every axis has as much before as after.
    pub fn is_symmetric(&self) -> bool {
        self.0.iter().all(|(before, after)| before == after)
    }

    /// What is before every axis.
    pub fn begins(&self) -> Vec<usize> {
        self.0.iter().map(|pad| pad.0).collect()
    }
}

impl Serialize for Pads {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|p| p.0).chain(self.0.iter().map(|p| p.1)))
    }
}

impl<'de> Deserialize<'de> for Pads {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let flat = Vec::<usize>::deserialize(deserializer)?;
        if flat.len() % 2 != 0 {
            return Err(serde::de::Error::custom("pads come in pairs: all befores, then all afters"));
        }
        let (before, after) = flat.split_at(flat.len() / 2);
        Ok(Pads(before.iter().copied().zip(after.iter().copied()).collect()))
    }
}
