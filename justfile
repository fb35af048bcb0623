# `just` runs what a change must pass; `just --list` shows the rest.

default: test lint

# Tests; further words go to pytest
test *args:
    pytest {{args}}

# Style, types, layers
lint:
    ruff check .
    ruff format --check .
    mypy
    lint-imports

# Repair what can be repaired by itself
fix:
    ruff check --fix .
    ruff format .

# Measure both engines on an NVIDIA GPU (10 minutes); `--tiny` tries it without one
gpu-check *args:
    python tests/gpu_check.py {{args}}

# Everything, in fresh virtual environments (up to 90 minutes on two cores)
ci:
    .ci/run
