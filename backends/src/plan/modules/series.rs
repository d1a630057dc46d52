//! Rows of modules that differ by a number at most: `*[Layer(64 + 32 * i) for i in range(6)]`.

use crate::python::{Arg, Expr, Lit, Slot};

/// So many in a row are counted instead of listed.
const RUN: usize = 3;

/// The number of an entry in a row.
fn index() -> Expr {
    Expr::name("i")
}

fn slots(expr: &Expr) -> Vec<&Slot> {
    let mut slots = Vec::new();
    expr.slots(&mut |slot| slots.push(slot));
    slots
}

fn blank(expr: &Expr) -> Expr {
    expr.map_slots(&mut |_| Expr::name("#"))
}

/// How a number grows along a row: not at all, or by a step.
fn step(values: &[&Slot]) -> Option<i64> {
    let number = |slot: &Slot| match slot.value {
        Lit::Int(value) => Some(value),
        _ => None,
    };
    if values.iter().all(|slot| slot.value == values[0].value) {
        return Some(0);
    }
    let numbers: Vec<i64> = values.iter().map(|slot| number(slot)).collect::<Option<_>>()?;
    let step = numbers[1].checked_sub(numbers[0])?;
    numbers.windows(2).all(|pair| pair[1].checked_sub(pair[0]) == Some(step)).then_some(step)
}

/// What makes entry `i` of a row of two or more, if one expression does.
pub fn entry(row: &[&Expr]) -> Option<Expr> {
    let first = row.first()?;
    let form = blank(first);
    if row.len() < 2 || matches!(first, Expr::Repeat(..)) || row.iter().any(|entry| blank(entry) != form) {
        return None;
    }
    let all: Vec<Vec<&Slot>> = row.iter().map(|entry| slots(entry)).collect();
    let steps: Vec<i64> = (0..all[0].len())
        .map(|at| step(&all.iter().map(|slots| slots[at]).collect::<Vec<_>>()))
        .collect::<Option<_>>()?;
    // The index of a row inside would stand for this one's.
    if steps.iter().any(|&step| step != 0) && first.count(&|e| matches!(e, Expr::Repeat(..))) > 0 {
        return None;
    }
    let mut at = 0;
    Some(first.map_slots(&mut |slot| {
        at += 1;
        match steps[at - 1] {
            0 => Expr::Slot(slot.clone()),
            step => Expr::Slot(slot.clone()).binary("+", Expr::slot("growth", Lit::Int(step)).binary("*", index())),
        }
    }))
}

/// The longest row that begins here.
fn row(entries: &[&Expr]) -> Option<(usize, Expr)> {
    let mut longest = None;
    for length in RUN..=entries.len() {
        match entry(&entries[..length]) {
            Some(entry) => longest = Some((length, entry)),
            None => break,
        }
    }
    longest
}

fn count(length: usize) -> Box<Expr> {
    Box::new(Expr::int("num_layers", length))
}

/// Entries of a chain or list, rows of them counted.
pub fn folded(entries: &[Expr]) -> Vec<Arg> {
    let mut folded = Vec::new();
    let mut at = 0;
    while at < entries.len() {
        let rest: Vec<&Expr> = entries[at..].iter().collect();
        match row(&rest) {
            Some((length, entry)) => {
                folded.push(Arg::new(Expr::Repeat(Box::new(entry), count(length))));
                at += length;
            }
            None => {
                folded.push(Arg::new(entries[at].clone()));
                at += 1;
            }
        }
    }
    folded
}

/// What names of a row begin with, and the number of the first.
pub fn numbered(names: &[&str]) -> Option<(String, usize)> {
    let first = names.first()?;
    let stem = first.trim_end_matches(|c: char| c.is_ascii_digit());
    let start: usize = first.strip_prefix(stem)?.parse().ok()?;
    let fits = names.iter().enumerate().all(|(i, name)| **name == format!("{stem}{}", start + i));
    (fits && !stem.is_empty()).then(|| (stem.to_owned(), start))
}

/// `f"layer{i + 1}"`
pub fn numbered_name(stem: &str, start: usize) -> Expr {
    let number = if start == 0 { "i".to_owned() } else { format!("i + {start}") };
    Expr::name(&format!("f\"{stem}{{{number}}}\""))
}

/// Pairs of names and modules, rows of them counted.
pub fn pairs(named: &[(String, Expr)]) -> Vec<Expr> {
    let pair = |name: Expr, ctor: Expr| Expr::Tuple(vec![name, ctor]);
    let mut all = Vec::new();
    let mut at = 0;
    while at < named.len() {
        let rest = &named[at..];
        let ctors: Vec<&Expr> = rest.iter().map(|(_, ctor)| ctor).collect();
        let found = row(&ctors).and_then(|(length, entry)| {
            let names: Vec<&str> = rest[..length].iter().map(|(name, _)| name.as_str()).collect();
            numbered(&names).map(|(stem, start)| (length, pair(numbered_name(&stem, start), entry)))
        });
        match found {
            Some((length, entry)) => {
                all.push(Expr::Repeat(Box::new(entry), count(length)));
                at += length;
            }
            None => {
                all.push(pair(Expr::name(&Lit::Str(rest[0].0.clone()).to_string()), rest[0].1.clone()));
                at += 1;
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(size: usize) -> Expr {
        Expr::call("Layer", vec![Arg::new(Expr::int("in_channels", size)), Arg::new(Expr::int("out_channels", 4))])
    }

    fn text(entries: &[Expr]) -> String {
        Expr::call("nn.Sequential", folded(entries)).to_string()
    }

    #[test]
    fn rows_are_counted() {
        assert_eq!(text(&[layer(4), layer(4), layer(4)]), "nn.Sequential(*[Layer(4, 4) for _ in range(3)])");
        let growing: Vec<Expr> = (0..4).map(|i| layer(8 + 2 * i)).collect();
        assert_eq!(text(&growing), "nn.Sequential(*[Layer(8 + 2 * i, 4) for i in range(4)])");
        assert_eq!(text(&growing[..2]), "nn.Sequential(Layer(8, 4), Layer(10, 4))");
    }

    #[test]
    fn names_with_numbers() {
        let named: Vec<(String, Expr)> = (1..4).map(|i| (format!("layer{i}"), layer(4))).collect();
        let text = Expr::List(pairs(&named)).to_string();
        assert_eq!(text, "[(f\"layer{i + 1}\", Layer(4, 4)) for i in range(3)]");
    }
}
