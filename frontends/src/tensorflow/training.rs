//! Training graphs: batch statistics are replaced by the moving averages that they feed, and dropout rates that
//! somebody would feed by a number.
//!
//! Which variable belongs to which statistic is found by dataflow: an update assigns `decay * variable +
//! (1 - decay) * statistic`, however it is written.

use std::collections::{BTreeMap, HashMap, HashSet};

use modelport_ir::{DType, Tensor};

use super::clean::Resolver;
use super::graphdef::{Attr, NodeDef, TensorValue};
use super::lower::is_variable;
use super::net::{Net, Ref};

/// How many operators deep an update may be.
const MAX_DEPTH: usize = 24;
/// How many operators an update may be made of.
const MAX_STEPS: usize = 256;

/// A moving average that an update maintains.
#[derive(Clone, Debug, PartialEq)]
pub struct Average {
    /// Number of the variable's node.
    pub variable: usize,
    /// The statistic of the batch.
    pub statistic: Ref,
    /// Weight of a new batch, if it is a constant.
    pub momentum: Option<f32>,
}

/// All moving averages of a graph, by looking through it as in training.
pub fn averages(net: &Net) -> Vec<Average> {
    let resolver = Resolver::new(net, true, HashSet::new());
    let mut found: Vec<Average> = Vec::new();
    // Averages of averages: the corrected one is made of the biased one, and is the one that counts.
    let mut corrections: Vec<(usize, usize)> = Vec::new();
    for index in 0..net.len() {
        let Some(variable) = assigned(net, &resolver, index) else { continue };
        if net.node(variable).shape("shape").is_some_and(<[i64]>::is_empty) {
            continue; // The average of a loss.
        }
        let Some(new) = updated(net, &resolver, index, variable) else { continue };
        let (Some(old), Some((statistic, weight))) = (new.variable, new.other) else { continue };
        if old.is_some_and(|old| old.abs() < 1e-12)
            && let Some(biased) = biased(net, &resolver, statistic, variable)
        {
            corrections.push((biased, variable));
            continue;
        }
        let share = old.map(|old| 1.0 - old);
        // A factor that is not the share of the new value belongs to the statistic.
        let plain = share.zip(weight).is_none_or(|(share, weight)| (share - weight).abs() < 1e-6);
        let statistic = new.product.filter(|_| !plain).unwrap_or(statistic);
        if let Some(statistic) = statistic_of(net, &resolver, statistic) {
            let momentum = share.or(weight).map(decimal);
            let plausible = momentum.filter(|&m| m > 0.0 && m < 1.0);
            let momentum = plausible.or_else(|| factor(net.node(statistic.node)));
            found.push(Average { variable, statistic, momentum });
        }
    }
    for (biased, variable) in corrections {
        for average in found.iter_mut().filter(|average| average.variable == biased) {
            average.variable = variable;
        }
    }
    found
}

/// The shortest decimal that a share may have been: as the complement of a decay that was rounded to float32 it is off by
/// as much as that (0.0003 has become 0.00029999018).
fn decimal(share: f64) -> f32 {
    let rounded = (1..7).map(|digits| 10f64.powi(digits)).map(|scale| (share * scale).round() / scale);
    rounded.into_iter().find(|&short| (short - share).abs() <= f64::from(f32::EPSILON) / 2.0).unwrap_or(share) as f32
}

/// The weight of a new batch that a fused batch normalisation itself has.
fn factor(node: &NodeDef) -> Option<f32> {
    node.float("exponential_avg_factor").filter(|&factor| factor > 0.0 && factor < 1.0).map(|x| decimal(x.into()))
}

/// New nodes in place of those that compute a batch's statistics; numbers beyond the graph's are to be added to it.
pub fn rewrite(net: &Net, averages: &[Average]) -> Vec<(usize, NodeDef)> {
    let resolver = Resolver::new(net, true, HashSet::new());
    let by_statistic: HashMap<Ref, &Average> = averages.iter().map(|average| (average.statistic, average)).collect();
    let mut edits = Vec::new();
    for (index, node) in net.nodes().iter().enumerate() {
        let at = |output| by_statistic.get(&Ref { node: index, output });
        if node.op.starts_with("FusedBatchNorm") && node.is_training() {
            let (Some(mean), Some(variance)) = (at(1), at(2)) else { continue };
            let mut fused = node.clone();
            let name = |average: &Average| net.node(average.variable).name.clone();
            fused.inputs.truncate(3);
            fused.inputs.extend([name(mean), name(variance)]);
            fused.attrs.insert("is_training".to_owned(), Attr::Bool(false));
            edits.push((index, fused));
        } else if let Some(average) = at(0) {
            let variable = net.node(average.variable).name.clone();
            edits.push((index, plain(&node.name, "Identity", vec![variable.clone()])));
            // The mean with its axes kept, which may be what normalises.
            let kept = matches!(node.op.as_str(), "Squeeze" | "Reshape").then(|| net.input(index, 0)).flatten();
            if let Some(kept) = kept.map(|kept| resolver.resolve(kept).node).filter(|&kept| net.op(kept) == "Mean") {
                let mut batch = net.node(kept).clone();
                let name = std::mem::replace(&mut batch.name, format!("{}/batch", net.node(kept).name));
                edits.push((kept, plain(&name, "_Statistic", vec![variable, batch.name.clone()])));
                edits.push((net.len(), batch));
            }
        }
    }
    edits
}

fn plain(name: &str, op: &str, inputs: Vec<String>) -> NodeDef {
    NodeDef { name: name.to_owned(), op: op.to_owned(), inputs, attrs: BTreeMap::new() }
}

/// Placeholders for dropout rates become constants: nobody feeds them when the network is used.
pub fn rates(net: &Net, cuts: &HashSet<usize>) -> Vec<(usize, NodeDef)> {
    let resolver = Resolver::new(net, true, cuts.clone());
    let mut random: HashSet<usize> = HashSet::new();
    let mut stack: Vec<usize> = (0..net.len()).filter(|&i| net.op(i).starts_with("RandomUniform")).collect();
    while let Some(index) = stack.pop() {
        if random.insert(index) {
            stack.extend(net.readers(index).iter().filter(|&&r| spreads(net.op(r), true)));
        }
    }
    let scalar = |index: usize| {
        let node = net.node(index);
        matches!(node.op.as_str(), "Placeholder" | "PlaceholderV2")
            && node.dtype("dtype").is_some_and(DType::is_float)
            && node.shape("shape").is_none_or(<[i64]>::is_empty)
            && !cuts.contains(&index)
    };
    let mut edits = Vec::new();
    for index in (0..net.len()).filter(|&index| scalar(index)) {
        let (mut seen, mut stack, mut meets) = (HashSet::new(), vec![index], false);
        while let Some(at) = stack.pop() {
            if seen.len() > 64 || !seen.insert(at) {
                continue;
            }
            for &reader in net.readers(at) {
                let joins =
                    matches!(net.op(reader), "Add" | "AddV2" | "GreaterEqual" | "Greater" | "Less" | "LessEqual");
                let operands = resolver.inputs(reader);
                meets |= joins && operands.iter().flatten().any(|v| random.contains(&v.node) && v.node != at);
                if spreads(net.op(reader), false) {
                    stack.push(reader);
                }
            }
        }
        if meets {
            let dtype = net.node(index).dtype("dtype").unwrap_or(DType::Float32);
            // Of a rate and of a share that is kept, one half is the same dropout.
            let half = Attr::Tensor(TensorValue::Numbers(Tensor::from_f64(dtype, &[], [0.5])));
            edits.push((
                index,
                NodeDef {
                    name: net.node(index).name.clone(),
                    op: "Const".to_owned(),
                    inputs: Vec::new(),
                    attrs: BTreeMap::from([("value".to_owned(), half)]),
                },
            ));
        }
    }
    edits
}

/// Whether a number that goes in still is one of the same sort: uniform, or a rate.
fn spreads(op: &str, random: bool) -> bool {
    matches!(op, "Identity" | "Cast" | "Switch" | "Merge" | "Sub" | "Snapshot" | "StopGradient")
        || (random && matches!(op, "Mul" | "Add" | "AddV2"))
}

/// The variable that a node assigns to.
fn assigned(net: &Net, resolver: &Resolver, index: usize) -> Option<usize> {
    update(net.op(index))?;
    let variable = resolver.resolve(net.input(index, 0)?).node;
    is_variable(net.op(variable)).then_some(variable)
}

/// What an assignment does with its second input: the sign of the variable's old value and of the input.
fn update(op: &str) -> Option<(f64, f64)> {
    Some(match op {
        "Assign" | "AssignVariableOp" => (0.0, 1.0),
        "AssignAdd" | "AssignAddVariableOp" => (1.0, 1.0),
        "AssignSub" | "AssignSubVariableOp" => (1.0, -1.0),
        _ => return None,
    })
}

/// `variable * old value + weight * other + constant`; factors that are computed are `None`.
#[derive(Clone, Copy, Debug, Default)]
struct Affine {
    variable: Option<Option<f64>>,
    other: Option<(Ref, Option<f64>)>,
    /// The product that `other` is a factor of.
    product: Option<Ref>,
    constant: f64,
}

impl Affine {
    fn scaled(self, by: Option<f64>) -> Affine {
        let times = |x: Option<f64>| x.zip(by).map(|(x, by)| x * by);
        Affine {
            variable: self.variable.map(times),
            other: self.other.map(|(value, weight)| (value, times(weight))),
            product: self.product,
            constant: self.constant * by.unwrap_or(1.0),
        }
    }

    fn plus(self, other: Affine) -> Option<Affine> {
        let add = |a: Option<f64>, b: Option<f64>| a.zip(b).map(|(a, b)| a + b);
        let variable = match (self.variable, other.variable) {
            (Some(a), Some(b)) => Some(add(a, b)),
            (a, b) => a.or(b),
        };
        let rest = match (self.other, other.other) {
            (Some((a, x)), Some((b, y))) if a == b => Some((a, add(x, y))),
            (Some(_), Some(_)) => return None,
            (a, b) => a.or(b),
        };
        let product = self.product.or(other.product);
        Some(Affine { variable, other: rest, product, constant: self.constant + other.constant })
    }

    fn is_constant(&self) -> bool {
        self.variable.is_none() && self.other.is_none()
    }
}

fn updated(net: &Net, resolver: &Resolver, index: usize, variable: usize) -> Option<Affine> {
    let (old, sign) = update(net.op(index))?;
    let mut steps = MAX_STEPS;
    let delta = affine(net, resolver, net.input(index, 1)?, variable, MAX_DEPTH, &mut steps)?;
    let start = Affine { variable: Some(Some(old)), ..Affine::default() };
    start.plus(delta.scaled(Some(sign)))
}

fn affine(
    net: &Net,
    resolver: &Resolver,
    value: Ref,
    variable: usize,
    depth: usize,
    steps: &mut usize,
) -> Option<Affine> {
    let depth = depth.checked_sub(1)?;
    *steps = steps.checked_sub(1)?;
    let value = resolver.resolve(value);
    if value.node == variable {
        return Some(Affine { variable: Some(Some(1.0)), ..Affine::default() });
    }
    let node = net.node(value.node);
    if let Some(tensor) = node.tensor("value").filter(|tensor| tensor.numel() == 1) {
        let constant = tensor.to_f64().ok()?.first().copied()?;
        return Some(Affine { constant, ..Affine::default() });
    }
    let atom = Affine { other: Some((value, Some(1.0))), ..Affine::default() };
    let mut operand = |slot: usize| {
        net.input(value.node, slot).and_then(|operand| affine(net, resolver, operand, variable, depth, steps))
    };
    let result = match node.op.as_str() {
        "Add" | "AddV2" => operand(0).zip(operand(1)).and_then(|(a, b)| a.plus(b)),
        "Sub" => operand(0).zip(operand(1)).and_then(|(a, b)| a.plus(b.scaled(Some(-1.0)))),
        "Neg" => operand(0).map(|a| a.scaled(Some(-1.0))),
        "Cast" => operand(0),
        "Mul" => operand(0).zip(operand(1)).and_then(|(a, b)| match (a.is_constant(), b.is_constant()) {
            (true, _) => Some(b.scaled(Some(a.constant))),
            (_, true) => Some(a.scaled(Some(b.constant))),
            // A decay that is computed, by the number of steps for instance.
            _ if a.variable.is_some() && b.variable.is_none() => Some(a.scaled(None)),
            _ if b.variable.is_some() && a.variable.is_none() => Some(b.scaled(None)),
            _ => None,
        }),
        _ => None,
    };
    // What does not contain the variable is one thing, unless it is a number or a multiple.
    match result {
        Some(result) if result.variable.is_some() || result.is_constant() => Some(result),
        Some(result) if node.op == "Mul" => Some(Affine { product: Some(value), ..result }),
        _ => Some(atom),
    }
}

/// The variable of the biased average, when a value is one divided by its correction.
fn biased(net: &Net, resolver: &Resolver, value: Ref, variable: usize) -> Option<usize> {
    if !matches!(net.op(value.node), "RealDiv" | "Div" | "Mul") {
        return None;
    }
    let source = resolver.resolve(net.input(value.node, 0)?).node;
    let source = if is_variable(net.op(source)) { Some(source) } else { assigned(net, resolver, source) };
    source.filter(|&source| source != variable)
}

/// The mean or variance of data that a value is: some reduction, at most reshaped and scaled since.
fn statistic_of(net: &Net, resolver: &Resolver, value: Ref) -> Option<Ref> {
    let mut at = value;
    for _ in 0..MAX_DEPTH {
        let op = net.op(at.node);
        let of_data = || {
            let data = net.input(at.node, 0).map(|data| resolver.resolve(data).node);
            data.is_some_and(|data| !is_variable(net.op(data)))
        };
        if op.starts_with("FusedBatchNorm") {
            return of_data().then_some(at);
        }
        if matches!(op, "Mean" | "Sum") {
            return of_data().then_some(value);
        }
        let passes =
            matches!(op, "Squeeze" | "Reshape" | "Cast" | "Mul" | "Sub" | "RealDiv" | "Maximum" | "AddV2" | "Add");
        at = resolver.resolve(net.input(at.node, 0).filter(|_| passes)?);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensorflow::testing::net;

    fn found(text: &str) -> Vec<(String, String, Option<f32>)> {
        let net = net(text);
        let name = |index: usize| net.node(index).name.clone();
        let of =
            |a: Average| (name(a.variable), format!("{}:{}", name(a.statistic.node), a.statistic.output), a.momentum);
        averages(&net).into_iter().map(of).collect()
    }

    const FUSED: &str = "
        x = Placeholder() | dtype=:float
        gamma = VariableV2()
        beta = VariableV2()
        mean = VariableV2()
        variance = VarHandleOp()
        empty = Const() | value=f32<0>[]
        bn = FusedBatchNormV3(x, gamma, beta, empty, empty)
        rate = Const() | value=f32<>[0.01]
        read = Identity(mean)
        d1 = Sub(read, bn:1)
        m1 = Mul(d1, rate)
        u1 = AssignSub(mean, m1)
        read2 = ReadVariableOp(variance)
        d2 = Sub(read2, bn:2)
        m2 = Mul(rate, d2)
        u2 = AssignSubVariableOp(variance, m2)";

    #[test]
    fn averages_are_found_by_what_is_assigned() {
        let expected = [("mean", "bn:1"), ("variance", "bn:2")];
        assert_eq!(found(FUSED), expected.map(|(v, s)| (v.to_owned(), s.to_owned(), Some(0.01))));
        let net = net(FUSED);
        let edits = rewrite(&net, &averages(&net));
        let [(_, bn)] = edits.as_slice() else { panic!("{edits:?}") };
        assert_eq!((bn.inputs[3].as_str(), bn.inputs[4].as_str(), bn.is_training()), ("mean", "variance", false));
    }

    #[test]
    fn assignments_by_hand_count_too() {
        let text = "
            x = Placeholder() | dtype=:float
            v = VariableV2()
            read = Identity(v)
            axes = Const() | value=i32<1>[0]
            m = Mean(x, axes)
            s = Squeeze(m)
            keep = Const() | value=f32<>[0.9]
            take = Const() | value=f32<>[0.1]
            old = Mul(keep, read)
            new = Mul(s, take)
            sum = AddV2(new, old)
            assign = Assign(v, sum)
            init = Const() | value=f32<3>[]
            first = Assign(v, init)";
        assert_eq!(found(text), [("v".to_owned(), "s:0".to_owned(), Some(0.1))]);
    }

    #[test]
    fn the_corrected_average_counts() {
        let text = "
            x = Placeholder() | dtype=:float
            v = VariableV2()
            read = Identity(v)
            biased = VariableV2()
            b_read = Identity(biased)
            axes = Const() | value=i32<1>[0]
            s = Mean(x, axes)
            rate = Const() | value=f32<>[0.1]
            d = Sub(b_read, s)
            m = Mul(d, rate)
            u = AssignSub(biased, m)
            step = VariableV2()
            corrected = RealDiv(u, step)
            delta = Sub(read, corrected)
            u2 = AssignSub(v, delta)";
        assert_eq!(found(text), [("v".to_owned(), "s:0".to_owned(), Some(0.1))]);
    }

    #[test]
    fn shares_are_what_was_written() {
        let complement = |decay: f32| f64::from(1.0 - decay);
        assert_eq!([0.9, 0.9997, 0.997, 0.99].map(|decay| decimal(complement(decay))), [0.1, 0.0003, 0.003, 0.01]);
        assert_eq!(decimal(1.0 / 3.0), 1.0 / 3.0);
    }

    #[test]
    fn averages_of_weights_are_no_statistics() {
        let text = "
            w = VariableV2()
            read = Identity(w)
            shadow = VariableV2()
            s_read = Identity(shadow)
            rate = Const() | value=f32<>[0.1]
            d = Sub(s_read, read)
            m = Mul(d, rate)
            u = AssignSub(shadow, m)
            one = Const() | value=f32<>[1]
            step = AssignAdd(w, one)";
        assert_eq!(found(text), []);
    }

    #[test]
    fn a_rate_is_what_meets_random_numbers() {
        let text = "
            x = Placeholder() | dtype=:float shape=<?,4>
            keep = Placeholder() | dtype=:float
            t = Placeholder() | dtype=:float shape=<>
            shape = Shape(x)
            r = RandomUniform(shape)
            sum = Add(keep, r)
            floor = Floor(sum)
            div = RealDiv(x, keep)
            y = Mul(div, floor)
            z = Mul(y, t)";
        let net = net(text);
        let edits = rates(&net, &HashSet::new());
        assert_eq!(edits.iter().map(|(_, n)| n.name.as_str()).collect::<Vec<_>>(), ["keep"]);
    }
}
