"""One step of SGD with a converted Keras network, in a process of its own: a process has one backend.

Arguments: the code, its weights before the step and those after the source's step (both `.npy`), and a file with the
inputs and with what the outputs are multiplied by before they are summed to the loss. Prints a line of JSON: for each
variable its largest change, and by how much it missed the source's.
"""

import json
import sys

import keras
import numpy as np
from keras_worker import as_numpy, load_code

RATE = 0.1


def gradients(model, x, factors):
    variables = model.trainable_variables
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x, training=True) * factors)
        return tape.gradient(loss, [variable.value for variable in variables])
    (model(x, training=True) * keras.ops.convert_to_tensor(factors)).sum().backward()
    return [variable.value.grad for variable in variables]


def main(code, before, after, batch):
    # Deep batch norm is ill-conditioned: in single precision two right steps differ.
    keras.config.set_floatx("float64")
    model = load_code(code).load(before)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    batch = np.load(batch)
    start = {variable.path: as_numpy(variable.value).copy() for variable in model.variables}
    found = gradients(model, batch["x"], batch["factors"])
    end = {variable.path: as_numpy(variable.value).copy() for variable in model.variables}
    for variable, gradient in zip(model.trainable_variables, found, strict=True):
        end[variable.path] = start[variable.path] - RATE * as_numpy(gradient)
    expected = np.load(after, allow_pickle=True).item()
    missed = {}
    for layer in model.layers:
        for variable in layer.weights:
            aim = expected[layer.name][variable.name]
            change, miss = np.abs(aim - start[variable.path]).max(), np.abs(aim - end[variable.path]).max()
            missed[f"{layer.name}/{variable.name}"] = [float(change), float(miss)]
    print("RESULT" + json.dumps(missed))


if __name__ == "__main__":
    main(*sys.argv[1:])
