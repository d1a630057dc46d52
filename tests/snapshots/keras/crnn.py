"""model2, converted from TensorFlow (model.ckpt.meta).

Input    input       float32 [N, 16, 32, 1]
Output   characters  float32 [N, 16, 11]     source: characters/BiasAdd

    model = load("model.keras")
    y = model(input)  # training=True for batches to train on
"""

import keras
from keras import layers


def conv_relu(x, filters, name):
    return layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"{name}_conv")(x)


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((16, 32, 1), name="input")
    x = conv_relu(x, 8, name="conv1")
    x = layers.MaxPooling2D(2)(x)
    x = conv_relu(x, 16, name="conv2")
    x = layers.Reshape((16, 64))(layers.Permute((2, 1, 3))(layers.MaxPooling2D((2, 1))(x)))
    x = layers.Bidirectional(layers.LSTM(8, return_sequences=True), name="bidirectional1")(x)
    x = layers.Bidirectional(layers.LSTM(8, return_sequences=True), name="bidirectional2")(x)
    return keras.Model(inputs, layers.Dense(11, name="characters")(x), name="model2")


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
            side = next((side for side in ("forward", "backward") if f"/{side}_" in variable.path), None)
            key = f"{side}_layer/{variable.name}" if side else variable.name
            variable.assign(state[f"{layer.name}/{key}"])
    return model
