//! Fake module sources in `/usr/src`.

use crate::TestRoot;

/// The source of a module in a [`TestRoot`]. Every method takes effect immediately and returns the
/// source.
#[derive(Debug)]
pub struct FakeSource<'a> {
    root: &'a TestRoot,
    name: String,
    version: String,
}

impl<'a> FakeSource<'a> {
    pub(crate) fn add(root: &'a TestRoot, name: &str, version: &str) -> Self {
        Self { root, name: name.to_owned(), version: version.to_owned() }.objects(&[name])
    }

    /// Replaces the objects. Writes a `.c` file for each object, and a Makefile and a `dkms.conf`
    /// that name all objects.
    pub fn objects(self, objects: &[&str]) -> Self {
        let (name, version) = (self.name.clone(), self.version.clone());
        let mut conf = format!(
            "PACKAGE_NAME=\"{name}\"\nPACKAGE_VERSION=\"{version}\"\nAUTOINSTALL=\"yes\"\n"
        );
        let mut makefile = "obj-m :=".to_owned();
        for (index, object) in objects.iter().enumerate() {
            conf += &format!("BUILT_MODULE_NAME[{index}]=\"{object}\"\n");
            conf += &format!("DEST_MODULE_LOCATION[{index}]=\"/kernel/drivers/misc\"\n");
            makefile += &format!(" {object}.o");
            let code = format!("/* {name} {version} */\nMODULE_VERSION(\"{version}\");\n");
            self.root.write(self.place(&format!("{object}.c")), code);
        }
        self.conf(&conf).file("Makefile", &(makefile + "\n"))
    }

    /// Replaces `dkms.conf`.
    pub fn conf(self, text: &str) -> Self {
        self.file("dkms.conf", text)
    }

    /// Adds lines to `dkms.conf`, such as `BUILD_DEPENDS="bar"`.
    pub fn conf_line(self, line: &str) -> Self {
        let conf = self.root.read(self.place("dkms.conf"));
        self.conf(&format!("{conf}{line}\n"))
    }

    /// Writes a file of the source.
    pub fn file(self, path: &str, text: &str) -> Self {
        self.root.write(self.place(path), text);
        self
    }

    /// Adds an `#error` to the source file of the object that is named after the module.
    pub fn broken(self) -> Self {
        let file = format!("{}.c", self.name);
        self.file(&file, "/* too new */\n#error \"this kernel is too new\"\n")
    }

    fn place(&self, path: &str) -> String {
        format!("usr/src/{}-{}/{path}", self.name, self.version)
    }
}
