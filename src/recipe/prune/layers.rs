//! Blocks that go as a whole.

use super::Pruned;
use super::report::{Report, Sizes};
use crate::compress::prune::layers::{Harm, Skipped, Stays};
use crate::compress::prune::options::PruneOptions;
use crate::compress::prune::{LayerAmount, leave_out};
use crate::graph::Graph;
use crate::recipe::RecipeError;
use crate::recipe::look::Look;

pub(super) fn prune(look: &Look<'_>, options: &PruneOptions, n_layers: usize) -> Result<Pruned, RecipeError> {
    let graph = &look.model.graph;
    let written = |graph: &Graph| Ok(graph.clone());
    let mut scorer = look.scorer(&written)?;
    scorer.judge = Some(look.judge(options.samples)?);
    let amount = LayerAmount::Count(n_layers);
    let out = leave_out(graph, look.types, amount, Harm::default(), &mut scorer, &mut |_, _| ())?;
    let mut report = Report::new(options, Sizes::of(graph)?, Sizes::of(&out.graph)?);
    report.seen_on = Some(look.runtime.name().to_string());
    let layer = |Skipped { span, quality, .. }: &Skipped| {
        let right = quality.accuracy.map_or(String::new(), |share| format!(", {:.2} % right", 100.0 * share));
        format!("{} → {}: {:.1} dB{right}", span.entry, span.exit, quality.sqnr_db())
    };
    report.layers = out.gone.iter().map(layer).collect();
    let refused = out.refused.into_iter();
    report.refused = refused.map(|Stays { span, reason, .. }| (span.exit.to_string(), reason)).collect();
    Ok(Pruned { model: look.model.with_graph(out.graph), decided: None, sparsifier: None, report })
}
