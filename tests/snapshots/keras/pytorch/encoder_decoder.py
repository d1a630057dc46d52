"""encoder_decoder, converted from PyTorch (encoder_decoder.pt2).

Input    input      float32 [N, 16, 16, 3]  source: x, NCHW
Output   conv2d_10  float32 [N, 16, 16, 2]  source: NCHW

    model = load("model.keras")
    y = model(input)  # training=True for batches to train on
"""

import keras
from keras import layers


def separable_conv(x, filters, name):
    """5 modules from down1 to up2."""
    x = layers.DepthwiseConv2D(3, padding="same", name=f"{name}_0")(x)
    x = layers.Conv2D(filters, 1, name=f"{name}_1")(x)
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_2")(x)
    return layers.ReLU(6.0)(x)


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((16, 16, 3), name="input")
    x = separable_conv(x, 8, name="down1")
    down2 = layers.MaxPooling2D(2)(x)
    down2 = separable_conv(down2, 12, name="down2")
    down3 = layers.MaxPooling2D(2)(down2)
    down3 = separable_conv(down3, 16, name="down3")
    up1 = layers.Concatenate()([layers.UpSampling2D(interpolation="bilinear")(down3), down2])
    up1 = separable_conv(up1, 12, name="up1")
    x = layers.Concatenate()([layers.UpSampling2D()(up1), x])
    x = separable_conv(x, 8, name="up2")
    return keras.Model(inputs, layers.Conv2D(2, 1, name="out")(x), name="encoder_decoder")


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
