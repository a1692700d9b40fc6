//! onnxruntime's profile: a JSON list of events, of which those of nodes are grouped by run.
//!
//! An event has a beginning (`ts`) and a length (`dur`) in whole microseconds. A node's event lies inside that of its run
//! (`model_run`); the events of a branch or body lie inside that of the node that holds it.

use serde::Deserialize;

use super::super::explain::{Fact, RunNode};
use crate::graph::tensor::DType;

/// The node events and the runs of a profile.
#[derive(Debug, PartialEq)]
pub(super) struct Profile {
    /// The nodes of the outermost graph in the order in which they ran, with a time for each run.
    pub(super) nodes: Vec<RunNode>,
    /// The time of each run in microseconds.
    pub(super) run_us: Vec<f64>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    cat: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    ts: f64,
    #[serde(default)]
    dur: f64,
    #[serde(default)]
    args: Arguments,
}

#[derive(Default, Deserialize)]
struct Arguments {
    #[serde(default)]
    op_name: String,
    #[serde(default)]
    input_type_shape: Vec<serde_json::Map<String, serde_json::Value>>,
    #[serde(default)]
    output_type_shape: Vec<serde_json::Map<String, serde_json::Value>>,
}

impl Event {
    fn holds(&self, other: &Event) -> bool {
        other.ts >= self.ts && other.ts < self.ts + self.dur && other.ts + other.dur <= self.ts + self.dur
    }
}

/// What the name of a node's event ends in.
const KERNEL: &str = "_kernel_time";

/// Reads a profile and leaves out the first `n_warm_up` runs.
///
/// # Errors
/// Why it is not the profile of at least one further run, or its runs are not of the same nodes.
pub(super) fn parse(text: &[u8], n_warm_up: usize) -> Result<Profile, String> {
    let events: Vec<Event> =
        serde_json::from_slice(text).map_err(|error| format!("it is no list of events: {error}"))?;
    let mut runs: Vec<&Event> =
        events.iter().filter(|event| event.cat == "Session" && event.name == "model_run").collect();
    runs.sort_by(|a, b| a.ts.total_cmp(&b.ts));
    let mut kernels: Vec<&Event> =
        events.iter().filter(|event| event.cat == "Node" && event.name.ends_with(KERNEL)).collect();
    kernels.sort_by(|a, b| a.ts.total_cmp(&b.ts).then(b.dur.total_cmp(&a.dur)));
    let timed = runs.get(n_warm_up..).filter(|timed| !timed.is_empty()).ok_or("it has too few runs")?;
    let mut nodes: Vec<RunNode> = Vec::new();
    for (run_idx, run) in timed.iter().enumerate() {
        let inside = outermost(kernels.iter().copied().filter(|kernel| run.holds(kernel)));
        if run_idx == 0 {
            nodes = inside.iter().map(|event| node(event)).collect();
        }
        let same = inside.len() == nodes.len()
            && inside.iter().zip(&nodes).all(|(event, node)| event.name.strip_suffix(KERNEL) == Some(&node.name));
        if !same {
            return Err("its runs are not of the same nodes in the same order".to_owned());
        }
        for (event, node) in inside.iter().zip(&mut nodes) {
            node.times_us.push(event.dur);
        }
    }
    Ok(Profile { nodes, run_us: timed.iter().map(|run| run.dur).collect() })
}

/// The events, in order of their beginnings, that lie in none of those before them.
fn outermost<'a>(events: impl Iterator<Item = &'a Event>) -> Vec<&'a Event> {
    let mut outermost: Vec<&Event> = Vec::new();
    for event in events {
        // Events that share a beginning of no length are one after the other.
        if !outermost.last().is_some_and(|last| last.holds(event)) {
            outermost.push(event);
        }
    }
    outermost
}

fn node(event: &Event) -> RunNode {
    RunNode {
        name: event.name.strip_suffix(KERNEL).unwrap_or(&event.name).to_owned(),
        operator: event.args.op_name.clone(),
        inputs: event.args.input_type_shape.iter().map(fact).collect(),
        outputs: event.args.output_type_shape.iter().map(fact).collect(),
        times_us: Vec::new(),
    }
}

/// `{"uint8": [1, 490]}`
fn fact(entry: &serde_json::Map<String, serde_json::Value>) -> Fact {
    let Some((dtype, shape)) = entry.iter().next() else { return Fact { dtype: None, shape: Vec::new() } };
    let sizes = shape.as_array().into_iter().flatten();
    let shape = sizes.map(|size| size.as_u64().and_then(|size| usize::try_from(size).ok()).unwrap_or(0)).collect();
    Fact { dtype: our_type(dtype), shape }
}

fn our_type(theirs: &str) -> Option<DType> {
    const NAMES: [(&str, DType); 14] = [
        ("float", DType::F32),
        ("double", DType::F64),
        ("float16", DType::F16),
        ("bfloat16", DType::BF16),
        ("int64", DType::I64),
        ("int32", DType::I32),
        ("int16", DType::I16),
        ("int8", DType::I8),
        ("uint64", DType::U64),
        ("uint32", DType::U32),
        ("uint16", DType::U16),
        ("uint8", DType::U8),
        ("bool", DType::Bool),
        ("string", DType::String),
    ];
    NAMES.iter().find(|row| row.0 == theirs).map(|row| row.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(ts: u32, dur: u32) -> String {
        format!(r#"{{"cat":"Session","ts":{ts},"dur":{dur},"name":"model_run","args":{{}}}}"#)
    }

    fn kernel(name: &str, ts: u32, dur: u32) -> String {
        format!(
            r#"{{"cat":"Node","ts":{ts},"dur":{dur},"name":"{name}_kernel_time","args":{{"op_name":"Conv",
            "input_type_shape":[{{"uint8":[1,4]}},{{"float":[]}}],"output_type_shape":[{{"float":[2]}}]}}}}"#
        )
    }

    fn check(events: &[String], n_warm_up: usize) -> String {
        match parse(format!("[{}]", events.join(",")).as_bytes(), n_warm_up) {
            Ok(profile) => {
                let nodes = profile.nodes.iter().map(|node| format!("{} {:?}", node.name, node.times_us));
                format!("{:?}: {}", profile.run_us, nodes.collect::<Vec<_>>().join(", "))
            }
            Err(error) => error,
        }
    }

    #[test]
    fn events_are_grouped_by_run_and_the_first_runs_left_out() {
        let events = [
            kernel("a", 10, 5),
            kernel("b", 16, 1),
            run(9, 9),
            kernel("a", 30, 4),
            kernel("b", 34, 0),
            run(29, 6),
            kernel("b", 45, 2),
            kernel("a", 41, 3),
            run(40, 8),
        ];
        assert_eq!(check(&events, 1), "[6.0, 8.0]: a [4.0, 3.0], b [0.0, 2.0]");
        assert_eq!(check(&events, 3), "it has too few runs");
    }

    #[test]
    fn what_runs_in_a_branch_counts_for_the_node_that_holds_it() {
        let events = [kernel("inner", 12, 3), kernel("if", 10, 8), kernel("after", 18, 2), run(9, 12)];
        assert_eq!(check(&events, 0), "[12.0]: if [8.0], after [2.0]");
    }

    #[test]
    fn types_and_shapes_are_read() {
        let text = format!("[{},{}]", kernel("a", 10, 5), run(9, 9));
        let profile = parse(text.as_bytes(), 0).expect("a profile");
        let node = &profile.nodes[0];
        assert_eq!(node.inputs[0], Fact { dtype: Some(DType::U8), shape: vec![1, 4] });
        assert_eq!(node.outputs, [Fact { dtype: Some(DType::F32), shape: vec![2] }]);
    }

    #[test]
    fn what_is_no_profile_is_an_error() {
        let odd = r#"{"cat":"Node","ts":1,"dur":1,"name":"x_kernel_time","args":{"op_name":7}}"#;
        assert!(check(&[odd.to_owned()], 0).contains("it is no list of events"));
        assert!(parse(b"", 0).is_err() && parse(b"{}", 0).is_err() && parse(b"[{\"cat\":", 0).is_err());
        assert_eq!(check(&[], 0), "it has too few runs");
        let different = [kernel("a", 1, 1), run(1, 3), kernel("b", 11, 1), run(11, 3)];
        assert_eq!(check(&different, 0), "its runs are not of the same nodes in the same order");
        let negative = r#"{"cat":"Session","ts":-1e308,"dur":-1e308,"name":"model_run"}"#;
        assert_eq!(check(&[negative.to_owned(), kernel("a", 1, 1)], 0), "[-1e308]: ");
    }
}
