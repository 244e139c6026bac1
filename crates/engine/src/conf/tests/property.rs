//! Property tests: the engine reads the same values from a conf as bash.

use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;

use crate::conf::context::{ConfContext, reader};
use crate::machine::Trees;
use crate::os::process::{Environment, Program, Tools};

/// The directives in the generated confs, one of each kind.
const SOME: [&str; 4] = ["MAKE", "PATCH", "POST_INSTALL", "BUILD_EXCLUSIVE_CONFIG"];

type Elements = BTreeMap<(usize, usize), String>;

/// Quotes a value for bash, in `$'…'` if `ansi` is true and otherwise in single quotes.
fn word(value: &str, ansi: bool) -> String {
    if ansi {
        let bytes = value.bytes().map(|byte| format!("\\x{byte:02x}")).collect::<Vec<_>>();
        format!("$'{}'", bytes.concat())
    } else {
        format!("'{}'", value.replace('\'', r"'\''"))
    }
}

/// Returns the variables that bash has after reading `conf`: the name, index and value of each
/// element, all terminated by NUL.
fn bash(conf: &std::path::Path) -> Vec<u8> {
    let script = r#"source "$1"; shift
        for name; do
            declare -n value=$name
            for index in "${!value[@]}"; do printf '%s\0' "$name" "$index" "${value[index]}"; done
            unset -n value
        done"#;
    let env = Environment::fixed();
    let ended = Program::new("bash", &env)
        .args(["--norc", "-c", script, "bash"])
        .arg(conf)
        .args(SOME)
        .run()
        .unwrap();
    assert!(ended.success(), "{ended:?}");
    ended.output
}

fn value() -> impl Strategy<Value = String> {
    let nasty = prop::sample::select(vec![
        "\"", "'", "\\", "\n", "\n\n", "\t", " ", "  ", "*", "?", "[a-z]", "$", "$(", "`", "${",
        "}", "$HOME", "!", "#", "~", ";", "&", "|", "<", ">", "(", ")", "=", "é", "日本",
        "\u{200b}", "😀", "\u{7f}", "\u{1}", "%s", "\\n", "--", "-n", "0",
    ]);
    let piece = prop_oneof![nasty.prop_map(str::to_owned), "[a-z0-9./_-]{1,6}"];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn engine_reads_the_same_values_as_bash(
        elements in prop::collection::btree_map((0..SOME.len(), 0..40usize), value(), 1..8),
        ansi in any::<bool>(),
    ) {
        let elements: Elements = elements;
        let dir = tempfile::tempdir().unwrap();
        let trees = Trees::under(dir.path());
        let conf_file = dir.path().join("dkms.conf");
        let lines = elements.iter().map(|((name, index), value)| {
            format!("{}[{index}]={}\n", SOME[*name], word(value, ansi))
        });
        fs::write(&conf_file, lines.collect::<String>()).unwrap();

        let (id, kernel) = ("foo/1.0".parse().unwrap(), "7.2.1".parse().unwrap());
        let context = ConfContext {
            id: &id,
            kernel: &kernel,
            arch: &"x86_64".parse().unwrap(),
            kernel_source_dir: "/k".into(),
            kernel_config: "/k/.config".into(),
            conf_file: conf_file.clone(),
            dir: dir.path().into(),
            destination: None,
            trees: &trees,
            parallel_jobs: 1,
        };
        let mut reader = reader(Tools::default(), Environment::fixed(), None);
        let values = context.read(&mut reader).unwrap().values;
        let mut ours = Vec::new();
        for name in SOME {
            for (index, value) in values.elements(name) {
                for field in [name, &index.to_string(), value] {
                    ours.extend(field.as_bytes());
                    ours.push(0);
                }
            }
        }
        prop_assert_eq!(String::from_utf8(ours), String::from_utf8(bash(&conf_file)));
    }
}
