//! What the program makes when all is well: files, reports and names.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/networks");

fn run(program: &str, folder: &Path, line: &str) -> Output {
    let line = line.replace("SHARDED", &format!("{FIXTURES}/cnn_sharded/model.ckpt"));
    Command::new(program).args(line.split(' ')).current_dir(folder).output().unwrap()
}

#[track_caller]
fn modelport(folder: &Path, line: &str) -> String {
    said(run(env!("CARGO_BIN_EXE_modelport"), folder, line))
}

#[track_caller]
fn said(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn one_step_is_three_steps() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    modelport(at, "convert -sf tensorflow -in SHARDED.meta -iw SHARDED --dstNode output -om one.npy");
    modelport(at, "to-ir -f tf -n SHARDED.meta -w SHARDED --dstNode output -o ir");
    assert_eq!(names(at), ["ir.json", "ir.npy", "ir.pb", "one.npy", "one.py"]);
    for graph in ["ir.pb", "ir.json"] {
        modelport(at, &format!("to-code -f pytorch -n {graph} -w ir.npy -o three.py -ow three.npy"));
        assert_eq!(fs::read(at.join("one.npy")).unwrap(), fs::read(at.join("three.npy")).unwrap());
        let text = |name: &str| fs::read_to_string(at.join(name)).unwrap();
        assert_eq!(text("one.py"), text("three.py").replace("three.npy", "one.npy"));
    }
    modelport(at, "to-model -in three.py -iw three.npy -o three.pth");
    modelport(at, "to-model -in three.py -iw three.pth -o three.safetensors");
    modelport(at, "to-model -in three.py -iw three.safetensors -o back.pth");
    let shown = |name: &str| modelport(at, &format!("inspect {name}")).lines().skip(1).map(str::to_owned).collect();
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    assert_eq!(sorted(shown("three.pth")), sorted(shown("back.pth")));
}

#[test]
fn reports_for_programs() {
    let folder = tempfile::tempdir().unwrap();
    let line = "convert -in SHARDED.meta -iw SHARDED --dstNode output -om net --json --name-map names.json";
    let report: Value = serde_json::from_str(&modelport(folder.path(), line)).unwrap();
    assert_eq!(report["command"], "convert");
    assert_eq!(report["inputs"][0]["name"], "input");
    assert_eq!(report["inputs"][0]["shape"], serde_json::json!(["N", 3, 23, 30]));
    assert_eq!(report["inputs"][0]["layout"], "NCHW");
    assert_eq!(report["inputs"][0]["source_permutation"], serde_json::json!([0, 3, 1, 2]));
    assert_eq!(report["outputs"][0]["name"], "output");
    let files: Vec<&str> = report["files"].as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap()).collect();
    assert_eq!(files, ["net.py", "net.pth", "names.json"]);
    let code = fs::read_to_string(folder.path().join("net.py")).unwrap();
    assert_eq!(report["code_lines"], code.lines().count());
    assert_eq!(report["files"][0]["bytes"], code.len());
    assert!(report["parameters"].as_u64() > Some(1000) && report["seconds"].is_number());
    let names: Value = serde_json::from_str(&fs::read_to_string(folder.path().join("names.json")).unwrap()).unwrap();
    assert!(names.as_object().unwrap().values().any(|name| name == "stem/conv/kernel"), "{names}");
}

#[test]
fn reports_for_people() {
    let folder = tempfile::tempdir().unwrap();
    let line = "convert -in SHARDED.meta -iw SHARDED --dstNode output -om net.pth";
    let report = modelport(folder.path(), line);
    for word in ["model.ckpt.meta", "float32 [N, 3, 23, 30], NCHW", "net.pth", "parameters", "from net import load"] {
        assert!(report.contains(word), "{word} is not in\n{report}");
    }
    assert_eq!(modelport(folder.path(), &format!("{line} -q")), "");
    assert!(!report.contains('\x1b'), "colours are for terminals");
}

#[test]
fn mmdnn_names() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    said(run(env!("CARGO_BIN_EXE_mmtoir"), at, "-f tensorflow -n SHARDED.meta -w SHARDED --dstNode output -d ir"));
    let code = "-f pytorch --IRModelPath ir.pb --IRWeightPath ir.npy --dstModelPath net.py -dw net.npy";
    said(run(env!("CARGO_BIN_EXE_mmtocode"), at, code));
    said(run(env!("CARGO_BIN_EXE_mmtomodel"), at, "-f pytorch -in net.py -iw net.npy -o net.pth"));
    said(run(env!("CARGO_BIN_EXE_mmconvert"), at, "-sf tf -in SHARDED.meta -iw SHARDED -node output -om b.pth"));
    for name in ["net.py", "b.py"] {
        assert!(fs::read_to_string(at.join(name)).unwrap().contains("KitModel"), "{name}");
    }
    modelport(at, "convert -in SHARDED.meta -iw SHARDED -node output -om c.pth");
    assert!(!fs::read_to_string(at.join("c.py")).unwrap().contains("KitModel"));
}

#[cfg(unix)]
#[test]
fn the_name_that_it_is_called_under() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("mmtoir");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_modelport"), &link).unwrap();
    assert!(said(run(link.to_str().unwrap(), folder.path(), "--help")).contains("Usage: mmtoir"));
}

#[test]
fn whole_modules() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    modelport(at, "convert -in SHARDED.meta -iw SHARDED -node output -om whole.pth --whole-module");
    assert!(fs::read_to_string(at.join("whole.py")).unwrap().contains("\ndef _restore("));
    modelport(at, "to-model -in whole.py -iw whole.pth -o plain.npy");
    modelport(at, "to-model -in whole.py -iw plain.npy -o again.pth --whole-module");
    let pickle = fs::read(at.join("again.pth")).unwrap();
    assert!(pickle.windows(16).any(|window| window == b"cwhole\n_restore\n"));
}

/// A graph tells what it is without its weights, and when it is not clear where it ends.
#[test]
fn inspected_graphs() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(format!("{FIXTURES}/squeezenet/model.ckpt.meta"), folder.path().join("net.meta")).unwrap();
    let shown = modelport(folder.path(), "inspect net.meta");
    let row = ["features/3/squeeze/Conv2D", "Conv2D", "[N, 21, 21, 4]", "64"];
    let has_row = |line: &str| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).eq(row);
    assert!(shown.lines().any(has_row), "{shown}");
    assert!(shown.contains("input      images  float32  [N, 90, 90, 3]"), "{shown}");
    assert!(shown.contains("output     logits [Identity]  [N, 17]"), "{shown}");
    assert!(shown.contains("90 operators, 48,225 parameters"), "{shown}");

    let shown = modelport(folder.path(), &format!("inspect {FIXTURES}/unet/model.ckpt.meta --json"));
    let report: Value = serde_json::from_str(&shown).unwrap();
    let ports = report["ports"].as_array().unwrap().iter();
    let candidates: Vec<&str> =
        ports.filter(|port| port["kind"] == "candidate").map(|port| port["name"].as_str().unwrap()).collect();
    assert_eq!(candidates, ["mask/BiasAdd", "coarse_map"]);

    let shown = modelport(folder.path(), &format!("inspect {FIXTURES}/errors/unsupported.pb"));
    assert!(shown.contains("Can't be converted as it is") && shown.contains("MatrixInverse"), "{shown}");
}

#[test]
fn help_and_companions() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for command in ["", "convert ", "to-ir ", "to-code ", "to-model ", "inspect "] {
        let help = modelport(at, &format!("{command}--help"));
        assert!(help.contains("Example") && help.contains("modelport "), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    }
    assert!(modelport(at, "man to-code").contains(".TH"));
    assert!(modelport(at, "completions bash").contains("_modelport"));
    assert!(modelport(at, "ops").contains("`Conv2D`"));
    assert!(modelport(at, "--version").starts_with("modelport "));
}

/// The table in the documentation is what `modelport ops` prints; `UPDATE_SNAPSHOTS=1` writes it.
#[test]
fn the_documentation_has_the_table_of_operators() {
    let folder = tempfile::tempdir().unwrap();
    let table = modelport(folder.path(), "ops");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operators.md");
    let document = fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- ops: generated by `modelport ops`; a test compares -->\n", "<!-- end of ops -->");
    let (before, rest) = document.split_once(begin).unwrap();
    let (inside, after) = rest.split_once(end).unwrap();
    let expected = format!("\n{table}\n");
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(&path, format!("{before}{begin}{expected}{end}{after}")).unwrap();
        return;
    }
    assert_eq!(inside, expected, "UPDATE_SNAPSHOTS=1 writes the table anew");
}
