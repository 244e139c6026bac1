#!/bin/bash
# Installs the programs that `cargo build --release` has built, with everything that belongs to them:
# install.sh target/release DESTDIR
set -euo pipefail

programs=$(realpath "$1") root=$(realpath "$2")
cd "$(dirname "$0")/.."
lib=$root/usr/lib share=$root/usr/share units=$root/usr/lib/systemd/system

install -Dm755 "$programs/dkms" -t "$root/usr/bin"
install -Dm755 "$programs"/{dkms-install,dkms-preflight,dkms-remove,mkinitcpio-dkms,alpm-query,compile-once,dkms-confine} \
    -t "$lib/alpm-dkms"

install -Dm644 libalpm-hooks/*.hook -t "$share/libalpm/hooks"
install -Dm755 packaging/scripts-dkms "$share/libalpm/scripts/dkms"

install -Dm644 packaging/alpm-dkms.toml -t "$root/etc/dkms"
install -Dm644 packaging/tmpfiles.conf "$lib/tmpfiles.d/alpm-dkms.conf"
install -Dm644 packaging/alpm-dkms.catalog -t "$lib/systemd/catalog"
install -Dm644 packaging/*.{service,timer} -t "$units"
# Enabled by the package, so that the next boot finishes an interrupted transaction.
install -d "$units/multi-user.target.wants"
ln -sf ../alpm-dkms-pending.service -t "$units/multi-user.target.wants"

for page in man/*.[1-9]; do
    install -Dm644 "$page" -t "$share/man/man${page##*.}"
done
install -Dm644 completion/dkms.bash "$share/bash-completion/completions/dkms"
install -Dm644 completion/_dkms -t "$share/zsh/site-functions"
install -Dm644 completion/dkms.fish -t "$share/fish/vendor_completions.d"

# In the layout of the checkout, so that links between the pages work.
install -Dm644 ./*.md -t "$share/doc/alpm-dkms"
install -Dm644 docs/*.md -t "$share/doc/alpm-dkms/docs"
install -Dm644 docs/pictures/*.svg -t "$share/doc/alpm-dkms/docs/pictures"
