"""dense_net, converted from a PyTorch state dict, recognised as densenet38.

Input    input   float32 [N, 64, 64, 3]  source: x, NCHW
Output   output  float32 [N, 7]

    model = load("model.keras")
    y = model(input)  # training=True for batches to train on
"""

import keras
from keras import layers


def dense_layer(x, name):
    """17 modules from features.denseblock1.denselayer1 to features.denseblock3.denselayer3."""
    y = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm1")(x)
    y = layers.ReLU()(y)
    y = layers.Conv2D(8, 1, use_bias=False, name=f"{name}_conv1")(y)
    y = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm2")(y)
    y = layers.ReLU()(y)
    y = layers.Conv2D(4, 3, padding="same", use_bias=False, name=f"{name}_conv2")(y)
    return layers.Concatenate()([x, y])


def transition(x, filters, name):
    """features.transition1, features.transition2."""
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x)
    x = layers.ReLU()(x)
    x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_conv")(x)
    return layers.AveragePooling2D(2)(x)


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((64, 64, 3), name="input")
    x = layers.ZeroPadding2D(3)(x)
    x = layers.Conv2D(8, 7, 2, use_bias=False, name="features_conv0")(x)
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name="features_norm0")(x)
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D()(layers.ReLU()(x)))
    for i in range(1, 7):
        x = dense_layer(x, name=f"features_denseblock1_denselayer{i}")
    x = transition(x, 16, name="features_transition1")
    for i in range(1, 9):
        x = dense_layer(x, name=f"features_denseblock2_denselayer{i}")
    x = transition(x, 24, name="features_transition2")
    for i in range(1, 4):
        x = dense_layer(x, name=f"features_denseblock3_denselayer{i}")
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name="features_norm5")(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return keras.Model(inputs, layers.Dense(7, name="classifier")(x), name="dense_net")


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
