//! The operators: one table, from which the closed enum [`Op`], reading, writing, showing and arity follow.
//!
//! Every operator stands in its canonical form, that of opset [`CANONICAL_OPSET`]: what older versions held as
//! attributes and newer ones take as inputs is an input here. The way between versions is the room `onnx`'s affair.
//! What the table does not have is [`Op::Opaque`] and kept whole.

use super::Graph;
use super::attribute::{Attribute, AttributeError, AttributeValue, Unread, attribute_enum};
use super::tensor::{DType, Tensor};

/// The version of the default operator set whose forms [`Op`] holds.
pub const CANONICAL_OPSET: u32 = 28;

/// The domain of onnxruntime's contributed operators.
pub const MICROSOFT: &str = "com.microsoft";

attribute_enum! {
    /// How a convolution or a pooling chooses its padding.
    AutoPad { NotSet = "NOTSET", SameUpper = "SAME_UPPER", SameLower = "SAME_LOWER", Valid = "VALID" }
    /// The order in which [`Op::DepthToSpace`] takes channels apart.
    DepthMode { Dcr = "DCR", Crd = "CRD" }
    /// The direction in which a recurrent operator walks the sequence.
    Direction { Forward = "forward", Reverse = "reverse", Bidirectional = "bidirectional" }
    /// Whether [`Op::Gelu`] is exact or approximated with tanh.
    Approximate { None = "none", Tanh = "tanh" }
    /// What [`Op::Pad`] fills with.
    PadMode { Constant = "constant", Reflect = "reflect", Edge = "edge", Wrap = "wrap" }
    /// How a scatter combines updates with what is there.
    Reduction { None = "none", Add = "add", Mul = "mul", Max = "max", Min = "min" }
    /// The interpolation of [`Op::Resize`].
    ResizeMode { Nearest = "nearest", Linear = "linear", Cubic = "cubic" }
    /// How [`Op::Resize`] maps a coordinate of the output to one of the input.
    CoordinateTransformation {
        HalfPixel = "half_pixel", HalfPixelSymmetric = "half_pixel_symmetric",
        PytorchHalfPixel = "pytorch_half_pixel", AlignCorners = "align_corners", Asymmetric = "asymmetric",
        TfHalfPixelForNn = "tf_half_pixel_for_nn", TfCropAndResize = "tf_crop_and_resize",
    }
    /// How [`Op::Resize`] rounds a coordinate in mode `nearest`.
    NearestMode {
        RoundPreferFloor = "round_prefer_floor", RoundPreferCeil = "round_prefer_ceil", Floor = "floor", Ceil = "ceil",
    }
    /// How [`Op::Resize`] reads `sizes` that would change the aspect ratio.
    AspectRatioPolicy { Stretch = "stretch", NotLarger = "not_larger", NotSmaller = "not_smaller" }
    /// How a cast to `f8e8m0` rounds.
    RoundMode { Up = "up", Down = "down", Nearest = "nearest" }
}

/// A group of attributes as typed fields.
trait AttributeSet: Sized {
    fn read(unread: &mut Unread<'_>) -> Result<Self, AttributeError>;
    fn write(&self) -> Vec<(String, Attribute)>;
    fn graphs(&self) -> Vec<&Graph>;
    fn graphs_mut(&mut self) -> Vec<&mut Graph>;
}

macro_rules! onnx_name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $onnx:literal) => {
        $onnx
    };
}

macro_rules! default_or_missing {
    ($name:expr) => {
        return Err(AttributeError::Missing($name))
    };
    ($name:expr, $default:expr) => {
        $default
    };
}

/// Whether a value can stand for itself in a file: an empty list where one is required is as good as none.
macro_rules! is_something {
    ($value:expr, $type:ty) => {
        <$type as AttributeValue>::write($value).is_some()
    };
    ($value:expr, $type:ty, $default:expr) => {
        true
    };
}

macro_rules! is_default {
    ($value:expr, $type:ty) => {
        false
    };
    ($value:expr, $type:ty, $default:expr) => {{
        let default: $type = $default;
        *$value == default
    }};
}

macro_rules! default_impl {
    ($name:ident { $($field:ident = $default:expr),* $(,)? }) => {
        impl Default for $name {
            fn default() -> Self {
                $name { $($field: $default),* }
            }
        }
    };
    ($name:ident { $($other:tt)* }) => {};
}

/// Attribute sets: a field's default is ONNX's, a field without one is required. An attribute that holds its default is
/// not written.
macro_rules! attribute_sets {
    ($($(#[$doc:meta])* $name:ident { $($field:ident $($onnx:literal)? : $type:ty $(= $default:expr)?),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $(#[doc = concat!("`", onnx_name!($field $($onnx)?), "`")] pub $field: $type),*
        }

        impl AttributeSet for $name {
            fn read(unread: &mut Unread<'_>) -> Result<Self, AttributeError> {
                Ok($name {$(
                    $field: match unread.take(onnx_name!($field $($onnx)?))? {
                        Some(value) if is_something!(&value, $type $(, $default)?) => value,
                        Some(_) | None => default_or_missing!(onnx_name!($field $($onnx)?) $(, $default)?),
                    }
                ),*})
            }

            fn write(&self) -> Vec<(String, Attribute)> {
                let mut written = Vec::new();
                $(if !is_default!(&self.$field, $type $(, $default)?) {
                    written.extend(self.$field.write().map(|a| (onnx_name!($field $($onnx)?).to_string(), a)));
                })*
                written
            }

            fn graphs(&self) -> Vec<&Graph> {
                #[allow(unused_mut)]
                let mut graphs = Vec::new();
                $(graphs.extend(self.$field.graph());)*
                graphs
            }

            fn graphs_mut(&mut self) -> Vec<&mut Graph> {
                let mut graphs = Vec::new();
                $(graphs.extend(self.$field.graph_mut());)*
                graphs
            }
        }

        default_impl!($name { $($field $(= $default)?),* });
    )*};
}

attribute_sets! {
    /// Of [`Op::ArgMax`] and [`Op::ArgMin`].
    ArgMax { axis: i64 = 0, keepdims: bool = true, select_last_index: bool = false }
    /// Of [`Op::Attention`].
    Attention {
        is_causal: bool = false, q_num_heads: Option<i64> = None, kv_num_heads: Option<i64> = None,
        scale: Option<f32> = None, softcap: f32 = 0.0, softmax_precision: Option<DType> = None,
        qk_matmul_output_mode: i64 = 0, left_window_size: i64 = -1, right_window_size: i64 = -1,
    }
    /// Of [`Op::AveragePool`].
    AveragePool {
        auto_pad: AutoPad = AutoPad::NotSet, ceil_mode: bool = false, count_include_pad: bool = false,
        dilations: Vec<i64> = vec![], kernel_shape: Vec<i64>, pads: Vec<i64> = vec![], strides: Vec<i64> = vec![],
    }
    /// Of [`Op::BatchNormalization`].
    BatchNormalization { epsilon: f32 = 1e-5, momentum: f32 = 0.9, training_mode: bool = false }
    /// Of [`Op::Cast`].
    Cast { to: DType, saturate: bool = true, round_mode: RoundMode = RoundMode::Up }
    /// Of [`Op::CastLike`].
    CastLike { saturate: bool = true, round_mode: RoundMode = RoundMode::Up }
    /// Of [`Op::Celu`] and [`Op::Elu`] and [`Op::ThresholdedRelu`] and [`Op::Swish`].
    Alpha { alpha: f32 = 1.0 }
    /// Of [`Op::Concat`].
    Concat { axis: i64 }
    /// Of [`Op::Constant`]; the lists and scalars of the other attributes come in as tensors.
    Constant { value: Tensor }
    /// Of [`Op::ConstantOfShape`]; `value` has one element, see [`ConstantOfShape::element`].
    ConstantOfShape { value: Option<Tensor> = None }
    /// Of [`Op::Conv`], [`Op::ConvInteger`] and [`Op::QLinearConv`]. An empty list stands for ONNX's default: kernel from
    /// the weight, no padding, ones.
    Conv {
        auto_pad: AutoPad = AutoPad::NotSet, dilations: Vec<i64> = vec![], group: i64 = 1,
        kernel_shape: Vec<i64> = vec![], pads: Vec<i64> = vec![], strides: Vec<i64> = vec![],
    }
    /// Of [`Op::ConvTranspose`].
    ConvTranspose {
        auto_pad: AutoPad = AutoPad::NotSet, dilations: Vec<i64> = vec![], group: i64 = 1,
        kernel_shape: Vec<i64> = vec![], output_padding: Vec<i64> = vec![], output_shape: Vec<i64> = vec![],
        pads: Vec<i64> = vec![], strides: Vec<i64> = vec![],
    }
    /// Of [`Op::CumSum`].
    CumSum { exclusive: bool = false, reverse: bool = false }
    /// Of [`Op::DepthToSpace`] and [`Op::SpaceToDepth`].
    DepthToSpace { blocksize: i64, mode: DepthMode = DepthMode::Dcr }
    /// Of [`Op::DequantizeLinear`].
    DequantizeLinear { axis: i64 = 1, block_size: i64 = 0, output_dtype: Option<DType> = None }
    /// Of [`Op::Dropout`].
    Dropout { seed: Option<i64> = None }
    /// Of [`Op::DynamicQuantizeLSTM`].
    DynamicQuantizeLSTM {
        activation_alpha: Vec<f32> = vec![], activation_beta: Vec<f32> = vec![], activations: Vec<String> = vec![],
        clip: Option<f32> = None, direction: Direction = Direction::Forward, hidden_size: Option<i64> = None,
        input_forget: bool = false,
    }
    /// Of [`Op::Einsum`].
    Einsum { equation: String }
    /// Of [`Op::Flatten`].
    Flatten { axis: i64 = 1 }
    /// Of [`Op::GRU`].
    GRU {
        activation_alpha: Vec<f32> = vec![], activation_beta: Vec<f32> = vec![], activations: Vec<String> = vec![],
        clip: Option<f32> = None, direction: Direction = Direction::Forward, hidden_size: Option<i64> = None,
        layout: i64 = 0, linear_before_reset: bool = false,
    }
    /// Of [`Op::Gather`] and [`Op::GatherElements`].
    Gather { axis: i64 = 0 }
    /// Of [`Op::GatherND`].
    GatherND { batch_dims: i64 = 0 }
    /// Of [`Op::Gelu`].
    Gelu { approximate: Approximate = Approximate::None }
    /// Of [`Op::Gemm`].
    Gemm { alpha: f32 = 1.0, beta: f32 = 1.0, trans_a "transA": bool = false, trans_b "transB": bool = false }
    /// Of [`Op::GroupNormalization`].
    GroupNormalization { epsilon: f32 = 1e-5, num_groups: i64, stash_type: i64 = 1 }
    /// Of [`Op::HardSigmoid`].
    HardSigmoid { alpha: f32 = 0.2, beta: f32 = 0.5 }
    /// Of [`Op::If`].
    If { then_branch: Graph, else_branch: Graph }
    /// Of [`Op::InstanceNormalization`].
    InstanceNormalization { epsilon: f32 = 1e-5 }
    /// Of [`Op::IsInf`].
    IsInf { detect_negative: bool = true, detect_positive: bool = true }
    /// Of [`Op::LRN`].
    LRN { alpha: f32 = 1e-4, beta: f32 = 0.75, bias: f32 = 1.0, size: i64 }
    /// Of [`Op::LSTM`].
    LSTM {
        activation_alpha: Vec<f32> = vec![], activation_beta: Vec<f32> = vec![], activations: Vec<String> = vec![],
        clip: Option<f32> = None, direction: Direction = Direction::Forward, hidden_size: Option<i64> = None,
        input_forget: bool = false, layout: i64 = 0,
    }
    /// Of [`Op::LayerNormalization`] and [`Op::RMSNormalization`].
    LayerNormalization { axis: i64 = -1, epsilon: f32 = 1e-5, stash_type: i64 = 1 }
    /// Of [`Op::LeakyRelu`].
    LeakyRelu { alpha: f32 = 0.01 }
    /// Of [`Op::Loop`].
    Loop { body: Graph }
    /// Of [`Op::LpNormalization`].
    LpNormalization { axis: i64 = -1, p: i64 = 2 }
    /// Of [`Op::MatMulNBits`].
    MatMulNBits {
        k "K": i64, n "N": i64, bits: i64 = 4, block_size: i64, accuracy_level: i64 = 0,
        weight_prepacked: i64 = 0,
    }
    /// Of [`Op::MaxPool`].
    MaxPool {
        auto_pad: AutoPad = AutoPad::NotSet, ceil_mode: bool = false, dilations: Vec<i64> = vec![],
        kernel_shape: Vec<i64>, pads: Vec<i64> = vec![], storage_order: i64 = 0, strides: Vec<i64> = vec![],
    }
    /// Of [`Op::Mod`].
    Mod { fmod: bool = false }
    /// Of [`Op::OneHot`].
    OneHot { axis: i64 = -1 }
    /// Of [`Op::Pad`].
    Pad { mode: PadMode = PadMode::Constant }
    /// Of [`Op::QGemm`].
    QGemm { alpha: f32 = 1.0, trans_a "transA": bool = false, trans_b "transB": bool = false }
    /// Of [`Op::QLinearAveragePool`].
    QLinearAveragePool {
        auto_pad: AutoPad = AutoPad::NotSet, ceil_mode: bool = false, channels_last: bool = false,
        count_include_pad: bool = false, kernel_shape: Vec<i64>, pads: Vec<i64> = vec![], strides: Vec<i64> = vec![],
    }
    /// Of [`Op::QLinearConcat`].
    QLinearConcat { axis: i64 }
    /// Of [`Op::QLinearGlobalAveragePool`].
    QLinearGlobalAveragePool { channels_last: bool = false }
    /// Of [`Op::QLinearLeakyRelu`].
    QLinearLeakyRelu { alpha: f32 = 0.01 }
    /// Of [`Op::QLinearSoftmax`]; `opset` is that of the Softmax it replaces, which decides what `axis` means.
    QLinearSoftmax { axis: i64 = -1, opset: i64 }
    /// Of [`Op::QuantizeLinear`].
    QuantizeLinear {
        axis: i64 = 1, block_size: i64 = 0, output_dtype: Option<DType> = None, precision: Option<DType> = None,
        saturate: bool = true,
    }
    /// Of [`Op::RNN`].
    RNN {
        activation_alpha: Vec<f32> = vec![], activation_beta: Vec<f32> = vec![], activations: Vec<String> = vec![],
        clip: Option<f32> = None, direction: Direction = Direction::Forward, hidden_size: Option<i64> = None,
        layout: i64 = 0,
    }
    /// Of [`Op::Range`].
    Range { stash_type: i64 = 1 }
    /// Of the reductions.
    Reduce { keepdims: bool = true, noop_with_empty_axes: bool = false }
    /// Of [`Op::Reshape`].
    Reshape { allowzero: bool = false }
    /// Of [`Op::Resize`].
    Resize {
        antialias: bool = false, axes: Vec<i64> = vec![],
        coordinate_transformation_mode: CoordinateTransformation = CoordinateTransformation::HalfPixel,
        cubic_coeff_a: f32 = -0.75, exclude_outside: bool = false, extrapolation_value: f32 = 0.0,
        keep_aspect_ratio_policy: AspectRatioPolicy = AspectRatioPolicy::Stretch,
        mode: ResizeMode = ResizeMode::Nearest, nearest_mode: NearestMode = NearestMode::RoundPreferFloor,
    }
    /// Of [`Op::Scan`].
    Scan {
        body: Graph, num_scan_inputs: i64, scan_input_axes: Vec<i64> = vec![],
        scan_input_directions: Vec<i64> = vec![], scan_output_axes: Vec<i64> = vec![],
        scan_output_directions: Vec<i64> = vec![],
    }
    /// Of [`Op::ScatterElements`].
    ScatterElements { axis: i64 = 0, reduction: Reduction = Reduction::None }
    /// Of [`Op::ScatterND`].
    ScatterND { reduction: Reduction = Reduction::None }
    /// Of [`Op::Selu`].
    Selu { alpha: f32 = 1.673_263_2, gamma: f32 = 1.050_701 }
    /// Of [`Op::Shape`].
    Shape { start: i64 = 0, end: Option<i64> = None }
    /// Of [`Op::SkipLayerNormalization`].
    SkipLayerNormalization { epsilon: f32 = 1e-12 }
    /// Of [`Op::Softmax`], [`Op::LogSoftmax`] and [`Op::Hardmax`].
    Softmax { axis: i64 = -1 }
    /// Of [`Op::Split`].
    Split { axis: i64 = 0, num_outputs: Option<i64> = None }
    /// Of [`Op::TopK`].
    TopK { axis: i64 = -1, largest: bool = true, sorted: bool = true }
    /// Of [`Op::Transpose`]; empty: reversed.
    Transpose { perm: Vec<i64> = vec![] }
    /// Of [`Op::Trilu`].
    Trilu { upper: bool = true }
}

impl ConstantOfShape {
    /// The tensor of one element that fills the output: zero of type `f32` where the node does not say. What a file says is
    /// kept apart from what it leaves out, since tract takes an absent value for one of another type.
    pub fn element(&self) -> Tensor {
        self.value.clone().unwrap_or_else(|| Tensor::vector(vec![0f32]))
    }
}

/// An operator that the table does not have, with everything that the file said of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Opaque {
    /// The operator set that it is from; empty for ONNX's own.
    pub domain: String,
    /// Its name there.
    pub op_type: String,
    /// Its attributes, in the order of the file.
    pub attributes: Vec<(String, Attribute)>,
}

macro_rules! domain {
    (onnx) => {
        ""
    };
    (microsoft) => {
        "com.microsoft"
    };
}

macro_rules! of_set {
    ($method:ident) => {
        Vec::new()
    };
    ($method:ident, $set:ident $value:ident) => {
        $set::$method($value)
    };
}

macro_rules! operators {
    ($($domain:tt { $($name:ident $(($set:ident))? $since:literal $inputs:literal $outputs:literal;)* })*) => {
        /// What a node computes, with its attributes, in the form of opset [`CANONICAL_OPSET`].
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)] // each variant is the ONNX operator of that name
        pub enum Op {
            $($($name $(($set))?,)*)*
            /// Any other operator, kept whole.
            Opaque(Opaque),
        }

        impl Op {
            /// The operator's name in its domain.
            pub fn name(&self) -> &str {
                match self {
                    $($(Op::$name { .. } => stringify!($name),)*)*
                    Op::Opaque(opaque) => &opaque.op_type,
                }
            }

            /// The operator set that it is from; empty for ONNX's own.
            pub fn domain(&self) -> &str {
                match self {
                    $($(Op::$name { .. } => domain!($domain),)*)*
                    Op::Opaque(opaque) => &opaque.domain,
                }
            }

            /// The first version of its domain that has an operator of this name; none for an opaque one.
            pub fn since(&self) -> Option<u32> {
                match self {
                    $($(Op::$name { .. } => Some($since),)*)*
                    Op::Opaque(_) => None,
                }
            }

            /// Its inputs and outputs; none for an opaque one.
            pub fn signature(&self) -> Option<Signature> {
                match self {
                    $($(Op::$name { .. } => Some(Signature { inputs: $inputs, outputs: $outputs }),)*)*
                    Op::Opaque(_) => None,
                }
            }

            /// Its attributes as a file holds them, those that have their default left out.
            pub fn attributes(&self) -> Vec<(String, Attribute)> {
                match self {
                    $($(Op::$name $((set @ $set { .. }))? => of_set!(write $(, $set set)?),)*)*
                    Op::Opaque(opaque) => opaque.attributes.clone(),
                }
            }

            /// The graphs inside, branches and bodies, those of an opaque operator too.
            pub fn bodies(&self) -> Vec<&Graph> {
                match self {
                    $($(Op::$name $((set @ $set { .. }))? => of_set!(graphs $(, $set set)?),)*)*
                    Op::Opaque(opaque) => opaque.attributes.iter().flat_map(|(_, a)| a.graphs()).collect(),
                }
            }

            /// The graphs inside, to change them.
            pub fn bodies_mut(&mut self) -> Vec<&mut Graph> {
                match self {
                    $($(Op::$name $((set @ $set { .. }))? => of_set!(graphs_mut $(, $set set)?),)*)*
                    Op::Opaque(opaque) => opaque.attributes.iter_mut().flat_map(|(_, a)| a.graphs_mut()).collect(),
                }
            }

            fn read_known(domain: &str, name: &str, unread: &mut Unread<'_>) -> Result<Option<Op>, AttributeError> {
                Ok(Some(match (domain, name) {
                    $($((domain!($domain), stringify!($name)) => Op::$name $(($set::read(unread)?))?,)*)*
                    _ => return Ok(None),
                }))
            }
        }

        /// Every operator of the table: (domain, name, first version, signature).
        pub const OPERATORS: &[(&str, &str, u32, Signature)] = &[
            $($((domain!($domain), stringify!($name), $since, Signature { inputs: $inputs, outputs: $outputs }),)*)*
        ];
    };
}

/// The names of an operator's inputs and outputs: `B?` may be left out, `data*` stands for any number, `data+` for
/// one at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    inputs: &'static str,
    outputs: &'static str,
}

/// How often a formal input or output occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occurs {
    /// Once.
    Once,
    /// Once or not at all.
    Optional,
    /// Any number of times, from this many on; the last formal of a signature.
    Many(usize),
}

impl Signature {
    /// The formal inputs, in order.
    pub fn inputs(self) -> impl Iterator<Item = (&'static str, Occurs)> {
        self.inputs.split_whitespace().map(formal)
    }

    /// The formal outputs, in order.
    pub fn outputs(self) -> impl Iterator<Item = (&'static str, Occurs)> {
        self.outputs.split_whitespace().map(formal)
    }

    /// The position of the input with this name.
    pub fn input(self, name: &str) -> Option<usize> {
        self.inputs().position(|(formal, _)| formal == name)
    }
}

fn formal(text: &'static str) -> (&'static str, Occurs) {
    match text.as_bytes().last() {
        Some(b'?') => (&text[..text.len() - 1], Occurs::Optional),
        Some(b'*') => (&text[..text.len() - 1], Occurs::Many(0)),
        Some(b'+') => (&text[..text.len() - 1], Occurs::Many(1)),
        _ => (text, Occurs::Once),
    }
}

impl Op {
    /// The operator of this name with these attributes, which are those of its canonical form. One that the table does
    /// not have, or that carries an attribute the table does not know, is [`Op::Opaque`].
    ///
    /// # Errors
    /// When a required attribute is missing, or one has another type or a value outside the operator's definition.
    pub fn read(domain: &str, name: &str, attributes: Vec<(String, Attribute)>) -> Result<Op, AttributeError> {
        let mut unread = Unread::new(&attributes);
        match Op::read_known(domain, name, &mut unread)? {
            Some(op) if unread.is_empty() => Ok(op),
            Some(_) | None => {
                Ok(Op::Opaque(Opaque { domain: domain.to_string(), op_type: name.to_string(), attributes }))
            }
        }
    }
}

operators! {
    onnx {
        Abs 1 "X" "Y";
        Acos 7 "input" "output";
        Acosh 9 "input" "output";
        Add 1 "A B" "C";
        And 1 "A B" "C";
        ArgMax(ArgMax) 1 "data" "reduced";
        ArgMin(ArgMax) 1 "data" "reduced";
        Asin 7 "input" "output";
        Asinh 9 "input" "output";
        Atan 7 "input" "output";
        Atanh 9 "input" "output";
        Attention(Attention) 23 "Q K V attn_mask? past_key? past_value? nonpad_kv_seqlen?" "Y present_key? present_value? qk_matmul_output?";
        AveragePool(AveragePool) 1 "X" "Y";
        BatchNormalization(BatchNormalization) 1 "X scale B input_mean input_var" "Y running_mean? running_var?";
        Cast(Cast) 1 "input" "output";
        CastLike(CastLike) 15 "input target_type" "output";
        Ceil 1 "X" "Y";
        Celu(Alpha) 12 "X" "Y";
        Clip 1 "input min? max?" "output";
        Concat(Concat) 1 "inputs+" "concat_result";
        Constant(Constant) 1 "" "output";
        ConstantOfShape(ConstantOfShape) 9 "input" "output";
        Conv(Conv) 1 "X W B?" "Y";
        ConvInteger(Conv) 10 "x w x_zero_point? w_zero_point?" "y";
        ConvTranspose(ConvTranspose) 1 "X W B?" "Y";
        Cos 7 "input" "output";
        Cosh 9 "input" "output";
        CumSum(CumSum) 11 "x axis" "y";
        DepthToSpace(DepthToSpace) 1 "input" "output";
        DequantizeLinear(DequantizeLinear) 10 "x x_scale x_zero_point?" "y";
        Div 1 "A B" "C";
        Dropout(Dropout) 1 "data ratio? training_mode?" "output mask?";
        DynamicQuantizeLinear 11 "x" "y y_scale y_zero_point";
        Einsum(Einsum) 12 "Inputs+" "Output";
        Elu(Alpha) 1 "X" "Y";
        Equal 1 "A B" "C";
        Erf 9 "input" "output";
        Exp 1 "input" "output";
        Expand 8 "input shape" "output";
        Flatten(Flatten) 1 "input" "output";
        Floor 1 "X" "Y";
        GRU(GRU) 1 "X W R B? sequence_lens? initial_h?" "Y? Y_h?";
        Gather(Gather) 1 "data indices" "output";
        GatherElements(Gather) 11 "data indices" "output";
        GatherND(GatherND) 11 "data indices" "output";
        Gelu(Gelu) 20 "X" "Y";
        Gemm(Gemm) 1 "A B C?" "Y";
        GlobalAveragePool 1 "X" "Y";
        GlobalMaxPool 1 "X" "Y";
        Greater 1 "A B" "C";
        GreaterOrEqual 12 "A B" "C";
        GroupNormalization(GroupNormalization) 18 "X scale bias" "Y";
        HardSigmoid(HardSigmoid) 1 "X" "Y";
        HardSwish 14 "X" "Y";
        Hardmax(Softmax) 1 "input" "output";
        Identity 1 "input" "output";
        If(If) 1 "cond" "outputs*";
        InstanceNormalization(InstanceNormalization) 1 "input scale B" "output";
        IsInf(IsInf) 10 "X" "Y";
        IsNaN 9 "X" "Y";
        LRN(LRN) 1 "X" "Y";
        LSTM(LSTM) 1 "X W R B? sequence_lens? initial_h? initial_c? P?" "Y? Y_h? Y_c?";
        LayerNormalization(LayerNormalization) 17 "X Scale B?" "Y Mean? InvStdDev?";
        LeakyRelu(LeakyRelu) 1 "X" "Y";
        Less 1 "A B" "C";
        LessOrEqual 12 "A B" "C";
        Log 1 "input" "output";
        LogSoftmax(Softmax) 1 "input" "output";
        Loop(Loop) 1 "M? cond? v_initial*" "v_final_and_scan_outputs*";
        LpNormalization(LpNormalization) 1 "input" "output";
        MatMul 1 "A B" "Y";
        MatMulInteger 10 "A B a_zero_point? b_zero_point?" "Y";
        Max 1 "data_0+" "max";
        MaxPool(MaxPool) 1 "X" "Y Indices?";
        Mean 1 "data_0+" "mean";
        Min 1 "data_0+" "min";
        Mish 18 "X" "Y";
        Mod(Mod) 10 "A B" "C";
        Mul 1 "A B" "C";
        Neg 1 "X" "Y";
        NonZero 9 "X" "Y";
        Not 1 "X" "Y";
        OneHot(OneHot) 9 "indices depth values" "output";
        Or 1 "A B" "C";
        PRelu 1 "X slope" "Y";
        Pad(Pad) 1 "data pads constant_value? axes?" "output";
        Pow 1 "X Y" "Z";
        QLinearConv(Conv) 10 "x x_scale x_zero_point w w_scale w_zero_point y_scale y_zero_point B?" "y";
        QLinearMatMul 10 "a a_scale a_zero_point b b_scale b_zero_point y_scale y_zero_point" "y";
        QuantizeLinear(QuantizeLinear) 10 "x y_scale y_zero_point?" "y";
        RMSNormalization(LayerNormalization) 23 "X scale" "Y";
        RNN(RNN) 1 "X W R B? sequence_lens? initial_h?" "Y? Y_h?";
        Range(Range) 11 "start limit delta" "output";
        Reciprocal 1 "X" "Y";
        ReduceL1(Reduce) 1 "data axes?" "reduced";
        ReduceL2(Reduce) 1 "data axes?" "reduced";
        ReduceLogSum(Reduce) 1 "data axes?" "reduced";
        ReduceLogSumExp(Reduce) 1 "data axes?" "reduced";
        ReduceMax(Reduce) 1 "data axes?" "reduced";
        ReduceMean(Reduce) 1 "data axes?" "reduced";
        ReduceMin(Reduce) 1 "data axes?" "reduced";
        ReduceProd(Reduce) 1 "data axes?" "reduced";
        ReduceSum(Reduce) 1 "data axes?" "reduced";
        ReduceSumSquare(Reduce) 1 "data axes?" "reduced";
        Relu 1 "X" "Y";
        Reshape(Reshape) 1 "data shape" "reshaped";
        Resize(Resize) 10 "X roi? scales? sizes?" "Y";
        Round 11 "X" "Y";
        Scan(Scan) 8 "initial_state_and_scan_inputs+" "final_state_and_scan_outputs*";
        ScatterElements(ScatterElements) 11 "data indices updates" "output";
        ScatterND(ScatterND) 11 "data indices updates" "output";
        Selu(Selu) 1 "X" "Y";
        Shape(Shape) 1 "data" "shape";
        Sigmoid 1 "X" "Y";
        Sign 9 "input" "output";
        Sin 7 "input" "output";
        Sinh 9 "input" "output";
        Size 1 "data" "size";
        Slice 1 "data starts ends axes? steps?" "output";
        Softmax(Softmax) 1 "input" "output";
        Softplus 1 "X" "Y";
        Softsign 1 "input" "output";
        SpaceToDepth(DepthToSpace) 1 "input" "output";
        Split(Split) 1 "input split?" "outputs+";
        Sqrt 1 "X" "Y";
        Squeeze 1 "data axes?" "squeezed";
        Sub 1 "A B" "C";
        Sum 1 "data_0+" "sum";
        Swish(Alpha) 24 "X" "Y";
        Tan 7 "input" "output";
        Tanh 1 "input" "output";
        ThresholdedRelu(Alpha) 10 "X" "Y";
        Tile 1 "input repeats" "output";
        TopK(TopK) 1 "X K" "Values Indices";
        Transpose(Transpose) 1 "data" "transposed";
        Trilu(Trilu) 14 "input k?" "output";
        Unsqueeze 1 "data axes" "expanded";
        Where 9 "condition X Y" "output";
        Xor 1 "A B" "C";
    }
    microsoft {
        BiasGelu 1 "A B" "C";
        DynamicQuantizeLSTM(DynamicQuantizeLSTM) 1 "X W R B? sequence_lens? initial_h? initial_c? P? W_scale W_zero_point R_scale R_zero_point" "Y? Y_h? Y_c?";
        FastGelu 1 "X bias?" "Y";
        MatMulNBits(MatMulNBits) 1 "A B scales zero_points? g_idx? bias?" "Y";
        QGemm(QGemm) 1 "A a_scale a_zero_point B b_scale b_zero_point C? y_scale? y_zero_point?" "Y";
        QLinearAdd 1 "A A_scale A_zero_point? B B_scale B_zero_point? C_scale C_zero_point?" "C";
        QLinearAveragePool(QLinearAveragePool) 1 "X x_scale x_zero_point? y_scale y_zero_point?" "Y";
        QLinearConcat(QLinearConcat) 1 "Y_scale Y_zero_point inputs+" "Y";
        QLinearGlobalAveragePool(QLinearGlobalAveragePool) 1 "X x_scale x_zero_point y_scale y_zero_point" "Y";
        QLinearLeakyRelu(QLinearLeakyRelu) 1 "X X_scale X_zero_point? Y_scale Y_zero_point?" "Y";
        QLinearMul 1 "A A_scale A_zero_point? B B_scale B_zero_point? C_scale C_zero_point?" "C";
        QLinearSigmoid 1 "X X_scale X_zero_point? Y_scale Y_zero_point?" "Y";
        QLinearSoftmax(QLinearSoftmax) 1 "X X_scale x_zero_point? y_scale y_zero_point" "Y";
        SkipLayerNormalization(SkipLayerNormalization) 1 "input skip gamma beta? bias?" "output mean? inv_std_var? input_skip_bias_sum?";
    }
}
