//! What a user says of a quantization, and what is right where nothing is said.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::QuantizeError;
use super::calibrator::Calibrator;
use super::half::HalfType;
use super::scheme::{Activations, Integer, Override, Scheme, Weights};
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

/// What a user says of a quantization. What is left out is chosen for who will run the file.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QuantizeOptions {
    /// To what.
    pub to: To,
    /// How narrow numbers stand in the file.
    pub form: Option<Form>,
    /// How activations are quantized.
    pub activations: Option<Activations>,
    /// How weights are quantized.
    pub weights: Option<Weights>,
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
    /// By what ranges of activations are chosen.
    pub calibrator: Option<Calibrator>,
    /// Samples to calibrate with; 512 where it is not given.
    pub samples: Option<usize>,
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
    /// Why, a sentence a decision.
    pub reasons: Vec<String>,
}

impl QuantizeOptions {
    /// Whether the form is one of the type's.
    ///
    /// # Errors
    /// When it is another type's.
    pub fn check(&self) -> Result<(), QuantizeError> {
        let fits = match (self.to, self.form) {
            (_, None | Some(Form::Weights)) => true,
            (To::Int8, Some(form)) => form != Form::Whole,
            (To::Int4, Some(_)) => false,
            (To::Fp16 | To::Bf16, Some(form)) => form == Form::Whole,
        };
        let problem =
            || "should be qdq, qoperator or weights for int8, weights for int4, weights or whole for fp16".to_string();
        if fits { Ok(()) } else { Err(QuantizeError::Option { option: "form", problem: problem() }) }
    }

    /// What is done to a network of this structure for who will run it.
    pub fn choose(&self, structure: &Structure, target: Target) -> Choice {
        let mut reasons = Vec::new();
        let form = self.form(target, &mut reasons);
        let mut scheme = self.scheme(structure, target, form, &mut reasons);
        if let Some(activations) = self.activations {
            scheme.activations = activations;
        }
        if let Some(weights) = self.weights {
            scheme.weights = weights;
        }
        if let Some(operators) = &self.operators {
            scheme.operators.clone_from(operators);
        }
        if let Some(products) = self.activation_products {
            scheme.activation_products = products;
        }
        scheme.exclude.extend(self.exclude.iter().cloned());
        scheme.overrides.extend(self.overrides.iter().cloned());
        scheme.one_scale.extend(self.one_scale.iter().cloned());
        Choice { form, scheme, calibrator: self.calibrator.unwrap_or_default(), reasons }
    }

    fn form(&self, target: Target, reasons: &mut Vec<String>) -> Form {
        if let Some(form) = self.form {
            return form;
        }
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
        let has_attention = !structure.attentions.is_empty();
        let mut scheme = if has_attention { Scheme::of_products() } else { Scheme::default() };
        if form == Form::Weights {
            if self.to == To::Int4 {
                scheme.weights.dtype = Integer::I4;
            }
            return scheme;
        }
        if has_attention {
            let reason =
                "products with weights alone: what is between them in a transformer has outliers that cost accuracy";
            reasons.push(reason.to_string());
        }
        match target {
            Target::Onnxruntime => reasons.push(
                "u8 activations and i8 weights by channel: onnxruntime's quickest integer kernels on x86".to_string(),
            ),
            Target::Tract => {}
            Target::Any => {
                scheme.weights.bits = Some(7);
                let reason = "weights of 7 bits: nothing overflows on x86 without VNNI either; name a runtime for 8";
                reasons.push(reason.to_string());
            }
        }
        scheme
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_follows_who_runs_the_file() {
        let choose = |text: &str, target| {
            toml::from_str::<QuantizeOptions>(text).expect("options").choose(&Structure::default(), target)
        };
        let ort = choose("", Target::Onnxruntime);
        assert_eq!((ort.form, ort.scheme), (Form::Qdq, Scheme::default()));
        assert_eq!(choose("", Target::Tract).form, Form::Weights);
        assert_eq!(choose("", Target::Any).scheme.weights.bits, Some(7));
        assert_eq!(choose("weights = { bits = 8 }", Target::Any).scheme.weights.bits, Some(8));
        let four = choose("to = 'int4'", Target::Onnxruntime);
        assert_eq!((four.form, four.scheme.weights.dtype), (Form::Weights, Integer::I4));
        for (text, fits) in [
            ("to = 'int4'\nform = 'qdq'", false),
            ("to = 'fp16'\nform = 'qoperator'", false),
            ("to = 'fp16'\nform = 'whole'", true),
            ("form = 'whole'", false),
            ("form = 'qoperator'", true),
        ] {
            assert_eq!(toml::from_str::<QuantizeOptions>(text).expect("options").check().is_ok(), fits, "{text}");
        }
        assert_eq!(choose("exclude = ['a']", Target::Any).scheme.exclude, ["a"]);
    }
}
