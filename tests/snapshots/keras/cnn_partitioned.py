"""model2, converted from TensorFlow (model.ckpt.meta).

Input    input   float32 [N, 23, 30, 3]
Output   output  float32 [N, 10]

    model = load("model.keras")
    y = model(input)  # training=True for batches to train on
"""

import keras
from keras import layers, ops


def average_pool2d(x, pool_size, strides, padding):
    """Means without what is padding, which AveragePooling2D does not leave out on all backends."""
    pad, pool = layers.ZeroPadding2D(padding), layers.AveragePooling2D(pool_size, strides)
    return pool(pad(x)) / pool(pad(ops.ones_like(x[:1, ..., :1])))


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((23, 30, 3), name="input")
    x = layers.Conv2D(14, 3, 2, use_bias=False, activation="relu", name="conv")(x)
    x = layers.Flatten()(average_pool2d(x, 3, 3, ((0, 1), (0, 1))))
    x = layers.Dense(16, activation="relu", name="dense")(x)
    return keras.Model(inputs, layers.Dense(10, name="logits")(x), name="model2")


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
