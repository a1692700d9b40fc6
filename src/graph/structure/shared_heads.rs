//! Attention in which several heads of queries share one of keys and values, as its nodes spell it.

use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, Graph, GraphBuilder, Name, Op, TensorType, op};

/// How the heads of keys and values come to be as many as those of queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// `[batch, kept, steps, size]` to `[batch, kept, 1, steps, size]`, expanded to `[batch, kept, shared, steps, size]`, to
    /// `[batch, kept · shared, steps, size]`.
    Expand,
    /// The same, tiled where the other is expanded.
    TileWithin,
    /// `[batch, kept, steps, size]` tiled to `[batch, shared · kept, steps, size]`.
    Tile,
    /// Each picked several times.
    Gather,
    /// Not at all: queries are `[batch, kept, shared, steps, size]`, and the products broadcast.
    Broadcast,
    /// The same, from queries and to an output that are `[batch, kept · shared, steps, size]`.
    BroadcastApart,
}

/// All of them.
pub(crate) const REPEATS: [Repeat; 6] =
    [Repeat::Expand, Repeat::TileWithin, Repeat::Tile, Repeat::Gather, Repeat::Broadcast, Repeat::BroadcastApart];

/// Heads of keys and values, heads of queries to each, and how they meet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedHeads {
    /// Heads of keys and values.
    pub(crate) n_kept: usize,
    /// Heads of queries to each.
    pub(crate) n_shared: usize,
    /// Features of a head.
    pub(crate) size: usize,
    /// How they meet.
    pub(crate) repeat: Repeat,
}

impl SharedHeads {
    /// One layer, `[batch, 3, 4]` to 3 numbers a step. The weights are `first`, `queries`, `keys`, `values`, `merge` and
    /// `last`. With `masked`, the network's second input is added to the scores, one mask a head.
    pub(crate) fn network(&self, masked: bool) -> Graph {
        let mut graph = GraphBuilder::new("shared heads");
        let x = graph.input("x", TensorType::new(DType::F32, [Dim::from("batch"), 3.into(), 4.into()]));
        let SharedHeads { n_kept, n_shared, size, repeat } = *self;
        let (n_heads, n_features) = (n_kept * n_shared, 5);
        let x = dense(&mut graph, "first", &x, [4, n_features]);
        let apart: &[usize] = if repeat == Repeat::Broadcast { &[n_kept, n_shared, size] } else { &[n_heads, size] };
        let queries = dense(&mut graph, "queries", &x, [n_features, n_heads * size]);
        let queries = heads_first(&mut graph, &queries, apart);
        let queries = if repeat == Repeat::BroadcastApart { self.regroup(&mut graph, &queries, true) } else { queries };
        let [keys, values] = ["keys", "values"].map(|name| {
            let own = dense(&mut graph, name, &x, [n_features, n_kept * size]);
            let own = heads_first(&mut graph, &own, &[n_kept, size]);
            self.repeated(&mut graph, &own)
        });
        let is_grouped = matches!(repeat, Repeat::Broadcast | Repeat::BroadcastApart);
        let perm = if is_grouped { vec![0, 1, 2, 4, 3] } else { vec![0, 1, 3, 2] };
        let keys = graph.node(Op::Transpose(op::Transpose { perm }), &[&keys]);
        let mut scores = graph.node(Op::MatMul, &[&queries, &keys]);
        if masked {
            let heads: &[usize] = if is_grouped { &[n_kept, n_shared] } else { &[n_heads] };
            let shape = [1].iter().chain(heads).chain(&[3, 3]).map(|&size| Dim::from(size));
            let mask = graph.input("mask", TensorType::new(DType::F32, shape));
            scores = graph.node(Op::Add, &[&scores, &mask]);
        }
        let weights = graph.node(Op::Softmax(op::Softmax { axis: -1 }), &[&scores]);
        let mut merged = graph.node(Op::MatMul, &[&weights, &values]);
        if repeat == Repeat::BroadcastApart {
            merged = self.regroup(&mut graph, &merged, false);
        }
        let perm = if repeat == Repeat::Broadcast { vec![0, 3, 1, 2, 4] } else { vec![0, 2, 1, 3] };
        let merged = graph.node(Op::Transpose(op::Transpose { perm }), &[&merged]);
        let merged = reshape(&mut graph, &merged, &[0, 0, i(n_heads * size)]);
        let merged = dense(&mut graph, "merge", &merged, [n_heads * size, n_features]);
        let y = graph.node(Op::Add, &[&x, &merged]);
        let y = dense(&mut graph, "last", &y, [n_features, 3]);
        graph.output(&y);
        graph.finish().expect("a graph")
    }

    /// `[batch, kept, steps, size]` as the products take it.
    fn repeated(&self, graph: &mut GraphBuilder, own: &Name) -> Name {
        let SharedHeads { n_kept, n_shared, .. } = *self;
        match self.repeat {
            Repeat::Expand => {
                let own = unsqueeze(graph, own);
                let shape = integers(graph, &[1, i(n_kept), i(n_shared), 1, i(self.size)]);
                let own = graph.node(Op::Expand, &[&own, &shape]);
                self.regroup(graph, &own, false)
            }
            Repeat::TileWithin => {
                let own = unsqueeze(graph, own);
                let times = integers(graph, &[1, 1, i(n_shared), 1, 1]);
                let own = graph.node(Op::Tile, &[&own, &times]);
                self.regroup(graph, &own, false)
            }
            Repeat::Tile => {
                let times = integers(graph, &[1, i(n_shared), 1, 1]);
                graph.node(Op::Tile, &[own, &times])
            }
            Repeat::Gather => {
                let picks: Vec<i64> = (0..n_kept * n_shared).map(|head| i(head / n_shared)).collect();
                let picks = integers(graph, &picks);
                graph.node(Op::Gather(op::Gather { axis: 1 }), &[own, &picks])
            }
            Repeat::Broadcast | Repeat::BroadcastApart => unsqueeze(graph, own),
        }
    }

    /// Heads as `[kept, shared]`, or as one axis.
    fn regroup(&self, graph: &mut GraphBuilder, value: &Name, apart: bool) -> Name {
        let SharedHeads { n_kept, n_shared, size, .. } = *self;
        match apart {
            true => reshape(graph, value, &[0, i(n_kept), i(n_shared), -1, i(size)]),
            false => reshape(graph, value, &[0, i(n_kept * n_shared), -1, i(size)]),
        }
    }
}

/// `[batch, steps, heads · size]` to `[batch, heads, steps, size]`, `apart` the sizes of all but batch and steps.
fn heads_first(graph: &mut GraphBuilder, value: &Name, apart: &[usize]) -> Name {
    let shape: Vec<i64> = [0, 0].into_iter().chain(apart.iter().map(|&size| i(size))).collect();
    let value = reshape(graph, value, &shape);
    let perm = if apart.len() == 3 { vec![0, 2, 3, 1, 4] } else { vec![0, 2, 1, 3] };
    graph.node(Op::Transpose(op::Transpose { perm }), &[&value])
}

fn dense(graph: &mut GraphBuilder, name: &str, x: &Name, shape: [usize; 2]) -> Name {
    let seed: u32 = name.bytes().map(u32::from).sum();
    let numbers = (0..shape[0] * shape[1]).map(|k| 0.7 * (k as f32 * 1.3 + seed as f32).cos()).collect();
    let weight = graph.initializer(name, Tensor::new(&shape, numbers).expect("as many as the shape has"));
    graph.node(Op::MatMul, &[x, &weight])
}

fn unsqueeze(graph: &mut GraphBuilder, value: &Name) -> Name {
    let axes = integers(graph, &[2]);
    graph.node(Op::Unsqueeze, &[value, &axes])
}

fn reshape(graph: &mut GraphBuilder, value: &Name, shape: &[i64]) -> Name {
    let shape = integers(graph, shape);
    graph.node(Op::Reshape(op::Reshape { allowzero: false }), &[value, &shape])
}

fn integers(graph: &mut GraphBuilder, numbers: &[i64]) -> Name {
    graph.initializer("integers", Tensor::vector(numbers.to_vec()))
}

fn i(number: usize) -> i64 {
    i64::try_from(number).expect("small")
}
