# SPDX-License-Identifier: Apache-2.0
#
#   make demo      build everything and run a container in its own virtual machine
#   make test      run every test
#   make lab       a shell in an emulated machine with a working /dev/kvm
#   make lint      run every check that is no test
#   make bench     measure, and print ratios
#   make install   install below PREFIX (default /usr/local)

PREFIX ?= /usr/local
DESTDIR ?=
TARGET := $(or $(CARGO_TARGET_DIR),target)
GUEST := x86_64-unknown-linux-gnu
SHARE = $(DESTDIR)$(PREFIX)/share

.PHONY: demo test lab lint bench install dist packages-build

demo: dist
	@scripts/packages run demo
	@scripts/demo

test: dist
	@scripts/packages run demo test
	@scripts/test

lab:
	@scripts/packages run demo test
	@lab/run kvm

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- --deny warnings
	RUSTDOCFLAGS='--deny warnings' cargo doc --workspace --no-deps --document-private-items --quiet
	cargo xtask lint
	scripts/deny

bench: dist
	@scripts/packages run demo test bench
	@scripts/bench

install: dist
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/hyper
	install -m 0755 dist/bin/hyper dist/bin/hyperd dist/bin/hyper-pod dist/bin/hyper-vmm $(DESTDIR)$(PREFIX)/bin
	ln -sf hyper $(DESTDIR)$(PREFIX)/bin/hyperctl
	install -m 0644 dist/lib/hyper/vmlinux dist/lib/hyper/scratch.template $(DESTDIR)$(PREFIX)/lib/hyper
	install -m 0755 dist/lib/hyper/hyperstart $(DESTDIR)$(PREFIX)/lib/hyper
	install -d $(addprefix $(SHARE)/,man/man1 bash-completion/completions zsh/site-functions fish/vendor_completions.d)
	dist/bin/hyper man $(SHARE)/man/man1
	dist/bin/hyper completion bash >$(SHARE)/bash-completion/completions/hyper
	dist/bin/hyper completion zsh >$(SHARE)/zsh/site-functions/_hyper
	dist/bin/hyper completion fish >$(SHARE)/fish/vendor_completions.d/hyper.fish

# Everything that is installed, laid out as it will be. Each step does nothing when it is done.
dist: packages-build dist/lib/hyper/scratch.template
	@guest/kernel/build dist/lib/hyper
	@echo "building hyperstart"
	@RUSTFLAGS='-C target-feature=+crt-static' \
	    cargo build --quiet --profile guest --package hyperstart --target $(GUEST)
	@install -C -m 0755 $(TARGET)/$(GUEST)/guest/hyperstart dist/lib/hyper/
	@echo "building hyper-vmm"
	@RUSTFLAGS='-C target-feature=+crt-static' \
	    cargo build --quiet --profile vmm --package hc-vmm-kvm --target $(GUEST)
	@mkdir -p dist/bin
	@install -C -m 0755 $(TARGET)/$(GUEST)/vmm/hyper-vmm dist/bin/
	@echo "building hyper, hyperd and hyper-pod"
	@cargo build --quiet --release --package hc-cli --package hc-daemon --package hc-pod
	@install -C -m 0755 $(addprefix $(TARGET)/release/,hyper hyperd hyper-pod) dist/bin/
	@ln -sf hyper dist/bin/hyperctl

packages-build:
	@command -v cargo >/dev/null || { \
	    echo 'error: no cargo; install Rust 1.91 or later with rustup' >&2; exit 1; }
	@scripts/packages build

dist/lib/hyper/scratch.template: xtask/src/scratch.rs crates/hc-pod/src/scratch.rs
	@echo "making the template of scratch disks"
	@mkdir -p $(@D)
	@cargo xtask scratch $@
