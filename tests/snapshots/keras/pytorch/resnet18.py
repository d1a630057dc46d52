"""res_net, converted from a PyTorch state dict, recognised as resnet18.

Input    input   float32 [N, 64, 64, 3]  source: x, NCHW
Output   output  float32 [N, 1000]

    model = load("model.keras")
    y = model(input)  # training=True for batches to train on
"""

import keras
from keras import layers


def conv_bn(x, filters, name):
    """layer2.0.downsample, layer3.0.downsample, layer4.0.downsample."""
    x = layers.Conv2D(filters, 1, 2, use_bias=False, name=f"{name}_0")(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_1")(x)


def basic_block(x, filters, strides=1, *, name):
    """8 modules from layer1.0 to layer4.1."""
    y = layers.ZeroPadding2D()(x) if strides != 1 else x
    y = layers.Conv2D(
        filters, 3, strides, padding="valid" if strides != 1 else "same", use_bias=False, name=f"{name}_conv1"
    )(y)
    y = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn1")(y)
    y = layers.ReLU()(y)
    y = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv2")(y)
    y = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn2")(y)
    if strides != 1:
        x = conv_bn(x, filters, name=f"{name}_downsample")
    return layers.ReLU()(layers.Add()([y, x]))


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((64, 64, 3), name="input")
    x = layers.ZeroPadding2D(3)(x)
    x = layers.Conv2D(8, 7, 2, use_bias=False, name="conv1")(x)
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name="bn1")(x)
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D()(layers.ReLU()(x)))
    x = basic_block(x, 8, name="layer1_0")
    x = basic_block(x, 8, name="layer1_1")
    x = basic_block(x, 16, strides=2, name="layer2_0")
    x = basic_block(x, 16, name="layer2_1")
    x = basic_block(x, 32, strides=2, name="layer3_0")
    x = basic_block(x, 32, name="layer3_1")
    x = basic_block(x, 64, strides=2, name="layer4_0")
    x = basic_block(x, 64, name="layer4_1")
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(1000, name="fc")(x), name="res_net")


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
