"""gpt, converted from PyTorch (gpt.pt2).

Input    input     int64 [N, 7]        source: ids
Output   linear_8  float32 [N, 7, 30]

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


def attention(x, name):
    """blocks.0.attn, blocks.1.attn: [N, 7, 16] to [N, 7, 16]."""
    y = parameter(x, (7, 7), trainable=False, name=f"{name}_scaled_dot_product_attention_2")
    x = layers.Dense(48, name=f"{name}_qkv")(x)
    query, key, value = ops.split(x, 3, axis=2)
    query = layers.Permute((2, 1, 3))(layers.Reshape((7, 2, 8))(query))
    x = ops.matmul(query, layers.Permute((2, 3, 1))(layers.Reshape((7, 2, 8))(key))) * 0.35355338
    x = layers.Softmax()(ops.where(ops.cast(y, "bool"), x, float("-inf")))
    x = ops.matmul(x, layers.Permute((2, 1, 3))(layers.Reshape((7, 2, 8))(value)))
    x = layers.Reshape((7, 16))(layers.Permute((2, 1, 3))(x))
    return layers.Dense(16, name=f"{name}_proj")(x)


def mlp(x, name):
    """blocks.0.mlp, blocks.1.mlp: [N, 7, 16] to [N, 7, 16]."""
    x = layers.Dense(64, activation="gelu", name=f"{name}_0")(x)
    x = layers.Dense(16, name=f"{name}_2")(x)
    return layers.Dropout(0.1, name=f"{name}_3")(x)


def block(x, name):
    """blocks.0, blocks.1: [N, 7, 16] to [N, 7, 16]."""
    y = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_ln1")(x)
    y = attention(y, name=f"{name}_attn")
    x = layers.Add()([x, y])
    y = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_ln2")(x)
    y = mlp(y, name=f"{name}_mlp")
    return layers.Add()([x, y])


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((7,), dtype="int64", name="input")
    y = parameter(x, (30, 16), name="tok")
    y2 = ops.take(parameter(x, (10, 16), name="pos"), [0, 1, 2, 3, 4, 5, 6], axis=0)
    x = block(ops.take(y, x, axis=0) + y2, name="blocks_0")
    x = block(x, name="blocks_1")
    x = layers.LayerNormalization(epsilon=1e-5, name="ln")(x)
    return keras.Model(inputs, ops.matmul(x, ops.transpose(y, (1, 0))), name="gpt")


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
