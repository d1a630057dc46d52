//! Trees of modules from state dicts: constructors that take the widths, kernels and groups from the weights' shapes.
//!
//! A family writes down its children as its `__init__` does. Whatever is asked for and is not there is *missing*,
//! whatever nobody asks for is *surplus*; a state dict is of the family when there is neither. That widths go together
//! is for lowering to check: every operator does.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use indexmap::IndexMap;
use modelport_ir::Tensor;

use super::super::module::{ModuleTree, Plain};

/// The weights of one attempt.
pub struct Attempt<'a> {
    /// All tensors, by key.
    pub tensors: &'a IndexMap<String, Tensor>,
    /// What `--arch-arg` says.
    pub args: &'a BTreeMap<String, String>,
    /// Keys that the family knows.
    pub taken: RefCell<BTreeSet<String>>,
    /// Keys that the family needs and are not there, or have another shape.
    pub missing: RefCell<BTreeSet<String>>,
    /// Arguments that the family has asked for.
    pub asked: RefCell<BTreeSet<String>>,
    /// Why it may be another network with the same keys, and what says which.
    pub doubts: RefCell<Vec<String>>,
}

/// A place in the state dict.
#[derive(Clone)]
pub struct At<'a> {
    attempt: &'a Attempt<'a>,
    path: String,
}

impl<'a> At<'a> {
    /// The root.
    pub fn root(attempt: &'a Attempt<'a>) -> Self {
        At { attempt, path: String::new() }
    }

    /// The place of a child.
    pub fn at(&self, name: &str) -> At<'a> {
        At { attempt: self.attempt, path: self.key(name) }
    }

    fn key(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The shape of a tensor here, if it is there.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.attempt.tensors.get(&self.key(name)).map(Tensor::shape)
    }

    /// An axis of a tensor here, 0 if there is none.
    pub fn size(&self, name: &str, axis: usize) -> usize {
        self.shape(name).and_then(|shape| shape.get(axis).copied()).unwrap_or(0)
    }

    /// Whether the tensor is there, or something is in the module of this name.
    pub fn has(&self, name: &str) -> bool {
        let key = self.key(name);
        self.attempt.tensors.contains_key(&key) || {
            let inside = format!("{key}.");
            self.attempt.tensors.keys().any(|key| key.starts_with(&inside))
        }
    }

    /// The names of what is here, in the file's order.
    pub fn names(&self) -> Vec<String> {
        let inside = if self.path.is_empty() { String::new() } else { format!("{}.", self.path) };
        let mut names: Vec<String> = Vec::new();
        for key in self.attempt.tensors.keys() {
            if let Some(name) = key.strip_prefix(&inside).and_then(|rest| rest.split('.').next())
                && !names.iter().any(|known| known == name)
            {
                names.push(name.to_owned());
            }
        }
        names
    }

    /// The numbers of the children that have weights, sorted.
    pub fn indices(&self) -> Vec<usize> {
        let mut indices: Vec<usize> = self.names().iter().filter_map(|name| name.parse().ok()).collect();
        indices.sort_unstable();
        indices
    }

    /// How many numbered children there are, up to the last that has weights.
    pub fn count(&self) -> usize {
        self.indices().last().map_or(0, |last| last.saturating_add(1)).min(4096)
    }

    /// What `--arch-arg` says of a name.
    pub fn arg(&self, name: &str) -> Option<&'a str> {
        self.attempt.asked.borrow_mut().insert(name.to_owned());
        self.attempt.args.get(name).map(String::as_str)
    }

    /// A number that `--arch-arg` says.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.arg(name)?.parse().ok()
    }

    /// The stride of the first convolution, and whether a pool follows. With another kernel than torchvision's it may be
    /// the same network for small images, whose keys are the same.
    pub fn stem(&self, name: &str) -> (usize, bool) {
        let (stride, pool) = (self.number("stem_stride"), self.arg("stem_pool").map(|said| said != "false"));
        if let (Some(&[_, _, height, width]), None, None) =
            (self.shape(&format!("{name}.weight")).as_deref(), stride, pool)
            && [height, width] != [7, 7]
        {
            self.attempt.doubts.borrow_mut().push(format!(
                "{} has a kernel of {height}x{width} and torchvision's 7x7: made for small images, it may have a stride \
                 of 1 and no pool, which no shape tells. --arch-arg stem_stride=1 --arch-arg stem_pool=false says so, \
                 stem_stride=2 that it is as torchvision's otherwise",
                self.key(name)
            ));
        }
        (stride.unwrap_or(2), pool.unwrap_or(true))
    }

    fn take(&self, name: &str, rank: usize) -> Option<Tensor> {
        let key = self.key(name);
        let tensor = self.attempt.tensors.get(&key).filter(|tensor| rank == 0 || tensor.rank() == rank);
        let set = if tensor.is_some() { &self.attempt.taken } else { &self.attempt.missing };
        set.borrow_mut().insert(key);
        tensor.cloned()
    }

    /// Notes everything in a child as known and not needed: what only training computes.
    pub fn ignore(&self, name: &str) {
        let inside = format!("{}.", self.key(name));
        let keys = self.attempt.tensors.keys().filter(|key| key.starts_with(&inside));
        self.attempt.taken.borrow_mut().extend(keys.cloned());
    }

    /// Notes that this family needs a key that is not there.
    pub fn lacks(&self, name: &str) {
        self.attempt.missing.borrow_mut().insert(self.key(name));
    }
}

/// A module that is being made.
pub struct New<'a> {
    at: At<'a>,
    tree: ModuleTree,
}

impl<'a> New<'a> {
    /// A module of a class, by its full name; `~` stands for `torchvision.models`.
    pub fn of(class: &str, at: &At<'a>) -> Self {
        New { at: at.clone(), tree: module(class) }
    }

    /// `self.name = child`
    #[must_use]
    pub fn add(mut self, name: &str, child: impl FnOnce(&At<'a>) -> ModuleTree) -> Self {
        let child = child(&self.at.at(name));
        self.tree.children.insert(name.to_owned(), Some(Arc::new(child)));
        self
    }

    /// A child that is only there under a condition.
    #[must_use]
    pub fn add_if(self, condition: bool, name: &str, child: impl FnOnce(&At<'a>) -> ModuleTree) -> Self {
        if condition { self.add(name, child) } else { self }
    }

    /// The next numbered child, as in `nn.Sequential`.
    #[must_use]
    pub fn push(self, child: impl FnOnce(&At<'a>) -> ModuleTree) -> Self {
        let name = self.tree.children.len().to_string();
        self.add(&name, child)
    }

    /// Numbered children.
    #[must_use]
    pub fn push_each<T>(self, items: impl IntoIterator<Item = T>, child: impl Fn(&At<'a>, T) -> ModuleTree) -> Self {
        items.into_iter().fold(self, |new, item| new.push(|at| child(at, item)))
    }

    /// An attribute.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl Into<Plain>) -> Self {
        self.tree.attributes.insert(name.to_owned(), value.into());
        self
    }

    /// A parameter of this rank; of any when it is 0.
    #[must_use]
    pub fn parameter(mut self, name: &str, rank: usize) -> Self {
        let tensor = self.at.take(name, rank);
        self.tree.parameters.insert(name.to_owned(), tensor);
        self
    }

    /// A parameter that may be absent.
    #[must_use]
    pub fn optional(self, name: &str, rank: usize) -> Self {
        if self.at.has(name) { self.parameter(name, rank) } else { self }
    }

    /// A buffer.
    #[must_use]
    pub fn buffer(mut self, name: &str, rank: usize) -> Self {
        let tensor = self.at.take(name, rank);
        self.tree.buffers.insert(name.to_owned(), tensor);
        self
    }

    /// The finished module.
    pub fn done(self) -> ModuleTree {
        self.tree
    }
}

macro_rules! from {
    ($($type:ty: $value:ident => $plain:expr;)*) => {
        $(impl From<$type> for Plain {
            fn from($value: $type) -> Plain {
                $plain
            }
        })*
    };
}

from! {
    usize: value => Plain::Int(i64::try_from(value).unwrap_or(i64::MAX));
    bool: value => Plain::Bool(value);
    f64: value => Plain::Float(value);
    &str: value => Plain::Text(value.to_owned());
    (usize, usize): pair => Plain::Tuple(vec![pair.0.into(), pair.1.into()]);
}

fn module(class: &str) -> ModuleTree {
    let class = match class.strip_prefix('~') {
        Some(name) => format!("torchvision.models{name}"),
        None => class.to_owned(),
    };
    ModuleTree { class, ..ModuleTree::default() }
}

/// A layer without weights.
pub fn layer(class: &'static str) -> impl Fn(&At) -> ModuleTree {
    move |_| module(&format!("torch.nn.{class}"))
}

/// How a convolution moves; `padding` is what keeps the size when it is not said.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    pub stride: usize,
    pub padding: Option<usize>,
    pub dilation: usize,
}

/// A window of this stride that keeps the size otherwise.
pub fn stride(stride: usize) -> Window {
    Window { stride, padding: None, dilation: 1 }
}

impl Window {
    /// Padded by this.
    pub fn padding(self, padding: usize) -> Window {
        Window { padding: Some(padding), ..self }
    }

    /// Dilated by this.
    pub fn dilation(self, dilation: usize) -> Window {
        Window { dilation, ..self }
    }
}

/// `nn.Conv2d`, with a bias if it has one. Its groups follow from its weight and what comes in.
pub fn conv(window: Window) -> impl Fn(&At) -> ModuleTree {
    move |at| {
        let same = |axis: usize| at.size("weight", axis).saturating_sub(1) / 2 * window.dilation;
        let padding = window.padding.map_or_else(|| (same(2), same(3)), |padding| (padding, padding));
        New::of("torch.nn.Conv2d", at)
            .set("stride", (window.stride, window.stride))
            .set("padding", padding)
            .set("dilation", (window.dilation, window.dilation))
            .parameter("weight", 4)
            .optional("bias", 1)
            .done()
    }
}

/// `nn.BatchNorm2d`
pub fn batch_norm(eps: f64) -> impl Fn(&At) -> ModuleTree {
    move |at| {
        New::of("torch.nn.BatchNorm2d", at)
            .set("eps", eps)
            .parameter("weight", 1)
            .parameter("bias", 1)
            .buffer("running_mean", 1)
            .buffer("running_var", 1)
            .done()
    }
}

/// `nn.LayerNorm`
pub fn layer_norm(eps: f64) -> impl Fn(&At) -> ModuleTree {
    move |at| New::of("torch.nn.LayerNorm", at).set("eps", eps).parameter("weight", 1).parameter("bias", 1).done()
}

/// `nn.Linear`
pub fn linear(at: &At) -> ModuleTree {
    New::of("torch.nn.Linear", at).parameter("weight", 2).optional("bias", 1).done()
}

/// `nn.Dropout`
pub fn dropout(rate: f64) -> impl Fn(&At) -> ModuleTree {
    move |at| New::of("torch.nn.Dropout", at).set("p", at.number("dropout").unwrap_or(rate)).done()
}

/// `nn.MaxPool2d`
pub fn max_pool(kernel: usize, stride: usize, padding: usize, ceil_mode: bool) -> impl Fn(&At) -> ModuleTree {
    move |at| {
        let new = New::of("torch.nn.MaxPool2d", at).set("kernel_size", kernel).set("stride", stride);
        new.set("padding", padding).set("ceil_mode", ceil_mode).done()
    }
}

/// `nn.AdaptiveAvgPool2d`
pub fn adaptive_avg_pool(size: usize) -> impl Fn(&At) -> ModuleTree {
    move |at| New::of("torch.nn.AdaptiveAvgPool2d", at).set("output_size", (size, size)).done()
}

/// `nn.Sequential` of what the function pushes.
pub fn sequential<'a>(fill: impl FnOnce(New<'a>) -> New<'a>) -> impl FnOnce(&At<'a>) -> ModuleTree {
    move |at| fill(New::of("torch.nn.Sequential", at)).done()
}

/// torchvision's `Conv2dNormActivation`: convolution, batch norm, and an activation if there is one.
pub fn conv_norm(window: Window, eps: f64, activation: Option<&'static str>) -> impl Fn(&At) -> ModuleTree {
    move |at| {
        let new = New::of("torchvision.ops.misc.Conv2dNormActivation", at).push(conv(window)).push(batch_norm(eps));
        match activation {
            Some(activation) => new.push(layer(activation)).done(),
            None => new.done(),
        }
    }
}

/// torchvision's `SqueezeExcitation`.
pub fn squeeze_excitation(activation: &'static str, scale: &'static str) -> impl Fn(&At) -> ModuleTree {
    move |at| {
        New::of("torchvision.ops.misc.SqueezeExcitation", at)
            .add("avgpool", adaptive_avg_pool(1))
            .add("fc1", conv(stride(1)))
            .add("fc2", conv(stride(1)))
            .add("activation", layer(activation))
            .add("scale_activation", layer(scale))
            .done()
    }
}

/// torchvision's `StochasticDepth`.
pub fn stochastic_depth(at: &At) -> ModuleTree {
    New::of("torchvision.ops.stochastic_depth.StochasticDepth", at).done()
}
