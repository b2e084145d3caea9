# The single way in. `make` builds; the tiers of tests stand below, with the time that each may take. CI calls `make test`.

CARGO ?= cargo
PREFIX ?= /usr/local
DESTDIR ?=
# Seconds for each fuzz target.
FUZZ_SECONDS ?= 60
# Seconds for the simulated link.
SOAK_SECONDS ?= 3600
# Most tests wait for a process, a timer or a peer, so more of them run at once than there are processors.
RUST_TEST_THREADS ?= $(shell echo $$((4 * $$(nproc 2>/dev/null || echo 2))))
export RUST_TEST_THREADS

TARGET_DIR = $(or $(CARGO_TARGET_DIR),target)
BINARY = $(TARGET_DIR)/release/seaprox
BINDIR = $(DESTDIR)$(PREFIX)/bin
SHARE = $(DESTDIR)$(PREFIX)/share
FUZZ_TARGETS = $(patsubst fuzz/targets/%.rs,%,$(filter-out %canary.rs,$(wildcard fuzz/targets/*.rs)))
# The tests that a mode of the relay makes a difference to. What a link carries is never spliced.
RELAY_TESTS = --test loop --test process

.PHONY: all capi install-capi test test-tools test-system system-tools sctp idle check check-systems try-windows try-static try-container try-deb try-browser try-prometheus static deb bench interop gates \
	soak mutate race fuzz install uninstall clean

all:
	$(CARGO) build --release --locked

# The C library.
capi:
	$(CARGO) build --release --locked --package seaprox-capi

test-tools:
	@scripts/install-test-tools

# Tier 1, in CI, 15 minutes at most with the build: every test, and once more without splicing what the relay has a part in.
# It passes on a machine that is busy: `scripts/under-load make test`.
test: test-tools check-systems
	$(CARGO) test --locked --no-fail-fast
	$(CARGO) test --locked --no-fail-fast --package seaprox-capi
	SEAPROX_TEST_NO_SPLICE=1 $(CARGO) test --locked --no-fail-fast $(RELAY_TESTS)

# Tier 2, 60 minutes at most, before a larger change ends: many more of the simulated and random faults of tier 1, links between
# versions, and races.
test-system: test-tools system-tools
	SEAPROX_FIRST=2001 SEAPROX_SEEDS=50000 $(CARGO) test --locked --test link sim::swarm
	SEEDS=40..440 $(CARGO) test --locked --test node faults::
	$(CARGO) test --locked --test process reload:: -- --ignored
	$(CARGO) test --locked --test process mail:: -- --ignored
	$(CARGO) test --locked --test process transfers:: -- --ignored
	$(CARGO) test --locked --test process console_proofs:: -- --ignored
	$(CARGO) test --locked --test link paths::fifty -- --ignored
	$(CARGO) test --locked --test link paths::a_minute -- --ignored
	$(CARGO) test --locked --test net link_groups:: -- --ignored
	$(CARGO) test --locked --test net link_auto:: -- --ignored
	$(CARGO) test --locked --test net link_quic:: -- --ignored
	$(CARGO) test --locked --test net datagrams:: -- --ignored
	$(CARGO) test --locked --package seaprox-capi -- --ignored
	$(MAKE) interop
	$(MAKE) race
	$(MAKE) try-windows
	$(MAKE) try-static
	$(MAKE) try-container
	$(MAKE) try-deb
	$(MAKE) sctp
	$(MAKE) try-browser
	$(MAKE) try-prometheus
	$(CARGO) publish --workspace --dry-run --locked

# Tries with Chromium to read and to command the admin server from a hostile page.
try-browser:
	$(CARGO) build --locked
	scripts/browser-check $(TARGET_DIR)/debug/seaprox

# Checks /metrics with promtool, and runs each query of the dashboard in a Prometheus that scrapes two nodes.
try-prometheus:
	$(CARGO) build --locked
	scripts/prometheus-check $(TARGET_DIR)/debug/seaprox

# Runs the links over SCTP in a guest of qemu whose kernel has it, on its packages of Debian.
sctp: system-tools
	scripts/check-sctp

# Measures a relay with up to 100,000 idle connections in a guest of qemu. It judges nothing.
idle: system-tools
	scripts/check-idle

# Installs the heavy programs of tier 2.
system-tools:
	@scripts/install-system-tools

# Static binaries with musl for x86_64 and aarch64: target/static. packaging/container makes an image of them.
static:
	scripts/build-static

# Runs the static binaries in an empty root; the one for aarch64 under qemu.
try-static: static
	scripts/try-static

# Builds the image of packaging/container with buildah, and runs what is in it.
try-container: static
	scripts/try-container

# A Debian package of the release binary: target/debian.
deb: all capi
	scripts/build-deb
	scripts/build-deb-library

# Lints the package, and runs it under systemd in a guest of qemu: start, reload, watchdog, sockets, removal.
try-deb: deb
	scripts/try-deb

# Form: format, lints, the order of the layers, types on other systems, the documentation.
check:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets --workspace -- -D warnings
	scripts/check-capi
	scripts/check-capi-size
	scripts/check-python
	scripts/check-layers
	scripts/check-systems
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps --document-private-items

# Type-checks the library and the binary for macOS, FreeBSD and Windows, where rustup has the targets.
check-systems:
	scripts/check-systems

# Builds the binary for Windows and runs it under wine, where mingw-w64 and wine are installed.
try-windows:
	scripts/try-windows

# Rates, times and memory, to be read by a person and compared with other proxies. It judges nothing. The last one, of the carriers
# of links, takes ten minutes a round: `cargo bench --bench carriers -- --rounds 3` for medians.
bench:
	$(CARGO) bench --locked --bench proxy
	$(CARGO) bench --locked --bench link
	$(CARGO) bench --locked --bench scenes
	$(CARGO) bench --locked --bench tls
	$(CARGO) bench --locked --bench paths
	$(CARGO) bench --locked --bench carriers

# Rates and times that must hold, each one line; ends with an error when one is missed. Wants a machine that is not busy.
# GATES chooses some of them by a part of their name.
gates:
	$(CARGO) bench --locked --bench gates -- $(GATES)

# Runs links between this version and an earlier one, in both roles. Builds the earlier one from the history.
interop:
	scripts/interop

# The tests that take minutes and are ignored otherwise, and the simulated link for as long as it is told, beginning with a
# seed of its own. For a night.
soak: test-tools
	$(CARGO) test --locked --test net -- --ignored
	SEAPROX_FIRST=$$(date +%s) SEAPROX_SECONDS=$(SOAK_SECONDS) $(CARGO) test --locked --test link sim::swarm -- --nocapture

# Breaks the link's protocol in known ways, one at a time, and wants the tests to notice each.
mutate:
	scripts/mutate-link

# Looks for races in what threads share: models in loom, and the thread sanitizer where a nightly toolchain has rust-src.
race:
	scripts/race

# Needs a nightly toolchain and cargo-fuzz. The oracles of these targets also run in `make test`, on their seeds.
fuzz:
	@for target in $(FUZZ_TARGETS); do \
		echo "== $$target, $(FUZZ_SECONDS) seconds"; \
		mkdir -p fuzz/corpus/$$target fuzz/seeds/$$target; \
		$(CARGO) +nightly fuzz run $$target fuzz/corpus/$$target fuzz/seeds/$$target -- -max_total_time=$(FUZZ_SECONDS) \
			|| exit 1; \
	done

# The C library is linked by a linker of GNU, so it is installed on Linux.
install: all $(if $(filter Linux,$(shell uname -s)),install-capi)
	install -d $(BINDIR) $(SHARE)/man/man1 $(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions \
		$(SHARE)/fish/vendor_completions.d
	install -m 755 $(BINARY) $(BINDIR)/seaprox
	$(BINARY) man >$(SHARE)/man/man1/seaprox.1
	$(BINARY) completions bash >$(SHARE)/bash-completion/completions/seaprox
	$(BINARY) completions zsh >$(SHARE)/zsh/site-functions/_seaprox
	$(BINARY) completions fish >$(SHARE)/fish/vendor_completions.d/seaprox.fish

# The C library with its header, for programs that are built with `pkg-config --cflags --libs seaprox`.
install-capi: capi
	STRIP_DEBUG=1 scripts/install-capi $(TARGET_DIR)/release/libseaprox_c.a $(PREFIX) $(DESTDIR)

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/include/seaprox.h $(DESTDIR)$(PREFIX)/lib/libseaprox.* $(DESTDIR)$(PREFIX)/lib/pkgconfig/seaprox.pc
	rm -f $(BINDIR)/seaprox $(SHARE)/man/man1/seaprox.1 $(SHARE)/bash-completion/completions/seaprox \
		$(SHARE)/zsh/site-functions/_seaprox $(SHARE)/fish/vendor_completions.d/seaprox.fish

clean:
	$(CARGO) clean
