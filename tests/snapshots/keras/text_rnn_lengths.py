"""model2, converted from TensorFlow (model.ckpt.meta).

Input    ids      int32 [N, 20]
Input    lengths  int32 [N]
Output   logits   float32 [N, 5]  source: logits/BiasAdd

    model = load("model.keras")
    y = model([ids, lengths])  # training=True for batches to train on
"""

import keras
from keras import layers, ops


def multi_rnn_cell(lengths, x, name):
    """[N], [N, 20, 12] to [N, 20, 12], [N, 12]."""
    x = layers.LSTM(12, return_sequences=True, name=f"{name}_cell_0")(x)
    x = layers.LSTM(12, return_sequences=True, name=f"{name}_cell_1")(x)
    y = ops.expand_dims(ops.less(ops.arange(20, dtype="int32"), ops.expand_dims(lengths, axis=1)), axis=2)
    y2 = ops.tile(ops.expand_dims(ops.clip(lengths - 1, 0, 19), axis=(1, 2)), (1, 1, 12))
    y2 = ops.squeeze(ops.take_along_axis(x, y2, axis=1), axis=1)
    selected = ops.where(ops.expand_dims(ops.less_equal(lengths, 0), axis=1), 0.0, y2)
    return ops.where(y, x, 0.0), selected


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = [
        keras.Input((20,), dtype="int32", name="ids"),
        keras.Input((), dtype="int32", name="lengths"),
    ]
    ids, lengths = inputs
    x = layers.Embedding(200, 12, name="embedding")(ids)
    selected, selected2 = multi_rnn_cell(lengths, x, name="rnn")
    x = layers.Concatenate()([selected2, layers.GlobalAveragePooling1D()(selected)])
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
