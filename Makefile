# Shorter ways to run the project's own tools. `./uv` finds uv, or gets it.
UV ?= ./uv
# make bench BENCHMARKS="startup store": those parts alone
BENCHMARKS ?=

help:
	@echo "make test       all tests"
	@echo "make test-fast  the tests that start no embedded model and build no package"
	@echo "make lint       style, formatting, and who may import whom"
	@echo "make types      static types"
	@echo "make docs       the documentation, strictly, into site/"
	@echo "make bench      all benchmarks (half an hour), and their page; BENCHMARKS=startup for one"
	@echo "make lowest     the fast tests with the oldest dependencies allowed"
	@echo "make check      all that has to pass before a commit lands"

test:
	$(UV) run pytest

test-fast:
	$(UV) run pytest -m "not slow"

lint:
	$(UV) run ruff check .
	$(UV) run ruff format --check .
	$(UV) run lint-imports

types:
	$(UV) run mypy

docs:
	$(UV) run --isolated --only-group docs zensical build --strict --clean

bench:
	$(UV) run python -m benchmarks $(BENCHMARKS)

lowest:
	$(UV) run --no-project scripts/lowest

check:
	$(UV) run scripts/check

.PHONY: help test test-fast lint types docs bench lowest check
