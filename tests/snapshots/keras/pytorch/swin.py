"""swin_transformer, converted from a PyTorch state dict, recognised as swin.

Input    input   float32 [N, 64, 64, 3]  source: x, NCHW
Output   output  float32 [N, 7]

    model = load("model.keras")
    y = model(input)  # training=True for batches to train on
"""

import math

import keras
from keras import layers, ops


def parameter(x, shape, trainable=True, name=None):
    """Weights that belong to no layer. Keras keeps weights in layers: here as what a one is multiplied by."""
    one = ops.ones_like(ops.reshape(x, (-1, 1))[:1, :], dtype="float32")
    weights = layers.Dense(math.prod(shape), use_bias=False, trainable=trainable, name=name)(one)
    return ops.reshape(weights, shape)


def shifted_window_attention(x, name):
    """features.1.0.attn: [N, 16, 16, 32] to [N, 16, 16, 32]."""
    y = ops.reshape(layers.Permute((1, 3, 2, 4, 5))(layers.Reshape((4, 4, 4, 4, 32))(x)), (-1, 16, 32))
    y = layers.Dense(96, name=f"{name}_qkv")(y)
    y = ops.transpose(layers.Reshape((16, 3, 1, 32))(y), (2, 0, 3, 1, 4))
    y2 = ops.transpose(ops.reshape(y[1:2, ...], (-1, 1, 16, 32)), (0, 1, 3, 2))
    y3 = ops.cast(parameter(x, (256,), trainable=False, name=f"{name}_relative_position_index"), "int64")
    x = ops.take(parameter(x, (49, 1), name=f"{name}_relative_position_bias_table"), y3, axis=0)
    y2 = ops.matmul(ops.reshape(y[:1, ...], (-1, 1, 16, 32)) * 0.17677669, y2)
    x = y2 + ops.expand_dims(ops.transpose(ops.reshape(x, (16, 16, 1)), (2, 0, 1)), axis=0)
    x = ops.matmul(layers.Softmax()(x), ops.reshape(y[2:, ...], (-1, 1, 16, 32)))
    x = layers.Reshape((16, 32))(layers.Permute((2, 1, 3))(x))
    x = layers.Dense(32, name=f"{name}_proj")(x)
    x = layers.Permute((1, 3, 2, 4, 5))(ops.reshape(x, (-1, 4, 4, 4, 4, 32)))
    return layers.Reshape((16, 16, 32))(x)


def shifted_window_attention2(x, name):
    """features.3.0.attn: [N, 8, 8, 64] to [N, 8, 8, 64]."""
    y = ops.reshape(layers.Permute((1, 3, 2, 4, 5))(layers.Reshape((2, 4, 2, 4, 64))(x)), (-1, 16, 64))
    y = layers.Dense(192, name=f"{name}_qkv")(y)
    y = ops.transpose(layers.Reshape((16, 3, 2, 32))(y), (2, 0, 3, 1, 4))
    y2 = ops.transpose(ops.reshape(y[1:2, ...], (-1, 2, 16, 32)), (0, 1, 3, 2))
    y3 = ops.cast(parameter(x, (256,), trainable=False, name=f"{name}_relative_position_index"), "int64")
    x = ops.take(parameter(x, (49, 2), name=f"{name}_relative_position_bias_table"), y3, axis=0)
    y2 = ops.matmul(ops.reshape(y[:1, ...], (-1, 2, 16, 32)) * 0.17677669, y2)
    x = y2 + ops.expand_dims(ops.transpose(ops.reshape(x, (16, 16, 2)), (2, 0, 1)), axis=0)
    x = ops.matmul(layers.Softmax()(x), ops.reshape(y[2:, ...], (-1, 2, 16, 32)))
    x = layers.Reshape((16, 64))(layers.Permute((2, 1, 3))(x))
    x = layers.Dense(64, name=f"{name}_proj")(x)
    return layers.Reshape((8, 8, 64))(layers.Permute((1, 3, 2, 4, 5))(ops.reshape(x, (-1, 2, 2, 4, 4, 64))))


def mlp(x, units, name):
    """features.1.0.mlp, features.1.1.mlp, features.3.0.mlp, features.3.1.mlp."""
    x = layers.Dense(units, activation="gelu", name=f"{name}_0")(x)
    return layers.Dense(units // 4, name=f"{name}_3")(x)


def shifted_window_attention3(x, name):
    """features.1.1.attn: [N, 16, 16, 32] to [N, 16, 16, 32]."""
    part, part2 = ops.split(x, [2], axis=1)
    part, part2 = ops.split(layers.Concatenate(axis=1)([part2, part]), [2], axis=2)
    y = layers.Reshape((4, 4, 4, 4, 32))(layers.Concatenate(axis=2)([part2, part]))
    y = layers.Dense(96, name=f"{name}_qkv")(ops.reshape(layers.Permute((1, 3, 2, 4, 5))(y), (-1, 16, 32)))
    y = ops.transpose(layers.Reshape((16, 3, 1, 32))(y), (2, 0, 3, 1, 4))
    y2 = ops.transpose(ops.reshape(y[1:2, ...], (-1, 1, 16, 32)), (0, 1, 3, 2))
    y3 = ops.cast(parameter(x, (256,), trainable=False, name=f"{name}_relative_position_index"), "int64")
    y3 = ops.take(parameter(x, (49, 1), name=f"{name}_relative_position_bias_table"), y3, axis=0)
    y2 = ops.matmul(ops.reshape(y[:1, ...], (-1, 1, 16, 32)) * 0.17677669, y2)
    y2 = y2 + ops.expand_dims(ops.transpose(ops.reshape(y3, (16, 16, 1)), (2, 0, 1)), axis=0)
    x = parameter(x, (1, 16, 1, 16, 16), trainable=False, name=f"{name}_attn_mask")
    x = layers.Softmax()(ops.reshape(ops.reshape(y2, (-1, 16, 1, 16, 16)) + x, (-1, 1, 16, 16)))
    x = layers.Permute((2, 1, 3))(ops.matmul(x, ops.reshape(y[2:, ...], (-1, 1, 16, 32))))
    x = layers.Reshape((16, 32))(x)
    x = layers.Dense(32, name=f"{name}_proj")(x)
    x = layers.Permute((1, 3, 2, 4, 5))(ops.reshape(x, (-1, 4, 4, 4, 4, 32)))
    part, part2 = ops.split(layers.Reshape((16, 16, 32))(x), [14], axis=1)
    part, part2 = ops.split(layers.Concatenate(axis=1)([part2, part]), [14], axis=2)
    return layers.Concatenate(axis=2)([part2, part])


def shifted_window_attention4(x, name):
    """features.3.1.attn: [N, 8, 8, 64] to [N, 8, 8, 64]."""
    part, part2 = ops.split(x, [2], axis=1)
    part, part2 = ops.split(layers.Concatenate(axis=1)([part2, part]), [2], axis=2)
    y = layers.Reshape((2, 4, 2, 4, 64))(layers.Concatenate(axis=2)([part2, part]))
    y = layers.Dense(192, name=f"{name}_qkv")(ops.reshape(layers.Permute((1, 3, 2, 4, 5))(y), (-1, 16, 64)))
    y = ops.transpose(layers.Reshape((16, 3, 2, 32))(y), (2, 0, 3, 1, 4))
    y2 = ops.transpose(ops.reshape(y[1:2, ...], (-1, 2, 16, 32)), (0, 1, 3, 2))
    y3 = ops.cast(parameter(x, (256,), trainable=False, name=f"{name}_relative_position_index"), "int64")
    y3 = ops.take(parameter(x, (49, 2), name=f"{name}_relative_position_bias_table"), y3, axis=0)
    y2 = ops.matmul(ops.reshape(y[:1, ...], (-1, 2, 16, 32)) * 0.17677669, y2)
    y2 = y2 + ops.expand_dims(ops.transpose(ops.reshape(y3, (16, 16, 2)), (2, 0, 1)), axis=0)
    x = parameter(x, (1, 4, 1, 16, 16), trainable=False, name=f"{name}_attn_mask")
    x = layers.Softmax()(ops.reshape(ops.reshape(y2, (-1, 4, 2, 16, 16)) + x, (-1, 2, 16, 16)))
    x = layers.Permute((2, 1, 3))(ops.matmul(x, ops.reshape(y[2:, ...], (-1, 2, 16, 32))))
    x = layers.Reshape((16, 64))(x)
    x = layers.Dense(64, name=f"{name}_proj")(x)
    x = layers.Reshape((8, 8, 64))(layers.Permute((1, 3, 2, 4, 5))(ops.reshape(x, (-1, 2, 2, 4, 4, 64))))
    part, part2 = ops.split(x, [6], axis=1)
    part, part2 = ops.split(layers.Concatenate(axis=1)([part2, part]), [6], axis=2)
    return layers.Concatenate(axis=2)([part2, part])


def patch_merging(x, name):
    """features.2: [N, 16, 16, 32] to [N, 8, 8, 64]."""
    y = x[:, ::2]
    x = x[:, 1::2]
    x = layers.Concatenate()([y[:, :, ::2], x[:, :, ::2], y[:, :, 1::2], x[:, :, 1::2]])
    x = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_norm")(x)
    return layers.Dense(64, use_bias=False, name=f"{name}_reduction")(x)


def swin_transformer_block(x, name):
    """features.1.0: [N, 16, 16, 32] to [N, 16, 16, 32]."""
    y = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_norm1")(x)
    y = shifted_window_attention(y, name=f"{name}_attn")
    x = layers.Add()([x, y])
    y = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_norm2")(x)
    y = mlp(y, 128, name=f"{name}_mlp")
    return layers.Add()([x, y])


def swin_transformer_block2(x, name):
    """features.1.1: [N, 16, 16, 32] to [N, 16, 16, 32]."""
    y = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_norm1")(x)
    y = shifted_window_attention3(y, name=f"{name}_attn")
    x = layers.Add()([x, y])
    y = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_norm2")(x)
    y = mlp(y, 128, name=f"{name}_mlp")
    return layers.Add()([x, y])


def swin_transformer_block3(x, name):
    """features.3.0: [N, 8, 8, 64] to [N, 8, 8, 64]."""
    y = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_norm1")(x)
    y = shifted_window_attention2(y, name=f"{name}_attn")
    x = layers.Add()([x, y])
    y = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_norm2")(x)
    y = mlp(y, 256, name=f"{name}_mlp")
    return layers.Add()([x, y])


def swin_transformer_block4(x, name):
    """features.3.1: [N, 8, 8, 64] to [N, 8, 8, 64]."""
    y = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_norm1")(x)
    y = shifted_window_attention4(y, name=f"{name}_attn")
    x = layers.Add()([x, y])
    y = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_norm2")(x)
    y = mlp(y, 256, name=f"{name}_mlp")
    return layers.Add()([x, y])


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((64, 64, 3), name="input")
    x = layers.Conv2D(32, 4, 4, name="features_0_0")(x)
    x = layers.LayerNormalization(epsilon=1e-5, name="features_0_2")(x)
    x = swin_transformer_block(x, name="features_1_0")
    x = swin_transformer_block2(x, name="features_1_1")
    x = patch_merging(x, name="features_2")
    x = swin_transformer_block3(x, name="features_3_0")
    x = swin_transformer_block4(x, name="features_3_1")
    x = layers.LayerNormalization(epsilon=1e-5, name="norm")(x)
    x = layers.Flatten()(ops.mean(layers.Permute((3, 1, 2))(x), axis=(2, 3), keepdims=True))
    return keras.Model(inputs, layers.Dense(7, name="head")(x), name="swin_transformer")


def load(weights: str = "model.keras") -> keras.Model:
    """The network with its weights (.keras, .weights.h5, .h5, .safetensors or .npy)."""
    model = build()
    if weights.endswith((".h5", ".keras")):
        model.load_weights(weights)
        return model
    if weights.endswith(".safetensors"):
        from safetensors.numpy import load_file

        state = load_file(weights)
    else:
        import numpy as np

        layers_of = np.load(weights, allow_pickle=True).item().items()
        state = {f"{layer}/{key}": w for layer, variables in layers_of for key, w in variables.items()}
    for layer in model.layers:
        for variable in layer.weights:
            variable.assign(state[f"{layer.name}/{variable.name}"])
    return model
