"""model2, converted from TensorFlow (model.ckpt.meta).

Input    input          float32 [N, 9, 7, 3]
Output   logits         float32 [N, 10]       source: logits/BiasAdd
Output   probabilities  float32 [N, 10]

    model = load("model.keras")
    logits, probabilities = model(input)  # training=True for batches to train on
"""

import keras
from keras import layers


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((9, 7, 3), name="input")
    x = layers.Flatten()(x)
    x = layers.Dense(48, activation="relu", name="dense1")(x)
    x = layers.Dense(40, activation="tanh", name="dense2")(x)
    x = layers.Dense(32, activation="softplus", name="dense3")(x)
    x = layers.Dense(24, activation="sigmoid", name="dense4")(x)
    x = layers.Dense(10, name="logits")(x)
    return keras.Model(inputs, [x, layers.Softmax()(x)], name="model2")


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
