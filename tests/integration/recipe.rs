//! `aludel run`: what it writes, that nothing is done twice, and that a run which was killed ends in the same bytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use aludel::data::{Dataset, Descriptor, Split};
use serde_json::Value;

use crate::support;

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
    refused_in(folder.path(), text, more)
}

fn refused_in(folder: &Path, text: &str, more: &[&str]) -> String {
    let recipe = recipe(folder, text);
    let made = command(&recipe, &folder.join("out"), more).output().expect("the program starts");
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
    for number in 0..20u64 {
        let mut child = command(&recipe, &broken, &["--resume"])
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("starts");
        // scattered over a run that goes on from wherever the last one was stopped
        std::thread::sleep(Duration::from_millis(30 + 97 * number % 400));
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

#[cfg(unix)]
#[test]
fn ctrl_c_stops_while_the_teacher_is_asked_and_what_it_said_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let recipe = recipe(folder.path(), RECIPE);
    let output = folder.path().join("out");
    run(&recipe, &output, &["--only", "teacher"]);
    // so many changes of every picture that there is time
    let child = command(&recipe, &output, &["--set", "step.distill.views=3000"])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("the program starts");
    let cache = output.join("cache");
    let is_asked = || fs::read_dir(&cache).is_ok_and(|mut files| files.next().is_some());
    for _ in 0..400 {
        if is_asked() {
            break;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    let killed = Command::new("kill").arg("-INT").arg(child.id().to_string()).status().expect("there is kill");
    assert!(killed.success());
    let ended = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("stopped in `small.1-distill`"), "{said}");
    assert!(is_asked(), "what was asked is gone");
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

/// A student of a teacher of a few epochs, both of the same plan, with this part of the recipe in place of its steps.
fn with_steps(students: &str, steps: &str) -> String {
    let (head, _) = RECIPE.split_once("[student]").expect("it has a student");
    format!("{head}{students}{steps}")
}

fn accuracy(step: &Value) -> f64 {
    step["test"][0]["accuracy"].as_f64().expect("a number")
}

#[test]
fn several_teachers_are_one_that_is_their_mean() {
    let folder = tempfile::tempdir().expect("a folder");
    let teachers = "[[teacher]]\nname = 'images'\narch = { resnet = { blocks = [1, 1], width = 8 } }\n\
                    train = { epochs = 6, lr = 5e-3 }\n\
                    [[teacher]]\nname = 'flat'\nweight = 2\narch = { mlp = { hidden = [64] } }\ntrain = { epochs = 6, lr = 5e-3 }\n\
                    [student]\nname = 'small'\nfrom = 'teacher.images'\nwidth = 0.5\n\
                    [[step]]\ndistill = { loss = ['kd'], views = 2, epochs = 6, lr = 1e-2 }\n";
    let (head, _) = RECIPE.split_once("[teacher]").expect("it has a teacher");
    let recipe = recipe(folder.path(), &format!("{head}{teachers}"));
    let output = folder.path().join("out");
    let (report, _) = run(&recipe, &output, &[]);
    let steps = report["steps"].as_array().expect("a list");
    let names: Vec<&str> = steps.iter().map(|step| step["step"].as_str().expect("a name")).collect();
    assert_eq!(names, ["teacher.images", "teacher.flat", "teacher", "small", "small.1-distill"]);
    assert!(accuracy(&steps[2]) >= accuracy(&steps[0]).max(accuracy(&steps[1])) - 0.01);
    assert!(accuracy(&steps[4]) > 0.7 && steps[4]["agreement"].as_f64() > Some(0.7));
    // the file says how it came about
    let model = aludel::onnx::read(&output.join("small.1-distill.onnx")).expect("a network");
    let provenance: Value = serde_json::from_str(&model.about.metadata["aludel.provenance"]).expect("JSON");
    assert_eq!((&provenance["step"], &provenance["teacher"]), (&steps[4]["step"], &steps[2]["sha256"]));
    assert_eq!(provenance["made_of"], steps[3]["sha256"]);
    let (_, said) = run(&recipe, &output, &[]);
    assert_eq!(said.matches("as before").count(), 5, "{said}");
    let (report, _) = run(&recipe, &folder.path().join("one"), &["--only", "teacher.flat"]);
    assert_eq!(report["steps"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_teacher_labels_what_nobody_did() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = recipe(folder.path(), RECIPE);
    run(&whole, &folder.path().join("teacher"), &["--only", "teacher"]);
    let few =
        RECIPE.replace("test = 0.2", "test = 0.2, calibration = 0.64").replace("name = \"digits\"", "name = \"few\"");
    let (head, _) = few.split_once("[teacher]").expect("it has a teacher");
    let text = |unlabelled: &str, steps: &str| {
        format!(
            "{head}{unlabelled}[teacher]\nonnx = 'teacher/teacher.onnx'\n[student]\nname = 'small'\nwidth = 0.5\n\
             inherit = false\n[[step]]\ndistill = {{ loss = ['kd'], views = 2, epochs = 20, lr = 1e-2{steps} }}\n"
        )
    };
    let accuracies = [("", ""), ("[unlabelled]\nkind = 'digits'\nshape = [1, 8, 8]\n", ", unlabelled = 4.0")].map(
        |(unlabelled, steps)| {
            let recipe = recipe(folder.path(), &text(unlabelled, steps));
            let (report, _) = run(&recipe, &folder.path().join("out"), &[]);
            accuracy(report["steps"].as_array().and_then(|steps| steps.last()).expect("a step"))
        },
    );
    assert!(accuracies[1] > accuracies[0] + 0.1, "{accuracies:?}");
    assert!(refused(&text("", ", unlabelled = 1.0"), &[]).contains("`unlabelled` is missing"));
    let unread = "[unlabelled]\nkind = 'digits'\n";
    assert!(refused(&text(unread, ""), &[]).contains("is read by no step"));
    let huge = refused(&text(unread, ", unlabelled = 1e300"), &[]);
    assert!(huge.contains("from 0 to 1000"), "{huge}");
    let other_loss = refused(&text(unread, ", unlabelled = 1.0, label_loss = 'mse'"), &[]);
    assert!(other_loss.contains("`cross-entropy` of the labels alone"), "{other_loss}");
}

#[test]
fn a_specialist_is_for_some_classes() {
    let folder = tempfile::tempdir().expect("a folder");
    let student = "[student]\nname = 'low'\nwidth = 0.5\nclasses = ['3', '1', '0']\n";
    let steps = "[[step]]\ndistill = { loss = ['kd'], views = 2, epochs = 8, lr = 1e-2 }\n";
    let text = with_steps(student, steps);
    let recipe = recipe(folder.path(), &text);
    let output = folder.path().join("out");
    let (report, _) = run(&recipe, &output, &[]);
    let last = report["steps"].as_array().and_then(|steps| steps.last()).expect("a step");
    assert!(accuracy(last) > 0.9, "{}", accuracy(last));
    assert!(last["test"][0]["n_samples"].as_u64() < Some(120));
    let (_, said) = run(&recipe, &output, &[]);
    assert_eq!(said.matches("as before").count(), 3, "{said}");
    assert!(refused(&text.replace("'3'", "'ten'"), &[]).contains("`student.classes` has `ten`"));
    let pupil = "[[student]]\nname = 'pupil'\nteacher = 'low'\nwidth = 0.5\n[[step]]";
    let text_of_two = text.replace("[student]", "[[student]]").replace("[[step]]", pupil);
    assert!(refused(&text_of_two, &[]).contains("knows some classes"));
    assert!(refused(&text.replace("'3', '1', '0'", "'3'"), &[]).contains("two classes or more"));
}

#[test]
fn a_student_withstands_an_attack_that_it_learned_from() {
    let folder = tempfile::tempdir().expect("a folder");
    let student = "[student]\nname = 'small'\nwidth = 0.5\n";
    let steps = |attack| format!("[[step]]\ndistill = {{ loss = ['kd'], views = 2, epochs = 8, lr = 1e-2{attack} }}\n");
    let attack = steps(", attack = { epsilon = 0.15, steps = 3 }");
    let recipe = recipe(folder.path(), &with_steps(student, &format!("{}{attack}", steps(""))));
    let (report, _) = run(&recipe, &folder.path().join("out"), &["--set", "data.augment=[]"]);
    let lines = report["steps"].as_array().expect("a list");
    let attacked = |idx: usize| lines[idx]["attacked"].as_f64().expect("a number");
    assert!(attacked(2) < accuracy(&lines[2]) - 0.2, "{} {}", attacked(2), accuracy(&lines[2]));
    assert!(attacked(3) > attacked(2) + 0.1, "{} {}", attacked(2), attacked(3));
    // another attack: nothing learns anew before it, and everything is attacked anew
    let (report, said) = run(
        &recipe,
        &folder.path().join("out"),
        &["--set", "data.augment=[]", "--set", "step.distill.attack={ epsilon = 0.01, steps = 1 }"],
    );
    assert!(said.matches("as before").count() == 2, "{said}");
    assert!(report["steps"][0]["attacked"].as_f64() > Some(attacked(0) + 0.1));
    let refused = refused(&with_steps(student, &steps(", attack = { epsilon = 0.0 }")), &[]);
    assert!(refused.contains("attack.epsilon"), "{refused}");
}

#[test]
fn inner_values_teach_first_and_then_its_own_average() {
    let folder = tempfile::tempdir().expect("a folder");
    let student = "[student]\nname = 'small'\nwidth = 0.5\ninherit = false\n";
    let first = "[[step]]\ndistill = { loss = ['hint'], alpha = 1.0, epochs = 4, lr = 1e-2 }\n";
    let second = "[[step]]\ndistill = { loss = ['kd'], epochs = 6, lr = 1e-2, ema = 0.95, mean_teacher = true }\n";
    let recipe = recipe(folder.path(), &with_steps(student, &format!("{first}{second}")));
    let (report, said) = run(&recipe, &folder.path().join("out"), &[]);
    let lines = report["steps"].as_array().expect("a list");
    assert!(accuracy(&lines[2]) < 0.3, "nobody taught it what to say: {}", accuracy(&lines[2]));
    assert!(accuracy(&lines[3]) > 0.6, "{}", accuracy(&lines[3]));
    assert!(said.contains("not validated"), "{said}");
    let refused = refused(&with_steps(student, &second.replace("ema = 0.95, ", "")), &[]);
    assert!(refused.contains("ema = 0.99"), "{refused}");
}

/// Pictures of digits without their labels, as an array of numpy.
fn write_pictures(folder: &Path) {
    let table = toml::from_str("kind = 'digits'\nshape = [1, 8, 8]\nnormalize = 'unit'").expect("TOML");
    let data = Descriptor::from_table(table, folder).and_then(|it| Dataset::load(&it)).expect("compiled in");
    let batch = data.batch(data.samples(Split::Train)).expect("all of them");
    let (_, pictures) = batch.first().expect("pictures");
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, 1, 8, 8), }}", pictures.shape()[0]);
    let numbers: Vec<u8> =
        pictures.as_slice::<f32>().expect("f32").iter().flat_map(|number| number.to_le_bytes()).collect();
    let npy = [&b"\x93NUMPY\x01\x00\x76\x00"[..], format!("{header:<117}\n").as_bytes(), &numbers].concat();
    fs::write(folder.join("x.npy"), npy).expect("the folder is ours");
}

#[test]
fn a_student_of_no_task_learns_one_afterwards() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = recipe(folder.path(), RECIPE);
    run(&whole, &folder.path().join("teacher"), &["--only", "teacher"]);
    write_pictures(folder.path());
    let bare = "name = 'bare'\n[data]\nkind = 'npz'\ntrain = { x = 'x.npy' }\nsplit = { validation = 0.1 }\n\
                [teacher]\nonnx = 'teacher/teacher.onnx'\n[student]\nwidth = 0.5\ninherit = false\n\
                [[step]]\ndistill = { loss = ['hint'], alpha = 1.0, epochs = 10, lr = 1e-2 }\n";
    let recipe_without = recipe(folder.path(), bare);
    let (report, _) = run(&recipe_without, &folder.path().join("bare"), &[]);
    assert_eq!(report["steps"][2]["test"].as_array().map(Vec::len), Some(0));
    let refusal = refused_in(folder.path(), &bare.replace("alpha = 1.0", "alpha = 0.5"), &[]);
    assert!(refusal.contains("the data has no labels"), "{refusal}");
    let (head, _) = RECIPE.split_once("[teacher]").expect("it has a teacher");
    let few = head.replace("test = 0.2", "test = 0.84");
    // the same plan with weights of nobody, and with those that saw pictures
    let accuracies = ["bare/bare.onnx", "bare/bare.1-distill.onnx"].map(|begin| {
        let text = format!(
            "{few}[teacher]\nonnx = 'teacher/teacher.onnx'\n[student]\nname = 'task'\nonnx = '{begin}'\n\
             [[step]]\ntrain = {{ epochs = 10, lr = 1e-2 }}\n"
        );
        let recipe = recipe(folder.path(), &text);
        let (report, _) = run(&recipe, &folder.path().join("task"), &[]);
        accuracy(&report["steps"][2])
    });
    assert!(accuracies[1] > accuracies[0] + 0.1, "{accuracies:?}");
}

#[test]
fn a_teacher_of_another_tool_that_takes_one_picture_at_a_time_teaches() {
    let Some(data) = support::data() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let files = |part: &str| {
        let [images, labels] =
            ["images-idx3", "labels-idx1"].map(|kind| data.join(format!("mnist/{part}-{kind}-ubyte.gz")));
        format!("{{ inputs = '{}', labels = '{}' }}", images.display(), labels.display())
    };
    let text = format!(
        "name = 'mnist'\n[data]\nkind = 'idx'\ntrain = {}\ntest = {}\nshape = [1, 28, 28]\n\
         split = {{ validation = 0.05, calibration = 0.8 }}\n[teacher]\nonnx = '{}'\n\
         [student]\narch = {{ resnet = {{ blocks = [1, 1], width = 8 }} }}\n\
         [[step]]\ndistill = {{ loss = ['kd'], epochs = 16, batch_size = 50, lr = 1e-2 }}\n",
        files("train"),
        files("t10k"),
        data.join("onnx-models/mnist_cntk_opset8.onnx").display(),
    );
    let (report, _) = run(&recipe(folder.path(), &text), &folder.path().join("out"), &[]);
    let lines = report["steps"].as_array().expect("a list");
    assert!(accuracy(&lines[0]) > 0.98 && accuracy(&lines[2]) > 0.8, "{} {}", accuracy(&lines[0]), accuracy(&lines[2]));
}

#[test]
fn a_runtime_that_comes_later_is_measured_then() {
    let folder = tempfile::tempdir().expect("a folder");
    let recipe = recipe(folder.path(), RECIPE);
    let output = folder.path().join("out");
    run(&recipe, &output, &["--only", "teacher"]);
    if support::onnxruntime().is_none() {
        return;
    }
    let before = networks(&output);
    let made = command(&recipe, &output, &["--only", "teacher", "--runtime", "ort", "--json"]).output();
    let report: Value = serde_json::from_slice(&made.expect("the program starts").stdout).expect("JSON");
    let runtimes: Vec<&str> =
        report["steps"][0]["test"].as_array().into_iter().flatten().filter_map(|it| it["runtime"].as_str()).collect();
    assert_eq!(runtimes, ["tract", "onnxruntime"]);
    assert_eq!(networks(&output), before);
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

/// Calibrated, and taught as it is rounded with so few bits that it must learn.
#[test]
fn a_student_is_quantized_and_learns_as_it_is_rounded() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = RECIPE.replace("train = { epochs = 1, lr = 1e-4 }", "quantize = { calibrator = \"mse\" }");
    let (whole, said) = run(&recipe(folder.path(), &text), &folder.path().join("whole"), &[]);
    let step = |report: &Value, key: &str| report["steps"][3][key].clone();
    assert_eq!(step(&whole, "step"), "small.2-quantize");
    assert_eq!(step(&whole, "decisions")["runtime of the calibration in small.2-quantize"], "tract");
    let accuracy =
        |report: &Value, step: usize| report["steps"][step]["test"][0]["accuracy"].as_f64().expect("a number");
    assert!(accuracy(&whole, 3) > accuracy(&whole, 2) - 0.02, "{} {}", accuracy(&whole, 2), accuracy(&whole, 3));
    assert!(said.contains("outweighs them in so small a network"), "{said}");

    let three_bits = "weights = { bits = 3, granularity = \"tensor\" }";
    let calibrated = text.replace("calibrator", &format!("{three_bits}, calibrator"));
    let learned = calibrated.replace("\"mse\" }", "\"mse\", epochs = 8, lr = 2e-3, temperature = 2.0 }");
    let rounded = calibrated.replace("calibrator", "rounding = \"gptq\", calibrator");
    let accuracies = [&calibrated, &rounded, &learned].map(|text| {
        let report = run(&recipe(folder.path(), text), &folder.path().join("whole"), &[]).0;
        accuracy(&report, 3)
    });
    assert!(accuracies[1] > accuracies[0] + 0.02 && accuracies[2] > accuracies[0] + 0.05, "{accuracies:?}");
    let other = folder.path().join("again");
    fs::create_dir(&other).expect("the folder is ours");
    run(&recipe(folder.path(), &learned), &other, &[]);
    assert_eq!(networks(&folder.path().join("whole")), networks(&other));

    let budget = "budget = { sqnr_db = 10 }, equalize = true";
    let timed = text.replace("{ calibrator", &format!("{{ runtime = \"tract\", form = \"qdq\", {budget}, calibrator"));
    let [first, replayed] = ["timed", "replayed"].map(|name| folder.path().join(name));
    let (report, said) = run(&recipe(folder.path(), &timed), &first, &[]);
    let decision = step(&report, "decisions")["stays in floats in small.2-quantize"].clone();
    assert!(decision.as_str().is_some_and(|text| text.starts_with("{\"slow\"")), "{decision}");
    assert!(said.contains("of its time in floats on tract"), "{said}");
    let ledger = first.join("ledger.jsonl");
    let (_, said) = run(&recipe(folder.path(), &timed), &replayed, &["--replay", &ledger.to_string_lossy()]);
    assert!(!said.contains("of its time in floats on tract"), "{said}");
    assert_eq!(networks(&first), networks(&replayed));

    for (from, to, expected) in [
        ("{ calibrator", "{ calibrater", "did you mean `calibrator`?"),
        ("{ calibrator", "{ lr = 1e-3, calibrator", "`step.quantize.lr` is of a training: give `epochs`, too"),
        ("{ calibrator", "{ to = \"int4\", epochs = 1, calibrator", "is for int8 in the forms qdq and qoperator"),
        (
            "{ calibrator",
            "{ rounding = \"gptq\", epochs = 1, calibrator",
            "`step.quantize.rounding` is undone by a training",
        ),
        ("{ calibrator", "{ runtime = \"onnx\", calibrator", "should be `tract` or `ort`"),
        ("{ calibrator", "{ exclude = [\"/none\"], calibrator", "`/none` means no node"),
        ("\"mse\"", "{ percentile = 20 }", "20 percent"),
    ] {
        let said = refused_in(folder.path(), &text.replace(from, to), &[]);
        assert!(said.contains(expected), "{said}");
    }
}
