#!/usr/bin/env bash
# What converting costs, beside copying: for full-size checkpoints, the time of `cp` and of `modelport convert` (the
# best of five, files read beforehand) and its peak memory, each with its budget. Ends in failure when over budget.
#   benches/convert.sh [NETWORK …]     default: inception_v3 vgg_16; made in the cache when missing
# MODELPORT_BIN: the program, default target/release/modelport.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
networks=${MODELPORT_CACHE:-$HOME/.cache/modelport}/networks
modelport=${MODELPORT_BIN:-$root/target/release/modelport}
names=("$@")
[[ $# -gt 0 ]] || names=(inception_v3 vgg_16)

if [[ ! -x $modelport ]]; then
    echo "$modelport is missing: cargo build --release" >&2
    exit 1
fi
for name in "${names[@]}"; do
    if [[ ! -e $networks/$name/case.json ]]; then
        echo "making $name in $networks" >&2
        python=$("$root/tests/setup" tf1)/bin/python
        said=$(PYTHONPATH=$root/tests/fixtures "$python" -m tf1.generate --full "$networks" "$name" 2>&1) || {
            echo "$said" >&2
            exit 1
        }
    fi
done
exec "${PYTHON:-python3}" "$root/benches/measure.py" "$modelport" "$networks" "${names[@]}"
