"""model2, converted from TensorFlow (model.ckpt.meta).

Input    input   int32 [N, 12]   source: ids
Output   logits  float32 [N, 5]  source: logits/BiasAdd

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


def attention(x, y, name):
    """[N, 12, 16], [4*N, 12, 12] to [N, 12, 16]."""
    y2 = layers.Dense(16, name=f"{name}_query")(x)
    y3 = layers.Dense(16, name=f"{name}_key")(x)
    y3 = ops.reshape(ops.transpose(layers.Reshape((12, 4, 4))(y3), (2, 0, 1, 3)), (-1, 12, 4))
    y2 = ops.reshape(ops.transpose(layers.Reshape((12, 4, 4))(y2), (2, 0, 1, 3)), (-1, 12, 4))
    y2 = layers.Softmax()(ops.where(y, -10000.0, ops.matmul(y2, ops.transpose(y3, (0, 2, 1))) / 2.0))
    y2 = layers.Dropout(0.1, name=f"{name}_dropout")(y2)
    y = layers.Dense(16, name=f"{name}_value")(x)
    y = ops.reshape(ops.transpose(layers.Reshape((12, 4, 4))(y), (2, 0, 1, 3)), (-1, 12, 4))
    y = ops.transpose(ops.reshape(ops.matmul(y2, y), (4, -1, 12, 4)), (1, 2, 0, 3))
    x = layers.Add()([layers.Reshape((12, 16))(y), x])
    return layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm")(x)


def linear_relu(x, name):
    """[N, 12, 16] to [N, 12, 64]."""
    return layers.Dense(64, activation="relu", name=f"{name}_fc")(x)


def feed_forward(x, name):
    """block_0/feed_forward, block_1/feed_forward: [N, 12, 16] to [N, 12, 16]."""
    y = linear_relu(x, name=f"{name}_inner")
    y = layers.Dense(16, name=f"{name}_outer")(y)
    x = layers.Add()([y, x])
    return layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm")(x)


def block(x, y, name):
    """block_0, block_1: [N, 12, 16], [4*N, 12, 12] to [N, 12, 16]."""
    x = attention(x, y, name=f"{name}_attention")
    return feed_forward(x, name=f"{name}_feed_forward")


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((12,), dtype="int32", name="input")
    y = layers.Embedding(100, 16, name="embedding")(x)
    y = layers.Dropout(0.1, name="dropout")(y * 4.0 + parameter(x, (12, 16), name="embeddings"))
    x = ops.tile(ops.expand_dims(ops.tile(ops.equal(x, 0), (4, 1)), axis=1), (1, 12, 1))
    block_0 = block(y, x, name="block_0")
    x = block(block_0, x, name="block_1")
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(5, name="logits")(x), name="model2")


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
