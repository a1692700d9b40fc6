//! onnxruntime, through its C library, which is loaded when it is first needed.
//!
//! A process has one environment and one library; asking for another library later is an error. Its messages go to
//! `tracing`, its telemetry is off.

mod explain;
mod narrow;
mod profile;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use half::{bf16, f16};
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::memory::Allocator;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{Session as OrtSessionInner, SessionInputValue};
use ort::value::{DynValue, Outlet, PrimitiveTensorElementType, TensorElementType, TensorRef, ValueType};

use super::explain::{Explanation, Runs};
use super::library::{self, Search};
use super::{Dim, Doing, ModelBytes, Optimization, Options, Runtime, RuntimeError, Session, ValueInfo};
use super::{door, node_in, ordered};
use crate::graph::tensor::{DType, Element, Tensor};

/// What errors and reports call it.
pub const NAME: &str = "onnxruntime";

/// The runtime: onnxruntime's library, loaded.
#[derive(Clone, Debug)]
pub struct Onnxruntime {
    environment: Environment,
    library: PathBuf,
}

/// The library of this process and, once made, its environment.
static LOADED: Mutex<Option<(PathBuf, Option<Environment>)>> = Mutex::new(None);

impl Onnxruntime {
    /// Finds and loads the library; `flag` is the path that the user names, if any.
    ///
    /// # Errors
    /// When no library is found, it is not onnxruntime's or too old, or this process has loaded another one.
    pub fn open(flag: Option<&Path>) -> Result<Onnxruntime, RuntimeError> {
        let search = library::search(flag);
        let place = search.chosen().ok_or_else(|| library_error(missing(&search)))?;
        load_library(&place.path)
    }

    /// The library that is loaded.
    pub fn library(&self) -> &Path {
        &self.library
    }
}

fn library_error(reason: String) -> RuntimeError {
    RuntimeError::Library { runtime: NAME, reason }
}

fn missing(search: &Search) -> String {
    format!("its library was not found; looked at {}", search.describe())
}

fn load_library(library: &Path) -> Result<Onnxruntime, RuntimeError> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((path, _)) = loaded.as_ref()
        && path != library
    {
        return Err(library_error(format!(
            "this process has already loaded {}, it cannot load {} as well",
            path.display(),
            library.display()
        )));
    }
    if let Some((_, Some(environment))) = loaded.as_ref() {
        return Ok(Onnxruntime { environment: environment.clone(), library: library.to_owned() });
    }
    let name = library.display().to_string();
    let wrong = |error: String| library_error(format!("{name} is not a library that can be used: {error}"));
    let environment = door::through(NAME, Doing::Load, &name, || {
        let builder = ort::init_from(library).map_err(|error| wrong(error.to_string()))?;
        *loaded = Some((library.to_owned(), None));
        let builder = builder.with_name("aludel").with_telemetry(false).with_logger(Arc::new(log));
        let environment = builder.build().map_err(|error| wrong(error.to_string()))?;
        environment.set_log_level(LogLevel::Warning);
        Ok(environment)
    });
    let environment = environment.map_err(|error| match error {
        RuntimeError::Panicked { reason, .. } => wrong(reason),
        other => other,
    })?;
    *loaded = Some((library.to_owned(), Some(environment.clone())));
    Ok(Onnxruntime { environment, library: library.to_owned() })
}

fn log(level: LogLevel, _category: &str, _id: &str, place: &str, message: &str) {
    match level {
        LogLevel::Verbose => tracing::trace!(place, "{message}"),
        LogLevel::Info => tracing::debug!(place, "{message}"),
        LogLevel::Warning => tracing::info!(place, "{message}"),
        // What fails is returned as an error as well.
        LogLevel::Error | LogLevel::Fatal => tracing::warn!(place, "{message}"),
    }
}

struct OrtSession {
    model: String,
    session: OrtSessionInner,
    inputs: Vec<ValueInfo>,
    outputs: Vec<ValueInfo>,
    profiles: bool,
    runtime: Onnxruntime,
    casts: narrow::Casts,
}

impl Runtime for Onnxruntime {
    fn name(&self) -> &'static str {
        NAME
    }

    /// From the branch that the library was built of, else from its file name.
    fn version(&self) -> String {
        let built = door::through(NAME, Doing::Load, "its library", || Ok(ort::info())).unwrap_or_default();
        let branch = built.split("git-branch=rel-").nth(1).and_then(|rest| rest.split([',', ' ']).next());
        if let Some(version) = branch {
            return version.to_owned();
        }
        let file = self.library.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let digits = file.split('.').filter(|part| part.chars().all(|c| c.is_ascii_digit()));
        digits.collect::<Vec<_>>().join(".")
    }

    fn load(&self, model: &ModelBytes, options: &Options) -> Result<Box<dyn Session>, RuntimeError> {
        let name = model.name();
        if options.n_threads == 0 {
            return Err(RuntimeError::Option { runtime: NAME, option: "way to run on 0 threads".to_owned() });
        }
        door::through(NAME, Doing::Load, &name, || {
            let session = self.commit(model, options).map_err(|error| refused(&name, Doing::Load, &error))?;
            let inputs = session.inputs().iter().map(value_info).collect();
            let outputs = session.outputs().iter().map(value_info).collect();
            let profiles = options.profile.is_some();
            let (runtime, casts) = (self.clone(), narrow::Casts::default());
            let session = OrtSession { model: name.clone(), session, inputs, outputs, profiles, runtime, casts };
            Ok(Box::new(session) as Box<dyn Session>)
        })
    }

    fn explain(
        &self,
        model: &ModelBytes,
        options: &Options,
        inputs: &[(String, Tensor)],
        runs: Runs,
    ) -> Result<Explanation, RuntimeError> {
        explain::explain(self, model, options, inputs, runs)
    }
}

impl Onnxruntime {
    fn commit(&self, model: &ModelBytes, options: &Options) -> ort::Result<OrtSessionInner> {
        let mut builder = configure(OrtSessionInner::builder(&self.environment)?, options)?;
        if let Some(folder) = model.folder() {
            let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
            let key = "session.model_external_initializers_file_folder_path";
            builder = builder.with_config_entry(key, folder.to_string_lossy())?;
        }
        builder.commit_from_memory(model.bytes())
    }
}

/// One thing at a time, on as many threads as asked for, none of them waiting in a busy loop: what is measured is the
/// model, not the pool. The arena is off so that the memory measured is the memory needed.
fn configure(builder: SessionBuilder, options: &Options) -> ort::Result<SessionBuilder> {
    let level = match options.optimization {
        Optimization::None => GraphOptimizationLevel::Disable,
        Optimization::Basic => GraphOptimizationLevel::Level1,
        Optimization::All => GraphOptimizationLevel::All,
    };
    let mut builder = builder
        .with_optimization_level(level)?
        .with_intra_threads(options.n_threads)?
        .with_inter_threads(1)?
        .with_intra_op_spinning(false)?
        .with_inter_op_spinning(false)?
        .with_execution_providers([ort::ep::CPU::default().with_arena_allocator(false).build()])?;
    if let Some(path) = &options.optimized_model {
        builder = builder.with_optimized_model_path(path)?;
    }
    if let Some(path) = &options.profile {
        builder = builder.with_profiling(path)?;
    }
    if !options.fuse_quantization {
        builder = builder.with_quant_qdq(false)?;
    }
    Ok(builder)
}

fn refused(model: &str, doing: Doing, error: &ort::Error) -> RuntimeError {
    let reason = error.message().to_owned();
    RuntimeError::Refused { runtime: NAME, doing, model: model.to_owned(), node: node_in(&reason), reason }
}

fn value_info(outlet: &Outlet) -> ValueInfo {
    let mut info = ValueInfo { name: outlet.name().to_owned(), dtype: None, dims: None };
    if let ValueType::Tensor { ty, shape, dimension_symbols } = outlet.dtype() {
        info.dtype = our_type(*ty);
        let dim = |(size, symbol): (&i64, &String)| match usize::try_from(*size) {
            Ok(size) => Dim::Known(size),
            Err(_) if symbol.is_empty() => Dim::Unknown,
            Err(_) => Dim::Symbol(symbol.clone()),
        };
        info.dims = Some(shape.iter().zip(dimension_symbols.iter()).map(dim).collect());
    }
    info
}

impl Session for OrtSession {
    fn inputs(&self) -> &[ValueInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[ValueInfo] {
        &self.outputs
    }

    fn run(&mut self, inputs: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>, RuntimeError> {
        let tensors = ordered(&self.model, &self.inputs, inputs)?;
        let exchange = |value: &str, reason: String| RuntimeError::Exchange {
            runtime: NAME,
            model: self.model.clone(),
            value: value.to_owned(),
            reason,
        };
        door::through(NAME, Doing::Run, &self.model, || {
            let mut values = Vec::with_capacity(tensors.len());
            for (tensor, info) in tensors.iter().zip(&self.inputs) {
                let value = match narrow::wide(tensor.dtype()) {
                    Some(_) => self.casts.hand_in(&self.runtime, tensor).map(SessionInputValue::from),
                    None => to_ort(tensor),
                };
                let value = value.map_err(|reason| exchange(&info.name, reason))?;
                values.push((info.name.as_str(), value));
            }
            let computed = self.session.run(values).map_err(|error| refused(&self.model, Doing::Run, &error))?;
            let mut outputs = Vec::with_capacity(self.outputs.len());
            for info in &self.outputs {
                let value = computed.get(&info.name).ok_or_else(|| exchange(&info.name, "it is missing".to_owned()))?;
                let tensor = match info.dtype.filter(|&dtype| narrow::wide(dtype).is_some()) {
                    Some(dtype) => {
                        shape_of(value).and_then(|shape| self.casts.take_out(&self.runtime, value, dtype, &shape))
                    }
                    None => from_ort(value),
                };
                let tensor = tensor.map_err(|reason| exchange(&info.name, reason))?;
                outputs.push((info.name.clone(), tensor));
            }
            Ok(outputs)
        })
    }

    fn finish_profile(&mut self) -> Result<Option<PathBuf>, RuntimeError> {
        if !std::mem::take(&mut self.profiles) {
            return Ok(None);
        }
        let ended = self.session.end_profiling().map_err(|error| refused(&self.model, Doing::Run, &error))?;
        Ok(Some(PathBuf::from(ended)))
    }
}

const TYPES: [(TensorElementType, DType); 26] = [
    (TensorElementType::Float32, DType::F32),
    (TensorElementType::Uint8, DType::U8),
    (TensorElementType::Int8, DType::I8),
    (TensorElementType::Uint16, DType::U16),
    (TensorElementType::Int16, DType::I16),
    (TensorElementType::Int32, DType::I32),
    (TensorElementType::Int64, DType::I64),
    (TensorElementType::String, DType::String),
    (TensorElementType::Bool, DType::Bool),
    (TensorElementType::Float16, DType::F16),
    (TensorElementType::Float64, DType::F64),
    (TensorElementType::Uint32, DType::U32),
    (TensorElementType::Uint64, DType::U64),
    (TensorElementType::Bfloat16, DType::BF16),
    (TensorElementType::Complex64, DType::Complex64),
    (TensorElementType::Complex128, DType::Complex128),
    (TensorElementType::Float8E4M3FN, DType::F8E4M3FN),
    (TensorElementType::Float8E4M3FNUZ, DType::F8E4M3FNUZ),
    (TensorElementType::Float8E5M2, DType::F8E5M2),
    (TensorElementType::Float8E5M2FNUZ, DType::F8E5M2FNUZ),
    (TensorElementType::Uint4, DType::U4),
    (TensorElementType::Int4, DType::I4),
    (TensorElementType::Float4E2M1, DType::F4E2M1),
    (TensorElementType::Uint2, DType::U2),
    (TensorElementType::Int2, DType::I2),
    (TensorElementType::Float8E8M0, DType::F8E8M0),
];

fn our_type(theirs: TensorElementType) -> Option<DType> {
    TYPES.iter().find(|row| row.0 == theirs).map(|row| row.1)
}

/// Why a value of this type stays inside: crate ort gives no safe view of its elements.
fn no_view(dtype: DType) -> String {
    format!("{dtype} elements can be used within the model, but not be handed in or out")
}

fn no_such_type(dtype: DType) -> String {
    format!("it has no tensors of {dtype}")
}

fn to_ort(tensor: &Tensor) -> Result<SessionInputValue<'_>, String> {
    match tensor.dtype() {
        DType::F64 => plain::<f64>(tensor),
        DType::F32 => plain::<f32>(tensor),
        DType::F16 => plain::<f16>(tensor),
        DType::BF16 => plain::<bf16>(tensor),
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
            let value = ort::value::Tensor::from_string_array((dims(tensor), texts.as_slice()));
            value.map(SessionInputValue::from).map_err(|error| error.message().to_owned())
        }
        DType::I4 | DType::U4 | DType::I2 | DType::U2 => Err(no_view(tensor.dtype())),
        DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F8E8M0 | DType::F4E2M1 => {
            Err(no_view(tensor.dtype()))
        }
        DType::F6E2M3 | DType::F6E3M2 => Err(no_such_type(tensor.dtype())),
        DType::Complex64 | DType::Complex128 => Err(no_view(tensor.dtype())),
    }
}

fn dims(tensor: &Tensor) -> Vec<usize> {
    tensor.shape().to_vec()
}

/// The elements themselves, not a copy.
fn plain<T>(tensor: &Tensor) -> Result<SessionInputValue<'_>, String>
where
    T: Element + PrimitiveTensorElementType,
{
    let elements = tensor.as_slice::<T>().map_err(|error| error.to_string())?;
    let value = if elements.is_empty() {
        let shape: Vec<i64> = tensor.shape().iter().map(|&dim| i64::try_from(dim).unwrap_or(i64::MAX)).collect();
        ort::value::Tensor::<T>::new(&Allocator::default(), shape).map(SessionInputValue::from)
    } else {
        TensorRef::from_array_view((dims(tensor), elements)).map(SessionInputValue::from)
    };
    value.map_err(|error| error.message().to_owned())
}

fn shape_of(value: &DynValue) -> Result<Vec<usize>, String> {
    let ValueType::Tensor { shape, .. } = value.dtype() else {
        return Err(format!("it is no tensor but {}", value.dtype()));
    };
    let shape = shape.iter().map(|&dim| usize::try_from(dim)).collect::<Result<Vec<usize>, _>>();
    shape.map_err(|_| "it has a negative dimension".to_owned())
}

fn from_ort(value: &DynValue) -> Result<Tensor, String> {
    let shape = shape_of(value)?;
    let ValueType::Tensor { ty, .. } = value.dtype() else {
        return Err(format!("it is no tensor but {}", value.dtype()));
    };
    let dtype = our_type(*ty).ok_or_else(|| format!("its type {ty} is none that we know"))?;
    match dtype {
        DType::F64 => elements::<f64>(value, &shape),
        DType::F32 => elements::<f32>(value, &shape),
        DType::F16 => elements::<f16>(value, &shape),
        DType::BF16 => elements::<bf16>(value, &shape),
        DType::I64 => elements::<i64>(value, &shape),
        DType::I32 => elements::<i32>(value, &shape),
        DType::I16 => elements::<i16>(value, &shape),
        DType::I8 => elements::<i8>(value, &shape),
        DType::U64 => elements::<u64>(value, &shape),
        DType::U32 => elements::<u32>(value, &shape),
        DType::U16 => elements::<u16>(value, &shape),
        DType::U8 => elements::<u8>(value, &shape),
        DType::Bool => elements::<bool>(value, &shape),
        DType::String => {
            let (_, texts) = value.try_extract_strings().map_err(|error| error.to_string())?;
            let strings = texts.into_iter().map(Bytes::from).collect();
            Tensor::from_strings(&shape, strings).map_err(|error| error.to_string())
        }
        DType::I4 | DType::U4 | DType::I2 | DType::U2 => Err(no_view(dtype)),
        DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F8E8M0 | DType::F4E2M1 => {
            Err(no_view(dtype))
        }
        DType::F6E2M3 | DType::F6E3M2 => Err(no_such_type(dtype)),
        DType::Complex64 | DType::Complex128 => Err(no_view(dtype)),
    }
}

fn elements<T: Element + PrimitiveTensorElementType>(value: &DynValue, shape: &[usize]) -> Result<Tensor, String> {
    let (_, elements) = value.try_extract_tensor::<T>().map_err(|error| error.message().to_owned())?;
    Tensor::new(shape, elements.to_vec()).map_err(|error| error.to_string())
}
