//! `aludel prune`: what a network can do without goes.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use super::load::{self, RuntimeChoice, word};
use super::progress::Progress;
use super::table::{Side, table};
use super::{Outcome, format};
use crate::compress::importance::{Criterion, Normalize};
use crate::compress::prune::options::{Compensation, PruneOptions};
use crate::compress::prune::sparse::{self, Pattern, SparseOptions};
use crate::compress::prune::{Curve, Match, Point, Scope, Sensitivity};
use crate::measure::runtime::Runtime;
use crate::measure::runtime::tract::Tract;
use crate::recipe::prune::{self as recipe, GroupReport, Means, Pruned};
use crate::store;

/// Take out of a network what it can do without
///
/// Channels, attention heads, features and hidden units go together with every slice that hangs on them, so that the file is smaller
/// and quicker; residual blocks and encoder layers as a whole; or single weights become zero. Say how much goes, one way. Nothing is
/// trained: `aludel run` alternates pruning and distillation.
#[derive(clap::Args)]
#[command(
    group(clap::ArgGroup::new("sparse").args(["sparsity", "pattern"]).multiple(true)),
    group(clap::ArgGroup::new("amount").args(["channels", "macs", "params", "bytes", "max_time", "layers"])),
    after_help = "Examples:\n  aludel prune model.onnx --show-groups\n  aludel prune model.onnx --macs 0.3 --data calib.npz -o pruned.onnx\n  aludel prune model.onnx --max-time 0.5 --runtime ort --round-to 16 --data calib.npz -o quick.onnx\n  aludel prune model.onnx --pattern 2:4 --sparse-criterion sparsegpt --data calib.npz -o sparse.onnx\n  aludel prune model.onnx --sensitivity --data calib.npz --json > curves.json"
)]
pub(super) struct Arguments {
    /// An ONNX file
    model: PathBuf,
    /// Where to write
    #[arg(short, long, value_name = "FILE", required_unless_present_any = ["sensitivity", "show_groups"])]
    output: Option<PathBuf>,
    /// Print what hangs together and can go, and what cannot and why; write nothing
    #[arg(long, conflicts_with_all = ["output", "sensitivity", "amount", "sparse", "only", "exclude", "curves"])]
    show_groups: bool,
    /// The share of units to take out
    #[arg(long, value_name = "SHARE")]
    channels: Option<f64>,
    /// The share of multiplications to take out
    #[arg(long, value_name = "SHARE")]
    macs: Option<f64>,
    /// The share of parameters to take out
    #[arg(long, value_name = "SHARE")]
    params: Option<f64>,
    /// The share of the weights' bytes to take out
    #[arg(long, value_name = "SHARE")]
    bytes: Option<f64>,
    /// The most time that a run may take, in times of that before, measured on the runtime that is named
    #[arg(long, value_name = "RATIO", requires = "runtime")]
    max_time: Option<f64>,
    /// How many residual blocks or encoder layers to take out: those that are missed least on samples
    #[arg(long, value_name = "N", requires = "data")]
    layers: Option<usize>,
    /// The share of single weights that become zero
    #[arg(long, value_name = "SHARE", conflicts_with = "amount")]
    sparsity: Option<f64>,
    /// Where zeros of single weights lie: free, N:M (2:4, which says how many, too) or ROWSxCOLUMNS (4x1)
    #[arg(long, value_name = "PATTERN", value_parser = word::<Pattern>, conflicts_with = "amount")]
    pattern: Option<Pattern>,
    /// By what single weights are told apart: magnitude, random, and by samples wanda or sparsegpt, by labelled ones snip
    #[arg(long, value_name = "NAME", value_parser = word::<sparse::Criterion>, requires = "sparse")]
    sparse_criterion: Option<sparse::Criterion>,
    /// By what units are told apart: l1, l2, batch-norm, fpgm, lamp, random, first; by samples activation or apoz; by labelled ones
    /// taylor, fisher or movement
    #[arg(long, value_name = "NAME", value_parser = word::<Criterion>)]
    criterion: Option<Criterion>,
    /// Among which units the least important are looked for: global, or local for the same share of every group
    #[arg(long, value_name = "NAME", value_parser = word::<Scope>)]
    scope: Option<Scope>,
    /// By what the importance of a group's units is divided: mean, max, sum or none
    #[arg(long, value_name = "NAME", value_parser = word::<Normalize>)]
    normalize: Option<Normalize>,
    /// The units that each group keeps at least
    #[arg(long, value_name = "N")]
    min_width: Option<usize>,
    /// What stays in a group is a multiple of this
    #[arg(long, value_name = "N")]
    round_to: Option<usize>,
    /// The most of a group's units that go
    #[arg(long, value_name = "SHARE")]
    max_share: Option<f64>,
    /// Groups that stay as they are, by a pattern for the weight that makes their units (repeatable)
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// The only groups that are pruned, by such a pattern (repeatable)
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    /// Samples: a .npz whose arrays are named after the inputs (x for a single one) and label, or a data descriptor (TOML)
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Samples to take of it; 512 where it is not given
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
    /// How the weights that read what is left make up for what is gone, by least squares on samples: none, together, or in-order, the
    /// default where there are samples
    #[arg(long, value_name = "HOW", value_parser = word::<Compensation>)]
    compensate: Option<Compensation>,
    /// Measure statistics anew once units are gone: of batch normalisations, or else let each product make the mean, or mean and spread,
    /// that it made before
    #[arg(long, value_name = "WHAT", value_parser = word::<Match>, requires = "data")]
    recalibrate: Option<Match>,
    #[command(flatten)]
    runtime: RuntimeChoice,
    /// Say what each group alone costs at several shares, and write nothing
    #[arg(long, conflicts_with_all = ["output", "amount", "sparse", "curves"], requires = "data")]
    sensitivity: bool,
    /// The shares to try for --sensitivity
    #[arg(long, value_name = "SHARE", value_delimiter = ',', default_values_t = [0.1, 0.3, 0.5, 0.7], requires = "sensitivity")]
    shares: Vec<f64>,
    /// Take as much of each group as costs least by these curves, what --sensitivity --json wrote, and not the same of all
    #[arg(long, value_name = "FILE.json", conflicts_with_all = ["channels", "max_time", "layers", "sparse", "scope"])]
    curves: Option<PathBuf>,
    /// The opset to write; without it the file's own
    #[arg(long, value_name = "N")]
    opset: Option<u32>,
    /// Leave batch normalisations in the network, which then learns better; else they are folded into what they follow
    #[arg(long)]
    keep_batch_norms: bool,
    /// What the criterion random draws by
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    aludel: &'static str,
    output: PathBuf,
    bytes_before: u64,
    bytes_after: u64,
    #[serde(flatten)]
    done: recipe::Report,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let loaded = load::load(&arguments.model)?;
    let model = &loaded.model;
    if arguments.show_groups {
        let groups = recipe::groups_of(model)?;
        return match arguments.json {
            true => Outcome::json(&groups),
            false => Ok(Outcome::done(groups.to_string())),
        };
    }
    let samples = load::samples(arguments.data.as_deref())?;
    // Loading onnxruntime takes longer than pruning by weights alone.
    let needs_runtime = samples.is_some() || arguments.max_time.is_some();
    let runtimes = if needs_runtime { load::open_runtimes(&arguments.runtime)? } else { Vec::new() };
    // onnxruntime comes last where both are at hand, and is the quicker one.
    let runtime: &dyn Runtime = runtimes.last().map_or(&Tract, |open| open.runtime.as_ref());
    let mut options = options(arguments);
    let progress = Progress::start("pruning");
    if let Some(path) = &arguments.curves {
        let curves: Sensitivity = serde_json::from_slice(&store::read(path)?)
            .with_context(|| format!("{} holds no curves: `--sensitivity --json` writes them", path.display()))?;
        options.curves = Some(curves);
    }
    let mut means = Means {
        samples: samples.as_ref(),
        runtime,
        output: None,
        seed: arguments.seed,
        learns: arguments.keep_batch_norms,
        known: None,
        is_timed: needs_runtime && !arguments.runtime.runtime.is_empty(),
        told: &mut |n| progress.set_message(format!("looking at samples: {n}")),
    };
    if arguments.sensitivity {
        let told = &mut |done: usize, of: usize| progress.set_message(format!("network {} of {of}", done + 1));
        let curves = recipe::sensitivity(model, &options, &arguments.shares, &mut means, told)?;
        drop(progress);
        return match arguments.json {
            true => Outcome::json(&curves),
            false => Ok(Outcome::done(curves_text(&curves, runtime.name()))),
        };
    }
    let pruned = recipe::prune(model, &options, &mut means)
        .with_context(|| format!("{} was not pruned", arguments.model.display()))?;
    drop(progress);
    let output = arguments.output.as_ref().context("-o is missing: where to write")?;
    let report = write(arguments, output, &pruned, loaded.file_bytes)?;
    let outcome = if arguments.json { Outcome::json(&report)? } else { Outcome::done(text(&report)) };
    let code = u8::from(report.done.is_missed);
    Ok(Outcome { code, ..outcome })
}

fn options(arguments: &Arguments) -> PruneOptions {
    let usual = PruneOptions::default();
    let sparse = SparseOptions {
        sparsity: arguments.sparsity,
        pattern: arguments.pattern.unwrap_or_default(),
        criterion: arguments.sparse_criterion.unwrap_or_default(),
        scope: arguments.scope.unwrap_or(SparseOptions::default().scope),
        only: arguments.only.clone(),
        exclude: arguments.exclude.clone(),
        ..SparseOptions::default()
    };
    let is_sparse = arguments.sparsity.is_some() || arguments.pattern.is_some();
    // Patterns and the scope are of what goes.
    let (only, exclude) = match is_sparse {
        true => (Vec::new(), Vec::new()),
        false => (arguments.only.clone(), arguments.exclude.clone()),
    };
    PruneOptions {
        channels: arguments.channels,
        macs: arguments.macs,
        params: arguments.params,
        bytes: arguments.bytes,
        max_time: arguments.max_time,
        layers: arguments.layers,
        sparse: is_sparse.then_some(sparse),
        criterion: arguments.criterion.unwrap_or(usual.criterion),
        scope: arguments.scope.filter(|_| !is_sparse).unwrap_or(usual.scope),
        normalize: arguments.normalize,
        min_width: arguments.min_width,
        round_to: arguments.round_to,
        max_share: arguments.max_share,
        compensate: arguments.compensate,
        recalibrate: arguments.recalibrate,
        exclude,
        only,
        samples: arguments.samples,
        ..usual
    }
}

fn write(arguments: &Arguments, output: &Path, pruned: &Pruned, bytes_before: u64) -> anyhow::Result<Report> {
    let (_, bytes_after) = load::write(&pruned.model, output, arguments.opset)?;
    Ok(Report {
        aludel: env!("CARGO_PKG_VERSION"),
        output: output.to_owned(),
        bytes_before,
        bytes_after,
        done: pruned.report.clone(),
    })
}

fn text(report: &Report) -> String {
    let done = &report.done;
    let (before, after) = (&done.before, &done.after);
    let change = |before: String, after: String| format!("{before} → {after}");
    let sizes = [
        ("file", change(format::bytes(report.bytes_before), format::bytes(report.bytes_after))),
        ("MACs", change(format::count(before.macs), format::count(after.macs))),
        ("parameters", change(format::count(before.parameters), format::count(after.parameters))),
    ];
    let columns = [("pruned", Side::Left), ("", Side::Left)];
    let mut text = table(&columns, sizes.into_iter().map(|(what, how)| vec![what.to_string(), how]));
    let is_smaller = |group: &&GroupReport| group.n_left < group.n_units;
    if done.groups.iter().any(|group| is_smaller(&group)) {
        let columns = [("group", Side::Left), ("units", Side::Left), ("before", Side::Right), ("left", Side::Right)];
        let cells = |group: &GroupReport| {
            let kind = group.kind.to_string();
            vec![group.group.clone(), kind, group.n_units.to_string(), group.n_left.to_string()]
        };
        text.push('\n');
        text.push_str(&table(&columns, done.groups.iter().filter(is_smaller).map(cells)));
    }
    if let Some(zeros) = &done.zeros {
        let [gzip, zstd] = [zeros.compressed.gzip, zeros.compressed.zstd].map(format::bytes);
        let share = 100.0 * zeros.of.sparsity();
        text.push_str(&format!(
            "{share:.1} % of {} weights are zero; the file is {gzip} by gzip, {zstd} by zstd\n",
            zeros.of.n
        ));
        zeros.gains.iter().for_each(|(runtime, gain)| text.push_str(&format!("{runtime}: {gain}\n")));
    }
    done.layers.iter().for_each(|layer| text.push_str(&format!("without {layer}\n")));
    done.notes.iter().for_each(|note| text.push_str(&format!("{note}\n")));
    done.refused.iter().for_each(|(name, reason)| text.push_str(&format!("{name} stays: {reason}\n")));
    text
}

/// What each group alone costs.
fn curves_text(curves: &Sensitivity, runtime: &str) -> String {
    let has_labels = curves.accuracy.is_some();
    let mut columns = vec![
        ("group", Side::Left),
        ("gone", Side::Right),
        ("of", Side::Right),
        ("MACs less, %", Side::Right),
        ("signal over noise, dB", Side::Right),
    ];
    columns.extend(has_labels.then_some(("right, %", Side::Right)));
    let rows = curves.curves.iter().flat_map(|curve| curve.points.iter().map(move |point| (curve, point)));
    let cells = |(curve, point): (&Curve, &Point)| {
        let noise = format!("{:.1}", -10.0 * point.noise.log10());
        let accuracy = has_labels.then(|| point.accuracy.map_or("–".to_string(), |it| format!("{:.2}", 100.0 * it)));
        let less = 100.0 * (1.0 - point.costs.macs as f64 / curves.costs.macs.max(1) as f64);
        let (gone, of) = (point.units.to_string(), curve.n_units.to_string());
        [curve.name.to_string(), gone, of, format!("{less:.1}"), noise].into_iter().chain(accuracy).collect()
    };
    let whole = curves
        .accuracy
        .map_or(String::new(), |share| format!("; the whole network is right on {:.2} %", 100.0 * share));
    format!("on {runtime}, each group alone{whole}\n\n") + &table(&columns, rows.map(cells))
}
