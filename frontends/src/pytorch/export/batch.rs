//! A batch that a program fixes at the size of its example, and that is free in the graph.

use modelport_ir::Dim;
use serde_json::Value as Json;

use super::super::arg::Arg;
use super::super::program::{self, Node};
use super::{Run, result_name};

/// How the sizes of inputs are taken.
#[derive(Clone, Copy, PartialEq)]
pub enum Batch {
    /// As the program says.
    AsExported,
    /// One axis of all inputs that have one size there is free.
    Free(Freed),
}

/// A batch that the program fixes, and is free here.
#[derive(Clone, Copy, PartialEq)]
pub struct Freed {
    /// Its size in the program.
    pub example: i64,
    /// Its axis in the inputs.
    pub axis: usize,
    /// Whether tensors that are made with this size are made for the batch.
    pub made: bool,
    /// Another size that is put in its place. What then fits only by chance no longer does.
    pub trial: Option<usize>,
}

/// No other size in a network is likely to be this.
pub const TRIAL: usize = 1009;

impl Freed {
    pub fn dim(self) -> Dim {
        self.trial.map_or_else(|| Dim::symbol("N"), Dim::Known)
    }

    /// How many times the batch a dimension is.
    pub fn multiple(self, dim: &Dim) -> Option<i64> {
        let factor = match (dim, self.trial) {
            (Dim::Symbol { factor, name }, None) if &**name == "N" => *factor,
            (Dim::Known(size), Some(trial)) if *size > 0 && size % trial == 0 => size / trial,
            _ => return None,
        };
        i64::try_from(factor).ok()
    }

    /// So many times the batch.
    pub fn times(self, multiple: i64) -> Option<Dim> {
        let factor = usize::try_from(multiple).ok().filter(|factor| *factor > 0)?;
        match self.trial {
            Some(trial) => factor.checked_mul(trial).map(Dim::Known),
            None => Some(Dim::Symbol { factor, name: "N".into() }),
        }
    }
}

impl Run<'_> {
    /// The batch that is freed, if one is.
    pub(super) fn freed(&self) -> Option<Freed> {
        match self.batch {
            Batch::Free(freed) => Some(freed),
            Batch::AsExported => None,
        }
    }

    /// Puts the free batch in the place of numbers that stand for it: first of all in the shapes that tensors of the
    /// batch are brought into.
    pub(super) fn free_batch(&mut self, node: &Node, args: &mut [(&str, Arg)], freed: Freed) {
        let is_example = |arg: &Arg| freed.example > 1 && arg.int() == Some(freed.example);
        let function = function(node);
        if RESHAPES.contains(&function) {
            return self.free_shape(node, args, freed);
        }
        let shape = args.first().and_then(|(_, arg)| self.lower.info(arg)).map(|info| info.1);
        let leads = shape.as_ref().and_then(|shape| shape.first());
        let place = match (function, &*args) {
            ("expand", [_, (_, Arg::List(sizes)), ..]) if sizes.first().is_some_and(is_example) => {
                let same_rank = shape.as_ref().is_some_and(|shape| shape.rank() == sizes.len());
                let is_batch = leads.and_then(|dim| freed.multiple(dim)) == Some(1) || leads == Some(&Dim::Known(1));
                match same_rank && is_batch || freed.made {
                    true => 1,
                    false => return,
                }
            }
            ("full" | "zeros" | "ones" | "empty" | "rand" | "randn", [(_, Arg::List(sizes)), ..])
                if freed.made && sizes.first().is_some_and(is_example) =>
            {
                0
            }
            ("repeat" | "new_zeros" | "new_ones" | "new_full" | "new_empty", [_, (_, Arg::List(sizes)), ..])
                if freed.made && sizes.first().is_some_and(is_example) =>
            {
                1
            }
            ("arange", args) if freed.made => {
                match args.iter().position(|(name, arg)| *name == "end" && is_example(arg)) {
                    Some(place) => place,
                    None => return,
                }
            }
            _ => return,
        };
        let size = Arg::Int(self.lower.expressions.of_dim(&freed.dim(), String::new));
        match args.get_mut(place).map(|(_, arg)| arg) {
            Some(Arg::List(sizes)) => sizes.first_mut().into_iter().for_each(|first| *first = size.clone()),
            Some(arg) => *arg = size,
            None => {}
        }
    }

    /// The same for the sizes of a reshape, of which the batch may be in any.
    fn free_shape(&mut self, node: &Node, args: &mut [(&str, Arg)], freed: Freed) {
        let Some(place) = self.reshaped(node, freed) else { return };
        let Some(dim) = freed.times(place.multiple) else { return };
        let size = Arg::Int(self.lower.expressions.of_dim(&dim, String::new));
        if let Some((_, Arg::List(sizes))) = args.get_mut(1)
            && let Some(old) = sizes.get_mut(place.axis).filter(|old| old.int().is_some_and(|old| old > 0))
        {
            *old = size;
        }
    }

    /// Remembers where the batch is in what a node gives, for reshapes to come.
    pub(super) fn follow_batch(&mut self, node: &Node, freed: Freed) {
        let function = function(node);
        let before: Vec<Place> = tensors(node).filter_map(|name| self.place(name, freed)).collect();
        let names = node.outputs.iter().flat_map(|output| {
            let list = output.get("as_tensors").and_then(Json::as_array).into_iter().flatten();
            list.filter_map(|tensor| tensor.get("name")?.as_str()).chain(result_name(output))
        });
        for name in names {
            let Some((_, multiple)) = self.axis(name, freed).filter(|(_, multiple)| *multiple > 1) else { continue };
            let inner = match function {
                _ if RESHAPES.contains(&function) || FLATTENS.contains(&function) => {
                    self.reshaped(node, freed).map(|place| place.inner)
                }
                // One batch after another.
                "cat" | "concat" | "concatenate" | "repeat" | "tile"
                    if before.iter().all(|place| place.multiple != multiple) =>
                {
                    Some(1)
                }
                _ => before.iter().find(|place| place.multiple == multiple).map(|place| place.inner),
            };
            if let Some(inner) = inner {
                self.inner.insert(name.to_owned(), inner);
            }
        }
    }

    /// The only axis of a value with the batch in it, and how many times.
    fn axis(&self, name: &str, freed: Freed) -> Option<(usize, i64)> {
        let (_, shape) = self.lower.info(self.values.get(name)?)?;
        let mut found = shape.iter().enumerate().filter_map(|(axis, dim)| Some((axis, freed.multiple(dim)?)));
        found.next().filter(|_| found.next().is_none())
    }

    /// Where the batch is in a value, if that is known.
    fn place(&self, name: &str, freed: Freed) -> Option<Place> {
        let (axis, multiple) = self.axis(name, freed)?;
        let inner = if multiple == 1 { 1 } else { *self.inner.get(name)? };
        Some(Place { axis, multiple, inner })
    }

    /// Where the batch is after a reshape.
    fn reshaped(&self, node: &Node, freed: Freed) -> Option<Place> {
        let name = tensors(node).next()?;
        let place = self.place(name, freed)?;
        let (_, shape) = self.lower.info(self.values.get(name)?)?;
        let known = |dim: &Dim| dim.known().and_then(|size| i64::try_from(size).ok());
        let behind: Vec<i64> = shape.iter().skip(place.axis + 1).map(known).collect::<Option<_>>()?;
        // Sizes that are left open are those of the example.
        let meta = self.reader.meta(result_name(node.outputs.first()?)?)?;
        let sizes: Vec<i64> = meta.sizes.iter().map(|size| program::size(size).example()).collect::<Option<_>>()?;
        // A batch of one is everywhere; in front it is the batch.
        let is_first = place.axis == 0 && place.inner == place.multiple;
        (freed.example > 1 || is_first).then(|| landing(product(&behind)?.checked_mul(place.inner)?, &sizes, freed))?
    }
}

/// What has the sizes of its result in its arguments, and what says them by axes.
const RESHAPES: [&str; 3] = ["view", "reshape", "_unsafe_view"];
const FLATTENS: [&str; 2] = ["flatten", "unflatten"];

/// Where in a tensor the batch is: an axis of `multiple` times the batch, of which `inner` are within one sample.
#[derive(Clone, Copy)]
struct Place {
    axis: usize,
    multiple: i64,
    inner: i64,
}

/// The axis into which a batch falls whose samples are `stride` elements apart.
fn landing(stride: i64, sizes: &[i64], freed: Freed) -> Option<Place> {
    let end = stride.checked_mul(freed.example)?;
    (0..sizes.len()).find_map(|axis| {
        let (size, own) = (*sizes.get(axis)?, product(sizes.get(axis + 1..)?)?);
        let fits = own > 0 && stride % own == 0 && own.checked_mul(size)? % end.max(1) == 0 && size >= freed.example;
        fits.then_some(Place { axis, multiple: size / freed.example, inner: stride / own })
    })
}

fn product(sizes: &[i64]) -> Option<i64> {
    sizes.iter().try_fold(1_i64, |all, size| all.checked_mul(*size))
}

/// The operator's name, without its namespace and its variant.
fn function(node: &Node) -> &str {
    let bare = node.target.strip_prefix("torch.ops.aten.").unwrap_or(&node.target);
    bare.split_once('.').map_or(bare, |(name, _)| name)
}

/// The names of the tensors that a node reads.
fn tensors(node: &Node) -> impl Iterator<Item = &str> {
    node.inputs.iter().flat_map(|input| {
        let one = input.arg.get("as_tensor").into_iter();
        let many = input.arg.get("as_tensors").and_then(Json::as_array).into_iter().flatten();
        one.chain(many).filter_map(|tensor| tensor.get("name")?.as_str())
    })
}
