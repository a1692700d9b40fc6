//! What numbers the values of a network become: types, granularity, operators, exceptions.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::QuantizeError;
use crate::graph::tensor::DType;
use crate::graph::{Name, Node, Op};

/// An integer type that values are quantized to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // each variant is the ONNX type of that name
pub enum Integer {
    I4,
    U4,
    I8,
    U8,
    I16,
    U16,
}

impl Integer {
    /// As an element type.
    pub fn dtype(self) -> DType {
        match self {
            Integer::I4 => DType::I4,
            Integer::U4 => DType::U4,
            Integer::I8 => DType::I8,
            Integer::U8 => DType::U8,
            Integer::I16 => DType::I16,
            Integer::U16 => DType::U16,
        }
    }

    /// Bits of a number.
    pub fn n_bits(self) -> u32 {
        match self {
            Integer::I4 | Integer::U4 => 4,
            Integer::I8 | Integer::U8 => 8,
            Integer::I16 | Integer::U16 => 16,
        }
    }

    /// Whether it has negative numbers.
    pub fn is_signed(self) -> bool {
        match self {
            Integer::I4 | Integer::I8 | Integer::I16 => true,
            Integer::U4 | Integer::U8 | Integer::U16 => false,
        }
    }
}

/// How activations are quantized: one scale for a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Activations {
    /// The type.
    pub dtype: Integer,
    /// Whether zero is in the middle of the type's range, whatever the values are.
    pub symmetric: bool,
}

impl Default for Activations {
    /// What onnxruntime on x86 is quickest with: `u8`, zero where the values have it.
    fn default() -> Activations {
        Activations { dtype: Integer::U8, symmetric: false }
    }
}

/// How many weights share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Granularity {
    /// All of a tensor.
    Tensor,
    /// Those that make one output channel.
    Channel,
    /// So many neighbours along the axis that is summed over. Only where weights alone are quantized.
    Block(usize),
}

/// How weights are quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Weights {
    /// The type.
    pub dtype: Integer,
    /// Whether zero is the zero of the type.
    pub symmetric: bool,
    /// How many weights share a scale.
    pub granularity: Granularity,
    /// Bits that are used of the type's. 7 of 8 keep the sum of two products within 16 bits, which x86 processors without VNNI
    /// add them in.
    pub bits: Option<u32>,
    /// Whether scales are such that no two neighbouring products leave 16 bits, with all bits of the type in use.
    pub fits_pairs: bool,
}

impl Default for Weights {
    /// `i8`, symmetric, a scale for each output channel.
    fn default() -> Weights {
        Weights {
            dtype: Integer::I8,
            symmetric: true,
            granularity: Granularity::Channel,
            bits: None,
            fits_pairs: false,
        }
    }
}

impl Weights {
    /// The bits that are used.
    pub fn n_bits(&self) -> u32 {
        self.bits.map_or(self.dtype.n_bits(), |bits| bits.min(self.dtype.n_bits()))
    }
}

/// An exception for some nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// The nodes: an operator's name, or a pattern for names of nodes or of what they make, in which `*` stands for any text.
    pub nodes: String,
    /// How the activations that they read and make are quantized.
    #[serde(default)]
    pub activations: Option<Activations>,
    /// How their weights are quantized.
    #[serde(default)]
    pub weights: Option<Weights>,
}

/// What is quantized, and to what.
///
/// ```
/// use aludel::compress::quantize::scheme::{Integer, Scheme};
///
/// let scheme: Scheme = toml::from_str(
///     r#"
///     activations = { dtype = "i8" }
///     weights = { bits = 7, granularity = "tensor" }
///     exclude = ["/head/*", "Sigmoid"]
///     override = [{ nodes = "/first/Conv", weights = { granularity = "channel" } }]
///     "#,
/// )?;
/// assert_eq!(scheme.activations.dtype, Integer::I8);
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Scheme {
    /// How activations are quantized.
    pub activations: Activations,
    /// How weights are quantized.
    pub weights: Weights,
    /// How embeddings are quantized; as other weights where it is not given.
    pub embeddings: Option<Weights>,
    /// The operators that compute in integers. Those that only move numbers, and activations that a range implies, go along.
    pub operators: Vec<String>,
    /// Nodes that stay in floats, as [`Override::nodes`] names them.
    pub exclude: Vec<String>,
    /// Exceptions; of several for a node the last counts.
    #[serde(rename = "override")]
    pub overrides: Vec<Override>,
    /// Operators whose activations all share one scale, as some accelerators want it: `["Concat", "Add"]`.
    pub one_scale: Vec<String>,
    /// Whether products of two activations, as in attention, are quantized, too.
    pub activation_products: bool,
    /// Whether what a MatMul or Gemm makes is quantized although floats follow: QLinear operators make nothing else.
    pub product_outputs: bool,
    /// Whether the network's inputs and outputs are to be quantized as far as they can be, so that they may become integers.
    pub integer_ports: bool,
}

/// The operators that onnxruntime has integer kernels for and that gain by them.
const OPERATORS: [&str; 9] =
    ["Conv", "Gemm", "MatMul", "Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "LeakyRelu"];

impl Default for Scheme {
    fn default() -> Scheme {
        Scheme {
            activations: Activations::default(),
            weights: Weights::default(),
            embeddings: None,
            operators: OPERATORS.map(str::to_string).to_vec(),
            exclude: Vec::new(),
            overrides: Vec::new(),
            one_scale: Vec::new(),
            activation_products: false,
            product_outputs: false,
            integer_ports: false,
        }
    }
}

impl Scheme {
    /// That of networks with attention: products with weights alone, which hold nearly all of the work; what is between them
    /// has outliers that eight bits do not hold.
    pub fn of_products() -> Scheme {
        Scheme { operators: ["Conv", "Gemm", "MatMul"].map(str::to_string).to_vec(), ..Scheme::default() }
    }

    /// Whether it can be carried out, network aside.
    ///
    /// # Errors
    /// Names an option that is out of its range, or an operator that has no integer form.
    pub fn check(&self) -> Result<(), QuantizeError> {
        let option = |option: &'static str, problem: String| Err(QuantizeError::Option { option, problem });
        for weights in self.all_weights() {
            let most = weights.dtype.n_bits();
            if weights.bits.is_some_and(|bits| !(2..=most).contains(&bits)) {
                return option("weights.bits", format!("should be from 2 to {most}, the bits of its type"));
            }
            if weights.granularity == Granularity::Block(0) {
                return option("weights.granularity", "should be blocks of 1 or more".to_string());
            }
        }
        for activations in
            self.overrides.iter().filter_map(|other| other.activations.as_ref()).chain([&self.activations])
        {
            if activations.dtype.n_bits() < 8 {
                return option("activations.dtype", "should have 8 or 16 bits".to_string());
            }
        }
        if let Some(name) = self.operators.iter().find(|name| !KNOWN.contains(&name.as_str())) {
            return option("operators", format!("has `{name}`, which has no integer form; {}", KNOWN.join(", ")));
        }
        match self.one_scale.iter().find(|name| !JOINING.contains(&name.as_str())) {
            Some(name) => option("one_scale", format!("has `{name}`; give some of {}", JOINING.join(", "))),
            None => Ok(()),
        }
    }

    /// Whether nodes of this operator compute in integers.
    pub fn has(&self, op: &Op) -> bool {
        self.operators.iter().any(|name| name == op.name())
    }

    /// The same, but that what makes these values stays in floats, too.
    pub fn without<'a>(&self, made: impl IntoIterator<Item = &'a Name>) -> Scheme {
        let exclude = self.exclude.iter().cloned().chain(made.into_iter().map(ToString::to_string));
        Scheme { exclude: exclude.collect(), ..self.clone() }
    }

    /// The pattern by which a node stays in floats.
    pub fn excludes(&self, node: &Node) -> Option<&str> {
        self.exclude.iter().map(String::as_str).find(|pattern| node.is_meant(pattern))
    }

    /// How a node's activations are quantized.
    pub fn activations_of(&self, node: &Node) -> Activations {
        self.last(node, |other| other.activations).unwrap_or(self.activations)
    }

    /// Whether an exception says how a node's activations are quantized.
    pub fn has_own_activations(&self, node: &Node) -> bool {
        self.last(node, |other| other.activations).is_some()
    }

    /// Every way in which weights are quantized.
    pub fn all_weights(&self) -> impl Iterator<Item = &Weights> {
        let others = self.overrides.iter().filter_map(|other| other.weights.as_ref());
        others.chain([&self.weights]).chain(&self.embeddings)
    }

    /// How a node's weights are quantized.
    pub fn weights_of(&self, node: &Node) -> Weights {
        self.last(node, |other| other.weights).unwrap_or(self.weights)
    }

    /// How a node's embedding is quantized.
    pub fn embedding_of(&self, node: &Node) -> Weights {
        self.last(node, |other| other.weights).or(self.embeddings).unwrap_or(self.weights)
    }

    /// The patterns that mean none of these nodes: most likely misspelled.
    pub fn idle_patterns<'a>(&'a self, nodes: &[Node]) -> Vec<&'a str> {
        let patterns = self.exclude.iter().chain(self.overrides.iter().map(|other| &other.nodes));
        patterns.map(String::as_str).filter(|pattern| !nodes.iter().any(|node| node.is_meant(pattern))).collect()
    }

    fn last<T>(&self, node: &Node, of: impl Fn(&Override) -> Option<T>) -> Option<T> {
        self.overrides.iter().rev().filter(|other| node.is_meant(&other.nodes)).find_map(of)
    }
}

/// Those of them that take and make activations alone.
const JOINING: [&str; 7] = ["Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid"];

/// Every operator with an integer form.
const KNOWN: [&str; 12] = [
    "Conv",
    "Gemm",
    "MatMul",
    "Add",
    "Mul",
    "Concat",
    "AveragePool",
    "GlobalAveragePool",
    "LeakyRelu",
    "Sigmoid",
    "Softmax",
    "LSTM",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn scheme(text: &str) -> Scheme {
        toml::from_str(text).expect("a scheme")
    }

    #[test]
    fn nodes_are_meant_by_operator_name_and_what_they_make() {
        let mut node = Node::new(Op::Relu, vec![Some("x".into())], vec![Some("/block/out".into())]);
        node.name = "first".to_string();
        for (pattern, expected) in [("Relu", true), ("first", true), ("/block/*", true), ("*irs*", true), ("x", false)]
        {
            assert_eq!(node.is_meant(pattern), expected, "{pattern}");
        }
        let scheme = scheme("exclude = ['Relu', 'nobody*']");
        assert_eq!(scheme.excludes(&node), Some("Relu"));
        assert_eq!(scheme.idle_patterns(&[node]), ["nobody*"]);
    }

    #[test]
    fn the_last_exception_counts() {
        let node = Node::new(Op::MatMul, vec![], vec![Some("y".into())]);
        let scheme = scheme(
            "override = [{ nodes = 'MatMul', weights = { bits = 7 } }, { nodes = 'y', weights = { bits = 6 } },
             { nodes = 'y', activations = { dtype = 'u16' } }]",
        );
        assert_eq!(scheme.weights_of(&node).n_bits(), 6);
        assert_eq!(scheme.activations_of(&node).dtype, Integer::U16);
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for (text, expected) in [
            ("weights = { bits = 9 }", "`weights.bits` should be from 2 to 8, the bits of its type"),
            ("activations = { dtype = 'i4' }", "`activations.dtype` should have 8 or 16 bits"),
            ("weights = { granularity = { block = 0 } }", "`weights.granularity` should be blocks of 1 or more"),
        ] {
            assert_eq!(scheme(text).check().expect_err(text).to_string(), expected);
        }
        let error = scheme("operators = ['Tanh']").check().expect_err("no form").to_string();
        assert!(error.starts_with("`operators` has `Tanh`, which has no integer form; Conv, Gemm"), "{error}");
        assert_eq!(Scheme::default().check(), Ok(()));
    }
}
