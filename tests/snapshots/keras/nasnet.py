"""model2, converted from TensorFlow (model.ckpt.meta).

Input    input   float32 [N, 61, 61, 3]
Output   logits  float32 [N, 17]

    model = load("model.keras")
    y = model(input)  # training=True for batches to train on
"""

import keras
from keras import layers, ops


def average_pool2d(x, pool_size, strides, padding):
    """Means without what is padding, which AveragePooling2D does not leave out on all backends."""
    pad, pool = layers.ZeroPadding2D(padding), layers.AveragePooling2D(pool_size, strides)
    return pool(pad(x)) / pool(pad(ops.ones_like(x[:1, ..., :1])))


def separable_conv(x, kernel_size, filters, strides=1, *, name):
    x = layers.DepthwiseConv2D(kernel_size, strides, padding="same", use_bias=False, name=f"{name}_conv1")(x)
    return layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_conv2")(x)


def reduction(x, filters, name):
    x = layers.ReLU()(x)
    y = layers.AveragePooling2D(1, 2)(x)
    y = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_path1_conv")(y)
    x = layers.AveragePooling2D(1, 2)(layers.ZeroPadding2D(((0, 1), (0, 1)))(x)[:, 1:, 1:])
    x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_path2_conv")(x)
    x = layers.Concatenate()([y, x])
    return layers.BatchNormalization(name=f"{name}_final_path_bn")(x)


def separable_conv_block(x, kernel_size, filters, strides=1, *, name):
    """25 blocks from cell_0/comb_iter_0/left to cell_2/comb_iter_4/left."""
    x = layers.ReLU()(x)
    # separable_5x5_1, separable_3x3_1, separable_7x7_1
    x = separable_conv(x, kernel_size, filters, strides=strides, name=f"{name}_separable_1")
    x = layers.BatchNormalization(name=f"{name}_bn_sep_1")(x)  # bn_sep_5x5_1, bn_sep_3x3_1, bn_sep_7x7_1
    x = layers.ReLU()(x)
    # separable_5x5_2, separable_3x3_2, separable_7x7_2
    x = separable_conv(x, kernel_size, filters, name=f"{name}_separable_2")
    return layers.BatchNormalization(name=f"{name}_bn_sep_2")(x)


def comb_iter(x, y, kernel_size, filters, strides=1, right_kernel_size=None, *, name):
    """11 blocks from cell_0/comb_iter_0 to cell_2/comb_iter_4."""
    x = separable_conv_block(x, kernel_size, filters, strides=strides, name=f"{name}_left")
    if right_kernel_size:
        y = separable_conv_block(y, right_kernel_size, filters, strides=strides, name=f"{name}_right")
    return layers.Add()([x, y])


def comb_iter1(x, y, filters, name):
    """reduction_cell_0/comb_iter_1, reduction_cell_1/comb_iter_1."""
    y = separable_conv_block(y, 7, filters, strides=2, name=f"{name}_right")
    return layers.Add()([layers.MaxPooling2D(3, 2, padding="same")(x), y])


def comb_iter2(x, y, filters, padding, name):
    """reduction_cell_0/comb_iter_2, reduction_cell_1/comb_iter_2."""
    y = separable_conv_block(y, 5, filters, strides=2, name=f"{name}_right")
    return layers.Add()([average_pool2d(x, 3, 2, padding), y])


def comb_iter4(x, y, filters, name):
    """reduction_cell_0/comb_iter_4, reduction_cell_1/comb_iter_4."""
    x = separable_conv_block(x, 3, filters, name=f"{name}_left")
    return layers.Add()([x, layers.MaxPooling2D(3, 2, padding="same")(y)])


def cell0(x, name):
    """cell_0: [N, 30, 30, 4] to [N, 30, 30, 40]."""
    x = layers.ReLU()(x)
    y = layers.Conv2D(8, 1, use_bias=False, name=f"{name}_beginning")(x)
    y = layers.BatchNormalization(name=f"{name}_beginning_bn")(y)
    x = layers.Conv2D(8, 1, use_bias=False, name=f"{name}_prev_1x1")(x)
    x = layers.BatchNormalization(name=f"{name}_prev_1x1_bn")(x)
    comb_iter_0 = comb_iter(y, x, 5, 8, right_kernel_size=3, name=f"{name}_comb_iter_0")
    comb_iter_1 = comb_iter(x, x, 5, 8, right_kernel_size=3, name=f"{name}_comb_iter_1")
    y2 = layers.AveragePooling2D(3, 1, padding="same")(x)
    comb_iter_4 = comb_iter(y, y, 3, 8, name=f"{name}_comb_iter_4")
    x = layers.Add()([layers.AveragePooling2D(3, 1, padding="same")(y), x])
    return layers.Concatenate()([comb_iter_0, comb_iter_1, x, layers.Add()([y2, y2]), comb_iter_4])


def reduction_cell(x, y, filters, padding, name):
    """reduction_cell_0, reduction_cell_1."""
    x = layers.ReLU()(x)
    x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_beginning")(x)
    x = layers.BatchNormalization(name=f"{name}_beginning_bn")(x)
    y = layers.ReLU()(y)
    y = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_prev_1x1")(y)
    y = layers.BatchNormalization(name=f"{name}_prev_1x1_bn")(y)
    comb_iter_2 = comb_iter2(x, y, filters, padding, name=f"{name}_comb_iter_2")
    comb_iter_1 = comb_iter1(x, y, filters, name=f"{name}_comb_iter_1")
    comb_iter_0 = comb_iter(x, y, 5, filters, strides=2, right_kernel_size=7, name=f"{name}_comb_iter_0")
    x = comb_iter4(comb_iter_0, x, filters, name=f"{name}_comb_iter_4")
    y = layers.Add()([comb_iter_1, layers.AveragePooling2D(3, 1, padding="same")(comb_iter_0)])
    return layers.Concatenate()([comb_iter_2, y, x])


def cell(x, y, filters, name):
    """cell_1, cell_2."""
    x = layers.ReLU()(x)
    x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_beginning")(x)
    x = layers.BatchNormalization(name=f"{name}_beginning_bn")(x)
    y = reduction(y, filters // 2, name=f"{name}_reduction")
    comb_iter_0 = comb_iter(x, y, 5, filters, right_kernel_size=3, name=f"{name}_comb_iter_0")
    comb_iter_1 = comb_iter(y, y, 5, filters, right_kernel_size=3, name=f"{name}_comb_iter_1")
    y2 = layers.AveragePooling2D(3, 1, padding="same")(y)
    comb_iter_4 = comb_iter(x, x, 3, filters, name=f"{name}_comb_iter_4")
    x = layers.Add()([layers.AveragePooling2D(3, 1, padding="same")(x), y])
    return layers.Concatenate()([comb_iter_0, comb_iter_1, x, layers.Add()([y2, y2]), comb_iter_4])


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((61, 61, 3), name="input")
    x = layers.Conv2D(4, 3, 2, use_bias=False, name="conv0")(x)
    x = layers.BatchNormalization(name="conv0_bn")(x)
    cell_0 = cell0(x, name="cell_0")
    x = reduction_cell(cell_0, x, 16, ((0, 1), (0, 1)), name="reduction_cell_0")
    cell_1 = cell(x, cell_0, 16, name="cell_1")
    x = reduction_cell(cell_1, x, 32, 1, name="reduction_cell_1")
    x = cell(x, cell_1, 32, name="cell_2")
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return keras.Model(inputs, layers.Dense(17, name="final_layer")(x), name="model2")


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
