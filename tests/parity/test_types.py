"""Generated code type-checks in pyright's basic mode: that of all snapshots at once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT

SNAPSHOTS = ROOT / "tests" / "snapshots"
PYTORCH = [*SNAPSHOTS.glob("*.py"), *(ROOT / "backends" / "tests" / "snapshots").glob("*.py")]
KERAS = [*(SNAPSHOTS / "keras").rglob("*.py")]


# Keras declares no types; from its code, with a branch per backend, pyright infers that its operations give None.
@pytest.mark.parametrize(("files", "infers"), [(PYTORCH, True), (KERAS, False)], ids=["pytorch", "keras"])
def test_snapshots(files, infers, tmp_path):
    environment = Path(sys.prefix)
    config = {"include": list(map(str, files)), "typeCheckingMode": "basic", "useLibraryCodeForTypes": infers}
    config.update(venvPath=str(environment.parent), venv=environment.name)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "-p", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == len(files) > 0
    said = [f"{x['file']}:{x['range']['start']['line'] + 1}: {x['message']}" for x in report["generalDiagnostics"]]
    assert done.returncode == 0 and not said, "\n".join(said)
