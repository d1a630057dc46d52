//! Values of a PyTorch program at conversion time: tensors of the graph, weights, numbers that may hold free sizes.

use std::sync::Arc;

use modelport_ir::{DType, Tensor, Value};

use crate::symbolic::Elem;

/// An argument or a result of an operator.
#[derive(Clone, Debug, Default)]
pub enum Arg {
    /// A value that the network computes.
    Tensor(Value),
    /// A weight, or another tensor that is known; it enters the graph where it is used.
    Weight(Weight),
    /// A whole number, which may have free sizes in it (`SymInt`).
    Int(Elem),
    /// A real number.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A text, such as a mode.
    Str(Arc<str>),
    /// An element type.
    DType(DType),
    /// A list or tuple, also of several results.
    List(Vec<Arg>),
    /// Nothing: Python's `None`, and what the network does not compute with (devices, layouts, generators).
    #[default]
    None,
}

/// A tensor that is known at conversion time.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Its name: the key in the state dict.
    pub name: Arc<str>,
    /// Its elements, lazily, in PyTorch's order of axes.
    pub tensor: Tensor,
    /// Whether training changes it.
    pub trainable: bool,
}

impl Weight {
    /// Whether it is an entry of the state dict that the network computes with: views of it are operators of the
    /// graph, so that it keeps its shape. Whole numbers on one axis are sizes, which shape arithmetic wants to know.
    pub fn is_state(&self) -> bool {
        !self.name.contains('/') && (self.trainable || self.tensor.dtype().is_float() || self.tensor.rank() > 1)
    }
}

impl Arg {
    /// The number, if it is a known whole one.
    pub fn int(&self) -> Option<i64> {
        match self {
            Arg::Int(elem) => elem.int(),
            Arg::Bool(value) => Some(i64::from(*value)),
            Arg::Float(value) if value.fract() == 0.0 => Some(*value as i64),
            Arg::Weight(weight) if weight.tensor.numel() == 1 && !weight.tensor.dtype().is_float() => {
                weight.tensor.to_i64().ok()?.first().copied()
            }
            _ => None,
        }
    }

    /// The number, if it is known.
    pub fn float(&self) -> Option<f64> {
        match self {
            Arg::Float(value) => Some(*value),
            Arg::Weight(weight) if weight.tensor.numel() == 1 => weight.tensor.to_f64().ok()?.first().copied(),
            other => other.int().map(|int| int as f64),
        }
    }

    /// The truth value, if it is one that is known.
    pub fn bool(&self) -> Option<bool> {
        match self {
            Arg::Bool(value) => Some(*value),
            Arg::Int(elem) => elem.int().map(|int| int != 0),
            _ => None,
        }
    }

    /// The elements of a list.
    pub fn list(&self) -> Option<&[Arg]> {
        match self {
            Arg::List(list) => Some(list),
            _ => None,
        }
    }

    /// Whether it is `None`.
    pub fn is_none(&self) -> bool {
        matches!(self, Arg::None)
    }

    /// Whether it is a tensor, computed or known.
    pub fn is_tensor(&self) -> bool {
        matches!(self, Arg::Tensor(_) | Arg::Weight(_))
    }

    /// What kind of value it is, for errors.
    pub fn kind(&self) -> &'static str {
        match self {
            Arg::Tensor(_) | Arg::Weight(_) => "a tensor",
            Arg::Int(_) => "a whole number",
            Arg::Float(_) => "a real number",
            Arg::Bool(_) => "a truth value",
            Arg::Str(_) => "a text",
            Arg::DType(_) => "an element type",
            Arg::List(_) => "a list",
            Arg::None => "None",
        }
    }
}

macro_rules! from {
    ($($type:ty: $value:ident => $arg:expr;)*) => {
        $(impl From<$type> for Arg {
            fn from($value: $type) -> Arg {
                $arg
            }
        })*
    };
}

from! {
    Value: value => Arg::Tensor(value);
    Weight: weight => Arg::Weight(weight);
    Elem: elem => Arg::Int(elem);
    i32: int => Arg::Int(Elem::Int(int.into()));
    i64: int => Arg::Int(Elem::Int(int));
    usize: int => Arg::Int(Elem::Int(i64::try_from(int).unwrap_or(i64::MAX)));
    f64: float => Arg::Float(float);
    bool: value => Arg::Bool(value);
    &str: text => Arg::Str(text.into());
    DType: dtype => Arg::DType(dtype);
    Vec<Arg>: list => Arg::List(list);
    &[i64]: list => Arg::List(list.iter().map(|&int| int.into()).collect());
    &[usize]: list => Arg::List(list.iter().map(|&int| int.into()).collect());
    &[Arg]: list => Arg::List(list.to_vec());
}

impl<T: Into<Arg>> From<Option<T>> for Arg {
    fn from(value: Option<T>) -> Arg {
        value.map_or(Arg::None, Into::into)
    }
}

impl<const N: usize> From<[i64; N]> for Arg {
    fn from(list: [i64; N]) -> Arg {
        list.as_slice().into()
    }
}

impl<const N: usize> From<[usize; N]> for Arg {
    fn from(list: [usize; N]) -> Arg {
        list.as_slice().into()
    }
}
