//! Fake kernels with headers that "compile" a module in a few milliseconds.

use crate::{TestRoot, kernel_object};

/// A kernel in a [`TestRoot`]. Every method takes effect immediately and returns the kernel.
///
/// `build/Makefile` reads `obj-m` from the module's `Makefile`, with `KERNELRELEASE` set as in
/// kbuild, and creates each `NAME.ko` from `NAME.c` without a compiler. The object contains this
/// kernel's vermagic, the `version` from `MODULE_VERSION("…");`, and a `srcversion` that changes
/// with the source. A line `#error …` makes the build fail with gcc's message on standard error.
#[derive(Debug)]
pub struct FakeKernel<'a> {
    root: &'a TestRoot,
    release: String,
}

impl<'a> FakeKernel<'a> {
    pub(crate) fn add(root: &'a TestRoot, release: &str) -> Self {
        let kernel = Self { root, release: release.to_owned() };
        kernel
            .file("vmlinuz", "a kernel\n")
            .file("modules.order", "kernel/fs/fake.ko\n")
            .file("modules.builtin", "")
            .object("kernel/fs/fake.ko")
    }

    /// Sets the package that the kernel is from. Without a package, the kernel counts as
    /// self-built.
    pub fn pkgbase(self, pkgbase: &str) -> Self {
        self.file("pkgbase", &format!("{pkgbase}\n"))
    }

    /// Adds headers: `build/` with a Makefile, a configuration and the generated headers.
    pub fn headers(self) -> Self {
        let release = self.release.clone();
        let compiler = COMPILER.replace("@RELEASE@", &release);
        let kernel = self
            .file("build/Makefile", &MAKEFILE.replace("@RELEASE@", &release))
            .file("build/.config", CONFIG)
            .file("build/include/config/auto.conf", CONFIG)
            .file("build/include/config/kernel.release", &format!("{release}\n"))
            .file(
                "build/include/generated/utsrelease.h",
                &format!("#define UTS_RELEASE \"{release}\"\n"),
            )
            .file("build/include/generated/utsversion.h", "#define UTS_VERSION \"#1 SMP\"\n")
            .file("build/include/generated/compile.h", "#define LINUX_COMPILER \"gcc 16\"\n")
            .file("build/include/linux/module.h", "/* modules */\n")
            .file("build/arch/x86/include/asm/page.h", "/* pages */\n")
            .file("build/Module.symvers", "0x12345678\t_printk\tvmlinux\tEXPORT_SYMBOL\t\n")
            .file("build/scripts/compile", &compiler);
        kernel.root.write(kernel.place("build/scripts/object"), kernel_object("", "", &[]));
        kernel
    }

    /// Renames the kernel's own module as if it were compressed. `suffix` is `zst`, `xz` or `gz`.
    /// If there are headers, their configuration names the compression. The content is not
    /// compressed.
    pub fn compressed(self, suffix: &str) -> Self {
        self.root.remove(self.place("kernel/fs/fake.ko"));
        let kernel = self.object(&format!("kernel/fs/fake.ko.{suffix}"));
        let option = match suffix {
            "zst" => "ZSTD",
            "xz" => "XZ",
            _ => "GZIP",
        };
        let config =
            format!("{CONFIG}CONFIG_MODULE_COMPRESS=y\nCONFIG_MODULE_COMPRESS_{option}=y\n");
        if kernel.root.exists(kernel.place("build")) {
            kernel.file("build/.config", &config).file("build/include/config/auto.conf", &config)
        } else {
            kernel
        }
    }

    /// Writes a file below the kernel's directory.
    pub fn file(self, path: &str, text: &str) -> Self {
        self.root.write(self.place(path), text);
        self
    }

    /// Adds an object that is built for this kernel, such as `kernel/drivers/foo.ko`.
    pub fn object(self, path: &str) -> Self {
        let name = path.rsplit('/').next().and_then(|file| file.split('.').next()).unwrap_or(path);
        self.root.write(self.place(path), kernel_object(&self.release, name, &[]));
        self
    }

    /// Removes the headers, as removing the package `linux-headers` does.
    pub fn without_headers(self) -> Self {
        self.root.remove(self.place("build"));
        self
    }

    fn place(&self, path: &str) -> String {
        format!("usr/lib/modules/{}/{path}", self.release)
    }
}

const CONFIG: &str = "CONFIG_MODULES=y\nCONFIG_SMP=y\nCONFIG_NET=y\nCONFIG_FAKE=m\n";

const MAKEFILE: &str = r#"# Imitates kbuild without a compiler. Reads the Makefile of the module.
export KERNELRELEASE := @RELEASE@
include $(M)/Makefile
.DEFAULT_GOAL := modules
.PHONY: modules clean
modules: $(patsubst %.o,$(M)/%.ko,$(obj-m))
	@cat /dev/null $(patsubst %.o,$(M)/%.symvers,$(obj-m)) > $(M)/Module.symvers
clean:
	rm -f $(M)/*.ko $(M)/*.symvers
$(M)/%.ko: $(M)/%.c
	@echo '  CC [M]  $*.o'
	@sh $(CURDIR)/scripts/compile '$<' '$@'
"#;

const COMPILER: &str = r#"#!/bin/sh
# compile SOURCE OBJECT: fails at an #error line, or else fills in a copy of the template object.
set -e
error=$(grep -n '^#error' "$1" | head -n 1) || :
if [ -n "$error" ]; then
    echo "$1:${error%%:*}:2: error: ${error#*:}" >&2
    exit 1
fi
name=$(basename "$2" .ko)
version=$(sed -n 's/^MODULE_VERSION("\(.*\)");$/\1/p' "$1")
digest=$(cksum < "$1" | cut -d ' ' -f 1)
cp "$(dirname "$0")/object" "$2"
printf 'vermagic=@RELEASE@ SMP preempt mod_unload \0name=%s\0version=%s\0srcversion=%s\0depends=\0license=GPL\0' \
    "$name" "$version" "$digest" | dd of="$2" bs=1024 seek=1 conv=notrunc status=none
printf '0x%08x\t%s_symbol\t%s\tEXPORT_SYMBOL\t\n' "$digest" "$name" "${2%.ko}" > "${2%.ko}.symvers"
"#;
