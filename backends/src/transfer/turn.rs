//! How tensors of one framework become those of another.

use modelport_ir::{DType, Tensor};

use super::layer::{Family, Kind, Layer, Parameter, Role};
use crate::gates;

/// What a tensor of the target is made of.
pub struct Made {
    pub tensor: Tensor,
    pub sources: Vec<String>,
}

/// Why there is none.
pub enum Missing {
    /// The source has no such tensor.
    Absent,
    /// It has one that does not fit: what is wrong, and what to try.
    Conflict(String, Option<String>),
}

type Outcome<T> = Result<T, Missing>;

fn conflict<T>(message: impl Into<String>, hint: &str) -> Outcome<T> {
    Err(Missing::Conflict(message.into(), (!hint.is_empty()).then(|| hint.to_owned())))
}

fn failed(message: String) -> Missing {
    Missing::Conflict(message, None)
}

/// Layers that are to be the same.
pub struct Pair<'a> {
    pub source: &'a Layer,
    pub target: &'a Layer,
    pub from: Family,
    pub to: Family,
    /// Shape of what was flattened, channels first, if the user says it.
    pub flattened: Option<&'a [usize]>,
}

impl Pair<'_> {
    fn is_channels_first(family: Family) -> bool {
        family == Family::PyTorch
    }

    /// What both are, as far as either side knows.
    pub fn kind(&self) -> Kind {
        match (self.source.kind, self.target.kind) {
            (Kind::Unknown, target) => target,
            // Dense and convolutional layers of one pixel have the same tensors, so the target decides.
            (_, target) if target != Kind::Unknown => target,
            (source, _) => source,
        }
    }

    /// The tensor of the target that this parameter is, made of the source's.
    pub fn make(&self, parameter: &Parameter) -> Outcome<Made> {
        let made = match Self::is_channels_first(self.from) == Self::is_channels_first(self.to) {
            true => self.alike(parameter),
            false if self.from == Family::PyTorch => self.keras_from(parameter),
            false => self.pytorch_from(parameter),
        };
        let made = match made {
            Err(Missing::Absent) => self.neutral(parameter)?,
            made => made?,
        };
        let (is, expected) = (made.tensor.shape(), parameter.tensor.shape());
        if is != expected {
            let from = made.sources.join(" + ");
            let hint = "make the target with the source's sizes, or leave such layers as they are with --partial";
            return conflict(format!("has the shape {expected:?}, {from} gives {is:?}"), hint);
        }
        Ok(Made { tensor: made.tensor.cast(parameter.tensor.dtype()), ..made })
    }

    fn source(&self, roles: &[Role]) -> Outcome<&Parameter> {
        roles.iter().find_map(|role| self.source.get(role)).ok_or(Missing::Absent)
    }

    /// A norm without factor or shift is one with ones or zeros.
    fn neutral(&self, parameter: &Parameter) -> Outcome<Made> {
        let is_normalised = [Role::Mean, Role::Gamma, Role::Beta].iter().any(|role| self.source.get(role).is_some());
        match neutral_value(parameter).filter(|_| self.kind() == Kind::Norm && is_normalised) {
            Some(value) => {
                let shape = parameter.tensor.shape();
                let values = std::iter::repeat_n(value, parameter.tensor.numel());
                Ok(Made { tensor: Tensor::from_f64(DType::Float32, &shape, values), sources: Vec::new() })
            }
            None => Err(Missing::Absent),
        }
    }

    /// Whether a tensor of the source that nothing is made of changes nothing: ones or zeros of a norm.
    pub fn is_spare(&self, parameter: &Parameter) -> bool {
        let value = neutral_value(parameter).filter(|_| self.kind() == Kind::Norm && parameter.tensor.rank() == 1);
        value.is_some_and(|value| parameter.tensor.to_f64().is_ok_and(|all| all.iter().all(|x| *x == value)))
    }

    /// Frameworks that order axes alike.
    fn alike(&self, parameter: &Parameter) -> Outcome<Made> {
        let mut roles = vec![parameter.role.clone()];
        // Names of the same thing in TensorFlow and in the versions of Keras.
        match parameter.role {
            Role::Weight if self.kind() == Kind::Depthwise => roles.push(Role::DepthwiseKernel),
            Role::DepthwiseKernel => roles.push(Role::Weight),
            Role::Embeddings => roles.push(Role::Weight),
            _ => {}
        }
        let found = self.source(&roles)?;
        let squeezed = parameter.role == Role::Alpha;
        let tensor = if squeezed { reshaped(&found.tensor, &parameter.tensor.shape())? } else { found.tensor.clone() };
        Ok(Made { tensor, sources: vec![found.name.clone()] })
    }

    /// The tensor of a Keras layer.
    fn keras_from(&self, parameter: &Parameter) -> Outcome<Made> {
        let kind = self.kind();
        let one = |found: &Parameter, tensor: Tensor| Ok(Made { tensor, sources: vec![found.name.clone()] });
        match (&parameter.role, kind) {
            (Role::Bias, Kind::Lstm | Kind::SimpleRnn) => {
                let (input, recurrent) = (self.source(&[Role::Bias])?, self.source(&[Role::RecurrentBias])?);
                let sum = gates::sum(&input.tensor, &recurrent.tensor).map_err(failed)?;
                Ok(Made { tensor: sum, sources: vec![input.name.clone(), recurrent.name.clone()] })
            }
            (Role::Bias, Kind::Gru) => {
                let (input, recurrent) = (self.source(&[Role::Bias])?, self.source(&[Role::RecurrentBias])?);
                if parameter.tensor.rank() != 2 {
                    return conflict(
                        "is a GRU with reset_after=False, which PyTorch does not have",
                        "make the model with GRU(..., reset_after=True)",
                    );
                }
                let row = |tensor: &Tensor| reshaped(&swapped(tensor)?, &[1, tensor.numel()]);
                let rows = [row(&input.tensor)?, row(&recurrent.tensor)?];
                let tensor = Tensor::joined(&rows, 0).map_err(failed)?;
                Ok(Made { tensor, sources: vec![input.name.clone(), recurrent.name.clone()] })
            }
            (Role::Weight | Role::RecurrentKernel, Kind::Gru) => {
                let found = self.source(std::slice::from_ref(&parameter.role))?;
                one(found, permuted(&swapped(&found.tensor)?, &[1, 0])?)
            }
            (Role::Weight | Role::RecurrentKernel, Kind::Lstm | Kind::SimpleRnn) => {
                let found = self.source(std::slice::from_ref(&parameter.role))?;
                one(found, permuted(&found.tensor, &[1, 0])?)
            }
            (Role::Weight | Role::DepthwiseKernel | Role::PointwiseKernel | Role::Embeddings | Role::Alpha, _) => {
                let found = self.source(&[Role::Weight])?;
                one(found, self.keras_kernel(&found.tensor, parameter)?)
            }
            (Role::Gamma, _) => {
                let found = self.source(&[Role::Weight])?;
                one(found, found.tensor.clone())
            }
            (Role::Beta, _) => {
                let found = self.source(&[Role::Bias])?;
                one(found, found.tensor.clone())
            }
            (Role::Named(_), _) => self.unknown(parameter),
            (role, _) => {
                let found = self.source(std::slice::from_ref(role))?;
                one(found, found.tensor.clone())
            }
        }
    }

    fn keras_kernel(&self, tensor: &Tensor, parameter: &Parameter) -> Outcome<Tensor> {
        let rank = tensor.rank();
        match self.kind() {
            Kind::Conv => {
                let spatial = 2..rank;
                permuted(tensor, &spatial.chain([1, 0]).collect::<Vec<_>>())
            }
            // [in, out, …] there, […, out, in] here.
            Kind::ConvTranspose => {
                let spatial = 2..rank;
                permuted(tensor, &spatial.chain([1, 0]).collect::<Vec<_>>())
            }
            Kind::Depthwise => {
                let Some(&[inputs, multiplier]) = parameter.tensor.shape().last_chunk::<2>() else {
                    return conflict("is no depthwise kernel", "");
                };
                let shape = tensor.shape();
                let spatial = shape.get(2..).unwrap_or_default();
                let split: Vec<usize> = [inputs, multiplier].iter().chain(spatial).copied().collect();
                let tensor = reshaped(tensor, &split)?;
                permuted(&tensor, &(2..rank).chain([0, 1]).collect::<Vec<_>>())
            }
            Kind::Dense => {
                if !self.target.after_flatten || self.flattened.is_some() {
                    let tensor = match self.flattened {
                        Some(shape) => rows(tensor, 1, shape, true)?,
                        None => tensor.clone(),
                    };
                    return permuted(&tensor, &[1, 0]);
                }
                self.flatten_unknown()
            }
            Kind::Embedding => Ok(tensor.clone()),
            Kind::PRelu => reshaped(tensor, &parameter.tensor.shape()),
            Kind::Unknown | Kind::Other | Kind::Separable => self.how_unknown(),
            _ => Ok(tensor.clone()),
        }
    }

    /// The tensor of a PyTorch layer.
    fn pytorch_from(&self, parameter: &Parameter) -> Outcome<Made> {
        let kind = self.kind();
        let one = |found: &Parameter, tensor: Tensor| Ok(Made { tensor, sources: vec![found.name.clone()] });
        match (&parameter.role, kind) {
            (Role::Bias | Role::RecurrentBias, Kind::Gru) => {
                let found = self.source(&[Role::Bias])?;
                let [2, units] = found.tensor.shape()[..] else {
                    return conflict("is of a GRU with reset_after=False, which PyTorch does not have", "");
                };
                let row = usize::from(parameter.role == Role::RecurrentBias);
                let bias = found.tensor.sliced(0, row, row + 1).and_then(|bias| bias.reshaped(&[units]));
                one(found, swapped(&bias.map_err(failed)?)?)
            }
            (Role::RecurrentBias, Kind::Lstm | Kind::SimpleRnn) => {
                // Keras has one bias; its whole is in the other.
                self.source(&[Role::Bias])?;
                let shape = parameter.tensor.shape();
                Ok(Made { tensor: Tensor::from_f64(DType::Float32, &shape, []), sources: Vec::new() })
            }
            (Role::Weight | Role::RecurrentKernel, Kind::Gru) => {
                let found = self.source(std::slice::from_ref(&parameter.role))?;
                one(found, swapped(&permuted(&found.tensor, &[1, 0])?)?)
            }
            (Role::Weight | Role::RecurrentKernel, Kind::Lstm | Kind::SimpleRnn) => {
                let found = self.source(std::slice::from_ref(&parameter.role))?;
                one(found, permuted(&found.tensor, &[1, 0])?)
            }
            (Role::Weight, _) => {
                let roles = [Role::Weight, Role::Gamma, Role::DepthwiseKernel, Role::Embeddings, Role::Alpha];
                let found = self.source(&roles)?;
                one(found, self.pytorch_kernel(found, parameter)?)
            }
            (Role::Bias, _) => {
                let found = self.source(&[Role::Bias, Role::Beta])?;
                one(found, found.tensor.clone())
            }
            (Role::Named(_), _) => self.unknown(parameter),
            (role, _) => {
                let found = self.source(std::slice::from_ref(role))?;
                one(found, found.tensor.clone())
            }
        }
    }

    fn pytorch_kernel(&self, found: &Parameter, parameter: &Parameter) -> Outcome<Tensor> {
        let tensor = &found.tensor;
        let rank = tensor.rank();
        match (&found.role, self.kind()) {
            (Role::Gamma, _) | (_, Kind::Embedding | Kind::Norm) => Ok(tensor.clone()),
            (Role::Alpha, _) | (_, Kind::PRelu) => reshaped(tensor, &parameter.tensor.shape()),
            (_, Kind::Conv | Kind::ConvTranspose) if rank > 2 => {
                permuted(tensor, &[rank - 1, rank - 2].into_iter().chain(0..rank - 2).collect::<Vec<_>>())
            }
            (_, Kind::Depthwise) if rank > 2 => {
                let tensor =
                    permuted(tensor, &[rank - 2, rank - 1].into_iter().chain(0..rank - 2).collect::<Vec<_>>())?;
                reshaped(&tensor, &parameter.tensor.shape())
            }
            (_, Kind::Dense) => {
                if !self.source.after_flatten || self.flattened.is_some() {
                    let tensor = permuted(tensor, &[1, 0])?;
                    return match self.flattened {
                        Some(shape) => rows(&tensor, 1, shape, false),
                        None => Ok(tensor),
                    };
                }
                self.flatten_unknown()
            }
            _ => self.how_unknown(),
        }
    }

    /// A tensor without a known meaning: what has one axis has one order.
    fn unknown(&self, parameter: &Parameter) -> Outcome<Made> {
        let found = self.source(std::slice::from_ref(&parameter.role))?;
        if found.tensor.rank() > 1 {
            return self.how_unknown();
        }
        Ok(Made { tensor: found.tensor.clone(), sources: vec![found.name.clone()] })
    }

    fn how_unknown<T>(&self) -> Outcome<T> {
        let names = |layer: &Layer| layer.parameters.first().map_or(layer.name.clone(), |p| p.name.clone());
        let (target, source) = (names(self.target), names(self.source));
        conflict(
            "can't be turned: neither file says what kind of layer it is, and shapes alone can mislead",
            &format!(
                "say the order of axes in the map: {{\"{target}\": {{\"from\": \"{source}\", \"permute\": [2, 3, 1, 0]}}}}"
            ),
        )
    }

    fn flatten_unknown<T>(&self) -> Outcome<T> {
        let names = |layer: &Layer| layer.get(&Role::Weight).map_or(layer.name.clone(), |p| p.name.clone());
        let (target, source) = (names(self.target), names(self.source));
        conflict(
            "reads what was flattened, and its rows are in another order in PyTorch",
            &format!(
                "say the shape before it was flattened, channels first, in the map: {{\"{target}\": {{\"from\": \
                 \"{source}\", \"flattened\": [512, 7, 7]}}}}"
            ),
        )
    }
}

/// What a factor or a shift is where it does nothing.
fn neutral_value(parameter: &Parameter) -> Option<f64> {
    match parameter.role {
        Role::Gamma | Role::Weight => Some(1.0),
        Role::Beta | Role::Bias => Some(0.0),
        _ => None,
    }
}

fn permuted(tensor: &Tensor, order: &[usize]) -> Outcome<Tensor> {
    tensor.permuted(order).map_err(|_| {
        let message = format!("needs {} axes, what belongs there has the shape {:?}", order.len(), tensor.shape());
        Missing::Conflict(message, None)
    })
}

fn reshaped(tensor: &Tensor, shape: &[usize]) -> Outcome<Tensor> {
    tensor.reshaped(shape).map_err(|_| {
        failed(format!("has the shape {shape:?}, what belongs there has other sizes: {:?}", tensor.shape()))
    })
}

/// An axis that is flattened channels-first, with its elements in channels-last order, or the other way round.
fn rows(tensor: &Tensor, axis: usize, shape: &[usize], from_channels_first: bool) -> Outcome<Tensor> {
    let whole = tensor.shape();
    let (Some(&channels), Some(before), Some(after)) = (shape.first(), whole.get(..axis), whole.get(axis + 1..)) else {
        return conflict("can't be unflattened into nothing", "");
    };
    let spatial = shape.get(1..).unwrap_or_default();
    let parts: Vec<usize> = match from_channels_first {
        true => shape.to_vec(),
        false => spatial.iter().copied().chain([channels]).collect(),
    };
    let count = parts.len();
    let split: Vec<usize> = before.iter().chain(&parts).chain(after).copied().collect();
    let inner: Vec<usize> = match from_channels_first {
        true => (1..count).chain([0]).collect(),
        false => [count - 1].into_iter().chain(0..count - 1).collect(),
    };
    let order: Vec<usize> =
        (0..axis).chain(inner.into_iter().map(|part| axis + part)).chain(axis + count..split.len()).collect();
    reshaped(&permuted(&reshaped(tensor, &split)?, &order)?, &whole)
}

fn swapped(tensor: &Tensor) -> Outcome<Tensor> {
    gates::swapped(tensor).or_else(|message| conflict(message, ""))
}
