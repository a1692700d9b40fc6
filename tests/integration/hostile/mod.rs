//! Files that somebody has damaged, by accident or on purpose: each gives an error or a model, at once, in little memory.

mod allocation;
mod bombs;
pub(crate) mod exercise;
mod mutate;
mod runtimes;
mod time;
mod wire;

use std::any::Any;
use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::support;
use exercise::exercise;

const SEED: u64 = 0x616c_7564_656c;
const MOST_TIME: Duration = Duration::from_secs(1);

/// What a mutant may take beside the bytes that it is read from: so many times its size, and so much whatever its size.
const MOST_TIMES: usize = 8;
const MOST_BESIDE: usize = 16 << 20;

/// What a run of mutants came to.
#[derive(Debug, Default)]
struct Figures {
    n_accepted: usize,
    n_refused: usize,
    refusals: BTreeSet<String>,
    slowest: Duration,
    most_bytes: usize,
    most_times: f64,
    faults: Vec<String>,
}

#[test]
fn mutants_of_small_models_do_no_harm() {
    let Some(data) = support::data() else { return };
    let mut files: Vec<PathBuf> = fs::read_dir(data.join("onnx-models"))
        .expect("a folder")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "onnx"))
        .collect();
    files.sort();
    check(&files, 20_000);
}

#[test]
fn mutants_of_a_large_model_do_no_harm() {
    let Some(data) = support::data() else { return };
    check(&[data.join("minilm-l6/model_f16w.onnx")], 200);
}

fn check(files: &[PathBuf], n_mutants: usize) {
    let models: Vec<Vec<u8>> = files.iter().map(|path| fs::read(path).expect("readable")).collect();
    let figures = Mutex::new(Figures::default());
    let next = AtomicUsize::new(0);
    let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..n_threads {
            scope.spawn(|| {
                loop {
                    let idx = next.fetch_add(1, Ordering::Relaxed);
                    if idx >= n_mutants {
                        return;
                    }
                    let which = idx % models.len();
                    let mut random = mutate::Random::new(SEED.wrapping_add(idx as u64));
                    let mutant = Bytes::from(mutate::mutant(&models[which], &mut random));
                    try_one(&mutant, &format!("mutant {idx} of {}", files[which].display()), &figures);
                }
            });
        }
    });
    let figures = figures.into_inner().expect("no thread panicked");
    support::say(&format!(
        "{n_mutants} mutants of {} files: {} accepted, {} refused in {} ways, slowest {:.0} ms, most memory {} KiB, {:.1} \
         times the file\n",
        files.len(),
        figures.n_accepted,
        figures.n_refused,
        figures.refusals.len(),
        figures.slowest.as_secs_f64() * 1e3,
        figures.most_bytes / 1024,
        figures.most_times,
    ));
    if let Some(path) = std::env::var_os("ALUDEL_REFUSALS") {
        fs::write(path, figures.refusals.into_iter().collect::<Vec<_>>().join("\n")).expect("written");
    }
    assert!(figures.faults.is_empty(), "{} faults:\n{}", figures.faults.len(), figures.faults.join("\n"));
}

fn try_one(mutant: &Bytes, label: &str, figures: &Mutex<Figures>) {
    let ((result, n_bytes), taken) =
        time::taken(|| allocation::most_held(|| catch_unwind(AssertUnwindSafe(|| exercise(mutant.clone())))));
    let mut figures = figures.lock().expect("no thread panicked");
    let mut fault = None;
    match result {
        Ok(Ok(())) => figures.n_accepted += 1,
        Ok(Err(error)) => {
            figures.n_refused += 1;
            figures.refusals.insert(without_names(&error.to_string()));
        }
        Err(payload) => fault = Some(format!("panicked: {}", said(payload.as_ref()))),
    }
    if taken > MOST_TIME {
        fault = Some(format!("took {:.1} s", taken.as_secs_f64()));
    }
    if n_bytes > MOST_TIMES * mutant.len() + MOST_BESIDE {
        fault = Some(format!("took {n_bytes} bytes for a file of {}", mutant.len()));
    }
    if let Some(fault) = fault {
        let kept = std::env::temp_dir().join(format!("aludel-mutant-{}.onnx", figures.faults.len()));
        let _ = fs::write(&kept, mutant);
        figures.faults.push(format!("{label} {fault}; kept as {}", kept.display()));
    }
    figures.slowest = figures.slowest.max(taken);
    figures.most_bytes = figures.most_bytes.max(n_bytes);
    figures.most_times = figures.most_times.max(n_bytes as f64 / (mutant.len().max(MOST_BESIDE / 64)) as f64);
}

fn said(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
    text.unwrap_or("nothing").to_string()
}

/// A message without what it quotes and counts: its kind.
fn without_names(message: &str) -> String {
    let outside_quotes = message.split('`').step_by(2).collect::<Vec<_>>().join("`");
    outside_quotes.chars().filter(|letter| !letter.is_ascii_digit()).collect()
}
