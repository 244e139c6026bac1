//! Repositories from which pacman installs packages.

use crate::packages::PackageFile;
use crate::root::Root;

impl Root {
    /// Makes a repository that contains these packages, and configures pacman to use it.
    #[track_caller]
    pub fn make_repository(&self, packages: &[PackageFile]) {
        let conf = self.read("etc/pacman.conf");
        self.write("etc/pacman.conf", &(conf + "\n[testbed]\nServer = file:///srv/repository\n"));
        self.publish(packages);
    }

    /// Adds packages to the repository of [`make_repository`](Self::make_repository).
    #[track_caller]
    pub fn publish(&self, packages: &[PackageFile]) {
        self.shell("mkdir -p /srv/repository").ok();
        for package in packages {
            let file = format!("{}-{}-any.pkg.tar.zst", package.name, package.version);
            let copied = format!("cp {} /srv/repository/{file}", package.file);
            let add = format!("cd /srv/repository && repo-add -q testbed.db.tar.gz {file}");
            self.shell(&format!("{copied} && {add}")).ok();
        }
    }
}
