# make demo | make test: each sets up what it needs. PYTHON=python3.12 picks the interpreter, PYTEST_ARGS goes to pytest.
# TEST_WORKERS test files run side by side, each with one thread for linear algebra.
SHELL := bash
.DEFAULT_GOAL := help

# With a sourced ROS distribution the messages are an overlay to be sourced; with the wheels nothing is.
ros := $(if $(ROS_DISTRO),source .venv/setup.bash &&)
TEST_WORKERS ?= 2
pytest = OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n $(TEST_WORKERS) --dist loadfile
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help setup demo test test-all lint bench clean distclean

help:
	@echo 'make demo      the whole path on real input, with measured errors, pictures and a map'
	@echo 'make test      the tests, but for the slow ones'
	@echo 'make test-all  all of them'
	@echo 'make lint      ruff, mypy, import-linter'
	@echo 'make bench     benchmarks'
	@echo 'make setup     the environment in .venv alone'
	@echo 'make clean     what builds and runs left; make distclean: the environment too'

setup:
	@tools/setup.sh

demo: setup
	$(ros) .venv/bin/python -m dust3r_ros.demo $(DEMO_ARGS)

test: setup
	lint-imports
	$(ros) $(pytest) -m 'not slow' $(PYTEST_ARGS)

test-all: setup
	lint-imports
	$(ros) $(pytest) $(PYTEST_ARGS)

lint: setup
	ruff check
	mypy
	lint-imports

# bench/online.py calls these itself.
called_by_online := $(wildcard bench/online_*.py) bench/hour.py bench/metric_scale.py bench/rigs.py bench/odometry_covariance.py

bench: setup
	@for benchmark in $(filter-out $(called_by_online),$(wildcard bench/*.py)); do echo "== $$benchmark"; $(ros) .venv/bin/python "$$benchmark" || exit 1; done

clean:
	rm -rf build install log demo_output .ros .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv
