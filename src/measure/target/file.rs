//! A device's file: TOML in, [`Target`] out.

use std::path::Path;

use serde::Deserialize;

use super::{ARITHMETICS, Budget, Runner, Target, TargetError, built_in_text, names};
use crate::measure::child::RuntimeName;

/// The keys as they stand in a file; what is missing comes from `base`.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    base: Option<String>,
    name: Option<String>,
    title: Option<String>,
    arch: Option<String>,
    instruction_set: Option<Vec<String>>,
    n_cores: Option<usize>,
    memory_bytes: Option<u64>,
    flash_bytes: Option<u64>,
    runtime: Option<RuntimeName>,
    n_threads: Option<usize>,
    arithmetic: Option<String>,
    runner: Option<Runner>,
    build: Option<String>,
    budget: Option<Budget>,
}

/// The device that a text describes.
pub(super) fn parse(text: &str, stem: &str, path: &Path) -> Result<Target, TargetError> {
    let mut file = parse_text(text, path)?;
    let value = |key, reason: String| TargetError::Value { file: path.to_owned(), key, reason };
    if let Some(base) = file.base.take() {
        let known = built_in_text(&base).ok_or_else(|| {
            value("base", format!("there is no device `{base}`; there are {}", names().collect::<Vec<_>>().join(", ")))
        })?;
        file = file.over(parse_text(known, path)?);
    }
    let missing = |key| value(key, "it is missing: give it, or a `base` that has it".to_owned());
    let name = file.name.unwrap_or_else(|| stem.to_owned());
    let runner = file.runner.unwrap_or_default();
    let target = Target {
        title: file.title.unwrap_or_else(|| name.clone()),
        name,
        arch: file.arch.ok_or_else(|| missing("arch"))?,
        instruction_set: file.instruction_set.unwrap_or_default(),
        n_cores: file.n_cores,
        memory_bytes: file.memory_bytes,
        flash_bytes: file.flash_bytes,
        runtime: file.runtime,
        n_threads: file.n_threads.unwrap_or(1),
        arithmetic: file.arithmetic,
        runner: runner.within(path.parent().unwrap_or(Path::new(""))),
        build: file.build,
        budget: file.budget.unwrap_or_default(),
    };
    match wrong(&target) {
        Some((key, reason)) => Err(value(key, reason)),
        None => Ok(target),
    }
}

fn parse_text(text: &str, path: &Path) -> Result<File, TargetError> {
    toml::from_str(text).map_err(|error: toml::de::Error| TargetError::Syntax {
        file: path.to_owned(),
        reason: error.to_string().trim_end().to_owned(),
    })
}

impl File {
    fn over(self, base: File) -> File {
        File {
            base: None,
            name: self.name,
            title: self.title.or(base.title),
            arch: self.arch.or(base.arch),
            instruction_set: self.instruction_set.or(base.instruction_set),
            n_cores: self.n_cores.or(base.n_cores),
            memory_bytes: self.memory_bytes.or(base.memory_bytes),
            flash_bytes: self.flash_bytes.or(base.flash_bytes),
            runtime: self.runtime.or(base.runtime),
            n_threads: self.n_threads.or(base.n_threads),
            arithmetic: self.arithmetic.or(base.arithmetic),
            runner: self.runner.or(base.runner),
            build: self.build.or(base.build),
            budget: self.budget.or(base.budget),
        }
    }
}

/// The first key whose value makes no sense, and why.
fn wrong(target: &Target) -> Option<(&'static str, String)> {
    if target.name.is_empty() || target.name.contains(char::is_whitespace) {
        return Some(("name", format!("`{}` is no single word", target.name)));
    }
    if target.arch.is_empty() {
        return Some(("arch", "it is empty".to_owned()));
    }
    if target.n_cores == Some(0) {
        return Some(("n_cores", "it must be at least 1".to_owned()));
    }
    if target.n_threads == 0 || target.n_cores.is_some_and(|n_cores| target.n_threads > n_cores) {
        let most = target.n_cores.map_or_else(String::new, |n_cores| format!(" and at most the {n_cores} cores"));
        return Some(("n_threads", format!("it is {}, and must be at least 1{most}", target.n_threads)));
    }
    let sizes = [("memory_bytes", target.memory_bytes), ("flash_bytes", target.flash_bytes)];
    if let Some((key, _)) = sizes.iter().find(|(_, size)| *size == Some(0)) {
        return Some((key, "it must be at least 1".to_owned()));
    }
    if let Some(arithmetic) = target.arithmetic.as_deref().filter(|name| !ARITHMETICS.contains(name)) {
        return Some(("arithmetic", format!("`{arithmetic}` is none; there are {}", ARITHMETICS.join(", "))));
    }
    let is_triple = |text: &str| {
        text.contains('-')
            && !text.starts_with('-')
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    if let Some(build) = target.build.as_deref().filter(|triple| !is_triple(triple)) {
        return Some(("build", format!("`{build}` is no target triple; `rustc --print target-list` lists them")));
    }
    let Budget { latency_p95_ms, memory_kib, size_kib } = target.budget;
    let limits =
        [("budget.latency_p95_ms", latency_p95_ms), ("budget.memory_kib", memory_kib), ("budget.size_kib", size_kib)];
    let is_limit = |limit: f64| limit.is_finite() && limit > 0.0;
    if let Some((key, _)) = limits.iter().find(|(_, limit)| limit.is_some_and(|limit| !is_limit(limit))) {
        return Some((key, "it must be a number above 0".to_owned()));
    }
    target.runner.wrong()
}
