//! tract: pure Rust, always there. A plan is made for concrete shapes only; symbolic dimensions are bound from the shapes
//! of the inputs of a run, and the plans of the last few sets of shapes are kept.

mod explain;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use half::f16;
use tract_linalg::multithread::{Executor, multithread_tract_scope};
use tract_onnx::pb;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as DimValue;
use tract_onnx::prelude as tract;
use tract_onnx::prelude::{Framework as _, InferenceModelExt as _};
use tract_onnx::tract_hir::infer::Factoid as _;

use super::explain::{Explanation, Runs};
use super::{Dim, Doing, ModelBytes, Optimization, Options, Runtime, RuntimeError, Session, ValueInfo};
use super::{door, node_in, ordered};
use crate::graph::tensor::{DType, Element, Tensor};

/// What errors and reports call it.
pub const NAME: &str = "tract";

/// The version that Cargo.toml pins; a test compares it with Cargo.lock.
pub const VERSION: &str = "0.23.9";

/// Plans kept a session, one for each set of input shapes: each holds its own packed weights.
const N_PLANS: usize = 4;

/// The runtime.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tract;

type Plan = Arc<tract::TypedRunnableModel>;

struct TractSession {
    model: String,
    inputs: Vec<ValueInfo>,
    outputs: Vec<ValueInfo>,
    optimization: Optimization,
    source: tract::InferenceModel,
    executor: Executor,
    /// Most recently used last.
    plans: VecDeque<(Vec<Vec<usize>>, Plan)>,
}

impl Runtime for Tract {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        VERSION.to_owned()
    }

    fn load(&self, model: &ModelBytes, options: &Options) -> Result<Box<dyn Session>, RuntimeError> {
        refuse_options(options)?;
        Ok(Box::new(TractSession::load(model, options)?))
    }

    fn explain(
        &self,
        model: &ModelBytes,
        options: &Options,
        inputs: &[(String, Tensor)],
        runs: Runs,
    ) -> Result<Explanation, RuntimeError> {
        let options = Options { optimized_model: None, profile: None, ..options.clone() };
        refuse_options(&options)?;
        let mut session = TractSession::load(model, &options)?;
        let name = model.name();
        door::through(NAME, Doing::Run, &name, || {
            let (plan, given) = session.ready(inputs)?;
            let explained = multithread_tract_scope(session.executor.clone(), || explain::explain(&plan, &given, runs));
            explained.map_err(|error| refused(&name, Doing::Run, &error))
        })
    }
}

/// Matrix products are split over a pool of the session's own; all else runs on the calling thread.
fn executor(n_threads: usize) -> Executor {
    if n_threads == 1 { Executor::SingleThread } else { Executor::multithread(n_threads) }
}

fn refuse_options(options: &Options) -> Result<(), RuntimeError> {
    let refuse = |option: &str| Err(RuntimeError::Option { runtime: NAME, option: option.to_owned() });
    if options.n_threads == 0 {
        return refuse("way to run on no thread");
    }
    if options.optimized_model.is_some() {
        return refuse("way to write its optimized graph as ONNX (it can be listed)");
    }
    if options.profile.is_some() {
        return refuse("profile");
    }
    Ok(())
}

fn refused(model: &str, doing: Doing, error: &tract::TractError) -> RuntimeError {
    let reason = format!("{error:#}");
    RuntimeError::Refused { runtime: NAME, doing, model: model.to_owned(), node: node_in(&reason), reason }
}

type Parsed = (tract::InferenceModel, Vec<ValueInfo>, Vec<ValueInfo>);

fn parse(model: &ModelBytes) -> tract::TractResult<Parsed> {
    // Symbolic shapes of inner and output values would keep tract from seeing the concrete ones that follow from the inputs.
    let onnx = tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_shapes(true);
    let proto = onnx.proto_model_for_read(&mut &model.bytes()[..])?;
    let Some(graph) = &proto.graph else { return Err(tract::TractError::msg("the file holds no graph")) };
    let folder = match model.folder().map(|folder| folder.to_str()) {
        Some(None) => return Err(tract::TractError::msg("the path of the model's folder is not UTF-8")),
        Some(folder) => folder,
        None => None,
    };
    let parsed = onnx.parse(&proto, folder)?;
    if !parsed.unresolved_inputs.is_empty() {
        return Err(tract::TractError::msg(format!("values that nothing produces: {:?}", parsed.unresolved_inputs)));
    }
    let has_default = |name: &str| graph.initializer.iter().any(|tensor| tensor.name == name);
    let inputs = graph.input.iter().filter(|input| !has_default(&input.name)).map(value_info).collect();
    let outputs = graph.output.iter().map(value_info).collect();
    Ok((parsed.model, inputs, outputs))
}

fn value_info(proto: &pb::ValueInfoProto) -> ValueInfo {
    let mut info = ValueInfo { name: proto.name.clone(), dtype: None, dims: None };
    if let Some(pb::TypeProto { value: Some(pb::type_proto::Value::TensorType(tensor)), .. }) = &proto.r#type {
        info.dtype = DType::from_onnx(tensor.elem_type);
        info.dims = tensor.shape.as_ref().map(|shape| shape.dim.iter().map(dim).collect());
    }
    info
}

fn dim(proto: &pb::tensor_shape_proto::Dimension) -> Dim {
    match &proto.value {
        Some(DimValue::DimValue(size)) => usize::try_from(*size).map_or(Dim::Unknown, Dim::Known),
        Some(DimValue::DimParam(name)) if !name.is_empty() => Dim::Symbol(name.clone()),
        Some(DimValue::DimParam(_)) | None => Dim::Unknown,
    }
}

impl Session for TractSession {
    fn inputs(&self) -> &[ValueInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[ValueInfo] {
        &self.outputs
    }

    fn run(&mut self, inputs: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>, RuntimeError> {
        let model = self.model.clone();
        door::through(NAME, Doing::Run, &model, || {
            let (plan, given) = self.ready(inputs)?;
            let computed = multithread_tract_scope(self.executor.clone(), || plan.run(given));
            let computed = computed.map_err(|error| refused(&self.model, Doing::Run, &error))?;
            let named = self.outputs.iter().zip(computed);
            named
                .map(|(info, value)| {
                    let tensor = from_tract(value, info.dtype).map_err(|reason| self.exchange(&info.name, reason))?;
                    Ok((info.name.clone(), tensor))
                })
                .collect()
        })
    }

    fn optimized_graph(&self) -> Option<String> {
        let (_, plan) = self.plans.back()?;
        let model = plan.model();
        let mut text = String::new();
        for node in model.nodes() {
            let inputs: Vec<&str> = node.inputs.iter().map(|outlet| model.nodes()[outlet.node].name.as_str()).collect();
            let facts: Vec<String> = node.outputs.iter().map(|output| format!("{:?}", output.fact)).collect();
            writeln!(text, "{} {}({}) -> {}", node.name, node.op, inputs.join(", "), facts.join(" | "))
                .expect("a string takes every write");
        }
        Some(text)
    }
}

impl TractSession {
    fn load(model: &ModelBytes, options: &Options) -> Result<TractSession, RuntimeError> {
        let name = model.name();
        door::through(NAME, Doing::Load, &name, || {
            let (source, inputs, outputs) = parse(model).map_err(|error| refused(&name, Doing::Load, &error))?;
            let mut session = TractSession {
                model: name.clone(),
                inputs,
                outputs,
                optimization: options.optimization,
                source,
                executor: executor(options.n_threads),
                plans: VecDeque::new(),
            };
            if let Some(shapes) = session.declared_shapes() {
                session.plan(shapes, Doing::Load)?;
            }
            Ok(session)
        })
    }

    /// The plan for inputs of these shapes, and the inputs as it takes them.
    fn ready(&mut self, inputs: &[(String, Tensor)]) -> Result<(Plan, tract::TVec<tract::TValue>), RuntimeError> {
        let tensors = ordered(&self.model, &self.inputs, inputs)?;
        let shapes = tensors.iter().map(|tensor| tensor.shape().to_vec()).collect();
        let plan = self.plan(shapes, Doing::Run)?;
        let given = tensors.iter().zip(&self.inputs).map(|(tensor, info)| {
            to_tract(tensor).map(tract::TValue::from).map_err(|reason| self.exchange(&info.name, reason))
        });
        Ok((plan, given.collect::<Result<_, _>>()?))
    }

    fn exchange(&self, value: &str, reason: String) -> RuntimeError {
        RuntimeError::Exchange { runtime: NAME, model: self.model.clone(), value: value.to_owned(), reason }
    }

    /// The inputs' shapes, where the file gives each as numbers.
    fn declared_shapes(&self) -> Option<Vec<Vec<usize>>> {
        let known = |dim: &Dim| match dim {
            Dim::Known(size) => Some(*size),
            Dim::Symbol(_) | Dim::Unknown => None,
        };
        self.inputs.iter().map(|info| info.dims.as_ref()?.iter().map(known).collect()).collect()
    }

    fn plan(&mut self, shapes: Vec<Vec<usize>>, doing: Doing) -> Result<Plan, RuntimeError> {
        if let Some(idx) = self.plans.iter().position(|(known, _)| *known == shapes) {
            let entry = self.plans.remove(idx).expect("the index was just found");
            let plan = Arc::clone(&entry.1);
            self.plans.push_back(entry);
            return Ok(plan);
        }
        for (info, shape) in self.inputs.iter().zip(&shapes) {
            fits(info, shape).map_err(|reason| RuntimeError::Input {
                model: self.model.clone(),
                input: info.name.clone(),
                reason,
            })?;
        }
        let plan = self.compile(&shapes).map_err(|error| refused(&self.model, doing, &error))?;
        while self.plans.len() >= N_PLANS {
            self.plans.pop_front();
        }
        self.plans.push_back((shapes, Arc::clone(&plan)));
        Ok(plan)
    }

    fn compile(&self, shapes: &[Vec<usize>]) -> tract::TractResult<Plan> {
        let mut model = self.source.clone();
        for (idx, shape) in shapes.iter().enumerate() {
            let dtype = model.input_fact(idx)?.datum_type.concretize();
            let dtype = dtype.ok_or_else(|| tract::TractError::msg("an input has no element type"))?;
            model.set_input_fact(idx, tract::InferenceFact::dt_shape(dtype, shape))?;
        }
        let typed = match self.optimization {
            Optimization::None => model.into_typed()?,
            Optimization::Basic => model.into_typed()?.into_decluttered()?,
            Optimization::All => model.into_optimized()?,
        };
        tract::IntoRunnable::into_runnable(typed)
    }
}

fn fits(info: &ValueInfo, shape: &[usize]) -> Result<(), String> {
    let Some(dims) = &info.dims else { return Ok(()) };
    let same = |(dim, size): (&Dim, &usize)| match dim {
        Dim::Known(known) => known == size,
        Dim::Symbol(_) | Dim::Unknown => true,
    };
    if dims.len() == shape.len() && dims.iter().zip(shape).all(same) {
        return Ok(());
    }
    Err(format!("expected {info}, got shape {shape:?}"))
}

fn to_tract(tensor: &Tensor) -> Result<tract::Tensor, String> {
    match tensor.dtype() {
        DType::F64 => plain::<f64>(tensor),
        DType::F32 => plain::<f32>(tensor),
        DType::F16 => plain::<f16>(tensor),
        DType::I64 => plain::<i64>(tensor),
        DType::I32 => plain::<i32>(tensor),
        DType::I16 => plain::<i16>(tensor),
        DType::I8 => plain::<i8>(tensor),
        DType::U64 => plain::<u64>(tensor),
        DType::U32 => plain::<u32>(tensor),
        DType::U16 => plain::<u16>(tensor),
        DType::U8 => plain::<u8>(tensor),
        DType::Bool => plain::<bool>(tensor),
        DType::String => {
            let strings = tensor.strings().expect("the type is string");
            let text =
                |bytes: &Bytes| String::from_utf8(bytes.to_vec()).map_err(|_| "a string is not UTF-8".to_owned());
            let texts = strings.iter().map(text).collect::<Result<Vec<String>, String>>()?;
            let array = tract::tract_ndarray::ArrayD::from_shape_vec(tensor.shape(), texts);
            array.map(tract::Tensor::from).map_err(|error| error.to_string())
        }
        DType::BF16 | DType::I4 | DType::U4 | DType::I2 | DType::U2 => Err(no_such_type(tensor.dtype())),
        DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F8E8M0 | DType::F4E2M1 => {
            Err(no_such_type(tensor.dtype()))
        }
        DType::F6E2M3 | DType::F6E3M2 => Err(no_such_type(tensor.dtype())),
        DType::Complex64 | DType::Complex128 => Err(no_such_type(tensor.dtype())),
    }
}

fn no_such_type(dtype: DType) -> String {
    format!("it has no tensors of {dtype}")
}

fn plain<T: Element + tract::Datum>(tensor: &Tensor) -> Result<tract::Tensor, String> {
    let elements = tensor.as_slice::<T>().map_err(|error| error.to_string())?;
    tract::Tensor::from_shape(tensor.shape(), elements).map_err(|error| error.to_string())
}

/// Keeps tract's tensor alive for as long as its bytes are looked at.
struct Held(Arc<tract::Tensor>);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// `declared` decides where tract's own types (dimensions, quantized integers) stand for an ONNX type.
fn from_tract(value: tract::TValue, declared: Option<DType>) -> Result<Tensor, String> {
    use tract::IntoArcTensor as _;
    let datum_type = value.datum_type();
    if datum_type == tract::DatumType::String {
        let texts = value.to_plain_array_view::<String>().map_err(|error| error.to_string())?;
        let strings = texts.iter().map(|text| Bytes::from(text.clone())).collect();
        return Tensor::from_strings(value.shape(), strings).map_err(|error| error.to_string());
    }
    let (dtype, tensor) = if datum_type == tract::DatumType::TDim {
        let numbers = value.cast_to::<i64>().map_err(|error| format!("a dimension is not a number: {error}"))?;
        (DType::I64, Arc::new(numbers.into_owned()))
    } else {
        (onnx_type(datum_type)?, value.into_arc_tensor())
    };
    let plain = if tensor.is_plain_ram() {
        tensor
    } else {
        let copy = Arc::unwrap_or_clone(tensor).into_plain_ram();
        Arc::new(copy.map_err(|error| error.to_string())?)
    };
    let shape = plain.shape().to_vec();
    let tensor = Tensor::from_bytes(dtype, &shape, Bytes::from_owner(Held(plain))).map_err(|e| e.to_string())?;
    match declared {
        Some(declared) if declared != dtype => Err(format!("the file declares {declared}, it computed {dtype}")),
        Some(_) | None => Ok(tensor),
    }
}

fn onnx_type(datum_type: tract::DatumType) -> Result<DType, String> {
    const SAME: [(tract::DatumType, DType); 12] = [
        (tract::DatumType::F64, DType::F64),
        (tract::DatumType::F32, DType::F32),
        (tract::DatumType::F16, DType::F16),
        (tract::DatumType::I64, DType::I64),
        (tract::DatumType::I32, DType::I32),
        (tract::DatumType::I16, DType::I16),
        (tract::DatumType::I8, DType::I8),
        (tract::DatumType::U64, DType::U64),
        (tract::DatumType::U32, DType::U32),
        (tract::DatumType::U16, DType::U16),
        (tract::DatumType::U8, DType::U8),
        (tract::DatumType::Bool, DType::Bool),
    ];
    let unquantized = datum_type.unquantized();
    let found = SAME.iter().find(|(theirs, _)| *theirs == unquantized);
    found.map(|(_, ours)| *ours).ok_or_else(|| format!("its type {datum_type:?} is none of ONNX's"))
}
