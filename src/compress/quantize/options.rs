//! What a user says of a quantization, and what is right where nothing is said.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::calibrator::Calibrator;
use super::half::HalfType;
use super::mixed::Budget;
use super::nbits::BLOCKS;
use super::rounding::Rounding;
use super::scheme::{Granularity, Integer, Override, Scheme, Weights};
use super::{QuantizeError, dynamic};
use crate::graph::structure::blocks::Structure;

/// To what a network is quantized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum To {
    /// Integers of eight bits.
    #[default]
    Int8,
    /// Integers of four bits; weights alone.
    Int4,
    /// Floats of 16 bits, IEEE 754 binary16.
    Fp16,
    /// Floats of 16 bits, the upper half of an `f32`.
    Bf16,
}

impl To {
    /// The type of 16 bits that it is, where it is one.
    pub fn half(self) -> Option<HalfType> {
        match self {
            To::Int8 | To::Int4 => None,
            To::Fp16 => Some(HalfType::F16),
            To::Bf16 => Some(HalfType::BF16),
        }
    }
}

/// How narrow numbers stand in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// QuantizeLinear and DequantizeLinear around operators in floats, which a runtime fuses.
    Qdq,
    /// Operators on integers: QLinearConv, QLinearMatMul and, but for tract, those of onnxruntime's own.
    Qoperator,
    /// Only weights, which a runtime brings back to floats when it loads them: a Cast and a Mul, which both runtimes compute
    /// once.
    Weights,
    /// Of 16-bit floats: everything is computed in them.
    Whole,
    /// Products on integers, activations quantized as they come: no samples are needed.
    Dynamic,
    /// Only weights, by blocks behind onnxruntime's `MatMulNBits`, which multiplies by them as they are.
    MatMulNBits,
}

impl Form {
    /// Whether activations have scales that are chosen from samples.
    pub fn is_calibrated(self) -> bool {
        match self {
            Form::Qdq | Form::Qoperator => true,
            Form::Weights | Form::Whole | Form::Dynamic | Form::MatMulNBits => false,
        }
    }
}

/// What a network takes and gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Ports {
    /// Floats, as before.
    #[default]
    Float,
    /// Integers, whose scale and zero point the file names.
    Int,
}

/// What becomes of recurrent operators (RNN, GRU, LSTM).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Recurrent {
    /// They stay one node, of which at most the weights are narrow.
    #[default]
    Keep,
    /// Those of known length are written out step by step, so that their products compute in integers.
    Decompose,
}

/// Who will run the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// onnxruntime on x86.
    Onnxruntime,
    /// tract.
    Tract,
    /// Nobody in particular.
    Any,
}

/// What a user says of activations; what is left out is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ActivationOptions {
    /// The type.
    pub dtype: Option<Integer>,
    /// Whether zero is in the middle of the type's range.
    pub symmetric: Option<bool>,
}

/// What a user says of weights; what is left out is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WeightOptions {
    /// The type.
    pub dtype: Option<Integer>,
    /// Whether zero is the zero of the type; of signed types it is.
    pub symmetric: Option<bool>,
    /// How many weights share a scale.
    pub granularity: Option<Granularity>,
    /// Bits that are used of the type's.
    pub bits: Option<u32>,
}

/// What a user says of a quantization. What is left out is chosen for who will run the file.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QuantizeOptions {
    /// To what.
    pub to: To,
    /// How narrow numbers stand in the file.
    pub form: Option<Form>,
    /// How activations are quantized.
    pub activations: ActivationOptions,
    /// How weights are quantized.
    pub weights: WeightOptions,
    /// The type of embeddings; eight bits where other weights have four, else that of other weights.
    pub embeddings: Option<Integer>,
    /// How weights are rounded; where it is not given to the nearest integers, but by GPTQ where they have four bits and there are
    /// samples.
    pub rounding: Option<Rounding>,
    /// The operators that compute in integers.
    pub operators: Option<Vec<String>>,
    /// Nodes that stay in floats.
    pub exclude: Vec<String>,
    /// Exceptions.
    #[serde(rename = "override")]
    pub overrides: Vec<Override>,
    /// Operators whose activations all share one scale.
    pub one_scale: Vec<String>,
    /// Whether products of two activations, as in attention, are quantized, too.
    pub activation_products: Option<bool>,
    /// By what ranges of activations are chosen; all but one element in a hundred thousand where it is not given.
    pub calibrator: Option<Calibrator>,
    /// Samples to calibrate with; 512 where it is not given.
    pub samples: Option<usize>,
    /// Whether integers stay where floats were measured to be quicker on the runtime that is named.
    pub keep_slow: bool,
    /// What the network must keep, and what it may cost: layers stay in floats for it.
    pub budget: Budget,
    /// Whether the weights of neighbouring products are brought to one range, channel by channel.
    pub equalize: bool,
    /// Whether biases make up for the mean of what rounding adds to their products.
    pub bias_correction: bool,
    /// How much of the outliers of activations goes into weights: 0 none, 1 all; 0.5 is usual.
    pub smooth: Option<f64>,
    /// Whether inputs and outputs are integers, too.
    pub ports: Option<Ports>,
    /// What becomes of recurrent operators.
    pub recurrent: Recurrent,
    /// To what `MatMulNBits` may round activations as it multiplies: 0 leaves it to onnxruntime, 1 is `f32`, 4 integers of
    /// eight bits, which are quicker and what is taken where it is not given.
    pub accuracy_level: Option<i64>,
}

/// What is done, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Choice {
    /// How narrow numbers stand in the file.
    pub form: Form,
    /// What is quantized.
    pub scheme: Scheme,
    /// By what ranges of activations are chosen.
    pub calibrator: Calibrator,
    /// How weights are rounded.
    pub rounding: Rounding,
    /// Why, a sentence a decision.
    pub reasons: Vec<String>,
}

impl QuantizeOptions {
    /// Whether weights are rounded by what meets them, as those of four bits are where nobody says otherwise: a weight that is zero need
    /// not stay it.
    pub fn moves_zeros(&self) -> bool {
        match self.rounding {
            Some(rounding) => rounding != Rounding::Nearest,
            None => self.to == To::Int4,
        }
    }

    /// Whether form and type go together.
    ///
    /// # Errors
    /// When they do not.
    pub fn check(&self) -> Result<(), QuantizeError> {
        let option = |option, problem: &str| Err(QuantizeError::Option { option, problem: problem.to_string() });
        let fits = match (self.to, self.form) {
            (_, None | Some(Form::Weights)) => true,
            (To::Int8, Some(form)) => form != Form::Whole,
            (To::Int4, Some(form)) => form == Form::MatMulNBits,
            (To::Fp16 | To::Bf16, Some(form)) => form == Form::Whole,
        };
        if !fits {
            return option(
                "form",
                "should be qdq, qoperator, dynamic, weights or matmulnbits for int8, weights or matmulnbits for int4, weights or whole for fp16",
            );
        }
        if self.ports == Some(Ports::Int) && self.budget.is_something() {
            return option("budget", "may leave layers in floats that integer `ports` need: leave one of them out");
        }
        if self.bias_correction && self.rounding.is_some_and(|rounding| rounding != Rounding::Nearest) {
            return option(
                "bias_correction",
                "makes up for the nearest integers; `rounding` by samples leaves no mean to make up for: leave one of them out",
            );
        }
        if self.smooth.is_some_and(|alpha| !(0.0..=1.0).contains(&alpha)) {
            return option("smooth", "should be from 0 to 1, as in 0.5");
        }
        match (self.to, self.weights.dtype.map(Integer::n_bits)) {
            (To::Int8, Some(4)) => option("weights.dtype", "has 4 bits: say `to = \"int4\"`, or `bits = 4` of eight"),
            (To::Int4, Some(8 | 16)) => option("weights.dtype", "has more bits than int4"),
            _ => Ok(()),
        }
    }

    /// What is done to a network of this structure for who will run it.
    ///
    /// # Errors
    /// When an option goes with another form, or is known to be wrong where the file will run.
    pub fn choose(&self, structure: &Structure, target: Target) -> Result<Choice, QuantizeError> {
        self.check()?;
        let mut reasons = Vec::new();
        let form = self.form(structure, target, &mut reasons);
        if let Some(name) = self.unused(form) {
            let problem = match (self.to.half(), form) {
                (Some(_), _) => "is of integers; leave it out",
                (None, Form::Dynamic) => {
                    "is of activations, which the form `dynamic` quantizes as they come; leave it out, or say `form = \"qdq\"`"
                }
                (None, _) => {
                    "is of activations, of which this form (weights alone) quantizes none; leave it out, or say `form = \"qdq\"`"
                }
            };
            return Err(QuantizeError::Option { option: name, problem: problem.to_string() });
        }
        self.check_form(form, target)?;
        let scheme = self.scheme(structure, target, form, &mut reasons);
        let has_softmax = scheme.operators.iter().any(|name| name == "Softmax");
        if form.is_calibrated() && target != Target::Onnxruntime && has_softmax {
            let problem = "has Softmax, which tract computes wrongly between DequantizeLinear and QuantizeLinear; name ort, or leave it out";
            return Err(QuantizeError::Option { option: "operators", problem: problem.to_string() });
        }
        let (calibrator, rounding) = (self.calibrator.unwrap_or_default(), self.rounding.unwrap_or_default());
        Ok(Choice { form, scheme, calibrator, rounding, reasons })
    }

    /// Whether who runs the file has the operators of this form, and the form the weights that are asked for.
    fn check_form(&self, form: Form, target: Target) -> Result<(), QuantizeError> {
        let option = |option, problem: &str| Err(QuantizeError::Option { option, problem: problem.to_string() });
        match self.accuracy_level {
            Some(_) if form != Form::MatMulNBits => {
                return option("accuracy_level", "is of the form matmulnbits; leave it out");
            }
            Some(level) if ![0, 1, 4].contains(&level) => return option("accuracy_level", "should be 0, 1 or 4"),
            Some(_) | None => {}
        }
        if form == Form::MatMulNBits && target != Target::Onnxruntime {
            return option("form", "is matmulnbits, an operator of onnxruntime's alone: name ort, or take `weights`");
        }
        if form == Form::MatMulNBits {
            match self.weights.granularity {
                None => {}
                Some(Granularity::Block(block)) if BLOCKS.contains(&block) => {}
                Some(_) => {
                    return option("weights.granularity", "should be blocks of 16, 32, 64, 128 or 256 for matmulnbits");
                }
            }
            if self.weights.dtype.is_some_and(|dtype| dtype.n_bits() == 16) {
                return option("weights.dtype", "should have 4 or 8 bits for matmulnbits");
            }
        }
        if form == Form::Dynamic {
            if matches!(self.weights.granularity, Some(Granularity::Block(_))) {
                return option("weights.granularity", "is by block, which products of integers do not take");
            }
            if self.weights.dtype.is_some_and(|dtype| dtype.n_bits() != 8) {
                return option("weights.dtype", "should be i8 or u8 for products of integers");
            }
            let is_asymmetric = self.weights.symmetric.or(self.weights.dtype.map(Integer::is_signed)) == Some(false);
            if is_asymmetric && self.weights.granularity != Some(Granularity::Tensor) {
                let problem = "is false by channel, whose zero points would differ; take granularity `tensor`, or true";
                return option("weights.symmetric", problem);
            }
            for name in self.operators.iter().flatten() {
                if !dynamic::OPERATORS.contains(&name.as_str()) {
                    let known = dynamic::OPERATORS.join(", ");
                    return option("operators", &format!("has `{name}`; the form `dynamic` has {known}"));
                }
                if name == "LSTM" && target != Target::Onnxruntime {
                    return option("operators", "has LSTM, whose form on integers is onnxruntime's alone: name ort");
                }
            }
        }
        Ok(())
    }

    /// An option that is given and does nothing in this form.
    fn unused(&self, form: Form) -> Option<&'static str> {
        let of_activations = [
            ("activations", self.activations != ActivationOptions::default()),
            ("operators", self.operators.is_some()),
            ("one_scale", !self.one_scale.is_empty()),
            ("activation_products", self.activation_products.is_some()),
            ("calibrator", self.calibrator.is_some()),
            ("budget", self.budget.is_something()),
            ("bias_correction", self.bias_correction),
            ("smooth", self.smooth.is_some()),
            ("ports", self.ports == Some(Ports::Int)),
            ("recurrent", self.recurrent == Recurrent::Decompose),
            ("override", self.overrides.iter().any(|other| other.activations.is_some())),
        ];
        let of_integers = [
            ("weights", self.weights != WeightOptions::default()),
            ("embeddings", self.embeddings.is_some()),
            ("rounding", self.rounding.is_some()),
            ("override", !self.overrides.is_empty()),
            ("equalize", self.equalize),
        ];
        let of_samples = [("rounding", self.rounding.is_some_and(|rounding| rounding != Rounding::Nearest))];
        let is_given = |rows: &[(&'static str, bool)]| rows.iter().find(|(_, is_given)| *is_given).map(|row| row.0);
        match (self.to.half(), form) {
            (Some(_), _) => is_given(&of_activations).or(is_given(&of_integers)),
            (None, Form::Weights | Form::MatMulNBits) => is_given(&of_activations),
            (None, Form::Dynamic) => {
                is_given(&of_activations.map(|row| (row.0, row.1 && row.0 != "operators"))).or(is_given(&of_samples))
            }
            (None, Form::Qdq | Form::Qoperator | Form::Whole) => None,
        }
    }

    fn form(&self, structure: &Structure, target: Target, reasons: &mut Vec<String>) -> Form {
        if let Some(form) = self.form {
            return form;
        }
        let is_transformer = !structure.attentions.is_empty();
        let (form, reason) = match (self.to, target) {
            (To::Fp16 | To::Bf16, _) => (
                Form::Weights,
                "weights alone: on a CPU both runtimes compute in f32, or slowly in 16 bits; the file is as small",
            ),
            (To::Int4, _) => (Form::Weights, "four bits are for weights alone"),
            (To::Int8, Target::Tract) => (
                Form::Weights,
                "weights alone: tract computes QuantizeLinear and DequantizeLinear in floats, slower than without",
            ),
            (To::Int8, Target::Onnxruntime) if is_transformer && self.unused(Form::Dynamic).is_none() => (
                Form::Dynamic,
                "dynamic: of a transformer it keeps most, and is as quick as fixed ranges; `form = \"qdq\"` fixes them",
            ),
            (To::Int8, Target::Onnxruntime) => (
                Form::Qdq,
                "Q/DQ: onnxruntime fuses it into integer kernels and runs it quicker than QLinear operators",
            ),
            (To::Int8, Target::Any) => (Form::Qdq, "Q/DQ: every ONNX runtime reads it"),
        };
        reasons.push(reason.to_string());
        form
    }

    fn scheme(&self, structure: &Structure, target: Target, form: Form, reasons: &mut Vec<String>) -> Scheme {
        let mut scheme = Scheme::default();
        if let Some(operators) = &self.operators {
            scheme.operators.clone_from(operators);
        } else if form == Form::Dynamic {
            scheme.operators = dynamic_operators(target, reasons);
        } else if !structure.attentions.is_empty() {
            scheme.operators = Scheme::of_products().operators;
            if form.is_calibrated() {
                let reason = "products with weights alone: what is between them in a transformer has outliers that cost accuracy";
                reasons.push(reason.to_string());
            }
        }
        if self.to == To::Int4 {
            scheme.weights.dtype = Integer::I4;
        }
        if form == Form::MatMulNBits {
            scheme.weights.granularity = Granularity::Block(32);
            if self.to == To::Int4 && self.weights == WeightOptions::default() {
                scheme.weights.dtype = Integer::U4;
                let reason = "u4 with a zero point for each block of 32: on a transformer the error is 40 % less than of i4 without";
                reasons.push(reason.to_string());
            }
        }
        let on_integers = form.is_calibrated() || form == Form::Dynamic;
        if on_integers && target == Target::Any && self.weights.bits.is_none() {
            let is_plain =
                self.weights.dtype.is_none_or(|dtype| dtype == Integer::I8) && self.weights.symmetric != Some(false);
            let is_nearest = self.rounding.is_none_or(|rounding| rounding == Rounding::Nearest);
            scheme.weights.fits_pairs = form.is_calibrated() && is_plain && is_nearest;
            scheme.weights.bits = if scheme.weights.fits_pairs { None } else { Some(7) };
            let reason = match scheme.weights.fits_pairs {
                true => {
                    "scales of weights with which no pair of products leaves 16 bits: nothing overflows on x86 without VNNI either; name a runtime for the finest"
                }
                false => "weights of 7 bits: nothing overflows on x86 without VNNI either; name a runtime for 8",
            };
            reasons.push(reason.to_string());
        }
        let is_default = self.activations == ActivationOptions::default() && self.weights == WeightOptions::default();
        if on_integers && target == Target::Onnxruntime && is_default {
            let reason = "u8 activations and i8 weights by channel: onnxruntime's quickest integer kernels on x86";
            reasons.push(reason.to_string());
        }
        let activations = &mut scheme.activations;
        activations.dtype = self.activations.dtype.unwrap_or(activations.dtype);
        activations.symmetric = self.activations.symmetric.unwrap_or(activations.symmetric);
        let weights = &mut scheme.weights;
        weights.dtype = self.weights.dtype.unwrap_or(weights.dtype);
        weights.symmetric = self.weights.symmetric.unwrap_or(weights.dtype.is_signed());
        weights.granularity = self.weights.granularity.unwrap_or(weights.granularity);
        weights.bits = self.weights.bits.or(weights.bits);
        if let Some(dtype) = self.embeddings {
            scheme.embeddings = Some(embedded(dtype));
        } else if scheme.weights.dtype.n_bits() < 8 {
            scheme.embeddings = Some(embedded(Integer::I8));
            let reason = "embeddings of eight bits, if there are any: each row stands for itself, and no sum evens out what four bits lose; `embeddings` says otherwise";
            reasons.push(reason.to_string());
        }
        scheme.activation_products = self.activation_products.unwrap_or(false);
        // The steps' products have gates of floats behind them.
        scheme.product_outputs = form == Form::Qoperator && self.recurrent == Recurrent::Decompose;
        scheme.integer_ports = self.ports == Some(Ports::Int);
        scheme.exclude.clone_from(&self.exclude);
        scheme.overrides.clone_from(&self.overrides);
        scheme.one_scale.clone_from(&self.one_scale);
        scheme
    }
}

/// Embeddings of this type, symmetric where it has negative numbers.
fn embedded(dtype: Integer) -> Weights {
    Weights { dtype, symmetric: dtype.is_signed(), ..Weights::default() }
}

fn dynamic_operators(target: Target, reasons: &mut Vec<String>) -> Vec<String> {
    let mut operators = vec!["Gemm".to_string(), "MatMul".to_string()];
    if target == Target::Onnxruntime {
        operators.push("LSTM".to_string());
    }
    let reason =
        "products with matrices: a ConvInteger is slower than a Conv in floats; name Conv in `operators` for it";
    reasons.push(reason.to_string());
    operators
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::quantize::scheme::Weights;

    fn choose(text: &str, target: Target) -> Result<Choice, String> {
        let options = toml::from_str::<QuantizeOptions>(text).expect("options");
        options.choose(&Structure::default(), target).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_said_follows_who_runs_the_file() {
        let chosen = |text: &str, target| choose(text, target).expect(text);
        let ort = chosen("", Target::Onnxruntime);
        assert_eq!((ort.form, &ort.scheme), (Form::Qdq, &Scheme::default()));
        assert_eq!(chosen("", Target::Tract).form, Form::Weights);
        let safe = |text: &str| {
            (chosen(text, Target::Any).scheme.weights.bits, chosen(text, Target::Any).scheme.weights.fits_pairs)
        };
        assert_eq!([safe(""), safe("rounding = 'gptq'")], [(None, true), (Some(7), false)]);
        assert_eq!(
            [
                safe("weights = { dtype = 'u8', symmetric = false, granularity = 'tensor' }"),
                safe("weights = { bits = 8 }")
            ],
            [(Some(7), false), (Some(8), false)]
        );
        assert_eq!(chosen("weights = { bits = 8 }", Target::Any).scheme.weights.bits, Some(8));
        // One thing said of the weights leaves the others as they were chosen.
        let whole = chosen("weights = { granularity = 'tensor' }", Target::Any).scheme.weights;
        assert_eq!(whole, Weights { granularity: Granularity::Tensor, fits_pairs: true, ..Weights::default() });
        let four = chosen("to = 'int4'\nweights = { granularity = { block = 32 } }", Target::Onnxruntime);
        assert_eq!((four.form, four.scheme.weights.dtype), (Form::Weights, Integer::I4));
        assert_eq!(four.scheme.embeddings, Some(Weights::default()), "embeddings suffer by four bits");
        assert!(four.reasons.iter().any(|reason| reason.starts_with("embeddings of eight bits")));
        let all = chosen("to = 'int4'\nembeddings = 'i4'\nrounding = 'gptq'", Target::Any);
        assert_eq!(all.scheme.embeddings.map(|weights| weights.dtype), Some(Integer::I4));
        assert_eq!((all.rounding, ort.rounding), (Rounding::Gptq, Rounding::Nearest));
        assert_eq!(chosen("exclude = ['a']", Target::Any).scheme.exclude, ["a"]);
        let dynamic = |target| chosen("form = 'dynamic'", target).scheme;
        assert_eq!(dynamic(Target::Onnxruntime).operators, ["Gemm", "MatMul", "LSTM"]);
        assert_eq!((dynamic(Target::Any).operators.len(), dynamic(Target::Any).weights.bits), (2, Some(7)));
        let blocks = chosen("to = 'int4'\nform = 'matmulnbits'", Target::Onnxruntime).scheme.weights;
        assert_eq!((blocks.dtype, blocks.symmetric, blocks.granularity), (Integer::U4, false, Granularity::Block(32)));
        assert!(chosen("ports = 'int'", Target::Onnxruntime).scheme.integer_ports);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for (text, target, expected) in [
            ("to = 'int4'\nform = 'qdq'", Target::Any, "`form` should be qdq"),
            ("to = 'fp16'\nform = 'qoperator'", Target::Any, "`form` should be qdq"),
            ("form = 'whole'", Target::Any, "`form` should be qdq"),
            ("weights = { dtype = 'i4' }", Target::Any, "`weights.dtype` has 4 bits"),
            ("to = 'int4'\nweights = { dtype = 'i8' }", Target::Any, "`weights.dtype` has more bits than int4"),
            ("calibrator = 'mse'", Target::Tract, "`calibrator` is of activations"),
            ("to = 'fp16'\nweights = { bits = 7 }", Target::Any, "`weights` is of integers"),
            ("bias_correction = true", Target::Tract, "`bias_correction` is of activations"),
            ("to = 'fp16'\nequalize = true", Target::Any, "`equalize` is of integers"),
            (
                "bias_correction = true\nrounding = 'gptq'",
                Target::Onnxruntime,
                "`bias_correction` makes up for the nearest",
            ),
            ("smooth = 1.5", Target::Any, "`smooth` should be from 0 to 1"),
            ("to = 'bf16'\nrounding = 'gptq'", Target::Any, "`rounding` is of integers"),
            ("to = 'fp16'\nembeddings = 'i8'", Target::Any, "`embeddings` is of integers"),
            ("operators = ['Softmax']", Target::Any, "`operators` has Softmax, which tract computes wrongly"),
            ("to = 'int4'\nform = 'dynamic'", Target::Any, "`form` should be qdq"),
            ("form = 'dynamic'\ncalibrator = 'mse'", Target::Any, "`calibrator` is of activations"),
            ("form = 'dynamic'\nactivations = { dtype = 'u8' }", Target::Any, "`activations` is of activations"),
            ("form = 'dynamic'\nports = 'int'", Target::Any, "`ports` is of activations"),
            ("recurrent = 'decompose'", Target::Tract, "`recurrent` is of activations"),
            ("form = 'dynamic'\nrecurrent = 'decompose'", Target::Any, "`recurrent` is of activations"),
            ("to = 'fp16'\nrecurrent = 'decompose'", Target::Any, "`recurrent` is of integers"),
            (
                "form = 'dynamic'\noperators = ['Add']",
                Target::Any,
                "`operators` has `Add`; the form `dynamic` has Conv",
            ),
            ("form = 'dynamic'\noperators = ['LSTM']", Target::Tract, "`operators` has LSTM, whose form on integers"),
            ("form = 'dynamic'\nweights = { dtype = 'u8' }", Target::Any, "`weights.symmetric` is false by channel"),
            ("form = 'dynamic'\nweights = { dtype = 'i16' }", Target::Any, "`weights.dtype` should be i8 or u8"),
            ("form = 'matmulnbits'", Target::Any, "`form` is matmulnbits, an operator of onnxruntime's alone"),
            ("accuracy_level = 4", Target::Any, "`accuracy_level` is of the form matmulnbits"),
            ("form = 'matmulnbits'\naccuracy_level = 2", Target::Onnxruntime, "`accuracy_level` should be 0, 1 or 4"),
            ("form = 'matmulnbits'\noperators = ['Gemm']", Target::Onnxruntime, "`operators` is of activations"),
            (
                "form = 'matmulnbits'\nweights = { granularity = { block = 48 } }",
                Target::Onnxruntime,
                "`weights.granularity` should be blocks of 16",
            ),
        ] {
            let error = choose(text, target).expect_err(text);
            assert!(error.starts_with(expected), "{text}: {error}");
        }
        assert!(choose("to = 'fp16'\nform = 'whole'", Target::Any).is_ok());
        assert!(choose("operators = ['Softmax', 'Conv']", Target::Onnxruntime).is_ok());
    }
}
