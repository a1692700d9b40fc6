//! Initialising weights: schemes by the number of inputs and outputs, orthogonal matrices, and the residual branches'
//! end.
//!
//! What is a weight, and how many inputs an output has, follows from the operator that reads it, see [`super::roles`].
//! Biases, normalisations and constants stay as they are. The numbers of a tensor depend on the seed and its name only.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal, Uniform};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::floats::{numbers, tensor_of};
use super::roles::{Role, Weight, is_norm, roles};
use crate::graph::eval;
use crate::graph::patch::{Patch, PatchError};
use crate::graph::shape::{Bindings, ShapeError, Types, infer};
use crate::graph::structure::blocks::{ResidualBlock, Skip, structure};
use crate::graph::tensor::{Tensor, TensorError};
use crate::graph::uses::Uses;
use crate::graph::{Graph, Name, Op};
use crate::store;

/// How weights get their first values, as TOML has it: `"he-normal"`, `{ truncated-normal = 0.02 }`,
/// `{ scaled = 0.5 }`.
///
/// The fans of a convolution, a product and a gate are those of [`Weight`]. An embedding has none, one row being picked
/// at a time: the first five schemes give it the variance one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// Normal of variance `2 / fan_in`: He et al., "Delving Deep into Rectifiers" (2015), equation 10.
    #[default]
    HeNormal,
    /// Uniform of the same variance.
    HeUniform,
    /// Normal of variance `2 / (fan_in + fan_out)`: Glorot and Bengio, "Understanding the difficulty of training deep
    /// feedforward neural networks" (2010), equation 12.
    XavierNormal,
    /// Uniform of the same variance, between `±√6 / √(fan_in + fan_out)`: equation 16 there.
    XavierUniform,
    /// Orthonormal rows, or columns where these are fewer, of each matrix: Saxe et al., "Exact solutions to the
    /// nonlinear dynamics of learning in deep linear neural networks" (2014), section 3.
    Orthogonal,
    /// Normal of this standard deviation, what is beyond twice that drawn anew.
    TruncatedNormal(f64),
    /// The weights that are there times this factor: inherited ones scaled down.
    Scaled(f64),
}

/// What initialisation does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Initialisation {
    /// For every weight.
    pub scheme: Scheme,
    /// Whether the scale of the last normalisation of each residual branch becomes zero, so that a block begins as the
    /// identity: Goyal et al., "Accurate, Large Minibatch SGD" (2017), section 5.1.
    pub zero_gamma: bool,
}

/// Why a network is not initialised.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InitError {
    /// A parameter of the scheme is no number for it.
    #[error("`{parameter}` is {value}; give a finite number above 0")]
    Parameter {
        /// as it stands in TOML
        parameter: &'static str,
        /// what was given
        value: f64,
    },
    /// The network has no residual branch with a normalisation of its own at its end.
    #[error("zero-gamma: no residual branch of the network ends in a normalisation; leave it out")]
    NoBranch,
    /// A weight is read through operators that cannot be followed.
    #[error("`{initializer}`: {problem}; initialise it where the network comes from, or simplify the network first")]
    Weight {
        /// the weight
        initializer: Name,
        /// what stands in the way
        problem: String,
    },
    /// The network's types do not fit together.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The new values cannot be put in.
    #[error(transparent)]
    Patch(#[from] PatchError),
    /// A tensor cannot be made.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// The network with its weights initialised.
///
/// # Errors
/// When a parameter of the scheme is not above zero, or zero-gamma is asked for and there is no branch for it.
pub fn initialise(graph: &Graph, initialisation: &Initialisation, seed: u64) -> Result<Graph, InitError> {
    check(initialisation.scheme)?;
    let types = infer(graph, &Bindings::default())?;
    let roles = roles(graph, &types);
    let mut patch = Patch::new(graph);
    for (name, role) in &roles {
        let Some(tensor) = graph.initializers.get(name) else { continue };
        let values = match role {
            Role::Weight(weight) => Some(weight_values(graph, name, tensor, weight, initialisation.scheme, seed)?),
            Role::Embedding => Some(embedding_values(name, tensor, initialisation.scheme, seed)?),
            Role::Scale | Role::Bias | Role::Slope | Role::StepSize | Role::Statistic | Role::Constant => None,
        };
        if let Some(values) = values {
            patch.replace_initializer(name, tensor_of(tensor.dtype(), tensor.shape(), &values)?);
        }
    }
    if initialisation.zero_gamma {
        let scales = last_scales(graph, &types);
        if scales.is_empty() {
            return Err(InitError::NoBranch);
        }
        for name in scales {
            let Some(tensor) = graph.initializers.get(name) else { continue };
            patch.replace_initializer(name, Tensor::zeros(tensor.dtype(), tensor.shape())?);
        }
    }
    Ok(patch.apply(Some(&types))?)
}

fn check(scheme: Scheme) -> Result<(), InitError> {
    let (parameter, value) = match scheme {
        Scheme::TruncatedNormal(deviation) => ("truncated-normal", deviation),
        Scheme::Scaled(factor) => ("scaled", factor),
        Scheme::HeNormal | Scheme::HeUniform | Scheme::XavierNormal | Scheme::XavierUniform | Scheme::Orthogonal => {
            return Ok(());
        }
    };
    if value.is_finite() && value > 0.0 { Ok(()) } else { Err(InitError::Parameter { parameter, value }) }
}

/// The generator of what a seed and a name decide: one tensor's, for one.
pub(crate) fn generator(seed: u64, name: &str) -> ChaCha8Rng {
    let digest = store::sha256(format!("{seed} {name}").as_bytes());
    let mut key = [0u8; 32];
    key.iter_mut().zip(digest.bytes()).for_each(|(byte, digit)| *byte = digit);
    ChaCha8Rng::from_seed(key)
}

/// Normal numbers of this variance for a tensor of this name.
pub(crate) fn normal_values(seed: u64, name: &Name, n: usize, variance: f64) -> Vec<f64> {
    drawn(&mut generator(seed, name), n, variance, false)
}

fn weight_values(
    graph: &Graph,
    name: &Name,
    tensor: &Tensor,
    weight: &Weight,
    scheme: Scheme,
    seed: u64,
) -> Result<Vec<f64>, InitError> {
    let mut generator = generator(seed, name);
    let variance = match scheme {
        Scheme::HeNormal | Scheme::HeUniform => 2.0 / weight.fan_in,
        Scheme::XavierNormal | Scheme::XavierUniform => 2.0 / (weight.fan_in + weight.fan_out),
        Scheme::Orthogonal => return orthogonal_values(graph, name, tensor, weight, &mut generator),
        Scheme::TruncatedNormal(deviation) => return Ok(truncated(&mut generator, tensor.len(), deviation)),
        Scheme::Scaled(factor) => return scaled(tensor, factor),
    };
    let is_uniform = matches!(scheme, Scheme::HeUniform | Scheme::XavierUniform);
    // Each element is drawn alike: the order in which the operator reads them is of no account.
    Ok(drawn(&mut generator, tensor.len(), variance, is_uniform))
}

fn embedding_values(name: &Name, tensor: &Tensor, scheme: Scheme, seed: u64) -> Result<Vec<f64>, InitError> {
    let mut generator = generator(seed, name);
    match scheme {
        Scheme::HeNormal | Scheme::XavierNormal | Scheme::Orthogonal => {
            Ok(drawn(&mut generator, tensor.len(), 1.0, false))
        }
        Scheme::HeUniform | Scheme::XavierUniform => Ok(drawn(&mut generator, tensor.len(), 1.0, true)),
        Scheme::TruncatedNormal(deviation) => Ok(truncated(&mut generator, tensor.len(), deviation)),
        Scheme::Scaled(factor) => scaled(tensor, factor),
    }
}

fn drawn(generator: &mut ChaCha8Rng, n: usize, variance: f64, is_uniform: bool) -> Vec<f64> {
    // A weight without inputs or outputs has no elements, and its variance is no number.
    let deviation = if n == 0 { 0.0 } else { variance.sqrt() };
    if is_uniform {
        let unit = Uniform::new_inclusive(-1.0, 1.0).expect("the bounds are finite and in order");
        let bound = deviation * 3f64.sqrt();
        return (0..n).map(|_| bound * unit.sample(generator)).collect();
    }
    (0..n).map(|_| deviation * normal(generator)).collect()
}

fn normal(generator: &mut ChaCha8Rng) -> f64 {
    StandardNormal.sample(generator)
}

fn truncated(generator: &mut ChaCha8Rng, n: usize, deviation: f64) -> Vec<f64> {
    let mut within = || {
        loop {
            let value = normal(generator);
            if value.abs() <= 2.0 {
                return deviation * value;
            }
        }
    };
    (0..n).map(|_| within()).collect()
}

fn scaled(tensor: &Tensor, factor: f64) -> Result<Vec<f64>, InitError> {
    Ok(numbers(tensor)?.into_iter().map(|value| factor * value).collect())
}

fn orthogonal_values(
    graph: &Graph,
    name: &Name,
    tensor: &Tensor,
    weight: &Weight,
    generator: &mut ChaCha8Rng,
) -> Result<Vec<f64>, InitError> {
    let Weight { n_blocks, outer, n_rows, inner, .. } = *weight;
    let n_columns = outer * inner;
    let places = places(graph, name, tensor, weight)?;
    let mut values = vec![0f64; tensor.len()];
    for block in 0..n_blocks {
        let matrix = orthogonal(generator, n_rows, n_columns);
        for row in 0..n_rows {
            for column in 0..n_columns {
                let (o, i) = (column / inner, column % inner);
                let as_read = ((block * outer + o) * n_rows + row) * inner + i;
                let place = places.as_ref().map_or(Some(as_read), |places| places.get(as_read).copied());
                let value = place.and_then(|place| values.get_mut(place)).ok_or_else(|| InitError::Weight {
                    initializer: name.clone(),
                    problem: "its operator reads it in another size".to_string(),
                })?;
                *value = matrix[row * n_columns + column];
            }
        }
    }
    Ok(values)
}

/// Where each element that the operator reads lies in the initializer; none where it reads them in their order.
fn places(graph: &Graph, name: &Name, tensor: &Tensor, weight: &Weight) -> Result<Option<Vec<usize>>, InitError> {
    let views = weight.views.iter().filter_map(|&node_idx| graph.nodes.get(node_idx));
    let moving: Vec<_> = views.filter(|node| matches!(node.op, Op::Transpose(_))).collect();
    if moving.is_empty() {
        return Ok(None);
    }
    let refused = |problem: String| InitError::Weight { initializer: name.clone(), problem };
    let numbered: Vec<u64> = (0..tensor.len() as u64).collect();
    let mut numbered = Tensor::new(tensor.shape(), numbered)?;
    for node in weight.views.iter().filter_map(|&node_idx| graph.nodes.get(node_idx)) {
        if matches!(node.op, Op::Cast(_) | Op::QuantizeLinear(_) | Op::DequantizeLinear(_)) {
            continue;
        }
        let rest = node.inputs.iter().skip(1).map(|input| match input {
            None => Ok(None),
            Some(input) => match graph.initializers.get(input) {
                Some(constant) => Ok(Some(constant.clone())),
                None => Err(refused(format!("{} reads `{input}`, which is no initializer", node.label()))),
            },
        });
        let inputs = [Ok(Some(numbered))].into_iter().chain(rest).collect::<Result<Vec<_>, _>>()?;
        let made = eval::operator(&node.op, &inputs, 1).map_err(|error| refused(error.to_string()))?;
        let first = made.into_iter().next().flatten();
        numbered = first.ok_or_else(|| refused(format!("{} makes nothing", node.label())))?;
    }
    let places = numbered.as_slice::<u64>()?;
    Ok(Some(places.iter().map(|&place| usize::try_from(place).expect("it was a usize")).collect()))
}

/// A matrix `[n_rows, n_columns]` with orthonormal rows, or columns where these are fewer, drawn from the uniform
/// (Haar) measure: a normal matrix, its shorter side orthonormalised by Gram–Schmidt, each step done twice (Giraud et
/// al. 2005).
fn orthogonal(generator: &mut ChaCha8Rng, n_rows: usize, n_columns: usize) -> Vec<f64> {
    let (n_short, n_long) = (n_rows.min(n_columns), n_rows.max(n_columns));
    let mut vectors: Vec<Vec<f64>> = Vec::with_capacity(n_short);
    while vectors.len() < n_short {
        let mut vector: Vec<f64> = (0..n_long).map(|_| normal(generator)).collect();
        for _ in 0..2 {
            for other in &vectors {
                let along = dot(&vector, other);
                vector.iter_mut().zip(other).for_each(|(value, other)| *value -= along * other);
            }
        }
        let length = dot(&vector, &vector).sqrt();
        // What was left of a vector that almost lay in the space of the others would be rounding.
        if length > 1e-6 {
            vector.iter_mut().for_each(|value| *value /= length);
            vectors.push(vector);
        }
    }
    let element = |row: usize, column: usize| match n_rows <= n_columns {
        true => vectors[row][column],
        false => vectors[column][row],
    };
    (0..n_rows).flat_map(|row| (0..n_columns).map(move |column| (row, column))).map(|(r, c)| element(r, c)).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The scale of the last normalisation of each residual branch.
fn last_scales<'a>(graph: &'a Graph, types: &Types) -> Vec<&'a Name> {
    let uses = Uses::of(graph);
    let blocks = structure(graph, types).residual_blocks;
    blocks.iter().flat_map(|block| branch_ends(graph, &uses, block)).collect()
}

fn branch_ends<'a>(graph: &'a Graph, uses: &Uses<'a>, block: &ResidualBlock) -> Vec<&'a Name> {
    let Some(sum) = uses.producer(&block.span.exit) else { return Vec::new() };
    let skip_nodes: &[usize] = match &block.skip {
        Skip::Identity => &[],
        Skip::Projection { nodes } => nodes,
    };
    let ends = sum.inputs.iter().flatten().filter_map(|mut name| {
        loop {
            let node_idx = uses.producer_idx(name)?;
            let node = graph.nodes.get(node_idx)?;
            let is_branch = block.nodes.contains(&node_idx) && !skip_nodes.contains(&node_idx);
            match &node.op {
                Op::Dropout(_) | Op::Identity if is_branch => name = node.input(0)?,
                op if is_branch && is_norm(op) => return node.input(1),
                _ => return None,
            }
        }
    });
    ends.filter(|scale| graph.initializers.contains_key(*scale)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::op::{BatchNormalization, Conv, Gather, Gemm, LSTM, Transpose};
    use crate::graph::tensor::DType;
    use crate::graph::{GraphBuilder, TensorType};

    fn ones(builder: &mut GraphBuilder, name: &str, shape: &[usize]) -> Name {
        let n = shape.iter().product();
        builder.initializer(name, Tensor::new(shape, vec![1f32; n]).expect("as many"))
    }

    /// One product with a weight of this shape, read as the name says.
    fn product(kind: &str, shape: &[usize]) -> Graph {
        let mut builder = GraphBuilder::new("product");
        let w = ones(&mut builder, "w", shape);
        let f32s = |shape: &[usize]| TensorType::new(DType::F32, shape.iter().copied());
        let y = match kind {
            "conv" => {
                let x = builder.input("x", f32s(&[1, 2 * shape[1], 9, 9]));
                builder.node(Op::Conv(Conv { group: 2, ..Conv::default() }), &[&x, &w])
            }
            "gemm" => {
                let x = builder.input("x", f32s(&[1, shape[1]]));
                builder.node(Op::Gemm(Gemm { trans_b: true, ..Gemm::default() }), &[&x, &w])
            }
            "matmul" => {
                let x = builder.input("x", f32s(&[1, shape[0]]));
                builder.node(Op::MatMul, &[&x, &w])
            }
            "transposed" => {
                let x = builder.input("x", f32s(&[1, shape[1]]));
                let w = builder.node(Op::Transpose(Transpose { perm: vec![1, 0] }), &[&w]);
                builder.node(Op::MatMul, &[&x, &w])
            }
            "lstm" => {
                let x = builder.input("x", f32s(&[3, 1, shape[2]]));
                let r = ones(&mut builder, "r", &[1, shape[1], shape[1] / 4]);
                builder.node(Op::LSTM(LSTM::default()), &[&x, &w, &r])
            }
            _ => {
                let x = builder.input("x", TensorType::new(DType::I64, [2usize]));
                builder.node(Op::Gather(Gather { axis: 0 }), &[&w, &x])
            }
        };
        builder.output(&y);
        builder.finish().expect("a graph")
    }

    fn with(scheme: Scheme) -> Initialisation {
        Initialisation { scheme, zero_gamma: false }
    }

    fn values(graph: &Graph, name: &str) -> Vec<f64> {
        numbers(&graph.initializers[name]).expect("floats")
    }

    #[track_caller]
    fn check_variance(scheme: Scheme, kind: &str, shape: &[usize], variance: f64, bound: f64) {
        let graph = initialise(&product(kind, shape), &with(scheme), 3).expect("it is initialised");
        let values = values(&graph, "w");
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let got = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n;
        assert!((got / variance - 1.0).abs() < 0.1, "{scheme:?} {kind}: variance {got}, not {variance}");
        assert!(mean.abs() < 4.0 * (variance / n).sqrt(), "{scheme:?} {kind}: mean {mean}");
        let most = values.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
        assert!(most <= bound * 1.000_001, "{scheme:?} {kind}: {most} is beyond {bound}");
    }

    #[test]
    fn variances_are_those_of_the_papers() {
        let none = f64::INFINITY;
        check_variance(Scheme::HeNormal, "conv", &[64, 8, 3, 3], 2.0 / 72.0, none);
        check_variance(Scheme::HeNormal, "gemm", &[100, 50], 2.0 / 50.0, none);
        check_variance(Scheme::HeNormal, "matmul", &[100, 50], 2.0 / 100.0, none);
        check_variance(Scheme::HeUniform, "matmul", &[100, 50], 2.0 / 100.0, (6.0f64 / 100.0).sqrt());
        check_variance(Scheme::XavierNormal, "conv", &[64, 8, 3, 3], 2.0 / (72.0 + 32.0 * 9.0), none);
        check_variance(Scheme::XavierUniform, "lstm", &[1, 80, 30], 2.0 / 50.0, (6.0f64 / 50.0).sqrt());
        check_variance(Scheme::HeNormal, "embedding", &[90, 40], 1.0, none);
        check_variance(Scheme::XavierUniform, "embedding", &[90, 40], 1.0, 3f64.sqrt());
        // of a normal cut at two deviations: 1 − 4 φ(2) / (2 Φ(2) − 1)
        check_variance(Scheme::TruncatedNormal(0.02), "gemm", &[100, 50], 0.773_741 * 4e-4, 0.04);
    }

    /// `Q Qᵀ = I` over the shorter side of every matrix, in the layout that the operator reads.
    #[track_caller]
    fn check_orthogonal(kind: &str, shape: &[usize], n_blocks: usize, columns_first: bool) {
        let graph = initialise(&product(kind, shape), &with(Scheme::Orthogonal), 5).expect("it is initialised");
        let values = values(&graph, "w");
        let block_len = values.len() / n_blocks;
        for block in values.chunks(block_len) {
            let n_rows = if n_blocks == 1 { shape[0] } else { shape[..2].iter().product::<usize>() / n_blocks };
            let n_rows = if kind == "conv" { shape[0] / n_blocks } else { n_rows };
            let n_columns = block_len / n_rows;
            let at = |row: usize, column: usize| block[row * n_columns + column];
            let by_rows = n_rows <= n_columns;
            let (n_short, n_long) = (n_rows.min(n_columns), n_rows.max(n_columns));
            let at = |short: usize, long: usize| if by_rows { at(short, long) } else { at(long, short) };
            for a in 0..n_short {
                for b in 0..n_short {
                    let product: f64 = (0..n_long).map(|long| at(a, long) * at(b, long)).sum();
                    let expected = f64::from(u8::from(a == b));
                    assert!(
                        (product - expected).abs() < 1e-5,
                        "{kind} {columns_first}: row {a} by row {b} is {product}"
                    );
                }
            }
        }
    }

    #[test]
    fn orthogonal_matrices_are_orthogonal() {
        check_orthogonal("gemm", &[7, 12], 1, false);
        check_orthogonal("gemm", &[12, 7], 1, false);
        check_orthogonal("matmul", &[12, 7], 1, true);
        check_orthogonal("transposed", &[5, 9], 1, false);
        check_orthogonal("transposed", &[9, 9], 1, false);
        check_orthogonal("conv", &[10, 2, 3, 3], 2, false);
        check_orthogonal("conv", &[80, 2, 3, 3], 2, false);
        check_orthogonal("lstm", &[1, 24, 4], 4, false);
    }

    #[test]
    fn a_matrix_read_through_a_transposition_is_drawn_as_the_operator_reads_it() {
        let scheme = with(Scheme::Orthogonal);
        let drawn = |kind: &str, shape: &[usize]| {
            values(&initialise(&product(kind, shape), &scheme, 5).expect("it is initialised"), "w")
        };
        // Both are maps from 9 inputs to 5 outputs: one tensor is the other transposed.
        let (direct, transposed) = (drawn("matmul", &[9, 5]), drawn("transposed", &[5, 9]));
        let is_same = |row: usize, column: usize| direct[row * 5 + column] == transposed[column * 9 + row];
        assert!((0..9).all(|row| (0..5).all(|column| is_same(row, column))));
    }

    #[test]
    fn numbers_depend_on_seed_and_name_only() {
        let network = |first: &str, second: &str| {
            let mut builder = GraphBuilder::new("two");
            let x = builder.input("x", TensorType::new(DType::F32, [1usize, 4]));
            let (a, b) = (ones(&mut builder, first, &[4, 4]), ones(&mut builder, second, &[4, 4]));
            let y = builder.node(Op::MatMul, &[&x, &a]);
            let y = builder.node(Op::MatMul, &[&y, &b]);
            builder.output(&y);
            builder.finish().expect("a graph")
        };
        let run = |graph: &Graph, seed: u64| initialise(graph, &Initialisation::default(), seed).expect("initialised");
        let one = run(&network("a", "b"), 1);
        assert_ne!(values(&one, "a"), values(&one, "b"));
        assert_eq!(values(&one, "b"), values(&run(&network("b", "c"), 1), "b"));
        assert_ne!(values(&one, "a"), values(&run(&network("a", "b"), 2), "a"));
    }

    #[test]
    fn inherited_weights_are_scaled() {
        let graph = product("gemm", &[3, 2]);
        let graph = initialise(&graph, &with(Scheme::Scaled(0.5)), 0).expect("it is scaled");
        assert_eq!(values(&graph, "w"), [0.5; 6]);
    }

    /// `x + norm(conv(x))`, or `relu` for `norm`.
    fn residual(with_norm: bool) -> Graph {
        let mut builder = GraphBuilder::new("residual");
        let x = builder.input("x", TensorType::new(DType::F32, [1usize, 2, 4, 4]));
        let w = ones(&mut builder, "w", &[2, 2, 1, 1]);
        let mut branch = builder.node(Op::Conv(Conv::default()), &[&x, &w]);
        if with_norm {
            let norms = ["scale", "bias", "mean", "variance"].map(|name| ones(&mut builder, name, &[2]));
            let [scale, bias, mean, variance] = &norms;
            let norm = Op::BatchNormalization(BatchNormalization::default());
            branch = builder.node(norm, &[&branch, scale, bias, mean, variance]);
        }
        let sum = builder.node(Op::Add, &[&branch, &x]);
        builder.output(&sum);
        builder.finish().expect("a graph")
    }

    #[test]
    fn the_end_of_a_residual_branch_becomes_zero() {
        let initialisation = Initialisation { zero_gamma: true, ..Initialisation::default() };
        let graph = initialise(&residual(true), &initialisation, 0).expect("it is initialised");
        assert_eq!(values(&graph, "scale"), [0.0; 2]);
        assert_eq!(values(&graph, "variance"), [1.0; 2]);
        assert_eq!(initialise(&residual(false), &initialisation, 0), Err(InitError::NoBranch));
    }

    #[test]
    fn parameters_of_schemes_are_checked() {
        let error = initialise(&residual(false), &with(Scheme::Scaled(0.0)), 0).expect_err("it is refused");
        assert_eq!(error.to_string(), "`scaled` is 0; give a finite number above 0");
        let parsed: Initialisation = toml::from_str("scheme = { truncated-normal = 0.02 }").expect("a scheme");
        assert_eq!(parsed, with(Scheme::TruncatedNormal(0.02)));
        assert!(toml::from_str::<Initialisation>("scheme = 'zeros'").is_err());
    }
}
