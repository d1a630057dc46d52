//! Dimensions that may be free, and the arithmetic of broadcasting and windows.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One dimension of a shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dim {
    /// A size that is known.
    Known(usize),
    /// `factor` times a size that is free but named, such as the batch `N`.
    Symbol {
        /// How many times the named size.
        factor: usize,
        /// The name: `N` for a batch, else made from the input's name.
        name: Arc<str>,
    },
    /// A size that nothing is known of.
    Unknown,
}

impl Dim {
    /// The free size called `name`.
    pub fn symbol(name: &str) -> Self {
        Dim::Symbol { factor: 1, name: name.into() }
    }

    /// The size, if it is known.
    pub fn known(&self) -> Option<usize> {
        match self {
            Dim::Known(n) => Some(*n),
            _ => None,
        }
    }

    /// The product; unknown when it is not a multiple of one symbol, or too large.
    #[must_use]
    pub fn times(&self, other: &Dim) -> Dim {
        let scaled = |factor: usize, n: usize, name: &Arc<str>| match factor.checked_mul(n) {
            Some(factor) => Dim::Symbol { factor, name: name.clone() },
            None => Dim::Unknown,
        };
        match (self, other) {
            (Dim::Known(a), Dim::Known(b)) => a.checked_mul(*b).map_or(Dim::Unknown, Dim::Known),
            (Dim::Known(1), d) | (d, Dim::Known(1)) => d.clone(),
            (Dim::Known(0), _) | (_, Dim::Known(0)) => Dim::Known(0),
            (Dim::Known(n), Dim::Symbol { factor, name }) | (Dim::Symbol { factor, name }, Dim::Known(n)) => {
                scaled(*factor, *n, name)
            }
            _ => Dim::Unknown,
        }
    }

    /// The exact quotient; unknown when there is none.
    #[must_use]
    pub fn divided_by(&self, other: &Dim) -> Dim {
        match (self, other) {
            (Dim::Known(a), Dim::Known(b)) if *b > 0 && a % b == 0 => Dim::Known(a / b),
            (Dim::Symbol { factor, name }, Dim::Known(n)) if *n > 0 && factor % n == 0 => {
                Dim::Symbol { factor: factor / n, name: name.clone() }
            }
            (Dim::Symbol { factor: a, name: x }, Dim::Symbol { factor: b, name: y })
                if x == y && *b > 0 && a % b == 0 =>
            {
                Dim::Known(a / b)
            }
            _ => Dim::Unknown,
        }
    }

    /// The sum; unknown when it is not a multiple of one symbol.
    #[must_use]
    pub fn plus(&self, other: &Dim) -> Dim {
        match (self, other) {
            (Dim::Known(a), Dim::Known(b)) => a.checked_add(*b).map_or(Dim::Unknown, Dim::Known),
            (Dim::Known(0), d) | (d, Dim::Known(0)) => d.clone(),
            (Dim::Symbol { factor: a, name: x }, Dim::Symbol { factor: b, name: y }) if x == y => {
                a.checked_add(*b).map_or(Dim::Unknown, |factor| Dim::Symbol { factor, name: x.clone() })
            }
            _ => Dim::Unknown,
        }
    }

    /// Reads what [`fmt::Display`] writes: `7`, `N`, `16*N`, `?`.
    pub fn parse(text: &str) -> Option<Dim> {
        if text == "?" || text.is_empty() {
            return (text == "?").then_some(Dim::Unknown);
        }
        if let Ok(n) = text.parse() {
            return Some(Dim::Known(n));
        }
        Some(match text.split_once('*') {
            Some((factor, name)) => Dim::Symbol { factor: factor.parse().ok()?, name: name.into() },
            None => Dim::symbol(text),
        })
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Self {
        Dim::Known(n)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Known(n) => write!(f, "{n}"),
            Dim::Symbol { factor: 1, name } => f.write_str(name),
            Dim::Symbol { factor, name } => write!(f, "{factor}*{name}"),
            Dim::Unknown => f.write_str("?"),
        }
    }
}

impl Serialize for Dim {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Dim {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Dim::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("'{text}' is no dimension")))
    }
}

/// A shape of known rank.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shape(pub Vec<Dim>);

impl Shape {
    /// The shape of a scalar.
    pub fn scalar() -> Self {
        Shape(Vec::new())
    }

    /// A shape of known sizes.
    pub fn known(sizes: &[usize]) -> Self {
        Shape(sizes.iter().copied().map(Dim::Known).collect())
    }

    /// The sizes, if all are known.
    pub fn sizes(&self) -> Option<Vec<usize>> {
        self.0.iter().map(Dim::known).collect()
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// The number of elements.
    pub fn numel(&self) -> Dim {
        self.0.iter().fold(Dim::Known(1), |product, dim| product.times(dim))
    }

    /// Whether every dimension is known or a symbol.
    pub fn is_determined(&self) -> bool {
        !self.0.contains(&Dim::Unknown)
    }

    /// The shape with its axes reordered: `new[i] = old[perm[i]]`; axes that do not exist are unknown.
    #[must_use]
    pub fn permuted(&self, perm: &[usize]) -> Shape {
        Shape(perm.iter().map(|&axis| self.0.get(axis).cloned().unwrap_or(Dim::Unknown)).collect())
    }
}

impl std::ops::Deref for Shape {
    type Target = Vec<Dim>;
    fn deref(&self) -> &Vec<Dim> {
        &self.0
    }
}

impl std::ops::DerefMut for Shape {
    fn deref_mut(&mut self) -> &mut Vec<Dim> {
        &mut self.0
    }
}

impl FromIterator<Dim> for Shape {
    fn from_iter<I: IntoIterator<Item = Dim>>(dims: I) -> Self {
        Shape(dims.into_iter().collect())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, dim) in self.0.iter().enumerate() {
            write!(f, "{}{dim}", if i > 0 { ", " } else { "" })?;
        }
        f.write_str("]")
    }
}

/// The common shape of two operands under NumPy's broadcasting rules.
///
/// # Errors
/// Says which sizes do not go together.
pub fn broadcast(a: &Shape, b: &Shape) -> Result<Shape, String> {
    let rank = a.rank().max(b.rank());
    let at = |shape: &Shape, i: usize| {
        (i + shape.rank()).checked_sub(rank).and_then(|axis| shape.get(axis).cloned()).unwrap_or(Dim::Known(1))
    };
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (Dim::Known(1), d) | (d, Dim::Known(1)) => Ok(d),
            (x, y) if x == y => Ok(x),
            (Dim::Known(x), Dim::Known(y)) => {
                Err(format!("shapes {a} and {b} do not broadcast: {x} meets {y} on axis {i}"))
            }
            (known @ Dim::Known(_), _) | (_, known @ Dim::Known(_)) => Ok(known),
            (symbol @ Dim::Symbol { .. }, Dim::Unknown) | (Dim::Unknown, symbol @ Dim::Symbol { .. }) => Ok(symbol),
            _ => Ok(Dim::Unknown),
        })
        .collect()
}

/// The output size of a window that slides over `size` elements with `before + after` padding.
///
/// # Errors
/// When the window does not fit.
pub fn window_output(
    size: &Dim,
    kernel: usize,
    stride: usize,
    dilation: usize,
    (before, after): (usize, usize),
    ceil_mode: bool,
) -> Result<Dim, String> {
    let too_large = || "a window is too large".to_owned();
    let extent = kernel
        .checked_sub(1)
        .and_then(|k| k.checked_mul(dilation))
        .and_then(|k| k.checked_add(1))
        .ok_or_else(too_large)?;
    if stride == 0 {
        return Err("a stride is 0".to_owned());
    }
    let Some(size) = size.known() else {
        // A window that keeps the size keeps the name of a free size too.
        let keeps = stride == 1 && before.checked_add(after).is_some_and(|pad| pad + 1 == extent);
        return Ok(if keeps || (extent == 1 && stride == 1 && (before, after) == (0, 0)) {
            size.clone()
        } else {
            Dim::Unknown
        });
    };
    let padded = size.checked_add(before).and_then(|n| n.checked_add(after)).ok_or_else(too_large)?;
    if padded < extent {
        return Err(format!("a window of {extent} does not fit into {size} elements padded by {before} and {after}"));
    }
    let span = padded - extent;
    let mut output = span / stride + 1;
    // PyTorch's rule: the last window must start inside the input or its left padding.
    if ceil_mode && span % stride != 0 && output.saturating_mul(stride) < size + before {
        output += 1;
    }
    Ok(Dim::Known(output))
}

/// The padding (before, after) that TensorFlow's `SAME` gives along one axis; the odd element goes after.
pub fn same_padding(size: usize, kernel: usize, stride: usize, dilation: usize) -> (usize, usize) {
    let extent = kernel.saturating_sub(1).saturating_mul(dilation).saturating_add(1);
    let stride = stride.max(1);
    let total = (size.div_ceil(stride).saturating_sub(1) * stride).saturating_add(extent).saturating_sub(size);
    (total / 2, total - total / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_scale_and_divide() {
        let n = Dim::symbol("N");
        let frames = n.times(&Dim::Known(16));
        assert_eq!(frames.to_string(), "16*N");
        assert_eq!(frames.divided_by(&n), Dim::Known(16));
        assert_eq!(frames.divided_by(&Dim::Known(16)), n);
        assert_eq!(Dim::parse("16*N"), Some(frames));
        assert_eq!(n.times(&n), Dim::Unknown);
    }

    #[test]
    fn broadcasting_keeps_the_batch_free() {
        let a = Shape(vec![Dim::symbol("N"), Dim::Known(3)]);
        assert_eq!(broadcast(&a, &Shape::known(&[3])), Ok(a.clone()));
        assert!(broadcast(&a, &Shape::known(&[4])).is_err());
    }

    #[test]
    fn windows() {
        assert_eq!(same_padding(299, 3, 2, 1), (1, 1));
        assert_eq!(same_padding(300, 3, 2, 1), (0, 1));
        assert_eq!(window_output(&Dim::Known(300), 3, 2, 1, (0, 1), false), Ok(Dim::Known(150)));
        assert_eq!(window_output(&Dim::Known(6), 3, 2, 1, (0, 0), true), Ok(Dim::Known(3)));
        assert!(window_output(&Dim::Known(2), 3, 1, 1, (0, 0), false).is_err());
    }
}
