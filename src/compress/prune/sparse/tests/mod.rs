//! Sparsity: what is chosen against plain loops, what training keeps, and what is refused.

mod chosen;
mod optimal;
mod training;

use indexmap::IndexMap;

use super::super::PruneError;
use super::*;
use crate::compress::testing::{Reference, wave};
use crate::graph::op::{self, Op};
use crate::graph::shape::{Bindings, infer};
use crate::graph::tensor::DType;
use crate::graph::{Dim, GraphBuilder, TensorType};

fn options(text: &str) -> SparseOptions {
    toml::from_str(text).expect("options")
}

fn planned(graph: &Graph, options: &SparseOptions) -> Result<Plan, PruneError> {
    plan(graph, &infer(graph, &Bindings::default()).expect("types fit"), options)
}

/// One operator `op` on an input `x` of this shape and a constant `weight`.
fn one(op: Op, x: &[usize], weight: Tensor) -> Graph {
    let mut builder = GraphBuilder::new("one");
    let x = builder.input("x", TensorType::new(DType::F32, x.iter().copied()));
    let weight = builder.initializer("weight", weight);
    let y = builder.node(op, &[&x, &weight]);
    builder.output(&y);
    builder.finish().expect("a graph")
}

fn gemm() -> Op {
    Op::Gemm(op::Gemm { trans_b: true, ..op::Gemm::default() })
}

fn weight(graph: &Graph) -> Vec<f32> {
    graph.initializers["weight"].to_vec().expect("floats")
}

fn by_magnitude(graph: &Graph, text: &str) -> Sparse {
    let options = options(text);
    let plan = planned(graph, &options).expect("it has weights");
    let sparse = by_weights(graph, &plan, &options, 1).expect("it goes sparse");
    sparse.graph.check().expect("a graph");
    hold(&sparse.graph, &sparse.masks).expect("kept");
    sparse
}

/// A convolution, a recurrent operator's weights, an embedding and a product, each with what is no weight beside it.
fn mixed() -> Graph {
    let mut builder = GraphBuilder::new("mixed");
    let ids = builder.input("ids", TensorType::new(DType::I64, [Dim::from(5), Dim::from(2)]));
    let table = builder.initializer("table", wave(&[7, 4], 0.3));
    let embedded = builder.node(Op::Gather(op::Gather { axis: 0 }), &[&table, &ids]);
    let w = builder.initializer("w", wave(&[1, 12, 4], 0.1));
    let r = builder.initializer("r", wave(&[1, 12, 3], 0.5));
    let b = builder.initializer("b", wave(&[1, 24], 0.7));
    let gru = op::GRU { hidden_size: Some(3), ..op::GRU::default() };
    let hidden = builder.node(Op::GRU(gru), &[&embedded, &w, &r, &b]);
    let matrix = builder.initializer("matrix", wave(&[3, 6], 0.9));
    let y = builder.node(Op::MatMul, &[&hidden, &matrix]);
    let bias = builder.initializer("bias", wave(&[6], 0.2));
    let y = builder.node(Op::Add, &[&y, &bias]);
    builder.output(&y);
    builder.finish().expect("a graph")
}

#[test]
fn constant_operands_are_planned_and_nothing_else() {
    let names = |text: &str| {
        let plan = planned(&mixed(), &options(text)).expect("weights");
        let names = plan.operands.iter().map(|operand| operand.name.as_str().to_string()).collect::<Vec<_>>().join(" ");
        let left = plan.left.iter().map(|left| format!("{}: {}", left.weight, left.reason)).collect::<Vec<_>>();
        (names, left.join("; "))
    };
    assert_eq!(names(""), ("w r matrix".to_string(), String::new()));
    assert_eq!(names("embeddings = true").0, "table w r matrix");
    assert_eq!(names("exclude = ['GRU']").0, "matrix");
    assert_eq!(names("only = ['w', 'MatMul']").0, "w matrix");
    let (kept, left) = names("pattern = '2:4'");
    assert_eq!(kept, "w");
    assert!(left.starts_with("r: an output has 3 input channels, which 2:4 does not divide; matrix: "), "{left}");
    let (kept, left) = names("criterion = 'wanda'");
    assert_eq!(kept, "matrix");
    assert!(left.contains("GRU is no product of a matrix with what it reads"), "{left}");
}

#[test]
fn a_weight_that_something_else_reads_stays() {
    let mut builder = GraphBuilder::new("shared");
    let x = builder.input("x", TensorType::new(DType::F32, [4usize, 4]));
    let weight = builder.initializer("weight", wave(&[4, 4], 0.0));
    let y = builder.node(Op::MatMul, &[&x, &weight]);
    let sum = builder.node(Op::Add, &[&y, &weight]);
    builder.output(&sum);
    let graph = builder.finish().expect("a graph");
    let error = planned(&graph, &options("")).expect_err("nothing is left").to_string();
    assert_eq!(error, "nothing can be pruned: `weight` stays as it is because something else reads it, too");
}

#[test]
fn options_that_cannot_be_carried_out_are_refused() {
    for (text, expected) in [
        ("sparsity = 1.0", "`sparsity` is 1; should be above 0 and below 1"),
        ("sparsity = nan", "`sparsity` is NaN; should be above 0 and below 1"),
        ("pattern = '2:4'\nsparsity = 0.6", "`sparsity` is 0.6; the pattern 2:4 says 0.5: leave it out"),
        ("pattern = '2:4'\nscope = 'global'", "`scope` is global; 2:4 says what every group gives"),
        ("criterion = 'wanda'\nscope = 'global'", "`scope` is global; wanda compares elements of one weight alone"),
        (
            "criterion = 'sparsegpt'\nschedule = 'cubic'",
            "`schedule` is of a training, in which sparsegpt is not computed",
        ),
        ("criterion = 'movement'", "`schedule` should be linear, cubic or iterative"),
        ("only = ['nobody*']", "`nobody*` means nothing in the network"),
    ] {
        let error = planned(&mixed(), &options(text)).expect_err(text).to_string();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
    for text in ["4:2", "0:4", "2:2", "2:", "4x0", "x", "2:4x1", "loose"] {
        let error = toml::from_str::<SparseOptions>(&format!("pattern = '{text}'")).expect_err(text).to_string();
        assert!(error.contains("is no pattern"), "{text}: {error}");
    }
    for text in ["free", "2:4", "4x1", "1:16"] {
        assert_eq!(options(&format!("pattern = '{text}'")).pattern.to_string(), text);
    }
}

#[test]
fn a_criterion_is_refused_where_it_is_not_computed() {
    let graph = one(Op::MatMul, &[2, 4], wave(&[4, 4], 0.0));
    let options = |criterion: &str| options(&format!("criterion = '{criterion}'"));
    let plan_of = |options: &SparseOptions| planned(&graph, options).expect("it has a weight");
    for criterion in ["snip", "wanda", "sparsegpt"] {
        let options = options(criterion);
        let error = by_weights(&graph, &plan_of(&options), &options, 0).expect_err(criterion).to_string();
        assert!(error.starts_with(&format!("`criterion` is {criterion}, which needs ")), "{error}");
        let error = Sparsifier::growing(&plan_of(&options), &options, 0).expect_err(criterion).to_string();
        assert!(error.starts_with(&format!("`criterion` is {criterion}, which needs ")), "{error}");
    }
    let options = options("magnitude");
    let plan = plan_of(&options);
    let mut network = Reference(graph.clone(), plan.values());
    let none = std::iter::empty::<Result<IndexMap<Name, Tensor>, PruneError>>;
    let error = by_samples(&graph, &plan, &options, &mut network, none(), |_| ()).expect_err("no samples").to_string();
    assert_eq!(error, "`criterion` is magnitude, which needs no samples");
    let wanda = SparseOptions { criterion: Criterion::Wanda, ..options };
    let plan = plan_of(&wanda);
    let error = by_samples(&graph, &plan, &wanda, &mut network, none(), |_| ()).expect_err("no samples").to_string();
    assert!(error.starts_with("there are no samples"), "{error}");
}

#[test]
fn masks_of_another_network_and_masks_that_are_not_kept_are_refused() {
    let graph = one(Op::MatMul, &[2, 4], wave(&[4, 4], 0.3));
    let mut masks = Masks::default();
    masks.insert(&"weight".into(), Mask::new(&[4, 4], [true, false, true]));
    let error = hold(&graph, &masks).expect_err("not applied").to_string();
    assert_eq!(error, "the mask of `weight` is not kept: 2 of the 2 elements that are out are not zero");
    let applied = apply(&graph, &masks).expect("it fits");
    hold(&applied, &masks).expect("applied");
    let found = Masks::of_zeros(&applied, &planned(&applied, &options("")).expect("a weight")).expect("its zeros");
    assert_eq!(found, masks);
    masks.insert(&"weight".into(), Mask::new(&[2, 8], [true]));
    assert!(apply(&graph, &masks).expect_err("another shape").to_string().contains("has the shape [2, 8]"));
    masks.insert(&"nobody".into(), Mask::new(&[1], [true]));
    assert!(hold(&graph, &masks).is_err());
}

#[test]
fn a_report_counts_zeros() {
    let graph = mixed();
    let options = options("sparsity = 0.75");
    let plan = planned(&graph, &options).expect("weights");
    let sparse = by_weights(&graph, &plan, &options, 0).expect("sparse");
    let report = report(&sparse.graph, &plan).expect("its own weights");
    let counts: Vec<(usize, usize)> = report.weights.iter().map(|weight| (weight.n_zeros, weight.n)).collect();
    assert_eq!(counts, [(36, 48), (27, 36), (14, 18)]);
    assert_eq!((report.n_zeros, report.n, report.n_parameters), (77, 102, 102 + 28 + 24 + 6));
    assert_eq!(report::gains(Pattern::Free).len(), 2);
    assert_eq!(report::gains(Pattern::NM { n: 2, m: 4 }).len(), 3);
}

/// [`super::optimal::solve`] of a weight of one group.
fn optimal_solve(layout: &layout::Layout, weights: &[f32], moments: &[f64], sparsity: f64) -> (Vec<f32>, Vec<bool>) {
    super::optimal::solve(layout, weights, &[moments.to_vec()], sparsity)
}
