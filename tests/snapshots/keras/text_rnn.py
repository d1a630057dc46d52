"""model2, converted from TensorFlow (model.ckpt.meta).

Input    input   int32 [N, 20]   source: ids
Output   logits  float32 [N, 5]  source: logits/BiasAdd

    model = load("model.keras")
    y = model(input)  # training=True for batches to train on
"""

import keras
from keras import layers


def multi_rnn_cell(x, name):
    """[N, 20, 12] to [N, 20, 12], [N, 12]."""
    x = layers.LSTM(12, return_sequences=True, name=f"{name}_cell_0")(x)
    x = layers.LSTM(12, return_sequences=True, return_state=True, name=f"{name}_cell_1")(x)
    return x[0], x[1]


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((20,), dtype="int32", name="input")
    x = layers.Embedding(200, 12, name="embedding")(x)
    part1, part2 = multi_rnn_cell(x, name="rnn")
    x = layers.Concatenate()([part2, layers.GlobalAveragePooling1D()(part1)])
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
