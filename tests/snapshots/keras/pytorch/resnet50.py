"""res_net, converted from a PyTorch state dict, recognised as resnet50.

Input    input   float32 [N, 64, 64, 3]  source: x, NCHW
Output   output  float32 [N, 1000]

    model = load("model.keras")
    y = model(input)  # training=True for batches to train on
"""

import keras
from keras import layers


def conv_bn(x, filters, strides=2, *, name):
    """layer1.0.downsample, layer2.0.downsample, layer3.0.downsample, layer4.0.downsample."""
    x = layers.Conv2D(filters, 1, strides, use_bias=False, name=f"{name}_0")(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_1")(x)


def bottleneck(x, filters, strides=1, downsample=False, *, name):
    """16 modules from layer1.0 to layer4.2."""
    y = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_conv1")(x)
    y = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn1")(y)
    y = layers.ReLU()(y)
    if strides != 1:
        y = layers.ZeroPadding2D()(y)
    y = layers.Conv2D(
        filters, 3, strides, padding="valid" if strides != 1 else "same", use_bias=False, name=f"{name}_conv2"
    )(y)
    y = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn2")(y)
    y = layers.ReLU()(y)
    y = layers.Conv2D(4 * filters, 1, use_bias=False, name=f"{name}_conv3")(y)
    y = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn3")(y)
    if downsample:
        x = conv_bn(x, 4 * filters, strides=strides, name=f"{name}_downsample")
    return layers.ReLU()(layers.Add()([y, x]))


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((64, 64, 3), name="input")
    x = layers.ZeroPadding2D(3)(x)
    x = layers.Conv2D(8, 7, 2, use_bias=False, name="conv1")(x)
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name="bn1")(x)
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D()(layers.ReLU()(x)))
    x = bottleneck(x, 8, downsample=True, name="layer1_0")
    x = bottleneck(x, 8, name="layer1_1")
    x = bottleneck(x, 8, name="layer1_2")
    x = bottleneck(x, 16, strides=2, downsample=True, name="layer2_0")
    for i in range(1, 4):
        x = bottleneck(x, 16, name=f"layer2_{i}")
    x = bottleneck(x, 32, strides=2, downsample=True, name="layer3_0")
    for i in range(1, 6):
        x = bottleneck(x, 32, name=f"layer3_{i}")
    x = bottleneck(x, 64, strides=2, downsample=True, name="layer4_0")
    x = bottleneck(x, 64, name="layer4_1")
    x = bottleneck(x, 64, name="layer4_2")
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
