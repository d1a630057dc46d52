"""The measuring part of convert.sh; Python's standard library only."""

import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ROUNDS = 5
# The budget of time is a promise for ordinary networks. Half of vgg_16 is one tensor that must be turned as a whole
# before it can be written: its time is shown, its memory has to fit.
TIMED = {"inception_v3"}


def timed(command):
    """Seconds and peak resident bytes of a command; the end of this program, with what it said, if it fails."""
    start = time.perf_counter()
    child = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{said.decode(errors='replace')}")
    return seconds, usage.ru_maxrss * 1024


def best(command, clean):
    """The shortest time and the highest peak of some runs, each into an empty folder."""
    runs = []
    for _ in range(ROUNDS):
        for path in clean.iterdir():
            path.unlink()
        runs.append(timed(command))
    return min(seconds for seconds, _ in runs), max(peak for _, peak in runs)


def measure(modelport, folder, scratch):
    case = json.loads((folder / "case.json").read_text())
    checkpoint = sorted(folder.glob("model.ckpt*"))
    # Into the page cache, so that no command waits for the disk; not into this process: children inherit its peak.
    subprocess.run(["cat", *checkpoint], stdout=subprocess.DEVNULL, check=True)
    copy, _ = best(["cp", *checkpoint, scratch], scratch)
    source = ["-sf", "tensorflow", "-in", folder / case["network"], "-iw", folder / case["weights"]]
    output = ["-df", "pytorch", "-om", scratch / "model.pth"]
    seconds, peak = best([modelport, "convert", *source, "--dstNode", *case["outputs"], *output], scratch)
    with zipfile.ZipFile(scratch / "model.pth") as archive:
        largest = max(entry.file_size for entry in archive.infolist())
    return copy, seconds, peak, largest, sum(path.stat().st_size for path in checkpoint)


def main():
    modelport, networks, *names = sys.argv[1:]
    over = []
    print(f"{'network':<16}{'size':>8}{'cp':>9}{'convert':>9}{'ratio':>7}{'budget':>9}{'peak':>9}{'budget':>9}")
    for name in names:
        with tempfile.TemporaryDirectory(dir=networks) as scratch:
            copy, seconds, peak, largest, size = measure(modelport, Path(networks) / name, Path(scratch))
        limit, memory = 2 * copy + 0.3, 64 * 2**20 + largest
        budget = f"{limit:>7.2f} s" if name in TIMED else f"{'-':>9}"
        times = f"{copy:>7.2f} s{seconds:>7.2f} s{seconds / copy:>7.1f}{budget}"
        peaks = f"{peak / 2**20:>6.0f} MB{memory / 2**20:>6.0f} MB"
        print(f"{name:<16}{size / 1e6:>5.0f} MB{times}{peaks}")
        over += [f"{name}: time"] * (name in TIMED and seconds > limit) + [f"{name}: memory"] * (peak > memory)
    if over:
        sys.exit(f"over budget: {', '.join(over)}")


if __name__ == "__main__":
    main()
