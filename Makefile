# Each target works alone on a fresh machine: it makes what it needs first. Python 3.11 or newer, nothing else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
SYSTEM := gnome-keyring dbus iproute2 util-linux procps zsh fish dash gcc libc6-dev awscli

.PHONY: setup system aws-v2 demo test lint fmt bench clean

setup: $(STAMP)

# What we ship is pinned with hashes in constraints.txt; the development tools' closure, which contains it, in
# constraints-dev.txt. pip checks every hash; nothing is built from an unpinned tool.
$(STAMP): pyproject.toml constraints.txt constraints-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(STAMP)

# System packages that the tests use. Without root it says what would be missing; those tests then skip loudly.
system:
	@if [ "$$(id -u)" != 0 ]; then echo "not root: install $(SYSTEM) yourself, or some tests are skipped"; \
	elif ! command -v apt-get >/dev/null; then echo "no apt-get: install $(SYSTEM) yourself, or some tests are skipped"; \
	elif ! dpkg -s $(SYSTEM) >/dev/null 2>&1; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(SYSTEM) >/dev/null; fi

# AWS CLI v2 is Debian's `awscli`: the demo shows it, too, where apt has it and we may install it.
aws-v2:
	@if [ ! -x /usr/bin/aws ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends awscli; } \
	    >/dev/null 2>&1 || echo "no AWS CLI v2 from apt: the demo goes on without it"; fi

demo: setup aws-v2
	$(BIN)/python -m examples.demo $(if $(KEEP),--keep)

test: setup system
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/cfn-lint examples/tutorial/*-account.yaml

fmt: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	$(BIN)/python -m tests.bench

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
