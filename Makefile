# Everything CI runs and everything a newcomer needs: `make check`.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: check setup format lint doc licences test check-clean

check: setup format lint doc licences test

# Installs what the tests use; as anybody but root it only says what is missing.
setup:
	@tests/setup.sh

format:
	cargo fmt --all --check

lint:
	cargo clippy --locked --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

licences:
	@tests/licences.sh

# Ends with one line, `N passed, N failed`, counted over all of cargo's test programs.
test:
	@tests/all.sh

# Both commands of the README in a root where nothing but Debian's base and Rust is installed. Needs root; takes long.
check-clean:
	@tests/clean-root.sh
