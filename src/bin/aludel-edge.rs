//! The agent for small devices: one model, some inputs, tract; figures and outputs as JSON on stdout.
//!
//! Built without everything else: `cargo build --release --no-default-features --features edge --bin aludel-edge`.

#![allow(clippy::print_stderr)] // a program

use std::collections::HashMap;
use std::fmt::Display;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use aludel::graph::tensor::{DType, Tensor};
use aludel::measure::agent::{self, Memory, Program, Request, Response};
use aludel::measure::inputs::{self, Bindings};
use aludel::measure::latency::{self, Contender, Latency, timed};
use aludel::measure::machine::Machine;
use aludel::measure::memory::{self, Resident};
use aludel::measure::probe;
use aludel::measure::runtime::tract::Tract;
use aludel::measure::runtime::{ModelBytes, Optimization, Options, Runtime as _, RuntimeError, Session};
use serde_json::{Value, json};

const HELP: &str = "\
Runs an ONNX model on this device with tract, and prints what it computed and how long it took as JSON.

Usage: aludel-edge [OPTIONS] MODEL.onnx
       aludel-edge --probe
       aludel-edge --serve FOLDER

  --probe         say what this device is and how it is doing: clocks, heat, throttling, memory, rate of a matrix product
  --serve FOLDER  answer FOLDER/request.json in FOLDER/response.json and FOLDER/outputs.raw: what `aludel --target` starts

Inputs, by name; those not named are random:
  --inputs FILE            JSON: {\"NAME\": {\"dtype\": \"f32\", \"shape\": [1, 3], \"file\": \"x.raw\"}, …};
                           files are little-endian elements, row-major, found beside FILE
  --input NAME=DTYPE:SHAPE:FILE   the same for one input, for instance x=f32:1x3:x.raw (no SHAPE: a scalar)
  --random SEED            seed of the random inputs [default: 0], the same as in `aludel bench` and `compare`
  --bind DIM=SIZE          number for an open dimension: its name, or INPUT#AXIS [default: 1]

Measuring:
  --budget SECONDS         time for measuring; 0 runs once only [default: 10]
  --width RATIO            stop when the median's 95 % interval is this narrow [default: 0.02]
  --threads N              threads that a run may use [default: 1]
  --optimization LEVEL     none, basic or all [default: all]

Output:
  --outputs FOLDER         write each output's elements to FOLDER/NUMBER.raw; the JSON names the files
  --help, --version

Types: f64 f32 f16 i64 i32 i16 i8 u64 u32 u16 u8 bool.
Exit codes: 0 done, 2 an error (on stderr).
";

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)).and_then(|task| work(&task)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// What the command line asks for.
enum Task {
    /// Was answered already.
    Answered,
    Probe,
    Serve(PathBuf),
    Measure(Box<Arguments>),
}

struct Arguments {
    model: PathBuf,
    given: Vec<Given>,
    seed: u64,
    bindings: Bindings,
    measuring: latency::Options,
    options: Options,
    outputs: Option<PathBuf>,
}

struct Given {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    file: PathBuf,
}

/// Answers `--help` and `--version` itself.
fn parse(words: impl Iterator<Item = String>) -> Result<Task, String> {
    let mut model = None;
    let mut arguments = Arguments {
        model: PathBuf::new(),
        given: Vec::new(),
        seed: 0,
        bindings: Bindings::new(),
        measuring: latency::Options::default(),
        options: Options::default(),
        outputs: None,
    };
    // `--name=value` is `--name value`; an `=` further on belongs to the value.
    let mut words = words.flat_map(|word| match word.split_once('=') {
        Some((name, value)) if name.starts_with("--") => vec![name.to_owned(), value.to_owned()],
        Some(_) | None => vec![word],
    });
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--help" | "-h" => {
                say(HELP)?;
                return Ok(Task::Answered);
            }
            "--version" | "-V" => {
                say(&format!("aludel-edge {} (tract {})\n", env!("CARGO_PKG_VERSION"), Tract.version()))?;
                return Ok(Task::Answered);
            }
            "--probe" => return Ok(Task::Probe),
            "--serve" => return Ok(Task::Serve(PathBuf::from(value()?))),
            "--inputs" => arguments.given.extend(listed_inputs(Path::new(&value()?))?),
            "--input" => arguments.given.push(input(&value()?)?),
            "--random" => arguments.seed = number(&word, &value()?)?,
            "--bind" => {
                let value = value()?;
                let (name, size) = value.rsplit_once('=').ok_or_else(|| format!("--bind {value}: no `=`"))?;
                arguments.bindings.insert(name.to_owned(), number(&word, size)?);
            }
            "--budget" => {
                let seconds: f64 = number(&word, &value()?)?;
                let measuring = arguments.measuring.with_budget_s(seconds);
                arguments.measuring = measuring.ok_or_else(|| format!("{word} {seconds}: not a time"))?;
            }
            "--width" => arguments.measuring.relative_width = number(&word, &value()?)?,
            "--threads" => arguments.options.n_threads = number::<std::num::NonZeroUsize>(&word, &value()?)?.get(),
            "--optimization" => arguments.options.optimization = optimization(&value()?)?,
            "--outputs" => arguments.outputs = Some(PathBuf::from(value()?)),
            option if option.starts_with('-') => return Err(format!("unknown option {option}; --help lists them")),
            _ if model.is_some() => return Err(format!("more than one model: {word}")),
            _ => model = Some(PathBuf::from(&word)),
        }
    }
    arguments.model = model.ok_or("no model is given; --help says how")?;
    Ok(Task::Measure(Box::new(arguments)))
}

fn number<T: std::str::FromStr<Err: Display>>(option: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("{option} {text}: {error}"))
}

fn optimization(text: &str) -> Result<Optimization, String> {
    match text {
        "none" => Ok(Optimization::None),
        "basic" => Ok(Optimization::Basic),
        "all" => Ok(Optimization::All),
        _ => Err(format!("--optimization {text}: expected none, basic or all")),
    }
}

/// `NAME=DTYPE:SHAPE:FILE`; names may hold `:` and `=`, files may not hold `=`.
fn input(text: &str) -> Result<Given, String> {
    let wrong = || format!("--input {text}: expected NAME=DTYPE:SHAPE:FILE");
    let (name, rest) = text.rsplit_once('=').ok_or_else(wrong)?;
    let mut parts = rest.splitn(3, ':');
    let (Some(dtype), Some(shape), Some(file)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(wrong());
    };
    let dims = shape.split('x').filter(|dim| !dim.is_empty());
    let shape = dims.map(|dim| number("--input", dim)).collect::<Result<_, _>>()?;
    let dtype = DType::from_name(dtype).ok_or_else(|| format!("--input {text}: there is no type {dtype}"))?;
    Ok(Given { name: name.to_owned(), dtype, shape, file: PathBuf::from(file) })
}

fn listed_inputs(list: &Path) -> Result<Vec<Given>, String> {
    let wrong = |error: &dyn Display| format!("{}: {error}", list.display());
    let text = fs::read_to_string(list).map_err(|error| wrong(&error))?;
    let rows: HashMap<String, Value> = serde_json::from_str(&text).map_err(|error| wrong(&error))?;
    let folder = list.parent().unwrap_or(Path::new(""));
    let given = |(name, row): (String, Value)| {
        let missing = |what: &str| wrong(&format!("input `{name}`: no {what}"));
        let dtype = row["dtype"].as_str().and_then(DType::from_name).ok_or_else(|| missing("dtype that is known"))?;
        let dims = row["shape"].as_array().ok_or_else(|| missing("shape"))?.iter();
        let shape = dims.map(|dim| dim.as_u64().and_then(|dim| usize::try_from(dim).ok())).collect::<Option<_>>();
        let shape = shape.ok_or_else(|| missing("shape of non-negative numbers"))?;
        let file = folder.join(row["file"].as_str().ok_or_else(|| missing("file"))?);
        Ok(Given { name, dtype, shape, file })
    };
    rows.into_iter().map(given).collect()
}

fn read(given: &Given) -> Result<(String, Tensor), String> {
    let wrong = |error: &dyn Display| format!("input `{}`, {}: {error}", given.name, given.file.display());
    let bytes = fs::read(&given.file).map_err(|error| wrong(&error))?;
    let tensor = Tensor::from_bytes(given.dtype, &given.shape, bytes.into()).map_err(|error| wrong(&error))?;
    Ok((given.name.clone(), tensor))
}

fn work(task: &Task) -> Result<(), String> {
    match task {
        Task::Answered => Ok(()),
        Task::Probe => {
            let probe = probe::probe(vcgencmd().as_deref()).map_err(|error| explained(&error))?;
            say(&format!("{:#}\n", json!(probe)))
        }
        Task::Serve(folder) => serve(folder),
        Task::Measure(arguments) => report(arguments),
    }
}

/// What the Raspberry Pi's own tool says of throttling, where it is.
fn vcgencmd() -> Option<String> {
    let output = Command::new("vcgencmd").arg("get_throttled").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn report(arguments: &Arguments) -> Result<(), String> {
    let mut loaded = load(&arguments.model, &arguments.options)?;
    let given = all_inputs(arguments, loaded.session.as_ref())?;
    let (outputs, first_run) = timed(|| loaded.session.run(&given));
    let outputs = outputs.map_err(|error| explained(&error))?;
    let after = memory::resident();
    let latency = measure(&arguments.measuring, loaded.session.as_mut(), &given)?;
    let report = json!({
        "program": Program::agent(),
        "runtime": { "name": Tract.name(), "version": Tract.version(), "threads": arguments.options.n_threads,
            "optimization": arguments.options.optimization },
        "machine": Machine::this(),
        "model": { "path": arguments.model, "size_bytes": loaded.size_bytes },
        "inputs": given.iter().map(|(name, tensor)| described(name, tensor)).collect::<Vec<_>>(),
        "outputs": write_outputs(arguments, &outputs)?,
        "load_us": loaded.time_us,
        "first_run_us": first_run.as_secs_f64() * 1e6,
        "latency": latency,
        "memory": resident(&loaded.before, &after).map_or_else(|reason| json!({ "unknown": reason }), |memory| json!(memory)),
    });
    say(&format!("{report:#}\n"))
}

/// A model that is loaded, and what that took.
struct Loaded {
    session: Box<dyn Session>,
    size_bytes: usize,
    time_us: f64,
    before: Result<Resident, String>,
}

fn load(path: &Path, options: &Options) -> Result<Loaded, String> {
    let before = memory::resident();
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let size_bytes = bytes.len();
    let model = ModelBytes::new(bytes).at(path);
    let (session, time) = timed(|| Tract.load(&model, options));
    let session = session.map_err(|error| explained(&error))?;
    Ok(Loaded { session, size_bytes, time_us: time.as_secs_f64() * 1e6, before })
}

/// Answers a request. What cannot be done is an answer, too; only one that cannot be written is an error.
fn serve(folder: &Path) -> Result<(), String> {
    let response = answer(folder).unwrap_or_else(|reason| {
        let mut response = Response::new(Program::agent());
        response.error = Some(reason);
        response
    });
    let path = folder.join(agent::RESPONSE);
    let text = serde_json::to_vec_pretty(&response).map_err(|error| error.to_string())?;
    fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn answer(folder: &Path) -> Result<Response, String> {
    let path = folder.join(agent::REQUEST);
    let wrong = |error: &dyn Display| format!("{}: {error}", path.display());
    let text = fs::read(&path).map_err(|error| wrong(&error))?;
    let request: Request = serde_json::from_slice(&text).map_err(|error| wrong(&error))?;
    if request.protocol != agent::PROTOCOL {
        return Err(format!("it was asked in protocol {}, and speaks {}", request.protocol, agent::PROTOCOL));
    }
    let mut response = Response::new(Program::agent());
    match &request.task {
        agent::Task::Probe => {
            response.probe = Some(probe::probe(vcgencmd().as_deref()).map_err(|error| explained(&error))?);
        }
        agent::Task::Measure(task) => answer_measure(folder, task, &mut response)?,
    }
    Ok(response)
}

fn answer_measure(folder: &Path, task: &agent::Measure, response: &mut Response) -> Result<(), String> {
    if task.runtime != Tract.name() {
        return Err(format!("it has tract only, not {}", task.runtime));
    }
    let path = folder.join(agent::INPUTS);
    let inputs = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let runs = agent::unpack(&task.runs, &inputs.into())?;
    let options = Options { n_threads: task.n_threads.max(1), optimization: task.optimization, ..Options::default() };
    let mut loaded = load(&folder.join(&task.model), &options)?;
    let mut outputs = Vec::with_capacity(runs.len());
    let mut first = None;
    for run in &runs {
        let (values, time) = timed(|| loaded.session.run(run));
        outputs.push(values.map_err(|error| explained(&error))?);
        first.get_or_insert_with(|| (time.as_secs_f64() * 1e6, memory::resident()));
    }
    let (arrays, bytes) = agent::pack(&outputs)?;
    let path = folder.join(agent::OUTPUTS);
    fs::write(&path, bytes).map_err(|error| format!("{}: {error}", path.display()))?;
    if let (Some(run), Some((time_us, after))) = (runs.first(), first) {
        let measuring = latency::Options { relative_width: task.relative_width, ..latency::Options::default() };
        let measuring =
            measuring.with_budget_s(task.budget_s).ok_or_else(|| format!("{} s is no time", task.budget_s))?;
        response.latency = measure(&measuring, loaded.session.as_mut(), run)?;
        response.first_run_us = Some(time_us);
        response.memory = resident(&loaded.before, &after).ok();
    }
    response.runs = arrays;
    response.load_us = Some(loaded.time_us);
    response.machine = Some(Machine::this());
    response.runtime = Some(Program { name: Tract.name().to_owned(), version: Tract.version() });
    Ok(())
}

/// To stdout; a reader that has seen enough and closed it is no error.
fn say(text: &str) -> Result<(), String> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("stdout: {error}")),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn explained(error: &RuntimeError) -> String {
    format!("{error}\nhint: {}", error.hint())
}

/// The given inputs, the others random.
fn all_inputs(arguments: &Arguments, session: &dyn Session) -> Result<Vec<(String, Tensor)>, String> {
    let mut tensors = arguments.given.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    inputs::check_bindings(session.inputs(), &arguments.bindings).map_err(|error| error.to_string())?;
    let is_given = |name: &str| arguments.given.iter().any(|given| given.name == name);
    for info in session.inputs().iter().filter(|info| !is_given(&info.name)) {
        let tensor = inputs::random_one(info, &arguments.bindings, arguments.seed);
        tensors.push((info.name.clone(), tensor.map_err(|error| error.to_string())?));
    }
    Ok(tensors)
}

fn measure(
    measuring: &latency::Options,
    session: &mut dyn Session,
    given: &[(String, Tensor)],
) -> Result<Option<Latency>, String> {
    if measuring.budget.is_zero() {
        return Ok(None);
    }
    let run = || session.run(given).map(|_| ());
    let mut contenders = [Contender { label: "tract".to_owned(), run: Box::new(run) }];
    let latencies = latency::interleaved(&mut contenders, measuring, &mut |_| ());
    latencies.map(|mut latencies| latencies.pop()).map_err(|error| explained(&error))
}

fn described(name: &str, tensor: &Tensor) -> Value {
    json!({ "name": name, "dtype": tensor.dtype().name(), "shape": tensor.shape() })
}

/// Names and shapes, with the elements in files or, for few, in the JSON itself.
fn write_outputs(arguments: &Arguments, outputs: &[(String, Tensor)]) -> Result<Vec<Value>, String> {
    const N_SHOWN: usize = 16;
    let mut rows = Vec::with_capacity(outputs.len());
    for (idx, (name, tensor)) in outputs.iter().enumerate() {
        let mut row = described(name, tensor);
        if let Some(numbers) = aludel::measure::difference::numbers(tensor) {
            row["first"] = json!(numbers.iter().take(N_SHOWN).collect::<Vec<_>>());
            row["min"] = json!(numbers.iter().copied().fold(f64::INFINITY, f64::min));
            row["max"] = json!(numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max));
            row["n_nan"] = json!(numbers.iter().filter(|number| number.is_nan()).count());
        }
        if let (Some(folder), Some(bytes)) = (&arguments.outputs, tensor.bytes()) {
            let file = folder.join(format!("{idx}.raw"));
            let written = fs::create_dir_all(folder).and_then(|()| fs::write(&file, bytes));
            written.map_err(|error| format!("{}: {error}", file.display()))?;
            row["file"] = json!(file);
        }
        rows.push(row);
    }
    Ok(rows)
}

/// What the process held, and holds now; else why that is not known.
fn resident(before: &Result<Resident, String>, after: &Result<Resident, String>) -> Result<Memory, String> {
    let [before, after] = [before, after].map(|resident| resident.as_ref().map_err(String::clone));
    let after = after?;
    Ok(Memory::new(before?, after, &memory::resident().unwrap_or(*after)))
}
