"""model2, converted from TensorFlow (model.ckpt.meta).

Input    input     float32 [N, 32, 32, 3]
Output   boxes_8   float32 [N, 4, 4, 3, 7]  source: boxes_8/concat
Output   boxes_16  float32 [N, 2, 2, 3, 7]  source: boxes_16/concat

    model = load("model.keras")
    boxes_8, boxes_16 = model(input)  # training=True for batches to train on
"""

import math

import keras
from keras import layers, ops


def parameter(x, shape, trainable=True, name=None):
    """Weights that belong to no layer. Keras keeps weights in layers: here as what a one is multiplied by."""
    one = ops.ones_like(ops.reshape(x, (-1, 1))[:1, :], dtype="float32")
    weights = layers.Dense(math.prod(shape), use_bias=False, trainable=trainable, name=name)(one)
    return ops.reshape(weights, shape)


def conv_leaky_relu(x, filters, name):
    x = layers.Conv2D(filters, 3, 2, padding="same", name=f"{name}_conv")(x)
    return layers.LeakyReLU(0.2)(x)


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((32, 32, 3), name="input")
    conv = conv_leaky_relu(x, 8, name="conv1")
    conv = conv_leaky_relu(conv, 16, name="conv2")
    conv = conv_leaky_relu(conv, 32, name="conv3")
    y = layers.Conv2D(21, 1, name="head_8")(conv)
    y2 = layers.Reshape((4, 4, 3, 7))(y)
    y = ops.reshape(ops.zeros_like(y[:, 0, 0, 0]), (-1, 1, 1, 1, 1))
    x = ops.tile(y + parameter(x, (1, 4, 4, 1, 2), trainable=False, name="boxes_8"), (1, 1, 1, 3, 1))
    y = ops.convert_to_tensor([[1.0, 1.3], [2.0, 3.0], [3.3, 2.3]])
    x = layers.Add()([layers.Activation("sigmoid")(y2[:, :, :, :, :2]), x]) * 8.0
    y3 = ops.exp(y2[:, :, :, :, 2:4]) * y * 8.0
    conv = conv_leaky_relu(conv, 32, name="conv4")
    conv = layers.Conv2D(21, 1, name="head_16")(conv)
    y4 = layers.Reshape((2, 2, 3, 7))(conv)
    y5 = ops.convert_to_tensor([[[[[0.0, 0.0]], [[1.0, 0.0]]], [[[0.0, 1.0]], [[1.0, 1.0]]]]])
    y5 = ops.reshape(ops.zeros_like(conv[:, 0, 0, 0]), (-1, 1, 1, 1, 1)) + y5
    y5 = layers.Add()([layers.Activation("sigmoid")(y4[:, :, :, :, :2]), ops.tile(y5, (1, 1, 1, 3, 1))])
    y = ops.exp(y4[:, :, :, :, 2:4]) * y * 16.0
    x = layers.Concatenate()([x, y3, layers.Activation("sigmoid")(y2[:, :, :, :, 4:])])
    y = layers.Concatenate()([y5 * 16.0, y, layers.Activation("sigmoid")(y4[:, :, :, :, 4:])])
    return keras.Model(inputs, [x, y], name="model2")


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
