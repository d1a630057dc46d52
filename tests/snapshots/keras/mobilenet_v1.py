"""mobilenet_v1, converted from TensorFlow (model.ckpt.meta).

Input    input   float32 [N, 96, 96, 3]
Output   Logits  float32 [N, 17]         source: MobilenetV1/Logits/SpatialSqueeze

    model = load("model.keras")
    y = model(input)  # training=True for batches to train on
"""

import keras
from keras import layers


def conv_bn_relu6(x, filters, kernel_size=1, strides=1, *, name):
    x = layers.Conv2D(filters, kernel_size, strides, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(6.0)(x)


def conv_bn_relu6_2(x, strides=1, *, name):
    x = layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(6.0)(x)


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((96, 96, 3), name="input")
    x = conv_bn_relu6(x, 4, kernel_size=3, strides=2, name="Conv2d_0")
    x = conv_bn_relu6_2(x, name="Conv2d_1_depthwise")
    x = conv_bn_relu6(x, 8, name="Conv2d_1_pointwise")
    x = conv_bn_relu6_2(x, strides=2, name="Conv2d_2_depthwise")
    x = conv_bn_relu6(x, 16, name="Conv2d_2_pointwise")
    x = conv_bn_relu6_2(x, name="Conv2d_3_depthwise")
    x = conv_bn_relu6(x, 16, name="Conv2d_3_pointwise")
    x = conv_bn_relu6_2(x, strides=2, name="Conv2d_4_depthwise")
    x = conv_bn_relu6(x, 32, name="Conv2d_4_pointwise")
    x = conv_bn_relu6_2(x, name="Conv2d_5_depthwise")
    x = conv_bn_relu6(x, 32, name="Conv2d_5_pointwise")
    x = conv_bn_relu6_2(x, strides=2, name="Conv2d_6_depthwise")
    x = conv_bn_relu6(x, 64, name="Conv2d_6_pointwise")
    x = conv_bn_relu6_2(x, name="Conv2d_7_depthwise")
    x = conv_bn_relu6(x, 64, name="Conv2d_7_pointwise")
    x = conv_bn_relu6_2(x, name="Conv2d_8_depthwise")
    x = conv_bn_relu6(x, 64, name="Conv2d_8_pointwise")
    x = conv_bn_relu6_2(x, name="Conv2d_9_depthwise")
    x = conv_bn_relu6(x, 64, name="Conv2d_9_pointwise")
    x = conv_bn_relu6_2(x, name="Conv2d_10_depthwise")
    x = conv_bn_relu6(x, 64, name="Conv2d_10_pointwise")
    x = conv_bn_relu6_2(x, name="Conv2d_11_depthwise")
    x = conv_bn_relu6(x, 64, name="Conv2d_11_pointwise")
    x = conv_bn_relu6_2(x, strides=2, name="Conv2d_12_depthwise")
    x = conv_bn_relu6(x, 128, name="Conv2d_12_pointwise")
    x = conv_bn_relu6_2(x, name="Conv2d_13_depthwise")
    x = conv_bn_relu6(x, 128, name="Conv2d_13_pointwise")
    x = layers.AveragePooling2D(3)(x)
    x = layers.Conv2D(17, 1, name="Logits")(x)
    return keras.Model(inputs, layers.Flatten()(x), name="mobilenet_v1")


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
