# Everything one can do with a checkout. Each target makes what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test check interop bench bench-quick bench-guard bench-relay bench-sim bench-matrix bench-natlab bench-nat bench-growth protos clean

help:
	@echo "make demo         two peers behind NATs meet by peer id and end up direct"
	@echo "make test         all tests"
	@echo "make check        formatting, lint, strict types, import rules"
	@echo "make interop      against go-, js- and rust-libp2p (what is not installed is skipped)"
	@echo "make bench        beside go-, js-, rust- and py-libp2p; make bench-quick takes a minute"
	@echo "make bench-guard  fails if p2pnet is far slower than usual, beside raw sockets"
	@echo "make bench-relay  memory of a relay for each of 1,000 reservations and 200 circuits"
	@echo "make bench-sim    benchmarks of the simulated internet: a day of churn, a crowd of 1,000"
	@echo "make bench-matrix  each pair of 17 kinds of NATs a hundred times: hours; can be continued"
	@echo "make bench-natlab  the same pairs with the kernel's NATs, and py-libp2p in them: an hour or two"
	@echo "make bench-nat    both of them, and so the whole of docs/nat-matrix.md"
	@echo "make bench-growth how time and memory grow with connections, streams, sizes, delay"
	@echo "make protos       generate p2pnet/pb anew"

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try make PYTHON=python3.12")'
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

# trio-typing comes with multiaddr, which never imports it; its stubs hide trio's own types.
$(VENV)/developing: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	-@$(BIN)/python -m pip uninstall --quiet --yes trio-typing 2>/dev/null
	@touch $@

demo: $(VENV)/installed
	@$(BIN)/p2pnet demo

test: $(VENV)/developing
	$(BIN)/python -m pytest tests

check: $(VENV)/developing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

interop: $(VENV)/developing
	$(BIN)/python -m pytest -rs -o faulthandler_timeout=1800 interop # the first tests build peers

bench: $(VENV)/developing
	$(BIN)/python -m benchmarks

bench-quick: $(VENV)/developing
	$(BIN)/python -m benchmarks --quick

bench-guard: $(VENV)/developing
	$(BIN)/python -m benchmarks.guard

bench-relay: $(VENV)/installed
	$(BIN)/python -m benchmarks.relay

bench-sim: $(VENV)/installed
	$(BIN)/python -m benchmarks.simulated

bench-matrix: $(VENV)/installed
	$(BIN)/python -m benchmarks.matrix --page

bench-natlab: $(VENV)/installed
	$(BIN)/python -m benchmarks.natlab --rounds 34 --round-trips 20,80,200 --page
	$(BIN)/python -m benchmarks.natlab --of py-libp2p --page

bench-nat: bench-matrix bench-natlab

bench-growth: $(VENV)/installed
	$(BIN)/python -m benchmarks.growth

protos: $(VENV)/developing
	$(BIN)/python protos/generate.py

clean:
	rm -rf $(VENV) benchmarks/.venvs build dist *.egg-info
