"""inception_v3, converted from TensorFlow (model.ckpt.meta).

Input    input         float32 [N, 139, 139, 3]
Output   MMdnn_Output  float32 [N, 17]

    model = load("model.keras")
    y = model(input)  # training=True for batches to train on
"""

import keras
from keras import layers


def conv_bn_relu(x, filters, kernel_size, strides=1, padding="same", *, name):
    x = layers.Conv2D(filters, kernel_size, strides, padding=padding, use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(scale=False, name=f"{name}_bn")(x)
    return layers.ReLU()(x)


def branch1(x, name):
    """Mixed_7b/Branch_1, Mixed_7c/Branch_1."""
    x = conv_bn_relu(x, 30, 1, name=f"{name}_Conv2d_0a_1x1")
    conv2d_0b_1x3 = conv_bn_relu(x, 30, (1, 3), name=f"{name}_Conv2d_0b_1x3")
    x = conv_bn_relu(x, 30, (3, 1), name=f"{name}_Conv2d_3x1")  # Conv2d_0b_3x1, Conv2d_0c_3x1
    return layers.Concatenate()([conv2d_0b_1x3, x])


def branch2(x, name):
    """Mixed_7b/Branch_2, Mixed_7c/Branch_2."""
    x = conv_bn_relu(x, 35, 1, name=f"{name}_Conv2d_0a_1x1")
    x = conv_bn_relu(x, 30, 3, name=f"{name}_Conv2d_0b_3x3")
    conv2d_0c_1x3 = conv_bn_relu(x, 30, (1, 3), name=f"{name}_Conv2d_0c_1x3")
    x = conv_bn_relu(x, 30, (3, 1), name=f"{name}_Conv2d_0d_3x1")
    return layers.Concatenate()([conv2d_0c_1x3, x])


def mixed5(x, filters, name):
    """Mixed_5b, Mixed_5c, Mixed_5d."""
    branch_0 = conv_bn_relu(x, 5, 1, name=f"{name}_Branch_0")
    branch_1 = conv_bn_relu(x, 4, 1, name=f"{name}_Branch_1_Conv2d_0a_1x1")
    branch_1 = conv_bn_relu(branch_1, 5, 5, name=f"{name}_Branch_1_Conv2d_0b_5x5")
    branch_2 = conv_bn_relu(x, 5, 1, name=f"{name}_Branch_2_Conv2d_0a_1x1")
    branch_2 = conv_bn_relu(branch_2, 7, 3, name=f"{name}_Branch_2_Conv2d_0b_3x3")
    branch_2 = conv_bn_relu(branch_2, 7, 3, name=f"{name}_Branch_2_Conv2d_0c_3x3")
    x = layers.AveragePooling2D(3, 1, padding="same")(x)
    x = conv_bn_relu(x, filters, 1, name=f"{name}_Branch_3_Conv2d_0b_1x1")
    return layers.Concatenate()([branch_0, branch_1, branch_2, x])


def mixed6_a(x, name):
    """Mixed_6a: [N, 15, 15, 22] to [N, 7, 7, 59]."""
    branch_0 = conv_bn_relu(x, 30, 3, strides=2, padding="valid", name=f"{name}_Branch_0")
    branch_1 = conv_bn_relu(x, 5, 1, name=f"{name}_Branch_1_Conv2d_0a_1x1")
    branch_1 = conv_bn_relu(branch_1, 7, 3, name=f"{name}_Branch_1_Conv2d_0b_3x3")
    branch_1 = conv_bn_relu(branch_1, 7, 3, strides=2, padding="valid", name=f"{name}_Branch_1_Conv2d_1a_1x1")
    return layers.Concatenate()([branch_0, branch_1, layers.MaxPooling2D(3, 2)(x)])


def mixed6(x, filters, name):
    """Mixed_6b, Mixed_6c, Mixed_6d, Mixed_6e."""
    branch_0 = conv_bn_relu(x, 15, 1, name=f"{name}_Branch_0")
    branch_1 = conv_bn_relu(x, filters, 1, name=f"{name}_Branch_1_Conv2d_0a_1x1")
    branch_1 = conv_bn_relu(branch_1, filters, (1, 7), name=f"{name}_Branch_1_Conv2d_0b_1x7")
    branch_1 = conv_bn_relu(branch_1, 15, (7, 1), name=f"{name}_Branch_1_Conv2d_0c_7x1")
    branch_2 = conv_bn_relu(x, filters, 1, name=f"{name}_Branch_2_Conv2d_0a_1x1")
    branch_2 = conv_bn_relu(branch_2, filters, (7, 1), name=f"{name}_Branch_2_Conv2d_0b_7x1")
    branch_2 = conv_bn_relu(branch_2, filters, (1, 7), name=f"{name}_Branch_2_Conv2d_0c_1x7")
    branch_2 = conv_bn_relu(branch_2, filters, (7, 1), name=f"{name}_Branch_2_Conv2d_0d_7x1")
    branch_2 = conv_bn_relu(branch_2, 15, (1, 7), name=f"{name}_Branch_2_Conv2d_0e_1x7")
    x = layers.AveragePooling2D(3, 1, padding="same")(x)
    x = conv_bn_relu(x, 15, 1, name=f"{name}_Branch_3_Conv2d_0b_1x1")
    return layers.Concatenate()([branch_0, branch_1, branch_2, x])


def mixed7_a(x, name):
    """Mixed_7a: [N, 7, 7, 60] to [N, 3, 3, 100]."""
    branch_0 = conv_bn_relu(x, 15, 1, name=f"{name}_Branch_0_Conv2d_0a_1x1")
    branch_0 = conv_bn_relu(branch_0, 25, 3, strides=2, padding="valid", name=f"{name}_Branch_0_Conv2d_1a_3x3")
    branch_1 = conv_bn_relu(x, 15, 1, name=f"{name}_Branch_1_Conv2d_0a_1x1")
    branch_1 = conv_bn_relu(branch_1, 15, (1, 7), name=f"{name}_Branch_1_Conv2d_0b_1x7")
    branch_1 = conv_bn_relu(branch_1, 15, (7, 1), name=f"{name}_Branch_1_Conv2d_0c_7x1")
    branch_1 = conv_bn_relu(branch_1, 15, 3, strides=2, padding="valid", name=f"{name}_Branch_1_Conv2d_1a_3x3")
    return layers.Concatenate()([branch_0, branch_1, layers.MaxPooling2D(3, 2)(x)])


def mixed7(x, name):
    """Mixed_7b, Mixed_7c."""
    branch_0 = conv_bn_relu(x, 25, 1, name=f"{name}_Branch_0")
    branch_1 = branch1(x, name=f"{name}_Branch_1")
    branch_2 = branch2(x, name=f"{name}_Branch_2")
    x = layers.AveragePooling2D(3, 1, padding="same")(x)
    x = conv_bn_relu(x, 15, 1, name=f"{name}_Branch_3_Conv2d_0b_1x1")
    return layers.Concatenate()([branch_0, branch_1, branch_2, x])


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((139, 139, 3), name="input")
    x = conv_bn_relu(x, 4, 3, strides=2, padding="valid", name="Conv2d_1a_3x3")
    x = conv_bn_relu(x, 4, 3, padding="valid", name="Conv2d_2a_3x3")
    x = conv_bn_relu(x, 5, 3, name="Conv2d_2b_3x3")
    x = layers.MaxPooling2D(3, 2)(x)
    x = conv_bn_relu(x, 6, 1, name="Conv2d_3b_1x1")
    x = conv_bn_relu(x, 15, 3, padding="valid", name="Conv2d_4a_3x3")
    x = layers.MaxPooling2D(3, 2)(x)
    x = mixed5(x, 4, name="Mixed_5b")
    x = mixed5(x, 5, name="Mixed_5c")
    x = mixed5(x, 5, name="Mixed_5d")
    x = mixed6_a(x, name="Mixed_6a")
    x = mixed6(x, 10, name="Mixed_6b")
    x = mixed6(x, 12, name="Mixed_6c")
    x = mixed6(x, 12, name="Mixed_6d")
    x = mixed6(x, 15, name="Mixed_6e")
    x = mixed7_a(x, name="Mixed_7a")
    x = mixed7(x, name="Mixed_7b")
    x = mixed7(x, name="Mixed_7c")
    x = layers.AveragePooling2D(3)(x)
    x = layers.Conv2D(17, 1, name="Logits")(x)
    return keras.Model(inputs, layers.Flatten()(x), name="inception_v3")


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
