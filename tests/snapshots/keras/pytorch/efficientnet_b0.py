"""efficient_net, converted from a PyTorch state dict, recognised as efficientnet.

Input    input   float32 [N, 64, 64, 3]  source: x, NCHW
Output   output  float32 [N, 7]

    model = load("model.keras")
    y = model(input)  # training=True for batches to train on
"""

import keras
from keras import layers


def conv2d_norm_activation(x, filters, kernel_size=1, strides=1, silu=True, *, name):
    """19 modules from features.0 to features.8."""
    if strides != 1:
        x = layers.ZeroPadding2D()(x)
    x = layers.Conv2D(filters, kernel_size, strides, use_bias=False, name=f"{name}_0")(x)
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_1")(x)
    return layers.Activation("swish")(x) if silu else x


def conv2d_norm_activation2(x, kernel_size, strides=1, *, name):
    """9 modules from features.1.0.block.0 to features.7.0.block.1."""
    if strides != 1:
        x = layers.ZeroPadding2D(kernel_size // 2)(x)
    x = layers.DepthwiseConv2D(
        kernel_size, strides, padding="valid" if strides != 1 else "same", use_bias=False, name=f"{name}_0"
    )(x)
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_1")(x)
    return layers.Activation("swish")(x)


def squeeze_excitation(x, mid_filters, filters, name):
    """9 modules from features.1.0.block.1 to features.7.0.block.2."""
    y = layers.GlobalAveragePooling2D(keepdims=True)(x)
    y = layers.Conv2D(mid_filters, 1, activation="swish", name=f"{name}_fc1")(y)
    y = layers.Conv2D(filters, 1, activation="sigmoid", name=f"{name}_fc2")(y)
    return y * x


def mb_conv(x, name):
    """features.1.0: [N, 32, 32, 8] to [N, 32, 32, 8]."""
    y = conv2d_norm_activation2(x, 3, name=f"{name}_block_0")
    y = squeeze_excitation(y, 2, 8, name=f"{name}_block_1")
    y = conv2d_norm_activation(y, 8, silu=False, name=f"{name}_block_2")
    return layers.Add()([y, x])


def mb_conv2(x, inner_filters, kernel_size, mid_filters, filters, strides=1, residual=False, *, name):
    """8 modules from features.2.0 to features.7.0."""
    y = conv2d_norm_activation(x, inner_filters, name=f"{name}_block_0")
    y = conv2d_norm_activation2(y, kernel_size, strides=strides, name=f"{name}_block_1")
    y = squeeze_excitation(y, mid_filters, inner_filters, name=f"{name}_block_2")
    y = conv2d_norm_activation(y, filters, silu=False, name=f"{name}_block_3")
    return layers.Add()([y, x]) if residual else y


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((64, 64, 3), name="input")
    x = conv2d_norm_activation(x, 8, kernel_size=3, strides=2, name="features_0")
    x = mb_conv(x, name="features_1_0")
    x = mb_conv2(x, 48, 3, 2, 16, strides=2, name="features_2_0")
    x = mb_conv2(x, 96, 3, 4, 16, residual=True, name="features_2_1")
    x = mb_conv2(x, 96, 5, 4, 16, strides=2, name="features_3_0")
    x = mb_conv2(x, 96, 5, 4, 16, residual=True, name="features_3_1")
    x = mb_conv2(x, 96, 3, 4, 16, strides=2, name="features_4_0")
    x = mb_conv2(x, 96, 5, 4, 24, name="features_5_0")
    x = mb_conv2(x, 144, 5, 6, 32, strides=2, name="features_6_0")
    x = mb_conv2(x, 192, 3, 8, 48, name="features_7_0")
    x = conv2d_norm_activation(x, 192, name="features_8")
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2, name="classifier_0")(x)
    return keras.Model(inputs, layers.Dense(7, name="classifier_1")(x), name="efficient_net")


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
