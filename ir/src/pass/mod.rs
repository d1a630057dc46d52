//! Rewrites of the graph that keep what it computes: one file per pass, run in the order of this list.
//!
//! Passes match structure: what is computed from what, with the operands of commutative operators in either order and
//! brackets anywhere. Names play no part in that; they only tell what a fused operator is called.

pub mod absorb_bias;
pub mod absorb_scale;
mod affine;
pub mod dense_convs;
pub mod drop_dropout;
pub mod drop_reshapes;
pub mod drop_transposes;
pub mod fold_batch_norm;
pub mod fold_constants;
pub mod fold_pad;
pub mod fuse_activations;
pub mod fuse_attention;
pub mod fuse_batch_norm;
pub mod fuse_dense;
pub mod fuse_l2_normalize;
pub mod fuse_moments;
pub mod fuse_recurrent;
pub mod fuse_softmax;
pub mod fuse_weight_norm;
pub mod join_directions;
pub mod join_groups;
pub mod join_views;
pub mod lower_rank;
pub mod merge_equal;
pub mod narrow_fills;
mod pattern;
pub mod remove_dropout;
pub mod remove_noops;
mod rewrite;
mod terms;
#[cfg(test)]
mod testing;
pub mod turn_parts;
pub mod unpack_parts;

use crate::diagnostic::Result;
use crate::graph::Graph;
use crate::validate::validate;

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

/// The passes that turn a freshly lowered graph into its neutral form, in order. One that cleans up occurs twice.
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
        name: "fuse_weight_norm",
        reason: "what a layer takes is a weight, whatever the source makes it of",
        after: &["merge_equal"],
        run: fuse_weight_norm::run,
    },
    Pass {
        name: "fuse_batch_norm",
        reason: "batch normalisation is a layer with four vectors, which folding would join",
        after: &["fold_scalars", "remove_noops"],
        run: fuse_batch_norm::run,
    },
    Pass {
        name: "fuse_moments",
        reason: "normalisation by a value's own mean and variance is one layer",
        after: &["merge_equal", "fuse_batch_norm"],
        run: fuse_moments::run,
    },
    Pass {
        name: "fuse_l2_normalize",
        reason: "a division by the length is one function, whose lower limit must still be a maximum",
        after: &["merge_equal"],
        run: fuse_l2_normalize::run,
    },
    Pass {
        name: "fuse_softmax",
        reason: "softmax is one function, and exact for large numbers",
        after: &["merge_equal"],
        run: fuse_softmax::run,
    },
    Pass {
        name: "fuse_activations",
        reason: "activations are one function each",
        after: &["merge_equal", "fuse_l2_normalize", "fuse_softmax"],
        run: fuse_activations::run,
    },
    Pass {
        name: "fold_constants",
        reason: "weights are constants",
        after: &["remove_dropout", "fuse_batch_norm", "fuse_moments", "fuse_activations"],
        run: fold_constants::run,
    },
    Pass {
        name: "fuse_dense",
        reason: "a product with a constant matrix is a dense layer",
        after: &["fold_constants"],
        run: fuse_dense::run,
    },
    Pass {
        name: "absorb_bias",
        reason: "a layer's bias belongs to the layer",
        after: &["fold_constants", "fuse_dense"],
        run: absorb_bias::run,
    },
    Pass {
        name: "join_groups",
        reason: "equal convolutions of parts of the channels are one of groups",
        after: &["fuse_activations", "absorb_bias"],
        run: join_groups::run,
    },
    Pass {
        name: "fuse_recurrent",
        reason: "steps of equal cells are one layer",
        after: &["merge_equal", "fuse_activations", "fuse_dense", "absorb_bias"],
        run: fuse_recurrent::run,
    },
    Pass {
        name: "lower_rank",
        reason: "one-dimensional layers have one dimension",
        after: &["fold_constants", "absorb_bias"],
        run: lower_rank::run,
    },
    Pass {
        name: "narrow_fills",
        reason: "a tensor of equal numbers is a number where it may be",
        after: &["fuse_recurrent"],
        run: narrow_fills::run,
    },
    Pass {
        name: "turn_parts",
        reason: "parts of one axis that lie along another are a transpose",
        after: &["fold_constants", "fuse_dense", "fuse_recurrent"],
        run: turn_parts::run,
    },
    Pass {
        name: "drop_reshapes",
        reason: "layers on the last axis take any rank",
        after: &["fuse_dense", "absorb_bias", "lower_rank"],
        run: drop_reshapes::run,
    },
    Pass {
        name: "drop_transposes",
        reason: "a function along an axis needs no transposes to bring the axis last",
        after: &["fuse_softmax", "fuse_activations"],
        run: drop_transposes::run,
    },
    Pass {
        name: "absorb_scale",
        reason: "a normalisation's scale and bias belong to it, also behind the reshape of its groups",
        after: &["fuse_moments", "fold_constants", "drop_reshapes"],
        run: absorb_scale::run,
    },
    Pass { name: "fold_pad", reason: "layers pad zeros themselves", after: &["lower_rank"], run: fold_pad::run },
    Pass {
        name: "remove_noops",
        reason: "what the passes left in a row is joined",
        after: &["drop_reshapes", "fold_constants"],
        run: remove_noops::run,
    },
    Pass {
        name: "join_directions",
        reason: "a sequence that is read from both ends is one layer",
        after: &["fuse_recurrent", "remove_noops"],
        run: join_directions::run,
    },
    Pass {
        name: "unpack_parts",
        reason: "what is taken apart is taken apart once, by one operator",
        after: &["fuse_recurrent", "join_directions"],
        run: unpack_parts::run,
    },
    Pass {
        name: "join_views",
        reason: "axes are split, ordered and joined once, however many functions the source used for it",
        after: &["unpack_parts"],
        run: join_views::run,
    },
];

/// The passes that make a normalised graph faster to run, and no longer fit to be trained.
pub const FOR_INFERENCE: &[Pass] = &[
    Pass {
        name: "forget_weight_norm",
        reason: "a weight that is never trained need not be made again for every call",
        after: &[],
        run: fuse_weight_norm::forget,
    },
    Pass { name: "drop_dropout", reason: "it does nothing at inference", after: &[], run: drop_dropout::run },
    Pass {
        name: "fold_batch_norm",
        reason: "a layer with other weights does the same without a second look at every element",
        after: &["drop_dropout"],
        run: fold_batch_norm::run,
    },
    Pass {
        name: "absorb_bias",
        reason: "what stood behind a product that was folded is a bias now",
        after: &["fold_batch_norm"],
        run: absorb_bias::run,
    },
    Pass {
        name: "dense_convs",
        reason: "a matrix product needs no rearrangement of its weights, which a convolution does for every call",
        after: &["drop_dropout", "fold_batch_norm"],
        run: dense_convs::run,
    },
    Pass {
        name: "remove_noops",
        reason: "reshapes that follow each other are joined",
        after: &["dense_convs"],
        run: remove_noops::run,
    },
];

/// Runs passes in order. Debug builds check that each keeps a valid graph valid.
///
/// # Errors
/// Those of the passes.
pub fn run(graph: &mut Graph, passes: &[Pass]) -> Result<()> {
    graph.prune();
    let mut valid = is_valid(graph);
    for pass in passes {
        (pass.run)(graph)?;
        graph.prune();
        let still = is_valid(graph);
        debug_assert!(still || !valid, "{} left an invalid graph: {:?}", pass.name, validate(graph));
        valid = still;
    }
    Ok(())
}

/// Whether the graph is valid; release builds do not look.
fn is_valid(graph: &Graph) -> bool {
    cfg!(debug_assertions) && validate(graph).is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::testing::{Net, batch, ops, the};
    use super::*;
    use crate::Layout;
    use crate::graph::Value;
    use crate::op::{Binary, Op, Reduce, ReduceKind, Select, Squeeze, Transpose, Unary, Unsqueeze};
    use crate::shape::Shape;

    #[test]
    fn every_pass_comes_after_those_that_it_needs() {
        for passes in [NORMALIZE, FOR_INFERENCE] {
            let mut done = HashSet::new();
            for pass in passes {
                for before in pass.after {
                    assert!(done.contains(before), "{} needs {before}", pass.name);
                }
                done.insert(pass.name);
            }
        }
    }

    fn normalized(graph: &mut Graph) -> Result<usize> {
        run(graph, NORMALIZE)?;
        let again = ops(graph);
        run(graph, NORMALIZE)?;
        assert_eq!(ops(graph), again, "a second run changed something");
        Ok(0)
    }

    /// What `slim.conv2d` with batch norm and dropout behind it writes.
    #[test]
    fn a_block() {
        let mut net = Net::new();
        let x = net.x(&[5, 5, 3]);
        net.scope = "net/conv1".to_owned();
        let y = net.conv(x, &[3, 3, 3, 4], Layout::ChannelsLast);
        net.scope = "net/conv1/BatchNorm".to_owned();
        let [gamma, beta, mean, variance] =
            ["gamma", "beta", "moving_mean", "moving_variance"].map(|n| net.weight(n, &[4]));
        net.scope = "net/conv1/BatchNorm/batchnorm".to_owned();
        let (base, bump) = (net.num(0.0005), net.num(0.0005));
        let epsilon = net.add(base, bump);
        let z = net.add(variance, epsilon);
        let r = net.un(Unary::Rsqrt, z);
        let gain = net.mul(r, gamma);
        let scaled = net.mul(y, gain);
        let moved = net.mul(mean, gain);
        let shift = net.sub(beta, moved);
        let y = net.add(scaled, shift);
        net.scope = "net/conv1".to_owned();
        let y = net.un(Unary::Relu, y);
        net.scope = "net/dropout".to_owned();
        let keep = net.num(1.0);
        let random = net.random_uniform(y);
        let sum = net.add(keep, random);
        let mask = net.un(Unary::Floor, sum);
        let scaled = net.div(y, keep);
        let zero = net.num(0.0);
        let kept = net.bin(Binary::GreaterEqual, mask, zero);
        let y = net.op(Select {}, &[kept, scaled, zero]);
        // Not a dropout: the mask itself is compared.
        let dropped = net.mul(scaled, mask);
        net.graph.output("y", dropped);
        let _ = y;
        let mut graph = net.graph;
        normalized(&mut graph).unwrap();
        assert_eq!(ops(&graph), ["Conv", "BatchNorm", "Relu"]);
        assert_eq!(graph.node(the(&graph, "BatchNorm")).name, "net/conv1/BatchNorm");
    }

    #[test]
    fn text_convolution() {
        // conv1d with its bias, max pooling over time, a dense layer by tensordot.
        let mut net = Net::new();
        let x = net.x(&[6, 3]);
        let y = net.op(Unsqueeze { axes: vec![1] }, &[x]);
        let kernel = net.weight("conv/kernel", &[2, 3, 4]);
        let kernel = net.op(Unsqueeze { axes: vec![0] }, &[kernel]);
        let op = crate::op::Conv {
            strides: vec![1, 1],
            pads: crate::op::Pads::none(2),
            dilations: vec![1, 1],
            groups: 1,
            layout: Layout::ChannelsLast,
        };
        let y = net.op(op, &[y, kernel]);
        let y = net.op(Squeeze { axes: vec![1] }, &[y]);
        let b = net.weight("conv/bias", &[4]);
        let y = net.add(y, b);
        let y = net.un(Unary::Relu, y);
        let flat = net.reshape(y, Shape(vec![crate::Dim::Unknown, crate::Dim::Known(4)]));
        let w = net.weight("dense/kernel", &[5, 4]);
        let w = net.op(Transpose { perm: vec![1, 0] }, &[w]);
        let y = net.op(crate::op::MatMul { transpose_a: false, transpose_b: false }, &[flat, w]);
        let y = net.reshape(y, batch(&[5, 5]));
        let b = net.weight("dense/bias", &[5]);
        let y = net.add(b, y);
        let graph = net.check(&[y], normalized);
        assert_eq!(ops(&graph), ["Conv", "Relu", "Dense"]);
        let parameters: Vec<&str> = graph
            .ids()
            .into_iter()
            .filter(|&id| matches!(graph.op(id), Op::Constant(_)))
            .map(|id| graph.node(id).name.as_str())
            .collect();
        assert_eq!(parameters.len(), 4);
        assert!(
            ["conv/kernel", "conv/bias", "dense/kernel", "dense/bias"].iter().all(|name| parameters.contains(name))
        );
    }

    #[test]
    fn a_transformer_block() {
        let mut net = Net::new();
        let x = net.x(&[4, 6]);
        let norm = |net: &mut Net, x: Value| {
            let (gamma, beta) = (net.weight("gamma", &[6]), net.weight("beta", &[6]));
            let mean = net.op(Reduce { kind: ReduceKind::Mean, axes: vec![2], keep_dims: true }, &[x]);
            let centred = net.sub(x, mean);
            let again = net.sub(x, mean);
            let squares = net.mul(centred, again);
            let variance = net.reduce(ReduceKind::Mean, squares, &[2]);
            let z = net.plus(0.1, variance);
            let root = net.un(Unary::Sqrt, z);
            let y = net.div(centred, root);
            let y = net.mul(y, gamma);
            net.add(y, beta)
        };
        let a = norm(&mut net, x);
        let scores = net.op(Transpose { perm: vec![0, 2, 1] }, &[a]);
        let scores = net.op(crate::op::MatMul { transpose_a: false, transpose_b: false }, &[a, scores]);
        let powers = net.un(Unary::Exp, scores);
        let sum = net.reduce(ReduceKind::Sum, powers, &[2]);
        let powers = net.un(Unary::Exp, scores);
        let p = net.div(powers, sum);
        let y = net.op(crate::op::MatMul { transpose_a: false, transpose_b: false }, &[p, a]);
        let x = net.add(x, y);
        let y = norm(&mut net, x);
        let w = net.weight("w", &[6, 6]);
        let y = net.op(crate::op::MatMul { transpose_a: false, transpose_b: false }, &[y, w]);
        let half = net.times(0.5, y);
        let scaled = net.times(std::f32::consts::FRAC_1_SQRT_2, y);
        let erf = net.un(Unary::Erf, scaled);
        let gate = net.plus(1.0, erf);
        let y = net.mul(half, gate);
        let y = net.add(x, y);
        assert_eq!(
            net.ops(&[y], normalized),
            ["LayerNorm", "MatMul", "Softmax", "MatMul", "Add", "LayerNorm", "Dense", "Gelu", "Add"]
        );
    }
}
