//! Damaged models that we accept, handed to a runtime: whatever it does with one, we live to tell.

use std::collections::BTreeMap;
use std::fs;

use aludel::measure::inputs;
use aludel::measure::runtime::tract::Tract;
use aludel::measure::runtime::{ModelBytes, Options, Runtime, RuntimeError};
use aludel::onnx;
use bytes::Bytes;

use super::mutate::{Random, mutant};
use crate::support;

const N_MUTANTS: usize = 200;

/// onnxruntime is left out: it checks less than tract and is C++, where what it does wrong cannot be caught.
#[test]
fn tract_panics_behind_its_door() {
    let Some(data) = support::data() else { return };
    let models = ["qtdnn_qlinearconv", "mnist_cntk_opset8", "armkws_ds_cnn_s"];
    let models = models.map(|name| fs::read(data.join(format!("onnx-models/{name}.onnx"))).expect("readable"));
    let accepted = (0..).filter_map(|idx| {
        let mutant = mutant(&models[idx % models.len()], &mut Random::new(idx as u64));
        onnx::read_bytes(Bytes::from(mutant.clone()), None).is_ok().then_some(mutant)
    });
    let mut counts = BTreeMap::new();
    for mutant in accepted.take(N_MUTANTS) {
        let outcome = match run(mutant) {
            Ok(()) => "run",
            Err(RuntimeError::Panicked { .. }) => "panicked",
            Err(_) => "refused",
        };
        *counts.entry(outcome).or_insert(0) += 1;
    }
    support::say(&format!("tract on {N_MUTANTS} mutants: {counts:?}\n"));
    assert!(counts.contains_key("run") && counts.contains_key("refused"), "{counts:?}");
}

fn run(model: Vec<u8>) -> Result<(), RuntimeError> {
    let mut session = Tract.load(&ModelBytes::new(model), &Options::default())?;
    // Sizes that nobody can allocate are not ours to ask for.
    let small = session.inputs().iter().all(|info| {
        inputs::shape(info, &BTreeMap::new())
            .is_ok_and(|shape| shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim)).is_some_and(|n| n < 1 << 20))
    });
    if small && let Ok(given) = inputs::random(session.inputs(), &BTreeMap::new(), 0) {
        session.run(&given)?;
    }
    Ok(())
}
