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


def shifted_window_attention(x, size, units, size3, name):
    """features.1.0.attn, features.3.0.attn."""
    y = layers.Permute((1, 3, 2, 4, 5))(layers.Reshape((size, 4, size, 4, units))(x))
    y = layers.Dense(3 * units, name=f"{name}_qkv")(ops.reshape(y, (-1, 16, units)))
    query, key, value = ops.split(y, 3, axis=2)
    query = layers.Permute((2, 1, 3))(layers.Reshape((16, size3, 32))(query)) * 0.17677669
    y = ops.cast(parameter(x, (256,), trainable=False, name=f"{name}_relative_position_index"), "int64")
    x = ops.take(parameter(x, (49, size3), name=f"{name}_relative_position_bias_table"), y, axis=0)
    x = ops.expand_dims(ops.transpose(ops.reshape(x, (16, 16, size3)), (2, 0, 1)), axis=0)
    x = ops.matmul(query, layers.Permute((2, 3, 1))(layers.Reshape((16, size3, 32))(key))) + x
    value = layers.Permute((2, 1, 3))(layers.Reshape((16, size3, 32))(value))
    x = layers.Permute((2, 1, 3))(ops.matmul(layers.Softmax()(x), value))
    x = layers.Reshape((16, units))(x)
    x = layers.Dense(units, name=f"{name}_proj")(x)
    x = layers.Permute((1, 3, 2, 4, 5))(ops.reshape(x, (-1, size, size, 4, 4, units)))
    return layers.Reshape((4 * size, 4 * size, units))(x)


def mlp(x, units, name):
    """features.1.0.mlp, features.1.1.mlp, features.3.0.mlp, features.3.1.mlp."""
    x = layers.Dense(units, activation="gelu", name=f"{name}_0")(x)
    return layers.Dense(units // 4, name=f"{name}_3")(x)


def shifted_window_attention2(x, size, units, size3, size4, size5, name):
    """features.1.1.attn, features.3.1.attn."""
    y = layers.Reshape((size, 4, size, 4, units))(ops.roll(x, (-2, -2), axis=(1, 2)))
    y = ops.reshape(layers.Permute((1, 3, 2, 4, 5))(y), (-1, 16, units))
    y = layers.Dense(3 * units, name=f"{name}_qkv")(y)
    query, key, value = ops.split(y, 3, axis=2)
    query = layers.Permute((2, 1, 3))(layers.Reshape((16, size3, 32))(query)) * 0.17677669
    y = ops.cast(parameter(x, (256,), trainable=False, name=f"{name}_relative_position_index"), "int64")
    y = ops.take(parameter(x, (49, size3), name=f"{name}_relative_position_bias_table"), y, axis=0)
    y = ops.expand_dims(ops.transpose(ops.reshape(y, (16, 16, size3)), (2, 0, 1)), axis=0)
    y = ops.matmul(query, layers.Permute((2, 3, 1))(layers.Reshape((16, size3, 32))(key))) + y
    x = parameter(x, (1, size4, 1, 16, 16), trainable=False, name=f"{name}_masked_fill")
    x = ops.reshape(ops.reshape(y, (-1, size4, size3, 16, 16)) + x, (-1, size3, 16, 16))
    value = layers.Permute((2, 1, 3))(layers.Reshape((16, size3, 32))(value))
    x = layers.Permute((2, 1, 3))(ops.matmul(layers.Softmax()(x), value))
    x = layers.Reshape((16, units))(x)
    x = layers.Dense(units, name=f"{name}_proj")(x)
    x = layers.Permute((1, 3, 2, 4, 5))(ops.reshape(x, (-1, size, size, 4, 4, units)))
    part, part2 = ops.split(layers.Reshape((4 * size, 4 * size, units))(x), [size5], axis=1)
    part, part2 = ops.split(layers.Concatenate(axis=1)([part2, part]), [size5], axis=2)
    return layers.Concatenate(axis=2)([part2, part])


def patch_merging(x, name):
    """features.2: [N, 16, 16, 32] to [N, 8, 8, 64]."""
    x = layers.Concatenate()([x[:, ::2, ::2], x[:, 1::2, ::2], x[:, ::2, 1::2], x[:, 1::2, 1::2]])
    x = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_norm")(x)
    return layers.Dense(64, use_bias=False, name=f"{name}_reduction")(x)


def swin_transformer_block(x, size, units, size3, name):
    """features.1.0, features.3.0."""
    y = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_norm1")(x)
    y = shifted_window_attention(y, size, units, size3, name=f"{name}_attn")
    x = layers.Add()([x, y])
    y = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_norm2")(x)
    y = mlp(y, 4 * units, name=f"{name}_mlp")
    return layers.Add()([x, y])


def swin_transformer_block2(x, size, units, size3, size4, size5, name):
    """features.1.1, features.3.1."""
    y = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_norm1")(x)
    y = shifted_window_attention2(y, size, units, size3, size4, size5, name=f"{name}_attn")
    x = layers.Add()([x, y])
    y = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_norm2")(x)
    y = mlp(y, 4 * units, name=f"{name}_mlp")
    return layers.Add()([x, y])


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((64, 64, 3), name="input")
    x = layers.Conv2D(32, 4, 4, name="features_0_0")(x)
    x = layers.LayerNormalization(epsilon=1e-5, name="features_0_2")(x)
    x = swin_transformer_block(x, 4, 32, 1, name="features_1_0")
    x = swin_transformer_block2(x, 4, 32, 1, 16, 14, name="features_1_1")
    x = patch_merging(x, name="features_2")
    x = swin_transformer_block(x, 2, 64, 2, name="features_3_0")
    x = swin_transformer_block2(x, 2, 64, 2, 4, 6, name="features_3_1")
    x = layers.LayerNormalization(epsilon=1e-5, name="norm")(x)
    x = layers.GlobalAveragePooling2D()(x)
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
