"""Runs converted Keras networks in a process of its own, since a process has one backend.

Takes a file with a line of JSON per network: `id`, `code`, `weights`, `models` (files with the whole model), `batches`
(files with inputs and expected outputs). Prints a line per network: `id`, and what is wrong, or null. What is loaded is
loaded without a warning. With `TF_USE_LEGACY_KERAS=1` Keras is the `tf.keras` of version 2.
"""

import importlib.util
import json
import os
import sys
import traceback
import warnings

import numpy as np

if os.environ.get("TF_USE_LEGACY_KERAS"):
    from tensorflow import keras
else:
    import keras

TOLERANCE = 1e-5  # of the largest expected element


def load_code(path):
    spec = importlib.util.spec_from_file_location(f"generated_{abs(hash(path))}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def as_numpy(value):
    return keras.ops.convert_to_numpy(value) if hasattr(keras, "ops") else value.numpy()


def load(job):
    """The network by its code, and by each file of a whole model."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        models = {"code": load_code(job["code"]).load(job["weights"])}
        for path in job["models"]:
            # To compile needs what only training leaves in a file.
            models[os.path.basename(path)] = keras.models.load_model(path, compile=False)
    return models


def compare(results, expected, what):
    results = results if isinstance(results, (list, tuple)) else [results]
    assert len(results) == len(expected), f"{what}: {len(results)} outputs, expected {len(expected)}"
    for index, (left, right) in enumerate(zip(map(as_numpy, results), expected, strict=True)):
        at = f"{what}: output {index}"
        assert left.shape == right.shape, f"{at} has shape {left.shape}, expected {right.shape}"
        assert left.dtype.kind == right.dtype.kind, f"{at} is {left.dtype}, expected {right.dtype}"
        if right.dtype.kind != "f":
            assert (left == right).all(), f"{at} differs in {(left != right).sum()} of {right.size} elements"
            continue
        assert np.isfinite(left).all(), f"{at} is not finite"
        difference, largest = np.abs(left.astype(np.float64) - right), np.abs(right).max()
        assert difference.max() <= TOLERANCE * largest, f"{at} differs by {difference.max() / largest:.2e}"


def check(job):
    models = load(job)
    for batch in job["batches"]:
        arrays = np.load(batch)
        inputs = [arrays[f"input_{i}"] for i in range(sum(key.startswith("input_") for key in arrays))]
        expected = [arrays[f"expected_{i}"] for i in range(sum(key.startswith("expected_") for key in arrays))]
        for what, model in models.items():
            compare(model(inputs if len(inputs) > 1 else inputs[0], training=False), expected, what)


def main(jobs):
    for line in open(jobs):
        job = json.loads(line)
        keras.backend.clear_session()
        try:
            check(job)
            wrong = None
        except AssertionError as error:
            wrong = str(error)
        except Exception:
            wrong = traceback.format_exc(limit=-3)
        print("RESULT" + json.dumps({"id": job["id"], "wrong": wrong}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
