//! `nn.MultiheadAttention` and the transformer layers that are made of it.

use modelport_ir::Result;

use super::call::{Forward, This, functional as F};
use super::layers::one;
use crate::pytorch::arg::Arg;
use crate::pytorch::lower::Lower;

/// What a module of this class computes.
pub fn forward(class: &str) -> Option<Forward> {
    Some(match class {
        "MultiheadAttention" => attention,
        "TransformerEncoderLayer" => encoder_layer,
        "TransformerEncoder" => |this, net, x| {
            let x = one(this, net, x)?;
            let x = this.each(net, "layers", &x)?;
            if this.has("norm") { this.call(net, "norm", &x) } else { Ok(x) }
        },
        _ => return None,
    })
}

/// Query, key and value; gives the output and no weights.
fn attention(this: &This, net: &mut Lower, args: &[Arg]) -> Result<Arg> {
    let [query, key, value, ..] = args else { return Err(this.fail(net, "takes query, key and value")) };
    if this.tree.parameters.get("bias_k").is_some_and(Option::is_some) || this.flag("add_zero_attn", false) {
        return Err(this.fail(net, "bias_k and add_zero_attn are not translated"));
    }
    let heads = i64::try_from(this.int("num_heads", 1)).unwrap_or(1);
    let width = match this.shape("in_proj_weight").get(1) {
        Some(&width) => width,
        None => this.int("embed_dim", 1),
    };
    let width = i64::try_from(width).unwrap_or(i64::MAX);
    let batch_first = this.flag("batch_first", false);
    let sizes = |net: &mut Lower, x: &Arg| -> Result<(Arg, Arg)> {
        let value = net.value(x)?;
        Ok((net.size(value, 0).into(), net.size(value, 1).into()))
    };
    // [batch, heads, length, head]
    let split = |net: &mut Lower, x: &Arg| -> Result<Arg> {
        let (a, b) = sizes(net, x)?;
        let shape: Arg = vec![a, b, heads.into(), (width / heads).into()].into();
        let x = net.call("aten.view", &[x.clone(), shape], &[])?;
        let order = if batch_first { [0, 2, 1, 3] } else { [1, 2, 0, 3] };
        F::permute(net, &x, order)
    };
    let [q, k, v] = project(this, net, [query, key, value], width)?;
    let (q, k, v) = (split(net, &q)?, split(net, &k)?, split(net, &v)?);
    let mask = args.get(3).cloned().unwrap_or_default();
    let x = net.call("aten.scaled_dot_product_attention", &[q, k, v, mask], &[])?;
    let order = if batch_first { [0, 2, 1, 3] } else { [2, 0, 1, 3] };
    let x = F::permute(net, &x, order)?;
    let (a, b) = sizes(net, &x)?;
    let x = net.call("aten.reshape", &[x, vec![a, b, width.into()].into()], &[])?;
    let x = this.call(net, "out_proj", &x)?;
    Ok(vec![x, Arg::None].into())
}

/// Query, key and value from the common weight, in one go where they are the same.
fn project(this: &This, net: &mut Lower, inputs: [&Arg; 3], width: i64) -> Result<[Arg; 3]> {
    let bias = this.weight(net, "in_proj_bias");
    let part = |net: &mut Lower, whole: &Arg, index: i64| match whole {
        Arg::None => Ok(Arg::None),
        whole => net.call(
            "aten.slice",
            &[whole.clone(), 0i64.into(), (index * width).into(), ((index + 1) * width).into()],
            &[],
        ),
    };
    let whole = this.weight(net, "in_proj_weight");
    let same = |a: &Arg, b: &Arg| matches!((a, b), (Arg::Tensor(a), Arg::Tensor(b)) if a == b);
    if !whole.is_none() && same(inputs[0], inputs[1]) && same(inputs[1], inputs[2]) {
        let all = net.call("aten.linear", &[inputs[0].clone(), whole, bias], &[])?;
        let parts = net.call("aten.chunk", &[all, 3i64.into(), (-1i64).into()], &[])?;
        if let Some([q, k, v]) = parts.list() {
            return Ok([q.clone(), k.clone(), v.clone()]);
        }
        return Err(this.fail(net, "query, key and value can't be told apart"));
    }
    let mut result = [Arg::None, Arg::None, Arg::None];
    for (index, name) in (0i64..).zip(["q_proj_weight", "k_proj_weight", "v_proj_weight"]) {
        let weight = match &whole {
            Arg::None => this.weight(net, name),
            whole => part(net, whole, index)?,
        };
        let bias = part(net, &bias, index)?;
        let at = usize::try_from(index).unwrap_or(0);
        result[at] = net.call("aten.linear", &[inputs[at].clone(), weight, bias], &[])?;
    }
    Ok(result)
}

/// `self_attn(x, x, x)`, without the weights.
pub fn self_attention(this: &This, net: &mut Lower, child: &str, x: &Arg) -> Result<Arg> {
    let result = this.call_all(net, child, &[x.clone(), x.clone(), x.clone()])?;
    match result.list() {
        Some([x, ..]) => Ok(x.clone()),
        _ => Err(this.fail(net, "attention has no result")),
    }
}

fn encoder_layer(this: &This, net: &mut Lower, x: &[Arg]) -> Result<Arg> {
    let x = one(this, net, x)?;
    let activation = match this.int("activation_relu_or_gelu", 1) {
        1 => "aten.relu",
        2 => "aten.gelu",
        _ => return Err(this.fail(net, "the activation is not known")),
    };
    let attend = |net: &mut Lower, x: &Arg| {
        let x = self_attention(this, net, "self_attn", x)?;
        this.call(net, "dropout1", &x)
    };
    let feed = |net: &mut Lower, x: &Arg| {
        let x = this.call(net, "linear1", x)?;
        let x = net.call(activation, &[x], &[])?;
        this.chain(net, &["dropout", "linear2", "dropout2"], &x)
    };
    if this.flag("norm_first", false) {
        let normed = this.call(net, "norm1", &x)?;
        let attended = attend(net, &normed)?;
        let x = F::add(net, &x, &attended)?;
        let normed = this.call(net, "norm2", &x)?;
        let fed = feed(net, &normed)?;
        return F::add(net, &x, &fed);
    }
    let attended = attend(net, &x)?;
    let sum = F::add(net, &x, &attended)?;
    let x = this.call(net, "norm1", &sum)?;
    let fed = feed(net, &x)?;
    let sum = F::add(net, &x, &fed)?;
    this.call(net, "norm2", &sum)
}
