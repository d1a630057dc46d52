//! What several steps of a function are in one.

use std::collections::HashMap;

use modelport_ir::Value;

use super::shapes::reordered;
use crate::plan::forward::Step;
use crate::python::{Arg, Expr, Lit};

/// How often every value is read.
pub fn readers(steps: &[Step], outputs: &[Value]) -> HashMap<Value, usize> {
    let mut readers: HashMap<Value, usize> = HashMap::new();
    for step in steps {
        for (i, operand) in step.operands.iter().enumerate() {
            *readers.entry(*operand).or_default() += step.expr.count(&|e| *e == Expr::Operand(i));
        }
    }
    outputs.iter().for_each(|output| *readers.entry(*output).or_default() += 1);
    readers
}

/// An activation after a convolution or dense layer is an argument of that.
pub fn activations(steps: &mut Vec<Step>, outputs: &[Value]) {
    let readers = readers(steps, outputs);
    into_source(steps, |step, source, value| {
        (readers.get(&value) == Some(&1)).then(|| with_activation(step, source))?
    });
}

/// Global pooling that keeps axes of one element, only for them to be taken off, keeps none.
pub fn flattening(steps: &mut Vec<Step>, outputs: &[Value]) {
    let readers = readers(steps, outputs);
    into_source(steps, |step, source, value| {
        let flattens = is_call_of(step, "layers.Flatten") && readers.get(&value) == Some(&1);
        flattens.then(|| without_kept_axes(source))?
    });
}

/// Takes away steps of one operand that `fuse` makes a part of the step which computes it: from both expressions and
/// the value between them.
fn into_source(steps: &mut Vec<Step>, fuse: impl Fn(&Expr, &Expr, Value) -> Option<Expr>) {
    let mut index = 0;
    while index < steps.len() {
        let fused = match steps[index].operands.as_slice() {
            [operand] => steps[..index]
                .iter()
                .position(|step| step.results == [*operand])
                .and_then(|source| Some((source, fuse(&steps[index].expr, &steps[source].expr, *operand)?))),
            _ => None,
        };
        let Some((source, expr)) = fused else {
            index += 1;
            continue;
        };
        let step = steps.remove(index);
        steps[source].expr = expr;
        steps[source].results = step.results;
    }
}

/// Transposes in a row are one, or none. What nothing reads any more is left to be dropped.
pub fn transposes(steps: &mut [Step], outputs: &mut [Value]) {
    for index in 0..steps.len() {
        let Some(outer) = permutation(&steps[index].expr) else { continue };
        let &[operand] = steps[index].operands.as_slice() else { continue };
        let Some(source) = steps[..index].iter().find(|step| step.results == [operand]) else { continue };
        let (Some(inner), &[from]) = (permutation(&source.expr), source.operands.as_slice()) else { continue };
        let Some(both) = outer.iter().map(|&axis| inner.get(axis).copied()).collect::<Option<Vec<usize>>>() else {
            continue;
        };
        if both.iter().copied().eq(0..both.len()) {
            let replaced = steps[index].results.clone();
            let reads = steps.iter_mut().flat_map(|step| &mut step.operands).chain(outputs.iter_mut());
            reads.filter(|value| replaced.contains(value)).for_each(|value| *value = from);
        } else {
            steps[index].expr = reordered(Expr::Operand(0), &both);
            steps[index].operands = vec![from];
        }
    }
}

/// What is split in two and joined in the other order is rolled.
pub fn rolls(steps: &mut Vec<Step>, outputs: &[Value]) {
    let readers = readers(steps, outputs);
    for index in (0..steps.len()).rev() {
        let Some((joined_at, order)) = concatenation(&steps[index].expr) else { continue };
        let read: Vec<Value> = order.iter().filter_map(|&at| steps[index].operands.get(at).copied()).collect();
        let is_turned = |step: &Step| read.iter().rev().eq(step.results.iter()) && read.len() == 2;
        let Some(source) = steps[..index].iter().position(is_turned) else { continue };
        let Some((x, first, split_at)) = split_in_two(&steps[source].expr) else { continue };
        if split_at != joined_at || read.iter().any(|value| readers.get(value) != Some(&1)) {
            continue;
        }
        let shift = Arg::or("shift", Expr::slot("shift", Lit::Int(-first)), Lit::None);
        let axis = Arg::keyword("axis", Expr::slot("axis", Lit::Int(split_at)), None);
        steps[index].expr = Expr::call("ops.roll", vec![Arg::new(x), shift, axis]);
        steps[index].operands = steps[source].operands.clone();
        steps[source].results.clear();
    }
    steps.retain(|step| !step.results.is_empty());
    into_source(steps, |step, source, value| (readers.get(&value) == Some(&1)).then(|| both_rolls(step, source))?);
}

/// A roll of what was rolled along another axis.
fn both_rolls(outer: &Expr, inner: &Expr) -> Option<Expr> {
    let (Expr::Call(function, outer), Expr::Call(other, inner)) = (outer, inner) else { return None };
    if [function, other].iter().any(|name| ***name != Expr::name("ops.roll")) {
        return None;
    }
    let (outer, inner) = (<&[Arg; 3]>::try_from(outer.as_slice()).ok()?, <&[Arg; 3]>::try_from(inner.as_slice()).ok()?);
    let pair = |at: usize, name: &str| -> Option<Expr> {
        let numbers = [integer(&inner[at].value)?, integer(&outer[at].value)?].map(Lit::Int);
        Some(Expr::slot(name, Lit::Tuple(numbers.to_vec())))
    };
    let shift = Arg { value: pair(1, "shift")?, ..inner[1].clone() };
    let axis = Arg { value: pair(2, "axis")?, ..inner[2].clone() };
    Some(Expr::Call(function.clone(), vec![inner[0].clone(), shift, axis]))
}

fn integer(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Slot(slot) => match slot.value {
            Lit::Int(value) => Some(value),
            _ => None,
        },
        _ => None,
    }
}

fn argument<'a>(args: &'a [Arg], name: &str) -> Option<&'a Expr> {
    args.iter().find(|arg| arg.name.as_deref() == Some(name)).map(|arg| &arg.value)
}

/// The axis of a concatenation, and the operands that it joins.
fn concatenation(expr: &Expr) -> Option<(i64, Vec<usize>)> {
    let Expr::Call(layer, args) = expr else { return None };
    let Expr::Call(class, made) = layer.as_ref() else { return None };
    let (true, [Arg { value: Expr::List(parts), .. }]) = (**class == Expr::name("layers.Concatenate"), args.as_slice())
    else {
        return None;
    };
    let operand = |part: &Expr| match part {
        Expr::Operand(at) => Some(*at),
        _ => None,
    };
    Some((integer(argument(made, "axis")?)?, parts.iter().map(operand).collect::<Option<_>>()?))
}

/// What is split in two, the size of the first part, and the axis.
fn split_in_two(expr: &Expr) -> Option<(Expr, i64, i64)> {
    let Expr::Call(function, args) = expr else { return None };
    if **function != Expr::name("ops.split") {
        return None;
    }
    let [x, ends, axis] = args.as_slice() else { return None };
    let Expr::List(ends) = &ends.value else { return None };
    let [end] = ends.as_slice() else { return None };
    Some((x.value.clone(), integer(end)?, integer(&axis.value)?))
}

/// The order of axes that `ops.transpose` or `layers.Permute` gives.
fn permutation(expr: &Expr) -> Option<Vec<usize>> {
    let Expr::Call(function, args) = expr else { return None };
    let (axes, batched) = match function.as_ref() {
        Expr::Name(name) if name == "ops.transpose" => (&args.get(1)?.value, false),
        Expr::Call(class, made) if **class == Expr::name("layers.Permute") => (&made.first()?.value, true),
        _ => return None,
    };
    let Expr::Slot(slot) = axes else { return None };
    let Lit::Tuple(axes) = &slot.value else { return None };
    let axes = axes.iter().map(|axis| match axis {
        Lit::Int(axis) => usize::try_from(*axis).ok(),
        _ => None,
    });
    batched.then_some(Some(0)).into_iter().chain(axes).collect()
}

/// A layer with the activation that follows it, if it can have one.
fn with_activation(step: &Expr, source: &Expr) -> Option<Expr> {
    let name = activation_name(step)?;
    let Expr::Call(layer, args) = source else { return None };
    let Expr::Call(class, made) = layer.as_ref() else { return None };
    let Expr::Name(class_name) = class.as_ref() else { return None };
    let takes = class_name == "layers.Dense" || (class_name.starts_with("layers.") && class_name.contains("Conv"));
    if !takes || made.iter().any(|arg| arg.name.as_deref() == Some("activation")) {
        return None;
    }
    let mut made = made.clone();
    let activation = Expr::slot("activation", Lit::Str(name));
    made.insert(made.len().saturating_sub(1), Arg::keyword("activation", activation, None));
    Some(Expr::Call(Box::new(Expr::Call(class.clone(), made)), args.clone()))
}

/// Whether an expression is a call of a layer of this class.
fn is_call_of(expr: &Expr, class: &str) -> bool {
    matches!(expr, Expr::Call(layer, _) if matches!(layer.as_ref(), Expr::Call(name, _) if **name == Expr::name(class)))
}

/// A call of global pooling that keeps axes, as one that does not.
fn without_kept_axes(expr: &Expr) -> Option<Expr> {
    let Expr::Call(layer, args) = expr else { return None };
    let Expr::Call(class, made) = layer.as_ref() else { return None };
    let global = matches!(class.as_ref(), Expr::Name(name) if name.starts_with("layers.Global"));
    let keeps = |arg: &Arg| arg.name.as_deref() == Some("keepdims");
    let kept = made.iter().filter(|arg| !keeps(arg)).cloned().collect::<Vec<_>>();
    (global && kept.len() < made.len()).then(|| Expr::Call(Box::new(Expr::Call(class.clone(), kept)), args.clone()))
}

/// The activation that a call of a layer is, as an argument of other layers.
fn activation_name(expr: &Expr) -> Option<String> {
    let Expr::Call(layer, _) = expr else { return None };
    let Expr::Call(class, made) = layer.as_ref() else { return None };
    let Expr::Name(class) = class.as_ref() else { return None };
    let plain = made.iter().all(Arg::is_default);
    match class.as_str() {
        "layers.ReLU" if plain => Some("relu".to_owned()),
        "layers.Softmax" if plain => Some("softmax".to_owned()),
        "layers.Activation" => match made.first().map(|arg| &arg.value) {
            Some(Expr::Slot(slot)) => match &slot.value {
                Lit::Str(name) if name != "mish" => Some(name.clone()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}
