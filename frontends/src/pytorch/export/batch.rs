//! A batch that a program fixes at the size of its example, and that is free in the graph.

use modelport_ir::{Dim, Shape};

use super::super::arg::Arg;
use super::super::program::{self, Node};
use super::{Run, result_name};

/// How the sizes of inputs are taken.
#[derive(Clone, Copy, PartialEq)]
pub enum Batch {
    /// As the program says.
    AsExported,
    /// The first axis of all inputs that have one size is free.
    Free(Freed),
}

/// A batch that the program fixes, and is free here.
#[derive(Clone, Copy, PartialEq)]
pub struct Freed {
    /// Its size in the program.
    pub example: i64,
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
        let bare = node.target.strip_prefix("torch.ops.aten.").unwrap_or(&node.target);
        let function = bare.split_once('.').map_or(bare, |(name, _)| name);
        let is_example = |arg: &Arg| freed.example > 1 && arg.int() == Some(freed.example);
        let shape = args.first().and_then(|(_, arg)| self.lower.info(arg)).map(|info| info.1);
        let leads = shape.as_ref().and_then(|shape| shape.first());
        let multiple = leads.and_then(|dim| freed.multiple(dim));
        let mut place_in_list = 0;
        let (place, multiple) = match (function, &*args) {
            ("view" | "reshape" | "_unsafe_view", [_, (_, Arg::List(sizes)), ..]) => {
                let Some(shape) = &shape else { return };
                // Sizes that are left open are those of the example.
                let result = node.outputs.first().and_then(result_name).and_then(|name| self.reader.meta(name));
                let result = result.map(|meta| meta.sizes.iter().map(|size| program::size(size).example()));
                let result: Vec<Option<i64>> = result.into_iter().flatten().collect();
                let whole = shape.iter().find_map(|dim| freed.multiple(dim));
                let inner = whole.map_or(Some(1), |whole| self.joined.get(&whole).copied().unwrap_or(Some(1)));
                let (Some(whole), Some(inner)) = (whole, inner) else { return };
                let Some((axis, at, joined)) = same_place(shape, &result, inner, freed) else { return };
                let Some(size) = sizes.get(at).and_then(Arg::int).filter(|size| *size > 0) else { return };
                let Some(multiple) = (whole / inner).checked_mul(joined) else { return };
                let (behind, rest) = (shape.iter().skip(axis).cloned().collect(), result.into_iter().skip(at + 1));
                let size = in_shape(size, rest.collect(), multiple, &behind, freed.example);
                let Some(multiple) = size else { return };
                let known = self.joined.entry(multiple).or_insert(Some(joined));
                if *known != Some(joined) {
                    *known = None;
                }
                place_in_list = at;
                (1, multiple)
            }
            ("expand", [_, (_, Arg::List(sizes)), ..]) if sizes.first().is_some_and(is_example) => {
                let same_rank = shape.as_ref().is_some_and(|shape| shape.rank() == sizes.len());
                match same_rank && (multiple == Some(1) || leads == Some(&Dim::Known(1))) || freed.made {
                    true => (1, 1),
                    false => return,
                }
            }
            ("full" | "zeros" | "ones" | "empty" | "rand" | "randn", [(_, Arg::List(sizes)), ..])
                if freed.made && sizes.first().is_some_and(is_example) =>
            {
                (0, 1)
            }
            ("repeat" | "new_zeros" | "new_ones" | "new_full" | "new_empty", [_, (_, Arg::List(sizes)), ..])
                if freed.made && sizes.first().is_some_and(is_example) =>
            {
                (1, 1)
            }
            ("arange", args) if freed.made => {
                match args.iter().position(|(name, arg)| *name == "end" && is_example(arg)) {
                    Some(place) => (place, 1),
                    None => return,
                }
            }
            _ => return,
        };
        let Some(dim) = freed.times(multiple) else { return };
        let size = Arg::Int(self.lower.expressions.of_dim(&dim, String::new));
        match args.get_mut(place).map(|(_, arg)| arg) {
            Some(Arg::List(sizes)) => sizes.get_mut(place_in_list).into_iter().for_each(|of| *of = size.clone()),
            Some(arg) => *arg = size,
            None => {}
        }
    }
}

/// The axis of a shape that is the batch, and that of a new shape which has its place: the elements in front of it are
/// the same, or so many of them are joined with it. `inner` are those that are joined with it in the old shape.
fn same_place(shape: &Shape, result: &[Option<i64>], inner: i64, freed: Freed) -> Option<(usize, usize, i64)> {
    let axis = shape.iter().position(|dim| freed.multiple(dim).is_some())?;
    let sizes = shape.iter().take(axis).map(|dim| dim.known().and_then(|size| i64::try_from(size).ok()));
    let before = sizes.into_iter().try_fold(inner, |all, size| all.checked_mul(size?))?;
    let mut begin = 1_i64;
    for (at, size) in result.iter().enumerate() {
        let end = begin.checked_mul((*size)?)?;
        if end > before {
            return (before % begin == 0).then_some((axis, at, before / begin));
        }
        begin = end;
    }
    None
}

/// How many times the batch the first size of a new shape is, if it is known to be. `multiple` is that of the shape
/// before, and `rest` are the sizes behind.
fn in_shape(first: i64, rest: Vec<Option<i64>>, multiple: i64, shape: &Shape, example: i64) -> Option<i64> {
    let product = |sizes: Vec<Option<i64>>| sizes.into_iter().try_fold(1_i64, |all, size| all.checked_mul(size?));
    let own = product(shape.iter().skip(1).map(|dim| dim.known().and_then(|n| i64::try_from(n).ok())).collect())?;
    let new = product(rest).filter(|new| *new > 0)?;
    let found = multiple.checked_mul(own).filter(|all| all % new == 0)? / new;
    (found.checked_mul(example) == Some(first)).then_some(found)
}
