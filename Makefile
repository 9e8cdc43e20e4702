# `make demo` and `make test` work in a fresh clone: each sets up .venv.
PYTHON ?= python3
RUN = .venv/bin/accelerate launch --quiet --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no

.PHONY: help demo demo-real test test-all faults bench lineages base clean
.DEFAULT_GOAL := help

help:
	@echo "make demo      train three stages in the embedded world, watch them, write the report (minutes on two cores)"
	@echo "make demo-real  watch SFT of a real 135M model on a narrow and on a broad source, write the report (docs/real.md)"
	@echo "make test      lint, type checks, tests"
	@echo "make test-all  the same with all slow tests; writes docs/test-all.md and docs/reliability.md (an hour on two cores)"
	@echo "make faults    only the fault tests; writes docs/reliability.md"
	@echo "make bench     benchmarks beside other packages; writes docs/benchmarks.md (20 minutes on two free cores)"
	@echo "make lineages  the experiment of docs/lineages.md (40 minutes)"
	@echo "make base      pretrain the embedded base model again (15 minutes)"

.venv/.ready: pyproject.toml constraints.txt scripts/setup.sh
	bash scripts/setup.sh $(PYTHON)

demo: .venv/.ready
	bash scripts/demo.sh runs/demo

demo-real: .venv/.ready
	bash scripts/demo_real.sh runs/demo-real

test: .venv/.ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/python -m pytest -q -n 2 --dist loadscope --no-loadscope-reorder

test-all: .venv/.ready
	.venv/bin/python scripts/test_all.py

faults: .venv/.ready
	.venv/bin/python scripts/test_all.py --faults

bench: .venv/.ready
	bash scripts/peers.sh
	.venv/bin/python benchmarks/bench.py

lineages: .venv/.ready
	.venv/bin/python benchmarks/lineages.py

base: .venv/.ready
	.venv/bin/python -m divwatch.tiny.pretrain src/divwatch/tiny/base

clean:
	rm -rf .venv runs
