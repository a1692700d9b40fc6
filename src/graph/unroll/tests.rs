//! Cells of every kind, written out and whole, by the reference; and what stays one node.

use indexmap::IndexMap;
use proptest::prelude::*;

use super::{MOST_STEPS, Unrolled, unroll};
use crate::graph::eval;
use crate::graph::op::{Direction, GRU, LSTM, Op, RNN};
use crate::graph::shape::{self, Bindings};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, Graph, GraphBuilder, Name, Node, TensorType};

const N_BATCHES: usize = 2;
const N_INPUTS: usize = 3;

/// A recurrent operator to be tested.
#[derive(Clone, Debug)]
struct Case {
    kind: &'static str,
    direction: Direction,
    n_steps: usize,
    hidden: usize,
    is_batch_first: bool,
    has_bias: bool,
    has_h: bool,
    has_c: bool,
    has_peepholes: bool,
    /// `linear_before_reset` or `input_forget`
    option: bool,
    clip: Option<f32>,
    activations: Vec<&'static str>,
    seed: u64,
}

impl Default for Case {
    fn default() -> Case {
        Case {
            kind: "LSTM",
            direction: Direction::Forward,
            n_steps: 4,
            hidden: 2,
            is_batch_first: false,
            has_bias: true,
            has_h: false,
            has_c: false,
            has_peepholes: false,
            option: false,
            clip: None,
            activations: Vec::new(),
            seed: 1,
        }
    }
}

impl Case {
    fn n_directions(&self) -> usize {
        if self.direction == Direction::Bidirectional { 2 } else { 1 }
    }

    fn n_gates(&self) -> usize {
        match self.kind {
            "RNN" => 1,
            "GRU" => 3,
            _ => 4,
        }
    }

    fn op(&self) -> Op {
        let activations: Vec<String> = self.activations.iter().map(ToString::to_string).collect();
        let (activation_alpha, activation_beta) = match activations.is_empty() {
            true => (Vec::new(), Vec::new()),
            false => (vec![0.3, 0.6, 0.2, 0.7], vec![0.8, 0.4]),
        };
        let (direction, clip) = (self.direction, self.clip);
        let (hidden_size, layout) = (i64::try_from(self.hidden).ok(), i64::from(self.is_batch_first));
        match self.kind {
            "RNN" => {
                Op::RNN(RNN { activation_alpha, activation_beta, activations, clip, direction, hidden_size, layout })
            }
            "GRU" => Op::GRU(GRU {
                activation_alpha,
                activation_beta,
                activations,
                clip,
                direction,
                hidden_size,
                layout,
                linear_before_reset: self.option,
            }),
            _ => Op::LSTM(LSTM {
                activation_alpha,
                activation_beta,
                activations,
                clip,
                direction,
                hidden_size,
                layout,
                input_forget: self.option,
            }),
        }
    }

    /// The operator alone in a network of an open batch, and inputs for it.
    fn network(&self) -> (Graph, IndexMap<Name, Tensor>) {
        let mut numbers = Numbers(self.seed % 1_000_000 + 77);
        let mut builder = GraphBuilder::new("net");
        let mut feeds = IndexMap::new();
        let (n_directions, n_rows) = (self.n_directions(), self.n_gates() * self.hidden);
        let mut input =
            |builder: &mut GraphBuilder, numbers: &mut Numbers, name: &str, batch: usize, sizes: &[usize]| {
                let mut dims: Vec<Dim> = sizes.iter().copied().map(Dim::from).collect();
                dims[batch] = Dim::from("batch");
                let name = builder.input(name, TensorType::new(DType::F32, dims));
                feeds.insert(name.clone(), numbers.tensor(sizes));
                Some(name)
            };
        let x = match self.is_batch_first {
            true => input(&mut builder, &mut numbers, "x", 0, &[N_BATCHES, self.n_steps, N_INPUTS]),
            false => input(&mut builder, &mut numbers, "x", 1, &[self.n_steps, N_BATCHES, N_INPUTS]),
        };
        let mut constant = |builder: &mut GraphBuilder, name: &str, shape: &[usize]| {
            Some(builder.initializer(name, numbers.tensor(shape)))
        };
        let mut inputs = vec![
            x,
            constant(&mut builder, "W", &[n_directions, n_rows, N_INPUTS]),
            constant(&mut builder, "R", &[n_directions, n_rows, self.hidden]),
            None,
        ];
        if self.has_bias {
            inputs[3] = constant(&mut builder, "B", &[n_directions, 2 * n_rows]);
        }
        let p = self.has_peepholes.then(|| constant(&mut builder, "P", &[n_directions, 3 * self.hidden]));
        let mut state = |builder: &mut GraphBuilder, numbers: &mut Numbers, name: &str| match self.is_batch_first {
            true => input(builder, numbers, name, 0, &[N_BATCHES, n_directions, self.hidden]),
            false => input(builder, numbers, name, 1, &[n_directions, N_BATCHES, self.hidden]),
        };
        inputs.push(None);
        inputs.push(if self.has_h { state(&mut builder, &mut numbers, "initial_h") } else { None });
        if self.kind == "LSTM" {
            inputs.push(if self.has_c { state(&mut builder, &mut numbers, "initial_c") } else { None });
            inputs.extend(p);
        }
        while inputs.last().is_some_and(Option::is_none) {
            inputs.pop();
        }
        let outputs: &[&str] = if self.kind == "LSTM" { &["Y", "Y_h", "Y_c"] } else { &["Y", "Y_h"] };
        let outputs: Vec<Name> = outputs.iter().map(|&name| name.into()).collect();
        builder.push(Node::new(self.op(), inputs, outputs.iter().cloned().map(Some).collect()));
        outputs.iter().for_each(|output| builder.output(output));
        (builder.finish().expect("a graph"), feeds)
    }
}

/// Numbers from a generator of Lehmer's.
struct Numbers(u64);

impl Numbers {
    fn tensor(&mut self, shape: &[usize]) -> Tensor {
        let mut next = || {
            self.0 = self.0 * 48_271 % 0x7fff_ffff;
            self.0 as f32 / 0x4000_0000 as f32 - 1.0
        };
        let n_elements = shape.iter().product();
        Tensor::new(shape, (0..n_elements).map(|_| next()).collect()).expect("as many as the shape takes")
    }
}

fn unrolled(graph: &Graph) -> Unrolled {
    let types = shape::infer(graph, &Bindings::default()).expect("types fit");
    unroll(graph, &types).expect("it fits")
}

fn is_recurrent(node: &Node) -> bool {
    matches!(node.op, Op::RNN(_) | Op::GRU(_) | Op::LSTM(_))
}

/// Written out, the operator gives the same outputs.
fn check(case: &Case) {
    let (graph, feeds) = case.network();
    let written = unrolled(&graph);
    assert_eq!((written.done.len(), written.declined.len()), (1, 0), "{case:?}: {:?}", written.declined);
    assert!(!written.graph.nodes.iter().any(is_recurrent));
    written.graph.check().expect("still a graph");
    let types = shape::infer(&written.graph, &Bindings::default()).expect("types fit");
    let known = shape::infer(&graph, &Bindings::default()).expect("types fit");
    let expected = eval::run(&graph, &feeds).expect("it runs");
    let got = eval::run(&written.graph, &feeds).expect("it runs");
    assert_eq!(expected.keys().collect::<Vec<_>>(), got.keys().collect::<Vec<_>>());
    for (name, expected) in &expected {
        assert_eq!(types.tensor(name), known.tensor(name), "{case:?} {name}");
        assert_eq!(expected.shape(), got[name].shape(), "{case:?} {name}");
        let pairs =
            expected.to_vec::<f32>().expect("floats").into_iter().zip(got[name].to_vec::<f32>().expect("floats"));
        for (a, b) in pairs {
            assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{case:?} {name}: {a} {b}");
        }
    }
}

#[test]
fn every_kind_in_every_direction() {
    for kind in ["RNN", "GRU", "LSTM"] {
        for direction in [Direction::Forward, Direction::Reverse, Direction::Bidirectional] {
            for option in [false, true] {
                check(&Case { kind, direction, option, ..Case::default() });
                let (has_h, has_c, is_batch_first) = (true, true, true);
                check(&Case { kind, direction, option, has_h, has_c, is_batch_first, ..Case::default() });
            }
        }
    }
}

#[test]
fn every_activation() {
    for name in [
        "Affine",
        "Elu",
        "HardSigmoid",
        "LeakyRelu",
        "Relu",
        "ScaledTanh",
        "Sigmoid",
        "Softplus",
        "Softsign",
        "Tanh",
        "ThresholdedRelu",
    ] {
        check(&Case { kind: "RNN", activations: vec![name], ..Case::default() });
        check(&Case { activations: vec!["Sigmoid", name, name], has_c: true, ..Case::default() });
    }
}

/// As many activations as a cell has, of those that keep a state from growing.
fn activations(kind: &'static str, n_directions: usize) -> impl Strategy<Value = Vec<&'static str>> {
    let count = n_directions * if kind == "RNN" { 1 } else { if kind == "GRU" { 2 } else { 3 } };
    let one = prop::sample::select(vec!["Sigmoid", "Tanh", "HardSigmoid", "Softsign", "ScaledTanh", "Elu"]);
    prop_oneof![Just(Vec::new()), prop::collection::vec(one, count)]
}

fn cases() -> impl Strategy<Value = Case> {
    let kind = prop::sample::select(vec!["RNN", "GRU", "LSTM"]);
    let direction = prop::sample::select(vec![Direction::Forward, Direction::Reverse, Direction::Bidirectional]);
    let flags = prop::array::uniform6(any::<bool>());
    let clip = prop::option::of(0.2f32..1.0);
    let fixed = (kind, direction, 1usize..6, 1usize..5, flags, clip, any::<u64>());
    fixed.prop_flat_map(|(kind, direction, n_steps, hidden, flags, clip, seed)| {
        let [is_batch_first, has_bias, has_h, has_c, has_peepholes, option] = flags;
        let case = Case {
            kind,
            direction,
            n_steps,
            hidden,
            is_batch_first,
            has_bias,
            has_h,
            has_c,
            has_peepholes: has_peepholes && kind == "LSTM",
            option,
            clip,
            seed,
            ..Case::default()
        };
        activations(kind, case.n_directions()).prop_map(move |activations| Case { activations, ..case.clone() })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn cells_compute_the_same_written_out(case in cases()) {
        check(&case);
    }
}

/// The network with its parts changed stays as it is, for this reason.
fn declined(case: &Case, change: impl Fn(&mut crate::graph::GraphParts), reason: &str) {
    let mut parts = case.network().0.to_parts();
    change(&mut parts);
    let graph = Graph::new(parts).expect("a graph");
    let written = unrolled(&graph);
    assert_eq!(written.graph, graph);
    let reasons: Vec<&str> = written.declined.iter().map(|declined| declined.reason.as_str()).collect();
    assert!(written.done.is_empty() && reasons.len() == 1 && reasons[0].contains(reason), "{reason}: {reasons:?}");
}

fn set_length(parts: &mut crate::graph::GraphParts, length: Dim) {
    let mut dims = [length, Dim::from("batch"), Dim::Known(N_INPUTS)].to_vec();
    parts.outputs.iter_mut().for_each(|output| *output = crate::graph::ValueInfo::untyped(&output.name));
    if let Some(shape) = parts.inputs[0].tensor_type().and_then(|it| it.shape.clone()) {
        dims.truncate(shape.len());
    }
    parts.inputs[0] = crate::graph::ValueInfo::new("x", TensorType::new(DType::F32, dims));
}

#[test]
fn what_cannot_be_written_out_stays_and_says_why() {
    let case = Case::default();
    declined(&case, |parts| set_length(parts, Dim::from("time")), "`aludel simplify --bind time=N`");
    declined(&case, |parts| set_length(parts, Dim::Unknown), "`aludel simplify --bind INPUT#AXIS=N`");
    declined(&case, |parts| set_length(parts, Dim::Known(MOST_STEPS + 1)), "257 steps");
    declined(&case, |parts| set_length(parts, Dim::Known(0)), "empty");
    let lengths = |lengths: Vec<i32>| {
        move |parts: &mut crate::graph::GraphParts| {
            parts.initializers.insert("lens".into(), Tensor::vector(lengths.clone()));
            parts.nodes[0].inputs.resize(5, None);
            parts.nodes[0].inputs[4] = Some("lens".into());
        }
    };
    declined(&case, lengths(vec![4, 3]), "lengths of their own");
    let given = |position: usize| {
        move |parts: &mut crate::graph::GraphParts| {
            let name = parts.nodes[0].inputs[position].clone().expect("it is given");
            let tensor = parts.initializers.shift_remove(&name).expect("a constant");
            parts.inputs.push(crate::graph::ValueInfo::new(&name, TensorType::of(&tensor)));
        }
    };
    declined(&case, given(1), "its W is no constant");
    declined(&case, given(2), "its R is no constant");
    declined(&case, given(3), "its B is no constant");
    declined(&Case { activations: vec!["Tanh"], ..Case::default() }, |_| (), "`activations` should have 3 entries");
    let step = |parts: &mut crate::graph::GraphParts| {
        if let Op::LSTM(lstm) = &mut parts.nodes[0].op {
            lstm.activations = ["Sigmoid", "Step", "Tanh"].map(str::to_string).to_vec();
        }
    };
    declined(&case, step, "`Step`");
}

#[test]
fn lengths_that_are_all_full_are_none() {
    let mut parts = Case::default().network().0.to_parts();
    parts.initializers.insert("lens".into(), Tensor::vector(vec![4i32; N_BATCHES]));
    parts.nodes[0].inputs.extend([Some("lens".into())]);
    let written = unrolled(&Graph::new(parts).expect("a graph"));
    assert_eq!((written.done.len(), written.graph.initializers.contains_key("lens")), (1, false));
}

#[test]
fn weights_stand_once_and_a_first_step_has_no_product() {
    let (graph, _) = Case { has_bias: false, n_steps: 5, ..Case::default() }.network();
    let written = unrolled(&graph).graph;
    let products: Vec<&Node> = written.nodes.iter().filter(|node| node.op == Op::MatMul).collect();
    assert_eq!(products.len(), 1 + 4);
    assert!(products[1..].iter().all(|node| node.input(1) == products[1].input(1)));
    let n_floats = written.initializers.values().filter(|tensor| tensor.dtype() == DType::F32).count();
    assert_eq!(n_floats, 2);
}
