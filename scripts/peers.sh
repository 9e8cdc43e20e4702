#!/usr/bin/env bash
# The packages that `make bench` measures divwatch beside, into .venv.
set -euo pipefail
cd "$(dirname "$0")/.."
pip=(.venv/bin/python -m pip --disable-pip-version-check --quiet)
"${pip[@]}" install -e ".[bench]" -c constraints.txt
# Alone: of it one module is used, and the whole asks for transformers below 5 and for spaCy.
"${pip[@]}" install --no-deps "$(grep '^diversity==' constraints.txt)"
