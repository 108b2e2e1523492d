# Each target works alone on a fresh machine: it makes what it needs first. Python 3.11 or newer, nothing else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
SYSTEM := gnome-keyring dbus iproute2 util-linux procps zsh fish dash gcc libc6-dev awscli curl systemd rsyslog socat

# What the attacks of tests/adversary are made with: a second machine, address translation, a relay, a browser.
ADVERSARY_SYSTEM := iproute2 util-linux procps iptables nftables socat chromium

# What the programs of tests/sdk/clients are built with: Go, Rust, Node, Java and Maven are expected to be there, since
# Debian's are too old for the SDKs of today; of the rest apt has what we need.
SDK_TOOLS    := go cargo node npm javac mvn git
SDK_SYSTEM   := awscli curl procps gcc libc6-dev
export SDK_CACHE ?= $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/vaultd-sdk

.PHONY: setup system aws-v2 demo test sdk test-sdk adversary-system test-adversary soak freshness fuzz crash promises import-fixtures pictures lint fmt bench clean

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

# Each program is built once for each version of its directory, into $(SDK_CACHE). Ends with 1, naming what is missing.
sdk: setup
	@missing=; for tool in $(SDK_TOOLS); do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	if [ -n "$$missing" ]; then echo "make sdk: MISSING:$$missing. Install them: the programs in those languages are not built" >&2; fi
	@if ! dpkg -s $(SDK_SYSTEM) >/dev/null 2>&1; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(SDK_SYSTEM) >/dev/null; \
	  else echo "make sdk: MISSING, of: $(SDK_SYSTEM). Install them, or run make sdk as root" >&2; fi; fi
	$(BIN)/python -m tests.sdk.build

# Every client by both dialects against the emulator: nothing is skipped, what is not built fails. Writes docs/sdk-matrix.md.
test-sdk: sdk
	$(BIN)/python -m pytest tests/sdk -m sdk --durations=5

adversary-system:
	@if [ "$$(id -u)" != 0 ]; then echo "make $(or $(MAKECMDGOALS),test-adversary): a second user and a network of its own need root" >&2; exit 1; fi
	@if ! dpkg -s $(ADVERSARY_SYSTEM) >/dev/null 2>&1; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(ADVERSARY_SYSTEM) >/dev/null; fi

# The attacks of security.md §1 as another user, from another machine and from a web page: root, Linux, 5 minutes. Prints
# each case with what its control gained; nothing is skipped: what is missing fails, as in CI.
test-adversary: setup adversary-system
	CI=1 $(BIN)/python -m pytest tests/adversary -m adversary --durations=5

# Six SDKs poll for half an hour: `make soak MINUTES=30`. Prints its table; fails when a call failed or a goal is missed.
soak: sdk
	$(BIN)/python -m tests.sdk.soak --minutes $(or $(MINUTES),30)

# Hostile bytes for every reader of ours, guided by coverage (Linux on x86-64): `make fuzz SECONDS=600`. Fails on a finding,
# whose input is kept in tests/fuzz/corpus; one of the targets alone: `make fuzz TARGET=aws-config`.
fuzz: setup
	PYTHONPATH=.:client $(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),600) $(if $(TARGET),--target $(TARGET))

# Every write of every piece of work, killed and failed once: the crash table. Fails when anything was torn or lost.
crash: setup
	$(BIN)/python -m tests.crash

# Every control that SECURITY.md promises is taken away once, in a copy of HEAD, and each test that is named for it must
# fail then: `make promises`, `make promises NAME=T4`. As root on Linux, since some are attacks by a second user.
promises: setup system adversary-system
	$(BIN)/python -m tests.promises $(NAME)

# The stores of aws-vault that the import's tests read, written anew by its own Go packages and read back: Go, gnome-keyring.
import-fixtures: setup
	$(BIN)/python -m tests.store.aws_vault.make
	$(BIN)/python -m pytest tests/store/aws_vault -m "sdk or not sdk"

# The picker and `status --watch` as they look at 80 by 24, from real runs of a daemon on the emulator: docs/pictures/*.svg.
pictures: setup
	$(BIN)/python -m tests.pictures

# How often each SDK asks again, measured anew: about 5 minutes.
freshness: sdk
	$(BIN)/python -m tests.sdk.freshness --write docs/sdk-freshness.md

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
