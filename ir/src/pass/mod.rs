//! Rewrites of the graph that keep what it computes: one file per pass, run in the order of this list.
//!
//! Passes match structure: what is computed from what, with the operands of commutative operators in either order and
//! brackets anywhere. Names play no part in that; they only tell what a fused operator is called.

pub mod absorb_bias;
pub mod absorb_scale;
pub mod drop_reshapes;
pub mod fold_constants;
pub mod fold_pad;
pub mod fuse_activations;
pub mod fuse_batch_norm;
pub mod fuse_dense;
pub mod fuse_l2_normalize;
pub mod fuse_moments;
pub mod fuse_softmax;
pub mod lower_rank;
pub mod merge_equal;
mod pattern;
pub mod remove_dropout;
pub mod remove_noops;
mod rewrite;
mod terms;
#[cfg(test)]
mod testing;

use crate::diagnostic::Result;
use crate::graph::Graph;

/// A rewrite: what it is called, why it exists, which passes must have run before, and the rewrite itself.
pub struct Pass {
    /// Name, as in the file's.
    pub name: &'static str,
    /// Why it exists, in one sentence.
    pub reason: &'static str,
    /// Names of passes that must come before.
    pub after: &'static [&'static str],
    /// Rewrites the graph; returns how many places were changed.
    pub run: fn(&mut Graph) -> Result<usize>,
}

/// The passes that turn a freshly lowered graph into its neutral form, in order.
pub const NORMALIZE: &[Pass] = &[
    Pass {
        name: "fold_scalars",
        reason: "patterns compare numbers, also those that the source computed",
        after: &[],
        run: fold_constants::scalars,
    },
    Pass {
        name: "remove_noops",
        reason: "nothing stands between the parts of a pattern",
        after: &["fold_scalars"],
        run: remove_noops::run,
    },
    Pass {
        name: "merge_equal",
        reason: "a pattern that was written with the same expression twice reads one value",
        after: &["remove_noops"],
        run: merge_equal::run,
    },
    Pass {
        name: "remove_dropout",
        reason: "random numbers have no place at inference, and nobody translates them",
        after: &["fold_scalars", "remove_noops"],
        run: remove_dropout::run,
    },
    Pass {
        name: "fuse_batch_norm",
        reason: "batch normalisation is a layer with four vectors, which folding would join",
        after: &["fold_scalars", "remove_noops"],
        run: fuse_batch_norm::run,
    },
    Pass {
        name: "fold_constants",
        reason: "weights are constants",
        after: &["fuse_batch_norm"],
        run: fold_constants::run,
    },
];

/// Runs passes in order.
///
/// # Errors
/// Those of the passes.
pub fn run(graph: &mut Graph, passes: &[Pass]) -> Result<()> {
    for pass in passes {
        (pass.run)(graph)?;
        graph.prune();
    }
    Ok(())
}
