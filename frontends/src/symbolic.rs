//! Whole numbers that are known up to sizes: arithmetic on `tf.shape` with a free batch.
//!
//! A number is a constant or a sum of multiples of atoms. An atom is a named size (the batch `N`), or something that
//! can't be told, such as `N mod 3`; the same thing is the same atom, so that it cancels.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use modelport_ir::{DType, Dim, Value};
use ndarray::{ArrayD, IxDyn};

/// Most elements that are computed at conversion time.
pub const MAX_ELEMENTS: usize = 1 << 14;
/// Most atoms in one sum.
const MAX_TERMS: usize = 8;

/// Something that is not known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Atom {
    /// A named size.
    Size(Arc<str>),
    /// What [`Expressions`] numbered.
    Opaque(usize),
}

/// `constant + factor * atom + …`; factors are not 0, atoms are sorted.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    terms: Vec<(Atom, i64)>,
    constant: i64,
}

/// One element.
#[derive(Clone, Debug, PartialEq)]
pub enum Elem {
    /// A whole number, or a truth value as 0 or 1.
    Int(i64),
    /// A real number.
    Real(f64),
    /// A number with sizes in it.
    Linear(Linear),
}

impl Elem {
    /// The whole number, if it is known.
    pub fn int(&self) -> Option<i64> {
        match self {
            Elem::Int(i) => Some(*i),
            Elem::Real(x) if x.fract() == 0.0 => Some(*x as i64),
            _ => None,
        }
    }

    /// The number, if it is known.
    pub fn real(&self) -> Option<f64> {
        match self {
            Elem::Int(i) => Some(*i as f64),
            Elem::Real(x) => Some(*x),
            Elem::Linear(_) => None,
        }
    }

    /// As a dimension; unknown when it is not a multiple of one size.
    pub fn dim(&self) -> Dim {
        match self {
            Elem::Int(i) => usize::try_from(*i).map_or(Dim::Unknown, Dim::Known),
            Elem::Linear(Linear { terms, constant: 0 }) => match terms.as_slice() {
                [(Atom::Size(name), factor)] if *factor > 0 => {
                    Dim::Symbol { factor: *factor as usize, name: name.clone() }
                }
                _ => Dim::Unknown,
            },
            _ => Dim::Unknown,
        }
    }

    /// The elements `terms` and `constant` of a sum.
    fn linear(&self) -> Option<Linear> {
        match self {
            Elem::Int(i) => Some(Linear { terms: Vec::new(), constant: *i }),
            Elem::Linear(linear) => Some(linear.clone()),
            Elem::Real(_) => None,
        }
    }

    /// Whether it is at least 1 whatever the sizes are.
    fn is_positive(&self) -> bool {
        match self {
            Elem::Linear(Linear { terms, constant }) => {
                *constant >= 0 && terms.iter().all(|(atom, factor)| *factor > 0 && matches!(atom, Atom::Size(_)))
            }
            elem => elem.real().is_some_and(|x| x >= 1.0),
        }
    }
}

impl From<Linear> for Elem {
    fn from(linear: Linear) -> Elem {
        if linear.terms.is_empty() { Elem::Int(linear.constant) } else { Elem::Linear(linear) }
    }
}

impl fmt::Display for Elem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Elem::Int(i) => write!(f, "{i}"),
            Elem::Real(x) => write!(f, "{x:?}"),
            Elem::Linear(Linear { terms, constant }) => {
                for (atom, factor) in terms {
                    match atom {
                        Atom::Size(name) => write!(f, "{factor}*{name}+")?,
                        Atom::Opaque(number) => write!(f, "{factor}*#{number}+")?,
                    }
                }
                write!(f, "{constant}")
            }
        }
    }
}

/// An array that is computed at conversion time.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// Element type in the graph.
    pub dtype: DType,
    /// The elements.
    pub elems: ArrayD<Elem>,
    /// A value whose shape the sizes were taken from.
    pub like: Option<Value>,
}

impl Sizes {
    /// A vector.
    pub fn vector(dtype: DType, elems: Vec<Elem>, like: Option<Value>) -> Sizes {
        Sizes { dtype, elems: ndarray::Array1::from_vec(elems).into_dyn(), like }
    }

    /// A scalar.
    pub fn scalar(dtype: DType, elem: Elem, like: Option<Value>) -> Sizes {
        Sizes { dtype, elems: ArrayD::from_elem(IxDyn(&[]), elem), like }
    }

    /// The elements in C order.
    pub fn list(&self) -> Vec<Elem> {
        self.elems.iter().cloned().collect()
    }

    /// Whole numbers in C order, if all are known.
    pub fn ints(&self) -> Option<Vec<i64>> {
        self.elems.iter().map(Elem::int).collect()
    }

    /// Numbers in C order, if all are known.
    pub fn reals(&self) -> Option<Vec<f64>> {
        self.elems.iter().map(Elem::real).collect()
    }
}

/// A function of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Arithmetic {
    Add,
    Sub,
    Mul,
    /// True division of reals; rounds toward zero for whole numbers.
    Div,
    FloorDiv,
    FloorMod,
    TruncateMod,
    Maximum,
    Minimum,
    Pow,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    And,
    Or,
}

/// Numbers the things that are not known.
#[derive(Debug, Default)]
pub struct Expressions {
    numbers: HashMap<String, usize>,
}

impl Expressions {
    /// The atom for what `key` describes.
    pub fn opaque(&mut self, key: String) -> Elem {
        let next = self.numbers.len();
        let number = *self.numbers.entry(key).or_insert(next);
        Linear { terms: vec![(Atom::Opaque(number), 1)], constant: 0 }.into()
    }

    /// A dimension as an element; `key` says which one it is when its size is unknown.
    pub fn of_dim(&mut self, dim: &Dim, key: impl FnOnce() -> String) -> Elem {
        match dim {
            Dim::Known(n) => i64::try_from(*n).map_or_else(|_| self.opaque(n.to_string()), Elem::Int),
            Dim::Symbol { factor, name } => {
                Linear { terms: vec![(Atom::Size(name.clone()), *factor as i64)], constant: 0 }.into()
            }
            Dim::Unknown => self.opaque(key()),
        }
    }

    /// Applies a function of two numbers of an element type.
    pub fn apply(&mut self, op: Arithmetic, a: &Elem, b: &Elem, dtype: DType) -> Elem {
        let known = match (a, b) {
            (Elem::Int(x), Elem::Int(y)) if !dtype.is_float() => whole(op, *x, *y),
            _ => match (a.real(), b.real()) {
                (Some(x), Some(y)) => real(op, x, y, dtype),
                _ => symbolic(op, a, b),
            },
        };
        known.unwrap_or_else(|| {
            use Arithmetic::*;
            let (a, b) = (a.to_string(), b.to_string());
            let (a, b) = if matches!(op, Mul | Maximum | Minimum | Equal) && b < a { (b, a) } else { (a, b) };
            self.opaque(format!("{op:?}|{dtype}|{a}|{b}"))
        })
    }
}

fn whole(op: Arithmetic, x: i64, y: i64) -> Option<Elem> {
    use Arithmetic::*;
    Some(Elem::Int(match op {
        Add => x.checked_add(y)?,
        Sub => x.checked_sub(y)?,
        Mul => x.checked_mul(y)?,
        Div => x.checked_div(y)?,
        FloorDiv => x.checked_div(y)? - i64::from(x.checked_rem(y)? != 0 && (x < 0) != (y < 0)),
        FloorMod => {
            let rest = x.checked_rem(y)?;
            if rest != 0 && (rest < 0) != (y < 0) { rest + y } else { rest }
        }
        TruncateMod => x.checked_rem(y)?,
        Maximum => x.max(y),
        Minimum => x.min(y),
        Pow => x.checked_pow(u32::try_from(y).ok()?)?,
        Equal => i64::from(x == y),
        NotEqual => i64::from(x != y),
        Less => i64::from(x < y),
        LessEqual => i64::from(x <= y),
        And => i64::from(x != 0 && y != 0),
        Or => i64::from(x != 0 || y != 0),
    }))
}

fn real(op: Arithmetic, x: f64, y: f64, dtype: DType) -> Option<Elem> {
    use Arithmetic::*;
    let result = match op {
        Add => x + y,
        Sub => x - y,
        Mul => x * y,
        Div => x / y,
        FloorDiv => (x / y).floor(),
        FloorMod => x - y * (x / y).floor(),
        TruncateMod => x % y,
        Maximum => x.max(y),
        Minimum => x.min(y),
        Pow => x.powf(y),
        Equal => return Some(Elem::Int(i64::from(x == y))),
        NotEqual => return Some(Elem::Int(i64::from(x != y))),
        Less => return Some(Elem::Int(i64::from(x < y))),
        LessEqual => return Some(Elem::Int(i64::from(x <= y))),
        And | Or => return None,
    };
    Some(rounded(result, dtype))
}

/// A real number as its element type has it.
pub fn rounded(x: f64, dtype: DType) -> Elem {
    Elem::Real(if dtype == DType::Float64 { x } else { f64::from(x as f32) })
}

/// What can be said of numbers with sizes in them.
fn symbolic(op: Arithmetic, a: &Elem, b: &Elem) -> Option<Elem> {
    use Arithmetic::*;
    // Reals that are whole take part: a size may have been cast.
    let integral = |elem: &Elem| elem.linear().or_else(|| elem.int().map(|i| Linear { terms: vec![], constant: i }));
    let (x, y) = (integral(a)?, integral(b)?);
    match op {
        Add => sum(&x, &y, 1),
        Sub => sum(&x, &y, -1),
        Mul if y.terms.is_empty() => scaled(&x, y.constant),
        Mul if x.terms.is_empty() => scaled(&y, x.constant),
        Div | FloorDiv => quotient(&x, &y),
        FloorMod | TruncateMod => quotient(&x, &y).map(|_| Elem::Int(0)),
        Maximum if x == y => Some(a.clone()),
        Maximum if a.is_positive() && b.real().is_some_and(|b| b <= 1.0) => Some(a.clone()),
        Maximum if b.is_positive() && a.real().is_some_and(|a| a <= 1.0) => Some(b.clone()),
        Minimum if x == y => Some(a.clone()),
        Minimum if a.is_positive() && b.real().is_some_and(|b| b <= 1.0) => Some(b.clone()),
        Minimum if b.is_positive() && a.real().is_some_and(|a| a <= 1.0) => Some(a.clone()),
        // Comparisons follow from the difference when that is known, or when a size can't be below 1.
        Equal | NotEqual | Less | LessEqual => {
            let difference = sum(&x, &y, -1)?;
            let zero_possible = !difference.is_positive() && !scaled(&difference.linear()?, -1)?.is_positive();
            match (op, &difference) {
                (_, Elem::Int(d)) => whole(op, *d, 0),
                (Equal, _) if !zero_possible => Some(Elem::Int(0)),
                (NotEqual, _) if !zero_possible => Some(Elem::Int(1)),
                (Less | LessEqual, _) if !zero_possible => Some(Elem::Int(i64::from(!difference.is_positive()))),
                _ => None,
            }
        }
        _ => None,
    }
}

fn sum(x: &Linear, y: &Linear, sign: i64) -> Option<Elem> {
    let mut terms = x.terms.clone();
    for (atom, factor) in &y.terms {
        let factor = factor.checked_mul(sign)?;
        match terms.binary_search_by(|(other, _)| other.cmp(atom)) {
            Ok(at) => {
                let term = terms.get_mut(at)?;
                term.1 = term.1.checked_add(factor)?;
            }
            Err(at) => terms.insert(at, (atom.clone(), factor)),
        }
    }
    terms.retain(|(_, factor)| *factor != 0);
    if terms.len() > MAX_TERMS {
        return None;
    }
    let constant = x.constant.checked_add(y.constant.checked_mul(sign)?)?;
    Some(Linear { terms, constant }.into())
}

fn scaled(x: &Linear, by: i64) -> Option<Elem> {
    if by == 0 {
        return Some(Elem::Int(0));
    }
    let terms = x.terms.iter().map(|(atom, factor)| Some((atom.clone(), factor.checked_mul(by)?)));
    Some(Linear { terms: terms.collect::<Option<_>>()?, constant: x.constant.checked_mul(by)? }.into())
}

/// The exact quotient.
fn quotient(x: &Linear, y: &Linear) -> Option<Elem> {
    if y.terms.is_empty() {
        let by = y.constant;
        let divisible = |n: i64| n.checked_rem(by) == Some(0);
        if !divisible(x.constant) || !x.terms.iter().all(|(_, factor)| divisible(*factor)) {
            return None;
        }
        let terms = x.terms.iter().map(|(atom, factor)| (atom.clone(), factor / by)).collect();
        return Some(Linear { terms, constant: x.constant / by }.into());
    }
    let by = x.terms.first()?.1.checked_div(y.terms.first()?.1)?;
    (scaled(y, by)?.linear()? == *x).then_some(Elem::Int(by))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Arithmetic::*;

    fn size(name: &str) -> Elem {
        Expressions::default().of_dim(&Dim::symbol(name), String::new)
    }

    fn int(op: Arithmetic, a: &Elem, b: &Elem) -> Elem {
        Expressions::default().apply(op, a, b, DType::Int32)
    }

    #[test]
    fn sizes_scale_divide_and_cancel() {
        let n = size("N");
        let scaled = int(Mul, &n, &Elem::Int(6));
        assert_eq!(scaled.dim().to_string(), "6*N");
        assert_eq!(int(FloorDiv, &scaled, &Elem::Int(6)), n);
        assert_eq!(int(FloorDiv, &scaled, &n), Elem::Int(6));
        assert_eq!(int(FloorMod, &scaled, &Elem::Int(3)), Elem::Int(0));
        assert_eq!(int(Sub, &int(Add, &n, &Elem::Int(3)), &n), Elem::Int(3));
        assert_eq!(int(Add, &n, &Elem::Int(1)).dim(), Dim::Unknown);
    }

    #[test]
    fn what_is_not_known_is_still_itself() {
        let mut all = Expressions::default();
        let n = size("H");
        let rest = all.apply(FloorMod, &n, &Elem::Int(2), DType::Int32);
        let padded = all.apply(Add, &rest, &Elem::Int(2), DType::Int32);
        let again = all.apply(FloorMod, &n, &Elem::Int(2), DType::Int32);
        assert_eq!(all.apply(Sub, &padded, &again, DType::Int32), Elem::Int(2));
        let other = all.apply(FloorMod, &n, &Elem::Int(3), DType::Int32);
        assert_eq!(all.apply(Sub, &padded, &other, DType::Int32).int(), None);
    }

    #[test]
    fn division_rounds_as_tensorflow_does() {
        let int = |op, a, b| int(op, &Elem::Int(a), &Elem::Int(b));
        assert_eq!((int(FloorDiv, -7, 2), int(Div, -7, 2)), (Elem::Int(-4), Elem::Int(-3)));
        assert_eq!((int(FloorMod, -7, 2), int(TruncateMod, -7, 2)), (Elem::Int(1), Elem::Int(-1)));
        assert_eq!((int(FloorMod, 7, -2), int(FloorDiv, i64::MIN, -1).int()), (Elem::Int(-1), None));
    }

    #[test]
    fn sizes_are_at_least_one() {
        let n = size("N");
        assert_eq!(int(Maximum, &n, &Elem::Int(1)), n);
        assert_eq!(int(Equal, &n, &Elem::Int(-1)), Elem::Int(0));
        assert_eq!(int(Less, &Elem::Int(0), &n), Elem::Int(1));
        assert_eq!(int(Less, &Elem::Int(3), &n).int(), None);
    }
}
