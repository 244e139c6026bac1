//! Tests of finishing objects with working and broken tools.

use super::*;
use rstest::rstest;

struct Bench {
    dir: tempfile::TempDir,
    tools: Tools,
    env: Environment,
    options: CompressionOptions,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("staging")).unwrap();
        fs::write(dir.path().join("built.ko"), "an object ".repeat(1000)).unwrap();
        Self {
            dir,
            tools: Tools::default(),
            env: Environment::fixed(),
            options: CompressionOptions::default(),
        }
    }

    /// Writes a shell script to use as a tool, and returns its path.
    fn tool(&self, script: &str) -> PathBuf {
        let path = self.dir.path().join("tool");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn staging(&self) -> PathBuf {
        self.dir.path().join("staging")
    }

    fn staged(&self) -> Vec<String> {
        let entries = fs::read_dir(self.staging()).unwrap();
        entries.map(|entry| file_name(&entry.unwrap().path())).collect()
    }

    fn bench(&self) -> Workbench<'_> {
        Workbench { tools: &self.tools, env: &self.env, options: &self.options, signer: None }
    }

    fn finish(&self, strip: Strip, to: Compression) -> Result<FinishedObject, FinishError> {
        let built = self.dir.path().join("built.ko");
        self.bench().finish(&built, &self.staging(), "a-b", strip, to)
    }
}

#[rstest]
fn converts_between_compressions(
    #[values(Compression::None, Compression::Gzip, Compression::Xz, Compression::Zstd)]
    one: Compression,
    #[values(Compression::None, Compression::Zstd)] other: Compression,
) {
    let bench = Bench::new();
    let finished = bench.finish(Strip::No, one).unwrap();
    assert_eq!((finished.name.compression, finished.notes.as_slice()), (one, &[][..]));
    assert_eq!(bench.staged(), [finished.name.to_string()]);
    assert_eq!(fs::metadata(&finished.path).unwrap().permissions().mode() & 0o777, 0o644);

    let again = bench.dir.path().join("again");
    fs::create_dir(&again).unwrap();
    let refinished = bench.bench().refinish(&finished.path, &again, other).unwrap();
    assert_eq!(refinished.name.compression, other);
    assert_eq!(fs::read_dir(&again).unwrap().count(), 1);
    let plain = bench.dir.path().join("plain");
    fs::create_dir(&plain).unwrap();
    let plain = bench.bench().refinish(&refinished.path, &plain, Compression::None).unwrap();
    let built = fs::read(bench.dir.path().join("built.ko")).unwrap();
    assert_eq!(fs::read(plain.path).unwrap(), built);
}

#[rstest]
#[case::gnu(Strip::Gnu)]
#[case::llvm(Strip::Llvm)]
fn strips_with_the_requested_tool(#[case] strip: Strip) {
    let mut bench = Bench::new();
    let tool = bench.tool(r#"[ "$1 $2" = "-g -o" ] && head -c 5 "$4" >"$3""#);
    match strip {
        Strip::Llvm => bench.tools.llvm_strip = tool,
        _ => bench.tools.strip = tool,
    }
    let finished = bench.finish(strip, Compression::None).unwrap();
    assert_eq!(fs::read(finished.path).unwrap(), b"an ob");
}

#[rstest]
#[case::fails("echo no such section >&2; exit 1", "no such section")]
#[case::partial("echo x >\"$3\"; kill -9 $$; exit 1", "killed by signal 9")]
#[case::empty(": >\"$3\"", "empty file")]
fn stores_objects_that_cannot_be_stripped(#[case] script: &str, #[case] said: &str) {
    let mut bench = Bench::new();
    bench.tools.strip = bench.tool(script);
    let finished = bench.finish(Strip::Gnu, Compression::None).unwrap();
    assert_eq!(fs::read(&finished.path).unwrap().len(), 10_000);
    assert!(finished.notes[0].starts_with("a-b.ko: not stripped: "), "{finished:?}");
    // In a pid namespace, the shell is process 1: it cannot kill itself, and exits with status 1.
    assert!(finished.notes[0].contains(said) || said.contains("signal"), "{finished:?}");
}

#[rstest]
#[case::fails("echo full >&2; echo x >\"$5.zst\"; exit 1", "full")]
#[case::no_file("exit 0", "No such file")]
#[case::link("ln -s \"$5\" \"$5.zst\"", "not a regular file")]
#[case::garbage("echo garbage >\"$5.zst\"", "size")]
fn stores_objects_that_cannot_be_compressed(#[case] script: &str, #[case] said: &str) {
    let mut bench = Bench::new();
    bench.tools.zstd = bench.tool(script);
    let finished = bench.finish(Strip::No, Compression::Zstd).unwrap();
    assert_eq!(finished.name.to_string(), "a-b.ko");
    assert!(finished.notes[0].contains(said), "{finished:?}");
}

#[test]
fn reports_a_missing_compressor() {
    let mut bench = Bench::new();
    bench.tools.xz = "/no/such/xz".into();
    let finished = bench.finish(Strip::No, Compression::Xz).unwrap();
    let note = &finished.notes[0];
    assert!(note.starts_with("a-b.ko.xz: stored uncompressed: cannot run "), "{note}");
}

#[test]
fn requires_the_content_size_in_zstd_frames() {
    let mut bench = Bench::new();
    bench.options.zstd = ["-q", "--no-content-size"].map(str::to_owned).into();
    let finished = bench.finish(Strip::No, Compression::Zstd).unwrap();
    assert_eq!(bench.staged(), ["a-b.ko"]);
    assert!(finished.notes[0].contains("kmod"), "{finished:?}");
}

#[test]
fn refuses_files_that_are_not_objects() {
    let bench = Bench::new();
    let refused = |path: &Path| {
        bench.bench().finish(path, &bench.staging(), "a", Strip::No, Compression::None)
    };
    let link = bench.dir.path().join("link.ko");
    std::os::unix::fs::symlink("built.ko", &link).unwrap();
    assert!(refused(&link).unwrap_err().to_string().ends_with(": not a regular file"));
    assert!(refused(&bench.dir.path().join("none.ko")).is_err());
    let stored = bench.dir.path().join("x.ko.zst");
    fs::write(&stored, "garbage").unwrap();
    let error = bench.bench().refinish(&stored, &bench.staging(), Compression::Xz).unwrap_err();
    assert!(error.to_string().starts_with("cannot unpack "), "{error}");
    assert_eq!(bench.staged(), [""; 0]);
}
