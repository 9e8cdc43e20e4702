#!/usr/bin/env bash
# Installs the packages that `make bench` compares divwatch with into .venv.
set -euo pipefail
cd "$(dirname "$0")/.."
pip=(.venv/bin/python -m pip --disable-pip-version-check --quiet)
"${pip[@]}" install -e ".[bench]" -c constraints.txt
# Without dependencies: only one module is used, and the package requires transformers below 5 and spaCy.
"${pip[@]}" install --no-deps "$(grep '^diversity==' constraints.txt)"
