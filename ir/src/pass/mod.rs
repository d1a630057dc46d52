//! Rewrites of the graph that keep what it computes: one file per pass, run in the order of this list.

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
pub const NORMALIZE: &[Pass] = &[];

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
