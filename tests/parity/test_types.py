"""Generated code type-checks in pyright's basic mode: that of all snapshots at once."""

import json
import subprocess
import sys
from pathlib import Path

from harness import ROOT

FOLDERS = [ROOT / "tests" / "snapshots", ROOT / "backends" / "tests" / "snapshots"]


def test_snapshots(tmp_path):
    environment = Path(sys.prefix)
    config = {"include": [str(folder) for folder in FOLDERS], "typeCheckingMode": "basic"}
    config.update(venvPath=str(environment.parent), venv=environment.name)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "-p", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] >= sum(len(list(folder.rglob("*.py"))) for folder in FOLDERS)
    said = [f"{x['file']}:{x['range']['start']['line'] + 1}: {x['message']}" for x in report["generalDiagnostics"]]
    assert done.returncode == 0 and not said, "\n".join(said)
