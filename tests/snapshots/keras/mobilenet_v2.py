"""mobilenet_v2, converted from TensorFlow (model.ckpt.meta).

Input    input          float32 [N, 97, 97, 3]
Output   logits         float32 [N, 17]         source: MobilenetV2/Logits/logits
Output   probabilities  float32 [N, 17]

    model = load("model.keras")
    y1, y2 = model(input)  # training=True for batches to train on
"""

import keras
from keras import layers


def conv_bn_relu6(x, filters, kernel_size=1, strides=1, padding="valid", *, name):
    x = layers.Conv2D(filters, kernel_size, strides, padding=padding, use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(6.0)(x)


def conv_bn_relu6_2(x, strides=1, *, name):
    x = layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(6.0)(x)


def conv_bn(x, filters, name):
    x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_conv")(x)
    return layers.BatchNormalization(name=f"{name}_bn")(x)


def expanded_conv(x, name):
    """expanded_conv."""
    depthwise = conv_bn_relu6_2(x, name=f"{name}_depthwise")
    project = conv_bn(depthwise, 4, name=f"{name}_project")
    return layers.Add()([project, x])


def expanded_conv2(x, filters, name):
    expand = conv_bn_relu6(x, filters, name=f"{name}_expand")
    depthwise = conv_bn_relu6_2(expand, name=f"{name}_depthwise")
    project = conv_bn(depthwise, filters // 6, name=f"{name}_project")
    return layers.Add()([project, x])


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((97, 97, 3), name="input")
    x = conv_bn_relu6(x, 4, kernel_size=3, strides=2, padding="same", name="Conv")
    x = expanded_conv(x, name="expanded_conv")
    x = conv_bn_relu6(x, 24, name="expanded_conv_1_expand")
    x = conv_bn_relu6_2(x, strides=2, name="expanded_conv_1_conv")
    x = conv_bn(x, 4, name="expanded_conv_1_project")
    x = expanded_conv2(x, 24, name="expanded_conv_2")
    x = conv_bn_relu6(x, 24, name="expanded_conv_3_expand")
    x = conv_bn_relu6_2(x, strides=2, name="expanded_conv_3_conv")
    x = conv_bn(x, 4, name="expanded_conv_3_project")
    x = expanded_conv2(x, 24, name="expanded_conv_4")
    x = expanded_conv2(x, 24, name="expanded_conv_5")
    x = conv_bn_relu6(x, 24, name="expanded_conv_6_expand")
    x = conv_bn_relu6_2(x, strides=2, name="expanded_conv_6_conv")
    x = conv_bn(x, 8, name="expanded_conv_6_project")
    for i in range(7, 10):
        x = expanded_conv2(x, 48, name=f"expanded_conv_{i}")
    x = conv_bn_relu6(x, 48, name="expanded_conv_10_expand")
    x = conv_bn_relu6_2(x, name="expanded_conv_10_conv")
    x = conv_bn(x, 12, name="expanded_conv_10_project")
    x = expanded_conv2(x, 72, name="expanded_conv_11")
    x = expanded_conv2(x, 72, name="expanded_conv_12")
    x = conv_bn_relu6(x, 72, name="expanded_conv_13_expand")
    x = conv_bn_relu6_2(x, strides=2, name="expanded_conv_13_conv")
    x = conv_bn(x, 20, name="expanded_conv_13_project")
    x = expanded_conv2(x, 120, name="expanded_conv_14")
    x = expanded_conv2(x, 120, name="expanded_conv_15")
    x = conv_bn_relu6(x, 120, name="expanded_conv_16_expand")
    x = conv_bn_relu6_2(x, name="expanded_conv_16_conv")
    x = conv_bn(x, 40, name="expanded_conv_16_project")
    x = conv_bn_relu6(x, 160, name="Conv_1")
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(17, name="Logits")(x)
    return keras.Model(inputs, [x, layers.Softmax()(x)], name="mobilenet_v2")


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
