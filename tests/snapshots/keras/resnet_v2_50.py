"""resnet_v2_50, converted from TensorFlow (model.ckpt.meta).

Input    input         float32 [N, 97, 97, 3]
Output   MMdnn_Output  float32 [N, 17]

    model = load("model.keras")
    y = model(input)  # training=True for batches to train on
"""

import keras
from keras import layers


def bn_relu(x, name):
    x = layers.BatchNormalization(epsilon=1e-5, name=f"{name}_bn")(x)
    return layers.ReLU()(x)


def conv_bn_relu(x, filters, kernel_size, strides=1, *, name):
    x = layers.Conv2D(filters, kernel_size, strides, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(epsilon=1e-5, name=f"{name}_bn")(x)
    return layers.ReLU()(x)


def projection_bottleneck_v2(x, filters, name):
    """block1/unit_1, block2/unit_1, block3/unit_1, block4/unit_1."""
    x = bn_relu(x, name=f"{name}_preact")
    y = layers.Conv2D(filters, 1, name=f"{name}_shortcut")(x)
    x = conv_bn_relu(x, filters // 4, 1, name=f"{name}_conv1")
    x = conv_bn_relu(x, filters // 4, 3, name=f"{name}_conv2")
    x = layers.Conv2D(filters, 1, name=f"{name}_conv3")(x)
    return layers.Add()([y, x])


def bottleneck_v2(x, filters, strides=1, *, name):
    """12 blocks from block1/unit_2 to block4/unit_3."""
    y = layers.MaxPooling2D(1, strides)(x) if strides != 1 else x
    x = bn_relu(x, name=f"{name}_preact")
    x = conv_bn_relu(x, filters, 1, name=f"{name}_conv1")
    x = conv_bn_relu(x, filters, 3, strides=strides, name=f"{name}_conv2")
    x = layers.Conv2D(4 * filters, 1, name=f"{name}_conv3")(x)
    return layers.Add()([y, x])


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((97, 97, 3), name="input")
    x = layers.Conv2D(64, 7, 2, padding="same", name="conv1")(x)
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    x = projection_bottleneck_v2(x, 16, name="block1_unit_1")
    x = bottleneck_v2(x, 4, name="block1_unit_2")
    x = bottleneck_v2(x, 4, strides=2, name="block1_unit_3")
    x = projection_bottleneck_v2(x, 32, name="block2_unit_1")
    x = bottleneck_v2(x, 8, name="block2_unit_2")
    x = bottleneck_v2(x, 8, name="block2_unit_3")
    x = bottleneck_v2(x, 8, strides=2, name="block2_unit_4")
    x = projection_bottleneck_v2(x, 64, name="block3_unit_1")
    for i in range(2, 6):
        x = bottleneck_v2(x, 16, name=f"block3_unit_{i}")
    x = bottleneck_v2(x, 16, strides=2, name="block3_unit_6")
    x = projection_bottleneck_v2(x, 128, name="block4_unit_1")
    x = bottleneck_v2(x, 32, name="block4_unit_2")
    x = bottleneck_v2(x, 32, name="block4_unit_3")
    x = bn_relu(x, name="postnorm")
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = layers.Conv2D(17, 1, name="logits")(x)
    return keras.Model(inputs, layers.Flatten()(x), name="resnet_v2_50")


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
