//! How tensors of one framework become those of another.

use modelport_ir::{DType, Tensor};

use super::layer::{Family, Kind, Layer, Parameter, Role};
use crate::gates;

/// What a tensor of the target is made of.
pub struct Made {
    pub tensor: Tensor,
    pub sources: Vec<String>,
    /// Whether the source has nothing of it: it is what changes nothing.
    pub is_neutral: bool,
}

impl Made {
    pub fn of(source: &Parameter, tensor: Tensor) -> Made {
        Made { tensor, sources: vec![source.name.clone()], is_neutral: false }
    }
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
        let before = [(self.source, self.target), (self.target, self.source)]
            .into_iter()
            .find(|(one, other)| self.kind() == Kind::Gru && !one.reset_after && other.reset_after);
        if let Some((_, other)) = before {
            let who = if std::ptr::eq(other, self.source) { "source" } else { "target" };
            return conflict(
                format!("is of a GRU that resets before the product, and the {who}'s resets after it"),
                "no weights make them equal: make the Keras model with GRU(..., reset_after=True), as PyTorch's are",
            );
        }
        let made = match Self::is_channels_first(self.from) == Self::is_channels_first(self.to) {
            true => self.alike(parameter),
            false if self.from == Family::PyTorch => self.keras_from(parameter),
            false => self.pytorch_from(parameter),
        };
        let made = match made {
            Err(Missing::Absent) => self.neutral(parameter)?,
            made => made?,
        };
        let expected = parameter.tensor.shape();
        // Dense layers of attention have an axis for the heads.
        let made = match self.kind() == Kind::Dense && made.tensor.numel() == parameter.tensor.numel() {
            true if expected.len() != made.tensor.rank() => Made { tensor: reshaped(&made.tensor, &expected)?, ..made },
            _ => made,
        };
        let is = made.tensor.shape();
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

    /// What the source does not have, and what would change nothing: ones and zeros of a norm, a bias of zeros.
    fn neutral(&self, parameter: &Parameter) -> Outcome<Made> {
        let roles = [Role::Mean, Role::Gamma, Role::Beta, Role::Weight, Role::DepthwiseKernel, Role::RecurrentKernel];
        let is_there = roles.iter().any(|role| self.source.get(role).is_some());
        let is_bias = matches!(parameter.role, Role::Bias | Role::RecurrentBias);
        let value = neutral_value(parameter).filter(|_| is_there && (is_bias || self.kind() == Kind::Norm));
        let value = value.ok_or(Missing::Absent)?;
        let shape = parameter.tensor.shape();
        let values = std::iter::repeat_n(value, parameter.tensor.numel());
        let tensor = Tensor::from_f64(DType::Float32, &shape, values);
        Ok(Made { tensor, sources: Vec::new(), is_neutral: true })
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
        // A factor for each channel has axes of one element, and a convolution over the whole map is a dense layer.
        let (shape, flattened) = (found.tensor.shape(), self.target.after_flatten.as_deref());
        let covers = shape.split_last().is_some_and(|(_, rows)| {
            let is_pixel = rows.split_last().is_some_and(|(_, window)| window.iter().all(|size| *size == 1));
            flattened == Some(rows) || flattened.is_none() && is_pixel
        });
        let is_other = parameter.role == Role::Alpha
            || parameter.role == Role::Weight && self.target.kind == Kind::Dense && shape.len() > 2 && covers;
        let tensor = match is_other {
            true => reshaped(&found.tensor, &parameter.tensor.shape())?,
            false => found.tensor.clone(),
        };
        Ok(Made::of(found, tensor))
    }

    /// The tensor of a Keras layer.
    fn keras_from(&self, parameter: &Parameter) -> Outcome<Made> {
        let kind = self.kind();
        let one = |found: &Parameter, tensor: Tensor| Ok(Made::of(found, tensor));
        match (&parameter.role, kind) {
            (Role::Bias, Kind::Lstm | Kind::SimpleRnn) => {
                let (input, recurrent) = (self.source(&[Role::Bias])?, self.source(&[Role::RecurrentBias])?);
                let sum = gates::sum(&input.tensor, &recurrent.tensor).map_err(failed)?;
                Ok(both(input, recurrent, sum))
            }
            (Role::Bias, Kind::Gru) => {
                let (input, recurrent) = (self.source(&[Role::Bias])?, self.source(&[Role::RecurrentBias])?);
                let row = |tensor: &Tensor| reshaped(&swapped(tensor)?, &[1, tensor.numel()]);
                let rows = [row(&input.tensor)?, row(&recurrent.tensor)?];
                let tensor = Tensor::joined(&rows, 0).map_err(failed)?;
                Ok(both(input, recurrent, tensor))
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
                if shape.get(..2) != Some(&[inputs * multiplier, 1]) {
                    let expected: Vec<usize> = [inputs * multiplier, 1].iter().chain(spatial).copied().collect();
                    return conflict(format!("is a depthwise kernel of {expected:?}, its match has {shape:?}"), "");
                }
                let split: Vec<usize> = [inputs, multiplier].iter().chain(spatial).copied().collect();
                let tensor = reshaped(tensor, &split)?;
                permuted(&tensor, &(2..rank).chain([0, 1]).collect::<Vec<_>>())
            }
            Kind::Dense => {
                let tensor = match self.flattened_by(self.target)? {
                    Some(shape) => rows(tensor, 1, &shape, true)?,
                    None => tensor.clone(),
                };
                permuted(&tensor, &[1, 0])
            }
            Kind::Embedding => Ok(tensor.clone()),
            Kind::PRelu => reshaped(tensor, &parameter.tensor.shape()),
            Kind::Unknown | Kind::Other => self.how_unknown(),
            _ => Ok(tensor.clone()),
        }
    }

    /// The tensor of a PyTorch layer.
    fn pytorch_from(&self, parameter: &Parameter) -> Outcome<Made> {
        let kind = self.kind();
        let one = |found: &Parameter, tensor: Tensor| Ok(Made::of(found, tensor));
        match (&parameter.role, kind) {
            (Role::Bias | Role::RecurrentBias, Kind::Gru) => {
                let found = self.source(&[Role::Bias])?;
                let [2, units] = found.tensor.shape()[..] else {
                    return conflict(format!("needs two biases, {} is {:?}", found.name, found.tensor.shape()), "");
                };
                let row = usize::from(parameter.role == Role::RecurrentBias);
                let bias = found.tensor.sliced(0, row, row + 1).and_then(|bias| bias.reshaped(&[units]));
                one(found, swapped(&bias.map_err(failed)?)?)
            }
            (Role::RecurrentBias, Kind::Lstm | Kind::SimpleRnn) => {
                // Keras has one bias; its whole is in the other.
                self.source(&[Role::Bias])?;
                let shape = parameter.tensor.shape();
                let tensor = Tensor::from_f64(DType::Float32, &shape, []);
                Ok(Made { tensor, sources: Vec::new(), is_neutral: false })
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
                let expected = parameter.tensor.shape();
                let tensor = match rank {
                    2 => tensor.clone(),
                    _ => reshaped(tensor, &expected.iter().rev().copied().collect::<Vec<_>>())?,
                };
                let tensor = permuted(&tensor, &[1, 0])?;
                match self.flattened_by(self.source)? {
                    Some(shape) => rows(&tensor, 1, &shape, false),
                    None => Ok(tensor),
                }
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
        Ok(Made::of(found, found.tensor.clone()))
    }

    /// The shape of what was flattened before a layer, channels first: as the user says it, or as the Keras file does.
    fn flattened_by(&self, keras: &Layer) -> Outcome<Option<Vec<usize>>> {
        match (self.flattened, keras.after_flatten.as_deref()) {
            (Some(shape), _) => Ok(Some(shape.to_vec())),
            (None, None) => Ok(None),
            (None, Some([spatial @ .., channels])) => {
                Ok(Some(std::iter::once(channels).chain(spatial).copied().collect()))
            }
            (None, Some([])) => self.flatten_unknown(),
        }
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
        Role::Beta | Role::Bias | Role::RecurrentBias => Some(0.0),
        _ => None,
    }
}

/// A tensor that is made of two biases.
fn both(input: &Parameter, recurrent: &Parameter, tensor: Tensor) -> Made {
    Made { tensor, sources: vec![input.name.clone(), recurrent.name.clone()], is_neutral: false }
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
