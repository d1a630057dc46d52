"""What TensorFlow computes when it trains, in a process of its own.

Takes a file with a line of JSON per network: `network` and `weights` (a meta graph and its checkpoint), `inputs`,
`outputs`, `arrays` (a file with the inputs and a projection of each output), `folder`. Flags that are fed are set.
Writes into the folder `results.npz` (outputs, gradients of the inputs, masks of dropouts), and two checkpoints of the
same variables: `updated`, as the update operations leave them, and `gradients`, where each that has one holds it.
"""

import json
import os
import sys

import numpy as np

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow.compat.v1 as tf  # noqa: E402

tf.disable_eager_execution()
tf.logging.set_verbosity(tf.logging.ERROR)


def masks(graph):
    """Where dropout keeps an element: random numbers, compared with the rate."""
    random = {op.outputs[0] for op in graph.get_operations() if op.type == "RandomUniform"}
    while len(random) < len(random := random | {y for x in random for y in scaled(x)}):
        pass
    return [op.outputs[0] for x in random for op in x.consumers() if op.type == "GreaterEqual" and x in op.inputs]


def scaled(tensor):
    """A random number in other bounds is one still."""
    return [op.outputs[0] for op in tensor.consumers() if op.type in ("Mul", "Add", "AddV2")]


def work(network, weights, inputs, outputs, arrays, folder):
    arrays = np.load(arrays)
    with tf.Graph().as_default() as graph, tf.Session() as session:
        saver = tf.train.import_meta_graph(network, clear_devices=True)
        saver.restore(session, weights)
        tensors = [graph.get_tensor_by_name(f"{name}:0") for name in [*inputs, *outputs]]
        inputs, outputs = tensors[: len(inputs)], tensors[len(inputs) :]
        variables = tf.trainable_variables()
        loss = tf.add_n([tf.reduce_sum(y * arrays[f"projection_{i}"]) for i, y in enumerate(outputs)])
        gradients = tf.gradients(loss, [*inputs, *variables])
        gradients = {
            x.op.name: tf.convert_to_tensor(dy)
            for x, dy in zip([*inputs, *variables], gradients, strict=True)
            if dy is not None
        }
        flags = (op.outputs[0] for op in graph.get_operations() if op.type == "Placeholder")
        feeds = {flag: True for flag in flags if flag.dtype == tf.bool}
        feeds.update({x: arrays[f"input_{i}"] for i, x in enumerate(inputs)})
        wanted = {"outputs": outputs, "masks": masks(graph), "gradients": gradients}
        results = session.run({**wanted, "updates": tf.get_collection(tf.GraphKeys.UPDATE_OPS)}, feeds)

        names = ((kind, results[kind]) for kind in ("outputs", "masks"))
        saved = {f"{kind}_{i}": value for kind, values in names for i, value in enumerate(values)}
        saved.update({f"gradients_{i}": results["gradients"].pop(x.op.name, 0) for i, x in enumerate(inputs)})
        np.savez(f"{folder}/results.npz", **saved)
        saver.save(session, f"{folder}/updated", write_meta_graph=False)
        for variable in variables:
            if variable.op.name in results["gradients"]:
                variable.load(results["gradients"][variable.op.name], session)
        saver.save(session, f"{folder}/gradients", write_meta_graph=False)


if __name__ == "__main__":
    for line in open(sys.argv[1]):
        work(**json.loads(line))
