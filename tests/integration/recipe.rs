//! `aludel run`: what it writes, that nothing is done twice, and that a run which was killed ends in the same bytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

const RECIPE: &str = r#"
name = "digits"
seed = 7
[data]
kind = "digits"
shape = [1, 8, 8]
normalize = "unit"
split = { validation = 0.1, test = 0.2 }
augment = [{ shift = { pixels = 1 } }]
[teacher]
arch = { resnet = { blocks = [1, 1], width = 8 } }
train = { epochs = 6, lr = 5e-3 }
[student]
name = "small"
from = "teacher"
width = 0.5
[[step]]
[step.distill]
loss = ["kd", { hint = {}, weight = 0.1 }]
views = 2
epochs = 10
lr = 1e-2
[[step]]
train = { epochs = 1, lr = 1e-4 }
"#;

fn recipe(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("recipe.toml");
    fs::write(&path, text).expect("the folder is ours");
    path
}

fn command(recipe: &Path, output: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aludel"));
    command.arg("run").arg(recipe).arg("-o").arg(output).args(["--runtime", "tract", "--latency-budget", "0.1"]);
    command.args(more).stdin(Stdio::null());
    command
}

/// The report and what was said on the way.
fn run(recipe: &Path, output: &Path, more: &[&str]) -> (Value, String) {
    let made = command(recipe, output, more).arg("--json").output().expect("the program starts");
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(made.status.success(), "{said}");
    (serde_json::from_slice(&made.stdout).expect("JSON"), said)
}

fn refused(text: &str, more: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let recipe = recipe(folder.path(), text);
    let made = command(&recipe, &folder.path().join("out"), more).output().expect("the program starts");
    assert_eq!(made.status.code(), Some(2));
    String::from_utf8_lossy(&made.stderr).into_owned()
}

/// Every network's bytes by its file.
fn networks(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("readable").path());
    let networks = entries.filter(|path| path.extension().is_some_and(|extension| extension == "onnx"));
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    networks.map(|path| (name(&path), fs::read(&path).expect("readable"))).collect()
}

/// The ledger without what was measured by the clock.
fn ledger(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("ledger.jsonl")).expect("a ledger");
    let lines = text.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).expect("JSON");
        let keys = line.as_object_mut().expect("an object");
        keys.remove("seconds");
        keys.remove("speed");
        line
    });
    lines.collect()
}

#[test]
fn a_student_is_made_and_learns_and_nothing_is_done_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let (recipe, output) = (recipe(folder.path(), RECIPE), folder.path().join("out"));
    let (report, said) = run(&recipe, &output, &[]);
    let steps = report["steps"].as_array().expect("a list");
    let names: Vec<&str> = steps.iter().map(|step| step["step"].as_str().expect("a name")).collect();
    assert_eq!(names, ["teacher", "small", "small.1-distill", "small.2-train"]);
    assert!(!said.contains("as before"));
    let number = |step: usize, key: &str| steps[step][key].as_f64().expect("a number");
    assert!(number(1, "parameters") < 0.4 * number(0, "parameters"));
    assert!(number(1, "macs") < 0.4 * number(0, "macs") && number(1, "bytes") < number(0, "bytes"));
    let accuracy = |step: usize| steps[step]["test"][0]["accuracy"].as_f64().expect("a number");
    assert!(accuracy(2) > 0.7 && accuracy(2) > accuracy(1) + 0.2, "{} {}", accuracy(1), accuracy(2));
    assert!(number(2, "agreement") > 0.7);
    assert!(
        steps[2]["decisions"].as_object().is_some_and(|decisions| decisions.values().all(|value| value == "tract"))
    );
    let before = (networks(&output), ledger(&output));
    let (_, said) = run(&recipe, &output, &[]);
    assert_eq!(said.matches("as before").count(), 4, "{said}");
    assert_eq!((networks(&output), ledger(&output)), before);
    // what comes before a change stays
    let (_, said) = run(&recipe, &output, &["--set", "step.train.epochs=2"]);
    assert_eq!(said.matches("as before").count(), 3, "{said}");
    // one step alone; what is not in the recipe is not in the ledger
    let (report, _) =
        run(&recipe, &folder.path().join("one"), &["--only", "teacher", "--set", "teacher.train.epochs=1"]);
    assert_eq!(report["steps"].as_array().map(Vec::len), Some(1));
    // another folder, the same bytes
    let other = folder.path().join("other");
    let ledger_file = output.join("ledger.jsonl");
    run(&recipe, &other, &["--set", "step.train.epochs=2", "--replay", ledger_file.to_str().expect("UTF-8")]);
    assert_eq!(networks(&other), networks(&output));
}

#[test]
fn a_run_that_was_killed_ends_in_the_same_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let recipe = recipe(folder.path(), RECIPE);
    let [whole, broken] = ["whole", "broken"].map(|name| folder.path().join(name));
    run(&recipe, &whole, &[]);
    let mut n_killed = 0;
    for number in 0..8u64 {
        let mut child = command(&recipe, &broken, &["--resume"])
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("starts");
        std::thread::sleep(Duration::from_millis(60 + 97 * number % 400));
        if child.try_wait().expect("it is ours").is_none() {
            child.kill().expect("it runs");
            n_killed += 1;
        }
        child.wait().expect("it has ended");
    }
    assert!(n_killed > 0, "it was too quick to be killed");
    run(&recipe, &broken, &["--resume"]);
    assert_eq!(networks(&broken), networks(&whole));
    assert_eq!(ledger(&broken), ledger(&whole));
}

#[test]
fn an_assistant_teaches_a_smaller_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let (head, tail) = RECIPE.split_once("[student]").expect("it has a student");
    let (_, steps) = tail.split_once("[[step]]").expect("it has steps");
    let students = "[[student]]\nname = 'assistant'\nwidth = 0.75\n\
                    [[student]]\nname = 'small'\nfrom = 'assistant'\nwidth = 0.5\nteacher = 'assistant'\n";
    let recipe = recipe(folder.path(), &format!("{head}{students}[[step]]{steps}"));
    let (report, _) = run(&recipe, &folder.path().join("out"), &["--set", "step.distill.epochs=2"]);
    let steps = report["steps"].as_array().expect("a list");
    let number = |step: usize, key: &str| steps[step][key].as_u64().expect("a number");
    assert_eq!(steps[4]["step"], "small");
    assert!(number(4, "parameters") < number(1, "parameters") && number(1, "parameters") < number(0, "parameters"));
    // each learned from its own teacher, whose values are kept apart
    assert_eq!(fs::read_dir(folder.path().join("out/cache")).expect("it is there").count(), 2);
}

#[test]
fn what_is_wrong_with_a_recipe_is_named() {
    let check = |from: &str, to: &str, more: &[&str], expected: &str| {
        assert!(RECIPE.contains(from), "{from}");
        let said = refused(&RECIPE.replace(from, to), more);
        assert!(said.contains(expected), "{expected}: {said}");
    };
    check("[student]", "[studnet]", &[], "did you mean `student`");
    check("\"kd\"", "\"kdd\"", &[], "kdd");
    check("width = 0.5", "width = 1.5", &[], "1.5");
    check("hint = {}", "hint = { pairs = [[\"nowhere\", \"teacher\"]] }", &[], "nowhere");
    check("views = 2", "views = 2", &["--only", "small.1-distill"], "has to be done first");
    check("views = 2", "views = 2", &["--only", "small.1-distil"], "is no step of the recipe");
    check("epochs = 6", "epochs = 0", &[], "epochs");
    check("seed = 7", "seed = 7", &["--set", "name.first=1"], "name");
}
