"""mobile_net_v3, converted from a PyTorch state dict, recognised as mobilenet_v3_small.

Input    input   float32 [N, 64, 64, 3]  source: x, NCHW
Output   output  float32 [N, 7]

    model = load("model.keras")
    y = model(input)  # training=True for batches to train on
"""

import keras
from keras import layers


def conv2d_norm_activation(x, filters, kernel_size=1, strides=1, activation=None, *, name):
    """23 modules from features.0 to features.12."""
    if strides != 1:
        x = layers.ZeroPadding2D()(x)
    x = layers.Conv2D(filters, kernel_size, strides, use_bias=False, name=f"{name}_0")(x)
    x = layers.BatchNormalization(momentum=0.9, name=f"{name}_1")(x)
    return layers.Activation(activation)(x) if activation else x


def conv2d_norm_activation2(x, kernel_size, activation, strides=1, *, name):
    """11 modules from features.1.block.0 to features.11.block.1."""
    if strides != 1:
        x = layers.ZeroPadding2D(kernel_size // 2)(x)
    x = layers.DepthwiseConv2D(
        kernel_size, strides, padding="valid" if strides != 1 else "same", use_bias=False, name=f"{name}_0"
    )(x)
    x = layers.BatchNormalization(momentum=0.9, name=f"{name}_1")(x)
    return layers.Activation(activation)(x)


def squeeze_excitation(x, mid_filters, filters, name):
    """9 modules from features.1.block.1 to features.11.block.2."""
    y = layers.GlobalAveragePooling2D(keepdims=True)(x)
    y = layers.Conv2D(mid_filters, 1, activation="relu", name=f"{name}_fc1")(y)
    y = layers.Conv2D(filters, 1, activation="hard_sigmoid", name=f"{name}_fc2")(y)
    return y * x


def inverted_residual(x, filters, strides=1, *, name):
    """features.2, features.3."""
    y = conv2d_norm_activation(x, filters, activation="relu", name=f"{name}_block_0")
    y = conv2d_norm_activation2(y, 3, "relu", strides=strides, name=f"{name}_block_1")
    y = conv2d_norm_activation(y, 24, name=f"{name}_block_2")
    return layers.Add()([x, y]) if strides == 1 else y


def inverted_residual2(x, inner_filters, mid_filters, filters, strides=1, residual=True, *, name):
    """8 modules from features.4 to features.11."""
    y = conv2d_norm_activation(x, inner_filters, activation="hard_swish", name=f"{name}_block_0")
    y = conv2d_norm_activation2(y, 5, "hard_swish", strides=strides, name=f"{name}_block_1")
    y = squeeze_excitation(y, mid_filters, inner_filters, name=f"{name}_block_2")
    y = conv2d_norm_activation(y, filters, name=f"{name}_block_3")
    return layers.Add()([x, y]) if residual else y


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((64, 64, 3), name="input")
    x = conv2d_norm_activation(x, 16, kernel_size=3, strides=2, activation="hard_swish", name="features_0")
    x = conv2d_norm_activation2(x, 3, "relu", strides=2, name="features_1_block_0")
    x = squeeze_excitation(x, 8, 16, name="features_1_block_1")
    x = conv2d_norm_activation(x, 16, name="features_1_block_2")
    x = inverted_residual(x, 72, strides=2, name="features_2")
    x = inverted_residual(x, 88, name="features_3")
    x = inverted_residual2(x, 96, 24, 40, strides=2, residual=False, name="features_4")
    x = inverted_residual2(x, 240, 64, 40, name="features_5")
    x = inverted_residual2(x, 240, 64, 40, name="features_6")
    x = inverted_residual2(x, 120, 32, 48, residual=False, name="features_7")
    x = inverted_residual2(x, 144, 40, 48, name="features_8")
    x = inverted_residual2(x, 288, 72, 96, strides=2, residual=False, name="features_9")
    x = inverted_residual2(x, 576, 144, 96, name="features_10")
    x = inverted_residual2(x, 576, 144, 96, name="features_11")
    x = conv2d_norm_activation(x, 576, activation="hard_swish", name="features_12")
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(1024, activation="hard_swish", name="classifier_0")(x)
    x = layers.Dropout(0.2, name="classifier_2")(x)
    return keras.Model(inputs, layers.Dense(7, name="classifier_3")(x), name="mobile_net_v3")


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
