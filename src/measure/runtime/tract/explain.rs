//! What tract makes of a model: the nodes of its plan, each timed as it is evaluated.

use tract_onnx::prelude as tract;
use tract_onnx::tract_core::plan;

use super::super::explain::{Explanation, Fact, RunNode, Runs};
use super::{Plan, onnx_type};
use crate::measure::latency::timed;

type Node = tract::TypedNode;

/// Runs the plan node by node with a clock beside it.
pub(super) fn explain(plan: &Plan, inputs: &tract::TVec<tract::TValue>, runs: Runs) -> tract::TractResult<Explanation> {
    let model = plan.model();
    let mut nodes: Vec<RunNode> = Vec::new();
    let mut places = vec![None; model.nodes().len()];
    for &node_idx in plan.order_without_consts() {
        let node = model.node(node_idx);
        // A source hands on what it was given.
        if !node.inputs.is_empty() {
            places[node_idx] = Some(nodes.len());
            nodes.push(describe(model, node)?);
        }
    }
    let mut state = plan.spawn()?;
    let mut run_us = Vec::new();
    let n_timed = runs.n_timed.max(1);
    for run_idx in 0..runs.n_warm_up.saturating_add(n_timed) {
        let is_timed = run_idx >= runs.n_warm_up;
        let (outputs, duration) = timed(|| {
            state.run_plan_with_eval(inputs.clone(), |context, op_state, node: &Node, given| {
                let (computed, duration) = timed(|| plan::eval(context, op_state, node, given));
                if let Some(place) = places[node.id].filter(|_| is_timed) {
                    nodes[place].times_us.push(duration.as_secs_f64() * 1e6);
                }
                computed
            })
        });
        outputs?;
        if is_timed {
            run_us.push(duration.as_secs_f64() * 1e6);
        }
    }
    Ok(Explanation { nodes, run_us, optimized_model: None, resolution_us: 0.0 })
}

fn describe(model: &tract::TypedModel, node: &Node) -> tract::TractResult<RunNode> {
    let inputs = node.inputs.iter().map(|outlet| Ok(fact(model.outlet_fact(*outlet)?)));
    Ok(RunNode {
        name: node.name.clone(),
        operator: node.op.name().into_owned(),
        inputs: inputs.collect::<tract::TractResult<_>>()?,
        outputs: node.outputs.iter().map(|output| fact(&output.fact)).collect(),
        times_us: Vec::new(),
    })
}

fn fact(fact: &tract::TypedFact) -> Fact {
    let sizes = fact.shape.as_concrete().filter(|_| fact.exotic_fact.is_none());
    let dtype = if fact.datum_type == tract::DatumType::TDim { None } else { onnx_type(fact.datum_type).ok() };
    Fact { dtype, shape: sizes.map(<[usize]>::to_vec).unwrap_or_default() }
}
