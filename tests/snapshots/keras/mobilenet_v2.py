"""mobilenet_v2, converted from TensorFlow (model.ckpt.meta).

Input    input          float32 [N, 97, 97, 3]
Output   logits         float32 [N, 17]         source: MobilenetV2/Logits/logits
Output   probabilities  float32 [N, 17]

    model = load("model.keras")
    logits, probabilities = model(input)  # training=True for batches to train on
"""

import keras
from keras import layers


def conv_bn_relu6(x, filters, kernel_size=1, strides=1, relu6=True, *, name):
    x = layers.Conv2D(filters, kernel_size, strides, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(6.0)(x) if relu6 else x


def conv_bn_relu6_2(x, strides=1, *, name):
    x = layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(6.0)(x)


def expanded_conv(x, filters, mid_filters=None, strides=1, residual=True, *, name):
    y = conv_bn_relu6(x, mid_filters, name=f"{name}_expand") if mid_filters else x
    y = conv_bn_relu6_2(y, strides=strides, name=f"{name}_depthwise")
    y = conv_bn_relu6(y, filters, relu6=False, name=f"{name}_project")
    return layers.Add()([y, x]) if residual else y


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((97, 97, 3), name="input")
    x = conv_bn_relu6(x, 4, kernel_size=3, strides=2, name="Conv")
    x = expanded_conv(x, 4, name="expanded_conv")
    x = expanded_conv(x, 4, mid_filters=24, strides=2, residual=False, name="expanded_conv_1")
    x = expanded_conv(x, 4, mid_filters=24, name="expanded_conv_2")
    x = expanded_conv(x, 4, mid_filters=24, strides=2, residual=False, name="expanded_conv_3")
    x = expanded_conv(x, 4, mid_filters=24, name="expanded_conv_4")
    x = expanded_conv(x, 4, mid_filters=24, name="expanded_conv_5")
    x = expanded_conv(x, 8, mid_filters=24, strides=2, residual=False, name="expanded_conv_6")
    for i in range(7, 10):
        x = expanded_conv(x, 8, mid_filters=48, name=f"expanded_conv_{i}")
    x = expanded_conv(x, 12, mid_filters=48, residual=False, name="expanded_conv_10")
    x = expanded_conv(x, 12, mid_filters=72, name="expanded_conv_11")
    x = expanded_conv(x, 12, mid_filters=72, name="expanded_conv_12")
    x = expanded_conv(x, 20, mid_filters=72, strides=2, residual=False, name="expanded_conv_13")
    x = expanded_conv(x, 20, mid_filters=120, name="expanded_conv_14")
    x = expanded_conv(x, 20, mid_filters=120, name="expanded_conv_15")
    x = expanded_conv(x, 40, mid_filters=120, residual=False, name="expanded_conv_16")
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
