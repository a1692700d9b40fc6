//! What a network learns from and is measured on: all of the data, or what a specialist sees of it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::grammar::Pipeline;
use super::run::Made;
use crate::compress::distill::teachers::narrowed;
use crate::data::{Dataset, Split};
use crate::measure::runtime::{ModelBytes, Runtime};
use crate::onnx;
use crate::recipe::RecipeError;
use crate::recipe::evaluate::predict;
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

    /// What of this data a specialist for some classes sees: what the teacher takes for them.
    pub(super) fn for_specialist(
        &self,
        classes: &[usize],
        teacher: &Made,
        runtime: &dyn Runtime,
        cache: &Path,
    ) -> Result<Matter, RecipeError> {
        let samples = [self.data.samples(Split::Train), self.data.unlabelled()].concat();
        let taken = self.taken_for(&samples, teacher, runtime, cache)?;
        let [hash, hash_with_unlabelled] = [&self.hash, &self.hash_with_unlabelled]
            .map(|hash| store::sha256(format!("{hash} {classes:?} {taken:?}").as_bytes()));
        let routed: HashMap<usize, usize> = samples.into_iter().zip(taken).collect();
        let data = self.data.for_specialist(classes, &routed)?;
        Ok(Matter { data: Arc::new(data), hash, hash_with_unlabelled })
    }

    /// The class that a teacher takes each sample for; computed once.
    fn taken_for(
        &self,
        samples: &[usize],
        teacher: &Made,
        runtime: &dyn Runtime,
        cache: &Path,
    ) -> Result<Vec<usize>, RecipeError> {
        let data = [self.hash.as_str(), &self.hash_with_unlabelled];
        let by = [&teacher.sha256, teacher.output.as_str(), runtime.name(), &runtime.version()];
        let key = store::sha256([&data[..], &by].concat().join("\n").as_bytes());
        let path = cache.join(format!("classes-{}.json", &key[..16]));
        if path.exists() {
            let wrong = |error: serde_json::Error| RecipeError::Ledger {
                path: path.clone(),
                problem: format!("{error}; remove it"),
            };
            let kept: Vec<usize> = serde_json::from_slice(&store::read(&path)?).map_err(wrong)?;
            if kept.len() == samples.len() {
                return Ok(kept);
            }
        }
        let bytes = ModelBytes::new(onnx::to_bytes(&teacher.model)?);
        let taken = predict(runtime, &bytes, &teacher.output, &self.data, samples)?;
        store::write_atomic(&path, &serde_json::to_vec(&taken).expect("numbers are JSON"))?;
        Ok(taken)
    }
}

/// The teacher of a specialist: what it says of some classes.
pub(super) fn specialist(teacher: &Made, classes: &[usize]) -> Result<Made, RecipeError> {
    let (graph, output) = narrowed(&teacher.model.graph, &teacher.output, classes)?;
    let sha256 = format!("{}, classes {classes:?}", teacher.sha256);
    Ok(Made { model: teacher.model.with_graph(graph), sha256, output, keeps_zeros: false })
}
