"""model2, converted from TensorFlow (model.ckpt.meta).

Input    input   float32 [N, 23, 30, 3]  source: IteratorGetNext
Output   output  float32 [N, 10]

    model = load("model.keras")
    y = model(input)  # training=True for batches to train on
"""

import keras
from keras import layers


def conv_bn(x, filters, kernel_size, strides=1, dilation=1, *, name):
    x = layers.Conv2D(
        filters, kernel_size, strides, padding="same", dilation_rate=dilation, use_bias=False, name=f"{name}_conv"
    )(x)
    return layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)


def mix(x, y, name):
    """[N, 12, 15, 8], [N, 6, 8, 8] to [N, 6, 8, 16]."""
    x = layers.DepthwiseConv2D(3, 2, padding="same", name=f"{name}_conv")(x)
    return layers.Concatenate()([layers.ReLU(6.0)(x), y])


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((23, 30, 3), name="input")
    x = conv_bn(x, 8, 5, strides=2, name="stem")
    x = layers.ReLU()(x)
    block1 = conv_bn(x, 8, 3, name="block1_a")
    block1 = layers.ReLU()(block1)
    block1 = conv_bn(block1, 8, 3, dilation=2, name="block1_b")
    x = layers.Add()([x, layers.ReLU()(block1)])
    y = layers.MaxPooling2D(3, 2, padding="same")(x)
    x = mix(x, y, name="mix")
    x = conv_bn(x, 12, 1, name="pointwise")
    x = layers.Flatten()(layers.AveragePooling2D(2)(layers.ReLU()(x)))
    x = layers.Dense(32, activation="relu", name="hidden")(x)
    x = layers.Dropout(0.4, name="dropout")(x)
    return keras.Model(inputs, layers.Dense(10, name="logits")(x), name="model2")


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
