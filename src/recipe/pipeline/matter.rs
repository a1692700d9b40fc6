//! What a network learns from and is measured on: all of the data, or what a specialist sees of it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::grammar::Pipeline;
use super::run::Made;
use crate::compress::distill::teachers::of_classes;
use crate::data::{Dataset, Split};
use crate::measure::runtime::{ModelBytes, Runtime};
use crate::onnx;
use crate::recipe::RecipeError;
use crate::recipe::evaluate::evaluate;
use crate::store;

/// Data, and a hash of it.
#[derive(Clone, Debug)]
pub(super) struct Matter {
    pub(super) data: Arc<Dataset>,
    pub(super) hash: String,
    /// With the unlabelled samples; empty where there are none.
    pub(super) hash_with_unlabelled: String,
}

impl Matter {
    /// The data of a recipe.
    pub(super) fn of(pipeline: &Pipeline) -> Result<Matter, RecipeError> {
        let labelled = Dataset::load(&pipeline.data)?;
        let hash = labelled.sha256()?;
        let Some(unlabelled) = &pipeline.unlabelled else {
            return Ok(Matter { data: Arc::new(labelled), hash, hash_with_unlabelled: String::new() });
        };
        let all = labelled.with_unlabelled(&Dataset::load(unlabelled)?)?;
        let hash_with_unlabelled = all.sha256()?;
        Ok(Matter { data: Arc::new(all), hash, hash_with_unlabelled })
    }

    /// What of this data a specialist for some classes sees: of the training split what the teacher takes for them.
    pub(super) fn of_classes(
        &self,
        classes: &[usize],
        teacher: &Made,
        runtime: &dyn Runtime,
        cache: &Path,
    ) -> Result<Matter, RecipeError> {
        let taken = self.taken_for(teacher, runtime, cache)?;
        let samples = self.data.samples(Split::Train).iter().copied();
        let routed: HashMap<usize, usize> = samples.zip(taken).collect();
        let data = self.data.of_classes(classes, &routed)?;
        let [hash, hash_with_unlabelled] = [&self.hash, &self.hash_with_unlabelled]
            .map(|hash| store::sha256(format!("{hash} {classes:?} {}", teacher.sha256).as_bytes()));
        Ok(Matter { data: Arc::new(data), hash, hash_with_unlabelled })
    }

    /// The class that a teacher takes each sample of the training split for, in their order; computed once.
    fn taken_for(&self, teacher: &Made, runtime: &dyn Runtime, cache: &Path) -> Result<Vec<usize>, RecipeError> {
        let key = [&self.hash, &teacher.sha256, teacher.output.as_str(), runtime.name(), &runtime.version()].join("\n");
        let path = cache.join(format!("classes-{}.json", &store::sha256(key.as_bytes())[..16]));
        if path.exists() {
            let wrong = |error: serde_json::Error| RecipeError::Ledger {
                path: path.clone(),
                problem: format!("{error}; remove it"),
            };
            let kept: Vec<usize> = serde_json::from_slice(&store::read(&path)?).map_err(wrong)?;
            if kept.len() == self.data.samples(Split::Train).len() {
                return Ok(kept);
            }
        }
        let bytes = ModelBytes::new(onnx::to_bytes(&teacher.model)?);
        let taken = evaluate(runtime, &bytes, &self.data, Split::Train, 64)?.predictions;
        store::write_atomic(&path, &serde_json::to_vec(&taken).expect("numbers are JSON"))?;
        Ok(taken)
    }
}

/// The teacher of a specialist: what it says of some classes.
pub(super) fn specialist(teacher: &Made, classes: &[usize]) -> Result<Made, RecipeError> {
    let (graph, output) = of_classes(&teacher.model.graph, &teacher.output, classes)?;
    let sha256 = store::sha256(format!("{} {classes:?}", teacher.sha256).as_bytes());
    Ok(Made { model: teacher.model.with_graph(graph), sha256, output })
}
