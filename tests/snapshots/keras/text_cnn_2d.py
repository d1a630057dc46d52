"""model2, converted from TensorFlow (model.ckpt.meta).

Input    input        int32 [N, 20]   source: ids
Output   scores       float32 [N, 4]  source: output/scores
Output   predictions  int64 [N]

    model = load("model.keras")
    scores, predictions = model(input)  # training=True for batches to train on
"""

import keras
from keras import layers, ops


def conv_relu_pool(x, kernel_size, pool_size, strides, name):
    """[N, 20, 12, 1] to [N, 1, 1, 16]."""
    x = layers.Conv2D(16, kernel_size, activation="relu", name=f"{name}_conv")(x)
    return layers.MaxPooling2D(pool_size, strides)(x)


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((20,), dtype="int32", name="input")
    x = layers.Embedding(200, 12, name="embedding")(x)
    x = ops.expand_dims(x, axis=3)
    conv3 = conv_relu_pool(x, (3, 12), (18, 1), (18, 1), name="conv3")
    conv4 = conv_relu_pool(x, (4, 12), (17, 1), (17, 1), name="conv4")
    x = conv_relu_pool(x, (5, 12), (16, 1), (16, 1), name="conv5")
    x = layers.Flatten()(layers.Concatenate()([conv3, conv4, x]))
    x = layers.Dense(4, name="output")(x)
    return keras.Model(inputs, [x, ops.cast(ops.argmax(x, axis=1), "int64")], name="model2")


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
