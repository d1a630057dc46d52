//! Dense layers, products of matrices, embeddings.

use modelport_ir::{DType, Result, Value, op};

use super::{Call, Entry, op};
use crate::pytorch::arg::Arg;

pub const OPS: &[Entry] = &[
    op("linear", "input weight bias=None", linear),
    op("addmm", "self mat1 mat2 beta=1 alpha=1", |call| add_product(call, "mat1", "mat2")),
    op("addmv", "self mat vec beta=1 alpha=1", |call| add_product(call, "mat", "vec")),
    op("baddbmm", "self batch1 batch2 beta=1 alpha=1", |call| add_product(call, "batch1", "batch2")),
    op("matmul", "self other", |call| product(call, "self", "other")),
    op("mm", "self mat2", |call| product(call, "self", "mat2")),
    op("bmm", "self mat2", |call| product(call, "self", "mat2")),
    op("mv", "self vec", |call| product(call, "self", "vec")),
    op("dot", "self tensor", |call| product(call, "self", "tensor")),
    op("vdot", "self other", |call| product(call, "self", "other")),
    op("outer", "self vec2", outer),
    op("einsum", "equation tensors path=None", einsum),
    op("bilinear", "input1 input2 weight bias=None", bilinear),
    op("embedding", "weight indices padding_idx=-1 scale_grad_by_freq=False sparse=False", embedding),
    op("one_hot", "self num_classes=-1", |call| {
        let indices = call.value("self")?;
        let axis = call.lower.graph.shape(indices).rank();
        let depth = call.size("num_classes")?;
        Ok(call.add(op::OneHot { depth, axis, on: 1.0, off: 0.0, dtype: DType::Int64 }, &[indices])?.into())
    }),
];

/// `x @ weight.T + bias`
fn linear(call: &mut Call) -> Result<Arg> {
    let x = call.value("input")?;
    if let (Some(weight), 2) = (call.weight("weight"), call.shape("weight")?.rank()) {
        let tensor = weight.tensor.permuted(&[1, 0]).map_err(|message| call.fail(message))?;
        let weights = call.lower.constant(&crate::pytorch::arg::Weight { tensor, ..weight });
        let bias = call.optional("bias")?;
        let is_computed = |bias: Value| call.lower.graph.tensor(bias).is_none();
        if let Some(bias) = bias.filter(|&bias| is_computed(bias)) {
            let y = call.add_with(op::Dense {}, &[Some(x), Some(weights), None])?;
            return Ok(call.add(op::Binary::Add, &[y, bias])?.into());
        }
        return Ok(call.add_with(op::Dense {}, &[Some(x), Some(weights), bias])?.into());
    }
    let weight = call.value("weight")?;
    let rank = call.lower.graph.shape(x).rank();
    let rows = if rank < 2 { call.add(op::Unsqueeze { axes: vec![0] }, &[x])? } else { x };
    let mut y = call.add(op::MatMul { transpose_a: false, transpose_b: true }, &[rows, weight])?;
    if rank < 2 {
        y = call.add(op::Squeeze { axes: vec![0] }, &[y])?;
    }
    if let Some(bias) = call.optional("bias")? {
        y = call.add(op::Binary::Add, &[y, bias])?;
    }
    Ok(y.into())
}

/// A product with PyTorch's rules for vectors: they are a row on the left and a column on the right.
pub fn matmul(call: &mut Call, a: Value, b: Value) -> Result<Value> {
    let rank = |call: &Call, value| call.lower.graph.shape(value).rank();
    let (row, column) = (rank(call, a) == 1, rank(call, b) == 1);
    let a = if row { call.add(op::Unsqueeze { axes: vec![0] }, &[a])? } else { a };
    let b = if column { call.add(op::Unsqueeze { axes: vec![1] }, &[b])? } else { b };
    let mut y = call.add(op::MatMul { transpose_a: false, transpose_b: false }, &[a, b])?;
    let last = rank(call, y).saturating_sub(1);
    let mut axes = Vec::new();
    if row {
        axes.push(last.saturating_sub(1));
    }
    if column {
        axes.push(last);
    }
    if !axes.is_empty() {
        y = call.add(op::Squeeze { axes }, &[y])?;
    }
    Ok(y)
}

fn product(call: &mut Call, a: &str, b: &str) -> Result<Arg> {
    let (a, b) = (call.value(a)?, call.value(b)?);
    Ok(matmul(call, a, b)?.into())
}

/// `beta * self + alpha * (a @ b)`
fn add_product(call: &mut Call, a: &str, b: &str) -> Result<Arg> {
    let (beta, alpha) = (call.float("beta")?, call.float("alpha")?);
    let (a, b, mut bias) = (call.value(a)?, call.value(b)?, call.value("self")?);
    let mut y = matmul(call, a, b)?;
    let dtype = call.lower.graph.info(y).dtype;
    if alpha != 1.0 {
        let alpha = call.scalar(dtype, alpha);
        y = call.add(op::Binary::Mul, &[y, alpha])?;
    }
    if beta == 0.0 {
        return Ok(y.into());
    }
    if beta != 1.0 {
        let beta = call.scalar(dtype, beta);
        bias = call.add(op::Binary::Mul, &[bias, beta])?;
    }
    Ok(call.add(op::Binary::Add, &[y, bias])?.into())
}

fn outer(call: &mut Call) -> Result<Arg> {
    let (a, b) = (call.value("self")?, call.value("vec2")?);
    let column = call.add(op::Unsqueeze { axes: vec![1] }, &[a])?;
    Ok(call.add(op::Binary::Mul, &[column, b])?.into())
}

/// PyTorch's equations may leave out the result, and have an ellipsis and blanks.
fn einsum(call: &mut Call) -> Result<Arg> {
    let operands = call.values("tensors")?;
    let ranks: Vec<usize> = operands.iter().map(|value| call.lower.graph.shape(*value).rank()).collect();
    let text = call.text("equation")?;
    let Some(equation) = explicit(&text, &ranks) else {
        return Err(call.fail(format!("the equation '{text}' does not fit its operands")));
    };
    Ok(call.add(op::Einsum { equation }, &operands)?.into())
}

/// An equation with its result, without ellipsis.
fn explicit(text: &str, ranks: &[usize]) -> Option<String> {
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match text.split_once("->") {
        Some((left, right)) => (left, Some(right.to_owned())),
        None => (text.as_str(), None),
    };
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != ranks.len() {
        return None;
    }
    let hidden = |(term, rank): (&&str, &usize)| match term.contains("...") {
        true => rank.checked_sub(term.chars().filter(|c| *c != '.').count()),
        false => Some(0),
    };
    let hidden: Vec<usize> = terms.iter().zip(ranks).map(hidden).collect::<Option<_>>()?;
    let most = hidden.iter().copied().max().unwrap_or(0);
    let free: Vec<char> = ('A'..='Z').filter(|c| !text.contains(*c)).take(most).collect();
    // Shorter ones are broadcast, which the explicit form can't say.
    if free.len() < most || terms.iter().zip(&hidden).any(|(term, n)| term.contains("...") && *n != most) {
        return None;
    }
    let letters: String = free.iter().collect();
    let left: Vec<String> = terms.iter().map(|term| term.replace("...", &letters)).collect();
    let right = right.map(|right| right.replace("...", &letters)).unwrap_or_else(|| {
        let all: String = left.concat();
        let mut once: Vec<char> =
            all.chars().filter(|c| !letters.contains(*c) && all.matches(*c).count() == 1).collect();
        once.sort_unstable();
        letters.chars().chain(once).collect()
    });
    Some(format!("{}->{right}", left.join(",")))
}

/// `y[o] = sum over i, j of x1[i] * weight[o, i, j] * x2[j]`
fn bilinear(call: &mut Call) -> Result<Arg> {
    let (a, b, weight) = (call.value("input1")?, call.value("input2")?, call.value("weight")?);
    let rank = call.lower.graph.shape(a).rank();
    let lead: String = ('a'..='h').take(rank.saturating_sub(1)).collect();
    if lead.len() + 1 != rank {
        return Err(call.fail("has more axes than are translated"));
    }
    let equation = format!("{lead}i,oij,{lead}j->{lead}o");
    let mut y = call.add(op::Einsum { equation }, &[a, weight, b])?;
    if let Some(bias) = call.optional("bias")? {
        y = call.add(op::Binary::Add, &[y, bias])?;
    }
    Ok(y.into())
}

fn embedding(call: &mut Call) -> Result<Arg> {
    let (table, indices) = (call.value("weight")?, call.value("indices")?);
    Ok(call.add(op::Gather { axis: 0, batch_dims: 0 }, &[table, indices])?.into())
}

#[cfg(test)]
mod tests {
    use super::explicit;

    #[test]
    fn equations_become_explicit() {
        assert_eq!(explicit("bij,bjk", &[3, 3]).as_deref(), Some("bij,bjk->ik"));
        assert_eq!(explicit("i j, j k -> i k", &[2, 2]).as_deref(), Some("ij,jk->ik"));
        assert_eq!(explicit("...ij,...jk->...ik", &[4, 4]).as_deref(), Some("ABij,ABjk->ABik"));
        assert_eq!(explicit("ij", &[2, 2]), None);
    }
}
