"""model2, converted from TensorFlow (model.ckpt.meta).

Input    input       float32 [N, 40, 56, 3]  source: image
Output   mask        float32 [N, 40, 56, 2]  source: mask/BiasAdd
Output   coarse_map  float32 [N, 10, 14, 5]

    model = load("model.keras")
    mask, coarse_map = model(input)  # training=True for batches to train on
"""

import math

import keras
from keras import layers, ops


def parameter(x, shape, trainable=True, name=None):
    """Weights that belong to no layer. Keras keeps weights in layers: here as what a one is multiplied by."""
    one = ops.ones_like(ops.reshape(x, (-1, 1))[:1, :], dtype="float32")
    weights = layers.Dense(math.prod(shape), use_bias=False, trainable=trainable, name=name)(one)
    return ops.reshape(weights, shape)


def block(x, indices, padded_indices, filters, name):
    x = ops.take(ops.take(x, indices, axis=1), padded_indices, axis=2)
    x = layers.Conv2D(filters, 3, use_bias=False, name=f"{name}_conv1")(x)
    x = layers.BatchNormalization(name=f"{name}_norm1")(x)
    x = layers.LeakyReLU(0.1)(x)
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv2")(x)
    x = layers.BatchNormalization(name=f"{name}_norm2")(x)
    return layers.ELU()(x)


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((40, 56, 3), name="input")
    down1 = block(x, [1, *range(40), 38], [1, *range(56), 54], 4, name="down1")
    down2 = layers.MaxPooling2D(2)(down1)
    down2 = block(down2, [1, *range(20), 18], [1, *range(28), 26], 8, name="down2")
    down3 = layers.MaxPooling2D(2)(down2)
    down3 = block(down3, [1, *range(10), 8], [1, *range(14), 12], 16, name="down3")
    down4 = layers.MaxPooling2D(2)(down3)
    down4 = block(down4, [1, 0, 1, 2, 3, 4, 3], [1, 0, 1, 2, 3, 4, 5, 6, 5], 32, name="down4")
    bottom = layers.MaxPooling2D(2, padding="same")(down4)
    bottom = block(bottom, [1, 0, 1, 2, 1], [1, 0, 1, 2, 3, 2], 32, name="bottom")
    y = ops.convert_to_tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]])
    y = ops.einsum("nxyc,kx->nkyc", bottom, y)
    x = ops.einsum("nxyc,ky->nxkc", y, parameter(x, (7, 4), trainable=False, name="columns"))
    x = layers.Concatenate()([x, down4])
    x = block(x, [1, 0, 1, 2, 3, 4, 3], [1, 0, 1, 2, 3, 4, 5, 6, 5], 16, name="up4")
    x = layers.Conv2DTranspose(16, 3, 2, name="upsample3")(x)
    x = layers.Concatenate()([layers.ReLU()(layers.Cropping2D(((0, 1), (0, 1)))(x)), down3])
    x = block(x, [1, *range(10), 8], [1, *range(14), 12], 16, name="up3")
    y = layers.Conv2DTranspose(8, 4, 2, padding="same", name="upsample2")(x)
    up2 = layers.Concatenate()([y, down2])
    up2 = block(up2, [1, *range(20), 18], [1, *range(28), 26], 8, name="up2")
    y = layers.UpSampling2D(interpolation="bilinear")(up2)
    mask = layers.Concatenate()([layers.UpSampling2D()(up2), y, down1])
    mask = block(mask, [1, *range(40), 38], [1, *range(56), 54], 4, name="up1")
    mask = layers.Conv2D(2, 1, name="mask")(mask)
    x = layers.Conv2D(5, 1, name="coarse")(x)
    return keras.Model(inputs, [mask, x], name="model2")


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
