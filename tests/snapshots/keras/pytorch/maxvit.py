"""max_vit, converted from a PyTorch state dict, recognised as maxvit.

Input    input   float32 [N, 24, 24, 3]  source: x, NCHW
Output   output  float32 [N, 7]

    model = load("model.keras")
    y = model(input)  # training=True for batches to train on
"""

import math

import keras
from keras import layers, ops


def parameter(x, shape, trainable=True, name=None):
    """Weights that belong to no layer. Keras keeps weights in layers: here as what a one is multiplied by."""
    one = ops.ones_like(ops.reshape(x, (-1, 1))[:1, :], dtype="float32")
    weights = layers.Dense(math.prod(shape), use_bias=False, trainable=trainable, name=name)(one)
    return ops.reshape(weights, shape)


def conv2d_norm_activation(x, filters, kernel_size=1, strides=1, *, name):
    """stem.0, blocks.0.layers.0.layers.MBconv.layers.conv_a, blocks.1.layers.0.layers.MBconv.layers.conv_a,
    blocks.1.layers.1.layers.MBconv.layers.conv_a."""
    if strides != 1:
        x = layers.ZeroPadding2D()(x)
    x = layers.Conv2D(filters, kernel_size, strides, use_bias=False, name=f"{name}_0")(x)
    x = layers.BatchNormalization(momentum=0.9, name=f"{name}_1")(x)
    return layers.Activation("gelu")(x)


def pool_conv(x, filters, name):
    """blocks.0.layers.0.layers.MBconv.proj, blocks.1.layers.0.layers.MBconv.proj."""
    x = layers.AveragePooling2D(3, 2)(layers.ZeroPadding2D()(x))
    return layers.Conv2D(filters, 1, name=f"{name}_1")(x)


def conv2d_norm_activation2(x, strides=1, *, name):
    """blocks.0.layers.0.layers.MBconv.layers.conv_b, blocks.1.layers.0.layers.MBconv.layers.conv_b,
    blocks.1.layers.1.layers.MBconv.layers.conv_b."""
    if strides != 1:
        x = layers.ZeroPadding2D()(x)
    x = layers.DepthwiseConv2D(
        3, strides, padding="valid" if strides != 1 else "same", use_bias=False, name=f"{name}_0"
    )(x)
    x = layers.BatchNormalization(momentum=0.9, name=f"{name}_1")(x)
    return layers.Activation("gelu")(x)


def squeeze_excitation(x, mid_filters, filters, name):
    """blocks.0.layers.0.layers.MBconv.layers.squeeze_excitation,
    blocks.1.layers.0.layers.MBconv.layers.squeeze_excitation,
    blocks.1.layers.1.layers.MBconv.layers.squeeze_excitation."""
    y = layers.GlobalAveragePooling2D(keepdims=True)(x)
    y = layers.Conv2D(mid_filters, 1, activation="swish", name=f"{name}_fc1")(y)
    y = layers.Conv2D(filters, 1, activation="sigmoid", name=f"{name}_fc2")(y)
    return y * x


def relative_positional_multi_head_attention(x, units, size, size2, scale, name):
    """6 modules from blocks.0.layers.0.layers.window_attention.attn_layer.1 to
    blocks.1.layers.1.layers.grid_attention.attn_layer.1."""
    y = layers.Dense(units, name=f"{name}_to_qkv")(x)
    query, key, value = ops.split(y, 3, axis=3)
    key = layers.Permute((1, 3, 2, 4))(layers.Reshape((size, 9, size2, 16))(key)) * scale
    query = layers.Permute((1, 3, 2, 4))(layers.Reshape((size, 9, size2, 16))(query))
    y = ops.cast(parameter(x, (81,), trainable=False, name=f"{name}_relative_position_index"), "int64")
    x = ops.take(parameter(x, (25, size2), name=f"{name}_relative_position_bias_table"), y, axis=0)
    x = ops.expand_dims(ops.transpose(ops.reshape(x, (9, 9, size2)), (2, 0, 1)), axis=0)
    value = layers.Permute((1, 3, 2, 4))(layers.Reshape((size, 9, size2, 16))(value))
    x = ops.matmul(layers.Softmax()(ops.matmul(query, ops.transpose(key, (0, 1, 2, 4, 3))) + x), value)
    x = layers.Reshape((size, 9, units // 3))(layers.Permute((1, 3, 2, 4))(x))
    return layers.Dense(units // 3, name=f"{name}_merge")(x)


def mlp_layer(x, units, name):
    """6 modules from blocks.0.layers.0.layers.window_attention.mlp_layer to
    blocks.1.layers.1.layers.grid_attention.mlp_layer."""
    x = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_0")(x)
    x = layers.Dense(units, activation="gelu", name=f"{name}_1")(x)
    return layers.Dense(units // 4, name=f"{name}_3")(x)


def mb_conv(x, filters, layers_conv_a_filters, mid_filters, strides=1, *, name):
    """blocks.0.layers.0.layers.MBconv, blocks.1.layers.0.layers.MBconv, blocks.1.layers.1.layers.MBconv."""
    y = pool_conv(x, filters, name=f"{name}_proj") if strides != 1 else x
    x = layers.BatchNormalization(momentum=0.9, name=f"{name}_layers_pre_norm")(x)
    x = conv2d_norm_activation(x, layers_conv_a_filters, name=f"{name}_layers_conv_a")
    x = conv2d_norm_activation2(x, strides=strides, name=f"{name}_layers_conv_b")
    x = squeeze_excitation(x, mid_filters, layers_conv_a_filters, name=f"{name}_layers_squeeze_excitation")
    x = layers.Conv2D(filters, 1, name=f"{name}_layers_conv_c")(x)
    return layers.Add()([y, x])


def partition_attention_layer(x, size, size2, size3, size2_2, scale, name):
    """blocks.0.layers.0.layers.window_attention, blocks.1.layers.0.layers.window_attention,
    blocks.1.layers.1.layers.window_attention."""
    x = layers.Permute((1, 3, 2, 4, 5))(layers.Reshape((size, 3, size, 3, size2))(x))
    x = layers.Reshape((size3, 9, size2))(x)
    y = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_attn_layer_0")(x)
    y = relative_positional_multi_head_attention(y, 3 * size2, size3, size2_2, scale, name=f"{name}_attn_layer_1")
    x = layers.Add()([x, y])
    y = mlp_layer(x, 4 * size2, name=f"{name}_mlp_layer")
    x = layers.Reshape((size, size, 3, 3, size2))(layers.Add()([x, y]))
    return layers.Permute((5, 1, 3, 2, 4))(x)


def partition_attention_layer2(x, name):
    """blocks.0.layers.0.layers.grid_attention: [N, 16, 2, 3, 2, 3] to [N, 6, 6, 16]."""
    x = layers.Reshape((9, 4, 16))(layers.Permute((2, 4, 3, 5, 1))(layers.Reshape((16, 3, 2, 3, 2))(x)))
    x = layers.Permute((2, 1, 3))(x)
    y = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_attn_layer_0")(x)
    y = relative_positional_multi_head_attention(y, 48, 4, 1, 0.25, name=f"{name}_attn_layer_1")
    x = layers.Add()([x, y])
    y = mlp_layer(x, 64, name=f"{name}_mlp_layer")
    x = layers.Reshape((3, 3, 2, 2, 16))(layers.Permute((2, 1, 3))(layers.Add()([x, y])))
    return layers.Reshape((6, 6, 16))(layers.Permute((1, 3, 2, 4, 5))(x))


def partition_attention_layer3(x, name):
    """blocks.1.layers.0.layers.grid_attention: [N, 32, 1, 3, 1, 3] to [N, 3, 3, 32]."""
    x = layers.Reshape((9, 1, 32))(layers.Permute((2, 4, 3, 5, 1))(layers.Reshape((32, 3, 1, 3, 1))(x)))
    x = layers.Permute((2, 1, 3))(x)
    y = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_attn_layer_0")(x)
    y = relative_positional_multi_head_attention(y, 96, 1, 2, 0.17677669, name=f"{name}_attn_layer_1")
    x = layers.Add()([x, y])
    y = mlp_layer(x, 128, name=f"{name}_mlp_layer")
    x = layers.Reshape((3, 3, 1, 1, 32))(layers.Permute((2, 1, 3))(layers.Add()([x, y])))
    return layers.Reshape((3, 3, 32))(layers.Permute((1, 3, 2, 4, 5))(x))


def partition_attention_layer4(x, name):
    """blocks.1.layers.1.layers.grid_attention: [N, 32, 1, 3, 1, 3] to [N, 32, 3, 3]."""
    x = layers.Reshape((9, 1, 32))(layers.Permute((2, 4, 3, 5, 1))(layers.Reshape((32, 3, 1, 3, 1))(x)))
    x = layers.Permute((2, 1, 3))(x)
    y = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_attn_layer_0")(x)
    y = relative_positional_multi_head_attention(y, 96, 1, 2, 0.17677669, name=f"{name}_attn_layer_1")
    x = layers.Add()([x, y])
    y = mlp_layer(x, 128, name=f"{name}_mlp_layer")
    x = layers.Reshape((3, 3, 1, 1, 32))(layers.Permute((2, 1, 3))(layers.Add()([x, y])))
    return layers.Reshape((32, 3, 3))(layers.Permute((5, 1, 3, 2, 4))(x))


def build() -> keras.Model:
    """The network, with new weights."""
    inputs = x = keras.Input((24, 24, 3), name="input")
    x = conv2d_norm_activation(x, 8, kernel_size=3, strides=2, name="stem_0")
    x = layers.Conv2D(8, 3, padding="same", name="stem_1_0")(x)
    x = mb_conv(x, 16, 64, 4, strides=2, name="blocks_0_layers_0_layers_MBconv")
    x = partition_attention_layer(x, 2, 16, 4, 1, 0.25, name="blocks_0_layers_0_layers_window_attention")
    x = partition_attention_layer2(x, name="blocks_0_layers_0_layers_grid_attention")
    x = mb_conv(x, 32, 128, 8, strides=2, name="blocks_1_layers_0_layers_MBconv")
    x = partition_attention_layer(x, 1, 32, 1, 2, 0.17677669, name="blocks_1_layers_0_layers_window_attention")
    x = partition_attention_layer3(x, name="blocks_1_layers_0_layers_grid_attention")
    x = mb_conv(x, 32, 128, 8, name="blocks_1_layers_1_layers_MBconv")
    x = partition_attention_layer(x, 1, 32, 1, 2, 0.17677669, name="blocks_1_layers_1_layers_window_attention")
    x = partition_attention_layer4(x, name="blocks_1_layers_1_layers_grid_attention")
    x = layers.Flatten()(ops.mean(x, axis=(2, 3), keepdims=True))
    x = layers.LayerNormalization(epsilon=1e-5, name="classifier_2")(x)
    x = layers.Dense(32, activation="tanh", name="classifier_3")(x)
    return keras.Model(inputs, layers.Dense(7, use_bias=False, name="classifier_5")(x), name="max_vit")


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
