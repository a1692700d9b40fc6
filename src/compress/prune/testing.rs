//! What the tests of pruning share: the reference as something that runs, inputs, and small networks.

use indexmap::IndexMap;

use super::{PruneError, Selection};
pub(super) use crate::compress::testing::Reference;
use crate::graph::op::{self, Op};
use crate::graph::probe::{ProbeError, Quality, Score, TimeRatio};
use crate::graph::shape::{self, Bindings, Types};
use crate::graph::structure::groups::{Groups, groups};
use crate::graph::structure::removal::remove;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, Graph, GraphBuilder, Name, TensorType, eval};

/// Numbers that depend on nothing but their place.
pub(super) fn wave(shape: &[usize], phase: f32) -> Tensor {
    let number = |k: usize| (k as f32 * 1.7 + phase).sin() + (k as f32 * 0.37 + 2.0 * phase).cos() * 0.5;
    Tensor::new(shape, (0..shape.iter().product::<usize>()).map(number).collect()).expect("as many as the shape has")
}

/// A batch of the network's input, open sizes at four.
pub(super) fn inputs(graph: &Graph, phase: f32) -> IndexMap<Name, Tensor> {
    let input = &graph.inputs[0];
    let dims = input.tensor_type().and_then(|known| known.shape.clone()).expect("a shape");
    let shape: Vec<usize> = dims.iter().map(|dim| dim.known().unwrap_or(4)).collect();
    IndexMap::from([(input.name.clone(), wave(&shape, phase))])
}

/// Several batches.
pub(super) fn batches(graph: &Graph) -> Vec<Result<IndexMap<Name, Tensor>, PruneError>> {
    (0..12).map(|k| Ok(inputs(graph, 0.1 + k as f32 * 0.83))).collect()
}

pub(super) fn typed(graph: &Graph) -> Types {
    shape::infer(graph, &Bindings::default()).expect("types fit")
}

pub(super) fn grouped(graph: &Graph) -> (Types, Groups) {
    let types = typed(graph);
    let found = groups(graph, &types);
    (types, found)
}

/// About a third of the units of each group, alone or all.
pub(super) fn third(groups: &Groups, only: Option<usize>) -> Selection {
    let units = groups.groups.iter().enumerate().map(|(idx, group)| {
        let n_gone =
            if only.is_some_and(|only| only != idx) || group.n_units < 2 { 0 } else { (group.n_units / 3).max(1) };
        (0..n_gone).map(|k| k * group.n_units / n_gone).collect()
    });
    Selection { units: units.collect() }
}

/// The network without the units of a selection; none where something would be emptied.
pub(super) fn without(graph: &Graph, types: &Types, groups: &Groups, selection: &Selection) -> Option<Graph> {
    remove(graph, types, &selection.removals(groups)).ok()
}

pub(super) fn outputs(graph: &Graph, phase: f32) -> Vec<f32> {
    let outputs = eval::run(graph, &inputs(graph, phase)).expect("it runs");
    outputs.into_values().flat_map(|tensor| tensor.to_vec::<f32>().expect("floats")).collect()
}

/// The mean square of the difference over that of the first network's outputs, on the batches.
pub(super) fn noise(original: &Graph, other: &Graph) -> f64 {
    let (mut difference, mut power) = (0.0, 0.0);
    for k in 0..12 {
        let phase = 0.1 + k as f32 * 0.83;
        for (a, b) in outputs(original, phase).into_iter().zip(outputs(other, phase)) {
            difference += f64::from(a - b).powi(2);
            power += f64::from(a).powi(2);
        }
    }
    difference / power.max(1e-12)
}

/// A judge by the reference.
pub(super) struct Judge(pub(super) Graph);

impl Score for Judge {
    fn time_ratio(&mut self, _: &Graph, _: &Graph) -> Result<TimeRatio, ProbeError> {
        unreachable!("times do not count")
    }

    fn quality(&mut self, candidate: &Graph) -> Result<Quality, ProbeError> {
        Ok(Quality { noise: noise(&self.0, candidate), accuracy: None })
    }

    fn n_bytes(&mut self, _: &Graph) -> Result<u64, ProbeError> {
        unreachable!("files do not count")
    }
}

/// A network being built.
pub(super) struct Net(pub(super) GraphBuilder);

impl Net {
    /// With an input `[batch, n]`.
    pub(super) fn of_rows(n: usize) -> (Net, Name) {
        let mut builder = GraphBuilder::new("net");
        let x = builder.input("x", TensorType::new(DType::F32, [Dim::from("batch"), n.into()]));
        (Net(builder), x)
    }

    /// With an input `[batch, channels, 6, 6]`.
    pub(super) fn of_images(channels: usize) -> (Net, Name) {
        let mut builder = GraphBuilder::new("net");
        let x =
            builder.input("x", TensorType::new(DType::F32, [Dim::from("batch"), channels.into(), 6.into(), 6.into()]));
        (Net(builder), x)
    }

    pub(super) fn conv(&mut self, x: &Name, to: usize, from: usize) -> Name {
        let weight = self.0.initializer("weight", wave(&[to, from, 3, 3], to as f32 + 0.3 * from as f32));
        let bias = self.0.initializer("bias", wave(&[to], 0.2));
        self.0.node(Op::Conv(op::Conv { pads: vec![1; 4], ..op::Conv::default() }), &[x, &weight, &bias])
    }

    pub(super) fn dense(&mut self, x: &Name, name: &str, weight: Tensor) -> Name {
        let bias = self.0.initializer(&format!("{name}.bias"), wave(&[weight.shape()[1]], 0.7));
        let weight = self.0.initializer(name, weight);
        let product = self.0.node(Op::MatMul, &[x, &weight]);
        self.0.node(Op::Add, &[&product, &bias])
    }

    pub(super) fn finish(mut self, y: &Name) -> Graph {
        self.0.output(y);
        self.0.finish().expect("a graph")
    }
}
