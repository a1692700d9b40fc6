//! Running: one operator by its family, a graph node by node.

use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;

use super::args::Args;
use super::{
    EvalError, arithmetic, attention, cast, contrib, control, conv, einsum, elementwise, gather, generate, invalid,
    layout, logic, norm, pool, product, qproduct, quantize, recurrent, reduce, reshape, resize, scatter, search,
    softmax, sparse,
};
use crate::graph::op::Op;
use crate::graph::tensor::Tensor;
use crate::graph::{Graph, Name, Node};

/// Computes one operator on these inputs (none where an optional one is left out). Graphs inside (`If`, `Loop`,
/// `Scan`) must not read values from outside: [`run`] takes care of those.
///
/// # Errors
/// When the inputs are not as the operator's definition has them, and for opaque operators.
pub fn operator(op: &Op, inputs: &[Option<Tensor>], n_outputs: usize) -> Result<Vec<Option<Tensor>>, EvalError> {
    compute(Args { op, inputs, n_outputs, scope: Scope::Empty })
}

/// Computes a graph's outputs, in order, from its inputs by name. An overridable initializer may be given too.
///
/// # Errors
/// When an input is missing, unknown or of another element type than the graph states, or when a node cannot be
/// computed; names the value or the node.
pub fn run(graph: &Graph, inputs: &IndexMap<Name, Tensor>) -> Result<IndexMap<Name, Tensor>, EvalError> {
    if let Some(missing) = graph.inputs.iter().find(|input| !inputs.contains_key(&input.name)) {
        return Err(EvalError::NoValue(missing.name.to_string()));
    }
    let wanted: Vec<Name> = graph.outputs.iter().map(|output| output.name.clone()).collect();
    run_with(graph, inputs, &wanted)
}

/// Computes any values of a graph by name, inner ones included, and only what they need: an input that they do not
/// depend on may be left out.
///
/// # Errors
/// As [`run`]; also when the graph itself has no value of a wanted name (those of its bodies are not reached).
pub fn run_with(
    graph: &Graph,
    inputs: &IndexMap<Name, Tensor>,
    wanted: &[Name],
) -> Result<IndexMap<Name, Tensor>, EvalError> {
    check_inputs(graph, inputs)?;
    let given = inputs.iter().map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
    let values = evaluate(graph, given, wanted, Scope::Empty)?;
    Ok(wanted.iter().cloned().zip(values).collect())
}

/// Computes a branch or body from its inputs by position; what it captures is looked up in `scope`. Its outputs, in
/// order.
///
/// # Errors
/// As [`run`].
pub(super) fn run_body(graph: &Graph, inputs: Vec<Tensor>, scope: Scope<'_>) -> Result<Vec<Tensor>, EvalError> {
    if inputs.len() != graph.inputs.len() {
        return Err(invalid(format!(
            "body `{}` takes {} inputs, got {}",
            graph.name,
            graph.inputs.len(),
            inputs.len()
        )));
    }
    let given = graph.inputs.iter().map(|input| input.name.clone()).zip(inputs).collect();
    let wanted: Vec<Name> = graph.outputs.iter().map(|output| output.name.clone()).collect();
    evaluate(graph, given, &wanted, scope)
}

/// The values that a node's graphs can read: those of the graph that it stands in, and of the graphs around that.
#[derive(Clone, Copy)]
pub(super) enum Scope<'a> {
    /// No graph around.
    Empty,
    /// A graph at work.
    Graph { values: &'a HashMap<Name, Tensor>, graph: &'a Graph, around: &'a Scope<'a> },
}

impl Scope<'_> {
    fn get(&self, name: &Name) -> Result<Tensor, EvalError> {
        let mut scope = self;
        while let Scope::Graph { values, graph, around } = scope {
            if let Some(tensor) = values.get(name).or_else(|| graph.initializers.get(name)) {
                return Ok(tensor.clone());
            }
            scope = around;
        }
        Err(EvalError::NoValue(name.to_string()))
    }
}

fn check_inputs(graph: &Graph, inputs: &IndexMap<Name, Tensor>) -> Result<(), EvalError> {
    for (name, tensor) in inputs {
        let stated = match graph.inputs.iter().find(|input| input.name == *name) {
            Some(input) => input.tensor_type().map(|stated| stated.dtype),
            None if graph.overridable.contains(name) => graph.initializers.get(name).map(Tensor::dtype),
            None => return Err(invalid(format!("the graph has no input `{name}`"))),
        };
        if let Some(expected) = stated.filter(|&expected| expected != tensor.dtype()) {
            return Err(invalid(format!("input `{name}` should be of {expected}, got {}", tensor.dtype())));
        }
    }
    Ok(())
}

fn evaluate(
    graph: &Graph,
    given: HashMap<Name, Tensor>,
    wanted: &[Name],
    around: Scope<'_>,
) -> Result<Vec<Tensor>, EvalError> {
    let mut values = given;
    for (name, tensor) in &graph.sparse_initializers {
        values.insert(name.clone(), sparse::densify(tensor)?);
    }
    for (node, dead) in schedule(graph, wanted) {
        let scope = Scope::Graph { values: &values, graph, around: &around };
        let outputs = compute_node(node, scope)
            .map_err(|source| EvalError::Node { node: node.label(), source: Box::new(source) })?;
        let named = node.outputs.iter().zip(outputs);
        values.extend(named.filter_map(|(name, tensor)| Some((name.clone()?, tensor?))));
        for name in dead {
            values.remove(name);
        }
    }
    let scope = Scope::Graph { values: &values, graph, around: &around };
    wanted.iter().map(|name| scope.get(name)).collect()
}

/// The nodes that the wanted values need, in order, each with the values that nothing needs after it.
fn schedule<'a>(graph: &'a Graph, wanted: &'a [Name]) -> Vec<(&'a Node, Vec<&'a Name>)> {
    let mut needed: HashSet<&Name> = wanted.iter().collect();
    let mut steps = Vec::new();
    for node in graph.nodes.iter().rev() {
        if !node.outputs.iter().flatten().any(|name| needed.contains(name)) {
            continue;
        }
        let unread = node.outputs.iter().flatten().filter(|&name| !needed.contains(name));
        let mut dead: Vec<&Name> = unread.collect();
        dead.extend(node.reads().filter(|&name| needed.insert(name)));
        steps.push((node, dead));
    }
    steps.reverse();
    steps
}

fn compute_node(node: &Node, scope: Scope<'_>) -> Result<Vec<Option<Tensor>>, EvalError> {
    let value = |name: &Option<Name>| name.as_ref().map(|name| scope.get(name)).transpose();
    let inputs = node.inputs.iter().map(value).collect::<Result<Vec<_>, _>>()?;
    compute(Args { op: &node.op, inputs: &inputs, n_outputs: node.outputs.len(), scope })
}

fn compute(args: Args<'_>) -> Result<Vec<Option<Tensor>>, EvalError> {
    let output = match args.op {
        Op::Abs => elementwise::abs(args)?,
        Op::Acos => elementwise::acos(args)?,
        Op::Acosh => elementwise::acosh(args)?,
        Op::Add => arithmetic::add(args)?,
        Op::And => logic::and(args)?,
        Op::ArgMax(op) => search::arg_max(args, op)?,
        Op::ArgMin(op) => search::arg_min(args, op)?,
        Op::Asin => elementwise::asin(args)?,
        Op::Asinh => elementwise::asinh(args)?,
        Op::Atan => elementwise::atan(args)?,
        Op::Atanh => elementwise::atanh(args)?,
        Op::AveragePool(op) => pool::average_pool(args, op)?,
        Op::Cast(op) => cast::cast(args, op)?,
        Op::CastLike(op) => cast::cast_like(args, op)?,
        Op::Ceil => elementwise::ceil(args)?,
        Op::Celu(op) => elementwise::celu(args, op)?,
        Op::Clip => arithmetic::clip(args)?,
        Op::Concat(op) => layout::concat(args, op)?,
        Op::Constant(op) => generate::constant(args, op)?,
        Op::ConstantOfShape(op) => generate::constant_of_shape(args, op)?,
        Op::Conv(op) => conv::conv(args, op)?,
        Op::ConvInteger(op) => conv::conv_integer(args, op)?,
        Op::ConvTranspose(op) => conv::conv_transpose(args, op)?,
        Op::Cos => elementwise::cos(args)?,
        Op::Cosh => elementwise::cosh(args)?,
        Op::CumSum(op) => search::cum_sum(args, op)?,
        Op::DepthToSpace(op) => layout::depth_to_space(args, op)?,
        Op::DequantizeLinear(op) => quantize::dequantize_linear(args, op)?,
        Op::Div => arithmetic::div(args)?,
        Op::Einsum(op) => einsum::einsum(args, op)?,
        Op::Elu(op) => elementwise::elu(args, op)?,
        Op::Equal => logic::equal(args)?,
        Op::Erf => elementwise::erf(args)?,
        Op::Exp => elementwise::exp(args)?,
        Op::Expand => layout::expand(args)?,
        Op::Flatten(op) => reshape::flatten(args, op)?,
        Op::Floor => elementwise::floor(args)?,
        Op::Gather(op) => gather::gather(args, op)?,
        Op::GatherElements(op) => gather::gather_elements(args, op)?,
        Op::GatherND(op) => gather::gather_nd(args, op)?,
        Op::Gelu(op) => elementwise::gelu(args, op)?,
        Op::Gemm(op) => product::gemm(args, op)?,
        Op::GlobalAveragePool => pool::global_average_pool(args)?,
        Op::GlobalMaxPool => pool::global_max_pool(args)?,
        Op::Greater => logic::greater(args)?,
        Op::GreaterOrEqual => logic::greater_or_equal(args)?,
        Op::GroupNormalization(op) => norm::group_normalization(args, op)?,
        Op::HardSigmoid(op) => elementwise::hard_sigmoid(args, op)?,
        Op::HardSwish => elementwise::hard_swish(args)?,
        Op::Hardmax(op) => softmax::hardmax(args, op)?,
        Op::Identity => reshape::identity(args)?,
        Op::InstanceNormalization(op) => norm::instance_normalization(args, op)?,
        Op::IsInf(op) => logic::is_inf(args, op)?,
        Op::IsNaN => logic::is_nan(args)?,
        Op::LRN(op) => norm::lrn(args, op)?,
        Op::LeakyRelu(op) => elementwise::leaky_relu(args, op)?,
        Op::Less => logic::less(args)?,
        Op::LessOrEqual => logic::less_or_equal(args)?,
        Op::Log => elementwise::log(args)?,
        Op::LogSoftmax(op) => softmax::log_softmax(args, op)?,
        Op::LpNormalization(op) => norm::lp_normalization(args, op)?,
        Op::MatMul => product::matmul(args)?,
        Op::MatMulInteger => qproduct::matmul_integer(args)?,
        Op::Max => arithmetic::max(args)?,
        Op::Mean => arithmetic::mean(args)?,
        Op::Min => arithmetic::min(args)?,
        Op::Mish => elementwise::mish(args)?,
        Op::Mod(op) => arithmetic::mod_(args, op)?,
        Op::Mul => arithmetic::mul(args)?,
        Op::Neg => elementwise::neg(args)?,
        Op::NonZero => search::non_zero(args)?,
        Op::Not => logic::not(args)?,
        Op::OneHot(op) => gather::one_hot(args, op)?,
        Op::Or => logic::or(args)?,
        Op::PRelu => arithmetic::prelu(args)?,
        Op::Pad(op) => layout::pad(args, op)?,
        Op::Pow => arithmetic::pow(args)?,
        Op::QLinearConv(op) => conv::qlinear_conv(args, op)?,
        Op::QLinearMatMul => qproduct::qlinear_matmul(args)?,
        Op::QuantizeLinear(op) => quantize::quantize_linear(args, op)?,
        Op::RMSNormalization(op) => norm::rms_normalization(args, op)?,
        Op::Range(op) => generate::range(args, op)?,
        Op::Reciprocal => elementwise::reciprocal(args)?,
        Op::ReduceL1(op) => reduce::reduce_l1(args, op)?,
        Op::ReduceL2(op) => reduce::reduce_l2(args, op)?,
        Op::ReduceLogSum(op) => reduce::reduce_log_sum(args, op)?,
        Op::ReduceLogSumExp(op) => reduce::reduce_log_sum_exp(args, op)?,
        Op::ReduceMax(op) => reduce::reduce_max(args, op)?,
        Op::ReduceMean(op) => reduce::reduce_mean(args, op)?,
        Op::ReduceMin(op) => reduce::reduce_min(args, op)?,
        Op::ReduceProd(op) => reduce::reduce_prod(args, op)?,
        Op::ReduceSum(op) => reduce::reduce_sum(args, op)?,
        Op::ReduceSumSquare(op) => reduce::reduce_sum_square(args, op)?,
        Op::Relu => elementwise::relu(args)?,
        Op::Reshape(op) => reshape::reshape(args, op)?,
        Op::Resize(op) => resize::resize(args, op)?,
        Op::Round => elementwise::round(args)?,
        Op::ScatterElements(op) => scatter::scatter_elements(args, op)?,
        Op::ScatterND(op) => scatter::scatter_nd(args, op)?,
        Op::Selu(op) => elementwise::selu(args, op)?,
        Op::Shape(op) => reshape::shape(args, op)?,
        Op::Sigmoid => elementwise::sigmoid(args)?,
        Op::Sign => elementwise::sign(args)?,
        Op::Sin => elementwise::sin(args)?,
        Op::Sinh => elementwise::sinh(args)?,
        Op::Size => reshape::size(args)?,
        Op::Slice => layout::slice(args)?,
        Op::Softmax(op) => softmax::softmax(args, op)?,
        Op::Softplus => elementwise::softplus(args)?,
        Op::Softsign => elementwise::softsign(args)?,
        Op::SpaceToDepth(op) => layout::space_to_depth(args, op)?,
        Op::Sqrt => elementwise::sqrt(args)?,
        Op::Squeeze => reshape::squeeze(args)?,
        Op::Sub => arithmetic::sub(args)?,
        Op::Sum => arithmetic::sum(args)?,
        Op::Swish(op) => elementwise::swish(args, op)?,
        Op::Tan => elementwise::tan(args)?,
        Op::Tanh => elementwise::tanh(args)?,
        Op::ThresholdedRelu(op) => elementwise::thresholded_relu(args, op)?,
        Op::Tile => layout::tile(args)?,
        Op::Transpose(op) => layout::transpose(args, op)?,
        Op::Trilu(op) => layout::trilu(args, op)?,
        Op::Unsqueeze => reshape::unsqueeze(args)?,
        Op::Where => logic::where_(args)?,
        Op::Xor => logic::xor(args)?,
        Op::BiasGelu => contrib::bias_gelu(args)?,
        Op::FastGelu => contrib::fast_gelu(args)?,
        Op::MatMulNBits(op) => qproduct::matmul_n_bits(args, op)?,
        Op::QGemm(op) => qproduct::qgemm(args, op)?,
        Op::QLinearAdd => contrib::qlinear_add(args)?,
        Op::QLinearAveragePool(op) => contrib::qlinear_average_pool(args, op)?,
        Op::QLinearConcat(op) => contrib::qlinear_concat(args, op)?,
        Op::QLinearGlobalAveragePool(op) => contrib::qlinear_global_average_pool(args, op)?,
        Op::QLinearLeakyRelu(op) => contrib::qlinear_leaky_relu(args, op)?,
        Op::QLinearMul => contrib::qlinear_mul(args)?,
        Op::QLinearSigmoid => contrib::qlinear_sigmoid(args)?,
        Op::QLinearSoftmax(op) => contrib::qlinear_softmax(args, op)?,
        Op::Attention(op) => return attention::attention(args, op),
        Op::BatchNormalization(op) => return norm::batch_normalization(args, op),
        Op::Dropout(op) => return generate::dropout(args, op),
        Op::DynamicQuantizeLinear => return quantize::dynamic_quantize_linear(args),
        Op::GRU(op) => return recurrent::gru(args, op),
        Op::If(op) => return control::if_(args, op),
        Op::LSTM(op) => return recurrent::lstm(args, op),
        Op::LayerNormalization(op) => return norm::layer_normalization(args, op),
        Op::Loop(op) => return control::loop_(args, op),
        Op::MaxPool(op) => return pool::max_pool(args, op),
        Op::RNN(op) => return recurrent::rnn(args, op),
        Op::Scan(op) => return control::scan(args, op),
        Op::Split(op) => return layout::split(args, op),
        Op::TopK(op) => return search::top_k(args, op),
        Op::DynamicQuantizeLSTM(op) => return recurrent::dynamic_quantize_lstm(args, op),
        Op::SkipLayerNormalization(op) => return norm::skip_layer_normalization(args, op),
        Op::Opaque(op) => return Err(EvalError::Opaque(op.op_type.clone())),
    };
    Ok(vec![Some(output)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::attribute::SparseTensor;
    use crate::graph::eval::testing::tensor;
    use crate::graph::op::{If, Opaque};
    use crate::graph::tensor::DType;
    use crate::graph::{GraphBuilder, GraphParts, TensorType};

    /// `y = -(x + two)`, and an operator that nobody knows beside it.
    fn network() -> Graph {
        let mut builder = GraphBuilder::new("network");
        let x = builder.input("x", TensorType::new(DType::F32, [1usize]));
        let two = builder.initializer("two", Tensor::scalar(2f32));
        let sum = builder.node(Op::Add, &[&x, &two]);
        let y = builder.node(Op::Neg, &[&sum]);
        let unknown = Opaque { domain: "somebody's".to_string(), op_type: "Own".to_string(), attributes: vec![] };
        builder.node(Op::Opaque(unknown), &[&sum]);
        builder.output(&y);
        builder.finish().expect("a network")
    }

    fn inputs(given: &[(&str, Tensor)]) -> IndexMap<Name, Tensor> {
        given.iter().map(|(name, tensor)| (Name::from(*name), tensor.clone())).collect()
    }

    fn one(value: f32) -> Tensor {
        tensor(&[1], [value])
    }

    #[test]
    fn outputs_and_inner_values_are_computed_and_what_they_do_not_need_is_not() {
        let graph = network();
        let given = inputs(&[("x", one(1.0))]);
        assert_eq!(run(&graph, &given), Ok(inputs(&[("neg", one(-3.0))])));
        let wanted = ["two", "add"].map(Name::from);
        assert_eq!(run_with(&graph, &given, &wanted), Ok(inputs(&[("two", Tensor::scalar(2f32)), ("add", one(3.0))])));
        assert_eq!(run_with(&graph, &inputs(&[]), &wanted[..1]), Ok(inputs(&[("two", Tensor::scalar(2f32))])));
        let own = run_with(&graph, &given, &["own".into()]).expect_err("nobody knows it");
        assert_eq!(own.to_string(), "Own `own`: operator `Own` is not one that aludel knows");
        let absent = run_with(&graph, &given, &["absent".into()]).expect_err("no such value");
        assert_eq!(absent.to_string(), "`absent` has no value");
    }

    #[test]
    fn inputs_are_checked_by_name() {
        let message = |given: &[(&str, Tensor)]| run(&network(), &inputs(given)).expect_err("refused").to_string();
        assert_eq!(message(&[]), "`x` has no value");
        assert_eq!(message(&[("x", one(1.0)), ("z", one(1.0))]), "the graph has no input `z`");
        assert_eq!(message(&[("x", one(1.0)), ("two", one(1.0))]), "the graph has no input `two`");
        assert_eq!(message(&[("x", Tensor::scalar(1i32))]), "input `x` should be of f32, got i32");
    }

    #[test]
    fn an_overridable_initializer_has_its_own_value_or_the_given_one() {
        let parts = GraphParts { overridable: [Name::from("two")].into_iter().collect(), ..network().to_parts() };
        let graph = Graph::new(parts).expect("a network");
        assert_eq!(run(&graph, &inputs(&[("x", one(1.0))])), Ok(inputs(&[("neg", one(-3.0))])));
        let given = inputs(&[("x", one(1.0)), ("two", one(5.0))]);
        assert_eq!(run(&graph, &given), Ok(inputs(&[("neg", one(-6.0))])));
    }

    #[test]
    fn sparse_initializers_are_made_whole() {
        let mut parts = network().to_parts();
        parts.initializers.clear();
        let sparse = SparseTensor { values: one(7.0), indices: tensor(&[1], [1i64]), shape: vec![2] };
        parts.sparse_initializers.insert("two".into(), sparse);
        let graph = Graph::new(parts).expect("a network");
        assert_eq!(run(&graph, &inputs(&[("x", one(1.0))])), Ok(inputs(&[("neg", tensor(&[2], [-1f32, -8.0]))])));
    }

    #[test]
    fn bodies_read_the_graphs_around_them() {
        let branch = |op: Op| {
            let mut builder = GraphBuilder::new("branch");
            let read = ["sum", "two"].map(|name| Some(Name::from(name)));
            builder.push(Node::new(op, read.to_vec(), vec![Some("inner".into())]));
            builder.output(&"inner".into());
            builder.finish_body().expect("a body")
        };
        let choice = |then_branch: Graph| If { then_branch, else_branch: branch(Op::Sub) };
        let mut nested = GraphBuilder::new("nested");
        let op = Op::If(choice(branch(Op::Mul)));
        nested.push(Node::new(op, vec![Some("condition".into())], vec![Some("outer".into())]));
        nested.output(&"outer".into());
        let nested = nested.finish_body().expect("a body");

        let mut builder = GraphBuilder::new("network");
        let condition = builder.input("condition", TensorType::new(DType::Bool, [0usize; 0]));
        let two = builder.initializer("two", Tensor::scalar(2f32));
        builder.push(Node::new(Op::Add, vec![Some(two.clone()), Some(two)], vec![Some("sum".into())]));
        let op = Op::If(If { then_branch: nested, else_branch: branch(Op::Sub) });
        let y = builder.node(op, &[&condition]);
        builder.output(&y);
        let graph = builder.finish().expect("a network");
        for (condition, expected) in [(true, 8.0f32), (false, 2.0)] {
            let outputs = run(&graph, &inputs(&[("condition", Tensor::scalar(condition))]));
            assert_eq!(outputs, Ok(inputs(&[("if", Tensor::scalar(expected))])));
        }
    }
}
