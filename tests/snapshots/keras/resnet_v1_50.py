"""resnet_v1_50, converted from TensorFlow (model.ckpt.meta).

Input    input         float32 [N, 97, 97, 3]
Output   MMdnn_Output  float32 [N, 1, 1, 17]

    model = load("model.keras")
    y = model(input)  # training=True for batches to train on
"""

import keras
from keras import layers


def conv_bn_relu(x, filters, kernel_size, strides=1, relu=True, *, name):
    x = layers.Conv2D(filters, kernel_size, strides, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(epsilon=1e-5, name=f"{name}_bn")(x)
    return layers.ReLU()(x) if relu else x


def bottleneck_v1(x, filters, conv1_filters, shortcut=False, *, name):
    """13 blocks from block1/unit_1 to block4/unit_3."""
    y = conv_bn_relu(x, filters, 1, relu=False, name=f"{name}_shortcut") if shortcut else x
    x = conv_bn_relu(x, conv1_filters, 1, name=f"{name}_conv1")
    x = conv_bn_relu(x, conv1_filters, 3, name=f"{name}_conv2")
    x = conv_bn_relu(x, filters, 1, relu=False, name=f"{name}_conv3")
    return layers.ReLU()(layers.Add()([y, x]))


def downsample_bottleneck_v1(x, filters, name):
    """block1/unit_3, block2/unit_4, block3/unit_6."""
    y = conv_bn_relu(x, filters, 1, name=f"{name}_conv1")
    y = conv_bn_relu(y, filters, 3, strides=2, name=f"{name}_conv2")
    y = conv_bn_relu(y, 4 * filters, 1, relu=False, name=f"{name}_conv3")
    return layers.ReLU()(layers.Add()([layers.MaxPooling2D(1, 2)(x), y]))


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((97, 97, 3), name="input")
    x = conv_bn_relu(x, 64, 7, strides=2, name="conv1")
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    x = bottleneck_v1(x, 16, 4, shortcut=True, name="block1_unit_1")
    x = bottleneck_v1(x, 16, 4, name="block1_unit_2")
    x = downsample_bottleneck_v1(x, 4, name="block1_unit_3")
    x = bottleneck_v1(x, 32, 8, shortcut=True, name="block2_unit_1")
    x = bottleneck_v1(x, 32, 8, name="block2_unit_2")
    x = bottleneck_v1(x, 32, 8, name="block2_unit_3")
    x = downsample_bottleneck_v1(x, 8, name="block2_unit_4")
    x = bottleneck_v1(x, 64, 16, shortcut=True, name="block3_unit_1")
    for i in range(2, 6):
        x = bottleneck_v1(x, 64, 16, name=f"block3_unit_{i}")
    x = downsample_bottleneck_v1(x, 16, name="block3_unit_6")
    x = bottleneck_v1(x, 128, 32, shortcut=True, name="block4_unit_1")
    x = bottleneck_v1(x, 128, 32, name="block4_unit_2")
    x = bottleneck_v1(x, 128, 32, name="block4_unit_3")
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    return keras.Model(inputs, layers.Conv2D(17, 1, name="logits")(x), name="resnet_v1_50")


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
