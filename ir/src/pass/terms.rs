//! Expressions multiplied out: a sum of products of values, the same however the source had put its brackets.
//!
//! `x * (g * r) + (b - m * (g * r))` and `(x - m) * r * g + b` both become `x g r - m g r + b`, so that a pass states
//! a formula once.

use std::collections::HashMap;

use super::pattern::{is_constant, is_regrouping, near, number};
use crate::graph::{Graph, Value};
use crate::op::{Binary, Op, Unary};
use crate::shape::Shape;

/// Products that a sum may have, factors that a product may have, and operators that may be nested.
const LIMIT: usize = 24;
/// Operators that are looked at: an expression that uses its parts again and again would take forever.
const STEPS: usize = 256;

/// A factor of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Factor {
    /// The value.
    Value(Value),
    /// One divided by the value.
    Inverse(Value),
    /// The value's square root.
    Root(Value),
    /// One divided by the value's square root.
    InverseRoot(Value),
}

impl Factor {
    fn inverse(self) -> Factor {
        match self {
            Factor::Value(v) => Factor::Inverse(v),
            Factor::Inverse(v) => Factor::Value(v),
            Factor::Root(v) => Factor::InverseRoot(v),
            Factor::InverseRoot(v) => Factor::Root(v),
        }
    }
}

impl From<Value> for Factor {
    fn from(value: Value) -> Factor {
        Factor::Value(value)
    }
}

/// A product with a number. Factors are sorted.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// The number.
    pub coefficient: f64,
    /// The factors.
    pub factors: Vec<Factor>,
}

impl Term {
    fn number(coefficient: f64) -> Term {
        Term { coefficient, factors: Vec::new() }
    }

    fn times(&self, other: &Term) -> Term {
        let mut factors = [self.factors.as_slice(), other.factors.as_slice()].concat();
        factors.sort_unstable();
        Term { coefficient: self.coefficient * other.coefficient, factors }
    }

    /// The factors without these, each taken away once; `None` if one is missing.
    pub fn without(&self, taken: &[Factor]) -> Option<Vec<Factor>> {
        let mut rest = self.factors.clone();
        for factor in taken {
            rest.remove(rest.iter().position(|f| f == factor)?);
        }
        Some(rest)
    }
}

/// A sum of products, no two of the same factors.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    /// The products, in the order of their factors.
    pub terms: Vec<Term>,
    /// The shape to which an operand was brought by a reshape that was looked through.
    placed: HashMap<Value, Shape>,
}

impl Sum {
    /// Whether this is the sum of `terms`, up to rounding of the numbers.
    pub fn is(&self, terms: &[(f64, &[Factor])]) -> bool {
        self.terms.len() == terms.len()
            && terms.iter().all(|(coefficient, factors)| {
                let mut factors = factors.to_vec();
                factors.sort_unstable();
                self.terms.iter().any(|term| term.factors == factors && near(term.coefficient, *coefficient))
            })
    }

    /// The number by which `factors` are multiplied; 0 if there is no such product.
    pub fn coefficient(&self, factors: &[Factor]) -> f64 {
        let mut factors = factors.to_vec();
        factors.sort_unstable();
        self.terms.iter().find(|term| term.factors == factors).map_or(0.0, |term| term.coefficient)
    }

    /// The shape with which a value entered the expression.
    pub fn shape<'a>(&'a self, graph: &'a Graph, value: Value) -> &'a Shape {
        self.placed.get(&value).unwrap_or_else(|| graph.shape(value))
    }

    /// Whether a reshape of the value was looked through.
    pub fn is_placed(&self, value: Value) -> bool {
        self.placed.contains_key(&value)
    }

    fn one(factor: Factor) -> Vec<Term> {
        vec![Term { coefficient: 1.0, factors: vec![factor] }]
    }
}

/// Multiplies an expression out, down to values that are no arithmetic or for which `stop` holds; `None` when it is
/// too large for a pattern.
pub fn expand(graph: &Graph, value: Value, stop: &dyn Fn(Value) -> bool) -> Option<Sum> {
    let mut expander = Expander { graph, stop, placed: HashMap::new(), steps: 0 };
    let terms = expander.expand(value, None, 0)?;
    Some(Sum { terms, placed: expander.placed })
}

struct Expander<'a> {
    graph: &'a Graph,
    stop: &'a dyn Fn(Value) -> bool,
    placed: HashMap<Value, Shape>,
    steps: usize,
}

impl Expander<'_> {
    fn expand(&mut self, value: Value, place: Option<&Shape>, depth: usize) -> Option<Vec<Term>> {
        self.steps += 1;
        if self.steps > STEPS {
            return None;
        }
        if (self.stop)(value) {
            return self.leaf(Factor::Value(value), value, place);
        }
        let graph = self.graph;
        if let Op::Fill(fill) = graph.op(value.node) {
            return Some(vec![Term::number(f64::from(fill.value))]);
        }
        if let Some(number) = number(graph, value) {
            return Some(vec![Term::number(number)]);
        }
        if depth >= LIMIT {
            return self.leaf(Factor::Value(value), value, place);
        }
        let inputs = graph.inputs_of(value.node);
        let (a, b) = (inputs.first().copied().flatten(), inputs.get(1).copied().flatten());
        match (graph.op(value.node), a, b) {
            (Op::Binary(Binary::Add), Some(a), Some(b)) => self.add(&[(1.0, a), (1.0, b)], place, depth),
            (Op::Binary(Binary::Sub), Some(a), Some(b)) => self.add(&[(1.0, a), (-1.0, b)], place, depth),
            (Op::Unary(Unary::Neg), Some(a), _) => self.add(&[(-1.0, a)], place, depth),
            (Op::Binary(Binary::Mul), Some(a), Some(b)) => {
                let (a, b) = (self.expand(a, place, depth + 1)?, self.expand(b, place, depth + 1)?);
                multiply(&a, &b)
            }
            (Op::Unary(Unary::Square), Some(a), _) => {
                let a = self.expand(a, place, depth + 1)?;
                multiply(&a, &a)
            }
            (Op::Binary(Binary::Div), Some(a), Some(b)) => {
                let (a, b) = (self.expand(a, place, depth + 1)?, self.inverse(b, place, depth + 1)?);
                multiply(&a, &b)
            }
            (Op::Unary(Unary::Reciprocal), Some(a), _) => self.inverse(a, place, depth + 1),
            (Op::Unary(Unary::Rsqrt), Some(a), _) => self.leaf(Factor::InverseRoot(a), a, place),
            (Op::Unary(Unary::Sqrt), Some(a), _) => self.leaf(Factor::Root(a), a, place),
            (Op::Binary(Binary::Pow), Some(a), Some(b)) => match number(graph, b) {
                Some(0.5) => self.leaf(Factor::Root(a), a, place),
                Some(-0.5) => self.leaf(Factor::InverseRoot(a), a, place),
                Some(power) if power == 2.0 || power == 3.0 => {
                    let a = self.expand(a, place, depth + 1)?;
                    let square = multiply(&a, &a)?;
                    if power == 2.0 { Some(square) } else { multiply(&square, &a) }
                }
                _ => self.leaf(Factor::Value(value), value, place),
            },
            // A vector that is computed first and brought to its place in the shape last.
            (op, Some(a), _) if is_regrouping(op) && graph.shape(a).rank() <= 1 && is_constant(graph, a) => {
                let shape = place.unwrap_or_else(|| graph.shape(value)).clone();
                self.expand(a, Some(&shape), depth + 1)
            }
            _ => self.leaf(Factor::Value(value), value, place),
        }
    }

    fn leaf(&mut self, factor: Factor, value: Value, place: Option<&Shape>) -> Option<Vec<Term>> {
        let before = self.placed.get(&value);
        match place {
            // One value in two places: no pattern has that.
            Some(place) if before.is_some_and(|before| before != place) => return None,
            Some(place) => drop(self.placed.insert(value, place.clone())),
            None => {}
        }
        Some(Sum::one(factor))
    }

    fn add(&mut self, parts: &[(f64, Value)], place: Option<&Shape>, depth: usize) -> Option<Vec<Term>> {
        let mut terms = Vec::new();
        for &(sign, part) in parts {
            for mut term in self.expand(part, place, depth + 1)? {
                term.coefficient *= sign;
                terms.push(term);
            }
        }
        collected(terms)
    }

    fn inverse(&mut self, value: Value, place: Option<&Shape>, depth: usize) -> Option<Vec<Term>> {
        let terms = self.expand(value, place, depth)?;
        match terms.as_slice() {
            [term] if term.coefficient != 0.0 => {
                let mut factors: Vec<Factor> = term.factors.iter().map(|factor| factor.inverse()).collect();
                factors.sort_unstable();
                Some(vec![Term { coefficient: 1.0 / term.coefficient, factors }])
            }
            _ => self.leaf(Factor::Inverse(value), value, place),
        }
    }
}

fn multiply(a: &[Term], b: &[Term]) -> Option<Vec<Term>> {
    if a.len() * b.len() > LIMIT {
        return None;
    }
    collected(a.iter().flat_map(|x| b.iter().map(move |y| x.times(y))).collect())
}

/// Adds up the products of the same factors.
fn collected(mut terms: Vec<Term>) -> Option<Vec<Term>> {
    terms.sort_by(|a, b| a.factors.cmp(&b.factors));
    let mut result: Vec<Term> = Vec::with_capacity(terms.len());
    for term in terms {
        match result.last_mut() {
            Some(last) if last.factors == term.factors => last.coefficient += term.coefficient,
            _ => result.push(term),
        }
    }
    result.retain(|term| term.coefficient != 0.0);
    let fits = result.len() <= LIMIT && result.iter().all(|term| term.factors.len() <= LIMIT);
    fits.then_some(result)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Net;
    use super::*;

    #[test]
    fn brackets_do_not_matter() {
        let mut net = Net::new();
        let x = net.x(&[3]);
        let (g, m, b, v) = (net.weight("g", &[3]), net.weight("m", &[3]), net.weight("b", &[3]), net.weight("v", &[3]));
        let r = net.un(Unary::Rsqrt, v);
        let root = net.un(Unary::Sqrt, v);
        // (x - m) * r * g + b
        let centred = net.sub(x, m);
        let y = net.mul(centred, r);
        let y = net.mul(y, g);
        let y = net.add(y, b);
        // g * (x / root) - (m * (g / root) - b)
        let scaled = net.div(x, root);
        let scaled = net.mul(g, scaled);
        let gain = net.div(g, root);
        let moved = net.mul(m, gain);
        let shift = net.sub(moved, b);
        let z = net.sub(scaled, shift);
        let sums = [y, z].map(|value| expand(&net.graph, value, &|v| v == x).unwrap());
        let root = Factor::InverseRoot(v);
        for sum in sums {
            assert!(sum.is(&[
                (1.0, &[x.into(), g.into(), root]),
                (-1.0, &[m.into(), g.into(), root]),
                (1.0, &[b.into()])
            ]));
        }
    }

    #[test]
    fn numbers_and_powers() {
        let mut net = Net::new();
        let x = net.x(&[3]);
        let three = net.num(3.0);
        let cube = net.bin(Binary::Pow, x, three);
        let half = net.times(0.5, cube);
        let y = net.div(half, three);
        let one = net.num(1.0);
        let inverse = net.div(one, y);
        let sum = expand(&net.graph, y, &|_| false).unwrap();
        assert!(sum.is(&[(1.0 / 6.0, &[x.into(), x.into(), x.into()])]));
        assert!(!sum.is(&[(1.0 / 6.0, &[x.into(), x.into()])]));
        let inverted = Factor::Inverse(x);
        assert!(expand(&net.graph, inverse, &|_| false).unwrap().is(&[(6.0, &[inverted, inverted, inverted])]));
    }

    #[test]
    fn expressions_that_explode_are_no_patterns() {
        let mut net = Net::new();
        let x = net.x(&[3]);
        let (mut sum, mut product) = (x, x);
        for _ in 0..60 {
            sum = net.add(sum, sum);
            product = net.mul(product, product);
        }
        assert!(expand(&net.graph, sum, &|_| false).is_none());
        assert!(expand(&net.graph, product, &|_| false).is_none());
    }
}
