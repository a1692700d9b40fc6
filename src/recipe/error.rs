//! What can be wrong with a recipe, or go wrong on the way.

use std::io;
use std::path::PathBuf;

use crate::compress::distill::DistillError;
use crate::compress::distill::student::StudentError;
use crate::compress::observe::ObserveError;
use crate::compress::prune::PruneError;
use crate::compress::quantize::QuantizeError;
use crate::compress::quantize::half::QuantizeHalfError;
use crate::compress::quantize::qoperator::QOperatorError;
use crate::data::DataError;
use crate::data::npz::NpzError;
use crate::graph::patch::PatchError;
use crate::graph::shape::ShapeError;
use crate::graph::simplify::SimplifyError;
use crate::learn::integer::IntegerError;
use crate::learn::train::TrainError;
use crate::learn::train::init::InitError;
use crate::measure::metrics::MetricError;
use crate::measure::paired::StatisticsError;
use crate::measure::runtime::RuntimeError;
use crate::onnx::OnnxError;
use crate::store::StoreError;
use crate::zoo::ZooError;

/// Why a recipe is not carried out.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// the file
        path: PathBuf,
        /// why
        source: io::Error,
    },
    /// Something in a file is wrong.
    #[error("{}: {source}", path.display())]
    File {
        /// the file
        path: PathBuf,
        /// what
        source: Box<RecipeError>,
    },
    /// It is no TOML, or a key is missing, unknown or wrong.
    #[error("{0}")]
    Toml(Box<toml::de::Error>),
    /// The part `model` is wrong.
    #[error("[model]: {0}")]
    Model(String),
    /// A part of a recipe is missing, unknown or wrong.
    #[error("`{part}` {problem}")]
    Part {
        /// the part, with the parts that it is in
        part: String,
        /// what is wrong with it
        problem: String,
    },
    /// The student is not distilled.
    #[error(transparent)]
    Distill(#[from] DistillError),
    /// The student cannot be made out of the teacher.
    #[error(transparent)]
    Student(#[from] StudentError),
    /// What answers are worth cannot be told.
    #[error(transparent)]
    Metric(#[from] MetricError),
    /// What of that is chance cannot be told.
    #[error(transparent)]
    Statistics(#[from] StatisticsError),
    /// The network is not pruned.
    #[error(transparent)]
    Prune(#[from] PruneError),
    /// The network is not quantized.
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
    /// What its values look like cannot be counted.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// It is not narrowed to 16-bit floats.
    #[error(transparent)]
    Half(#[from] QuantizeHalfError),
    /// It is not brought to operators on integers.
    #[error(transparent)]
    Lower(#[from] QOperatorError),
    /// It is not computed as another machine would.
    #[error(transparent)]
    Integer(#[from] IntegerError),
    /// It cannot be tidied before it is.
    #[error(transparent)]
    Simplify(#[from] SimplifyError),
    /// An archive of samples cannot be read.
    #[error(transparent)]
    Npz(#[from] NpzError),
    /// What a network consists of cannot be told.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A graph cannot be changed.
    #[error(transparent)]
    Patch(#[from] PatchError),
    /// The ledger is none, or is of a later version.
    #[error("{}: {problem}", path.display())]
    Ledger {
        /// the file
        path: PathBuf,
        /// what is wrong
        problem: String,
    },
    /// Somebody asked to stop; what is there is kept.
    #[error("stopped in `{step}`: --resume goes on from there")]
    Stopped {
        /// in which step
        step: String,
    },
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The architecture cannot be built.
    #[error(transparent)]
    Zoo(#[from] ZooError),
    /// The weights cannot be initialised.
    #[error(transparent)]
    Init(#[from] InitError),
    /// The network does not learn.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A network's file cannot be read or written.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// A file cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A runtime fails.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}
