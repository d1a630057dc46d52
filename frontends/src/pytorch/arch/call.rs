//! What the `forward` of a class is written in: its own attributes and children, and ATen's operators.

use modelport_ir::{Problem, Result};

use super::super::arg::Arg;
use super::super::lower::Lower;
use super::super::module::{ModuleTree, Plain};

/// What a module of a class computes.
pub type Forward = fn(&This, &mut Lower, &[Arg]) -> Result<Arg>;

/// A module that is being run: `self` of Python.
pub struct This<'a> {
    /// The module as data.
    pub tree: &'a ModuleTree,
}

impl<'a> This<'a> {
    /// The network itself.
    pub fn root(tree: &'a ModuleTree) -> Self {
        This { tree }
    }

    /// Runs the module, in the scope that the caller has entered.
    pub fn run(&self, net: &mut Lower, args: &[Arg]) -> Result<Arg> {
        match super::forward(&self.tree.class) {
            Some(forward) => forward(self, net, args),
            None => Err(self.fail(net, format!("the forward() of {} is not known", self.tree.class))),
        }
    }

    /// `self.child(x)`
    pub fn call(&self, net: &mut Lower, child: &str, x: &Arg) -> Result<Arg> {
        self.call_all(net, child, std::slice::from_ref(x))
    }

    /// `self.child(*args)`
    pub fn call_all(&self, net: &mut Lower, child: &str, args: &[Arg]) -> Result<Arg> {
        let Some(Some(tree)) = self.tree.children.get(child) else {
            return Err(self.fail(net, format!("has no module '{child}'")));
        };
        net.enter(child, tree.class_name());
        let result = This { tree }.run(net, args);
        net.exit();
        result
    }

    /// Runs children one after the other.
    pub fn chain(&self, net: &mut Lower, children: &[&str], x: &Arg) -> Result<Arg> {
        children.iter().try_fold(x.clone(), |x, child| self.call(net, child, &x))
    }

    /// Runs all children one after the other, as `nn.Sequential` does.
    pub fn sequence(&self, net: &mut Lower, x: &Arg) -> Result<Arg> {
        let children: Vec<&str> = self.children().collect();
        self.chain(net, &children, x)
    }

    /// Runs the modules of a list one after the other.
    pub fn each(&self, net: &mut Lower, list: &str, x: &Arg) -> Result<Arg> {
        let Some(modules) = self.child(list) else { return Err(self.fail(net, format!("has no module '{list}'"))) };
        net.enter(list, modules.tree.class_name());
        let result = modules.sequence(net, x);
        net.exit();
        result
    }

    /// The names of the children that are there.
    pub fn children(&self) -> impl Iterator<Item = &'a str> {
        self.tree.children.iter().filter(|(_, child)| child.is_some()).map(|(name, _)| name.as_str())
    }

    /// Whether `self.child` is a module.
    pub fn has(&self, child: &str) -> bool {
        matches!(self.tree.children.get(child), Some(Some(_)))
    }

    /// A child that is there.
    pub fn child(&self, name: &str) -> Option<This<'a>> {
        self.tree.children.get(name)?.as_deref().map(|tree| This { tree })
    }

    /// A parameter or buffer; `None` where there is none.
    pub fn weight(&self, net: &Lower, name: &str) -> Arg {
        let key = if net.path().is_empty() { name.to_owned() } else { format!("{}.{name}", net.path()) };
        match (self.tree.parameters.get(name), self.tree.buffers.get(name)) {
            (Some(Some(tensor)), _) => net.parameter(&key, tensor.clone()),
            (_, Some(Some(tensor))) => net.buffer(&key, tensor.clone()),
            _ => Arg::None,
        }
    }

    /// The shape of a parameter; empty where there is none.
    pub fn shape(&self, name: &str) -> Vec<usize> {
        self.tree.parameters.get(name).and_then(|tensor| Some(tensor.as_ref()?.shape())).unwrap_or_default()
    }

    /// An attribute; `default` where there is none.
    pub fn attr(&self, name: &str, default: impl Into<Arg>) -> Arg {
        self.tree.attributes.get(name).map_or_else(|| default.into(), value)
    }

    /// An attribute that is a truth value.
    pub fn flag(&self, name: &str, default: bool) -> bool {
        self.attr(name, default).bool().unwrap_or(default)
    }

    /// An attribute that is a whole number.
    pub fn int(&self, name: &str, default: usize) -> usize {
        self.attr(name, default).int().and_then(|int| usize::try_from(int).ok()).unwrap_or(default)
    }

    /// An attribute that is a text.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        match self.tree.attributes.get(name) {
            Some(Plain::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A problem of this module.
    pub fn fail(&self, net: &Lower, message: impl Into<String>) -> modelport_ir::Error {
        Problem::new(message.into()).node(net.path()).op(self.tree.class_name()).into()
    }
}

fn value(plain: &Plain) -> Arg {
    match plain {
        Plain::Bool(value) => (*value).into(),
        Plain::Int(value) => (*value).into(),
        Plain::Float(value) => (*value).into(),
        Plain::Text(text) => text.as_str().into(),
        Plain::Tuple(items) | Plain::List(items) => Arg::List(items.iter().map(value).collect()),
        _ => Arg::None,
    }
}

/// Functions, as `torch.nn.functional` has them.
pub mod functional {
    use super::{Arg, Lower, Result};

    pub fn relu(net: &mut Lower, x: &Arg) -> Result<Arg> {
        net.call("aten.relu", std::slice::from_ref(x), &[])
    }

    pub fn add(net: &mut Lower, a: &Arg, b: &Arg) -> Result<Arg> {
        net.call("aten.add", &[a.clone(), b.clone()], &[])
    }

    pub fn mul(net: &mut Lower, a: &Arg, b: &Arg) -> Result<Arg> {
        net.call("aten.mul", &[a.clone(), b.clone()], &[])
    }

    pub fn cat(net: &mut Lower, parts: Vec<Arg>, axis: i64) -> Result<Arg> {
        net.call("aten.cat", &[parts.into(), axis.into()], &[])
    }

    pub fn flatten(net: &mut Lower, x: &Arg) -> Result<Arg> {
        net.call("aten.flatten", &[x.clone(), 1i64.into()], &[])
    }

    pub fn max_pool2d(net: &mut Lower, x: &Arg, kernel: usize, stride: usize) -> Result<Arg> {
        net.call("aten.max_pool2d", &[x.clone(), kernel.into(), stride.into()], &[])
    }

    pub fn avg_pool2d(net: &mut Lower, x: &Arg, kernel: usize, stride: usize, padding: usize) -> Result<Arg> {
        net.call("aten.avg_pool2d", &[x.clone(), kernel.into(), stride.into(), padding.into()], &[])
    }

    pub fn adaptive_avg_pool2d(net: &mut Lower, x: &Arg, size: usize) -> Result<Arg> {
        net.call("aten.adaptive_avg_pool2d", &[x.clone(), [size, size].into()], &[])
    }

    pub fn mean(net: &mut Lower, x: &Arg, axes: [i64; 2]) -> Result<Arg> {
        net.call("aten.mean", &[x.clone(), axes.into()], &[])
    }

    pub fn permute<const N: usize>(net: &mut Lower, x: &Arg, axes: [i64; N]) -> Result<Arg> {
        net.call("aten.permute", &[x.clone(), axes.into()], &[])
    }

    pub fn reshape(net: &mut Lower, x: &Arg, shape: &[i64]) -> Result<Arg> {
        net.call("aten.reshape", &[x.clone(), shape.into()], &[])
    }
}
