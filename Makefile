# Everything CI runs and everything a newcomer needs: `make check`.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: check setup format lint doc licences test check-clean release bench fuzz documents campaign faults power simulate mutants cargo-mutants nfs

check: setup format lint doc licences test

# Installs what the tests use; as anybody but root it only says what is missing.
setup:
	@tests/setup.sh

format:
	cargo fmt --all --check
	rustfmt --edition 2024 --check tests/simulation/program.rs

lint:
	cargo clippy --locked --all-targets -- -D warnings
	for own in fuzz mutants; do cargo metadata --locked --format-version 1 --manifest-path $$own/Cargo.toml >/dev/null; done # else make fuzz stops at its lock file

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

# One static program, target/TARGET/release/joblock. Its target must be named even where it is this machine's own: cargo would
# give procedural macros, which can't be static, the same flags.
target := $(shell rustc -vV | sed -n 's/^host: //p')
static := -C target-feature=+crt-static -C relocation-model=static
release bench campaign: export CARGO_BUILD_TARGET = $(target)
release bench campaign: export CARGO_BUILD_RUSTFLAGS = $(static)
release:
	cargo build --locked --release

# A run of `true` and a refused start beside flock(1); takes a minute or two. Says most on a machine that does nothing else.
bench: setup
	cargo bench --locked --bench beside_flock

# docs/guarantees.md and docs/evidence.md, from the tests and from what the programs measured.
documents:
	JOBLOCK_WRITE_DOCUMENTS=1 cargo test --locked --test documents

# Coverage-guided fuzzing of everything that reads what others wrote, on stable Rust: MINUTES in all. `fuzz/run.sh` says the rest.
fuzz: setup
	@MINUTES=$(or $(MINUTES),22) fuzz/run.sh

# Real processes under fire, judged by an outside witness, on every kind of store; the short form is in `make check`. It is the static
# program that `make release` gives out, and takes half of the other one's time. Prints each round of
# 5000 acquisitions with its seed; SEED=N begins with that one; GO_ON=1 adds to the figures on record. Needs root. 10^6 take hours.
ACQUISITIONS ?= 1000000
campaign: setup
	JOBLOCK_CAMPAIGN=$(ACQUISITIONS) JOBLOCK_SEED=$(SEED) JOBLOCK_GO_ON=$(GO_ON) JOBLOCK_RECORD=1 \
	    cargo test --locked --profile campaign --test campaign -- --nocapture --test-threads 1

# Every system call of every process fails in every way that it can, once and from then on, on every store (half an hour on 2 cores), and every
# crash image of a story of runs. FAULTS, POWER: all, or for how many seconds. PART=3/20 plays the third of twenty parts, SCENARIOS=Takeover,Older only
# these, and GO_ON=1 adds to the figures on record.
FAULTS ?= all
POWER ?= all
faults:
	JOBLOCK_RECORD=1 JOBLOCK_GO_ON=$(GO_ON) JOBLOCK_FAULTS=$(FAULTS) JOBLOCK_PART=$(PART) JOBLOCK_SCENARIOS=$(SCENARIOS) \
		cargo test --locked --profile campaign --test faults -- --nocapture
power:
	JOBLOCK_RECORD=1 JOBLOCK_POWER=$(POWER) cargo test --locked --profile campaign --test power_loss -- --nocapture

# The lease's own code in simulated worlds: SEEDS of them, the first FROM (else the clock says), or one, told line by line: make simulate SEED=7. THREADS: all cores.
simulate:
	JOBLOCK_RECORD=1 JOBLOCK_SIMULATE_SEEDS=$(or $(SEEDS),1000000) JOBLOCK_SIMULATE_FROM=$(FROM) JOBLOCK_SIMULATE_SEED=$(SEED) JOBLOCK_SIMULATE_THREADS=$(THREADS) \
		cargo test --locked --test simulation worlds -- --nocapture

# Every small change that cargo-mutants (cargo install cargo-mutants) knows in what decides and in the stores, all in one build, each
# tried by the tests that come by it: two hours. Ends with those that survive and that mutants/survivors.toml does not account for.
cargo-mutants: setup
	@cargo mutants --version >/dev/null 2>&1 || { echo 'cargo-mutants: cargo install cargo-mutants' >&2; exit 1; }
	cargo run --locked --release --manifest-path mutants/Cargo.toml

# All bugs that are planted in copies of that code; each must be found.
mutants:
	JOBLOCK_RECORD=1 JOBLOCK_MUTANTS=1 cargo test --locked --test simulation planted -- --nocapture

# Everything on real NFS, on three machines with kernels of their own (`tests/nfs/lab`), at full length: hours. Needs root.
nfs: setup
	JOBLOCK_RECORD=1 JOBLOCK_NFS=full cargo test --locked --profile campaign --no-fail-fast $(addprefix --test ,$(basename $(notdir $(wildcard tests/nfs_*.rs)))) --test lease_alone -- --nocapture --test-threads 1
