"""One step of SGD on a training graph of TensorFlow 1, without its dropout: the graph, its checkpoint, and a folder
that has the inputs (`x.npy`) and gets the batch (`batch.npz`) and the checkpoint after the step (`after.ckpt`)."""

import sys

import numpy as np
import tensorflow.compat.v1 as tf

RATE = 0.1
# What the graph's dropout multiplies by, and what its random numbers must reach.
DROPOUT = {"dropout/dropout/Const": 1.0, "dropout/dropout/GreaterEqual/y": 0.0}


def main(network, weights, folder):
    tf.disable_eager_execution()
    meta = tf.MetaGraphDef()
    with open(network, "rb") as file:
        meta.ParseFromString(file.read())
    for node in meta.graph_def.node:
        if node.name in DROPOUT:
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(DROPOUT.pop(node.name)))
    assert not DROPOUT, "the graph has another dropout"
    saver = tf.train.import_meta_graph(meta)
    graph = tf.get_default_graph()
    x = np.load(f"{folder}/x.npy")
    output = graph.get_tensor_by_name("output:0")
    factors = np.random.default_rng(5).standard_normal((len(x), *output.shape.as_list()[1:])).astype(np.float32)
    variables = tf.trainable_variables()
    gradients = tf.gradients(tf.reduce_sum(output * factors), variables)
    norms = [op for op in graph.get_operations() if op.type.startswith("FusedBatchNorm") and "Grad" not in op.type]
    moments = {op.inputs[4].op.inputs[0].op.name: (tf.size(op.inputs[0]), op.outputs[2]) for op in norms}
    with tf.Session() as session:
        saver.restore(session, weights)

        def values():
            return {variable.op.name: session.run(variable) for variable in tf.global_variables()}

        feed = {"IteratorGetNext:0": x}
        before = values()
        steps, batches = session.run([gradients, moments], feed)
        session.run(tf.get_collection("update_ops"), feed)
        state = values()
        for variable, step in zip(variables, steps, strict=True):
            state[variable.op.name] -= RATE * step
        for name, (size, variance) in batches.items():
            # The kernel's variance is that of a sample: without n / (n - 1) it is the batch's own.
            n, old = size / len(variance), before[name]
            share = np.median((old - state[name]) / (old - variance))
            state[name] = old - share * (old - variance * (n - 1) / n)
        for variable in tf.global_variables():
            variable.load(state[variable.op.name], session)
        saver.save(session, f"{folder}/after.ckpt", write_meta_graph=False)
    np.savez(f"{folder}/batch.npz", x=x, factors=factors)


if __name__ == "__main__":
    main(*sys.argv[1:])
