"""goog_le_net, converted from a PyTorch state dict, recognised as googlenet.

Input    input   float32 [N, 96, 96, 3]  source: x, NCHW
Output   output  float32 [N, 7]

    model = load("model.keras")
    y = model(input)  # training=True for batches to train on
"""

import keras
from keras import layers


def basic_conv2d(x, filters, kernel_size, strides=1, *, name):
    """57 modules from conv1 to inception5b.branch4.1."""
    if strides != 1:
        x = layers.ZeroPadding2D(3)(x)
    x = layers.Conv2D(
        filters, kernel_size, strides, padding="valid" if strides != 1 else "same", use_bias=False, name=f"{name}_conv"
    )(x)
    x = layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
    return layers.ReLU()(x)


def inception(
    x,
    filters,
    basic_conv2d_filters,
    basic_conv2d_filters2,
    basic_conv2d_filters3,
    basic_conv2d_filters4,
    basic_conv2d_filters5,
    name,
):
    """9 modules from inception3a to inception5b."""
    branch1 = basic_conv2d(x, filters, 1, name=f"{name}_branch1")
    y = basic_conv2d(x, basic_conv2d_filters, 1, name=f"{name}_branch2_0")
    y = basic_conv2d(y, basic_conv2d_filters2, 3, name=f"{name}_branch2_1")
    branch2 = basic_conv2d(x, basic_conv2d_filters3, 1, name=f"{name}_branch3_0")
    branch2 = basic_conv2d(branch2, basic_conv2d_filters4, 3, name=f"{name}_branch3_1")
    x = layers.MaxPooling2D(3, 1, padding="same")(x)
    x = basic_conv2d(x, basic_conv2d_filters5, 1, name=f"{name}_branch4_1")
    return layers.Concatenate()([branch1, y, branch2, x])


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((96, 96, 3), name="input")
    x = basic_conv2d(x, 64, 7, strides=2, name="conv1")
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    x = basic_conv2d(x, 64, 1, name="conv2")
    x = basic_conv2d(x, 192, 3, name="conv3")
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    x = inception(x, 64, 96, 128, 16, 32, 32, name="inception3a")
    x = inception(x, 128, 128, 192, 32, 96, 64, name="inception3b")
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    x = inception(x, 192, 96, 208, 16, 48, 64, name="inception4a")
    x = inception(x, 160, 112, 224, 24, 64, 64, name="inception4b")
    x = inception(x, 128, 128, 256, 24, 64, 64, name="inception4c")
    x = inception(x, 112, 144, 288, 32, 64, 64, name="inception4d")
    x = inception(x, 256, 160, 320, 32, 128, 128, name="inception4e")
    x = layers.MaxPooling2D(2)(x)
    x = inception(x, 256, 160, 320, 32, 128, 128, name="inception5a")
    x = inception(x, 384, 192, 384, 48, 128, 128, name="inception5b")
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2, name="dropout")(x)
    return keras.Model(inputs, layers.Dense(7, name="fc")(x), name="goog_le_net")


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
