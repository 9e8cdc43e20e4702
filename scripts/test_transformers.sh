#!/usr/bin/env bash
# Runs the tests that depend on transformers' internals with another release: bash scripts/test_transformers.sh 5.17.0
# (vLLM pins an older transformers than a plain install gets). Creates its own environment.
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1:?give a transformers release, such as 5.17.0}
venv=.venv-transformers-$version
export DIVWATCH_TEST_DATA=${DIVWATCH_TEST_DATA:-} HF_HUB_OFFLINE=1
if [ ! -e "$venv/.ready" ]; then
    ${PYTHON:-python3} -m venv "$venv"
    pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet)
    pins=$(mktemp)
    # Leave out what transformers pins itself.
    grep -vE '^(transformers|tokenizers|huggingface_hub|safetensors|torch)==' constraints.txt > "$pins"
    torch=$(sed -n 's/^torch==//p' constraints.txt)
    "${pip[@]}" install "torch==$torch+cpu" 2> /dev/null ||
        "${pip[@]}" install "torch==$torch" --index-url https://download.pytorch.org/whl/cpu
    "${pip[@]}" install -e ".[dev,peft,deepspeed,offline-encoder]" "transformers==$version" -c "$pins"
    touch "$venv/.ready"
fi
"$venv/bin/python" -c 'import transformers; print("transformers", transformers.__version__)'
"$venv/bin/python" -m pytest -q tests/sampling tests/test_callback.py tests/test_rollouts.py tests/launched "${@:2}"
