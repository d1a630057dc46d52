//! Variables by name: whole or in parts, or their moving averages.

use std::collections::HashMap;

use modelport_ir::{Problem, Tensor};

use super::checkpoint::Checkpoint;
use super::lower::Variables;
use super::metagraph::{MetaGraph, SliceInfo};

/// What `tf.train.ExponentialMovingAverage` calls its shadow of a variable.
const SHADOW: &str = "/ExponentialMovingAverage";

/// The variables of a network.
pub struct Saved<'a> {
    checkpoint: Option<&'a Checkpoint>,
    slices: HashMap<&'a str, &'a SliceInfo>,
    moving_averages: bool,
}

impl<'a> Saved<'a> {
    /// The variables of a graph in a checkpoint, or their moving averages where there are any.
    pub fn new(meta: &'a MetaGraph, checkpoint: Option<&'a Checkpoint>, moving_averages: bool) -> Saved<'a> {
        let mut slices = HashMap::new();
        for variable in meta.collections.values().flatten() {
            if let Some(slice) = &variable.slice {
                slices.insert(variable.name.split(':').next().unwrap_or(&variable.name), slice);
            }
        }
        Saved { checkpoint, slices, moving_averages }
    }
}

impl Variables for Saved<'_> {
    fn find(&self, names: &[&str], shape: Option<&[i64]>) -> Result<Tensor, Problem> {
        let Some(checkpoint) = self.checkpoint else {
            let problem = Problem::new("the graph has variables, and there is no checkpoint");
            return Err(problem.hint("Give the checkpoint with -iw (its prefix, any of its files, or its folder)."));
        };
        let shadows = names.iter().map(|name| format!("{name}{SHADOW}"));
        let tensor = shadows
            .filter(|_| self.moving_averages)
            .find_map(|shadow| checkpoint.get(&shadow))
            .or_else(|| names.iter().find_map(|name| checkpoint.get(name)));
        let tensor = match (tensor, names.iter().find_map(|name| self.slices.get(name))) {
            (Some(tensor), _) => tensor,
            (None, Some(slice)) => checkpoint.part(slice).map_err(|error| {
                let unknown = || Problem::new("a part of a variable is missing");
                error.problems.into_iter().next().unwrap_or_else(unknown)
            })?,
            (None, None) => {
                let name = names.first().copied().unwrap_or_default();
                return Err(checkpoint
                    .problem_if_missing(name)
                    .unwrap_or_else(|| Problem::new("this variable is not in the checkpoint").node(name)));
            }
        };
        let found = tensor.shape();
        let fits = |wanted: &[i64]| {
            wanted.len() == found.len() && wanted.iter().zip(&found).all(|(&w, &f)| w < 0 || w == f as i64)
        };
        match shape.filter(|wanted| !fits(wanted)) {
            None => Ok(tensor),
            Some(wanted) => {
                let name = names.first().copied().unwrap_or_default();
                let message =
                    format!("variable {name} has shape {wanted:?} in the graph and {found:?} in the checkpoint");
                Err(Problem::new(message)
                    .hint("Graph and checkpoint are of different networks.")
                    .file(checkpoint.path()))
            }
        }
    }
}
