//! What a recipe says of a student that is made out of its teacher.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::StudentError;
use crate::compress::importance;

/// The part `[student]` of a recipe.
///
/// ```
/// use aludel::compress::distill::student::{Depth, StudentOptions};
///
/// let options: StudentOptions = toml::from_str(
///     r#"
///     from = "teacher"
///     width = { channels = 0.5, groups = { "head.*" = 1.0 }, default = 0.75 }
///     depth = { keep = 0.5 }
///     inherit = { scale = 0.5 }
///     divisor = 4
///     "#,
/// )?;
/// assert_eq!(options.depth, Some(Depth::Keep(0.5)));
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StudentOptions {
    /// The network that it is made of, by its name in the recipe.
    pub from: String,
    /// How many units are kept of each group.
    pub width: Width,
    /// Which blocks are kept; all without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth: Option<Depth>,
    /// By what the units are chosen that are kept.
    pub criterion: Criterion,
    /// What becomes of the weights.
    pub inherit: Inherit,
    /// The number of units kept is rounded up to a multiple of it. Heads are not rounded.
    pub divisor: usize,
    /// The least number of units that a group keeps, where it has so many. Of heads one is kept at least.
    pub least: usize,
}

impl Default for StudentOptions {
    fn default() -> StudentOptions {
        StudentOptions {
            from: "teacher".to_string(),
            width: Width::Factor(1.0),
            depth: None,
            criterion: Criterion::default(),
            inherit: Inherit::default(),
            divisor: 1,
            least: 1,
        }
    }
}

/// By what units are chosen that are kept, as TOML has it: `"l2"`. Those of [`importance::Criterion`] that a network tells of
/// itself, before it is tidied or sees data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Criterion {
    /// The sum of magnitudes of a unit's weights: Li et al., "Pruning Filters for Efficient ConvNets" (2017),
    /// section 3.1.
    L1,
    /// Their Euclidean norm: He et al., "Soft Filter Pruning" (2018), equation 2 with p = 2.
    #[default]
    L2,
    /// The first are kept.
    First,
    /// Any, by the seed.
    Random,
}

impl From<Criterion> for importance::Criterion {
    fn from(criterion: Criterion) -> importance::Criterion {
        match criterion {
            Criterion::L1 => importance::Criterion::L1,
            Criterion::L2 => importance::Criterion::L2,
            Criterion::First => importance::Criterion::First,
            Criterion::Random => importance::Criterion::Random,
        }
    }
}

/// How many units are kept: one factor for all groups, or a table.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Width {
    /// The same for every group.
    Factor(f64),
    /// By what the groups are.
    Factors(Factors),
}

/// Factors for groups, above 0 and at most 1. For each group the first that is given counts, in the order of the fields;
/// of several patterns that match the longest, and of these the last by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Factors {
    /// By a pattern for the name of a weight that makes the units: `*` stands for any text.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, f64>,
    /// Groups that a residual connection carries on: the hidden size of a transformer, a stage of a residual network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<f64>,
    /// Channels of convolutions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<f64>,
    /// Attention heads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heads: Option<f64>,
    /// Columns of matrix products and embeddings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub features: Option<f64>,
    /// Hidden units of recurrent layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub states: Option<f64>,
    /// All other groups; they stay whole without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<f64>,
    /// In the place of `default`, the greatest factor with which the student has at most this share of the teacher's
    /// parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<f64>,
    /// Likewise of its multiplications. Where both are given, both hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub macs: Option<f64>,
}

impl Factors {
    /// Whether a budget decides over the groups that nothing else is said of.
    pub fn has_budget(&self) -> bool {
        self.parameters.is_some() || self.macs.is_some()
    }
}

/// Which of the repeated blocks are kept: those of [`blocks`](super::blocks).
///
/// Of a stack of alike blocks some are kept evenly: the first, the last, and of `n` blocks the `k` at
/// `j · (n − 1) / (k − 1)`, rounded, for `j` from 0; a single one is the first. So Sanh et al., "DistilBERT" (2019), and
/// Jiao et al., "TinyBERT" (2020), section 3.2, take layers at equal distances. A block that has to stay takes the place
/// of the nearest that would.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Depth {
    /// This part of every stack, rounded up.
    Keep(f64),
    /// The blocks at these positions, and no others: what has to stay must be among them.
    Blocks(Vec<usize>),
    /// So many of every stack that has more.
    Layers(usize),
}

/// What becomes of the weights: `true`, `false` or `{ scale = 0.5 }`.
#[derive(Clone, Copy, Debug, Default, PartialEq, JsonSchema)]
#[schemars(from = "InheritForm", into = "InheritForm")]
pub enum Inherit {
    /// They are the teacher's.
    #[default]
    Whole,
    /// Those of products, convolutions, recurrent layers and embeddings times this factor; biases, normalisations and
    /// statistics are the teacher's.
    Scaled(f64),
    /// They are drawn anew (He normal), biases are zero, normalisations and their statistics as at the start of a
    /// training.
    Fresh,
}

impl StudentOptions {
    /// Refuses what is out of its range.
    ///
    /// # Errors
    /// Names the key, its value and what it may be.
    pub fn check(&self) -> Result<(), StudentError> {
        let wrong = |key: &str, value: String, range| Err(StudentError::Option { key: key.to_string(), value, range });
        let share = |key: &str, value: f64| match value > 0.0 && value <= 1.0 {
            true => Ok(()),
            false => wrong(key, value.to_string(), "a number above 0, at most 1"),
        };
        match &self.width {
            Width::Factor(factor) => share("width", *factor)?,
            Width::Factors(factors) => {
                for (key, value) in factors.named() {
                    share(&key, value)?;
                }
                if factors.default.is_some() && factors.has_budget() {
                    return Err(StudentError::TwoWidths);
                }
            }
        }
        match self.depth {
            Some(Depth::Keep(part)) => share("depth.keep", part)?,
            Some(Depth::Layers(0)) => return wrong("depth.layers", "0".to_string(), "a number of at least 1"),
            Some(Depth::Layers(_) | Depth::Blocks(_)) | None => {}
        }
        for (key, number) in [("divisor", self.divisor), ("least", self.least)] {
            if number == 0 {
                return wrong(key, "0".to_string(), "a number of at least 1");
            }
        }
        match self.inherit {
            Inherit::Scaled(factor) if !(factor.is_finite() && factor > 0.0) => {
                wrong("inherit.scale", factor.to_string(), "a finite number above 0")
            }
            Inherit::Whole | Inherit::Scaled(_) | Inherit::Fresh => Ok(()),
        }
    }

    /// Whether the student is to be smaller than its teacher.
    pub(super) fn asks_for_less(&self) -> bool {
        let narrower = match &self.width {
            Width::Factor(factor) => *factor < 1.0,
            Width::Factors(factors) => factors.named().iter().any(|(_, factor)| *factor < 1.0),
        };
        let shallower = match self.depth {
            Some(Depth::Keep(part)) => part < 1.0,
            Some(Depth::Layers(_) | Depth::Blocks(_)) | None => false,
        };
        narrower || shallower
    }
}

impl Factors {
    /// Every number that is given, with its key.
    fn named(&self) -> Vec<(String, f64)> {
        let patterns = self.groups.iter().map(|(pattern, factor)| (format!("width.groups.\"{pattern}\""), *factor));
        let others = [
            ("stream", self.stream),
            ("channels", self.channels),
            ("heads", self.heads),
            ("features", self.features),
            ("states", self.states),
            ("default", self.default),
            ("parameters", self.parameters),
            ("macs", self.macs),
        ];
        patterns.chain(others.into_iter().filter_map(|(key, value)| Some((format!("width.{key}"), value?)))).collect()
    }
}

impl<'de> Deserialize<'de> for Width {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Width, D::Error> {
        let scalar = |scalar| match scalar {
            Scalar::Number(factor) => Some(Width::Factor(factor)),
            Scalar::Flag(_) => None,
        };
        let expected = "a number, or a table such as { channels = 0.5, default = 1.0 } or { parameters = 0.1 }";
        deserializer.deserialize_any(ScalarOrTable { scalar, table: Width::Factors, expected, read: PhantomData })
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Scale {
    /// What the weights are multiplied by.
    scale: f64,
}

/// The two forms of [`Inherit`] in TOML.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is asked for")]
enum InheritForm {
    Flag(bool),
    Table(Scale),
}

impl<'de> Deserialize<'de> for Inherit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Inherit, D::Error> {
        let scalar = |scalar| match scalar {
            Scalar::Flag(true) => Some(Inherit::Whole),
            Scalar::Flag(false) => Some(Inherit::Fresh),
            Scalar::Number(_) => None,
        };
        let table = |table: Scale| Inherit::Scaled(table.scale);
        let expected = "true, false or a table such as { scale = 0.5 }";
        deserializer.deserialize_any(ScalarOrTable { scalar, table, expected, read: PhantomData })
    }
}

impl Serialize for Inherit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Inherit::Whole => serializer.serialize_bool(true),
            Inherit::Fresh => serializer.serialize_bool(false),
            Inherit::Scaled(factor) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("scale", factor)?;
                map.end()
            }
        }
    }
}

enum Scalar {
    Number(f64),
    Flag(bool),
}

/// Reads one number or flag, or a table, so that what is wrong in the table is said of its key.
struct ScalarOrTable<S, T, A> {
    scalar: S,
    table: T,
    expected: &'static str,
    read: PhantomData<A>,
}

impl<S: FnOnce(Scalar) -> Option<V>, T, A, V> ScalarOrTable<S, T, A> {
    fn take<E: de::Error>(self, scalar: Scalar) -> Result<V, E> {
        let unexpected = match scalar {
            Scalar::Number(number) => de::Unexpected::Float(number),
            Scalar::Flag(flag) => de::Unexpected::Bool(flag),
        };
        let expected = self.expected;
        (self.scalar)(scalar).ok_or_else(|| E::invalid_type(unexpected, &expected))
    }
}

impl<'de, S, T, A, V> Visitor<'de> for ScalarOrTable<S, T, A>
where
    S: FnOnce(Scalar) -> Option<V>,
    T: FnOnce(A) -> V,
    A: Deserialize<'de>,
{
    type Value = V;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<V, E> {
        self.take(Scalar::Flag(flag))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<V, E> {
        self.take(Scalar::Number(number))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<V, E> {
        self.take(Scalar::Number(number as f64))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<V, E> {
        self.take(Scalar::Number(number as f64))
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<V, M::Error> {
        Ok((self.table)(A::deserialize(MapAccessDeserializer::new(map))?))
    }
}
