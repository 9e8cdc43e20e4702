# Everything a fresh clone needs: `make demo` and `make test` each set up .venv by themselves.
PYTHON ?= python3
RUN = .venv/bin/accelerate launch --quiet --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no

.PHONY: demo test lint lineages base clean
.DEFAULT_GOAL := help

help:
	@echo "make demo      train, watch and report the embedded lineages (minutes on two cores)"
	@echo "make test      lint, types, tests"
	@echo "make lineages  the counted experiment of docs/lineages.md (40 minutes)"
	@echo "make base      pretrain the embedded base model again (15 minutes)"

.venv/.ready: pyproject.toml constraints.txt scripts/setup.sh
	bash scripts/setup.sh $(PYTHON)

demo: .venv/.ready
	bash scripts/demo.sh runs/demo

test: .venv/.ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/python -m pytest -q -n 2

lineages: .venv/.ready
	.venv/bin/python benchmarks/lineages.py

base: .venv/.ready
	.venv/bin/python -m divwatch.tiny.pretrain src/divwatch/tiny/base

clean:
	rm -rf .venv runs
