//! `aludel targets fits`: a network's bytes against a device's.

use serde::Serialize;

use super::super::load::{self, ModelArguments};
use super::super::table::{Side, table};
use super::super::{Outcome, format};
use crate::compress::quantize::qoperator::{QOperatorOptions, to_qoperator};
use crate::graph::cost;
use crate::graph::op::Op;
use crate::graph::shape::{self, Bindings};
use crate::measure::target::Target;

/// A network against a device.
#[derive(Serialize)]
struct Report {
    target: String,
    model: String,
    fits: bool,
    /// Whether a part is not counted, so that fitting is not proved.
    is_incomplete: bool,
    /// Operators that are counted on integers though the file has them between Q/DQ.
    n_lowered: usize,
    rows: Vec<Row>,
}

/// One kind of memory.
#[derive(Serialize)]
struct Row {
    what: &'static str,
    holds: &'static str,
    needed_bytes: u64,
    limit_bytes: Option<u64>,
    limited_by: &'static str,
    fits: bool,
}

pub(super) fn run(target: &Target, arguments: &ModelArguments, json: bool) -> anyhow::Result<Outcome> {
    let model = load::load(&arguments.model)?.model;
    let open = load::bound(&model, &arguments.bind.bindings)?;
    let fixed: Vec<load::Binding> = open.into_iter().map(|(symbol, size)| load::Binding { symbol, size }).collect();
    let mut graph = load::fixed(&model, &fixed)?;
    let mut n_lowered = 0;
    if graph.nodes.iter().any(|node| matches!(node.op, Op::DequantizeLinear(_))) {
        let lowered = to_qoperator(&graph, &QOperatorOptions::default())?;
        (graph, n_lowered) = (lowered.graph, lowered.lowered.len());
    }
    let cost = cost::cost(&graph, &shape::infer(&graph, &Bindings::default())?);
    let (weights, activations) = (cost.total.weight_bytes, cost.peak_activation_bytes);
    let rows = rows(target, weights, activations);
    let report = Report {
        target: target.name.clone(),
        model: arguments.model.display().to_string(),
        fits: rows.iter().all(|row| row.fits),
        is_incomplete: cost.is_incomplete(),
        n_lowered,
        rows,
    };
    if report.rows.iter().all(|row| row.limit_bytes.is_none()) {
        anyhow::bail!(
            "{}: its file gives neither memory_bytes nor flash_bytes nor a budget, so there is nothing to fit into",
            target.name
        );
    }
    if report.fits && report.is_incomplete {
        anyhow::bail!(
            "{}: some shapes are not known, so that the bytes counted are too few to say that it fits; bind open dimensions with --bind",
            report.model
        );
    }
    let outcome = if json { Outcome::json(&report)? } else { Outcome::done(text(&report)) };
    Ok(Outcome { code: u8::from(!report.fits), ..outcome })
}

fn rows(target: &Target, weights: u64, activations: u64) -> Vec<Row> {
    let row = |what, holds, needed: u64, device: Option<u64>, budget_kib: Option<f64>| {
        let budget = budget_kib.map(|kib| (kib * 1024.0) as u64);
        let (limit_bytes, limited_by) = match (device, budget) {
            (Some(device), Some(budget)) if budget < device => (Some(budget), "budget"),
            (Some(device), _) => (Some(device), "device"),
            (None, Some(budget)) => (Some(budget), "budget"),
            (None, None) => (None, ""),
        };
        let fits = limit_bytes.is_none_or(|limit| needed <= limit);
        Row { what, holds, needed_bytes: needed, limit_bytes, limited_by, fits }
    };
    let budget = &target.budget;
    if target.is_microcontroller() {
        return vec![
            row("RAM", "activations at their peak", activations, target.memory_bytes, budget.memory_kib),
            row("flash", "weights", weights, target.flash_bytes, budget.size_kib),
        ];
    }
    let both = weights.saturating_add(activations);
    vec![
        row("memory", "weights, activations at their peak", both, target.memory_bytes, budget.memory_kib),
        row("file", "weights", weights, None, budget.size_kib),
    ]
}

fn text(report: &Report) -> String {
    let columns = [
        ("", Side::Left),
        ("holds", Side::Left),
        ("needed", Side::Right),
        ("there is", Side::Right),
        ("share", Side::Right),
        ("", Side::Left),
    ];
    let limited = report.rows.iter().filter_map(|row| Some((row, row.limit_bytes?)));
    let rows = limited.map(|(row, limit)| {
        let by = if row.limited_by == "budget" { " (budget)" } else { "" };
        vec![
            row.what.to_string(),
            row.holds.to_string(),
            format::bytes(row.needed_bytes),
            format!("{}{by}", format::bytes(limit)),
            format::percent(row.needed_bytes as f64 / limit.max(1) as f64),
            if row.fits { "fits" } else { "does not fit" }.to_string(),
        ]
    });
    let verdict = if report.fits { "fits" } else { "does not fit" };
    let mut text = format!("{} {verdict} {}\n\n{}", report.model, report.target, table(&columns, rows));
    if report.n_lowered > 0 {
        text.push_str(&format!("{} operators between Q/DQ are counted on integers\n", report.n_lowered));
    }
    text.push_str("code and an engine's own buffers are not counted\n");
    text
}
