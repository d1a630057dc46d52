//! What TorchScript computes with plain data: numbers, strings, lists. No tensor takes part.

use std::rc::Rc;

use modelport_ir::DType;

use super::value::Value;
use crate::pytorch::arg::Arg;
use crate::symbolic::{Arithmetic, Elem, Expressions};

/// Longest list or string that code may make.
const MAX_LEN: usize = 1 << 20;

/// What an operator makes of plain values. `None`: it is none of these operators, or not for these values.
///
/// # Errors
/// One sentence: what can't be computed.
pub fn evaluate(sizes: &mut Expressions, op: &str, args: &[Value]) -> Option<Result<Value, String>> {
    use Value as V;
    let ok = |value: Value| Some(Ok(value));
    let known = |value: Option<bool>| match value {
        Some(value) => Some(Ok(V::Bool(value))),
        None => Some(Err("depends on a size that is free, or on the elements of a tensor".to_owned())),
    };
    match (op, args) {
        ("__is__", [a, V::None]) | ("__is__", [V::None, a]) => ok(V::Bool(matches!(a, V::None))),
        ("__isnot__", [a, V::None]) | ("__isnot__", [V::None, a]) => ok(V::Bool(!matches!(a, V::None))),
        // Of two tensors or modules, only what is the same value is the same object for sure.
        ("__is__", [a, b]) => ok(V::Bool(is_same(a, b))),
        ("__isnot__", [a, b]) => ok(V::Bool(!is_same(a, b))),
        // Devices are their names.
        ("device" | "type", [V::Str(_), ..]) => ok(args[0].clone()),
        ("__not__", [a]) => known(a.truth().map(|a| !a)),
        ("dict", []) => ok(V::Dict(Rc::default())),
        ("dict", [V::Dict(items)]) => ok(V::Dict(Rc::new(items.as_ref().clone()))),
        ("dict", [V::List(pairs)]) => {
            let pair =
                |pair: &V| pair.items().and_then(|pair| <[V; 2]>::try_from(pair).ok()).map(|[key, value]| (key, value));
            let pairs = pairs.borrow().iter().map(pair).collect::<Option<Vec<_>>>()?;
            ok(V::Dict(Rc::new(pairs.into())))
        }
        ("len", [V::List(items)]) => ok(V::Int(items.borrow().len() as i64)),
        ("len", [V::Tuple(items)]) => ok(V::Int(items.len() as i64)),
        ("len", [V::Dict(items)]) => ok(V::Int(items.borrow().len() as i64)),
        ("len", [V::Str(text)]) => ok(V::Int(text.chars().count() as i64)),
        ("append", [V::List(items), item]) => {
            if items.borrow().len() >= MAX_LEN {
                return Some(Err(format!("makes a list of more than {MAX_LEN} items")));
            }
            items.borrow_mut().push(item.clone());
            ok(args[0].clone())
        }
        ("extend", [V::List(items), more]) => {
            let more = more.items()?;
            if items.borrow().len() + more.len() > MAX_LEN {
                return Some(Err(format!("makes a list of more than {MAX_LEN} items")));
            }
            items.borrow_mut().extend(more);
            ok(V::None)
        }
        ("insert", [V::List(items), at, item]) => {
            let at = position(at.int()?, items.borrow().len());
            items.borrow_mut().insert(at, item.clone());
            ok(V::None)
        }
        ("pop", [V::List(items), rest @ ..]) => {
            let at = rest.first().map_or(Some(-1), Value::int)?;
            let at = position(at, items.borrow().len());
            if at >= items.borrow().len() {
                return Some(Err("takes an item of an empty list".to_owned()));
            }
            let item = items.borrow_mut().remove(at);
            ok(item)
        }
        ("reverse", [V::List(items)]) => {
            items.borrow_mut().reverse();
            ok(V::None)
        }
        ("clear", [V::List(items)]) => {
            items.borrow_mut().clear();
            ok(V::None)
        }
        ("copy" | "list", [items]) => items.items().map(|items| Ok(V::list(items))),
        ("_set_item", [V::List(items), at, item]) => {
            let at = at.int()?;
            let len = items.borrow().len();
            match items.borrow_mut().get_mut(index(at, len)?) {
                Some(place) => *place = item.clone(),
                None => return Some(Err(format!("item {at} does not exist in a list of {len}"))),
            }
            ok(args[0].clone())
        }
        ("_set_item", [V::Dict(items), key, value]) => {
            let mut items = items.borrow_mut();
            match items.iter_mut().find(|(known, _)| known.equals(key) == Some(true)) {
                Some((_, place)) => *place = value.clone(),
                None => items.push((key.clone(), value.clone())),
            }
            ok(args[0].clone())
        }
        ("__getitem__", [of, at]) => Some(item(of, at)),
        ("keys", [V::Dict(items)]) => ok(V::list(items.borrow().iter().map(|(key, _)| key.clone()).collect())),
        ("values", [V::Dict(items)]) => ok(V::list(items.borrow().iter().map(|(_, value)| value.clone()).collect())),
        ("items", [V::Dict(items)]) => {
            let pairs = items.borrow().iter().map(|(key, value)| V::tuple(vec![key.clone(), value.clone()])).collect();
            ok(V::list(pairs))
        }
        ("__contains__", [V::Dict(items), key]) => {
            ok(V::Bool(items.borrow().iter().any(|(known, _)| known.equals(key) == Some(true))))
        }
        ("__contains__", [of, item]) => {
            let items = of.items()?;
            ok(V::Bool(items.iter().any(|known| known.equals(item) == Some(true))))
        }
        ("slice", [V::List(items), rest @ ..]) => {
            let items = items.borrow();
            let bound = |at: usize, default: usize| match rest.get(at) {
                None | Some(V::None) => Some(default),
                Some(value) => value.int().map(|value| position(value, items.len())),
            };
            let (from, to) = (bound(0, 0)?, bound(1, items.len())?);
            let step = rest.get(2).and_then(Value::int).unwrap_or(1);
            let step = usize::try_from(step).ok().filter(|step| *step > 0)?;
            ok(V::list(items.get(from..to.max(from)).unwrap_or_default().iter().step_by(step).cloned().collect()))
        }
        ("sum", [V::List(items)]) => {
            let items = items.borrow().clone();
            Some(items.iter().try_fold(V::Int(0), |sum, item| {
                arithmetic(sizes, "add", &sum, item).unwrap_or_else(|| Err("can't be added up".to_owned()))
            }))
        }
        ("any" | "all", [V::List(items)]) => {
            let truths: Option<Vec<bool>> = items.borrow().iter().map(Value::truth).collect();
            known(truths.map(|truths| if op == "any" { truths.contains(&true) } else { !truths.contains(&false) }))
        }
        ("min" | "max", [V::List(items)]) if args.len() == 1 => {
            let items = items.borrow().clone();
            let first = items.first()?.clone();
            Some(items.iter().skip(1).try_fold(first, |best, item| extreme(sizes, op, &best, item)))
        }
        ("min" | "max", [a, b]) if a.elem().and(b.elem()).is_some() => Some(extreme(sizes, op, a, b)),
        ("__range_length", [from, to, step]) => {
            let (from, to, step) = (from.int()?, to.int()?, step.int().filter(|step| *step != 0)?);
            let span = if step > 0 { to.checked_sub(from)? } else { from.checked_sub(to)? };
            ok(V::Int((span.max(0) as u64).div_ceil(step.unsigned_abs()) as i64))
        }
        ("__derive_index", [at, from, step]) => {
            ok(V::Int(at.int()?.checked_mul(step.int()?)?.checked_add(from.int()?)?))
        }
        ("eq", [a, b]) => known(equal(sizes, a, b)),
        ("ne", [a, b]) => known(equal(sizes, a, b).map(|equal| !equal)),
        ("lt", [a, b]) => known(less(sizes, a, b)),
        ("gt", [a, b]) => known(less(sizes, b, a)),
        ("le", [a, b]) => known(less(sizes, b, a).map(|less| !less)),
        ("ge", [a, b]) => known(less(sizes, a, b).map(|less| !less)),
        ("__and__" | "__or__" | "__xor__", [V::Bool(a), V::Bool(b)]) => ok(V::Bool(match op {
            "__and__" => *a && *b,
            "__or__" => *a || *b,
            _ => a != b,
        })),
        ("neg", [V::Size(_)]) => arithmetic(sizes, "mul", &args[0], &V::Int(-1)),
        ("neg", [V::Int(a)]) => ok(V::Int(a.checked_neg()?)),
        ("neg", [V::Float(a)]) => ok(V::Float(-a)),
        ("abs", [V::Int(a)]) => ok(V::Int(a.checked_abs()?)),
        ("Int" | "IntImplicit", [a @ (V::Size(_) | V::Int(_))]) => ok(a.clone()),
        ("Int" | "IntImplicit", [V::Bool(a)]) => ok(V::Int(i64::from(*a))),
        ("Int" | "IntImplicit", [V::Float(a)]) => ok(V::Int(*a as i64)),
        ("Float" | "FloatImplicit", [a]) => a.float().map(|a| Ok(V::Float(a))),
        ("Bool", [a]) => known(a.truth()),
        ("ScalarImplicit" | "item" | "NumToTensor" | "clone" | "detach" | "contiguous", [a, ..])
            if a.elem().is_some() =>
        {
            ok(a.clone())
        }
        ("floor" | "ceil" | "round" | "trunc", [V::Int(_) | V::Size(_), ..]) => ok(args[0].clone()),
        // `math.floor` and the like give integers.
        ("floor", [V::Float(a)]) => ok(V::Int(a.floor() as i64)),
        ("ceil", [V::Float(a)]) => ok(V::Int(a.ceil() as i64)),
        ("sqrt", [a]) => a.float().map(|a| Ok(V::Float(a.sqrt()))),
        ("exp", [a]) => a.float().map(|a| Ok(V::Float(a.exp()))),
        ("log", [a]) => a.float().map(|a| Ok(V::Float(a.ln()))),
        ("add", [V::List(a), V::List(b)]) => {
            let items: Vec<Value> = a.borrow().iter().chain(b.borrow().iter()).cloned().collect();
            if items.len() > MAX_LEN {
                return Some(Err(format!("makes a list of more than {MAX_LEN} items")));
            }
            ok(V::list(items))
        }
        ("add", [V::Str(a), V::Str(b)]) if a.len() + b.len() < MAX_LEN => ok(V::text(&format!("{a}{b}"))),
        ("mul", [V::List(items), V::Int(times)]) => {
            let items = items.borrow();
            let times = usize::try_from(*times).unwrap_or(0);
            if items.len().checked_mul(times).is_none_or(|len| len > MAX_LEN) {
                return Some(Err(format!("makes a list of more than {MAX_LEN} items")));
            }
            ok(V::list((0..times).flat_map(|_| items.iter().cloned()).collect()))
        }
        (op, [a, b]) => arithmetic(sizes, op, a, b),
        // `torch.add(a, b, alpha)`, on numbers.
        (op, [a, b, V::Int(1)]) => arithmetic(sizes, op, a, b),
        _ => None,
    }
}

/// The place that an index means in a list, within its bounds.
fn position(at: i64, len: usize) -> usize {
    let at = if at < 0 { at.saturating_add(len as i64) } else { at };
    usize::try_from(at).unwrap_or(0).min(len)
}

/// The place that an index means in a list; `None` where no list is that long.
fn index(at: i64, len: usize) -> Option<usize> {
    let at = if at < 0 { at.checked_add(len as i64)? } else { at };
    usize::try_from(at).ok().or(Some(usize::MAX))
}

/// `of[at]`
///
/// # Errors
/// One sentence: there is no such item.
pub fn item(of: &Value, at: &Value) -> Result<Value, String> {
    if let Value::Dict(items) = of {
        let found = items.borrow().iter().find(|(key, _)| key.equals(at) == Some(true)).map(|(_, value)| value.clone());
        return found.ok_or_else(|| format!("a dictionary has no {}", at.describe()));
    }
    let items = of.items().ok_or_else(|| format!("{} has no items", of.describe()))?;
    let at = at.int().ok_or_else(|| format!("{} is no index", at.describe()))?;
    let found = index(at, items.len()).and_then(|at| items.get(at).cloned());
    found.ok_or_else(|| format!("item {at} does not exist in a list of {}", items.len()))
}

fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Tensor(Arg::Tensor(a)), Value::Tensor(Arg::Tensor(b))) => a == b,
        (Value::Tensor(Arg::Weight(a)), Value::Tensor(Arg::Weight(b))) => a.name == b.name,
        (a, b) => a.equals(b) == Some(true),
    }
}

/// Whether two values are equal, where that can be told.
fn equal(sizes: &mut Expressions, a: &Value, b: &Value) -> Option<bool> {
    if let (Some(x), Some(y)) = (a.elem(), b.elem()) {
        return sizes.apply(Arithmetic::Equal, &x, &y, dtype(a, b)).int().map(|int| int != 0);
    }
    match (a.items(), b.items()) {
        (Some(x), Some(y)) if x.len() == y.len() => {
            x.iter().zip(&y).try_fold(true, |all, (x, y)| Some(all && equal_item(sizes, x, y)?))
        }
        _ => a.equals(b),
    }
}

fn equal_item(sizes: &mut Expressions, a: &Value, b: &Value) -> Option<bool> {
    match (a.elem(), b.elem()) {
        (Some(x), Some(y)) => sizes.apply(Arithmetic::Equal, &x, &y, dtype(a, b)).int().map(|int| int != 0),
        _ => a.equals(b),
    }
}

/// Whether one value is less than another, where that can be told.
fn less(sizes: &mut Expressions, a: &Value, b: &Value) -> Option<bool> {
    if let (Value::Str(a), Value::Str(b)) = (a, b) {
        return Some(a < b);
    }
    sizes.apply(Arithmetic::Less, &a.elem()?, &b.elem()?, dtype(a, b)).int().map(|int| int != 0)
}

/// The type in which two numbers are computed with.
fn dtype(a: &Value, b: &Value) -> DType {
    let is_real = |value: &Value| matches!(value, Value::Float(_));
    if is_real(a) || is_real(b) { DType::Float64 } else { DType::Int64 }
}

fn extreme(sizes: &mut Expressions, op: &str, a: &Value, b: &Value) -> Result<Value, String> {
    let op = if op == "min" { Arithmetic::Minimum } else { Arithmetic::Maximum };
    match (a.elem(), b.elem()) {
        (Some(x), Some(y)) => Ok(sizes.apply(op, &x, &y, dtype(a, b)).into()),
        _ => Err("takes the extreme of what is no number".to_owned()),
    }
}

/// Numbers and sizes. `None`: not for these values.
fn arithmetic(sizes: &mut Expressions, op: &str, a: &Value, b: &Value) -> Option<Result<Value, String>> {
    let (x, y) = (a.elem()?, b.elem()?);
    let mut dtype = dtype(a, b);
    let op = match op {
        "add" => Arithmetic::Add,
        "sub" => Arithmetic::Sub,
        "mul" => Arithmetic::Mul,
        "floordiv" | "floor_divide" => Arithmetic::FloorDiv,
        "remainder" => Arithmetic::FloorMod,
        "pow" => {
            // A negative exponent makes a real number.
            if matches!(y, Elem::Int(y) if y < 0) {
                dtype = DType::Float64;
            }
            Arithmetic::Pow
        }
        "div" => {
            // An exact quotient of sizes is a size again.
            if !matches!((&x, &y), (Elem::Linear(_), _) | (_, Elem::Linear(_))) {
                dtype = DType::Float64;
            }
            Arithmetic::Div
        }
        "__lshift__" | "__rshift__" => {
            let (x, y) = (a.int()?, u32::try_from(b.int()?).ok()?);
            let shifted = if op == "__lshift__" { x.checked_shl(y) } else { x.checked_shr(y) };
            return shifted.map(|value| Ok(Value::Int(value)));
        }
        _ => return None,
    };
    Some(Ok(sizes.apply(op, &x, &y, dtype).into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use modelport_ir::Dim;

    fn run(op: &str, args: &[Value]) -> String {
        match evaluate(&mut Expressions::default(), op, args).unwrap() {
            Ok(value) => value.describe(),
            Err(message) => format!("error: {message}"),
        }
    }

    #[test]
    fn integers_divide_as_in_python() {
        let int = |op: &str, a: i64, b: i64| run(op, &[Value::Int(a), Value::Int(b)]);
        for (a, b, quotient, rest) in [(7, 2, "3", "1"), (-7, 2, "-4", "1"), (7, -2, "-4", "-1"), (-7, -2, "3", "-1")] {
            assert_eq!((int("floordiv", a, b).as_str(), int("remainder", a, b).as_str()), (quotient, rest), "{a} {b}");
        }
        assert_eq!(int("div", 7, 2), "3.5");
        assert_eq!(int("pow", 2, -1), "0.5");
        assert_eq!(int("lt", 1, 2), "True");
    }

    #[test]
    fn sizes_stay_free() {
        let size = |factor: usize| {
            let dim = Dim::symbol("N").times(&Dim::Known(factor));
            Value::from(Expressions::default().of_dim(&dim, String::new))
        };
        assert_eq!(run("mul", &[size(1), Value::Int(16)]), size(16).describe());
        assert_eq!(run("floordiv", &[size(16), Value::Int(16)]), size(1).describe());
        assert_eq!(run("gt", &[size(1), Value::Int(0)]), "True");
        assert_eq!(run("sub", &[size(2), size(2)]), "0");
        assert!(run("eq", &[size(1), Value::Int(3)]).starts_with("error"));
    }

    #[test]
    fn lists() {
        let list = Value::list((1..=4).map(Value::Int).collect());
        assert_eq!(run("__getitem__", &[list.clone(), Value::Int(-1)]), "4");
        assert_eq!(run("__getitem__", &[list.clone(), Value::Int(4)]), "error: item 4 does not exist in a list of 4");
        assert_eq!(run("sum", std::slice::from_ref(&list)), "10");
        let part = evaluate(&mut Expressions::default(), "slice", &[list.clone(), Value::Int(-2), Value::None])
            .unwrap()
            .unwrap();
        assert_eq!(run("len", &[part]), "2");
        assert_eq!(run("__contains__", &[list.clone(), Value::Int(3)]), "True");
        assert!(run("mul", &[list, Value::Int(1 << 40)]).starts_with("error"));
    }
}
