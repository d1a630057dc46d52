"""vision_transformer, converted from a PyTorch state dict, recognised as vit_8.

Input    input   float32 [N, 32, 32, 3]  source: x, NCHW
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


def self_attention(x, name):
    """encoder.layers.encoder_layer_0.self_attention, encoder.layers.encoder_layer_1.self_attention: [N, 17, 128] to
    [N, 17, 128]."""
    x = layers.Dense(384, name=f"{name}_in_proj")(x)
    query, key, value = ops.split(x, 3, axis=2)
    query = layers.Permute((2, 1, 3))(layers.Reshape((17, 2, 64))(query))
    x = ops.matmul(query, layers.Permute((2, 3, 1))(layers.Reshape((17, 2, 64))(key))) * 0.125
    value = layers.Permute((2, 1, 3))(layers.Reshape((17, 2, 64))(value))
    x = layers.Permute((2, 1, 3))(ops.matmul(layers.Softmax()(x), value))
    x = layers.Reshape((17, 128))(x)
    return layers.Dense(128, name=f"{name}_out_proj")(x)


def mlp_block(x, name):
    """encoder.layers.encoder_layer_0.mlp, encoder.layers.encoder_layer_1.mlp: [N, 17, 128] to [N, 17, 128]."""
    x = layers.Dense(96, activation="gelu", name=f"{name}_0")(x)
    return layers.Dense(128, name=f"{name}_3")(x)


def encoder_block(x, name):
    """encoder.layers.encoder_layer_0, encoder.layers.encoder_layer_1: [N, 17, 128] to [N, 17, 128]."""
    y = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_ln_1")(x)
    y = self_attention(y, name=f"{name}_self_attention")
    x = layers.Add()([y, x])
    y = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_ln_2")(x)
    y = mlp_block(y, name=f"{name}_mlp")
    return layers.Add()([x, y])


def encoder(x, name):
    """encoder: [N, 17, 128] to [N, 17, 128]."""
    x = x + parameter(x, (1, 17, 128), name=f"{name}_pos_embedding")
    x = encoder_block(x, name=f"{name}_layers_encoder_layer_0")
    x = encoder_block(x, name=f"{name}_layers_encoder_layer_1")
    return layers.LayerNormalization(epsilon=1e-6, name=f"{name}_ln")(x)


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((32, 32, 3), name="input")
    y = ops.reshape(ops.zeros_like(x[:, 0, 0, 0]), (-1, 1, 1))
    y2 = layers.Conv2D(128, 8, 8, name="conv_proj")(x)
    x = y + parameter(x, (1, 1, 128), name="class_token")
    x = layers.Concatenate(axis=1)([x, layers.Reshape((16, 128))(y2)])
    x = encoder(x, name="encoder")
    x = layers.Flatten()(x[:, :1])
    return keras.Model(inputs, layers.Dense(7, name="heads_head")(x), name="vision_transformer")


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
