"""inception_resnet_v2, converted from TensorFlow (model.ckpt.meta).

Input    input   float32 [N, 107, 107, 3]
Output   Logits  float32 [N, 17]           source: InceptionResnetV2/Logits/Logits/BiasAdd

    model = load("model.keras")
    y = model(input)  # training=True for batches to train on
"""

import keras
from keras import layers


def conv_bn_relu(x, filters, kernel_size, strides=1, padding="same", *, name):
    x = layers.Conv2D(filters, kernel_size, strides, padding=padding, use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(scale=False, name=f"{name}_bn")(x)
    return layers.ReLU()(x)


def mixed5_b(x, name):
    """Mixed_5b: [N, 11, 11, 12] to [N, 11, 11, 24]."""
    branch_0 = conv_bn_relu(x, 8, 1, name=f"{name}_Branch_0")
    branch_1 = conv_bn_relu(x, 4, 1, name=f"{name}_Branch_1_Conv2d_0a_1x1")
    branch_1 = conv_bn_relu(branch_1, 4, 5, name=f"{name}_Branch_1_Conv2d_0b_5x5")
    branch_2 = conv_bn_relu(x, 4, 1, name=f"{name}_Branch_2_Conv2d_0a_1x1")
    branch_2 = conv_bn_relu(branch_2, 8, 3, name=f"{name}_Branch_2_Conv2d_0b_3x3")
    branch_2 = conv_bn_relu(branch_2, 8, 3, name=f"{name}_Branch_2_Conv2d_0c_3x3")
    x = layers.AveragePooling2D(3, 1, padding="same")(x)
    x = conv_bn_relu(x, 4, 1, name=f"{name}_Branch_3_Conv2d_0b_1x1")
    return layers.Concatenate()([branch_0, branch_1, branch_2, x])


def block35(x, name):
    """block35_1, block35_2, block35_3: [N, 11, 11, 24] to [N, 11, 11, 24]."""
    branch_0 = conv_bn_relu(x, 4, 1, name=f"{name}_Branch_0")
    branch_1 = conv_bn_relu(x, 4, 1, name=f"{name}_Branch_1_Conv2d_0a_1x1")
    branch_1 = conv_bn_relu(branch_1, 4, 3, name=f"{name}_Branch_1_Conv2d_0b_3x3")
    branch_2 = conv_bn_relu(x, 4, 1, name=f"{name}_Branch_2_Conv2d_0a_1x1")
    branch_2 = conv_bn_relu(branch_2, 4, 3, name=f"{name}_Branch_2_Conv2d_0b_3x3")
    branch_2 = conv_bn_relu(branch_2, 4, 3, name=f"{name}_Branch_2_Conv2d_0c_3x3")
    y = layers.Concatenate()([branch_0, branch_1, branch_2])
    y = layers.Conv2D(24, 1, name=f"{name}_Conv2d_1x1")(y)
    return layers.ReLU()(layers.Add()([x, y * 0.17]))


def mixed6_a(x, name):
    """Mixed_6a: [N, 11, 11, 24] to [N, 5, 5, 72]."""
    branch_0 = conv_bn_relu(x, 24, 3, strides=2, padding="valid", name=f"{name}_Branch_0")
    branch_1 = conv_bn_relu(x, 16, 1, name=f"{name}_Branch_1_Conv2d_0a_1x1")
    branch_1 = conv_bn_relu(branch_1, 16, 3, name=f"{name}_Branch_1_Conv2d_0b_3x3")
    branch_1 = conv_bn_relu(branch_1, 24, 3, strides=2, padding="valid", name=f"{name}_Branch_1_Conv2d_1a_3x3")
    return layers.Concatenate()([branch_0, branch_1, layers.MaxPooling2D(3, 2)(x)])


def block17(x, name):
    """block17_1, block17_2, block17_3, block17_4: [N, 5, 5, 72] to [N, 5, 5, 72]."""
    branch_0 = conv_bn_relu(x, 12, 1, name=f"{name}_Branch_0")
    branch_1 = conv_bn_relu(x, 8, 1, name=f"{name}_Branch_1_Conv2d_0a_1x1")
    branch_1 = conv_bn_relu(branch_1, 12, (1, 7), name=f"{name}_Branch_1_Conv2d_0b_1x7")
    branch_1 = conv_bn_relu(branch_1, 12, (7, 1), name=f"{name}_Branch_1_Conv2d_0c_7x1")
    y = layers.Concatenate()([branch_0, branch_1])
    y = layers.Conv2D(72, 1, name=f"{name}_Conv2d_1x1")(y)
    return layers.ReLU()(layers.Add()([x, y * 0.1]))


def block8(x, name):
    """block8_1, block8_2, block8_3: [N, 2, 2, 136] to [N, 2, 2, 136]."""
    branch_0 = conv_bn_relu(x, 12, 1, name=f"{name}_Branch_0")
    branch_1 = conv_bn_relu(x, 12, 1, name=f"{name}_Branch_1_Conv2d_0a_1x1")
    branch_1 = conv_bn_relu(branch_1, 16, (1, 3), name=f"{name}_Branch_1_Conv2d_0b_1x3")
    branch_1 = conv_bn_relu(branch_1, 16, (3, 1), name=f"{name}_Branch_1_Conv2d_0c_3x1")
    y = layers.Concatenate()([branch_0, branch_1])
    y = layers.Conv2D(136, 1, name=f"{name}_Conv2d_1x1")(y)
    return layers.ReLU()(layers.Add()([x, y * 0.2]))


def block8_2(x, name):
    """Block8: [N, 2, 2, 136] to [N, 2, 2, 136]."""
    branch_0 = conv_bn_relu(x, 12, 1, name=f"{name}_Branch_0")
    branch_1 = conv_bn_relu(x, 12, 1, name=f"{name}_Branch_1_Conv2d_0a_1x1")
    branch_1 = conv_bn_relu(branch_1, 16, (1, 3), name=f"{name}_Branch_1_Conv2d_0b_1x3")
    branch_1 = conv_bn_relu(branch_1, 16, (3, 1), name=f"{name}_Branch_1_Conv2d_0c_3x1")
    y = layers.Concatenate()([branch_0, branch_1])
    y = layers.Conv2D(136, 1, name=f"{name}_Conv2d_1x1")(y)
    return layers.Add()([x, y])


def mixed7_a(x, name):
    """Mixed_7a: [N, 5, 5, 72] to [N, 2, 2, 136]."""
    branch_0 = conv_bn_relu(x, 16, 1, name=f"{name}_Branch_0_Conv2d_0a_1x1")
    branch_0 = conv_bn_relu(branch_0, 24, 3, strides=2, padding="valid", name=f"{name}_Branch_0_Conv2d_1a_3x3")
    branch_1 = conv_bn_relu(x, 16, 1, name=f"{name}_Branch_1_Conv2d_0a_1x1")
    branch_1 = conv_bn_relu(branch_1, 20, 3, strides=2, padding="valid", name=f"{name}_Branch_1_Conv2d_1a_3x3")
    branch_2 = conv_bn_relu(x, 16, 1, name=f"{name}_Branch_2_Conv2d_0a_1x1")
    branch_2 = conv_bn_relu(branch_2, 20, 3, name=f"{name}_Branch_2_Conv2d_0b_3x3")
    branch_2 = conv_bn_relu(branch_2, 20, 3, strides=2, padding="valid", name=f"{name}_Branch_2_Conv2d_1a_3x3")
    return layers.Concatenate()([branch_0, branch_1, branch_2, layers.MaxPooling2D(3, 2)(x)])


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((107, 107, 3), name="input")
    x = conv_bn_relu(x, 4, 3, strides=2, padding="valid", name="Conv2d_1a_3x3")
    x = conv_bn_relu(x, 4, 3, padding="valid", name="Conv2d_2a_3x3")
    x = conv_bn_relu(x, 4, 3, name="Conv2d_2b_3x3")
    x = layers.MaxPooling2D(3, 2)(x)
    x = conv_bn_relu(x, 8, 1, name="Conv2d_3b_1x1")
    x = conv_bn_relu(x, 12, 3, padding="valid", name="Conv2d_4a_3x3")
    x = layers.MaxPooling2D(3, 2)(x)
    x = mixed5_b(x, name="Mixed_5b")
    for i in range(1, 4):
        x = block35(x, name=f"Repeat_block35_{i}")
    x = mixed6_a(x, name="Mixed_6a")
    for i in range(1, 5):
        x = block17(x, name=f"Repeat_1_block17_{i}")
    x = mixed7_a(x, name="Mixed_7a")
    for i in range(1, 4):
        x = block8(x, name=f"Repeat_2_block8_{i}")
    x = block8_2(x, name="Block8")
    x = conv_bn_relu(x, 96, 1, name="Conv2d_7b_1x1")
    x = layers.Flatten()(layers.AveragePooling2D(2)(x))
    return keras.Model(inputs, layers.Dense(17, name="Logits")(x), name="inception_resnet_v2")


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
