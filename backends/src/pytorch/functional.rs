//! Layers as functions of their weights, for weights that stand in the source under names that no module of `torch.nn`
//! gives them: `F.linear(x, self.in_proj_weight, self.in_proj_bias)`.

use modelport_ir::op::Op;
use modelport_ir::{Graph, NodeId};

use super::build::zeros;
use super::weight_norm;
use crate::plan::{Functional, Leaf, Member, MemberKind, Param};
use crate::python::{Arg, Expr, Lit};

/// The functional form of a leaf that is one module with weights.
pub fn form(graph: &Graph, node: NodeId, leaf: &Leaf) -> Option<Functional> {
    let [Member { kind: MemberKind::Module, params, ctor, .. }] = leaf.members.as_slice() else { return None };
    if weight_norm::is_normed(ctor) {
        return None;
    }
    let params: Vec<&Param> = params.iter().filter(|param| !param.source.is_empty()).collect();
    let weight = |key: &str| match params.iter().position(|param| param.key == key) {
        Some(index) => Expr::Member(index),
        None => Expr::slot(key, Lit::None),
    };
    let optional = |key: &str| Arg::or(key, weight(key), Lit::None);
    let slot = |role: &str, value: Lit, default: Lit| Arg::or(role, Expr::slot(role, value), default);
    let eps = |value: f32| Arg::keyword("eps", Expr::slot("eps", Lit::float(value)), Some(Lit::float(1e-5)));
    let x = || Arg::new(Expr::Operand(0));
    let rank = graph.input_of(node, 0).map_or(0, |value| graph.shape(value).rank());
    let expr = match graph.op(node) {
        Op::Conv(op) if op.pads.is_symmetric() => Expr::call(
            &format!("F.conv{}d", rank.checked_sub(2)?),
            vec![
                x(),
                Arg::new(weight("weight")),
                optional("bias"),
                slot("stride", Lit::sizes(&op.strides), Lit::Int(1)),
                slot("padding", Lit::sizes(&op.pads.begins()), Lit::Int(0)),
                slot("dilation", Lit::sizes(&op.dilations), Lit::Int(1)),
                slot("groups", Lit::size(op.groups), Lit::Int(1)),
            ],
        ),
        Op::ConvTranspose(op) if op.pads.is_symmetric() => Expr::call(
            &format!("F.conv_transpose{}d", rank.checked_sub(2)?),
            vec![
                x(),
                Arg::new(weight("weight")),
                optional("bias"),
                slot("stride", Lit::sizes(&op.strides), Lit::Int(1)),
                slot("padding", Lit::sizes(&op.pads.begins()), Lit::Int(0)),
                slot("output_padding", Lit::sizes(&op.output_padding), Lit::Int(0)),
                slot("groups", Lit::size(op.groups), Lit::Int(1)),
                slot("dilation", Lit::sizes(&op.dilations), Lit::Int(1)),
            ],
        ),
        Op::Dense(_) => Expr::call("F.linear", vec![x(), Arg::new(weight("weight")), optional("bias")]),
        Op::BatchNorm(op) => Expr::call(
            "F.batch_norm",
            vec![
                x(),
                Arg::new(weight("running_mean")),
                Arg::new(weight("running_var")),
                optional("weight"),
                optional("bias"),
                Arg::keyword("training", Expr::name("self.training"), None),
                Arg::keyword(
                    "momentum",
                    Expr::slot("momentum", op.momentum.map_or(Lit::float(0.1), Lit::float)),
                    Some(Lit::float(0.1)),
                ),
                eps(op.epsilon),
            ],
        ),
        Op::LayerNorm(op) => {
            let shape = graph.shape(graph.input_of(node, 0)?);
            let sizes: Option<Vec<usize>> = op.axes.iter().map(|&axis| shape.get(axis)?.known()).collect();
            if !op.axes.iter().copied().eq(rank - op.axes.len()..rank) {
                return None;
            }
            let sizes = Expr::slot("features", Lit::tuple(&sizes?));
            Expr::call(
                "F.layer_norm",
                vec![x(), Arg::new(sizes), optional("weight"), optional("bias"), eps(op.epsilon)],
            )
        }
        Op::GroupNorm(op) => Expr::call(
            "F.group_norm",
            vec![
                x(),
                Arg::new(Expr::int("num_groups", op.groups)),
                optional("weight"),
                optional("bias"),
                eps(op.epsilon),
            ],
        ),
        Op::InstanceNorm(op) => Expr::call(
            "F.instance_norm",
            vec![
                x(),
                Arg::keyword("weight", weight("weight"), Some(Lit::None)),
                Arg::keyword("bias", weight("bias"), Some(Lit::None)),
                eps(op.epsilon),
            ],
        ),
        Op::PRelu(_) => Expr::call("F.prelu", vec![x(), Arg::new(weight("weight"))]),
        Op::Gather(_) => Expr::call("F.embedding", vec![x(), Arg::new(weight("weight"))]),
        _ => return None,
    };
    let member = |param: &&Param| Member {
        kind: kind(graph, &param.source),
        role: param.key.clone(),
        ctor: zeros(&param.tensor),
        params: vec![Param { key: String::new(), ..(*param).clone() }],
    };
    Some(Functional { members: params.iter().map(member).collect(), expr })
}

fn kind(graph: &Graph, name: &str) -> MemberKind {
    match graph.find(name).map(|id| graph.op(id)) {
        Some(Op::Constant(constant)) if constant.trainable && constant.tensor.dtype().is_float() => {
            MemberKind::Parameter
        }
        _ => MemberKind::Buffer,
    }
}
