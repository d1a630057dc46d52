//! Functions of one element, with and without a parameter, and softmax.

use serde::{Deserialize, Serialize};

use super::{Operator, Slot, check_axis, input};
use crate::graph::ValueInfo;
use crate::layout::Layout;
use crate::tensor::DType;

/// A function of one element without parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Unary {
    Relu,
    Relu6,
    Sigmoid,
    Tanh,
    Softplus,
    Softsign,
    Selu,
    /// `x * sigmoid(x)`, also called swish.
    Silu,
    /// `x * tanh(softplus(x))`
    Mish,
    /// `relu6(x + 3) / 6`
    HardSigmoid,
    /// `x * relu6(x + 3) / 6`
    HardSwish,
    Exp,
    Expm1,
    Log,
    Log1p,
    Sqrt,
    Rsqrt,
    Square,
    Reciprocal,
    Neg,
    Abs,
    Sign,
    Floor,
    Ceil,
    /// To the nearest, ties to even.
    Round,
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Asinh,
    Acosh,
    Atanh,
    Erf,
    /// Negation of truth values, or of the bits of whole numbers.
    Not,
    /// Boolean result.
    IsNan,
    /// Boolean result.
    IsInf,
    /// Boolean result.
    IsFinite,
}

impl Unary {
    /// All of them.
    pub const ALL: &[Unary] = &[
        Unary::Relu,
        Unary::Relu6,
        Unary::Sigmoid,
        Unary::Tanh,
        Unary::Softplus,
        Unary::Softsign,
        Unary::Selu,
        Unary::Silu,
        Unary::Mish,
        Unary::HardSigmoid,
        Unary::HardSwish,
        Unary::Exp,
        Unary::Expm1,
        Unary::Log,
        Unary::Log1p,
        Unary::Sqrt,
        Unary::Rsqrt,
        Unary::Square,
        Unary::Reciprocal,
        Unary::Neg,
        Unary::Abs,
        Unary::Sign,
        Unary::Floor,
        Unary::Ceil,
        Unary::Round,
        Unary::Sin,
        Unary::Cos,
        Unary::Tan,
        Unary::Asin,
        Unary::Acos,
        Unary::Atan,
        Unary::Sinh,
        Unary::Cosh,
        Unary::Asinh,
        Unary::Acosh,
        Unary::Atanh,
        Unary::Erf,
        Unary::Not,
        Unary::IsNan,
        Unary::IsInf,
        Unary::IsFinite,
    ];
}

impl Operator for Unary {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let x = input(inputs, 0)?;
        let boolean = matches!(self, Unary::IsNan | Unary::IsInf | Unary::IsFinite);
        let dtype = if boolean { DType::Bool } else { x.dtype };
        Ok(vec![ValueInfo::new(dtype, x.shape.clone())])
    }
}

macro_rules! elementwise {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
            pub struct $name {
                $($(#[$field_doc])* pub $field: $type,)*
            }

            impl Operator for $name {
                fn slots(&self) -> &'static [Slot] {
                    slots![Data "x"]
                }
                fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
                    Ok(vec![input(inputs, 0)?.clone()])
                }
            }
        )*
    };
}

elementwise! {
    /// `max(x, alpha * x)` for `alpha` below 1: `alpha * x` where `x` is negative.
    LeakyRelu {
        /// Slope on the negative side.
        alpha: f32,
    }

    /// `alpha * (exp(x) - 1)` where `x` is negative, else `x`.
    Elu {
        /// Limit on the negative side.
        alpha: f32,
    }

    /// Gaussian error linear unit.
    Gelu {
        /// Whether it is the tanh approximation.
        approximate: bool,
    }

    /// Limits elements to a range.
    Clip {
        /// Lower limit.
        min: Option<f32>,
        /// Upper limit.
        max: Option<f32>,
    }
}

/// `slope * x` where `x` is negative, with a slope `[channels]` or `[1]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PRelu {
    /// Of `x`.
    pub layout: Layout,
}

impl Operator for PRelu {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x", Param "slope"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let (x, slope) = (input(inputs, 0)?, input(inputs, 1)?);
        let channels = x.shape.get(self.layout.channel_axis(x.shape.rank())).and_then(|dim| dim.known());
        match slope.shape.sizes().as_deref() {
            Some([n]) if *n == 1 || Some(*n) == channels => Ok(vec![x.clone()]),
            _ => Err(format!("the slope has shape {}, expected [channels] or [1]", slope.shape)),
        }
    }
}

macro_rules! softmax {
    ($($(#[$doc:meta])* $name:ident)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
            pub struct $name {
                /// The axis over which the result adds up to 1.
                pub axis: usize,
            }

            impl Operator for $name {
                fn slots(&self) -> &'static [Slot] {
                    slots![Data "x"]
                }
                fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
                    let x = input(inputs, 0)?;
                    check_axis(self.axis, x.shape.rank())?;
                    Ok(vec![x.clone()])
                }
            }
        )*
    };
}

softmax! {
    /// `exp(x) / sum(exp(x))` along an axis.
    Softmax
    /// The logarithm of [`Softmax`].
    LogSoftmax
}
