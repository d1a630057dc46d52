//! Layers as frameworks keep them, in common terms.

use std::collections::HashMap;

use indexmap::IndexMap;
use modelport_ir::Tensor;

/// Where tensors are from: what their axes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Kernels `[out, in, …]`.
    PyTorch,
    /// Kernels `[…, in, out]`.
    Keras,
    /// As Keras, but for the names.
    TensorFlow,
}

/// What a layer computes, as far as its tensors depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Also grouped.
    Conv,
    ConvTranspose,
    Depthwise,
    Dense,
    /// Batch, layer, group and instance normalisation.
    Norm,
    Embedding,
    PRelu,
    Lstm,
    Gru,
    SimpleRnn,
    /// Known, and none of these.
    Other,
    Unknown,
}

/// What a tensor is to its layer, in Keras' words.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The kernel, or a norm's factor, or a table: PyTorch calls them all `weight`.
    Weight,
    Bias,
    Gamma,
    Beta,
    Mean,
    Variance,
    Embeddings,
    Alpha,
    DepthwiseKernel,
    PointwiseKernel,
    RecurrentKernel,
    /// PyTorch has two biases in recurrent layers.
    RecurrentBias,
    /// Anything else, by its name.
    Named(String),
}

/// A tensor of a layer.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// The whole name.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Its elements.
    pub tensor: Tensor,
}

/// Tensors that belong together.
#[derive(Clone, Debug)]
pub struct Layer {
    /// What their names begin with.
    pub(super) name: String,
    /// What it computes.
    pub(super) kind: Kind,
    /// Its tensors.
    pub(super) parameters: Vec<Parameter>,
    /// Where it reads what was flattened: the shape of that, channels last, or nothing where it is not known. Rows of a
    /// dense kernel are then in the framework's order.
    pub(super) after_flatten: Option<Vec<usize>>,
    /// For a GRU, whether it resets after the product, as all of PyTorch's do.
    pub(super) reset_after: bool,
}

impl Layer {
    fn new(name: &str, parameters: Vec<Parameter>) -> Layer {
        Layer { name: name.to_owned(), kind: Kind::Unknown, parameters, after_flatten: None, reset_after: true }
    }

    /// The tensor with a role.
    pub(super) fn get(&self, role: &Role) -> Option<&Parameter> {
        self.parameters.iter().find(|parameter| parameter.role == *role)
    }
}

/// What a Keras file says of a layer.
#[derive(Clone, Copy, Debug, Default)]
pub struct KerasLayer<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its class in snake case, if that is known.
    pub class: Option<&'a str>,
    /// Where it reads what was flattened: the shape of that, channels last, or nothing where it is not known.
    pub after_flatten: Option<&'a [usize]>,
    /// Whether a GRU resets after the product, if that is known.
    pub reset_after: Option<bool>,
}

/// All layers of a file.
#[derive(Clone, Debug)]
pub struct Side {
    /// Where they are from.
    pub family: Family,
    /// In order.
    pub layers: Vec<Layer>,
}

impl Side {
    /// A state dict.
    pub fn pytorch<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> Side {
        let split = |key: &str| {
            let (layer, leaf) = key.rsplit_once('.').unwrap_or(("", key));
            let below = |part: &str| if layer.is_empty() { part.to_owned() } else { format!("{layer}.{part}") };
            let attention = leaf.strip_suffix("_proj_weight").and_then(|part| {
                let names = [("q", "query"), ("k", "key"), ("v", "value")];
                names.iter().find(|(short, _)| *short == part).map(|(_, name)| below(name))
            });
            match (recurrent(leaf), attention) {
                (Some((role, suffix)), _) => (format!("{layer}{suffix}"), role),
                (_, Some(part)) => (part, Role::Weight),
                _ => (layer.to_owned(), torch_role(leaf)),
            }
        };
        let tensors = tensors.into_iter().flat_map(|(key, tensor)| match projections(key, tensor) {
            Some(parts) => {
                let role = if key.ends_with("weight") { Role::Weight } else { Role::Bias };
                parts.map(|(name, layer, part)| (name, (layer, role.clone()), part)).to_vec()
            }
            None => vec![(key.to_owned(), split(key), tensor.clone())],
        });
        let mut side = Side::grouped(Family::PyTorch, tensors);
        for layer in &mut side.layers {
            layer.kind = torch_kind(layer);
        }
        side.merge_layers_of_one()
    }

    /// The variables of a checkpoint, without what only training needs.
    pub fn tensorflow<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> Side {
        let split = |name: &str| {
            let (layer, leaf) = name.rsplit_once('/').unwrap_or(("", name));
            (layer.to_owned(), keras_role(leaf))
        };
        let tensors = tensors.into_iter().filter(|(name, _)| !is_of_training(name));
        let tensors = tensors.map(|(name, tensor)| (name.to_owned(), split(name), tensor.clone()));
        let mut side = Side::grouped(Family::TensorFlow, tensors);
        for layer in &mut side.layers {
            layer.kind = kind_by_names(layer);
        }
        side.layers = side.layers.into_iter().flat_map(separated).collect();
        side
    }

    /// A layer of a Keras file, with its variables by name.
    pub fn keras_layers<'a>(
        facts: &KerasLayer<'_>,
        variables: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    ) -> Vec<Layer> {
        let KerasLayer { name, class, after_flatten, reset_after } = *facts;
        let variables = variables.into_iter().map(|(variable, tensor)| Parameter {
            name: format!("{name}/{variable}"),
            role: keras_role(variable),
            tensor: tensor.clone(),
        });
        let mut layer = Layer::new(name, variables.collect());
        layer.after_flatten = after_flatten.map(<[usize]>::to_vec);
        layer.kind = match class {
            Some(class) => keras_kind(class),
            None => kind_by_names(&layer),
        };
        // Only then it has two biases.
        let has_one_bias = layer.get(&Role::Bias).is_some_and(|bias| bias.tensor.rank() == 1);
        layer.reset_after = reset_after.unwrap_or(!has_one_bias);
        separated(layer)
    }

    fn grouped(family: Family, named: impl Iterator<Item = (String, (String, Role), Tensor)>) -> Side {
        let mut layers: IndexMap<String, Layer> = IndexMap::new();
        for (name, (layer, role), tensor) in named {
            let entry = layers.entry(layer.clone()).or_insert_with(|| Layer::new(&layer, Vec::new()));
            entry.parameters.push(Parameter { name, role, tensor });
        }
        Side { family, layers: layers.into_values().collect() }
    }

    /// A recurrent module of one layer has the module's name: `rnn` and `rnn.reverse` instead of `rnn.l0` and
    /// `rnn.l0.reverse`.
    fn merge_layers_of_one(mut self) -> Side {
        let has = |side: &Side, name: &str| side.layers.iter().any(|layer| layer.name == name);
        for index in 0..self.layers.len() {
            let Some(name) = self.layers.get(index).map(|layer| layer.name.clone()) else { break };
            let (base, reverse) = match name.strip_suffix(".reverse") {
                Some(base) => (base, ".reverse"),
                None => (name.as_str(), ""),
            };
            if let Some(module) = base.strip_suffix(".l0")
                && !has(&self, &format!("{module}.l1"))
                && let Some(layer) = self.layers.get_mut(index)
            {
                layer.name = format!("{module}{reverse}");
            }
        }
        self
    }
}

/// The projections that `nn.MultiheadAttention` has in one tensor: as layers of their own, with names for the parts.
fn projections(key: &str, tensor: &Tensor) -> Option<[(String, String, Tensor); 3]> {
    let module = key.strip_suffix("in_proj_weight").or(key.strip_suffix("in_proj_bias"))?;
    let rows = tensor.shape().first().filter(|rows| *rows % 3 == 0)? / 3;
    let part = |index: usize, name: &str| {
        let (start, end) = (index * rows, (index + 1) * rows);
        Some((format!("{key}[{start}:{end}]"), format!("{module}{name}"), tensor.sliced(0, start, end).ok()?))
    };
    Some([part(0, "query")?, part(1, "key")?, part(2, "value")?])
}

/// A tensor of a state dict, with what was found for it or for its parts.
///
/// # Errors
/// When parts do not fit together.
pub fn replaced(key: &str, tensor: &Tensor, found: &HashMap<&str, &Tensor>) -> Result<Tensor, String> {
    let of = |name: &str, tensor: &Tensor| found.get(name).map_or(tensor, |found| *found).clone();
    match projections(key, tensor) {
        Some(parts) if parts.iter().any(|(name, ..)| found.contains_key(name.as_str())) => {
            Tensor::joined(&parts.map(|(name, _, part)| of(&name, &part)), 0)
        }
        _ => Ok(of(key, tensor)),
    }
}

/// A separable convolution as the two convolutions that it is.
fn separated(layer: Layer) -> Vec<Layer> {
    if layer.get(&Role::PointwiseKernel).is_none() {
        return vec![layer];
    }
    let (depthwise, pointwise) = layer.parameters.into_iter().partition(|p| p.role == Role::DepthwiseKernel);
    let mut depthwise = Layer::new(&format!("{}/depthwise", layer.name), depthwise);
    let mut pointwise: Layer = Layer::new(&format!("{}/pointwise", layer.name), pointwise);
    (depthwise.kind, pointwise.kind) = (Kind::Depthwise, Kind::Conv);
    for parameter in pointwise.parameters.iter_mut().filter(|p| p.role == Role::PointwiseKernel) {
        parameter.role = Role::Weight;
    }
    vec![depthwise, pointwise]
}

fn torch_role(leaf: &str) -> Role {
    match leaf {
        "weight" => Role::Weight,
        "bias" => Role::Bias,
        "running_mean" => Role::Mean,
        "running_var" => Role::Variance,
        other => Role::Named(other.to_owned()),
    }
}

/// `weight_ih_l0_reverse` is the kernel of the layer `.l0.reverse`.
fn recurrent(leaf: &str) -> Option<(Role, String)> {
    let (name, direction) = match leaf.strip_suffix("_reverse") {
        Some(name) => (name, ".reverse"),
        None => (leaf, ""),
    };
    let (name, layer) = match name.rsplit_once("_l") {
        Some((name, number)) if number.parse::<u16>().is_ok() => (name, format!(".l{number}")),
        _ if direction.is_empty() => (name, String::new()),
        _ => return None,
    };
    let role = match name {
        "weight_ih" => Role::Weight,
        "weight_hh" => Role::RecurrentKernel,
        "bias_ih" => Role::Bias,
        "bias_hh" => Role::RecurrentBias,
        _ => return None,
    };
    Some((role, format!("{layer}{direction}")))
}

fn torch_kind(layer: &Layer) -> Kind {
    if layer.get(&Role::Mean).is_some() {
        return Kind::Norm;
    }
    // Kernel and state say how many gates there are.
    match layer.get(&Role::RecurrentKernel).map(|kernel| kernel.tensor.shape()).as_deref() {
        Some([gates, units]) => by_gates(*gates, *units),
        _ => Kind::Unknown,
    }
}

fn by_gates(gates: usize, units: usize) -> Kind {
    match gates.checked_div(units) {
        Some(4) => Kind::Lstm,
        Some(3) => Kind::Gru,
        Some(1) => Kind::SimpleRnn,
        _ => Kind::Unknown,
    }
}

fn keras_role(leaf: &str) -> Role {
    match leaf {
        "kernel" | "weights" | "weight" | "w" | "W" => Role::Weight,
        "bias" | "biases" | "b" => Role::Bias,
        "gamma" => Role::Gamma,
        "beta" => Role::Beta,
        "moving_mean" => Role::Mean,
        "moving_variance" => Role::Variance,
        "embeddings" => Role::Embeddings,
        "alpha" | "alphas" => Role::Alpha,
        "depthwise_kernel" | "depthwise_weights" => Role::DepthwiseKernel,
        "pointwise_kernel" | "pointwise_weights" => Role::PointwiseKernel,
        "recurrent_kernel" => Role::RecurrentKernel,
        other => Role::Named(other.to_owned()),
    }
}

fn keras_kind(class: &str) -> Kind {
    match class {
        "lstm" => Kind::Lstm,
        "gru" => Kind::Gru,
        "simple_rnn" => Kind::SimpleRnn,
        "dense" | "attention_dense" => Kind::Dense,
        "embedding" => Kind::Embedding,
        "p_re_lu" => Kind::PRelu,
        class if class.ends_with("normalization") => Kind::Norm,
        class if class.starts_with("depthwise_conv") => Kind::Depthwise,
        class if class.starts_with("conv") && class.ends_with("transpose") => Kind::ConvTranspose,
        "conv1d" | "conv2d" | "conv3d" => Kind::Conv,
        "" => Kind::Unknown,
        _ => Kind::Other,
    }
}

/// What the names say, where there is no class; a rank only counts where it can mean one thing.
fn kind_by_names(layer: &Layer) -> Kind {
    let has = |role: Role| layer.get(&role);
    if has(Role::DepthwiseKernel).is_some() {
        return Kind::Depthwise;
    }
    if let Some(kernel) = has(Role::RecurrentKernel) {
        return match kernel.tensor.shape().as_slice() {
            [units, gates] => by_gates(*gates, *units),
            _ => Kind::Unknown,
        };
    }
    if has(Role::Embeddings).is_some() {
        return Kind::Embedding;
    }
    if [Role::Gamma, Role::Beta, Role::Mean].into_iter().any(|role| has(role).is_some()) {
        return Kind::Norm;
    }
    let name = layer.name.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| name.contains(word));
    match has(Role::Weight).map(|kernel| kernel.tensor.rank()) {
        Some(2) if !says(&["lstm", "gru", "rnn", "cell", "embed"]) => Kind::Dense,
        Some(3..=5) if says(&["transpose", "deconv", "upconv"]) => Kind::ConvTranspose,
        Some(3..=5) if says(&["depthwise", "separable"]) => Kind::Depthwise,
        Some(3..=5) if says(&["conv"]) => Kind::Conv,
        _ => Kind::Unknown,
    }
}

/// Variables that no network computes with.
fn is_of_training(name: &str) -> bool {
    let leaf = name.rsplit('/').next().unwrap_or(name);
    let slots = ["Momentum", "RMSProp", "Adam", "Adagrad", "Ftrl", "ExponentialMovingAverage"];
    matches!(leaf, "global_step" | "beta1_power" | "beta2_power" | "local_step" | "biased")
        || slots.iter().any(|slot| leaf == *slot || leaf.strip_prefix(slot).is_some_and(|rest| rest.starts_with('_')))
}
