//! Networks quantized as a whole: which values become integers, and what the result computes.

use indexmap::IndexMap;
use proptest::prelude::*;

use super::plan::WeightSite;
use super::scheme::{Integer, Scheme, Weights};
use super::*;
pub(super) use crate::compress::testing::{Reference, wave};
use crate::graph::op::{self, Op};
use crate::graph::shape::{self, Bindings};
use crate::graph::simplify;
use crate::graph::structure::random_graphs;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, Graph, GraphBuilder, Name, TensorType, eval};

pub(super) fn inputs(graph: &Graph, phase: f32) -> IndexMap<Name, Tensor> {
    let input = &graph.inputs[0];
    let dims = input.tensor_type().and_then(|known| known.shape.clone()).expect("a shape");
    let shape: Vec<usize> = dims.iter().map(|dim| dim.known().unwrap_or(2)).collect();
    IndexMap::from([(input.name.clone(), wave(&shape, phase))])
}

pub(super) fn planned(graph: &Graph, scheme: &str) -> Result<Plan, QuantizeError> {
    let types = shape::infer(graph, &Bindings::default()).expect("types fit");
    plan(graph, &types, &toml::from_str::<Scheme>(scheme).expect("a scheme"))
}

/// Calibrated by the reference on three batches, what [`difference`] runs among them.
pub(super) fn calibrated(graph: &Graph, plan: &Plan, calibrator: Calibrator) -> Scales {
    let values: Vec<Name> = plan.values.keys().cloned().collect();
    let batches = [0.1, 0.4, 1.9].map(|phase| Ok::<_, QuantizeError>(inputs(graph, phase)));
    let ranges = calibrate(&mut Reference(graph.clone(), values.clone()), &values, true, batches, |_| ());
    let bounds = ranges.and_then(|ranges| ranges.bounds(&plan.values, calibrator)).expect("calibrated");
    scales(graph, plan, &bounds).expect("every value has a range")
}

pub(super) fn quantized(graph: &Graph, plan: &Plan, calibrator: Calibrator) -> Graph {
    let quantized = insert(graph, plan, &calibrated(graph, plan, calibrator)).expect("inserted");
    quantized.check().expect("a graph");
    quantized
}

pub(super) fn outputs(graph: &Graph, phase: f32) -> Vec<f32> {
    let outputs = eval::run(graph, &inputs(graph, phase)).expect("it runs");
    outputs.into_values().flat_map(|tensor| tensor.to_vec::<f32>().expect("floats")).collect()
}

/// The greatest difference of the outputs, as part of the greatest magnitude.
pub(super) fn difference(a: &Graph, b: &Graph) -> f32 {
    let (a, b) = (outputs(a, 0.4), outputs(b, 0.4));
    let greatest = a.iter().fold(1e-3f32, |greatest, x| greatest.max(x.abs()));
    a.iter().zip(&b).map(|(a, b)| (a - b).abs() / greatest).fold(0.0, f32::max)
}

/// Every value that becomes integers, those of one scale together.
fn groups(plan: &Plan) -> String {
    let mut groups: IndexMap<usize, Vec<&str>> = IndexMap::new();
    plan.values.iter().for_each(|(name, quantized)| groups.entry(quantized.group).or_default().push(name));
    groups.into_values().map(|names| names.join("=")).collect::<Vec<_>>().join(" ")
}

struct Net(GraphBuilder);

impl Net {
    fn new(channels: usize) -> (Net, Name) {
        let mut builder = GraphBuilder::new("net");
        let x =
            builder.input("x", TensorType::new(DType::F32, [Dim::from("batch"), channels.into(), 6.into(), 6.into()]));
        (Net(builder), x)
    }

    fn conv(&mut self, x: &Name, to: usize, from: usize) -> Name {
        let weight = self.0.initializer("weight", wave(&[to, from, 3, 3], to as f32));
        let bias = self.0.initializer("bias", wave(&[to], 0.2));
        self.0.node(Op::Conv(op::Conv { pads: vec![1; 4], ..op::Conv::default() }), &[x, &weight, &bias])
    }

    fn finish(mut self, y: &Name) -> Graph {
        self.0.output(y);
        self.0.finish().expect("a graph")
    }
}

/// A residual block, a pooling and a classifier.
pub(super) fn residual() -> Graph {
    let (mut net, x) = Net::new(2);
    let first = net.conv(&x, 4, 2);
    let stem = net.0.node(Op::Relu, &[&first]);
    let inner = net.conv(&stem, 4, 4);
    let sum = net.0.node(Op::Add, &[&inner, &stem]);
    let out = net.0.node(Op::Relu, &[&sum]);
    let pool = op::MaxPool { kernel_shape: vec![2, 2], strides: vec![2, 2], ..random_graphs::max_pool() };
    let pooled = net.0.node(Op::MaxPool(pool), &[&out]);
    let mean = net.0.node(Op::GlobalAveragePool, &[&pooled]);
    let flat = net.0.node(Op::Flatten(op::Flatten::default()), &[&mean]);
    let weight = net.0.initializer("head", wave(&[3, 4], 0.0));
    let bias = net.0.initializer("head_bias", wave(&[3], 1.0));
    let head = op::Gemm { trans_b: true, ..op::Gemm::default() };
    let logits = net.0.node(Op::Gemm(head), &[&flat, &weight, &bias]);
    net.finish(&logits)
}

#[test]
fn a_residual_network_is_integers_from_end_to_end() {
    let graph = residual();
    let plan = planned(&graph, "").expect("it has products");
    // Relus are implied, the pooling and the flattening keep the scale, and the logits stay floats.
    assert_eq!(groups(&plan), "x relu conv_2 relu_2=maxpool globalaveragepool=flatten");
    assert_eq!((plan.weights.len(), plan.biases.len(), plan.integer.len()), (3, 3, 5));
    assert_eq!(plan.float, []);
    // So few samples make the divergence cut off much.
    for (calibrator, most) in [(Calibrator::MinMax, 0.06), (Calibrator::Mse, 0.06), (Calibrator::Entropy, 0.1)] {
        let quantized = quantized(&graph, &plan, calibrator);
        let difference = difference(&graph, &quantized);
        assert!(difference > 0.0 && difference < most, "{calibrator:?}: {difference}");
        assert_eq!(quantized.inputs, graph.inputs);
        assert_eq!(quantized.outputs[0].name, graph.outputs[0].name);
    }
}

#[test]
fn what_stays_in_floats_is_named() {
    let graph = residual();
    let plan = planned(&graph, "exclude = ['conv_2']").expect("two products are left");
    // Without it the sum is floats, and what follows up to the next product.
    assert_eq!(groups(&plan), "x relu flatten");
    let reasons: Vec<String> = plan.float.iter().map(|float| format!("{}: {}", float.node, float.reason)).collect();
    assert_eq!(
        reasons,
        [
            "Conv `conv_2`: excluded by `conv_2`",
            "Add `add`: not all that it reads are integers, or none that reads it is",
            "GlobalAveragePool `globalaveragepool`: not all that it reads are integers, or none that reads it is",
        ]
    );
    let refused = |scheme: &str| planned(&graph, scheme).expect_err("refused").to_string();
    assert_eq!(
        refused("exclude = ['/nobody/*']"),
        "`/nobody/*` means no node of the network (hint: `aludel inspect` lists their names)"
    );
    assert_eq!(refused("exclude = ['Conv', 'Gemm']"), "nothing can be quantized: Conv `conv`: excluded by `Conv`");
}

#[test]
fn a_relu_read_by_others_too_is_not_implied() {
    let (mut net, x) = Net::new(2);
    let first = net.conv(&x, 4, 2);
    let positive = net.0.node(Op::Relu, &[&first]);
    let second = net.conv(&positive, 4, 4);
    let sum = net.0.node(Op::Add, &[&second, &first]);
    let last = net.conv(&sum, 2, 4);
    let graph = net.finish(&last);
    let plan = planned(&graph, "").expect("it has products");
    assert_eq!(groups(&plan), "x conv relu conv_2 add conv_3");
    let symmetric = planned(&residual(), "activations = { dtype = 'i8', symmetric = true }").expect("it has products");
    // A Relu is not implied where half of the integers are negative.
    assert!(groups(&symmetric).starts_with("x conv"), "{}", groups(&symmetric));
    assert!(difference(&graph, &quantized(&graph, &plan, Calibrator::MinMax)) < 0.06);
}

#[test]
fn an_exception_counts_for_what_a_node_reads_and_makes() {
    let graph = residual();
    let wide = "override = [{ nodes = 'conv_2', activations = { dtype = 'u16' } }]";
    let plan = planned(&graph, wide).expect("it has products");
    let types: Vec<Integer> = plan.values.values().map(|quantized| quantized.activations.dtype).collect();
    // x, relu, conv_2, relu_2, maxpool, globalaveragepool, flatten
    use Integer::{U8, U16};
    assert_eq!(types, [U8, U16, U16, U8, U8, U8, U8]);
    let both = "override = [{ nodes = 'conv_2', activations = { dtype = 'u16' } }, { nodes = 'conv', activations = { dtype = 'i8' } }]";
    assert_eq!(
        planned(&graph, both).expect_err("two types").to_string(),
        "`override` asks for two types of `relu`, by who makes and by who reads it"
    );
    // Values of one scale have the type of the first of them.
    let shared = format!("one_scale = ['Add']\n{wide}");
    let plan = planned(&graph, &shared).expect("it has products");
    assert!(plan.values.values().filter(|it| it.group == 1).all(|it| it.activations.dtype == U16), "{plan:?}");
}

#[test]
fn what_moves_numbers_can_be_excluded_too() {
    let plan = planned(&residual(), "exclude = ['MaxPool']").expect("it has products");
    // The sum before it is then read by nothing in integers, and stays in floats.
    assert_eq!(groups(&plan), "x relu conv_2 flatten");
}

#[test]
fn what_no_runtime_computes_rightly_is_refused() {
    let graph = residual();
    let refused = |scheme: &str| planned(&graph, scheme).expect_err(scheme).to_string();
    assert_eq!(
        refused("weights = { granularity = { block = 2 } }"),
        "`weights.granularity` is by block, which is for weights alone: take the form `weights`"
    );
    assert!(
        refused("weights = { dtype = 'u8', symmetric = false }").starts_with("`weights.symmetric` is false by channel")
    );
    assert!(planned(&graph, "weights = { dtype = 'u8', symmetric = false, granularity = 'tensor' }").is_ok());
    assert!(refused("operators = ['LSTM']").starts_with("`operators` has LSTM, which computes on integers"));
    let mut parts = graph.to_parts();
    parts.initializers.insert("head".into(), Tensor::new(&[3, 4], vec![f32::NAN; 12]).expect("twelve"));
    let broken = Graph::new(parts).expect("a graph");
    let error = planned(&broken, "").expect_err("no number").to_string();
    assert!(error.starts_with("the constant `head` holds numbers that are infinite, or none"), "{error}");
}

#[test]
fn operators_of_one_scale_share_it() {
    let plan = planned(&residual(), "one_scale = ['Add']").expect("it has products");
    assert_eq!(groups(&plan), "x relu=conv_2=relu_2=maxpool globalaveragepool=flatten");
}

#[test]
fn a_bias_beyond_32_bits_widens_the_scale_of_its_weights() {
    let mut builder = GraphBuilder::new("net");
    let x = builder.input("x", TensorType::new(DType::F32, [1usize, 2]));
    let weight = builder.initializer("w", Tensor::new(&[2, 2], vec![1e-6f32, 0.5, 1e-6, -0.5]).expect("four"));
    let bias = builder.initializer("b", Tensor::vector(vec![100.0f32, 0.1]));
    let y = builder.node(Op::Gemm(op::Gemm::default()), &[&x, &weight, &bias]);
    builder.output(&y);
    let graph = builder.finish().expect("a graph");
    let plan = planned(&graph, "").expect("a product");
    let bounds = IndexMap::from([(Name::from("x"), (-1.0f32, 1.0f32))]);
    let scales = scales(&graph, &plan, &bounds).expect("every value has a range");
    let quantized = insert(&graph, &plan, &scales).expect("inserted");
    let y = outputs(&quantized, 0.4);
    assert!((y[0] - 100.0).abs() < 0.01 && (y[1] - outputs(&graph, 0.4)[1]).abs() < 0.01, "{y:?}");
}

#[test]
fn products_alone_leave_what_is_between_in_floats() {
    let mut builder = GraphBuilder::new("net");
    let x = builder.input("x", TensorType::new(DType::F32, [Dim::from("batch"), 5.into(), 8.into()]));
    let first = builder.initializer("first", wave(&[8, 6], 0.0));
    let hidden = builder.node(Op::MatMul, &[&x, &first]);
    let bias = builder.initializer("bias", wave(&[6], 0.5));
    let sum = builder.node(Op::Add, &[&hidden, &bias]);
    let active = builder.node(Op::Gelu(op::Gelu::default()), &[&sum]);
    let second = builder.initializer("second", wave(&[6, 8], 0.3));
    let out = builder.node(Op::MatMul, &[&active, &second]);
    let product = builder.node(Op::MatMul, &[&out, &first]);
    builder.output(&product);
    let graph = builder.finish().expect("a graph");
    let types = shape::infer(&graph, &Bindings::default()).expect("types fit");
    let plan = plan(&graph, &types, &Scheme::of_products()).expect("it has products");
    assert_eq!(groups(&plan), "x gelu matmul_2");
    assert!(plan.weights.iter().all(|site| site.axis == Some(1)));
    let quantized = quantized(&graph, &plan, Calibrator::MinMax);
    // One constant, read twice, is quantized once.
    let n_bytes: usize =
        quantized.initializers.values().filter(|tensor| tensor.dtype() == DType::I8).map(Tensor::len).sum();
    assert_eq!(n_bytes, 8 * 6 + 6 * 8 + 6 + 8, "weights and zero points");
    assert!(difference(&graph, &quantized) < 0.06);
}

#[test]
fn what_has_not_learned_freezes_to_what_was_never_trained() {
    let graph = residual();
    let plan = planned(&graph, "").expect("it has products");
    let bounds = plan.values.keys().map(|name| (name.clone(), (-2.0f32, 6.0f32))).collect();
    let scales = scales(&graph, &plan, &bounds).expect("every value has a range");
    let fake = fake::fake(&graph, &plan, &scales).expect("inserted");
    let frozen = fake.freeze(&fake.graph).expect("as it is");
    assert_eq!(frozen, insert(&graph, &plan, &scales).expect("inserted"));
    // Biases are rounded only then.
    assert!(difference(&fake.graph, &frozen) < 1e-3);
    // With fewer bits, too, and where a scale has become smaller than the weights need.
    let few = planned(&graph, "weights = { bits = 3 }").expect("it has products");
    let mut scales = insert::scales(&graph, &few, &bounds).expect("every value has a range");
    scales.weights.iter_mut().flatten().for_each(|parameters| parameters.scale *= 0.3);
    let narrow = fake::fake(&graph, &few, &scales).expect("inserted");
    // A bias rounded to larger steps can move a value by one.
    let moved = difference(&narrow.graph, &narrow.freeze(&narrow.graph).expect("as it is"));
    assert!(moved < 0.02, "{moved}");
    // Another scale and another weight are taken over.
    let mut patch = crate::graph::patch::Patch::new(&fake.graph);
    patch.replace_initializer(&"x_scale".into(), Tensor::scalar(0.5f32));
    patch.replace_initializer(&"weight".into(), Tensor::zeros(DType::F32, &[4, 2, 3, 3]).expect("small"));
    let learned = patch.apply(None).expect("the same types");
    let frozen = fake.freeze(&learned).expect("as it learned");
    assert_eq!(frozen.initializers["x_scale"].as_slice::<f32>().expect("floats"), [0.5]);
    assert!(frozen.initializers["weight_quantized"].as_slice::<i8>().expect("bytes").iter().all(|&q| q == 0));
}

fn wide() -> Weights {
    Weights { dtype: Integer::I16, ..Weights::default() }
}

#[test]
fn weights_alone_are_a_quarter_of_the_bytes() {
    let graph = residual();
    let plan = planned(&graph, "").expect("it has products");
    let narrow = insert_weights(&graph, &plan.weights).expect("inserted");
    narrow.check().expect("a graph");
    assert!(difference(&graph, &narrow) < 0.1, "{}", difference(&graph, &narrow));
    let wide: Vec<WeightSite> =
        plan.weights.iter().cloned().map(|site| WeightSite { weights: wide(), ..site }).collect();
    assert!(difference(&graph, &insert_weights(&graph, &wide).expect("inserted")) < 1e-3);
    assert!(narrow.nodes.iter().all(|node| !matches!(node.op, Op::QuantizeLinear(_))));
}

/// Plans a network after simplifying it, quantizes it, and holds the outputs before those in floats.
fn check_any(graph: &Graph) -> Result<(), TestCaseError> {
    let graph = simplify::simplify(graph, &simplify::Options::default()).expect("it simplifies").graph;
    for scheme in ["", "activations = { dtype = 'i16', symmetric = true }\nweights = { dtype = 'i16' }"] {
        let plan = match planned(&graph, scheme) {
            Ok(plan) => plan,
            Err(QuantizeError::Nothing { .. }) => continue,
            Err(error) => panic!("{error}"),
        };
        let quantized = quantized(&graph, &plan, Calibrator::MinMax);
        let types = shape::infer(&quantized, &Bindings::default());
        prop_assert!(types.is_ok(), "{types:?}");
        if !scheme.is_empty() {
            // With 16 bits next to nothing is lost, wherever the integers are.
            let difference = difference(&graph, &quantized);
            prop_assert!(difference < 0.02, "{difference}\n{}", crate::graph::show::show(&quantized));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_convolutional_network_can_be_quantized(
        layers in random_graphs::layers(), flat in any::<bool>(), seed in any::<u64>(),
    ) {
        check_any(&random_graphs::convolutional(&layers, flat, seed))?;
    }

    #[test]
    fn any_sequential_network_can_be_quantized(blocks in random_graphs::blocks(), seed in any::<u64>()) {
        check_any(&random_graphs::sequential(&blocks, seed))?;
    }
}
