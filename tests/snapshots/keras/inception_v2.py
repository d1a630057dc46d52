"""inception_v2, converted from TensorFlow (model.ckpt.meta).

Input    input         float32 [N, 107, 107, 3]
Output   MMdnn_Output  float32 [N, 17]

    model = load("model.keras")
    y = model(input)  # training=True for batches to train on
"""

import keras
from keras import layers


def conv_bn_relu(x, filters, kernel_size, strides=1, *, name):
    x = layers.Conv2D(filters, kernel_size, strides, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(scale=False, name=f"{name}_bn")(x)
    return layers.ReLU()(x)


def mixed(x, filters, branch_1_filters, branch_1_filters2, branch_2_filters, branch_2_filters2, branch_3_filters, name):
    """Mixed_3b, Mixed_3c, Mixed_4b, Mixed_4c, Mixed_4d, Mixed_4e, Mixed_5b."""
    branch_0 = conv_bn_relu(x, filters, 1, name=f"{name}_Branch_0")
    branch_1 = conv_bn_relu(x, branch_1_filters, 1, name=f"{name}_Branch_1_Conv2d_0a_1x1")
    branch_1 = conv_bn_relu(branch_1, branch_1_filters2, 3, name=f"{name}_Branch_1_Conv2d_0b_3x3")
    branch_2 = conv_bn_relu(x, branch_2_filters, 1, name=f"{name}_Branch_2_Conv2d_0a_1x1")
    branch_2 = conv_bn_relu(branch_2, branch_2_filters2, 3, name=f"{name}_Branch_2_Conv2d_0b_3x3")
    branch_2 = conv_bn_relu(branch_2, branch_2_filters2, 3, name=f"{name}_Branch_2_Conv2d_0c_3x3")
    x = layers.AveragePooling2D(3, 1, padding="same")(x)
    x = conv_bn_relu(x, branch_3_filters, 1, name=f"{name}_Branch_3_Conv2d_0b_1x1")
    return layers.Concatenate()([branch_0, branch_1, branch_2, x])


def downsample_mixed(x, filters, branch_1_filters, branch_1_filters2, name):
    """Mixed_4a, Mixed_5a."""
    branch_0 = conv_bn_relu(x, 12, 1, name=f"{name}_Branch_0_Conv2d_0a_1x1")
    branch_0 = conv_bn_relu(branch_0, filters, 3, strides=2, name=f"{name}_Branch_0_Conv2d_1a_3x3")
    branch_1 = conv_bn_relu(x, branch_1_filters, 1, name=f"{name}_Branch_1_Conv2d_0a_1x1")
    branch_1 = conv_bn_relu(branch_1, branch_1_filters2, 3, name=f"{name}_Branch_1_Conv2d_0b_3x3")
    branch_1 = conv_bn_relu(branch_1, branch_1_filters2, 3, strides=2, name=f"{name}_Branch_1_Conv2d_1a_3x3")
    return layers.Concatenate()([branch_0, branch_1, layers.MaxPooling2D(3, 2, padding="same")(x)])


def mixed5_c(x, name):
    """Mixed_5c: [N, 4, 4, 101] to [N, 4, 4, 101]."""
    branch_0 = conv_bn_relu(x, 35, 1, name=f"{name}_Branch_0")
    branch_1 = conv_bn_relu(x, 19, 1, name=f"{name}_Branch_1_Conv2d_0a_1x1")
    branch_1 = conv_bn_relu(branch_1, 32, 3, name=f"{name}_Branch_1_Conv2d_0b_3x3")
    branch_2 = conv_bn_relu(x, 19, 1, name=f"{name}_Branch_2_Conv2d_0a_1x1")
    branch_2 = conv_bn_relu(branch_2, 22, 3, name=f"{name}_Branch_2_Conv2d_0b_3x3")
    branch_2 = conv_bn_relu(branch_2, 22, 3, name=f"{name}_Branch_2_Conv2d_0c_3x3")
    x = layers.MaxPooling2D(3, 1, padding="same")(x)
    x = conv_bn_relu(x, 12, 1, name=f"{name}_Branch_3_Conv2d_0b_1x1")
    return layers.Concatenate()([branch_0, branch_1, branch_2, x])


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((107, 107, 3), name="input")
    x = layers.DepthwiseConv2D(7, 2, padding="same", depth_multiplier=2, use_bias=False, name="Conv2d_1a_7x7_conv")(x)
    x = layers.Conv2D(6, 1, activation="relu", name="Conv2d_1a_7x7_conv2")(x)
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    x = conv_bn_relu(x, 6, 1, name="Conv2d_2b_1x1")
    x = conv_bn_relu(x, 19, 3, name="Conv2d_2c_3x3")
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    x = mixed(x, 6, 6, 6, 6, 9, 4, name="Mixed_3b")
    x = mixed(x, 6, 6, 9, 6, 9, 6, name="Mixed_3c")
    x = downsample_mixed(x, 16, 6, 9, name="Mixed_4a")
    x = mixed(x, 22, 6, 9, 9, 12, 12, name="Mixed_4b")
    x = mixed(x, 19, 9, 12, 9, 12, 12, name="Mixed_4c")
    x = mixed(x, 16, 12, 16, 12, 16, 9, name="Mixed_4d")
    x = mixed(x, 9, 12, 19, 16, 19, 9, name="Mixed_4e")
    x = downsample_mixed(x, 19, 19, 25, name="Mixed_5a")
    x = mixed(x, 35, 19, 32, 16, 22, 12, name="Mixed_5b")
    x = mixed5_c(x, name="Mixed_5c")
    x = layers.AveragePooling2D(4)(x)
    x = layers.Conv2D(17, 1, name="Logits")(x)
    return keras.Model(inputs, layers.Flatten()(x), name="inception_v2")


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
