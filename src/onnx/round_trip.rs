//! What is written is read again the same: at random, and at the corners of the writer.

use bytes::Bytes;
use indexmap::IndexMap;
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};

use super::wire::ModelProto;
use super::{ExternalData, OnnxError, WriteOptions, read, read_bytes, to_bytes, to_bytes_at, write};
use crate::graph::attribute::{Attribute, SparseTensor};
use crate::graph::op::{
    Approximate, Cast, Concat, Constant, Dropout, Gelu, If, LeakyRelu, Loop, Opaque, Reduce, Reshape, Softmax, Split,
    Transpose,
};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{
    Denotation, Dim, Graph, GraphBuilder, GraphParts, Model, ModelNotes, Name, Node, NodeNotes, Op, TensorType,
    ValueInfo, ValueType,
};
use prost::Message;

/// One choice of the random graph: what, of which earlier value, and a number for the rest.
type Step = (u8, u8, u8);

fn pick<T: Clone>(list: &[T], number: u8) -> T {
    list[usize::from(number) % list.len()].clone()
}

fn dtype(number: u8) -> DType {
    pick(&DType::all().collect::<Vec<_>>(), number)
}

/// Element types that `Constant` has in opset 21; a constant of a newer type is written as an initializer.
const OF_OPSET_21: &[DType] = &[
    DType::F32,
    DType::I64,
    DType::F16,
    DType::BF16,
    DType::String,
    DType::Bool,
    DType::U4,
    DType::I16,
    DType::F8E5M2,
    DType::Complex128,
];

/// A tensor of any element type, its elements made of the number.
fn tensor(dtype: DType, number: u8) -> Tensor {
    let shape = pick(&[vec![], vec![3], vec![2, 3], vec![0, 2], vec![1, 1, 5]], number);
    let n_elements = shape.iter().product::<usize>();
    if dtype == DType::String {
        let strings = (0..n_elements).map(|idx| Bytes::from(vec![number; idx])).collect();
        return Tensor::from_strings(&shape, strings).expect("as many as the shape asks for");
    }
    let n_bytes = dtype.n_bytes(n_elements).expect("a small tensor");
    let wrapping = |idx: usize| u8::try_from(idx % 251).expect("below 251").wrapping_mul(31).wrapping_add(number);
    let byte = |idx| if dtype == DType::Bool { wrapping(idx) % 2 } else { wrapping(idx) };
    Tensor::from_bytes(dtype, &shape, (0..n_bytes).map(byte).collect()).expect("as many as the shape asks for")
}

fn sparse(number: u8) -> SparseTensor {
    let by_coordinate = number.is_multiple_of(2);
    let indices =
        if by_coordinate { Tensor::new(&[2, 2], vec![0i64, 1, 1, 2]) } else { Tensor::new(&[2], vec![1i64, 5]) };
    let values = Tensor::vector(vec![f32::from(number), 1.5]);
    SparseTensor { values, indices: indices.expect("shape fits"), shape: vec![2, 3] }
}

fn value_type(number: u8) -> ValueType {
    let dims = [Dim::Known(number.into()), Dim::from("batch"), Dim::Unknown];
    let tensor = TensorType::new(dtype(number), dims);
    match number % 6 {
        0 => tensor.into(),
        1 => TensorType::unranked(dtype(number)).into(),
        2 => ValueType::SparseTensor(tensor),
        3 => ValueType::Sequence(Box::new(ValueType::Optional(Box::new(tensor.into())))),
        4 => ValueType::Map { key: DType::I64, value: Box::new(tensor.into()) },
        _ => ValueType::Opaque { domain: "theirs".into(), name: "thing".into() },
    }
}

fn value_info(name: &Name, number: u8) -> ValueInfo {
    let value_type = value_type(number);
    let denotation = match &value_type {
        ValueType::Tensor(tensor) if tensor.rank().is_some() => {
            Denotation { value: "IMAGE".into(), dims: vec!["DATA_BATCH".into(), String::new(), "DATA_CHANNEL".into()] }
        }
        _ => Denotation::default(),
    };
    ValueInfo {
        doc: "what it is".repeat(usize::from(number % 2)),
        metadata: vec![("key".into(), number.to_string())],
        denotation,
        ..ValueInfo::new(name, value_type)
    }
}

fn body(captured: &Name, output: &str) -> Graph {
    let mut builder = GraphBuilder::new("branch");
    let two = builder.initializer(&format!("{output}_two"), Tensor::scalar(2f32));
    let product = builder.node(Op::Mul, &[captured, &two]);
    let output = Name::from(output);
    builder.push(Node::new(Op::Neg, vec![Some(product)], vec![Some(output.clone())]));
    builder.output(&output);
    rename_inside(&builder.finish_body().expect("a body"), &output)
}

/// The builder knows the names of its own graph alone.
fn rename_inside(graph: &Graph, suffix: &Name) -> Graph {
    let mut parts = graph.to_parts();
    for node in &mut parts.nodes {
        for name in node.inputs.iter_mut().chain(&mut node.outputs).flatten().filter(|name| name.as_str() == "mul") {
            *name = format!("mul_{suffix}").into();
        }
    }
    Graph::body(parts).expect("a body")
}

fn loop_body(captured: &Name, prefix: &str) -> Graph {
    let name = |name: &str| Name::from(format!("{prefix}_{name}"));
    let node = |op, inputs: &[&Name], output: Name| {
        Node::new(op, inputs.iter().map(|&name| Some(name.clone())).collect(), vec![Some(output)])
    };
    let inputs = [("n", DType::I64), ("go", DType::Bool), ("state", DType::F32)];
    Graph::body(GraphParts {
        name: "body".into(),
        inputs: inputs.map(|(input, dtype)| ValueInfo::new(name(input), TensorType::unranked(dtype))).into(),
        outputs: ["on", "next"].map(|output| ValueInfo::untyped(name(output))).into(),
        nodes: vec![
            node(Op::Identity, &[&name("go")], name("on")),
            node(Op::Add, &[&name("state"), captured], name("next")),
        ],
        ..GraphParts::default()
    })
    .expect("a body")
}

fn opaque(captured: &Name, number: u8, unique: usize) -> Op {
    let integer = i64::from(number);
    let attributes = [
        Attribute::Float(0.5),
        Attribute::Int(-integer),
        Attribute::String(Bytes::from(vec![number, 0xff])),
        Attribute::Tensor(tensor(dtype(number), number)),
        Attribute::Graph(body(captured, &format!("inside_{unique}"))),
        Attribute::SparseTensor(sparse(number)),
        Attribute::Type(value_type(number)),
        Attribute::Floats(vec![1.0, -2.0]),
        Attribute::Ints(vec![integer, 0]),
        Attribute::Strings(vec![Bytes::new(), Bytes::from_static(b"s")]),
        Attribute::Tensors(vec![tensor(DType::I4, number), tensor(DType::String, number)]),
        Attribute::Graphs(vec![
            body(captured, &format!("first_{unique}")),
            body(captured, &format!("second_{unique}")),
        ]),
        Attribute::SparseTensors(vec![sparse(number)]),
        Attribute::Types(vec![value_type(number), value_type(number / 2)]),
        Attribute::Ints(Vec::new()),
    ];
    let named = |(idx, attribute)| (format!("attribute_{idx}"), attribute);
    let from = usize::from(number) % attributes.len();
    Op::Opaque(Opaque {
        domain: "theirs".into(),
        op_type: "Mystery".into(),
        attributes: attributes.into_iter().enumerate().map(named).skip(from).take(4).collect(),
    })
}

/// Adds what one step says; returns the values that later steps may use.
fn add(builder: &mut GraphBuilder, values: &[Name], (what, which, number): Step) -> Vec<Name> {
    let x = pick(values, which);
    let other = pick(values, number);
    let unique = values.len();
    match what % 18 {
        0 => vec![builder.node(pick(&[Op::Relu, Op::Exp, Op::Neg, Op::Shape(Default::default())], number), &[&x])],
        1 => vec![builder.node(
            pick(&[Op::Add, Op::MatMul, Op::Where], number / 16),
            &[&x, &other, &x][..2 + usize::from(number / 16 % 3 == 2)],
        )],
        2 => vec![builder.node(Op::Softmax(Softmax { axis: i64::from(number) - 2 }), &[&x])],
        3 => vec![
            builder.node(Op::Gelu(Gelu { approximate: pick(&[Approximate::None, Approximate::Tanh], number) }), &[&x]),
        ],
        4 => vec![builder.node(Op::LeakyRelu(LeakyRelu { alpha: f32::from(number) / 100.0 }), &[&x])],
        5 => vec![builder.node(Op::Concat(Concat { axis: -1 }), &[&x, &other, &x])],
        6 => vec![builder.node(Op::Transpose(Transpose { perm: pick(&[vec![], vec![1, 0]], number) }), &[&x])],
        7 => {
            let shape = builder.initializer("shape", Tensor::vector(vec![i64::from(number), -1]));
            vec![builder.node(Op::Reshape(Reshape { allowzero: number > 100 }), &[&x, &shape])]
        }
        8 => {
            let axes = builder.initializer("axes", Tensor::vector(vec![i64::from(number)]));
            let op = pick(&[Op::Squeeze, Op::Unsqueeze, Op::ReduceSum(Reduce::default())], number);
            vec![builder.node(op, &[&x, &axes])]
        }
        9 => {
            let output = Name::from(format!("clipped_{unique}"));
            let inputs = vec![Some(x), None, Some(other)];
            builder.push(Node::new(Op::Clip, inputs, vec![Some(output.clone())]));
            vec![output]
        }
        10 => {
            let saturate = number.is_multiple_of(2);
            let to = dtype(number);
            vec![builder.node(Op::Cast(Cast { to, saturate, round_mode: crate::graph::op::RoundMode::Up }), &[&x])]
        }
        11 => vec![builder.node(Op::Constant(Constant { value: tensor(pick(OF_OPSET_21, number), which) }), &[])],
        12 => builder.node_with_outputs(Op::Split(Split { axis: 0, num_outputs: Some(2) }), &[&x], 2),
        13 => builder.node_with_outputs(Op::Dropout(Dropout { seed: pick(&[None, Some(3)], number) }), &[&x], 2),
        14 => {
            let then_branch = body(&x, &format!("then_{unique}"));
            let else_branch = body(&other, &format!("else_{unique}"));
            vec![builder.node(Op::If(If { then_branch, else_branch }), &[&x])]
        }
        15 => {
            let output = Name::from(format!("looped_{unique}"));
            let op = Op::Loop(Loop { body: loop_body(&other, &format!("loop_{unique}")) });
            builder.push(Node::new(op, vec![None, None, Some(x)], vec![Some(output.clone())]));
            vec![output]
        }
        16 => {
            let output = Name::from(format!("opaque_{unique}"));
            let mut node =
                Node::new(opaque(&x, number, unique), vec![None, Some(other)], vec![None, Some(output.clone())]);
            node.name = format!("node {unique}");
            node.notes = NodeNotes {
                doc: "why it is there".into(),
                metadata: vec![("namespace".into(), "a/b".into())],
                device_configurations: vec![Bytes::from_static(&[0x0a, 1, b'd'])],
            };
            builder.push(node);
            vec![output]
        }
        _ => vec![builder.initializer("weight", tensor(dtype(number), which))],
    }
}

fn random_graph(steps: &[Step]) -> Graph {
    let mut builder = GraphBuilder::new("random");
    let mut values = vec![builder.input("x", TensorType::new(DType::F32, [Dim::from("batch"), Dim::Known(3)]))];
    for &step in steps {
        let new = add(&mut builder, &values, step);
        values.extend(new);
    }
    let last = values.last().expect("there is an input at least").clone();
    builder.output(&last);
    let mut parts = builder.finish().expect("built in order").to_parts();
    parts.doc = "a graph".into();
    parts.metadata = vec![("a".into(), "b".into()), ("a".into(), "c".into())];
    parts.quantization_annotations = vec![Bytes::from_static(&[0x0a, 1, b'x'])];
    parts.overridable = parts.initializers.keys().take(1).cloned().collect();
    parts.sparse_initializers = IndexMap::from([("kept".into(), sparse(parts.nodes.len().try_into().unwrap_or(0)))]);
    // What comes out of an opaque operator may be of any type; of the others a wrong statement would be a fault.
    let stated = values.iter().zip(0u8..).filter(|(name, _)| name.starts_with("opaque_"));
    parts.value_info = stated.map(|(name, number)| (name.clone(), value_info(name, number))).collect();
    Graph::new(parts).expect("still a graph")
}

fn random_model(steps: &[Step], opset: u32) -> Model {
    let mut model = Model::new(random_graph(steps));
    model.opset = opset;
    model.domains = IndexMap::from([("theirs".to_string(), 3), ("unused".to_string(), 1)]);
    model.about = ModelNotes {
        domain: "a.b".into(),
        model_version: -1,
        doc: "a model".into(),
        metadata: IndexMap::from([("z".to_string(), "1".to_string()), ("a".to_string(), "2".to_string())]),
        training_info: vec![Bytes::from_static(&[0x0a, 0])],
        configuration: vec![Bytes::from_static(&[0x0a, 1, b'd'])],
        ..model.about
    };
    model
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// At an operator set that has the canonical form of every operator used here, if not for every element type.
    #[test]
    fn what_is_written_is_read_again_the_same(
        steps in proptest::collection::vec(any::<Step>(), 0..24),
        opset in 21u32..=28,
    ) {
        let mut model = random_model(&steps, opset);
        let bytes = to_bytes(&model).expect("raised where it must be");
        prop_assert_eq!(&bytes, &to_bytes(&model).expect("as before"));
        let again = read_bytes(bytes, None).expect("what we write is what we read");
        prop_assert!(again.opset >= model.opset && again.ir_version >= model.ir_version);
        (model.opset, model.ir_version) = (again.opset, again.ir_version);
        prop_assert_eq!(again, model);
    }

    /// Bytes changed anywhere give an error or a model, never a panic.
    #[test]
    fn damaged_files_do_no_harm(
        steps in proptest::collection::vec(any::<Step>(), 0..8),
        damage in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = to_bytes(&random_model(&steps, 21)).expect("raised where it must be").to_vec();
        for (position, byte) in damage {
            let position = position % bytes.len();
            bytes[position] = byte;
        }
        if let Ok(model) = read_bytes(bytes.into(), None) {
            model.graph.check().expect("what is read is a graph");
        }
    }
}

fn one_node(op: Op) -> Model {
    let mut builder = GraphBuilder::new("one");
    let x = builder.input("x", TensorType::new(DType::F32, [2usize, 3]));
    let y = builder.node(op, &[&x]);
    builder.output(&y);
    Model::new(builder.finish().expect("one node"))
}

#[test]
fn the_operator_set_is_raised_only_where_it_must_be() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("m.onnx");
    let written = |model: &Model, opset| {
        let options = WriteOptions { opset, ..WriteOptions::default() };
        let written = write(model, &path, &options).expect("it can be written");
        assert_eq!(read(&path).expect("what we write is what we read").opset, written.opset);
        (written.opset, written.ir_version, written.raised)
    };
    let at = |opset, ir_version, op| Model { opset, ir_version, ..one_node(op) };
    assert_eq!(written(&at(13, 7, Op::Relu), None), (13, 7, None));
    let (opset, ir_version, raised) = written(&at(13, 7, Op::Gelu(Gelu { approximate: Approximate::Tanh })), None);
    assert_eq!((opset, ir_version), (20, 9));
    assert!(raised.is_some_and(|reason| reason.starts_with("Gelu `gelu`")));
    assert_eq!(written(&at(13, 7, Op::Relu), Some(17)), (17, 8, None));
    assert_eq!(written(&at(17, 8, Op::Relu), Some(13)), (13, 8, None));
    let unknown = Op::Opaque(Opaque { domain: String::new(), op_type: "Mystery".into(), attributes: Vec::new() });
    let refused = to_bytes_at(&at(21, 10, unknown), 13);
    assert!(matches!(refused, Err(OnnxError::Lower(_))), "{refused:?}");
}

#[test]
fn the_format_is_as_new_as_the_graph_needs() {
    let ir_version = |dtype: DType, own: u32| {
        let mut model =
            one_node(Op::Cast(Cast { to: DType::F32, saturate: true, round_mode: crate::graph::op::RoundMode::Up }));
        let mut parts = model.graph.to_parts();
        parts.initializers.insert("w".into(), tensor(dtype, 1));
        model.graph = Graph::new(parts).expect("a graph");
        (model.ir_version, model.opset) = (own, 13);
        read_bytes(to_bytes(&model).expect("it can be written"), None).expect("readable").ir_version
    };
    let rows = [
        (DType::F32, 3),
        (DType::BF16, 4),
        (DType::F8E4M3FN, 9),
        (DType::U4, 10),
        (DType::F4E2M1, 11),
        (DType::F8E8M0, 12),
        (DType::I2, 13),
        (DType::F6E2M3, 14),
    ];
    for (dtype, expected) in rows {
        assert_eq!(ir_version(dtype, 3), expected, "{dtype}");
        assert_eq!(ir_version(dtype, 14), 14);
    }
}

#[test]
fn before_ir_4_initializers_are_listed_among_the_inputs() {
    let mut model = random_model(&[(17, 0, 0), (1, 0, 0)], 13);
    let mut parts = model.graph.to_parts();
    parts.overridable.clear();
    parts.sparse_initializers.clear();
    parts.value_info.clear();
    model.graph = Graph::new(parts).expect("a graph");
    model.ir_version = 3;
    let bytes = to_bytes(&model).expect("it can be written");
    let inputs = ModelProto::decode(bytes.clone()).expect("a message").graph.expect("a graph").input;
    assert_eq!(inputs.iter().map(|input| input.name.as_str()).collect::<Vec<_>>(), ["x", "weight"]);
    assert_eq!(read_bytes(bytes, None).expect("readable"), model);
}

#[test]
fn weights_go_beside_the_model_and_come_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.onnx");
    let mut builder = GraphBuilder::new("external");
    let x = builder.input("x", TensorType::new(DType::F32, [1usize, 600]));
    let weights = [Tensor::vector(vec![1f32; 600]), Tensor::vector(vec![2f32; 600]), Tensor::vector(vec![3f32; 3])];
    let mut sum = x;
    for weight in weights {
        let weight = builder.initializer("w", weight);
        sum = builder.node(Op::Add, &[&sum, &weight]);
    }
    builder.output(&sum);
    let model = Model::new(builder.finish().expect("a graph"));
    let options = WriteOptions { external: ExternalData::Always, ..WriteOptions::default() };
    let written = write(&model, &path, &options).expect("it can be written");
    let data = folder.path().join("model.onnx.data");
    assert_eq!(written.data.as_ref(), Some(&data));
    assert_eq!(crate::store::read(&data).expect("it is there").len(), 4096 + 2400);
    assert_eq!(read(&path).expect("readable"), model);

    let alone = crate::store::read(&path).expect("it is there");
    assert_eq!(u64::try_from(alone.len()).expect("small"), written.n_bytes);
    let lost = read_bytes(alone, None).expect_err("the weights are elsewhere");
    assert!(lost.hint().is_some_and(|hint| hint.contains("beside the model")), "{lost}");
    crate::store::write_atomic(&data, &[0; 4096]).expect("cut off");
    let message = read(&path).expect_err("cut off").to_string();
    assert!(message.ends_with("2400 bytes from 4096 on leave `model.onnx.data`, which has 4096"), "{message}");
    assert!(message.starts_with(&path.display().to_string()), "{message}");

    let whole = write(&model, &path, &WriteOptions::default()).expect("it can be written");
    assert_eq!(whole.data, None);
    assert_eq!(read(&path).expect("readable"), model);
}

#[test]
fn files_that_are_not_there_are_errors() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    assert!(matches!(read(&folder.path().join("none.onnx")), Err(OnnxError::Store(_))));
    let model = one_node(Op::Relu);
    let taken = write(&model, folder.path(), &WriteOptions::default());
    assert!(matches!(taken, Err(OnnxError::Store(_))), "{taken:?}");
}

#[test]
fn a_model_that_stays_too_large_leaves_an_older_one_s_data_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.onnx");
    let data = folder.path().join("model.onnx.data");
    crate::store::write_atomic(&data, b"of the older model").expect("a file");
    let megabyte = Bytes::from(vec![0u8; 1 << 20]);
    let attributes = vec![("texts".to_string(), Attribute::Strings(vec![megabyte; 2049]))];
    let opaque = Opaque { domain: "theirs".to_string(), op_type: "Custom".to_string(), attributes };
    let parts = GraphParts {
        nodes: vec![Node::new(Op::Opaque(opaque), vec![Some("w".into())], vec![Some("y".into())])],
        initializers: IndexMap::from([("w".into(), Tensor::vector(vec![1f32; 1024]))]),
        outputs: vec![ValueInfo::new("y", TensorType::new(DType::F32, [1024usize]))],
        ..GraphParts::default()
    };
    let model = Model::new(Graph::new(parts).expect("a graph"));
    let error = write(&model, &path, &WriteOptions::default()).expect_err("more than 2 GiB of attributes");
    assert!(error.to_string().contains("one file holds less than 2 GiB"), "{error}");
    assert_eq!(crate::store::read(&data).expect("still there"), &b"of the older model"[..]);
    assert!(!path.exists());
}
