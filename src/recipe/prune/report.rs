//! What a pruning has done, for who asked for it.

use serde::Serialize;

use crate::compress::prune::options::PruneOptions;
use crate::compress::prune::sparse::SparsityReport;
use crate::graph::Graph;
use crate::graph::cost::{Counts, cost};
use crate::graph::probe::TimeRatio;
use crate::graph::shape::{self, Bindings, ShapeError, Types};
use crate::graph::structure::groups::Kind;
use crate::measure::compressed::Compressed;
use crate::recipe::samples::USUAL_SIZE;

/// What a network costs, its open dimensions at one sample of 64 tokens or pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// Multiplications with an addition in a run.
    pub macs: u64,
    /// Elements of what was learned.
    pub parameters: u64,
    /// Bytes of the weights.
    pub weight_bytes: u64,
}

impl Sizes {
    /// Of a graph.
    pub(super) fn of(graph: &Graph) -> Result<Sizes, ShapeError> {
        let Counts { macs, parameters, weight_bytes, .. } = cost(graph, &types_in_use(graph)?).total;
        Ok(Sizes { macs, parameters, weight_bytes })
    }
}

/// The types of a network's values as it is used: one sample, and tokens or pixels where their number is open and the network takes
/// it; else as they are.
pub(super) fn types_in_use(graph: &Graph) -> Result<Types, ShapeError> {
    let batch = graph.inputs.iter().filter_map(|input| input.tensor_type()?.shape.as_ref()?.first()).cloned();
    let batch: Vec<String> = batch.map(|dim| dim.to_string()).collect();
    let symbols: Vec<String> = shape::symbols(graph).into_iter().map(|symbol| symbol.to_string()).collect();
    let bound = |usual: usize| {
        let size = |symbol: &str| if batch.iter().any(|it| it == symbol) { 1 } else { usual };
        shape::infer(graph, &Bindings::of(symbols.iter().map(|symbol| (symbol.as_str(), size(symbol)))))
    };
    bound(USUAL_SIZE).or_else(|_| bound(1)).or_else(|_| shape::infer(graph, &Bindings::default()))
}

/// What became of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupReport {
    /// The weight that makes its units.
    pub group: String,
    /// What they are.
    pub kind: Kind,
    /// How many there were.
    pub n_units: usize,
    /// How many there are.
    pub n_left: usize,
}

/// What a pruning has done.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was asked for.
    pub options: PruneOptions,
    /// The network before.
    pub before: Sizes,
    /// The network now.
    pub after: Sizes,
    /// The groups that could be pruned.
    pub groups: Vec<GroupReport>,
    /// What went as a whole.
    pub layers: Vec<String>,
    /// What cannot be pruned, by weight or node, and why.
    pub refused: Vec<(String, String)>,
    /// The runtime that samples ran on.
    pub seen_on: Option<String>,
    /// How many samples ran.
    pub n_samples: u64,
    /// Whether the time that was asked for is surely missed.
    pub is_missed: bool,
    /// The time of a run in times of that before, where the runtime was named.
    pub time: Option<TimeRatio>,
    /// What to say of it.
    pub notes: Vec<String>,
    /// Its zeros, where single weights went.
    pub zeros: Option<Zeros>,
}

/// The zeros of a network.
#[derive(Clone, Debug, Serialize)]
pub struct Zeros {
    /// Where they are.
    #[serde(flatten)]
    pub of: SparsityReport,
    /// The bytes of the file.
    pub n_bytes: u64,
    /// Its bytes once it is compressed.
    pub compressed: Compressed,
    /// What each runtime makes of zeros.
    pub gains: Vec<(String, String)>,
}

impl Report {
    pub(super) fn new(options: &PruneOptions, before: Sizes, after: Sizes) -> Report {
        Report {
            options: options.clone(),
            before,
            after,
            groups: Vec::new(),
            layers: Vec::new(),
            refused: Vec::new(),
            seen_on: None,
            n_samples: 0,
            is_missed: false,
            time: None,
            notes: Vec::new(),
            zeros: None,
        }
    }

    /// What it comes to, in a line.
    pub fn summary(&self) -> String {
        if let Some(zeros) = &self.zeros {
            let (n_bytes, Compressed { gzip, zstd }) = (zeros.n_bytes, zeros.compressed);
            return format!(
                "{:.1} % of {} weights are zero; {n_bytes} bytes, {gzip} by gzip, {zstd} by zstd",
                100.0 * zeros.of.sparsity(),
                zeros.of.n
            );
        }
        let part = |before: u64, after: u64| 100.0 * (before as f64 - after as f64) / before.max(1) as f64;
        format!(
            "{:.1} % of the multiplications and {:.1} % of the parameters are gone",
            part(self.before.macs, self.after.macs),
            part(self.before.parameters, self.after.parameters)
        )
    }
}
