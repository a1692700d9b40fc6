//! Devices: their files, every kind of runner on stand-ins that this machine has, and the commands that use them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use aludel::graph::op::{DequantizeLinear, QuantizeLinear, Softmax};
use aludel::graph::tensor::{DType, Tensor};
use aludel::graph::{Dim, GraphBuilder, Model, Op, TensorType};
use aludel::learn::integer::Arithmetic;
use aludel::measure::agent::Values;
use aludel::measure::runtime::remote::{self, AgentReport, Figures, Measuring, RemoteError};
use aludel::measure::runtime::tract::Tract;
use aludel::measure::runtime::{ModelBytes, Options, Runtime as _};
use aludel::measure::target::{self, Target};
use aludel::onnx;
use serde_json::Value;

use crate::support;

const AGENT: &str = env!("CARGO_BIN_EXE_aludel-edge");

/// `[2, 64]` in, a product with `[64, 16]`, softmax.
fn model() -> ModelBytes {
    let mut builder = GraphBuilder::new("small");
    let x = builder.input("x", TensorType::new(DType::F32, [Dim::from(2), Dim::from(64)]));
    let weight = (0..64 * 16).map(|idx| ((idx * 7 % 13) as f32 - 6.0) / 16.0).collect();
    let weight = builder.initializer("weight", Tensor::new(&[64, 16], weight).expect("64 by 16"));
    let x = builder.node(Op::MatMul, &[&x, &weight]);
    let y = builder.node(Op::Softmax(Softmax::default()), &[&x]);
    builder.output(&y);
    let model = Model { opset: 17, ir_version: 8, ..Model::new(builder.finish().expect("a graph")) };
    ModelBytes::new(onnx::to_bytes(&model).expect("it can be written"))
}

fn feeds(n: usize) -> Vec<Values> {
    let feed = |run_idx: usize| {
        let numbers = (0..128).map(|idx| ((idx * 5 + run_idx * 11) % 17) as f32 / 8.0 - 1.0).collect();
        vec![("x".to_owned(), Tensor::new(&[2, 64], numbers).expect("2 by 64"))]
    };
    (0..n).map(feed).collect()
}

/// A device with this runner, out of a file as a user would write it.
fn device(folder: &Path, runner: &str) -> Target {
    let path = folder.join("board.toml");
    fs::write(&path, format!("arch = 'native'\nruntime = 'tract'\n[runner]\n{runner}\n")).expect("the folder is ours");
    target::read(&path).expect("the file is right")
}

fn local(folder: &Path) -> Target {
    device(folder, &format!("kind = 'local'\nagent = '{AGENT}'"))
}

fn quick() -> Measuring {
    Measuring { budget_s: 0.2, ..Measuring::default() }
}

fn run(target: &Target) -> Result<AgentReport, RemoteError> {
    remote::run_agent(target, &model(), &feeds(3), &quick())
}

/// The device's outputs are those of tract here.
fn agrees(report: &AgentReport, tolerance: f64) {
    let mut session = Tract.load(&model(), &Options::default()).expect("tract loads it");
    let expected = session.run_all(&feeds(3)).expect("tract runs it");
    assert_eq!(report.outputs.len(), 3);
    for (expected, got) in expected.iter().zip(&report.outputs) {
        assert_eq!((expected[0].0.as_str(), expected.len()), (got[0].0.as_str(), got.len()));
        support::close(&expected[0].1, &got[0].1, 0.0, tolerance).expect("the same values");
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// A shell script as a program.
fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, format!("set -e\n{text}\n")).expect("the folder is ours");
    path
}

fn commanded(folder: &Path, text: &str, more: &str) -> Target {
    let path = script(folder, "runner.sh", text);
    device(folder, &format!("kind = 'command'\ncommand = ['sh', '{}', 'one two']\n{more}", path.display()))
}

fn aludel(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_aludel")).args(arguments).output().expect("the program starts")
}

/// Standard output of a call that ends with this code.
fn stdout(arguments: &[&str], code: i32) -> String {
    let output = aludel(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "aludel {}: {stderr}", arguments.join(" "));
    String::from_utf8(output.stdout).expect("the program writes UTF-8")
}

fn json(arguments: &[&str], code: i32) -> Value {
    serde_json::from_str(&stdout(arguments, code)).expect("JSON")
}

fn refusal(arguments: &[&str]) -> String {
    let output = aludel(arguments);
    assert_eq!(output.status.code(), Some(2), "aludel {}", arguments.join(" "));
    String::from_utf8(output.stderr).expect("the program writes UTF-8")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders are UTF-8")
}

fn written(folder: &Path) -> PathBuf {
    let path = folder.join("small.onnx");
    fs::write(&path, model().bytes()).expect("the folder is ours");
    path
}

#[test]
fn arithmetics_have_the_names_that_compare_takes() {
    assert_eq!(target::ARITHMETICS, Arithmetic::NAMED.map(|(name, _)| name));
}

#[test]
fn built_in_devices_are_listed_and_shown() {
    let listed = json(&["targets", "list", "--json"], 0);
    let names: Vec<&str> = listed.as_array().expect("rows").iter().filter_map(|row| row["name"].as_str()).collect();
    assert_eq!(names, target::names().collect::<Vec<_>>());
    assert!(stdout(&["targets", "list"], 0).contains("raspberry-pi-zero-2"));
    let shown = stdout(&["targets", "show", "cortex-m4f"], 0);
    assert!(shown.contains("128 KiB") && shown.contains("none: no device is at hand"), "{shown}");
    assert_eq!(json(&["targets", "show", "host", "--json"], 0)["runner"]["kind"], "local");
    // What is printed as a file makes the same device.
    let folder = folder();
    let path = folder.path().join("raspberry-pi-5.toml");
    fs::write(&path, stdout(&["targets", "show", "raspberry-pi-5", "--toml"], 0)).expect("the folder is ours");
    assert_eq!(target::read(&path).ok(), target::find("raspberry-pi-5").ok());
}

#[test]
fn bad_files_are_refused_with_their_key_and_a_remedy() {
    let folder = folder();
    let path = folder.path().join("bad.toml");
    fs::write(&path, "arch = 'arm'\nn_coers = 4\n").expect("the folder is ours");
    let said = refusal(&["targets", "show", text(&path)]);
    for part in ["bad.toml", "n_coers", "n_cores", "hint: "] {
        assert!(said.contains(part), "`{part}` is not in\n{said}");
    }
    let said = refusal(&["targets", "probe", "raspberry-pi-6"]);
    assert!(said.contains("raspberry-pi-6") && said.contains("raspberry-pi-5") && said.contains("hint: "), "{said}");
    let said = refusal(&["bench", text(&written(folder.path())), "--target", "host", "--threads", "2"]);
    assert!(said.contains("--threads"), "{said}");
}

#[test]
fn a_process_on_this_machine_is_a_device() {
    let folder = folder();
    let report = run(&local(folder.path())).expect("the agent answers");
    agrees(&report, 0.0);
    let Figures::Device(measured) = &report.figures else { panic!("nothing is emulated here") };
    let latency = measured.latency.as_ref().expect("it was asked for");
    assert!(latency.n > 10 && latency.median_us > 0.0 && measured.load_us > Some(0.0), "{measured:?}");
    assert!(measured.machine.as_ref().is_some_and(|machine| machine.n_cpus >= 1));
    assert!(!cfg!(target_os = "linux") || measured.memory.is_some_and(|memory| memory.rss_peak_bytes > 1 << 20));
    assert_eq!(report.runtime.map(|runtime| runtime.name).as_deref(), Some("tract"));
    let untimed = Measuring { budget_s: 0.0, ..Measuring::default() };
    let report = remote::run_agent(&local(folder.path()), &model(), &feeds(3), &untimed).expect("the agent answers");
    assert_eq!(report.figures.latency(), None);
}

#[test]
fn what_a_device_cannot_do_is_said_with_target_and_remedy() {
    let folder = folder();
    let none = remote::run_agent(&target::find("raspberry-pi-4").expect("built in"), &model(), &[], &quick());
    let none = none.expect_err("no device is at hand");
    assert!(none.to_string().starts_with("raspberry-pi-4: no device") && none.hint().contains("[runner]"), "{none}");
    let absent = run(&device(folder.path(), "kind = 'local'\nagent = 'absent'")).expect_err("there is no such program");
    assert!(
        absent.to_string().contains("board: cannot run the agent") && absent.to_string().contains("absent"),
        "{absent}"
    );
    let other = vec![vec![("y".to_owned(), Tensor::scalar(1f32))]];
    let refused = remote::run_agent(&local(folder.path()), &model(), &other, &quick()).expect_err("there is no y");
    assert!(
        refused.to_string().contains("board: the device says: ") && refused.to_string().contains("`y`"),
        "{refused}"
    );
    let path = folder.path().join("ort.toml");
    fs::write(&path, "base = 'x86-avx2'\nrunner = { kind = 'local' }").expect("the folder is ours");
    let ort = run(&target::read(&path).expect("a device")).expect_err("the agent has tract only");
    assert!(ort.hint().contains("runtime = \"tract\""), "{ort}");
}

#[cfg(unix)]
#[test]
fn any_program_that_speaks_the_protocol_is_a_device() {
    let folder = folder();
    // The folder is the last argument; our own agent speaks the protocol as well.
    let serve = format!("test \"$1\" = 'one two'\n'{AGENT}' --serve \"$2\"");
    let report = run(&commanded(folder.path(), &serve, "")).expect("it answers");
    agrees(&report, 0.0);
    assert!(report.figures.latency().is_some());
    let report = run(&commanded(folder.path(), &serve, "is_emulated = true")).expect("it answers");
    agrees(&report, 0.0);
    assert_eq!((report.figures.is_emulated(), report.figures.latency()), (true, None));
    // A board that gives single times and leaves the rest to us.
    let board = r#"grep -q '"runtime": "tract"' "$2/request.json"
printf '\000\000\200\077' > "$2/outputs.raw"
cat > "$2/response.json" <<'END'
{ "protocol": 1, "program": { "name": "board", "version": "3" }, "samples_us": [4, 5, 6, 7, 8, 9, 10],
  "runs": [[{ "name": "y", "dtype": "f32", "shape": [1], "offset": 0 }]] }
END"#;
    let target = commanded(folder.path(), board, "");
    let report = remote::run_agent(&target, &model(), &feeds(1), &quick()).expect("it answers");
    assert_eq!(report.outputs, [[("y".to_owned(), Tensor::vector(vec![1f32]))]]);
    assert_eq!(report.figures.latency().map(|latency| (latency.n, latency.median_us)), Some((7, 7.0)));
    let few = remote::run_agent(&target, &model(), &feeds(2), &quick()).expect_err("outputs of one run only");
    assert!(few.to_string().contains("of 1 runs, not of 2"), "{few}");
}

#[cfg(unix)]
#[test]
fn programs_that_do_not_answer_are_errors() {
    let folder = folder();
    let said = |text: &str, more: &str| run(&commanded(folder.path(), text, more)).expect_err("no answer").to_string();
    let failed = said("echo 'the probe is not plugged in' >&2; exit 7", "");
    assert!(
        failed.contains("exit code 7") && failed.contains("not plugged in") && failed.starts_with("board: "),
        "{failed}"
    );
    assert!(said("true", "").contains("it wrote no response.json"));
    let began = Instant::now();
    // What it leaves behind holds its pipes open.
    let slow = said("sleep 30 & sleep 30", "timeout_s = 1");
    assert!(slow.contains("took longer than 1 s") && began.elapsed() < Duration::from_secs(20), "{slow}");
    let answer = |json: &str| said(&format!("echo '{json}' > \"$2/response.json\""), "");
    assert!(answer("{").contains("cannot be used"));
    assert!(answer(r#"{ "protocol": 9 }"#).contains("speaks protocol 9, expected protocol 1"));
    let old = answer(r#"{ "protocol": 1, "program": { "name": "aludel-edge", "version": "0.0.1" } }"#);
    assert!(old.contains("speaks aludel-edge 0.0.1"), "{old}");
    let words = answer(r#"{ "protocol": 1, "program": { "name": "b", "version": "1" }, "error": "too hot" }"#);
    assert_eq!(words, "board: the device says: too hot");
    let short = answer(
        r#"{ "protocol": 1, "program": { "name": "b", "version": "1" }, "runs": [[{ "name": "y", "dtype": "f32", "shape": [4], "offset": 0 }]] }"#,
    );
    assert!(short.contains("more than the 0 that there are"), "{short}");
}

/// An sshd of our own on a port of its own, ended when dropped.
#[cfg(unix)]
struct Sshd {
    process: Child,
    port: u16,
    folder: tempfile::TempDir,
}

#[cfg(unix)]
impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(unix)]
impl Sshd {
    /// None, said aloud, where there is no sshd.
    fn start() -> Option<Sshd> {
        let program = PathBuf::from(std::env::var_os("ALUDEL_SSHD").unwrap_or_else(|| "/usr/sbin/sshd".into()));
        if !program.is_file() || Command::new("ssh").arg("-V").stderr(Stdio::null()).status().is_err() {
            support::left_out("there is no sshd (openssh-server) or no ssh");
            return None;
        }
        let folder = folder();
        let key = |name: &str| {
            let path = folder.path().join(name);
            let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path).status();
            assert!(made.is_ok_and(|status| status.success()), "ssh-keygen");
            (path.clone(), fs::read_to_string(path.with_extension("pub")).expect("a key has two files"))
        };
        let ((host_key, host), (_, user)) = (key("host"), key("user"));
        let port =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
        let write = |name: &str, text: String| {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("the folder is ours");
            path
        };
        let allowed = write("allowed", user);
        write("known", format!("[127.0.0.1]:{port} {host}"));
        let config = write(
            "config",
            format!(
                "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\n\
                 PermitRootLogin prohibit-password\nPasswordAuthentication no\nSubsystem sftp internal-sftp\n",
                host_key.display(),
                allowed.display()
            ),
        );
        // sshd wants its folder; what starts it usually makes it.
        let _ = fs::create_dir_all("/run/sshd");
        let log = fs::File::create(folder.path().join("log")).expect("the folder is ours");
        let process = Command::new(program)
            .args(["-D", "-e", "-f"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let sshd = Sshd { process: process.expect("sshd starts"), port, folder };
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = fs::read_to_string(sshd.folder.path().join("log")).unwrap_or_default();
            assert!(began.elapsed() < Duration::from_secs(20), "sshd does not listen: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(sshd)
    }

    fn target(&self, more: &str) -> Target {
        let known = self.folder.path().join("known");
        let runner = format!(
            "kind = 'ssh'\nhost = '127.0.0.1'\nport = {}\nidentity = 'user'\ntimeout_s = 60\n\
             options = ['IdentitiesOnly=yes', 'StrictHostKeyChecking=yes', 'UserKnownHostsFile={}', 'IdentityAgent=none']\n{more}",
            self.port,
            known.display()
        );
        device(self.folder.path(), &runner)
    }
}

#[cfg(unix)]
fn listed(folder: &Path) -> Vec<(String, std::time::SystemTime)> {
    let entries = fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("it can be read"));
    let dated = entries.map(|entry| {
        let date = entry.metadata().and_then(|metadata| metadata.modified()).expect("files are dated");
        (entry.file_name().to_string_lossy().into_owned(), date)
    });
    let mut dated: Vec<_> = dated.collect();
    dated.sort();
    dated
}

#[cfg(unix)]
#[test]
fn a_machine_behind_ssh_is_a_device() {
    let Some(sshd) = Sshd::start() else { return };
    let report = run(&sshd.target(&format!("agent = '{AGENT}'"))).expect("the agent answers");
    agrees(&report, 0.0);
    assert!(report.figures.latency().is_some());

    // With a folder to keep, model and agent stay there under their hash; the job's own folder goes.
    let kept = sshd.folder.path().join("kept");
    let target = sshd.target(&format!("push = '{AGENT}'\nfolder = '{}'", kept.display()));
    agrees(&run(&target).expect("the agent answers"), 0.0);
    let first = listed(&kept);
    let names: Vec<&str> = first.iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.len() == 2 && names.iter().any(|name| name.ends_with(".onnx")), "{names:?}");
    assert!(names.iter().any(|name| name.starts_with("aludel-edge-")), "{names:?}");
    agrees(&run(&target).expect("the agent answers"), 0.0);
    assert_eq!(listed(&kept), first, "nothing is pushed twice");
    assert!(!remote::probe(&target).expect("the agent answers").is_emulated);

    let absent = run(&sshd.target("agent = '/absent/agent'")).expect_err("there is no such agent").to_string();
    assert!(absent.contains("cannot run the agent") && absent.contains("/absent/agent"), "{absent}");
    let quoted = run(&sshd.target("agent = \"it's; touch /tmp/x\"")).expect_err("no such agent").to_string();
    assert!(quoted.contains("it's; touch /tmp/x"), "{quoted}");
    let stranger = run(&sshd.target("user = 'nobody-of-that-name'")).expect_err("no such user").to_string();
    assert!(
        stranger.contains("cannot make a folder on the device") && stranger.contains("Permission denied"),
        "{stranger}"
    );
}

/// Under emulation of `program`, with this agent for the emulated machine.
fn emulated(program: &str, agent: &str, more: &str, tolerance: f64) {
    let folder = folder();
    let runner = format!("kind = 'qemu'\nprogram = '{program}'\nagent = '{agent}'\n{more}");
    let target = device(folder.path(), &runner);
    let report = run(&target).expect("the agent answers");
    agrees(&report, tolerance);
    assert_eq!(report.figures, Figures::Emulator);
    let probed = remote::probe(&target).expect("the agent answers");
    assert!(probed.is_emulated && probed.probe.rate.is_none() && probed.probe.machine.memory_bytes.is_none());
    let (model, board) = (written(folder.path()), folder.path().join("board.toml"));
    let shown = stdout(&["bench", text(&model), "--target", text(&board)], 0);
    assert!(shown.contains("is emulated") && !shown.contains(" µs") && !shown.contains(" ms"), "{shown}");
    let report = json(&["bench", text(&model), "--target", text(&board), "--json"], 0);
    assert_eq!(report["rows"][0]["figures"], serde_json::json!({ "measured_on": "emulator" }));
}

#[test]
fn an_emulator_gives_values_and_no_times() {
    if cfg!(not(all(target_os = "linux", target_arch = "x86_64"))) {
        return;
    }
    match ["qemu-x86_64", "qemu-x86_64-static"]
        .into_iter()
        .find(|program| Command::new(program).arg("--version").output().is_ok())
    {
        Some(program) => emulated(program, AGENT, "cpu = 'max'", 1e-6),
        None => support::left_out("there is no qemu-x86_64 (qemu-user)"),
    }
    // A cross-built agent takes minutes to build: `aludel targets build raspberry-pi-4`.
    let Ok(agent) = std::env::var("ALUDEL_EDGE_AARCH64") else { return };
    let more =
        "cpu = 'cortex-a72'\nsysroot = '/usr/aarch64-linux-gnu'\nenvironment = { TRACT_CPU_AARCH64_KIND = 'a72' }";
    emulated("qemu-aarch64-static", &agent, more, 1e-5);
}

#[test]
fn devices_are_benched_and_compared() {
    let folder = folder();
    let model = written(folder.path());
    // The agent lies beside the program.
    let report = json(&["bench", text(&model), "--target", "host", "--seconds", "0.3", "--json"], 0);
    let figures = &report["rows"][0]["figures"];
    assert!(figures["measured_on"] == "device" && figures["latency"]["median_us"].is_number(), "{report}");
    let board = folder.path().join("tight.toml");
    fs::write(&board, "base = 'host'\nbudget = { latency_p95_ms = 1e-6, size_kib = 1 }").expect("the folder is ours");
    let shown = stdout(&["bench", text(&model), "--target", text(&board), "--seconds", "0.3"], 0);
    assert!(shown.contains("over budget: ") && shown.contains("allowed are 1 KiB"), "{shown}");
    let shown = stdout(&["bench", text(&model), "--target", "raspberry-pi-4,host", "--seconds", "0.3"], 2);
    assert!(shown.contains("refused: ") && shown.contains("no device is at hand"), "{shown}");
    let report = json(&["compare", text(&model), "--runtime", "tract", "--target", "host", "--json"], 0);
    assert_eq!((&report["rows"][0]["n_different"], &report["n_runs"]), (&Value::from(0), &Value::from(4)));
    assert!(report["rows"][0]["other"].as_str().is_some_and(|label| label.ends_with("· host")), "{report}");
}

#[test]
fn a_device_says_what_it_is() {
    let probe = json(&["targets", "probe", "host", "--json"], 0);
    assert!(probe["probe"]["rate"]["gflops"].as_f64() > Some(0.0), "{probe}");
    assert_eq!((&probe["is_emulated"], &probe["differences"]), (&Value::from(false), &serde_json::json!([])));
    let folder = folder();
    let board = folder.path().join("other.toml");
    fs::write(&board, "base = 'raspberry-pi-5'\nn_cores = 999\nrunner = { kind = 'local' }")
        .expect("the folder is ours");
    let shown = stdout(&["targets", "probe", text(&board)], 0);
    assert!(shown.contains("GFLOP/s") && shown.contains("not as in its file: it has "), "{shown}");
}

#[test]
fn networks_fit_or_do_not() {
    let folder = folder();
    let model = written(folder.path());
    let report = json(&["targets", "fits", "cortex-m4f", text(&model), "--json"], 0);
    let needed: Vec<u64> =
        report["rows"].as_array().expect("rows").iter().filter_map(|row| row["needed_bytes"].as_u64()).collect();
    // The input 2 × 64, the product and the softmax 2 × 16; the weights 64 × 16.
    assert_eq!(needed, [4 * (128 + 32 + 32), 4 * 64 * 16]);
    let board = folder.path().join("tiny.toml");
    fs::write(&board, "base = 'cortex-m4f'\nflash_bytes = 4095").expect("the folder is ours");
    let shown = stdout(&["targets", "fits", text(&board), text(&model)], 1);
    assert!(shown.contains("does not fit tiny") && shown.contains("100.0 %"), "{shown}");
    fs::write(&board, "base = 'cortex-m4f'\nbudget = { memory_kib = 0.5 }").expect("the folder is ours");
    assert!(stdout(&["targets", "fits", text(&board), text(&model)], 1).contains("(budget)"));
    let said = refusal(&["targets", "fits", "x86-avx2", text(&model)]);
    assert!(said.contains("nothing to fit into"), "{said}");
}

/// Between Q/DQ a network is counted as it computes: in bytes.
#[test]
fn a_quantized_network_is_counted_on_integers() {
    let mut builder = GraphBuilder::new("quantized");
    let x = builder.input("x", TensorType::new(DType::F32, [Dim::from(1), Dim::from(64)]));
    let scale = builder.initializer("scale", Tensor::scalar(0.125f32));
    let zero = builder.initializer("zero", Tensor::scalar(0i8));
    let weight = builder.initializer("weight", Tensor::new(&[64, 16], vec![1i8; 64 * 16]).expect("64 by 16"));
    let quantize = Op::QuantizeLinear(QuantizeLinear::default());
    let dequantize = Op::DequantizeLinear(DequantizeLinear::default());
    let x = builder.node(quantize.clone(), &[&x, &scale, &zero]);
    let x = builder.node(dequantize.clone(), &[&x, &scale, &zero]);
    let weight = builder.node(dequantize.clone(), &[&weight, &scale, &zero]);
    let y = builder.node(Op::MatMul, &[&x, &weight]);
    let y = builder.node(quantize, &[&y, &scale, &zero]);
    let y = builder.node(dequantize, &[&y, &scale, &zero]);
    builder.output(&y);
    let model = Model { opset: 17, ir_version: 8, ..Model::new(builder.finish().expect("a graph")) };
    let folder = folder();
    let path = folder.path().join("quantized.onnx");
    fs::write(&path, onnx::to_bytes(&model).expect("it can be written")).expect("the folder is ours");
    let report = json(&["targets", "fits", "cortex-m4f", text(&path), "--json"], 0);
    assert_eq!(report["n_lowered"], 1);
    // The input stays in floats; while it is quantized both forms are there, and more than the product is never.
    assert_eq!(report["rows"][0]["needed_bytes"], 4 * 64 + 64 + 16);
    assert!(report["rows"][1]["needed_bytes"].as_u64() < Some(64 * 16 + 64), "{report}");
}

#[test]
fn what_is_missing_to_build_an_agent_is_said() {
    let folder = folder();
    let board = folder.path().join("odd.toml");
    fs::write(&board, "arch = 'odd'\nbuild = 'odd-unknown-none'").expect("the folder is ours");
    let said = refusal(&["targets", "build", text(&board)]);
    assert!(said.contains("rustup target add odd-unknown-none") && said.contains("hint: "), "{said}");
    let said = refusal(&["targets", "build", "cortex-m7"]);
    assert!(said.contains("`build`"), "{said}");
    let output = Command::new(env!("CARGO_BIN_EXE_aludel"))
        .args(["targets", "build", "host"])
        .current_dir(folder.path())
        .output();
    let said = String::from_utf8(output.expect("the program starts").stderr).expect("UTF-8");
    assert!(said.contains("does not hold aludel's sources"), "{said}");
}

/// The file in the agent is what it is said to be.
#[test]
fn the_product_that_a_probe_times_is_one_of_256() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("targets/product.onnx");
    let graph = onnx::read(&path).expect("it can be read").graph;
    insta::assert_snapshot!(aludel::graph::show::show(&graph), @r#"
    graph "product"
      in   %a: f32[256, 256]
      in   %b: f32[256, 256]
      out  %c: f32[256, 256]
      %c = MatMul(%a, %b)
    "#);
}
