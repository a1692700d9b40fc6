//! What a student is to learn from its teacher, as TOML has it.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::schedule::WeightSchedule;
use crate::compress::distill::DistillError;
use crate::graph::Name;
use crate::learn::train::loss::Loss;
use crate::learn::train::named::{NameOrTable, name_or_table};

/// A value of the student and one of the teacher that are compared: `["stages.1.1.relu2", "stages.1.3.relu2"]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "[String; 2]", into = "[String; 2]")]
pub struct Pair {
    /// The student's value.
    pub student: Name,
    /// The teacher's value.
    pub teacher: Name,
}

impl From<[String; 2]> for Pair {
    fn from([student, teacher]: [String; 2]) -> Pair {
        Pair { student: student.into(), teacher: teacher.into() }
    }
}

impl From<Pair> for [String; 2] {
    fn from(pair: Pair) -> [String; 2] {
        [pair.student.to_string(), pair.teacher.to_string()]
    }
}

/// What is compared of student and teacher, and how: `"kd"`, or `{ kd = { temperature = 2.0 } }`.
///
/// Below, `s` is the student's value and `t` the teacher's, `p = softmax(z / T)` of logits `z` over the last axis, `n` the
/// number of samples in a batch. Every objective is one number; over several pairs it is the sum. Where a temperature is left
/// out it is the mix's; where pairs are left out they are found by [`super::pairing::resolve`]. Padded tokens count like any
/// others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Objective {
    /// `T² KL(p_t ‖ p_s)`, the mean over rows: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015),
    /// section 2.
    Kd {
        /// `T`
        #[serde(default, skip_serializing_if = "Option::is_none")]
        temperature: Option<f64>,
    },
    /// `−T² Σ p_t log p_s`, the mean over rows: equation 2 there, with the entropy of the teacher.
    SoftCrossEntropy {
        /// `T`
        #[serde(default, skip_serializing_if = "Option::is_none")]
        temperature: Option<f64>,
    },
    /// `(z_s − z_t)²`, the mean over all: Ba and Caruana, "Do Deep Nets Really Need to be Deep?" (2014), equation 1.
    Mse {},
    /// `T² (alpha KL(b_t ‖ b_s) + beta KL(p̂_t ‖ p̂_s))`, where `b` is the probability of the label's class against all others and
    /// `p̂` the distribution among the others; the mean over rows. Zhao et al., "Decoupled Knowledge Distillation" (2022),
    /// equation 7. The label's class is the greatest part of the target; of a sample without a label, the teacher's greatest.
    Dkd {
        /// of the label's class
        #[serde(default = "one")]
        alpha: f64,
        /// of the other classes
        #[serde(default = "eight")]
        beta: f64,
        /// `T`
        #[serde(default, skip_serializing_if = "Option::is_none")]
        temperature: Option<f64>,
    },
    /// `T² (inter · (1 − mean ρ of rows) + intra · (1 − mean ρ of columns))` of `p_s` and `p_t`, with Pearson's ρ: Huang et al.,
    /// "Knowledge Distillation from A Stronger Teacher" (2022), equations 9 to 11.
    Dist {
        /// of the classes of a sample, β in the paper
        #[serde(default = "one")]
        inter: f64,
        /// of the samples of a class, γ in the paper
        #[serde(default = "one")]
        intra: f64,
        /// `T`
        #[serde(default, skip_serializing_if = "Option::is_none")]
        temperature: Option<f64>,
    },
    /// `T² KL` of one yes or no a logit, `p = σ(z / T)`; the mean over all. For labels that do not exclude each other.
    Binary {
        /// `T`
        #[serde(default, skip_serializing_if = "Option::is_none")]
        temperature: Option<f64>,
    },
    /// The student's output against the teacher's. With `bounded = m` it is `(s − y)²` against the label `y`, and only for the
    /// samples with `|s − y|² + m > |t − y|²`: Chen et al., "Learning Efficient Object Detection Models with Knowledge
    /// Distillation" (2017), equation 5.
    Regression {
        /// `mse`, `mae`, `huber` or `cosine`
        #[serde(default = "mse", deserialize_with = "name_or_table")]
        #[schemars(with = "NameOrTable<Loss>")]
        loss: Loss,
        /// `m`
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bounded: Option<f64>,
    },
    /// `(t − r(s))²`, the mean over all, where `r` is a learned linear map of the channels or features: Romero et al.,
    /// "FitNets" (2015), equation 3.
    Hint {
        /// images `[n, channels, height, width]`, sequences `[n, tokens, features]` or features `[n, features]`
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pairs: Vec<Pair>,
        /// whether there is such a map; without it sizes must be equal
        #[serde(default = "yes")]
        projection: bool,
    },
    /// `(a_s / |a_s| − a_t / |a_t|)²`, the mean over all, where `a` is the mean of `|x|ᵖ` over the channels of an image: Zagoruyko
    /// and Komodakis, "Paying More Attention to Attention" (2017), equation 2.
    AttentionTransfer {
        /// images
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pairs: Vec<Pair>,
        /// `p`
        #[serde(default = "two")]
        power: u32,
    },
    /// `|G_s − G_t|² / n²`, where `G` is `x xᵀ` over the samples with rows of length one: Tung and Mori, "Similarity-Preserving
    /// Knowledge Distillation" (2019), equation 4.
    Similarity {
        /// values of any rank from 2
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pairs: Vec<Pair>,
    },
    /// Huber's function of the difference of distances between samples, in units of their mean, and of that of the cosines of
    /// angles between three; the mean over all pairs and triples: Park et al., "Relational Knowledge Distillation" (2019), equations
    /// 5 to 9.
    Relational {
        /// values of any rank from 2
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pairs: Vec<Pair>,
        /// the weight of distances
        #[serde(default = "one")]
        distance: f64,
        /// the weight of angles; their work grows with the cube of the batch
        #[serde(default = "two_parts")]
        angle: f64,
    },
    /// `P_t log (P_t / P_s)`, the mean over all pairs of samples, where `P` is `(cos + 1) / 2` as a distribution a row: Passalis and
    /// Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer" (2018), equations 4 to 6.
    Pkt {
        /// values of any rank from 2
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pairs: Vec<Pair>,
    },
    /// `(G_s − G_t)²`, the mean over all, where `G = Σ x_i y_j / (height · width)` of the channels of two layers of the same
    /// resolution: Yim et al., "A Gift from Knowledge Distillation" (2017), equations 1 and 2. Student and teacher have as many
    /// channels.
    Fsp {
        /// images; from the first to the second, from the third to the fourth, and so on
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pairs: Vec<Pair>,
    },
    /// The maximum mean discrepancy of the channels, each of length one, with the kernel `(x · y)²`: Huang and Wang, "Like What You
    /// Like" (2017), equation 6.
    Nst {
        /// images
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pairs: Vec<Pair>,
    },
    /// `−log softmax(e_s · e_t / temperature)` at the same sample, the mean of both directions, where `e` are learned linear maps of
    /// length one: Tian, Krishnan and Isola, "Contrastive Representation Distillation" (2020), section 3. The other samples of the
    /// batch are the negatives, not a memory of many, so that it is the bound of van den Oord, Li and Vinyals, "Representation
    /// Learning with Contrastive Predictive Coding" (2018), equation 4; a class is not told apart from itself by labels.
    Crd {
        /// features, sequences or images; of the latter two, the means
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pairs: Vec<Pair>,
        /// the features of `e`
        #[serde(default = "embedding")]
        size: usize,
        /// of the softmax
        #[serde(default = "sharp")]
        temperature: f64,
    },
    /// `½ ((t − μ(s))² / σ² + log σ²)`, the mean over all, where `μ` is a learned linear map and `σ²` a learned variance a channel:
    /// Ahn et al., "Variational Information Distillation" (2019), equations 4 to 6. Below 0 where the variance is small.
    Vid {
        /// images, sequences or features
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pairs: Vec<Pair>,
    },
    /// `(s W − t)²`, the mean over all, with a learned `W`: Jiao et al., "TinyBERT" (2020), equation 8.
    TinybertHidden {
        /// what layers give, `[n, tokens, features]`
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pairs: Vec<Pair>,
        /// whether there is a `W`; without it sizes must be equal
        #[serde(default = "yes")]
        projection: bool,
    },
    /// The same of what the first layer reads: equation 9 there.
    TinybertEmbedding {
        /// embedded tokens, `[n, tokens, features]`
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pairs: Vec<Pair>,
        /// whether there is a `W`; without it sizes must be equal
        #[serde(default = "yes")]
        projection: bool,
    },
    /// `(a_s − a_t)²` of attention's scores before their softmax, the mean over all: equation 7 there. Where the teacher's score is
    /// −100 or less, which hides a token, it counts nothing, as in its authors' code.
    TinybertAttention {
        /// scores `[n, heads, tokens, tokens]`, of as many heads
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pairs: Vec<Pair>,
    },
    /// `KL` of attention's weights and of the relations of its values, `softmax(V Vᵀ / √d)`, the means over heads and tokens: Wang et
    /// al., "MiniLM" (2020), equations 6 to 9.
    Minilm {
        /// what the softmax of an attention reads, `[n, heads, tokens, tokens]`, of as many heads
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        scores: Vec<Pair>,
        /// values, `[n, heads, tokens, head size]`
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        values: Vec<Pair>,
    },
    /// `KL` of the relations `softmax(x xᵀ / √d)` of queries, keys and values, each divided into so many heads anew: Wang et al.,
    /// "MiniLMv2" (2021), equations 3 to 5.
    MinilmV2 {
        /// `[n, tokens, features]` or `[n, heads, tokens, head size]`
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        queries: Vec<Pair>,
        /// `[n, tokens, features]` or, as they enter the product, `[n, heads, head size, tokens]`
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        keys: Vec<Pair>,
        /// as the queries
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        values: Vec<Pair>,
        /// the number of heads of a relation, which divides the features of both; the teacher's where it is left out
        #[serde(default, skip_serializing_if = "Option::is_none")]
        heads: Option<usize>,
    },
}

fn one() -> f64 {
    1.0
}

fn eight() -> f64 {
    8.0
}

fn two_parts() -> f64 {
    2.0
}

fn two() -> u32 {
    2
}

fn yes() -> bool {
    true
}

fn mse() -> Loss {
    Loss::Mse
}

fn embedding() -> usize {
    128
}

fn sharp() -> f64 {
    0.07
}

impl Objective {
    /// The name in TOML and in errors.
    pub fn name(&self) -> &'static str {
        match self {
            Objective::Kd { .. } => "kd",
            Objective::SoftCrossEntropy { .. } => "soft-cross-entropy",
            Objective::Mse {} => "mse",
            Objective::Dkd { .. } => "dkd",
            Objective::Dist { .. } => "dist",
            Objective::Binary { .. } => "binary",
            Objective::Regression { .. } => "regression",
            Objective::Hint { .. } => "hint",
            Objective::AttentionTransfer { .. } => "attention-transfer",
            Objective::Similarity { .. } => "similarity",
            Objective::Relational { .. } => "relational",
            Objective::Pkt { .. } => "pkt",
            Objective::Fsp { .. } => "fsp",
            Objective::Nst { .. } => "nst",
            Objective::Crd { .. } => "crd",
            Objective::Vid { .. } => "vid",
            Objective::TinybertHidden { .. } => "tinybert-hidden",
            Objective::TinybertEmbedding { .. } => "tinybert-embedding",
            Objective::TinybertAttention { .. } => "tinybert-attention",
            Objective::Minilm { .. } => "minilm",
            Objective::MinilmV2 { .. } => "minilm-v2",
        }
    }

    /// Whether it reads labels.
    pub fn reads_labels(&self) -> bool {
        matches!(self, Objective::Dkd { .. } | Objective::Regression { bounded: Some(_), .. })
    }

    /// Whether it is of what the networks say, and not of pairs of their inner values.
    pub fn is_of_output(&self) -> bool {
        self.clone().pairs_mut().is_empty()
    }

    /// The lists of pairs that it has, to be filled in where they are empty.
    pub(super) fn pairs_mut(&mut self) -> Vec<&mut Vec<Pair>> {
        match self {
            Objective::Kd { .. }
            | Objective::SoftCrossEntropy { .. }
            | Objective::Mse {}
            | Objective::Dkd { .. }
            | Objective::Dist { .. }
            | Objective::Binary { .. }
            | Objective::Regression { .. } => Vec::new(),
            Objective::Hint { pairs, .. }
            | Objective::AttentionTransfer { pairs, .. }
            | Objective::Similarity { pairs }
            | Objective::Relational { pairs, .. }
            | Objective::Pkt { pairs }
            | Objective::Fsp { pairs }
            | Objective::Nst { pairs }
            | Objective::Crd { pairs, .. }
            | Objective::Vid { pairs }
            | Objective::TinybertHidden { pairs, .. }
            | Objective::TinybertEmbedding { pairs, .. }
            | Objective::TinybertAttention { pairs } => vec![pairs],
            Objective::Minilm { scores, values } => vec![scores, values],
            Objective::MinilmV2 { queries, keys, values, .. } => vec![queries, keys, values],
        }
    }

    /// Refuses options outside of their range.
    ///
    /// # Errors
    /// Names the objective, the option and its range.
    pub fn check(&self) -> Result<(), DistillError> {
        let objective = self.name();
        let option = |option, value: f64, is_good: bool, range| match is_good && value.is_finite() {
            true => Ok(()),
            false => Err(DistillError::Option { objective, option, value: value.to_string(), range }),
        };
        let part = |name, value: f64| option(name, value, value >= 0.0, "0 or more");
        let heat = |value: f64| option("temperature", value, value > 0.0, "a number above 0");
        match *self {
            Objective::Kd { temperature }
            | Objective::SoftCrossEntropy { temperature }
            | Objective::Binary { temperature } => temperature.map_or(Ok(()), heat),
            Objective::Dkd { alpha, beta, temperature } => {
                part("alpha", alpha)?;
                part("beta", beta)?;
                temperature.map_or(Ok(()), heat)
            }
            Objective::Dist { inter, intra, temperature } => {
                part("inter", inter)?;
                part("intra", intra)?;
                temperature.map_or(Ok(()), heat)
            }
            Objective::Regression { loss, bounded } => {
                let has_form = match loss {
                    Loss::CrossEntropy | Loss::BinaryCrossEntropy => false,
                    Loss::Mse => true,
                    Loss::Mae | Loss::Huber { .. } | Loss::Cosine => bounded.is_none(),
                };
                if !has_form {
                    let range = "`mse`, or without `bounded` one of `mse`, `mae`, `huber`, `cosine`";
                    return Err(DistillError::Option { objective, option: "loss", value: format!("{loss:?}"), range });
                }
                bounded.map_or(Ok(()), |margin| part("bounded", margin))
            }
            Objective::AttentionTransfer { power, .. } => option("power", power.into(), power > 0, "1 or more"),
            Objective::Relational { distance, angle, .. } => {
                part("distance", distance)?;
                part("angle", angle)
            }
            Objective::Crd { size, temperature, .. } => {
                option("size", size as f64, size > 0, "1 or more")?;
                heat(temperature)
            }
            Objective::MinilmV2 { heads, .. } => {
                heads.map_or(Ok(()), |heads| option("heads", heads as f64, heads > 0, "1 or more"))
            }
            Objective::Mse {}
            | Objective::Hint { .. }
            | Objective::Similarity { .. }
            | Objective::Pkt { .. }
            | Objective::Fsp { .. }
            | Objective::Nst { .. }
            | Objective::Vid { .. }
            | Objective::TinybertHidden { .. }
            | Objective::TinybertEmbedding { .. }
            | Objective::TinybertAttention { .. }
            | Objective::Minilm { .. } => Ok(()),
        }
    }
}

/// One term of a sum: `"kd"`, or `{ hint = { pairs = [["a", "b"]] }, weight = 100.0, schedule = { between = { to = 0.3 } } }`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Weighted {
    /// What is compared, and how.
    #[serde(flatten)]
    pub objective: Objective,
    /// What it is multiplied by.
    pub weight: f64,
    /// What the weight is multiplied by as the training goes on.
    pub schedule: WeightSchedule,
}

impl From<Objective> for Weighted {
    fn from(objective: Objective) -> Weighted {
        Weighted { objective, weight: 1.0, schedule: WeightSchedule::Constant }
    }
}

impl<'de> Deserialize<'de> for Weighted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Weighted, D::Error> {
        let mut table = match toml::Value::deserialize(deserializer)? {
            toml::Value::String(name) => toml::Table::from_iter([(name, toml::Value::Table(toml::Table::new()))]),
            toml::Value::Table(table) => table,
            other => return Err(D::Error::custom(format!("{WEIGHTED}, not {}", other.type_str()))),
        };
        let weight = table.remove("weight").map_or(Ok(1.0), f64::deserialize);
        let schedule = table.remove("schedule").map_or(Ok(WeightSchedule::Constant), WeightSchedule::deserialize);
        if table.len() != 1 {
            let names: Vec<String> = table.keys().map(|name| format!("`{name}`")).collect();
            let found = if names.is_empty() { "nothing".to_string() } else { names.join(" and ") };
            return Err(D::Error::custom(format!("{WEIGHTED}; beside these two it has {found}")));
        }
        let (name, options) = table.into_iter().next().expect("there is one");
        // `kd = "…"` would be told that a string is no table, and not which one
        if !options.is_table() {
            return Err(D::Error::custom(format!("`{name}` should be a table of its options")));
        }
        let objective = Objective::deserialize(toml::Value::Table(toml::Table::from_iter([(name, options)])));
        Ok(Weighted {
            objective: objective.map_err(|error| D::Error::custom(error.message()))?,
            weight: weight.map_err(|error| D::Error::custom(format!("`weight`: {}", error.message())))?,
            schedule: schedule.map_err(|error| D::Error::custom(format!("`schedule`: {}", error.message())))?,
        })
    }
}

impl JsonSchema for Weighted {
    fn schema_name() -> Cow<'static, str> {
        "Weighted".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        #[derive(JsonSchema)]
        #[expect(dead_code, reason = "only its schema is asked for")]
        struct Weight {
            /// What the objective is multiplied by.
            #[schemars(default = "one")]
            weight: f64,
            /// What the weight is multiplied by as the training goes on.
            #[schemars(default)]
            schedule: WeightSchedule,
        }
        let weight = Weight::json_schema(generator);
        let weight = weight.get("properties").and_then(|keys| keys.as_object()).expect("it has keys");
        let mut schema = NameOrTable::<Objective>::json_schema(generator);
        let forms = schema.get_mut("oneOf").and_then(|forms| forms.as_array_mut()).into_iter().flatten();
        for keys in forms.filter_map(|form| form.get_mut("properties")?.as_object_mut()) {
            keys.extend(weight.clone());
        }
        schema
    }
}

const WEIGHTED: &str = "an objective is a name, or a table of one name with its options, `weight` and `schedule`";

/// All that a student learns by: `alpha · Σ weight · objective + (1 − alpha) · loss of the labels`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Mix {
    /// The terms of the sum.
    pub loss: Vec<Weighted>,
    /// The temperature of the objectives of logits that do not state their own.
    pub temperature: f64,
    /// The share of the teacher; with 1, labels are read only by objectives that need them.
    pub alpha: f64,
    /// What the share of the labels is multiplied by as the training goes on.
    pub label_schedule: WeightSchedule,
}

impl Default for Mix {
    fn default() -> Mix {
        Mix {
            loss: vec![Objective::Kd { temperature: None }.into()],
            temperature: 4.0,
            alpha: 0.9,
            label_schedule: WeightSchedule::Constant,
        }
    }
}

impl Mix {
    /// Refuses options outside of their range.
    ///
    /// # Errors
    /// Names the objective, the option and its range.
    pub fn check(&self) -> Result<(), DistillError> {
        let option = |objective, option, value: String, is_good: bool, range| match is_good {
            true => Ok(()),
            false => Err(DistillError::Option { objective, option, value, range }),
        };
        let whole = |name, value: f64, is_good, range| option("distill", name, value.to_string(), is_good, range);
        whole("alpha", self.alpha, (0.0..=1.0).contains(&self.alpha), "a number from 0 to 1")?;
        let is_warm = self.temperature > 0.0 && self.temperature.is_finite();
        whole("temperature", self.temperature, is_warm, "a number above 0")?;
        option("distill", "loss", "empty".to_string(), !self.loss.is_empty(), "one objective or more")?;
        let shares = "shares of the training from 0 to 1, `from` before `to`, and factors of 0 or more";
        let schedule = |objective, name, schedule: WeightSchedule| {
            option(objective, name, format!("{schedule:?}"), schedule.is_valid(), shares)
        };
        schedule("distill", "label_schedule", self.label_schedule)?;
        for Weighted { objective, weight, schedule: factor } in &self.loss {
            let is_good = *weight >= 0.0 && weight.is_finite();
            option(objective.name(), "weight", weight.to_string(), is_good, "0 or more")?;
            schedule(objective.name(), "schedule", *factor)?;
            objective.check()?;
        }
        Ok(())
    }
}
