//! Matrix products and Einstein summation.

use ndarray::{ArrayD, ArrayView2, Axis};

use super::array::{Array, Lanes, check_size, filled, flat, permuted};
use super::math::expand;
use crate::op::{Einsum, MatMul};

fn matrix<T>(rows: usize, columns: usize, values: &[T]) -> Result<ArrayView2<'_, T>, String> {
    ArrayView2::from_shape((rows, columns), values)
        .map_err(|_| format!("no matrix of {rows} rows and {columns} columns"))
}

/// `shape` is that of the result.
pub(super) fn dense(x: &Array, weights: &Array, bias: Option<&Array>, shape: &[usize]) -> Result<Array, String> {
    let ((a, dtype), (w, _)) = (x.reals()?, weights.reals()?);
    let (features, out) = (w.shape()[0], w.shape()[1]);
    let (a, w) = (flat(a), flat(w));
    let rows = shape.iter().rev().skip(1).product();
    let mut product = matrix(rows, features, &a)?.dot(&matrix(features, out, &w)?);
    if let Some(bias) = bias {
        let bias = flat(bias.reals()?.0);
        for mut row in product.outer_iter_mut() {
            row.iter_mut().zip(bias.iter()).for_each(|(x, b)| *x += b);
        }
    }
    Ok(Array::real(filled(shape, product.into_iter().collect())?, dtype))
}

/// `shape` is that of the result.
pub(super) fn matmul(op: &MatMul, a: &Array, b: &Array, shape: &[usize]) -> Result<Array, String> {
    if a.dtype() != b.dtype() {
        return Err(format!("the operands differ in type: {} and {}", a.dtype(), b.dtype()));
    }
    let operand = |x: &Array, transposed: bool| {
        let rank = x.shape().len();
        let mut perm: Vec<usize> = (0..rank).collect();
        if transposed {
            perm.swap(rank - 2, rank - 1);
        }
        let x = x.transposed(&perm);
        let own = x.shape()[rank - 2..].to_vec();
        let wanted: Vec<usize> = shape[..shape.len() - 2].iter().copied().chain(own).collect();
        if x.shape() == wanted { Ok(x) } else { check_size(&wanted).and_then(|()| expand(&x, &wanted)) }
    };
    let (a, b) = (operand(a, op.transpose_a)?, operand(b, op.transpose_b)?);
    let batch: usize = shape.iter().rev().skip(2).product();
    match (&a, &b) {
        (Array::Float(x, dtype), Array::Float(y, _)) => Ok(Array::real(filled(shape, products(batch, x, y)?)?, *dtype)),
        (Array::Int(x, dtype), Array::Int(y, _)) => Ok(Array::whole(filled(shape, products(batch, x, y)?)?, *dtype)),
        _ => Err("takes numbers, got bool".to_owned()),
    }
}

/// A batch of matrix products, in C order.
fn products<T: Product>(batch: usize, a: &ArrayD<T>, b: &ArrayD<T>) -> Result<Vec<T>, String> {
    let sizes = |x: &ArrayD<T>| match x.shape() {
        [.., rows, columns] => (*rows, *columns),
        _ => (1, 1),
    };
    let ((rows, inner), (_, columns)) = (sizes(a), sizes(b));
    let (a, b) = (flat(a), flat(b));
    let mut result = Vec::with_capacity(batch * rows * columns);
    for i in 0..batch {
        let x = matrix(rows, inner, &a[i * rows * inner..(i + 1) * rows * inner])?;
        let y = matrix(inner, columns, &b[i * inner * columns..(i + 1) * inner * columns])?;
        result.extend(T::product(x, y));
    }
    Ok(result)
}

/// Numbers that matrices are made of.
trait Product: Copy {
    fn product(a: ArrayView2<Self>, b: ArrayView2<Self>) -> Vec<Self>;
}

impl Product for f64 {
    fn product(a: ArrayView2<f64>, b: ArrayView2<f64>) -> Vec<f64> {
        a.dot(&b).into_iter().collect()
    }
}

impl Product for i64 {
    fn product(a: ArrayView2<i64>, b: ArrayView2<i64>) -> Vec<i64> {
        let cell = |row: usize, column: usize| {
            let pairs =
                a.row(row).into_iter().zip(b.column(column)).map(|(x, y)| x.wrapping_mul(*y)).collect::<Vec<_>>();
            pairs.into_iter().fold(0i64, i64::wrapping_add)
        };
        (0..a.nrows())
            .flat_map(|row| (0..b.ncols()).map(move |column| (row, column)))
            .map(|(r, c)| cell(r, c))
            .collect()
    }
}

/// An operand of a summation: its axes' letters, and its elements.
struct Term {
    letters: Vec<char>,
    values: ArrayD<f64>,
}

/// One operand after the other is multiplied into the first; a letter is summed as soon as nobody needs it any more.
pub(super) fn einsum(op: &Einsum, inputs: &[&Array]) -> Result<Array, String> {
    let bad = || format!("the equation '{}' does not fit its operands", op.equation);
    let (left, right) = op.equation.split_once("->").ok_or_else(bad)?;
    let output: Vec<char> = right.chars().collect();
    if output.iter().enumerate().any(|(i, letter)| output[..i].contains(letter)) {
        return Err(bad());
    }
    let terms = left.split(',').zip(inputs).map(|(letters, x)| diagonal(letters, x.reals()?.0));
    let mut terms = terms.collect::<Result<Vec<Term>, String>>()?.into_iter();
    let mut result = terms.next().ok_or_else(bad)?;
    while let Some(next) = terms.next() {
        let needed =
            |letter: char| output.contains(&letter) || terms.as_slice().iter().any(|t| t.letters.contains(&letter));
        result = multiplied(result, next, needed)?;
    }
    let result = summed(result, |letter| output.contains(&letter))?;
    let place = |letter: &char| result.letters.iter().position(|l| l == letter).ok_or_else(bad);
    let perm = output.iter().map(place).collect::<Result<Vec<_>, _>>()?;
    let dtype = inputs.first().ok_or_else(bad)?.dtype();
    Ok(Array::real(permuted(&result.values, &perm), dtype))
}

/// A term in which no letter repeats.
fn diagonal(letters: &str, values: &ArrayD<f64>) -> Result<Term, String> {
    let mut term = Term { letters: letters.chars().collect(), values: values.clone() };
    while let Some((first, second)) = term
        .letters
        .iter()
        .enumerate()
        .find_map(|(i, letter)| term.letters[..i].iter().position(|l| l == letter).map(|first| (first, i)))
    {
        let size = term.values.shape()[first];
        let slices: Vec<_> = (0..size)
            .map(|i| {
                term.values.view().index_axis_move(Axis(second), i).index_axis_move(Axis(first), i).insert_axis(Axis(0))
            })
            .collect();
        let joined = ndarray::concatenate(Axis(0), &slices).map_err(|error| error.to_string())?;
        let letter = term.letters.remove(second);
        term.letters.remove(first);
        term.letters.insert(0, letter);
        term.values = joined.as_standard_layout().into_owned();
    }
    Ok(term)
}

/// The term with the letters that are not needed summed.
fn summed(term: Term, needed: impl Fn(char) -> bool) -> Result<Term, String> {
    let axes: Vec<usize> = (0..term.letters.len()).filter(|&axis| !needed(term.letters[axis])).collect();
    let letters: Vec<char> = term.letters.iter().copied().filter(|&letter| needed(letter)).collect();
    let shape: Vec<usize> =
        (0..term.letters.len()).filter(|axis| !axes.contains(axis)).map(|axis| term.values.shape()[axis]).collect();
    let sums = Lanes::along(&term.values, &axes).iter().map(|lane| lane.iter().sum()).collect();
    Ok(Term { letters, values: filled(&shape, sums)? })
}

/// The product of two terms, with the letters that are in both and not needed summed.
fn multiplied(a: Term, b: Term, needed: impl Fn(char) -> bool) -> Result<Term, String> {
    let a = summed(a, |letter| needed(letter) || b.letters.contains(&letter))?;
    let b = summed(b, |letter| needed(letter) || a.letters.contains(&letter))?;
    let pick = |term: &Term, keep: &dyn Fn(char) -> bool| -> Vec<char> {
        term.letters.iter().copied().filter(|&letter| keep(letter)).collect()
    };
    let shared = pick(&a, &|letter| b.letters.contains(&letter) && needed(letter));
    let inner = pick(&a, &|letter| b.letters.contains(&letter) && !needed(letter));
    let rows = pick(&a, &|letter| !b.letters.contains(&letter));
    let columns = pick(&b, &|letter| !a.letters.contains(&letter));
    let arranged = |term: &Term, groups: [&[char]; 3]| {
        let place = |letter: &char| term.letters.iter().position(|l| l == letter).unwrap_or(0);
        let perm: Vec<usize> = groups.concat().iter().map(place).collect();
        let values = permuted(&term.values, &perm);
        let mut sizes = values.shape().iter().copied();
        let mut size = |group: &[char]| sizes.by_ref().take(group.len()).product::<usize>();
        let shape = [size(groups[0]), size(groups[1]), size(groups[2])];
        filled(&shape, values.into_iter().collect())
    };
    let (x, y) = (arranged(&a, [&shared, &rows, &inner])?, arranged(&b, [&shared, &inner, &columns])?);
    let size = |letter: &char| {
        let find = |term: &Term| term.letters.iter().position(|l| l == letter).map(|axis| term.values.shape()[axis]);
        find(&a).or_else(|| find(&b)).unwrap_or(1)
    };
    let letters = [shared.as_slice(), &rows, &columns].concat();
    let shape: Vec<usize> = letters.iter().map(size).collect();
    check_size(&shape)?;
    let values = products(x.len_of(Axis(0)), &x, &y)?;
    Ok(Term { letters, values: filled(&shape, values)? })
}

#[cfg(test)]
mod tests {
    use super::super::testing::run;
    use super::super::testing::{check, ramp};
    use super::*;
    use crate::op::{Dense, Einsum};

    /// Leading axes broadcast.
    #[test]
    fn products_agree_with_numpy() {
        check(Dense {}, &[&ramp(&[2, 1, 3]), &ramp(&[3, 2]), &ramp(&[2])], &[2, 1, 2], &[-0.0625, 0.875, -3.125, 2.]);
        check(
            MatMul { transpose_a: false, transpose_b: true },
            &[&ramp(&[2, 1, 2, 3]), &ramp(&[2, 2, 3])],
            &[2, 2, 2, 2],
            &[
                2.0625, -1.0625, -1.0625, 2.1875, -0.75, -0.4375, 2., 1.8125, -0.75, 2., -0.4375, 1.8125, 2., 2., 2.,
                2.1875,
            ],
        );
        check(
            MatMul { transpose_a: true, transpose_b: false },
            &[&ramp(&[3, 2]), &ramp(&[2, 3, 1])],
            &[2, 2, 1],
            &[1.1875, 0.375, -1.875, 1.5],
        );
    }

    /// Any number of operands, diagonals, sums of letters that only one has.
    #[test]
    fn summations_agree_with_numpy() {
        check(
            Einsum { equation: "abc,cd->abd".to_owned() },
            &[&ramp(&[1, 2, 3]), &ramp(&[3, 2])],
            &[1, 2, 2],
            &[1.1875, 0.375, -1.875, 1.5],
        );
        check(
            Einsum { equation: "bqhd,bkhd->bhqk".to_owned() },
            &[&ramp(&[1, 2, 2, 3]), &ramp(&[1, 2, 2, 3])],
            &[1, 2, 2, 2],
            &[2.0625, -0.75, -0.75, 2., 2.1875, 1.8125, 1.8125, 2.1875],
        );
        check(
            Einsum { equation: "ij,jk,kl->li".to_owned() },
            &[&ramp(&[2, 3]), &ramp(&[3, 2]), &ramp(&[2, 2])],
            &[2, 2],
            &[-1.671875, 1.59375, 1.0625, 0.9375],
        );
        check(Einsum { equation: "aab->b".to_owned() }, &[&ramp(&[2, 2, 3])], &[3], &[-0.5, 0.25, -1.75]);
        check(
            Einsum { equation: "iji,j->ij".to_owned() },
            &[&ramp(&[2, 3, 2]), &ramp(&[3])],
            &[2, 3],
            &[1.5625, -0.25, -0.125, 0., 0.375, 0.625],
        );
        check(
            Einsum { equation: "ab,cd->bd".to_owned() },
            &[&ramp(&[2, 2]), &ramp(&[3, 2])],
            &[2, 2],
            &[2.625, -1.75, -2.625, 1.75],
        );
        check(
            Einsum { equation: "a,b->ba".to_owned() },
            &[&ramp(&[2]), &ramp(&[3])],
            &[3, 2],
            &[1.5625, -0.625, -0.625, 0.25, 0.625, -0.25],
        );
        check(
            Einsum { equation: "abc->cab".to_owned() },
            &[&ramp(&[1, 2, 3])],
            &[3, 1, 2],
            &[-1.25, 1.25, 0.5, 0.25, -0.5, -0.75],
        );
    }

    #[test]
    fn whole_numbers_multiply_exactly() {
        let a = Array::from_i64(&[1, 2], &[1 << 53, 1]).unwrap();
        let b = Array::from_i64(&[2, 1], &[1, 1]).unwrap();
        let op = MatMul { transpose_a: false, transpose_b: false };
        let product = super::super::apply(&op.into(), &[Some(&a), Some(&b)]).unwrap();
        assert_eq!(product[0], Array::from_i64(&[1, 1], &[(1 << 53) + 1]).unwrap());
    }

    #[test]
    fn a_letter_may_not_repeat_in_the_result() {
        let op = Einsum { equation: "a->aa".to_owned() };
        assert!(super::super::apply(&op.into(), &[Some(&ramp(&[2]))]).is_err());
        assert_eq!(run(Einsum { equation: "a->".to_owned() }, &[&ramp(&[0])]), (vec![], vec![0.]));
    }
}
