# Everything starts here: `make demo` or `make test` on a fresh machine with Python 3.11+, git and make.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint bench torture bundle deb lock clean chromium postgres FORCE

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install -qq
CORES := $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)

help:  ## liệt kê các lệnh / lists these commands
	@sed -n 's/^\([a-z]*\):.*## *\(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-13s  %s\n", $$1, $$2}'
	@echo "  PYTHON=...   chọn Python / picks the interpreter"

demo: .venv/.runtime  ## chạy thử trọn công việc (ONCE=1: một lượt; SEED=n; DATABASE_URL=...) / runs the whole job on sample data
	@$(BIN)/unionhub demo $(if $(filter-out 0,$(ONCE)),--once) $(if $(SEED),--seed $(SEED)) $(if $(DATABASE_URL),--database-url "$(DATABASE_URL)")

test: .venv/.runtime .venv/.test chromium postgres  ## chạy kiểm thử (ARGS="-k ...") / runs the tests
	@$(BIN)/python -m pytest $(if $(filter-out 0 1,$(CORES)),-n 2 --dist worksteal) $(ARGS)

lint: .venv/.runtime .venv/.test .venv/.lint  ## kiểm tra mã nguồn / style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: .venv/.runtime .venv/.test $(if $(PEERS),.venv/.peers)  ## đo tốc độ (ONLY=deliver; ROUNDS=n; PEERS=1) / every figure beside its yardstick
	@$(if $(PEERS),PYTHONPATH=.venv/peers) $(BIN)/python -m benchmarks $(addprefix --only ,$(ONLY)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(PEERS),--peers)

torture: .venv/.runtime .venv/.test  ## làm hỏng mọi thứ (ONLY="kills power"; N=n SEED=n) / every fault with its control
	@$(BIN)/python -m benchmarks.torture $(if $(ONLY),--only $(ONLY)) $(if $(N),--n $(N)) $(if $(SEED),--seed $(SEED))

bundle: .venv/.python  ## đóng gói để cài không cần mạng, vào dist/ / one file that installs without a network
	@$(BIN)/python deploy/bundle.py

deb: .venv/.python  ## gói Debian của bản cài đó, vào dist/ / the same as a Debian package
	@$(BIN)/python -m deploy.deb

# -- set-up ------------------------------------------------------------------------------------------
# Each stamp is newer than the files it was made from, so that a second run starts at once. The venv is
# made anew when its Python is gone, when the folder was moved (pip names the old place), or for another PYTHON.

# A shim picked by an absolute path says nothing: only what runs counts.
usable := $(shell head -n 3 $(BIN)/pip 2>/dev/null | grep -qF "$(CURDIR)/.venv/bin/" \
  && $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
  && { test -z "$(PYTHON)" || test ! -f .venv/.python || test "$$(cat .venv/.python)" = "$(PYTHON)"; } \
  && echo yes)
ifneq ($(usable),yes)
.venv/.python: FORCE
endif

.venv/.python:
	@python=$$(sh requirements/find-python $(PYTHON)) || exit 2; \
	if [ "$(usable)" != yes ]; then echo "Tạo .venv bằng $$python / making .venv"; "$$python" -m venv --clear .venv || exit 2; fi; \
	echo "$(PYTHON)" > $@

.venv/.runtime: .venv/.python requirements/runtime.txt pyproject.toml
	@echo "Cài các gói cần để chạy, khoảng một phút / installing what the hub runs on, about a minute"
	@$(PIP) --require-hashes -r requirements/runtime.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

.venv/.test: .venv/.runtime requirements/test.txt
	@echo "Cài các gói kiểm thử / installing what the tests need"
	@$(PIP) --require-hashes -r requirements/test.txt
	@touch $@

# Beside the environment, not in it: what is measured must not change what is compared with it.
.venv/.peers: .venv/.test requirements/peers.txt
	@rm -rf .venv/peers
	@$(PIP) --require-hashes --no-deps --target .venv/peers -r requirements/peers.txt
	@touch $@

.venv/.lint: .venv/.test requirements/lint.txt
	@echo "Cài các gói kiểm tra mã / installing what the checks need"
	@$(PIP) --require-hashes -r requirements/lint.txt
	@touch $@

# Only CI installs a browser and a database server by itself; elsewhere the tests say the one command and are
# skipped, counted.
chromium: .venv/.test
	@if [ -n "$$CI" ] && ! $(BIN)/python -m tests.chromium >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
	fi

# The programs are all we want: Debian would make and start a cluster of its own.
postgres: .venv/.test
	@if [ -n "$$CI" ] && ! $(BIN)/python -m tests.postgres >/dev/null; then \
	  apt-get update -qq && export DEBIAN_FRONTEND=noninteractive \
	  && apt-get install -y -qq --no-install-recommends postgresql-common >/dev/null \
	  && sed -i 's/^#*\(create_main_cluster\) .*/\1 = false/' /etc/postgresql-common/createcluster.conf \
	  && apt-get install -y -qq --no-install-recommends postgresql >/dev/null; \
	fi

# -- upkeep ------------------------------------------------------------------------------------------

# Versions and hashes only, for every platform: no registry is named, so each machine asks its own.
COMPILE = $(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-header --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)

lock: .venv/.python  ## khoá lại phiên bản các gói (UPGRADE=1: bản mới nhất) / pins packages again
	@$(PIP) --require-hashes -r requirements/lock.txt
	$(COMPILE) pyproject.toml --extra speed --extra postgres --extra simulators requirements/runtime.in -o requirements/runtime.txt
	$(COMPILE) requirements/test.in -c requirements/runtime.txt -o requirements/test.txt
	$(COMPILE) requirements/lint.in -c requirements/runtime.txt -c requirements/test.txt -o requirements/lint.txt
	$(COMPILE) requirements/peers.in -c requirements/runtime.txt -c requirements/test.txt -o requirements/peers.txt
	$(COMPILE) requirements/lock.in -o requirements/lock.txt

clean:  ## xoá .venv và các tệp tạm, giữ var/ / removes .venv and caches, keeps var/
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
