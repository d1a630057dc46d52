"""overfeat, converted from TensorFlow (model.ckpt.meta).

Input    input         float32 [N, 231, 231, 3]
Output   MMdnn_Output  float32 [N, 17]

    model = load("model.keras")
    y = model(input)  # training=True for batches to train on
"""

import keras
from keras import layers


def conv_relu(x, filters, kernel_size, strides=1, padding="valid", *, name):
    return layers.Conv2D(filters, kernel_size, strides, padding=padding, activation="relu", name=f"{name}_conv")(x)


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((231, 231, 3), name="input")
    x = conv_relu(x, 8, 11, strides=4, name="conv1")
    x = layers.MaxPooling2D(2)(x)
    x = conv_relu(x, 8, 5, name="conv2")
    x = layers.MaxPooling2D(2)(x)
    x = conv_relu(x, 16, 3, padding="same", name="conv3")
    x = conv_relu(x, 32, 3, padding="same", name="conv4")
    x = conv_relu(x, 32, 3, padding="same", name="conv5")
    x = layers.MaxPooling2D(2)(x)
    x = conv_relu(x, 96, 6, name="fc6")
    x = conv_relu(x, 128, 1, name="fc7")
    x = layers.Conv2D(17, 1, name="fc8")(x)
    return keras.Model(inputs, layers.Flatten()(x), name="overfeat")


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
