//! Loops: modules in a row that are called one after the other, and lists of tensors that grow meanwhile.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use modelport_ir::Value;

use super::form::{Form, REST, Shape};
use super::series;
use crate::plan::block::Item;
use crate::plan::leaf::{Member, MemberKind};
use crate::python::{Arg, Expr, LOOPED, Loop};

/// So many calls in a row that pass one value on are a loop.
const RUN: usize = 3;
/// So many calls in a row that append to a list are a loop.
const GROWING: usize = 2;

/// A value that the graph does not have, near one that it has.
fn beside(value: Value) -> Value {
    Value { node: value.node, output: usize::MAX }
}

/// Which values are in a list of operands.
fn listed(expr: &Expr, operands: &[Value]) -> Option<Vec<Value>> {
    let Expr::List(items) = expr else { return None };
    let value = |item: &Expr| match item {
        Expr::Operand(index) => operands.get(*index).copied(),
        _ => None,
    };
    items.iter().map(value).collect::<Option<Vec<Value>>>().filter(|values| !values.is_empty())
}

/// How often a call or the result reads each value.
fn reads(form: &Form) -> HashMap<Value, usize> {
    let mut reads: HashMap<Value, usize> = HashMap::new();
    for item in &form.items {
        for (index, value) in item.operands.iter().enumerate() {
            *reads.entry(*value).or_default() += item.expr.count(&|e| *e == Expr::Operand(index));
        }
    }
    form.outputs.iter().for_each(|value| *reads.entry(*value).or_default() += 1);
    reads
}

/// The call with each list of these values as the one value `list`.
fn with_list(item: &Item, values: &[Value], list: Value) -> Item {
    let mut operands: Vec<Value> = Vec::new();
    let mut number = |value: Value| {
        operands.iter().position(|known| *known == value).unwrap_or_else(|| {
            operands.push(value);
            operands.len() - 1
        })
    };
    let expr = item.expr.rewrite(&mut |e| match e {
        Expr::Operand(index) => item.operands.get(*index).map(|value| Expr::Operand(number(*value))),
        list_of if listed(list_of, &item.operands).as_deref() == Some(values) => Some(Expr::Operand(number(list))),
        _ => None,
    });
    Item { expr, operands, ..item.clone() }
}

/// A call that joins what enters a form and nothing else reads, and which of its inputs these are.
fn joined(form: &Form) -> Option<(usize, Range<usize>)> {
    let reads = reads(form);
    form.items.iter().enumerate().find_map(|(index, item)| {
        let mut found = None;
        item.expr.rewrite(&mut |e| {
            found = found.take().or_else(|| listed(e, &item.operands));
            None
        });
        let values = found?;
        let start = form.inputs.iter().position(|input| *input == values[0])?;
        let range = start..start + values.len();
        let alone = values.iter().all(|value| reads.get(value) == Some(&1));
        (alone && form.inputs.get(range.clone()) == Some(&values)).then_some((index, range))
    })
}

/// Modules of one class that join what enters them, some more of it and some less, take it as one list. Says for each
/// such module which of its operands these are.
pub fn lists(forms: &mut [Form]) -> Vec<(usize, (usize, usize))> {
    let sites: Vec<Option<(usize, Range<usize>)>> = forms.iter().map(joined).collect();
    let lengths: HashSet<usize> = sites.iter().flatten().map(|(_, range)| range.len()).collect();
    // One tensor need not be joined.
    let single = |form: &Form, site: &Option<_>| site.is_none() && form.inputs.len() == 1;
    let singles = forms.iter().zip(&sites).filter(|(form, site)| single(form, site)).count();
    if lengths.is_empty() || lengths.len() + singles.min(1) < 2 {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut model: Option<(Item, String, usize)> = None;
    for (form, site) in forms.iter_mut().zip(&sites) {
        let Some((index, range)) = site else { continue };
        let values = form.inputs[range.clone()].to_vec();
        form.items[*index] = with_list(&form.items[*index], &values, values[0]);
        form.inputs.drain(range.start + 1..range.end);
        form.operands.clone_from(&form.inputs);
        form.lists.insert(values[0]);
        found.push((form.module, (range.start, range.len())));
        if form.items[*index].operands.len() == 1 && form.items[*index].members.is_empty() {
            model = Some((form.items[*index].clone(), form.signature(), *index));
        }
    }
    let Some((item, signature, at)) = model else { return found };
    for (form, _) in forms.iter_mut().zip(&sites).filter(|(form, site)| single(form, site)) {
        let (input, inner) = (form.inputs[0], beside(form.inputs[0]));
        let mut other = form.clone();
        let values = other.items.iter_mut().flat_map(|item| &mut item.operands).chain(&mut other.outputs);
        values.filter(|value| **value == input).for_each(|value| *value = inner);
        let join = Item { operands: vec![input], results: vec![inner], ..item.clone() };
        other.items.insert(at.min(other.items.len()), join);
        if other.signature() == signature {
            other.lists.insert(input);
            *form = other;
            found.push((form.module, (0, 1)));
        }
    }
    found
}

/// What a call gives to a module: a value, or a list.
#[derive(Clone, Debug, PartialEq)]
enum Given {
    Value(Value),
    List(Vec<Value>),
}

/// A call of a module that is one of a row.
struct Entry {
    /// What the row is called: `self.layers` or `self.layer`.
    row: String,
    /// Whether it is an entry of a list of modules.
    in_list: bool,
    number: usize,
    given: Vec<Given>,
    result: Value,
}

fn entry(item: &Item) -> Option<Entry> {
    let (Expr::Call(function, args), &[result]) = (&item.expr, item.results.as_slice()) else { return None };
    let given = |arg: &Arg| match &arg.value {
        Expr::Operand(index) => item.operands.get(*index).copied().map(Given::Value),
        list => listed(list, &item.operands).map(Given::List),
    };
    let (row, in_list, number) = match &**function {
        Expr::Index(list, index) => match index.as_slice() {
            [Expr::Name(number)] => (list.to_string(), true, number.parse().ok()?),
            _ => return None,
        },
        Expr::Attr(module, name) if **module == Expr::name("self") => {
            let (stem, number) = series::numbered(&[name.as_str()])?;
            (stem, false, number)
        }
        _ => return None,
    };
    Some(Entry { row, in_list, number, given: args.iter().map(given).collect::<Option<_>>()?, result })
}

/// What goes through a row.
enum Kind {
    /// A list, to which each result is appended.
    Grows(Vec<Value>),
    /// The value at this place among what is given.
    Passes(usize),
}

/// The longest row of calls that begins at an item.
fn row(entries: &[Option<Entry>], at: usize, reads: &HashMap<Value, usize>) -> Option<(usize, Kind)> {
    let first = entries[at].as_ref()?;
    let follows = |length: usize| {
        let (last, next) = (entries[at + length - 1].as_ref()?, entries.get(at + length)?.as_ref()?);
        let same = next.row == first.row && next.in_list == first.in_list && next.number == first.number + length;
        (same && next.given.len() == first.given.len()).then_some((last, next))
    };
    if let [Given::List(start)] = first.given.as_slice() {
        let mut list = start.clone();
        let mut length = 1;
        while let Some((last, next)) = follows(length) {
            list.push(last.result);
            if next.given != [Given::List(list.clone())] {
                list.pop();
                break;
            }
            length += 1;
        }
        list.push(entries[at + length - 1].as_ref()?.result);
        return (length >= GROWING).then_some((length, Kind::Grows(list)));
    }
    let (_, second) = follows(1)?;
    let place = second.given.iter().position(|given| *given == Given::Value(first.result))?;
    let others_are_kept = |entry: &Entry| {
        let pairs = entry.given.iter().zip(&first.given).enumerate();
        pairs.filter(|(index, _)| *index != place).all(|(_, (a, b))| a == b && *b != first.given[place])
    };
    let mut length = 1;
    while let Some((last, next)) = follows(length) {
        let passed = next.given[place] == Given::Value(last.result) && reads.get(&last.result) == Some(&1);
        if !passed || !others_are_kept(next) {
            break;
        }
        length += 1;
    }
    (length >= RUN && matches!(first.given[place], Given::Value(_))).then_some((length, Kind::Passes(place)))
}

/// Rows of calls become loops. `size` is how many modules a list of modules has.
pub fn fold(form: &mut Form, size: &dyn Fn(&str) -> usize) {
    if form.shape != Shape::Class {
        return;
    }
    let mut at = 0;
    while at < form.items.len() {
        let reads = reads(form);
        let entries: Vec<Option<Entry>> = form.items.iter().map(entry).collect();
        let found = row(&entries, at, &reads);
        match found.and_then(|(length, kind)| looped(form, &entries[at..at + length], at, &kind, size)) {
            Some((items, length)) => {
                at += items.len();
                form.items.splice(at - items.len()..at - items.len() + length, items);
            }
            None => at += 1,
        }
    }
}

/// A row as a loop: what takes the place of how many items.
fn looped(
    form: &mut Form,
    entries: &[Option<Entry>],
    at: usize,
    kind: &Kind,
    size: &dyn Fn(&str) -> usize,
) -> Option<(Vec<Item>, usize)> {
    let length = entries.len();
    let first = entries.first()?.as_ref()?;
    let items = &form.items[at..at + length];
    let mut members: Vec<Member> = items.iter().flat_map(|item| item.members.clone()).collect();
    let count = || Box::new(Expr::int("num_layers", length));
    let over = if first.in_list {
        if first.number != 0 || size(&first.row) != length {
            return None;
        }
        Expr::name(&first.row)
    } else {
        let own = |item: &Item| item.members.len() == 1;
        let ctors: Vec<&Expr> = members.iter().map(|member| &member.ctor).collect();
        if !items.iter().all(own) || length < 2 {
            return None;
        }
        let names: Vec<&str> = members.iter().map(|member| member.role.as_str()).collect();
        let (stem, start) = series::numbered(&names)?;
        let name = series::numbered_name(&stem, start);
        let row = Expr::Repeat(Box::new(series::entry(&ctors)?), count());
        let params = members.iter().flat_map(|m| m.params.iter().map(|param| param.below(&m.role))).collect();
        let modules = form.items.iter().flat_map(|item| &item.members).filter(|m| m.kind == MemberKind::Module).count();
        let alone = modules == length && form.items.iter().all(|item| item.role != REST);
        members = vec![Member { kind: MemberKind::Row, role: name.to_string(), ctor: row, params }];
        if alone {
            Expr::call("self.children", Vec::new())
        } else {
            let module = Expr::call("getattr", vec![Arg::new(Expr::name("self")), Arg::new(name)]);
            Expr::List(vec![Expr::Repeat(Box::new(module), count())])
        }
    };
    let layer = |args: Vec<Expr>| Expr::call(LOOPED, args.into_iter().map(Arg::new).collect());
    let over_all = |body, passed| Expr::For(Box::new(Loop { layer: Expr::name(LOOPED), over, body, passed }));
    match kind {
        Kind::Passes(place) => {
            let (start, last) = (&items[0], &items[length - 1]);
            let Expr::Call(_, args) = &start.expr else { return None };
            let body = layer(args.iter().map(|arg| arg.value.clone()).collect());
            let passed = args.get(*place)?.value.clone();
            let expr = over_all(body, Some(passed));
            let results = last.results.clone();
            let hints = vec!["x".to_owned()];
            Some((vec![Item { hints, ..Item::placed("loop", members, expr, start.operands.clone(), results) }], length))
        }
        Kind::Grows(values) => {
            let before = values.len() - length;
            let mut reads_of = reads(form);
            for (position, value) in values.iter().enumerate().skip(before) {
                *reads_of.get_mut(value)? -= length - 1 - (position - before);
            }
            // What reads the results must read all of them, as the whole list.
            let whole: Vec<usize> = form
                .items
                .iter()
                .map(|item| {
                    let is_whole = |e: &Expr| listed(e, &item.operands).as_ref() == Some(values);
                    item.expr.count(&is_whole)
                })
                .collect();
            let times: usize = whole.iter().sum();
            if times == 0 || values.iter().skip(before).any(|value| reads_of.get(value) != Some(&times)) {
                return None;
            }
            let list = beside(values[before]);
            let start = Expr::List((0..before).map(Expr::Operand).collect());
            let start = Item::placed("features", Vec::new(), start, values[..before].to_vec(), vec![list]);
            let append = Expr::Operand(0).method("append", vec![Arg::new(layer(vec![Expr::Operand(0)]))]);
            let append = Item::placed("loop", members, over_all(append, None), vec![list], Vec::new());
            for (item, times) in form.items.iter_mut().zip(whole) {
                if times > 0 {
                    *item = with_list(item, values, list);
                }
            }
            Some((vec![Item { hints: vec!["features".to_owned()], ..start }, append], length))
        }
    }
}
