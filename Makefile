# Everything a fresh clone needs: `make demo` and `make test` each set up .venv by themselves.
PYTHON ?= python3
RUN = .venv/bin/accelerate launch --quiet --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no

.PHONY: help demo test test-all faults bench lineages base clean
.DEFAULT_GOAL := help

help:
	@echo "make demo      train, watch and report the embedded lineages (minutes on two cores)"
	@echo "make test      lint, types, tests"
	@echo "make test-all  everything, slow tests too, into docs/test-all.md and docs/reliability.md (an hour on two cores)"
	@echo "make faults    the faults alone, into docs/reliability.md"
	@echo "make bench     measured beside other packages and ways, into docs/benchmarks.md (20 minutes on two free cores)"
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

test-all: .venv/.ready
	.venv/bin/python scripts/test_all.py

faults: .venv/.ready
	.venv/bin/python tests/faults/table.py

bench: .venv/.ready
	bash scripts/peers.sh
	.venv/bin/python benchmarks/bench.py

lineages: .venv/.ready
	.venv/bin/python benchmarks/lineages.py

base: .venv/.ready
	.venv/bin/python -m divwatch.tiny.pretrain src/divwatch/tiny/base

clean:
	rm -rf .venv runs
