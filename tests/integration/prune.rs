//! Networks without what they can do without: real files on both runtimes, the command, and the step of a recipe.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use aludel::compress::prune::options::PruneOptions;
use aludel::graph::op::{Conv, Split};
use aludel::graph::tensor::{DType, Tensor};
use aludel::graph::{Dim, GraphBuilder, Model, Name, Op, TensorType};
use aludel::measure::difference::numbers;
use aludel::measure::runtime::tract::Tract;
use aludel::measure::runtime::{ModelBytes, Options, Runtime};
use aludel::onnx;
use aludel::recipe::prune::{Decided, Gone, Means, Pruned, prune};
use aludel::recipe::samples::Samples;
use aludel::zoo::Input;
use serde_json::Value;

use crate::real::{Outputs, Real, real_models, run, run_bytes};
use crate::support;
use crate::zoo::built;

fn name(real: &Real) -> String {
    real.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn pruned(model: &Model, runtime: &dyn Runtime, samples: Option<&Samples>, options: &str) -> Result<Pruned, String> {
    let options: PruneOptions = toml::from_str(options).expect("options");
    let (known, told) = (None, &mut |_| ());
    let means = &mut Means { samples, runtime, output: None, seed: 7, learns: false, known, is_timed: false, told };
    prune(model, &options, means).map_err(|error| error.to_string())
}

/// The power of the change of the outputs of floats over theirs.
fn noise(before: &Outputs, after: &Outputs) -> f64 {
    let (mut signal, mut noise) = (0.0, 0.0);
    for ((_, a), (_, b)) in before.iter().zip(after).filter(|((_, a), _)| a.dtype() == DType::F32) {
        let (a, b) = (numbers(a).expect("floats"), numbers(b).expect("floats"));
        signal += a.iter().map(|a| a * a).sum::<f64>();
        noise += a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
    }
    noise / f64::max(signal, 1e-30)
}

#[test]
fn real_files_make_up_for_a_fifth_of_their_units() {
    let Some(data) = support::data() else { return };
    let mut table =
        String::from("a fifth of every group gone: MACs, and noise over signal, as they are and fitted anew\n");
    let mut gained = 0.0;
    for real in real_models(&data) {
        let runtimes = support::runtimes();
        let ort = *runtimes.last().expect("tract at least");
        let model = onnx::read(&real.path).expect("every shared file is a network");
        let batch = real.feed(ort).into_iter().map(|(name, tensor)| (name.into(), tensor)).collect();
        let samples = Samples::Batches(vec![batch]);
        let of = |how: &str| {
            let options = format!("channels = 0.2\nscope = 'local'\ncompensate = '{how}'");
            pruned(&model, ort, Some(&samples), &options)
        };
        let (plain, fitted) = match (of("none"), of("together")) {
            (Ok(plain), Ok(fitted)) => (plain, fitted),
            (Err(error), _) | (_, Err(error)) => {
                let _ = writeln!(table, "{:<30} {error}", name(&real));
                assert!(error.contains("nothing can be pruned"), "{}: {error}", name(&real));
                continue;
            }
        };
        assert!(plain.report.after.parameters < plain.report.before.parameters, "{}", name(&real));
        assert_eq!(plain.report.after, fitted.report.after, "{}", name(&real));
        let macs = 100 * fitted.report.after.macs / fitted.report.before.macs.max(1);
        let _ = write!(table, "{:<30} {macs:>3} %", name(&real));
        for runtime in runtimes {
            if runtime.name() == "tract" && !real.tract_refuses.is_empty() {
                continue;
            }
            let before = run(runtime, &real, &Options::default()).expect("it runs the file");
            let after = [&plain, &fitted].map(|pruned| {
                let bytes = ModelBytes::new(onnx::to_bytes(&pruned.model).expect("it can be written"));
                noise(&before, &run_bytes(runtime, &real, &bytes, &Options::default()).expect("it runs what is left"))
            });
            let _ = write!(table, "  {} {:.3} {:.3}", runtime.name(), after[0], after[1]);
            gained += (after[0].max(1e-9) / after[1].max(1e-9)).ln();
        }
        table.push('\n');
    }
    support::say(&table);
    assert!(gained > 0.0, "{gained}");
}

/// onnxruntime 1.31 loses a value that is to be given out where it makes one kernel of Conv, Add and Relu, which it does at such widths.
#[test]
fn values_between_fused_operators_are_seen() {
    let graph = built("{ resnet = { blocks = [1, 1], width = 17 } }", vec![Input::new("x", DType::F32, &[17, 8, 8])]);
    let model = Model::new(graph);
    let wave = |n: usize| (0..n).map(|i| ((i * i) as f32 * 0.37).sin()).collect::<Vec<f32>>();
    let batch = Tensor::new(&[16, 17, 8, 8], wave(16 * 17 * 64)).expect("it fits");
    let samples = Samples::Batches(vec![[(Name::from("x"), batch)].into_iter().collect()]);
    for runtime in support::runtimes() {
        let options = "channels = 0.1\nscope = 'local'\ncompensate = 'none'\nrecalibrate = 'spread'";
        let pruned = pruned(&model, runtime, Some(&samples), options).expect("values are seen");
        assert!(pruned.report.notes[0].contains("by mean and spread"), "{:?}", pruned.report.notes);
    }
}

fn aludel(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_aludel")).args(arguments).output().expect("the program starts")
}

fn answered(arguments: &[&str]) -> String {
    let output = aludel(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn refused(arguments: &[&str]) -> String {
    let output = aludel(arguments);
    assert_eq!(output.status.code(), Some(2));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Where a recipe on the built-in digits was carried out.
struct Digits(tempfile::TempDir);

impl Digits {
    fn of(steps: &str) -> (Digits, Value, String) {
        let digits = Digits(tempfile::tempdir().expect("a folder"));
        let (report, said) = digits.run("out", steps, &[]);
        (digits, report, said)
    }

    fn run(&self, folder: &str, steps: &str, more: &[&str]) -> (Value, String) {
        let recipe = self.path("recipe.toml");
        let text = format!(
            "name = 'digits'\nseed = 7\nstudent = {{ name = 's', from = 'teacher' }}\n[data]\nkind = 'digits'\nshape = [1, 8, 8]\n\
             normalize = 'unit'\nsplit = {{ validation = 0.1, test = 0.2 }}\n[teacher]\narch = {{ resnet = {{ blocks = [1, 1], width = 16 }} }}\n\
             train = {{ epochs = 6, lr = 5e-3 }}\n{steps}"
        );
        fs::write(&recipe, text).expect("the folder is ours");
        let output = self.path(folder);
        let output = output.to_string_lossy();
        let recipe = recipe.to_string_lossy();
        let mut arguments =
            vec!["run", &recipe, "-o", &output, "--runtime", "tract", "--latency-budget", "0.1", "--json"];
        arguments.extend(more);
        let made = aludel(&arguments);
        let said = String::from_utf8_lossy(&made.stderr).into_owned();
        assert!(made.status.success(), "{said}");
        (serde_json::from_slice(&made.stdout).expect("JSON"), said)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

fn accuracy(report: &Value, step: usize) -> f64 {
    report["steps"][step]["test"][0]["accuracy"].as_f64().expect("a number")
}

#[test]
fn a_student_is_pruned_in_rounds_and_recovers() {
    let rounds = "[[step]]\nprune = { macs = 0.6, criterion = 'taylor', rounds = 2, epochs = 4, lr = 5e-3, views = 1 }";
    let (digits, report, said) = Digits::of(rounds);
    let step = |idx: usize, key: &str| report["steps"][idx][key].clone();
    assert_eq!([step(2, "step"), step(3, "step")], ["s.1-prune", "s.2-prune"]);
    let macs = [1, 2, 3].map(|idx| step(idx, "macs").as_f64().expect("a number"));
    assert!(macs[2] <= 0.4 * macs[0] && macs[1] < 0.7 * macs[0] && macs[1] > macs[2], "{macs:?}");
    assert!(accuracy(&report, 3) > accuracy(&report, 0) - 0.05, "{report}");
    assert!(said.contains("of the multiplications and"), "{said}");
    let kept = onnx::read(&digits.path("out/s.2-prune.onnx")).expect("a network");
    assert!(kept.graph.nodes.iter().any(|node| matches!(node.op, Op::BatchNormalization(_))));
    digits.run("again", rounds, &[]);
    let bytes = |folder: &str| fs::read(digits.path(folder).join("s.2-prune.onnx")).expect("it was written");
    assert_eq!(bytes("out"), bytes("again"));
}

#[test]
fn what_time_decides_is_replayed() {
    let step = "[[step]]\nprune = { max_time = 0.9, runtime = 'tract' }";
    let (digits, report, _) = Digits::of(step);
    let decision = report["steps"][2]["decisions"]["goes in s.1-prune"].clone();
    assert!(decision.as_str().is_some_and(|text| text.contains("conv")), "{decision}");
    let ledger = digits.path("out/ledger.jsonl");
    digits.run("replayed", step, &["--replay", &ledger.to_string_lossy()]);
    let bytes = |folder: &str| fs::read(digits.path(folder).join("s.1-prune.onnx")).expect("it was written");
    assert_eq!(bytes("out"), bytes("replayed"));
}

/// A weight can make several groups: each gets back its own units.
#[test]
fn replayed_units_are_of_their_groups() {
    let mut builder = GraphBuilder::new("parted");
    let x = builder.input("x", TensorType::new(DType::F32, [Dim::from("batch"), 3.into(), 8.into(), 8.into()]));
    let wave = |n: usize| (0..n).map(|i| ((i * i) as f32 * 0.37).sin()).collect::<Vec<f32>>();
    let mut weight = |name: &str, to: usize, from: usize| {
        builder.initializer(name, Tensor::new(&[to, from, 1, 1], wave(to * from)).expect("it fits"))
    };
    let [both, one, other] = [weight("both", 24, 3), weight("one", 4, 20), weight("other", 4, 4)];
    let sizes = builder.initializer("sizes", Tensor::vector(vec![20i64, 4]));
    let conv = || Op::Conv(Conv::default());
    let hidden = builder.node(conv(), &[&x, &both]);
    let parts = builder.node_with_outputs(Op::Split(Split { axis: 1, ..Split::default() }), &[&hidden, &sizes], 2);
    let outputs = [(0, one), (1, other)].map(|(idx, weight)| {
        let seen = builder.node(Op::Relu, &[&parts[idx]]);
        builder.node(conv(), &[&seen, &weight])
    });
    let y = builder.node(Op::Add, &[&outputs[0], &outputs[1]]);
    builder.output(&y);
    let model = Model::new(builder.finish().expect("a graph"));
    let options = PruneOptions { max_time: Some(0.9), ..PruneOptions::default() };
    let run = |known| {
        let means = &mut Means {
            samples: None,
            runtime: &Tract,
            output: None,
            seed: 7,
            learns: false,
            known,
            is_timed: false,
            told: &mut |_| (),
        };
        prune(&model, &options, means).map_err(|error| error.to_string())
    };
    let gone = |group: usize, units: Vec<usize>| Gone { group, name: "both".into(), units };
    let decided = Decided(vec![gone(0, vec![1, 7, 19]), gone(1, vec![2])]);
    let pruned = run(Some(&decided)).expect("they can go");
    assert_eq!(pruned.report.groups.iter().map(|group| group.n_left).collect::<Vec<_>>(), [17, 3]);
    assert_eq!(pruned.decided.as_ref(), Some(&decided));
    let error = run(Some(&Decided(vec![gone(1, vec![4])]))).expect_err("it has four units");
    assert!(error.contains("`both` makes no group with the units"), "{error}");
}

#[test]
fn zeros_are_kept_while_a_student_learns() {
    for (sparse, least) in [
        ("{ pattern = '2:4', criterion = 'sparsegpt' }", 0.45),
        ("{ sparsity = 0.8, schedule = { cubic = {} } }", 0.79),
        ("{ sparsity = 0.6, criterion = 'movement', schedule = { linear = {} } }", 0.59),
    ] {
        let step = format!("[[step]]\nprune = {{ sparse = {sparse}, epochs = 4, lr = 3e-3, views = 1 }}");
        let (digits, report, _) = Digits::of(&step);
        let share = share_of_zeros(&digits.path("out/s.1-prune.onnx"));
        assert!(share >= least, "{sparse}: {share}");
        assert!(accuracy(&report, 2) > accuracy(&report, 0) - 0.06, "{sparse}: {report}");
    }
}

/// The share of zeros among the kernels behind the first of a file.
fn share_of_zeros(path: &Path) -> f64 {
    let model = onnx::read(path).expect("a network");
    let kernels = model.graph.initializers.iter().filter(|(name, it)| it.rank() == 4 && !name.contains("stem"));
    let is_zero = |tensor: &Tensor| -> Vec<bool> {
        let zero = |number: f64| number == 0.0;
        match tensor.dtype() {
            DType::I8 => tensor.to_vec::<i8>().expect("bytes").into_iter().map(|it| zero(f64::from(it))).collect(),
            _ => tensor.to_vec::<f32>().expect("floats").into_iter().map(|it| zero(f64::from(it))).collect(),
        }
    };
    let zeros: Vec<bool> = kernels.flat_map(|(_, tensor)| is_zero(tensor)).collect();
    zeros.iter().filter(|is_zero| **is_zero).count() as f64 / zeros.len() as f64
}

#[test]
fn later_steps_keep_zeros() {
    let learn = "epochs = 2, lr = 3e-3, views = 1";
    let steps = format!(
        "[[step]]\nprune = {{ sparse = {{ sparsity = 0.7 }} }}\n[[step]]\ndistill = {{ loss = ['kd'], {learn} }}\n\
         [[step]]\nprune = {{ channels = 0.2, compensate = 'none', {learn} }}\n\
         [[step]]\nquantize = {{ form = 'qdq', keep_slow = true, {learn} }}"
    );
    let (digits, report, _) = Digits::of(&steps);
    for file in ["s.1-prune", "s.2-distill", "s.3-prune", "s.4-quantize"] {
        let share = share_of_zeros(&digits.path("out").join(format!("{file}.onnx")));
        assert!(share > 0.6, "{file}: {share}");
    }
    assert!(accuracy(&report, 5) > accuracy(&report, 0) - 0.08, "{report}");
}

#[test]
fn steps_that_would_move_zeros_are_refused() {
    for (sparse, step, expected) in [
        ("sparsity = 0.5", "prune = { macs = 0.3 }", "take units out first, or say `compensate = \"none\"`"),
        ("pattern = '2:4'", "prune = { macs = 0.3, compensate = 'none' }", "is counted along: take them out first"),
        (
            "sparsity = 0.5",
            "prune = { sparse = { criterion = 'sparsegpt' } }",
            "which moves the zeros of a step before",
        ),
        ("sparsity = 0.5", "prune = { sparse = { schedule = { cubic = {} } }, epochs = 2 }", "begins without zeros"),
        ("sparsity = 0.5", "quantize = { rounding = 'adaround' }", "would make other numbers of the zeros"),
        ("sparsity = 0.5", "quantize = { to = 'int4' }", "would make other numbers of the zeros"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let recipe = folder.path().join("recipe.toml");
        let text = format!(
            "name = 'd'\nstudent = {{ from = 'teacher' }}\n[data]\nkind = 'digits'\nshape = [64]\n[teacher]\n\
             arch = {{ mlp = {{ hidden = [8] }} }}\ntrain = {{ epochs = 1 }}\n\
             [[step]]\nprune = {{ sparse = {{ {sparse} }} }}\n[[step]]\n{step}\n"
        );
        fs::write(&recipe, text).expect("the folder is ours");
        let said = refused(&["run", &recipe.to_string_lossy(), "-o", &folder.path().join("out").to_string_lossy()]);
        assert!(said.contains(expected), "{step}: {said}");
    }
}

/// A trained network, and samples of it.
fn trained(folder: &Path) -> (String, String) {
    let recipe = folder.join("recipe.toml");
    let data =
        "[data]\nkind = 'digits'\nshape = [1, 8, 8]\nnormalize = 'unit'\nsplit = { validation = 0.1, test = 0.2 }\n";
    let text = format!(
        "name = 'd'\nseed = 7\n{data}[model]\narch = {{ resnet = {{ blocks = [1, 2], width = 16 }} }}\n[train]\nepochs = 5\nlr = 5e-3\n"
    );
    fs::write(&recipe, text).expect("the folder is ours");
    let descriptor = folder.join("data.toml");
    fs::write(&descriptor, data.replace("[data]\n", "")).expect("the folder is ours");
    let [recipe, network, data] =
        [&recipe, &folder.join("d.onnx"), &descriptor].map(|path| path.to_string_lossy().into_owned());
    answered(&["train", &recipe, "-o", &network, "--runtime", "tract"]);
    (network, data)
}

#[test]
fn the_command_prunes_by_amount_curves_layers_and_zeros() {
    let folder = tempfile::tempdir().expect("a folder");
    let (network, data) = trained(folder.path());
    let out = folder.path().join("out.onnx").to_string_lossy().into_owned();
    let groups = answered(&["prune", &network, "--show-groups"]);
    assert!(groups.contains("channels: ") && groups.contains("refused 10 of head.weight"), "{groups}");

    let common = ["--runtime", "tract", "--data", &data, "--json"];
    let prune = |more: &[&str]| -> Value {
        let arguments = [&["prune", &network, "-o", &out][..], more, &common].concat();
        serde_json::from_str(&answered(&arguments)).expect("JSON")
    };
    let less = |report: &Value, what: &str| {
        1.0 - report["after"][what].as_f64().expect("a number") / report["before"][what].as_f64().expect("a number")
    };
    for how in ["none", "together", "in-order"] {
        let report = prune(&["--macs", "0.4", "--compensate", how]);
        assert!((0.4..0.55).contains(&less(&report, "macs")), "{report}");
        assert!(report["notes"].to_string().contains("of its time before on tract"), "{report}");
    }
    for (more, expected) in [
        (&[][..], "products make what they made before, on the mean"),
        (&["--keep-batch-norms"][..], "batch normalisations go by what they read now"),
    ] {
        let report = prune(&[&["--macs", "0.4", "--compensate", "none", "--recalibrate", "mean"][..], more].concat());
        assert!(report["notes"].to_string().contains(expected), "{report}");
    }
    for (amount, what, criterion) in [("--params", "parameters", "fisher"), ("--bytes", "weight_bytes", "movement")] {
        let report = prune(&[amount, "0.3", "--round-to", "4", "--criterion", criterion]);
        assert!(less(&report, what) >= 0.3, "{report}");
        let groups = report["groups"].as_array().expect("a list");
        assert!(groups.iter().all(|group| group["n_left"].as_u64().is_some_and(|left| left % 4 == 0)), "{report}");
    }
    let report = prune(&["--layers", "1"]);
    assert_eq!(report["layers"].as_array().map(Vec::len), Some(1), "{report}");

    let curves = folder.path().join("curves.json").to_string_lossy().into_owned();
    let measured = answered(&[&["prune", &network, "--sensitivity", "--shares", "0.25,0.5"][..], &common].concat());
    fs::write(&curves, measured).expect("the folder is ours");
    let report = prune(&["--macs", "0.3", "--curves", &curves]);
    assert!(less(&report, "macs") >= 0.3, "{report}");
    let report = prune(&["--macs", "0.3", "--curves", &curves, "--round-to", "8"]);
    let groups = report["groups"].as_array().expect("a list");
    assert!(groups.iter().all(|group| group["n_left"].as_u64().is_some_and(|left| left % 8 == 0)), "{report}");
    let table =
        answered(&["prune", &network, "--sensitivity", "--shares", "0.5", "--runtime", "tract", "--data", &data]);
    assert!(table.contains("each group alone; the whole network is right on"), "{table}");

    for scope in ["local", "global"] {
        let report = prune(&["--pattern", "4x1", "--sparsity", "0.75", "--scope", scope]);
        let [n, n_zeros] = ["n", "n_zeros"].map(|key| report["zeros"][key].as_f64().expect("a number"));
        assert!((0.7..0.8).contains(&(n_zeros / n)), "{report}");
    }
    let report = prune(&["--pattern", "2:4", "--sparse-criterion", "wanda"]);
    let zeros = &report["zeros"];
    assert!(zeros["compressed"]["gzip"].as_u64() < zeros["n_bytes"].as_u64(), "{report}");
    assert_eq!(less(&report, "macs"), 0.0);
    assert!(zeros["gains"].to_string().contains("no quicker"), "{report}");
}

#[test]
fn what_cannot_be_pruned_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (network, data) = trained(folder.path());
    let out = folder.path().join("out.onnx").to_string_lossy().into_owned();
    for (arguments, expected) in [
        (&[][..], "how much is to go"),
        (&["--macs", "0.3", "--params", "0.3"][..], "cannot be used with '--params <SHARE>'"),
        (&["--macs", "1.5"][..], "give a share between 0 and 1"),
        (&["--macs", "0.99", "--min-width", "16"][..], "is the most"),
        (&["--macs", "0.3", "--only", "/none"][..], "`/none` means nothing in the network"),
        (&["--macs", "0.3", "--criterion", "taylor"][..], "`data` is missing: the criterion is told by the gradients"),
        (
            &["--macs", "0.3", "--criterion", "movement"][..],
            "`data` is missing: the criterion is told by the gradients",
        ),
        (&["--macs", "0.3", "--criterion", "l3"][..], "unknown variant"),
        (&["--macs", "0.3", "--compensate", "together"][..], "`data` is missing: `compensate`"),
        (&["--pattern", "4:2"][..], "4:2"),
        (
            &["--sparsity", "0.5", "--round-to", "8"][..],
            "`round_to` is of units that go one by one; with `sparse` leave it out",
        ),
        (
            &["--layers", "1", "--only", "*", "--data", &data][..],
            "`only` is of units that go one by one; with `layers` leave it out",
        ),
        (&["--macs", "0.3", "--samples", "0", "--data", &data][..], "`samples` is 0; give 1 or more"),
        (
            &["--channels", "0.5", "--scope", "local", "--min-width", "1000"][..],
            "50.0 % of every group cannot be taken out",
        ),
        (&["--sparsity", "0.5", "--sparse-criterion", "wanda"][..], "`data` is missing"),
        (&["--layers", "9", "--data", &data][..], "is the most"),
        (&["--layers", "1", "--recalibrate", "mean", "--data", &data][..], "`recalibrate` is of units that go"),
    ] {
        let said = refused(&[&["prune", &network, "-o", &out][..], arguments].concat());
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    assert!(!Path::new(&out).exists());
    let model = onnx::read(Path::new(&network)).expect("a network");
    let error = pruned(&model, &Tract, None, "macs = 0.3\nexclude = ['*']").expect_err("nothing is left");
    assert!(error.contains("nothing can be pruned"), "{error}");
    let model = Model::new(built("{ mlp = { hidden = [8] } }", vec![Input::new("x", DType::F32, &[4])]));
    let error =
        pruned(&model, &Tract, None, "macs = 0.3\ncriterion = 'batch-norm'").expect_err("no units are told apart");
    assert!(error.contains("nothing can be pruned") && error.contains("cannot be ranked"), "{error}");
}
