//! `aludel train`: what it writes, what both runtimes make of it, and how it goes on after it was killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aludel::data::{Loader, LoaderOptions, Split};
use aludel::graph::tensor::Tensor;
use aludel::graph::{Model, eval};
use aludel::measure::runtime::{ModelBytes, tract::Tract};
use aludel::onnx;
use aludel::recipe::{self, Prepared, Recipe, evaluate::evaluate, normalization};
use indexmap::IndexMap;
use serde_json::Value;

use crate::support::{data, say};

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aludel"));
    command.arg("train").args(arguments).stdin(Stdio::null());
    command
}

fn train(arguments: &[&str]) -> Value {
    let output = command(arguments).arg("--json").output().expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "aludel train {}: {stderr}", arguments.join(" "));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// A recipe in a folder: the digits, fewer epochs than anybody would take.
fn recipe(folder: &Path, model: &str, train: &str) -> PathBuf {
    let text = format!(
        "name = 'digits'\nseed = 7\n[data]\nkind = 'digits'\nshape = [1, 8, 8]\nnormalize = 'unit'\n\
         split = {{ validation = 0.1, test = 0.2 }}\n[model]\n{model}\n[train]\n{train}\n"
    );
    let path = folder.join("recipe.toml");
    fs::write(&path, text).expect("the folder is ours");
    path
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders are UTF-8")
}

/// Kills the program once there is a checkpoint.
fn kill_at_checkpoint(mut child: Child, checkpoint: &Path) {
    let begun = Instant::now();
    while !checkpoint.exists() && begun.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().expect("it runs, or has ended");
    child.wait().expect("it has ended");
}

#[test]
fn the_digits_are_learned_and_both_runtimes_agree() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let recipe = recipe(
        folder.path(),
        "arch = { resnet = { blocks = [1, 1], width = 16 } }",
        "epochs = 8\nlr = 5e-3\nschedule = { decay = 'cosine' }",
    );
    let [output, weights] = ["digits.onnx", "digits.safetensors"].map(|name| folder.path().join(name));
    let report = train(&[text(&recipe), "-o", text(&output), "--safetensors", text(&weights)]);
    let tests = report["test"].as_array().expect("a list");
    assert!(!tests.is_empty());
    for test in tests {
        assert!(test["accuracy"].as_f64().expect("a number") > 0.9, "{test}");
    }
    assert_eq!(report["disagreements"], 0);
    assert!(report["diagnosis"]["verdict"].is_string(), "{report}");
    assert!(output.exists() && weights.exists());
    assert!(!folder.path().join("digits.onnx.checkpoint").exists());
}

/// The lines of a metrics file, those of steps without the speed, which is another each time.
fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("it is written");
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    lines.iter_mut().for_each(|line| drop(line.as_object_mut().expect("an object").remove("samples_per_second")));
    lines
}

#[test]
fn metrics_are_kept_by_step_and_epoch_and_taken_up() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let recipe = recipe(folder.path(), "arch = { mlp = {} }", "epochs = 12\naccumulate = 3");
    let [whole, broken] = ["whole", "broken"].map(|name| folder.path().join(format!("{name}.jsonl")));
    let events = folder.path().join("events");
    let arguments = |name: &str, metrics: &Path| {
        let output = folder.path().join(name);
        [text(&recipe), "-o", text(&output), "--metrics", text(metrics), "--tensorboard", text(&events)]
            .map(String::from)
            .to_vec()
    };
    let strs = |arguments: &[String]| arguments.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
    let whole_arguments = strs(&arguments("whole.onnx", &whole));
    train(&whole_arguments.split('\n').collect::<Vec<_>>());
    let expected = lines(&whole);
    // 1,797 digits, 70 % of them in 20 batches of 64, make 7 steps an epoch
    assert_eq!(expected.len(), 12 * (7 + 1));
    let of_step = expected.iter().filter(|line| line.get("learning_rate").is_some());
    assert_eq!(of_step.map(|line| line["step"].as_u64()).collect::<Vec<_>>(), (1..=84).map(Some).collect::<Vec<_>>());
    assert!(expected.iter().filter(|line| line.get("metric").is_some()).all(|line| line["train_loss"].is_number()));
    let size = fs::metadata(events.join("events.out.tfevents.aludel")).expect("written").len();
    let broken_arguments = strs(&arguments("broken.onnx", &broken));
    let broken_arguments: Vec<&str> = broken_arguments.split('\n').collect();
    let child = command(&broken_arguments).stderr(Stdio::null()).spawn().expect("the program starts");
    kill_at_checkpoint(child, &folder.path().join("broken.onnx.checkpoint"));
    assert!(!folder.path().join("broken.onnx").exists(), "it was killed too late to tell anything");
    train(&[broken_arguments.as_slice(), &["--resume"]].concat());
    assert_eq!(lines(&broken), expected);
    assert_eq!(fs::metadata(events.join("events.out.tfevents.aludel")).expect("written").len(), size);
}

#[test]
fn a_training_that_was_killed_goes_on_to_the_same_bytes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let recipe = recipe(folder.path(), "arch = { cnn = {} }", "epochs = 6\nema = 0.9\nclip = 1.0");
    let [whole, broken] = ["whole.onnx", "broken.onnx"].map(|name| folder.path().join(name));
    train(&[text(&recipe), "-o", text(&whole)]);
    let child =
        command(&[text(&recipe), "-o", text(&broken)]).stderr(Stdio::null()).spawn().expect("the program starts");
    kill_at_checkpoint(child, &folder.path().join("broken.onnx.checkpoint"));
    assert!(!broken.exists(), "it was killed too late to tell anything");
    train(&[text(&recipe), "-o", text(&broken), "--resume"]);
    assert!(fs::read(&whole).expect("written") == fs::read(&broken).expect("written"));
}

#[test]
fn wrong_recipes_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = folder.path().join("out.onnx");
    let refused = |model: &str, train: &str, why: &str| {
        let recipe = recipe(folder.path(), model, train);
        let output = command(&[text(&recipe), "-o", text(&output)]).output().expect("the program starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(why), "{stderr}");
    };
    refused("", "", "[model]: give `arch` or `onnx`, one of the two");
    refused("arch = { mpl = {} }", "", "unknown variant `mpl`");
    refused("arch = { mlp = {} }", "epoch = 3", "unknown field `epoch`");
    refused("arch = { mlp = {} }", "lr = 0.0", "`lr` is 0; give a number above 0");
    refused("onnx = 'none.onnx'", "", "none.onnx");
    let text = fs::read_to_string(recipe(folder.path(), "arch = { mlp = {} }\nembed_normalization = true", ""));
    let plain = text.expect("just written").replace("normalize = 'unit'", "normalize = 'none'");
    let error = Prepared::new(&Recipe::parse(&plain, folder.path()).expect("a recipe")).expect_err("nothing to embed");
    assert!(error.to_string().contains("embed_normalization: no input is normalised"), "{error}");
    refused("arch = { mlp = {} }\ninputs = ['y']", "", "the data has no input `y`; it has x");
    assert!(!output.exists());
}

/// What a recipe comes to, as it is prepared and as it is trained.
fn trained(text: &str, folder: &Path) -> (Prepared, Model) {
    let recipe = Recipe::parse(text, folder).expect("a recipe");
    let prepared = Prepared::new(&recipe).expect("it can be carried out");
    let trained = recipe::train(&recipe, &prepared, None, &mut ()).expect("it learns");
    (prepared, trained.model.expect("it is done"))
}

/// The first test samples as a network takes them, and what it makes of them.
fn answers(prepared: &Prepared, model: &Model) -> (Tensor, Tensor) {
    let data = normalization::data_for(model, &prepared.data).expect("its own data");
    let loader = Loader::new(&data, Split::Test, LoaderOptions::default()).expect("there are some");
    let input = loader.batch(0, 0).expect("the first")["x"].clone();
    let given = IndexMap::from([(model.graph.inputs[0].name.clone(), input.clone())]);
    let mut outputs = eval::run(&model.graph, &given).expect("the reference runs it");
    (input, outputs.swap_remove_index(0).expect("logits").1)
}

#[test]
fn a_network_normalises_raw_values_itself() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for normalize in ["unit", "standard"] {
        let text = |model: &str, epochs: usize| {
            format!(
                "name = 'digits'\nseed = 7\n[data]\nkind = 'digits'\nnormalize = '{normalize}'\n\
                 split = {{ validation = 0.1, test = 0.2 }}\n[model]\n{model}\n[train]\nepochs = {epochs}\n"
            )
        };
        let (prepared, plain) = trained(&text("arch = { cnn = {} }", 2), folder.path());
        let (_, embedding) = trained(&text("arch = { cnn = {} }\nembed_normalization = true", 2), folder.path());
        let ((scaled, expected), (raw, found)) = (answers(&prepared, &plain), answers(&prepared, &embedding));
        let greatest =
            |tensor: &Tensor| tensor.as_slice::<f32>().expect("f32").iter().fold(f32::MIN, |most, &x| most.max(x));
        assert!(greatest(&scaled) < 4.0, "{normalize}");
        assert_eq!(greatest(&raw), 16.0, "{normalize}");
        assert_eq!(found, expected, "{normalize}");
        let bytes = onnx::to_bytes(&embedding).expect("it is written");
        let scored = |model: &Model| {
            let bytes = ModelBytes::new(onnx::to_bytes(model).expect("it is written"));
            evaluate(&Tract, &bytes, &prepared.output, &prepared.data, Split::Test).expect("a classifier")
        };
        assert_eq!(scored(&embedding).predictions, scored(&plain).predictions, "{normalize}");
        // the written file learns on, from raw values, and goes on normalising once
        fs::write(folder.path().join("first.onnx"), &bytes).expect("the folder is ours");
        let (prepared, tuned) = trained(&text("onnx = 'first.onnx'", 1), folder.path());
        assert_eq!(tuned.about.metadata[normalization::KEY], embedding.about.metadata[normalization::KEY]);
        assert_eq!(tuned.graph.nodes.len(), embedding.graph.nodes.len());
        assert!(scored(&tuned).accuracy > 0.5, "{normalize}");
        assert_eq!(answers(&prepared, &tuned).0, raw, "{normalize}");
        let again = Recipe::parse(&text("onnx = 'first.onnx'\nembed_normalization = true", 1), folder.path());
        let error = Prepared::new(&again.expect("a recipe")).expect_err("twice").to_string();
        assert!(error.contains("the network normalises its inputs already"), "{error}");
    }
}

/// Series of 7 to 29 frames in batches of like length.
#[test]
fn samples_of_like_length_are_batched() {
    let Some(data) = data() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = |train: &str| {
        let series = data.join("timeseries/JapaneseVowels");
        format!(
            "name = 'vowels'\nseed = 7\n[data]\nkind = 'ts'\ntrain = '{0}_TRAIN.ts'\ntest = '{0}_TEST.ts'\n\
             normalize = 'standard'\nsplit = {{ validation = 0.15 }}\n[model]\ninputs = ['x', 'mask']\n\
             arch = {{ rnn = {{ cell = 'gru', hidden = 16 }} }}\n[train]\nepochs = 12\nbatch_size = 16\nlr = 1e-2\n{train}\n",
            series.display()
        )
    };
    let (prepared, model) = trained(&text("buckets = true\nlength_multiple = 8"), folder.path());
    let bytes = ModelBytes::new(onnx::to_bytes(&model).expect("it is written"));
    let scored = evaluate(&Tract, &bytes, &prepared.output, &prepared.data, Split::Test).expect("a classifier");
    assert!(scored.accuracy > 0.8, "{}", scored.accuracy);
    // what is padded is masked: raw values come to the same
    let embedding =
        text("buckets = true\nlength_multiple = 8").replace("[model]", "[model]\nembed_normalization = true");
    let (_, embedding) = trained(&embedding, folder.path());
    let bytes = ModelBytes::new(onnx::to_bytes(&embedding).expect("it is written"));
    assert_eq!(evaluate(&Tract, &bytes, &prepared.output, &prepared.data, Split::Test).expect("a classifier"), scored);
    let refused = |text: &str, why: &str| {
        let recipe = Recipe::parse(text, folder.path()).expect("a recipe");
        let prepared = Prepared::new(&recipe).expect("it can be carried out");
        let error = recipe::train(&recipe, &prepared, None, &mut ()).expect_err("refused").to_string();
        assert!(error.contains(why), "{error}");
    };
    refused(&text("length_multiple = 0"), "`length_multiple`");
    let digits =
        "name = 'd'\n[data]\nkind = 'digits'\nsplit = { validation = 0.1 }\n[model]\narch = { mlp = {} }\n[train]\n";
    for option in ["buckets = true", "length_multiple = 8"] {
        refused(&format!("{digits}{option}"), "leave `buckets` and `length_multiple` out");
    }
}

/// A network made elsewhere, on the data that it was made for: it gains.
#[test]
fn a_file_made_elsewhere_is_fine_tuned() {
    let Some(data) = data() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mnist = data.join("mnist");
    let pair = |images: &str, labels: &str| {
        format!("{{ inputs = '{}', labels = '{}' }}", mnist.join(images).display(), mnist.join(labels).display())
    };
    let text_of = format!(
        "name = 'mnist'\nseed = 7\n[data]\nkind = 'idx'\ntrain = {}\ntest = {}\nshape = [1, 28, 28]\n\
         split = {{ validation = 0.1 }}\n[model]\nonnx = '{}'\n[train]\nepochs = 1\nbatch_size = 1\naccumulate = 32\nlr = 2e-4\n",
        pair("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
        pair("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
        data.join("onnx-models/mnist_cntk_opset8.onnx").display(),
    );
    let recipe = folder.path().join("recipe.toml");
    fs::write(&recipe, text_of).expect("the folder is ours");
    let output = folder.path().join("tuned.onnx");
    let report = train(&[text(&recipe), "-o", text(&output)]);
    for test in report["test"].as_array().expect("a list") {
        say(&format!(
            "mnist_cntk_opset8 fine-tuned: {} right of {} on {}\n",
            test["n_right"], test["n_samples"], test["runtime"]
        ));
        assert!(test["n_right"].as_u64().expect("a number") > 9_891, "{test}");
    }
}
