"""Runs converted Keras networks in a process of its own, since a process has one backend.

Takes a file with a line of JSON per network: `id`, `code`, `weights`, `model` (a `.keras`, or null), `batches` (files
with inputs and expected outputs). Prints a line per network: `id`, and what is wrong, or null.
"""

import importlib.util
import json
import sys
import traceback

import keras
import numpy as np

TOLERANCE = 1e-5  # of the largest expected element


def load_code(path):
    spec = importlib.util.spec_from_file_location(f"generated_{abs(hash(path))}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def as_numpy(value):
    return value.numpy() if keras.__version__.startswith("2") else keras.ops.convert_to_numpy(value)


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
    models = {"code": load_code(job["code"]).load(job["weights"])}
    if job.get("model"):
        models["file"] = keras.models.load_model(job["model"])
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
