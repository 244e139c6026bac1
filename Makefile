# The targets for development. All work on a bare Debian 12 as root; missing programs are installed with apt.

export PATH := $(PATH):$(if $(CARGO_HOME),$(CARGO_HOME),$(HOME)/.cargo)/bin
threads ?= 2
# The stories that can run with the real mkinitcpio; `images::` includes precise_images.
image_stories = alarm:: image_failures:: image_interruptions:: image_judgement:: image_makers:: image_places:: images:: a_module_in_the_image_aborts

.PHONY: demo pictures check e2e check-corpus check-mkinitcpio check-power check-package dist tarball testbed query bench simulate fmt lint unit mutants shells man shellcheck deny clean

demo: testbed ## show a kernel upgrade with real modules, in pacman's own output
	tests/testbed/demo.sh

check: fmt lint unit shells man shellcheck tarball query e2e ## run all checks and tests, except deny and check-*

e2e: testbed ## run the stories and scenarios [threads=2]
	tests/testbed/bench-modules.sh
	cargo test --no-fail-fast -p stories -- --test-threads $(threads)

check-corpus: testbed ## compare with dkms on all *-dkms packages of Debian, for both kernels; writes docs/corpus.md (hours) [CORPUS="zfs- xone-"]
	tests/testbed/corpus.sh all
	CORPUS_PAGE=$(CURDIR)/docs/corpus.md cargo test -p stories --test corpus -- --ignored --nocapture

check-mkinitcpio: testbed ## run the stories about images with the real mkinitcpio (half an hour) source=CHECKOUT [threads=2]
	tests/testbed/mkinitcpio.sh $(source)
	STORIES_MKINITCPIO=1 cargo test --no-fail-fast -p stories --test stories -- --test-threads $(threads) $(image_stories)

check-power: testbed ## kill pacman at each change, make each system call of a hook fail, and cut the power of a machine in QEMU (hours) [threads=2]
	cargo test -p stories --test stories -- --ignored --test-threads $(threads) --nocapture

check-package: testbed ## check that two builds of the release tarball give the same package (minutes)
	tests/testbed/dist.sh package

dist: ## write the release tarball of the last commit, and the files for the AUR, to target/dist
	packaging/dist.sh

tarball: host ## check that two clones give the same release tarball
	tests/testbed/dist.sh tarball

testbed: host ## build the root file systems that the stories start from
	tests/testbed/testbed.sh build

query: testbed ## lint and test alpm-query, the only crate that links libalpm 16
	tests/testbed/testbed.sh alpm-query

bench: testbed ## measure alpm-dkms and dkms (half an hour) [rounds=3] [rows="install bump"] [out=FILE]
	tests/testbed/bench-modules.sh
	$(if $(rows),,$(MAKE) --silent simulate >target/testbed/simulation)
	cargo run --quiet -p stories --bin bench -- $(and $(rounds),--rounds $(rounds)) $(and $(out),--out $(out)) \
		$(or $(rows),--simulation target/testbed/simulation)

pictures: testbed ## draw the pictures of the README from real transactions
	cargo run --quiet -p stories --bin pictures

simulate: host ## simulate 40 modules for 6 kernels on 16 and 64 processors
	cargo build --quiet --release -p dkms-confine
	cargo run --quiet --release -p dkms-engine --example simulate

fmt: host ## check the formatting
	cargo fmt --all --check

lint: host ## run clippy
	cargo clippy --all-targets -- -D warnings
	cargo clippy -p stories --all-targets -- -D warnings

unit: host ## run the unit tests, also those that need root
	cargo test
	cargo test -p dkms-engine -p dkms-cli -p dkms-confine --test runs --test command_line --test interruption \
		--test fsyncs --test confine -- --ignored
	cargo test -p dkms-initramfs -p preflight -- --ignored

mutants: host ## check with cargo-mutants that tests fail if code is changed that removes or places modules (hours) [files="plan/removals.rs"]
	tests/testbed/mutants.sh $(files)

shells: host ## test tab completion in bash, zsh and fish
	cargo test -p dkms-cli --test completion -- --ignored

man: host ## check the man pages and the systemd units
	mandoc -Tlint -Wwarning man/*
	tests/testbed/units.sh

shellcheck: host ## check the shell scripts
	tests/testbed/shellcheck.sh

deny: ## check the licences, duplicates and origins of dependencies
	@cargo deny --version >/dev/null 2>&1 || { echo 'error: cargo-deny: not installed; run: cargo install cargo-deny --locked' >&2; exit 1; }
	cargo deny check licenses bans sources

clean: ## remove everything that was built, the testbed included
	rm -rf target

.PHONY: host
host:
	@tests/testbed/host.sh
