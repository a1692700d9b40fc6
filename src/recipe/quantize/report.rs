//! What was done to a network, to be printed and kept.

use indexmap::IndexMap;
use serde::Serialize;

use crate::compress::quantize::mixed::Mixed;
use crate::compress::quantize::options::Choice;
use crate::compress::quantize::plan::Float;
use crate::compress::quantize::ports::IntegerPort;
use crate::compress::quantize::slow::Slow;
use crate::graph::Name;
use crate::graph::probe::{Quality, TimeRatio};

/// What was done to a network.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was chosen, and why.
    pub choice: Choice,
    /// The runtime that the samples ran on; none where there were none.
    pub calibrated_on: Option<String>,
    /// How many samples there were.
    pub n_samples: u64,
    /// The nodes that compute in integers, by operator.
    pub integer: IndexMap<String, usize>,
    /// The constants that are narrow.
    pub n_weights: usize,
    /// The nodes that compute in 16-bit floats.
    pub n_halved: usize,
    /// The nodes that could compute in narrow numbers and do not.
    pub float: Vec<Float>,
    /// The inputs and outputs that are integers now.
    pub ports: Vec<IntegerPort>,
    /// Where floats were measured to be quicker; none where nobody measured.
    pub harm: Option<Harm>,
    /// Which layers stay in floats for the budget; none where there is no budget.
    pub mixed: Option<Precision>,
    /// What else was done that changes values by more than rounding.
    pub notes: Vec<String>,
}

/// What was measured so that integers do no harm.
#[derive(Clone, Debug, Serialize)]
pub struct Harm {
    /// The runtime, one thread, one sample.
    pub runtime: String,
    /// What was timed, and what became of it.
    #[serde(flatten)]
    pub slow: Slow,
    /// The time that it took.
    pub seconds: f64,
}

impl Harm {
    /// In words, what was found.
    pub fn lines(&self) -> Vec<String> {
        let Harm { runtime, slow, seconds } = self;
        let ratio = |ratio: &TimeRatio| format!("{:.2} [{:.2}, {:.2}]", ratio.median, ratio.low, ratio.high);
        let mut lines =
            vec![format!("narrow, the network takes {} of its time in floats on {runtime}", ratio(&slow.all))];
        for timed in slow.regions.iter().filter(|timed| timed.is_slow) {
            let first = timed.nodes.first().map_or("", Name::as_str);
            let others =
                if timed.nodes.len() > 1 { format!(" and {} others", timed.nodes.len() - 1) } else { String::new() };
            lines.push(format!("back in floats, with which it takes {}: {first}{others}", ratio(&timed.in_floats)));
        }
        match &slow.rest {
            Some(rest) => lines.push(format!("the rest in integers takes {}", ratio(rest))),
            None if !slow.nodes.is_empty() => lines.push(
                "all of it went back to floats, its weights alone are narrow; `keep_slow` keeps integers".to_string(),
            ),
            None => {}
        }
        lines.push(format!("timing took {seconds:.1} s"));
        lines
    }
}

/// What was measured to find the layers that stay in floats.
#[derive(Clone, Debug, Serialize)]
pub struct Precision {
    /// The runtime.
    pub runtime: String,
    /// Which layers these are, and how good the network is with them.
    #[serde(flatten)]
    pub mixed: Mixed,
    /// The time that it took.
    pub seconds: f64,
}

impl Precision {
    /// In words, what was found.
    pub fn lines(&self) -> Vec<String> {
        let Precision { runtime, mixed: Mixed { floats, layers, in_floats, quality, is_met }, seconds } = self;
        let shown = |quality: &Quality| {
            let accuracy = quality.accuracy.map(|share| format!("{:.2} % right, ", 100.0 * share));
            format!("{}signal over noise {:.1} dB", accuracy.unwrap_or_default(), quality.sqnr_db())
        };
        let mut lines = match floats.len() {
            0 => vec![format!("no layer stays in floats: {} on {runtime}", shown(quality))],
            n => vec![format!("{n} of {} layers stay in floats: {} on {runtime}", layers.len(), shown(quality))],
        };
        lines.extend(floats.iter().map(|node| format!("  {node}")));
        if let Some(share) = in_floats.accuracy {
            lines.push(format!("in floats {:.2} % right", 100.0 * share));
        }
        if !is_met {
            lines.push("the budget is not met: this is the best that was found".to_string());
        }
        lines.push(format!("finding them took {seconds:.1} s"));
        lines
    }
}

impl Report {
    /// In words, what was measured.
    pub fn measured(&self) -> Vec<String> {
        let harm = self.harm.iter().flat_map(Harm::lines);
        harm.chain(self.mixed.iter().flat_map(Precision::lines)).collect()
    }

    pub(in crate::recipe) fn new(choice: Choice) -> Report {
        Report {
            choice,
            calibrated_on: None,
            n_samples: 0,
            integer: IndexMap::new(),
            n_weights: 0,
            n_halved: 0,
            float: Vec::new(),
            ports: Vec::new(),
            harm: None,
            mixed: None,
            notes: Vec::new(),
        }
    }
}
