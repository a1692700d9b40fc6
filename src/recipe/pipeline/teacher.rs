//! Which runtime a teacher's values come from.

use indexmap::IndexMap;

use super::run::{Book, Made};
use crate::compress::distill::DistillError;
use crate::data::Loader;
use crate::graph::probe::Forward;
use crate::graph::tensor::Tensor;
use crate::graph::{Model, Name};
use crate::measure::latency::timed;
use crate::measure::runtime::Runtime;
use crate::recipe::probe::columns;
use crate::recipe::{RecipeError, probe};
use crate::store;

/// The runtime that takes the least time for a batch of the teacher, or that was decided for before.
pub(super) fn decide<'a>(
    book: &mut Book<'a>,
    teacher: &Made,
    values: &[Name],
    loader: &Loader,
) -> Result<&'a dyn Runtime, RecipeError> {
    let runtimes = book.options.runtimes;
    let what = store::sha256(format!("{} {values:?}", teacher.sha256).as_bytes());
    let decision = format!("runtime of the teacher's values {}", &what[..16]);
    let at_hand = |name: &str| runtimes.iter().copied().find(|runtime| runtime.name() == name);
    if let Some(runtime) = book.decision(&decision).and_then(at_hand) {
        book.decide(&decision, runtime.name())?;
        return Ok(runtime);
    }
    if let Some(missing) = book.options.replay.and(book.decision(&decision)) {
        let problem = format!(
            "ran on {missing} in the run that is replayed, which is not at hand: install it, or leave --replay out"
        );
        return Err(RecipeError::Part { part: "teacher".to_string(), problem });
    }
    let order = loader.order(0);
    let batch = loader.view(&order[..loader.options().batch_size.min(order.len())], 0)?;
    let feeds: IndexMap<Name, Tensor> = columns(&teacher.model, loader.dataset())
        .into_iter()
        .filter_map(|(column, name)| Some((name, batch.get(&column)?.clone())))
        .collect();
    let mut best: Option<(f64, &dyn Runtime)> = None;
    let mut refusal = None;
    for &runtime in runtimes {
        let tried = open(runtime, &teacher.model, values).and_then(|mut given| {
            given.forward(&feeds).map_err(DistillError::from)?;
            let (again, elapsed) = timed(|| given.forward(&feeds));
            again.map_err(DistillError::from)?;
            Ok(elapsed.as_secs_f64())
        });
        match tried {
            Ok(seconds) if best.is_none_or(|(least, _)| seconds < least) => best = Some((seconds, runtime)),
            Ok(_) => {}
            Err(error) => refusal = Some(error),
        }
    }
    let (_, runtime) = best.ok_or_else(|| refusal.unwrap_or_else(nobody))?;
    book.decide(&decision, runtime.name())?;
    Ok(runtime)
}

/// There is no runtime.
pub(super) fn nobody() -> RecipeError {
    let problem = "can be asked by no runtime: none is at hand".to_string();
    RecipeError::Part { part: "teacher".to_string(), problem }
}

/// The teacher on a runtime, giving these values.
pub(super) fn open(runtime: &dyn Runtime, model: &Model, values: &[Name]) -> Result<Box<dyn Forward>, RecipeError> {
    probe::open(runtime, model, values, "the teacher")
}
