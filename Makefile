# The index of what can be done here. All of it works on a bare Debian 12 as root; apt is asked for what is missing.

export PATH := $(PATH):$(if $(CARGO_HOME),$(CARGO_HOME),$(HOME)/.cargo)/bin
threads ?= 2

.PHONY: demo check e2e check-corpus testbed query bench simulate fmt lint unit shells man shellcheck clean

demo: testbed ## a kernel bump with real modules, pacman's own output
	tests/testbed/demo.sh

check: fmt lint unit shells man shellcheck query e2e ## everything

e2e: testbed ## the stories
	cargo test -p stories -- --test-threads $(threads)

check-corpus: testbed ## all of Debian's *-dkms packages, with dkms and with ours, into docs/corpus.md (hours) [CORPUS="zfs- xone-"]
	tests/testbed/corpus.sh all
	CORPUS_PAGE=$(CURDIR)/docs/corpus.md cargo test -p stories --test corpus -- --ignored --nocapture

testbed: host ## the roots that stories start from
	tests/testbed/testbed.sh build

query: testbed ## lint and tests of the crate that links libalpm 16
	tests/testbed/testbed.sh alpm-query

bench: testbed ## how long things take, beside the real dkms: make bench [rounds=3] [rows="install bump"] [out=FILE]
	tests/testbed/bench-modules.sh
	$(if $(rows),,$(MAKE) --silent simulate >target/testbed/simulation)
	cargo run --quiet -p stories --bin bench -- $(and $(rounds),--rounds $(rounds)) $(and $(out),--out $(out)) \
		$(or $(rows),--simulation target/testbed/simulation)

simulate: host ## 40 modules for 6 kernels on 16 and on 64 processors, with compilers that only sleep
	cargo run --quiet --release -p dkms-engine --example simulate

fmt: host
	cargo fmt --all --check

lint: host
	cargo clippy --all-targets -- -D warnings
	cargo clippy -p stories --all-targets -- -D warnings

unit: host
	cargo test

shells: host ## tab completion, in bash, zsh and fish
	cargo test -p dkms-cli --test completion -- --ignored

man: host ## the man pages and the units
	mandoc -Tlint -Wwarning man/*
	tests/testbed/units.sh

shellcheck: host
	tests/testbed/shellcheck.sh

clean:
	rm -rf target

.PHONY: host
host:
	@tests/testbed/host.sh
