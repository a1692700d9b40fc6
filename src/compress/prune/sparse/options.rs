//! What a user says of sparsity.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::super::{PruneError, Scope};
use super::schedule::Schedule;
use crate::learn::train::named::{NameOrTable, name_or_table};

/// Which elements of a weight are out together, as TOML has it: `"free"`, `"2:4"`, `"4x1"`.
///
/// A weight is a matrix with a row for each output and a column for each number that it sums over. The columns of a convolution stand
/// tap by tap, the input channels of a tap beside each other, which is the order that sparse tensor cores read: TensorRT wants two
/// zeros in every four consecutive input channels at the same place of the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Pattern {
    /// Each on its own.
    #[default]
    Free,
    /// Of every `m` neighbouring columns of a row at most `n` are not zero: Mishra et al., "Accelerating Sparse Deep Neural
    /// Networks" (2021), section 3.
    NM {
        /// those that stay
        n: usize,
        /// of so many
        m: usize,
    },
    /// So many neighbouring rows times so many neighbouring columns; fewer at a weight's end.
    Block {
        /// outputs
        rows: usize,
        /// inputs
        columns: usize,
    },
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Pattern, String> {
        let wrong = || format!("`{text}` is no pattern; give \"free\", one like \"2:4\" or one like \"4x1\"");
        let number = |text: &str| text.parse::<usize>().ok().filter(|&number| number > 0);
        let pair = |(a, b): (&str, &str)| number(a).zip(number(b));
        match (text, text.split_once(':').and_then(pair), text.split_once('x').and_then(pair)) {
            ("free", ..) => Ok(Pattern::Free),
            (_, Some((n, m)), _) if n < m => Ok(Pattern::NM { n, m }),
            (_, None, Some((rows, columns))) => Ok(Pattern::Block { rows, columns }),
            _ => Err(wrong()),
        }
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Pattern, String> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> String {
        pattern.to_string()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Free => f.write_str("free"),
            Pattern::NM { n, m } => write!(f, "{n}:{m}"),
            Pattern::Block { rows, columns } => write!(f, "{rows}x{columns}"),
        }
    }
}

impl JsonSchema for Pattern {
    fn schema_name() -> Cow<'static, str> {
        "Pattern".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Which elements of a weight are out together: each on its own, N of every M, or blocks of rows x columns.",
            "type": "string",
            "pattern": "^(free|[1-9][0-9]*:[1-9][0-9]*|[1-9][0-9]*x[1-9][0-9]*)$",
        })
    }
}

/// By what the elements are chosen that go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Criterion {
    /// `|w|`: Han et al., "Learning both Weights and Connections for Efficient Neural Networks" (2015), section 3.
    #[default]
    Magnitude,
    /// Any, by the seed.
    Random,
    /// `|g · w|`, the gradient `g` of the loss summed over batches: Lee et al., "SNIP" (2019), equation 6.
    Snip,
    /// `−Σ g · w` over the steps of a training, what moves away from zero being kept: Sanh et al., "Movement Pruning" (2020),
    /// section 4, with masks that are hard from the first to the last: an element that is out stays out.
    Movement,
    /// `|w| · ‖x‖₂`, compared among the inputs of an output: Sun et al., "A Simple and Effective Pruning Approach for Large Language
    /// Models" (2023), equation 1.
    Wanda,
    /// What an element costs with those to come making up for it, columns settled one after another: Frantar and Alistarh,
    /// "SparseGPT" (2023), algorithm 1.
    SparseGpt,
}

impl Criterion {
    /// As it stands in TOML.
    pub fn name(self) -> &'static str {
        match self {
            Criterion::Magnitude => "magnitude",
            Criterion::Random => "random",
            Criterion::Snip => "snip",
            Criterion::Movement => "movement",
            Criterion::Wanda => "wanda",
            Criterion::SparseGpt => "sparsegpt",
        }
    }

    /// Whether it goes by what products read.
    pub fn reads_samples(self) -> bool {
        match self {
            Criterion::Wanda | Criterion::SparseGpt => true,
            Criterion::Magnitude | Criterion::Random | Criterion::Snip | Criterion::Movement => false,
        }
    }

    pub(super) fn needs(self, what: &str) -> PruneError {
        PruneError::Option { option: "criterion", problem: format!("is {}, which needs {what}", self.name()) }
    }
}

/// What a user says of sparsity. What is left out is chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SparseOptions {
    /// The share of elements that go, above 0 and below 1; half of them where nothing is said. A pattern such as `"2:4"` says it itself.
    pub sparsity: Option<f64>,
    /// Which elements are out together.
    pub pattern: Pattern,
    /// By what they are chosen.
    pub criterion: Criterion,
    /// Whether each weight gives the same share of its elements, or all are compared as they score.
    pub scope: Scope,
    /// Weights that go sparse, all where there are none: an operator's name, or a pattern for names of nodes, of what they make
    /// or of weights, in which `*` stands for any text.
    pub only: Vec<String>,
    /// Weights that stay as they are, likewise.
    pub exclude: Vec<String>,
    /// Whether embeddings go sparse, too.
    pub embeddings: bool,
    /// When they go in a training.
    #[serde(deserialize_with = "name_or_table")]
    #[schemars(with = "NameOrTable<Schedule>")]
    pub schedule: Schedule,
}

impl Default for SparseOptions {
    fn default() -> SparseOptions {
        SparseOptions {
            sparsity: None,
            pattern: Pattern::default(),
            criterion: Criterion::default(),
            scope: Scope::Local,
            only: Vec::new(),
            exclude: Vec::new(),
            embeddings: false,
            schedule: Schedule::default(),
        }
    }
}

impl SparseOptions {
    /// Whether zeros come as the network learns, where it does.
    pub fn grows(&self) -> bool {
        self.schedule != Schedule::OneShot || self.criterion == Criterion::Movement
    }

    /// The share of elements that are to go.
    pub fn target(&self) -> f64 {
        match self.pattern {
            Pattern::NM { n, m } => 1.0 - n as f64 / m as f64,
            Pattern::Free | Pattern::Block { .. } => self.sparsity.unwrap_or(0.5),
        }
    }

    /// Whether they can be carried out, network aside.
    ///
    /// # Errors
    /// Names the option and what it should be.
    pub fn check(&self) -> Result<(), PruneError> {
        let option = |option, problem: String| Err(PruneError::Option { option, problem });
        match (self.pattern, self.sparsity) {
            (Pattern::NM { n, m }, _) if n == 0 || n >= m => {
                return option("pattern", format!("is {n}:{m}; should keep some of every group, and not all"));
            }
            (Pattern::Block { rows: 0, .. } | Pattern::Block { columns: 0, .. }, _) => {
                return option("pattern", "should be of blocks of 1 or more".to_string());
            }
            (Pattern::NM { .. }, Some(sparsity)) if (sparsity - self.target()).abs() > 1e-6 => {
                let (pattern, target) = (self.pattern, self.target());
                return option("sparsity", format!("is {sparsity}; the pattern {pattern} says {target}: leave it out"));
            }
            (_, Some(sparsity)) if !(sparsity > 0.0 && sparsity < 1.0) => {
                return option("sparsity", format!("is {sparsity}; should be above 0 and below 1"));
            }
            _ => {}
        }
        let is_global = self.scope == Scope::Global;
        if is_global && matches!(self.pattern, Pattern::NM { .. }) {
            return option("scope", format!("is global; {} says what every group gives", self.pattern));
        }
        let name = self.criterion.name();
        if is_global && self.criterion.reads_samples() {
            return option("scope", format!("is global; {name} compares elements of one weight alone"));
        }
        if self.criterion.reads_samples() && self.schedule != Schedule::OneShot {
            return option("schedule", format!("is of a training, in which {name} is not computed: leave it out"));
        }
        if self.criterion == Criterion::Movement && self.schedule == Schedule::OneShot {
            return option(
                "schedule",
                "should be linear, cubic or iterative: before a training nothing moves".to_string(),
            );
        }
        self.schedule.check()
    }
}
