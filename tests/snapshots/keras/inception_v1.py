"""inception_v1, converted from TensorFlow (model.ckpt.meta).

Input    input         float32 [N, 224, 224, 3]
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


def mixed(x, filters, branch_1_filters, branch_1_filters2, branch_2_filters, branch_3_filters, name):
    branch_0 = conv_bn_relu(x, filters, 1, name=f"{name}_Branch_0")
    branch_1 = conv_bn_relu(x, branch_1_filters, 1, name=f"{name}_Branch_1_Conv2d_0a_1x1")
    branch_1 = conv_bn_relu(branch_1, branch_1_filters2, 3, name=f"{name}_Branch_1_Conv2d_0b_3x3")
    branch_2 = conv_bn_relu(x, 8, 1, name=f"{name}_Branch_2_Conv2d_0a_1x1")
    branch_2 = conv_bn_relu(branch_2, branch_2_filters, 3, name=f"{name}_Branch_2_Conv2d_0b_3x3")
    x = layers.MaxPooling2D(3, 1, padding="same")(x)
    x = conv_bn_relu(x, branch_3_filters, 1, name=f"{name}_Branch_3_Conv2d_0b_1x1")
    return layers.Concatenate()([branch_0, branch_1, branch_2, x])


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((224, 224, 3), name="input")
    x = conv_bn_relu(x, 8, 7, strides=2, name="Conv2d_1a_7x7")
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    x = conv_bn_relu(x, 8, 1, name="Conv2d_2b_1x1")
    x = conv_bn_relu(x, 24, 3, name="Conv2d_2c_3x3")
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    x = mixed(x, 8, 12, 16, 8, 8, name="Mixed_3b")
    x = mixed(x, 16, 16, 24, 12, 8, name="Mixed_3c")
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    x = mixed(x, 24, 12, 26, 8, 8, name="Mixed_4b")
    x = mixed(x, 20, 14, 28, 8, 8, name="Mixed_4c")
    x = mixed(x, 16, 16, 32, 8, 8, name="Mixed_4d")
    x = mixed(x, 14, 18, 36, 8, 8, name="Mixed_4e")
    x = mixed(x, 32, 20, 40, 16, 16, name="Mixed_4f")
    x = layers.MaxPooling2D(2)(x)
    x = mixed(x, 32, 20, 40, 16, 16, name="Mixed_5b")
    x = mixed(x, 48, 24, 48, 16, 16, name="Mixed_5c")
    x = layers.AveragePooling2D(7)(x)
    x = layers.Conv2D(17, 1, name="Logits")(x)
    return keras.Model(inputs, layers.Flatten()(x), name="inception_v1")


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
