//! Dropout as it is written: `x` times random zeros and ones, scaled by what is dropped.
//!
//! Only tells whether a value is dropout of another one and nothing else; its rate is found in the neutral graph.

use std::collections::HashSet;

use super::net::{Net, Ref};

/// How many operators a dropout may be made of, those that compute its shape and rate included.
const MAX_NODES: usize = 64;

/// Whether `value` is dropout of `x`: it depends on nothing but `x`, random numbers and constants, and has a scale as
/// well as a mask. `resolve` looks through nodes that pass values on.
pub fn is_dropout(net: &Net, resolve: impl Fn(Ref) -> Ref, value: Ref, x: Ref) -> bool {
    let (mut stack, mut seen) = (vec![resolve(value)], HashSet::new());
    let (mut is_random, mut is_mask, mut has_input, mut scales) = (false, false, false, 0);
    while let Some(at) = stack.pop() {
        if at == x {
            has_input = true;
            continue;
        }
        if !seen.insert(at.node) {
            continue;
        }
        let inputs: Vec<Ref> = net.inputs(at.node).iter().flatten().map(|input| resolve(*input)).collect();
        match net.op(at.node) {
            "RandomUniform" | "StatelessRandomUniform" | "StatelessRandomUniformV2" => is_random = true,
            "Floor" | "GreaterEqual" | "Greater" | "Less" | "LessEqual" => is_mask = true,
            "Mul" | "RealDiv" | "Div" | "Select" | "SelectV2" => {
                scales += usize::from(inputs.iter().any(|input| reaches(net, &resolve, *input, x)));
            }
            // The shape may be asked of `x`; that is no way on which its elements go.
            "Shape" => continue,
            "Const" | "Add" | "AddV2" | "Sub" | "Cast" | "Pack" | "StridedSlice" | "Fill" | "ZerosLike" => {}
            _ => return false,
        }
        if seen.len() > MAX_NODES {
            return false;
        }
        stack.extend(inputs);
    }
    is_random && is_mask && has_input && scales >= 2
}

/// Whether products lead from `x` to `value`.
fn reaches(net: &Net, resolve: &impl Fn(Ref) -> Ref, value: Ref, x: Ref) -> bool {
    let (mut stack, mut seen) = (vec![value], HashSet::new());
    while let Some(at) = stack.pop() {
        if at == x {
            return true;
        }
        let is_product = matches!(net.op(at.node), "Mul" | "RealDiv" | "Div" | "Select" | "SelectV2");
        if is_product && seen.len() < MAX_NODES && seen.insert(at.node) {
            stack.extend(net.inputs(at.node).iter().flatten().map(|input| resolve(*input)));
        }
    }
    false
}
