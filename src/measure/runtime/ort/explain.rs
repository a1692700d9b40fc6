//! What onnxruntime makes of a model: the optimized graph that it saves, and the profile that it writes.

use super::super::explain::{Explanation, Runs};
use super::super::{Doing, ModelBytes, Options, Runtime as _, RuntimeError};
use super::{NAME, Onnxruntime, profile};
use crate::graph::tensor::Tensor;
use crate::store::{self, StoreError};

pub(super) fn explain(
    runtime: &Onnxruntime,
    model: &ModelBytes,
    options: &Options,
    inputs: &[(String, Tensor)],
    runs: Runs,
) -> Result<Explanation, RuntimeError> {
    let failed = |doing: Doing, reason: String| RuntimeError::Refused {
        runtime: NAME,
        doing,
        model: model.name(),
        node: None,
        reason,
    };
    let stored = |error: StoreError| failed(Doing::Run, format!("what it wrote of it is lost: {error}"));
    let folder = store::temporary_folder().map_err(stored)?;
    let optimized = folder.path().join("optimized.onnx");
    let options = Options {
        optimized_model: Some(optimized.clone()),
        profile: Some(folder.path().join("profile")),
        ..options.clone()
    };
    let mut session = runtime.load(model, &options)?;
    for _ in 0..runs.n_warm_up.saturating_add(runs.n_timed.max(1)) {
        session.run(inputs)?;
    }
    let path = session.finish_profile()?;
    let path = path.ok_or_else(|| failed(Doing::Run, "it wrote no profile".to_owned()))?;
    let text = store::read(&path).map_err(stored)?;
    let profile = profile::parse(&text, runs.n_warm_up)
        .map_err(|reason| failed(Doing::Run, format!("its profile cannot be read: {reason}")))?;
    let optimized_model = Some(store::read(&optimized).map_err(stored)?);
    Ok(Explanation { nodes: profile.nodes, run_us: profile.run_us, optimized_model, resolution_us: 1.0 })
}
