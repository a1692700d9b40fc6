//! What a device is asked and answers: the protocol that `aludel-edge`, and every program behind a `command` runner, speaks.
//!
//! The program gets one argument more than its own: a folder. In it lie [`REQUEST`], the model that the request names
//! (relative to the folder) and [`INPUTS`]: the elements of all tensors, little-endian, row-major, one tensor after another.
//! The program writes [`OUTPUTS`] alike, then [`RESPONSE`], and ends with exit code 0; what it cannot do it says in the
//! response's `error`. What it prints is for the reader of an error only.

use serde::{Deserialize, Serialize};

use super::latency::Latency;
use super::machine::Machine;
use super::memory::Resident;
use super::probe::Probe;
use super::runtime::Optimization;
use crate::graph::tensor::{DType, Tensor};

/// The protocol's version: another one is refused by both sides.
pub const PROTOCOL: u32 = 1;

/// The agent's name, in its reports and as a program.
pub const NAME: &str = "aludel-edge";

/// The request's file.
pub const REQUEST: &str = "request.json";

/// The file of the inputs' elements.
pub const INPUTS: &str = "inputs.raw";

/// The file of the outputs' elements.
pub const OUTPUTS: &str = "outputs.raw";

/// The response's file.
pub const RESPONSE: &str = "response.json";

/// What the device is to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// The task.
    #[serde(flatten)]
    pub task: Task,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "kebab-case")]
pub enum Task {
    /// Say what the device is.
    Probe,
    /// Run a model, and time it.
    Measure(Measure),
}

/// A model to run, and time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// The model's file, relative to the folder.
    pub model: String,
    /// `tract` or `ort`.
    pub runtime: String,
    /// Threads that a run may use.
    pub n_threads: usize,
    /// How much the runtime may rewrite the graph.
    pub optimization: Optimization,
    /// The inputs of every run, whose outputs are wanted.
    pub runs: Vec<Vec<Array>>,
    /// Seconds to time the first run's inputs; 0: not at all.
    pub budget_s: f64,
    /// Stop timing when the median's 95 % interval is this narrow, relative to the median.
    pub relative_width: f64,
}

/// A tensor whose elements are in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Array {
    /// The input's or output's name.
    pub name: String,
    /// `f32`, `i64`, `u8` …
    pub dtype: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Where its elements begin in the file, in bytes.
    pub offset: usize,
}

/// What the device found. Only `protocol`, `program` and, after runs, `runs` must be there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// Who answers.
    pub program: Program,
    /// Why the task was not done.
    #[serde(default)]
    pub error: Option<String>,
    /// The device.
    #[serde(default)]
    pub machine: Option<Machine>,
    /// What computed.
    #[serde(default)]
    pub runtime: Option<Program>,
    /// The outputs of every run, in the order of the request's.
    #[serde(default)]
    pub runs: Vec<Vec<Array>>,
    /// Reading, checking and optimizing the model, in microseconds.
    #[serde(default)]
    pub load_us: Option<f64>,
    /// The first run, in microseconds.
    #[serde(default)]
    pub first_run_us: Option<f64>,
    /// Times of runs, summed up.
    #[serde(default)]
    pub latency: Option<Latency>,
    /// Times of single runs in microseconds, for a program that leaves summing up to us.
    #[serde(default)]
    pub samples_us: Vec<f64>,
    /// The process's memory.
    #[serde(default)]
    pub memory: Option<Memory>,
    /// What the device is; to a probe.
    #[serde(default)]
    pub probe: Option<Probe>,
}

/// A program and its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl Program {
    /// The agent of this version.
    pub fn agent() -> Program {
        Program { name: NAME.to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

/// Resident memory of the process that ran the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Before the model was read.
    pub rss_before_load_bytes: u64,
    /// After the first run.
    pub rss_after_first_run_bytes: u64,
    /// The most of it all.
    pub rss_peak_bytes: u64,
}

impl Memory {
    /// From what the process held before it loaded, after its first run, and holds now.
    pub fn new(before: &Resident, after: &Resident, now: &Resident) -> Memory {
        Memory {
            rss_before_load_bytes: before.current_bytes,
            rss_after_first_run_bytes: after.current_bytes,
            rss_peak_bytes: now.peak_bytes.max(after.peak_bytes),
        }
    }
}

impl Request {
    /// A request of this version.
    pub fn new(task: Task) -> Request {
        Request { protocol: PROTOCOL, task }
    }
}

impl Response {
    /// A response of this program that says nothing yet.
    pub fn new(program: Program) -> Response {
        Response {
            protocol: PROTOCOL,
            program,
            error: None,
            machine: None,
            runtime: None,
            runs: Vec::new(),
            load_us: None,
            first_run_us: None,
            latency: None,
            samples_us: Vec::new(),
            memory: None,
            probe: None,
        }
    }
}

/// Named tensors of one run.
pub type Values = Vec<(String, Tensor)>;

/// The tensors' descriptions, and their elements one after another.
///
/// # Errors
/// When a tensor holds strings, which have no such form.
pub fn pack(runs: &[Values]) -> Result<(Vec<Vec<Array>>, Vec<u8>), String> {
    let mut bytes = Vec::new();
    let mut described = Vec::with_capacity(runs.len());
    for run in runs {
        let mut arrays = Vec::with_capacity(run.len());
        for (name, tensor) in run {
            let own = tensor.bytes().ok_or_else(|| format!("`{name}` holds strings, which cannot be exchanged"))?;
            let dtype = tensor.dtype().name().to_owned();
            arrays.push(Array { name: name.clone(), dtype, shape: tensor.shape().to_vec(), offset: bytes.len() });
            bytes.extend_from_slice(own);
        }
        described.push(arrays);
    }
    Ok((described, bytes))
}

/// The tensors that are described, out of their elements.
///
/// # Errors
/// When a type is not known or an array does not lie within the bytes.
pub fn unpack(runs: &[Vec<Array>], bytes: &bytes::Bytes) -> Result<Vec<Values>, String> {
    let tensor = |array: &Array| {
        let wrong = |reason: String| format!("`{}`: {reason}", array.name);
        let dtype = DType::from_name(&array.dtype).ok_or_else(|| wrong(format!("there is no type {}", array.dtype)))?;
        let n_bytes = crate::graph::tensor::n_elements(&array.shape).and_then(|n| dtype.n_bytes(n));
        let end = n_bytes.and_then(|n_bytes| array.offset.checked_add(n_bytes)).filter(|end| *end <= bytes.len());
        let end = end.ok_or_else(|| {
            wrong(format!(
                "{}{:?} from byte {} on is more than the {} that there are",
                dtype,
                array.shape,
                array.offset,
                bytes.len()
            ))
        })?;
        let tensor = Tensor::from_bytes(dtype, &array.shape, bytes.slice(array.offset..end));
        Ok((array.name.clone(), tensor.map_err(|error| wrong(error.to_string()))?))
    };
    runs.iter().map(|run| run.iter().map(tensor).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_come_back_as_they_went() {
        let run = vec![
            ("x".to_owned(), Tensor::new(&[2, 2], vec![1f32, 2.0, 3.0, 4.0]).expect("2 by 2")),
            ("n".to_owned(), Tensor::scalar(7i64)),
            ("b".to_owned(), Tensor::vector(vec![true, false, true])),
        ];
        let runs = vec![run.clone(), run[1..].to_vec()];
        let (arrays, bytes) = pack(&runs).expect("numbers");
        assert_eq!((bytes.len(), arrays[1][0].offset), (16 + 8 + 3 + 8 + 3, 27));
        assert_eq!(unpack(&arrays, &bytes.into()), Ok(runs));
        let strings = Tensor::from_strings(&[1], vec!["a".into()]).expect("one");
        assert!(pack(&[vec![("s".to_owned(), strings)]]).is_err());
    }

    #[test]
    fn arrays_beyond_the_file_are_refused() {
        let check = |dtype: &str, shape: &[usize], offset| {
            let array = Array { name: "y".to_owned(), dtype: dtype.to_owned(), shape: shape.to_vec(), offset };
            unpack(&[vec![array]], &vec![0u8; 8].into()).map(|_| ())
        };
        assert_eq!(check("f32", &[2], 0), Ok(()));
        assert!(check("f32", &[2], 1).is_err() && check("f32", &[usize::MAX, 8], 0).is_err());
        assert!(check("f32", &[1], usize::MAX).is_err() && check("string", &[1], 0).is_err());
        assert_eq!(check("float", &[1], 0), Err("`y`: there is no type float".to_owned()));
    }

    #[test]
    fn a_request_is_flat_json_and_a_response_may_be_short() {
        let request = serde_json::to_value(Request::new(Task::Probe)).expect("plain");
        assert_eq!(request, serde_json::json!({ "protocol": 1, "task": "probe" }));
        let short = r#"{ "protocol": 1, "program": { "name": "board", "version": "3" }, "samples_us": [1, 2.5] }"#;
        let response: Response = serde_json::from_str(short).expect("enough");
        assert_eq!((response.samples_us, response.error), (vec![1.0, 2.5], None));
    }
}
