"""classifier, converted from PyTorch (lstm.pt2).

Input    input   int64 [N, 7]    source: ids
Output   linear  float32 [N, 3]

    model = load("model.keras")
    y = model(input)  # training=True for batches to train on
"""

import keras
from keras import layers


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((7,), dtype="int64", name="input")
    x = layers.Embedding(20, 6, name="embed")(x)
    x = layers.Bidirectional(layers.LSTM(5, return_sequences=True), name="layers")(x)
    x = layers.Bidirectional(layers.LSTM(5, return_sequences=True), name="layers_l1")(x)
    x = layers.Flatten()(x[:, -1:])
    return keras.Model(inputs, layers.Dense(3, name="head")(x), name="classifier")


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
