"""model2, converted from TensorFlow (model.ckpt.meta).

Input    input   float32 [N, 90, 90, 3]  source: images
Output   logits  float32 [N, 17]

    model = load("model.keras")
    y = model(input)  # training=True for batches to train on
"""

import keras
from keras import layers


def conv_relu(x, filters, kernel_size, strides=1, padding="same", *, name):
    return layers.Conv2D(filters, kernel_size, strides, padding=padding, activation="relu", name=f"{name}_conv")(x)


def fire(x, filters, name):
    """8 blocks from features/3 to features/12."""
    x = conv_relu(x, filters, 1, name=f"{name}_squeeze")
    expand1x1 = conv_relu(x, 4 * filters, 1, name=f"{name}_expand1x1")
    x = conv_relu(x, 4 * filters, 3, name=f"{name}_expand3x3")
    return layers.Concatenate()([expand1x1, x])


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((90, 90, 3), name="input")
    x = conv_relu(x, 16, 3, strides=2, padding="valid", name="features_layer0")
    x = layers.MaxPooling2D(3, 2)(x)
    x = fire(x, 4, name="features_layer3")
    x = fire(x, 4, name="features_layer4")
    x = layers.MaxPooling2D(3, 2)(x)
    x = fire(x, 8, name="features_layer6")
    x = fire(x, 8, name="features_layer7")
    x = layers.MaxPooling2D(3, 2)(x)
    x = fire(x, 12, name="features_layer9")
    x = fire(x, 12, name="features_layer10")
    x = fire(x, 16, name="features_layer11")
    x = fire(x, 16, name="features_layer12")
    x = conv_relu(x, 17, 1, name="classifier_layer1")
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x), name="model2")


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
