//! What aludel does with a file that somebody hands it, all at once: the body of the mutation test and of the fuzz target.

use aludel::graph::shape::{Bindings, infer};
use aludel::graph::simplify::{Options, simplify};
use aludel::graph::structure::removal::{Removal, remove};
use aludel::graph::structure::{blocks, groups};
use aludel::graph::{Model, cost, show};
use aludel::onnx;
use bytes::Bytes;

/// Does with these bytes whatever the program does with a model that it has not been told to run. An error is what a bad
/// file deserves; a panic is a fault of ours.
///
/// # Errors
/// Why the bytes are no model.
pub(crate) fn exercise(bytes: Bytes) -> Result<(), onnx::OnnxError> {
    read(bytes.clone())?;
    understand(bytes)
}

/// Reads, types, counts, shows and writes a model.
pub(crate) fn read(bytes: Bytes) -> Result<(), onnx::OnnxError> {
    look(bytes, &[types_and_cost, text, written_at_its_own_opset, written_at_others])
}

/// Simplifies a model, finds what it is made of, and takes some of it out.
pub(crate) fn understand(bytes: Bytes) -> Result<(), onnx::OnnxError> {
    look(bytes, &[simplified, taken_apart])
}

fn look(bytes: Bytes, looks: &[fn(&Model)]) -> Result<(), onnx::OnnxError> {
    let model = onnx::read_bytes(bytes, None)?;
    model.graph.check().expect("what is read is a graph");
    looks.iter().for_each(|look| look(&model));
    Ok(())
}

fn types_and_cost(model: &Model) {
    if let Ok(types) = infer(&model.graph, &Bindings::default()) {
        cost::cost(&model.graph, &types);
        show::show_typed(&model.graph, &types);
    }
}

fn text(model: &Model) {
    show::show(&model.graph);
}

fn written_at_its_own_opset(model: &Model) {
    let Ok(bytes) = onnx::to_bytes(model) else { return };
    let again = onnx::read_bytes(bytes.clone(), None).expect("what is written can be read");
    let twice = onnx::to_bytes(&again).expect("what has been written can be written again");
    assert!(bytes == twice, "it is written differently the second time");
}

fn written_at_others(model: &Model) {
    for opset in [9, 28] {
        if let Ok(bytes) = onnx::to_bytes_at(model, opset) {
            onnx::read_bytes(bytes, None).expect("what is written at another opset can be read");
        }
    }
}

fn simplified(model: &Model) {
    if infer(&model.graph, &Bindings::default()).is_ok() {
        let simplified =
            simplify(&model.graph, &Options::default()).expect("a graph whose types fit can be simplified");
        simplified.graph.check().expect("what is simplified is a graph");
    }
}

fn taken_apart(model: &Model) {
    let Ok(types) = infer(&model.graph, &Bindings::default()) else { return };
    let structure = blocks::structure(&model.graph, &types);
    blocks::show(&structure, &model.graph);
    let found = groups::groups(&model.graph, &types);
    for group in found.groups.iter().take(4) {
        let units: Vec<usize> = (0..group.n_units / 3).collect();
        if let Ok(smaller) = remove(&model.graph, &types, &[Removal { group, units: &units }]) {
            smaller.check().expect("what is left is a graph");
        }
    }
}
