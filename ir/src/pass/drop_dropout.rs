//! Takes dropout out: it does nothing at inference.
//!
//! ```text
//! x -> Dropout -> y        x -> y
//! ```

use super::rewrite::forward;
use crate::diagnostic::Result;
use crate::graph::Graph;
use crate::op::Op;

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize> {
    forward(graph, |graph, id| {
        let (Op::Dropout(_), Some(x)) = (graph.op(id), graph.input_of(id, 0)) else { return Ok(false) };
        graph.replace_uses(id.into(), x);
        Ok(true)
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::Net;
    use super::*;
    use crate::op::{Dropout, Unary};

    #[test]
    fn dropout_goes() {
        let mut net = Net::new();
        let x = net.x(&[4]);
        let y = net.un(Unary::Relu, x);
        let y = net.op(Dropout { rate: 0.5 }, &[y]);
        let z = net.op(Dropout { rate: 0.5 }, &[y]);
        let z = net.un(Unary::Neg, z);
        assert_eq!(net.ops(&[y, z], run), ["Relu", "Neg"]);
    }
}
