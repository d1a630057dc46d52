//! Attention.

use modelport_ir::op::Binary;
use modelport_ir::{DType, Result, Value, op};

use super::create::inside;
use super::{Call, Entry, op};
use crate::pytorch::arg::Arg;

const ATTENTION: &str = "query key value attn_mask=None dropout_p=0.0 is_causal=False scale=None enable_gqa=False";
const FUSED: &str = "query key value dropout_p=0.0 is_causal=False return_debug_mask=False attn_mask=None scale=None";

pub const OPS: &[Entry] = &[
    op("scaled_dot_product_attention", ATTENTION, attention),
    op("_scaled_dot_product_flash_attention_for_cpu", FUSED, |call| Ok(vec![attention(call)?, Arg::None].into())),
    op("_scaled_dot_product_attention_math", ATTENTION, |call| Ok(vec![attention(call)?, Arg::None].into())),
    op(
        "_native_multi_head_attention",
        "query key value embed_dim num_head qkv_weight qkv_bias proj_weight proj_bias mask=None need_weights=True \
         average_attn_weights=True mask_type=None",
        multi_head,
    ),
    op(
        "_transformer_encoder_layer_fwd",
        "src embed_dim num_heads qkv_weight qkv_bias proj_weight proj_bias use_gelu norm_first eps norm_weight_1 \
         norm_bias_1 norm_weight_2 norm_bias_2 ffn_weight_1 ffn_bias_1 ffn_weight_2 ffn_bias_2 mask=None \
         mask_type=None",
        encoder_layer,
    ),
];

/// `softmax(query @ key.T * scale + mask) @ value`
fn attention(call: &mut Call) -> Result<Arg> {
    let query = call.value("query")?;
    let (mut key, mut value) = (call.arg("key"), call.arg("value"));
    let shape = call.lower.graph.shape(query).clone();
    let rank = shape.rank();
    if rank < 2 {
        return Err(call.fail("attention takes at least rank 2"));
    }
    if call.arg("enable_gqa").bool() == Some(true) {
        let heads = call.known(&shape, rank - 3, "the number of heads")?;
        let shared = call.lower.info(&key).map(|info| info.1).unwrap_or_default();
        let shared = call.known(&shared, rank - 3, "the number of shared heads")?.max(1);
        let (times, axis) = (Arg::from(heads / shared), Arg::from(rank - 3));
        key = call.call("repeat_interleave", &[key, times.clone(), axis.clone()])?;
        value = call.call("repeat_interleave", &[value, times, axis])?;
    }
    let (key, value) = (call.lower.value(&key)?, call.lower.value(&value)?);
    let dtype = call.lower.graph.info(query).dtype;
    let scale = match call.has("scale") {
        true => call.float("scale")?,
        false => 1.0 / (call.known(&shape, rank - 1, "the size of a head")? as f64).sqrt(),
    };
    let mut scores = call.add(op::MatMul { transpose_a: false, transpose_b: true }, &[query, key])?;
    let factor = call.scalar(dtype, scale);
    scores = call.add(Binary::Mul, &[scores, factor])?;
    if call.bool("is_causal")? {
        let shape = call.lower.graph.shape(scores).clone();
        let mask = inside(call, (&shape[rank - 2], &shape[rank - 1]), 0, true)?;
        let excluded = call.scalar(dtype, f64::NEG_INFINITY);
        scores = call.add(op::Select {}, &[mask, scores, excluded])?;
    }
    if let Some(mask) = call.optional("attn_mask")? {
        scores = match call.lower.graph.info(mask).dtype {
            DType::Bool => {
                let excluded = call.scalar(dtype, f64::NEG_INFINITY);
                call.add(op::Select {}, &[mask, scores, excluded])?
            }
            _ => call.add(Binary::Add, &[scores, mask])?,
        };
    }
    let axis = call.lower.graph.shape(scores).rank() - 1;
    let mut weights = call.add(op::Softmax { axis }, &[scores])?;
    let rate = call.float("dropout_p")? as f32;
    if rate > 0.0 {
        weights = call.add(op::Dropout { rate }, &[weights])?;
    }
    Ok(call.add(op::MatMul { transpose_a: false, transpose_b: false }, &[weights, value])?.into())
}

/// Self-attention with one product for query, key and value.
fn multi_head(call: &mut Call) -> Result<Arg> {
    if call.has("mask") {
        return Err(call.fail("multi-head attention with a mask in its fused form is not translated"));
    }
    let x = call.arg("query");
    let shape = call.shape("query")?;
    let (width, heads) = (call.size("embed_dim")?, call.size("num_head")?);
    let packed = call.call("linear", &[x, call.arg("qkv_weight"), call.arg("qkv_bias")])?;
    let y = heads_of(call, packed, &shape, width, heads)?;
    let y = call.call("linear", &[y, call.arg("proj_weight"), call.arg("proj_bias")])?;
    Ok(vec![y, Arg::None].into())
}

/// Attention of `heads` heads on packed queries, keys and values `[batch, length, 3 * width]`.
fn heads_of(call: &mut Call, packed: Arg, shape: &modelport_ir::Shape, width: usize, heads: usize) -> Result<Arg> {
    let size = width / heads.max(1);
    let packed = call.lower.value(&packed)?;
    let (batch, length) = match shape.as_slice() {
        [batch, length, _] => (batch.clone(), length.clone()),
        _ => return Err(call.fail(format!("multi-head attention takes rank 3, got {shape}"))),
    };
    let split = modelport_ir::Shape(vec![batch.clone(), length.clone(), 3.into(), heads.into(), size.into()]);
    let split = call.add(op::Reshape { shape: split }, &[packed])?;
    let moved = call.add(op::Transpose { perm: vec![2, 0, 3, 1, 4] }, &[split])?;
    let node = call.add(op::Unpack { axis: 0, count: 3 }, &[moved])?.node;
    let part = |output| Arg::from(Value { node, output });
    let y = call.call("scaled_dot_product_attention", &[part(0), part(1), part(2)])?;
    let y = call.lower.value(&y)?;
    let y = call.add(op::Transpose { perm: vec![0, 2, 1, 3] }, &[y])?;
    let shape = modelport_ir::Shape(vec![batch, length, width.into()]);
    Ok(call.add(op::Reshape { shape }, &[y])?.into())
}

/// The fused form of `nn.TransformerEncoderLayer`.
fn encoder_layer(call: &mut Call) -> Result<Arg> {
    if call.has("mask") {
        return Err(call.fail("an encoder layer with a mask in its fused form is not translated"));
    }
    let shape = call.shape("src")?;
    let (width, heads) = (call.size("embed_dim")?, call.size("num_heads")?);
    let first = call.bool("norm_first")?;
    let activation = if call.bool("use_gelu")? { "gelu" } else { "relu" };
    let norm = |call: &mut Call, x: Arg, number: usize| {
        let (weight, bias) = (call.arg(&format!("norm_weight_{number}")), call.arg(&format!("norm_bias_{number}")));
        call.call("layer_norm", &[x, Arg::from([width]), weight, bias, call.arg("eps")])
    };
    let mut x = call.arg("src");
    let input = if first { norm(call, x.clone(), 1)? } else { x.clone() };
    let packed = call.call("linear", &[input, call.arg("qkv_weight"), call.arg("qkv_bias")])?;
    let y = heads_of(call, packed, &shape, width, heads)?;
    let y = call.call("linear", &[y, call.arg("proj_weight"), call.arg("proj_bias")])?;
    x = call.call("add", &[x, y])?;
    if !first {
        x = norm(call, x, 1)?;
    }
    let input = if first { norm(call, x.clone(), 2)? } else { x.clone() };
    let y = call.call("linear", &[input, call.arg("ffn_weight_1"), call.arg("ffn_bias_1")])?;
    let y = call.call(activation, &[y])?;
    let y = call.call("linear", &[y, call.arg("ffn_weight_2"), call.arg("ffn_bias_2")])?;
    x = call.call("add", &[x, y])?;
    if first { Ok(x) } else { norm(call, x, 2) }
}
