//! A student judged beside its teacher, and the gate that its report must pass, through the program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn aludel(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_aludel")).args(arguments).output().expect("the program starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A teacher and a student of digits, and the data.
struct Digits(tempfile::TempDir);

impl Digits {
    fn new() -> Digits {
        let digits = Digits(tempfile::tempdir().expect("a folder"));
        let data = "kind = 'digits'\nshape = [64]\nnormalize = 'unit'\nsplit = { validation = 0.1, test = 0.4 }\n";
        fs::write(digits.path("data.toml"), data).expect("the folder is ours");
        for (name, hidden, epochs) in [("teacher", 128, 8), ("student", 24, 8), ("poor", 2, 1)] {
            let recipe = digits.path("recipe.toml");
            let text = format!(
                "name = '{name}'\nseed = 7\n[data]\n{data}[model]\narch = {{ mlp = {{ hidden = [{hidden}] }} }}\n[train]\nepochs = {epochs}\nlr = 1e-2\n"
            );
            fs::write(&recipe, text).expect("the folder is ours");
            let file = digits.text(&format!("{name}.onnx"));
            let made = aludel(&["train", &recipe.to_string_lossy(), "-o", &file, "--runtime", "tract"]);
            assert!(made.status.success(), "{}", said(&made));
        }
        digits
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    fn compare(&self, student: &str, report: &str, more: &[&str]) -> Output {
        let files = ["teacher.onnx", student, "data.toml", report].map(|name| self.text(name));
        let [teacher, student, data, report] = &files;
        let arguments =
            ["compare", teacher, student, "--data", data, "--report", report, "--runtime", "tract", "--seconds", "0.5"];
        aludel(&[&arguments[..], more].concat())
    }

    fn gate(&self, report: &str, more: &[&str]) -> Output {
        aludel(&[&["gate", &self.text(report)][..], more].concat())
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("it was written")).expect("JSON")
}

#[test]
fn a_student_is_judged_and_gated() {
    let digits = Digits::new();
    let markdown = digits.text("summary.md");
    let good = digits.compare("student.onnx", "good.json", &["--margin", "0.1", "--markdown", &markdown]);
    assert_eq!(good.status.code(), Some(0), "{}", said(&good));
    assert!(said(&good).contains("the student passes: at most 0.1 below its teacher"), "{}", said(&good));
    let report = json(&digits.path("good.json"));
    let metrics: Vec<&str> =
        report["runs"][0]["metrics"].as_array().expect("a list").iter().filter_map(|it| it["name"].as_str()).collect();
    assert_eq!(metrics, ["accuracy", "top-5 accuracy", "macro F1", "log loss", "expected calibration error"]);
    assert_eq!(report["runs"][0]["confusion"]["student"]["rows"].as_array().map(Vec::len), Some(10));
    assert!(fs::read_to_string(&markdown).expect("it was written").starts_with("**The student passes**"));

    let [student, data] = ["student.onnx", "data.toml"].map(|name| digits.text(name));
    let evaluated = aludel(&["evaluate", &student, "--data", &data, "--runtime", "tract", "--json"]);
    let worth: Value = serde_json::from_slice(&evaluated.stdout).expect("JSON");
    assert_eq!(worth["runs"][0]["metrics"][0][1], report["runs"][0]["metrics"][0]["student"]);
    assert_eq!(worth["runs"][0]["classes"].as_array().map(Vec::len), Some(10));
    let table = aludel(&["evaluate", &student, "--data", &data, "--runtime", "tract"]);
    assert!(said(&table).contains("precision") && said(&table).contains("test samples"), "{}", said(&table));

    // A poor student fails, and one that may be a little worse is undecided.
    let poor = digits.compare("poor.onnx", "poor.json", &["--margin", "0.1"]);
    assert_eq!(poor.status.code(), Some(1), "{}", said(&poor));
    assert!(said(&poor).contains("the student fails"), "{}", said(&poor));
    let unsure = digits.compare("student.onnx", "unsure.json", &["--margin", "0.00001"]);
    assert_eq!(unsure.status.code(), Some(1), "{}", said(&unsure));
    let unsure = digits.compare("teacher.onnx", "unsure.json", &["--margin", "0.00001", "--undecided", "pass"]);
    assert_eq!(unsure.status.code(), Some(0), "{}", said(&unsure));
    assert!(said(&unsure).contains("not decidable with"), "{}", said(&unsure));

    let budget = digits.text("budget.toml");
    fs::write(&budget, "accuracy_drop = 0.1\nsize_kib = 20\n[host]\nlatency_p95_ms = 1000\n")
        .expect("the folder is ours");
    let kept = digits.gate("good.json", &["--budget", &budget]);
    assert_eq!(kept.status.code(), Some(0), "{}", said(&kept));
    fs::write(&budget, "size_kib = 1\n").expect("the folder is ours");
    let junit = digits.text("gate.xml");
    let broken = digits.gate("good.json", &["--budget", &budget, "--junit", &junit, "--github"]);
    assert_eq!(broken.status.code(), Some(1), "{}", said(&broken));
    assert!(said(&broken).contains("::error title=aludel gate: size_kib::"), "{}", said(&broken));
    assert!(fs::read_to_string(&junit).expect("it was written").contains("failures=\"1\""));

    // The first release becomes the baseline; a worse one does not pass it, and does not take its place.
    let baseline = digits.text("baseline.json");
    let first = digits.gate("good.json", &["--baseline", &baseline, "--update"]);
    assert_eq!(first.status.code(), Some(0), "{}", said(&first));
    let same = digits.gate("good.json", &["--baseline", &baseline]);
    assert_eq!(same.status.code(), Some(0), "{}", said(&same));
    let worse = digits.gate("poor.json", &["--baseline", &baseline, "--update"]);
    assert_eq!(worse.status.code(), Some(1), "{}", said(&worse));
    assert_eq!(json(Path::new(&baseline)), report);
}

#[test]
fn what_cannot_be_judged_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    fs::write(path("no.json"), "{}").expect("the folder is ours");
    fs::write(path("budget.toml"), "accuracy_drop = 0.1").expect("the folder is ours");
    for (arguments, expected) in [
        (vec!["gate".into(), path("no.json"), "--budget".into(), path("budget.toml")], "is no report"),
        (vec!["gate".into(), path("no.json")], "--budget <FILE.toml>"),
        (vec!["compare".into(), "a.onnx".into(), "--data".into(), "d.toml".into()], "required arguments"),
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let refused = aludel(&arguments);
        assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
        assert!(said(&refused).contains(expected), "{arguments:?}: {}", said(&refused));
    }
}
