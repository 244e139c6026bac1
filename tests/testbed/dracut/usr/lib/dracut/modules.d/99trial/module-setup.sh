#!/bin/bash
# A dracut module with an init that tests a kernel module and powers off. Images with it have few
# files and are generated quickly.

check() { return 255; }

depends() { :; }

install() {
    inst_multiple sh mkdir mount modprobe modinfo cat uname
    # shellcheck disable=SC2154 # moddir comes from dracut
    inst_simple "$moddir/init" /init
}
