//! The `.ts` text format of the UCR and UEA archives (as sktime reads it): a case a line, its dimensions separated by `:`,
//! the numbers of a dimension by `,`, the label last.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;

use super::column::{Column, Kind, Values};
use super::error::DataError;
use super::file;
use super::labels::Raw;
use super::samples::{Part, Places, Samples, join};
use super::split::Split;
use crate::graph::tensor::Tensor;

/// The series of all files: f32 [n, time, channels] where all are of one length; else each [time, channels], with `lengths`
/// (i64 [n]) and `mask` (f32 [time], 1 where there is a frame).
pub(super) fn read(files: &[(Split, PathBuf)], input: &str) -> Result<Samples, DataError> {
    let each = files.iter().map(|(split, path)| read_file(*split, path, input));
    let mut samples = join(each.collect::<Result<_, _>>()?)?;
    let Some(column) = samples.columns.get_mut(input) else { return Ok(samples) };
    let Values::Ragged(series) = &column.values else { return Ok(samples) };
    let lengths: Vec<usize> = series.iter().filter_map(|series| series.shape().first().copied()).collect();
    let (Some(&first), Some(shape)) = (lengths.first(), series.first().map(Tensor::shape)) else { return Ok(samples) };
    if lengths.iter().all(|&length| length == first) {
        let shape = [&[series.len()], shape].concat();
        let elements = series.iter().map(Tensor::as_slice::<f32>).collect::<Result<Vec<_>, _>>()?.concat();
        column.values = Values::Dense(Tensor::new(&shape, elements)?);
        return Ok(samples);
    }
    let masks = lengths.iter().map(|&length| Tensor::vector(vec![1f32; length])).collect();
    let lengths = lengths.into_iter().map(|length| i64::try_from(length).unwrap_or(i64::MAX)).collect();
    let codes = Kind::Codes { pad: 0 };
    samples.columns.insert("lengths".to_owned(), Column::new(Values::Dense(Tensor::vector(lengths)), codes.clone()));
    samples.columns.insert("mask".to_owned(), Column::new(Values::Ragged(masks), codes));
    Ok(samples)
}

fn read_file(split: Split, path: &Path, input: &str) -> Result<Samples, DataError> {
    let cases = parse(&file::read(path)?).map_err(|(line, problem)| DataError::line(path, line, problem))?;
    let n_samples = cases.series.len();
    let kind = Kind::Numbers { channels_last: true, full_scale: None };
    let column = Column::new(Values::Ragged(cases.series), kind);
    let parts = vec![Part { path: path.to_owned(), split, n_samples, places: Places::Lines(cases.lines) }];
    Ok(Samples {
        columns: IndexMap::from([(input.to_owned(), column)]),
        labels: cases.labels,
        parts,
        unseen: Vec::new(),
    })
}

struct Cases {
    series: Vec<Tensor>,
    labels: Option<Raw>,
    lines: Vec<u64>,
}

/// What the lines before `@data` say.
#[derive(Default)]
struct Header {
    has_class: bool,
    has_target: bool,
    n_channels: Option<usize>,
}

/// The line of what is wrong, and what it is.
type Problem = (u64, String);

fn parse(bytes: &[u8]) -> Result<Cases, Problem> {
    let mut header = Header::default();
    let mut in_data = false;
    let (mut series, mut lines, mut names, mut targets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut last = 0;
    for (number, line) in (1u64..).zip(bytes.split(|byte| *byte == b'\n')) {
        last = number;
        let problem = |problem: String| (number, problem);
        let line =
            std::str::from_utf8(line).map_err(|_| problem("is no UTF-8; convert the file with iconv".to_owned()))?;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if !in_data {
            in_data = header.take(line).map_err(problem)?;
            continue;
        }
        let (values, label) = match line.rsplit_once(':') {
            Some((values, label)) if header.has_class || header.has_target => (values, Some(label.trim())),
            _ if header.has_class || header.has_target => {
                return Err(problem("has no label after the last `:`; the line may have been cut".to_owned()));
            }
            _ => (line, None),
        };
        let case = case(values, header.n_channels).map_err(problem)?;
        header.n_channels = case.shape().get(1).copied();
        series.push(case);
        lines.push(number);
        match label {
            Some(label) if header.has_target => {
                let target = label.parse::<f32>().map_err(|_| problem(format!("the target `{label}` is no number")))?;
                targets.push(target);
            }
            Some(label) => names.push(label.to_owned()),
            None => {}
        }
    }
    if series.is_empty() {
        let what = if in_data { "has no case after `@data`" } else { "has no `@data`; is it a .ts file?" };
        return Err((last, what.to_owned()));
    }
    let labels = match (header.has_class, header.has_target) {
        (true, _) => Some(Raw::Names(names)),
        (false, true) => Some(Raw::Numbers(targets, vec!["target".to_owned()])),
        (false, false) => None,
    };
    Ok(Cases { series, labels, lines })
}

impl Header {
    /// Takes a line; whether the data begin after it.
    fn take(&mut self, line: &str) -> Result<bool, String> {
        let lower = line.to_ascii_lowercase();
        let mut words = lower.split_whitespace();
        let (key, value) = (words.next().unwrap_or(""), words.next());
        let is_true = value == Some("true");
        match key {
            "@data" => return Ok(true),
            "@timestamps" if is_true => {
                return Err("says that numbers carry time stamps, which are not read; write plain series".to_owned());
            }
            "@classlabel" => self.has_class = is_true,
            "@targetlabel" => self.has_target = is_true,
            "@univariate" if is_true => self.n_channels = Some(1),
            "@dimensions" | "@dimension" => {
                let n_channels = value.and_then(|value| value.parse().ok()).filter(|&n: &usize| n > 0);
                self.n_channels = Some(n_channels.ok_or_else(|| format!("`{line}` gives no number of dimensions"))?);
            }
            _ if key.starts_with('@') => {}
            _ => return Err("stands before `@data` and begins with neither `@` nor `#`; is it a .ts file?".to_owned()),
        }
        Ok(false)
    }
}

/// A case: f32 [time, channels].
fn case(text: &str, n_channels: Option<usize>) -> Result<Tensor, String> {
    let channels: Vec<Vec<f32>> = text.split(':').map(numbers).collect::<Result<_, _>>()?;
    let n_frames = channels.first().map_or(0, Vec::len);
    if let Some(expected) = n_channels.filter(|&expected| expected != channels.len()) {
        return Err(format!("has {} dimensions, where there are {expected}", channels.len()));
    }
    if let Some((idx, channel)) = channels.iter().enumerate().find(|(_, channel)| channel.len() != n_frames) {
        let lengths = format!("{} numbers, where the first has {n_frames}", channel.len());
        return Err(format!("dimension {idx} has {lengths}; dimensions of one case must be equally long"));
    }
    let mut frames: Vec<f32> = Vec::with_capacity(n_frames.saturating_mul(channels.len()));
    for frame in 0..n_frames {
        frames.extend(channels.iter().filter_map(|channel| channel.get(frame)));
    }
    Tensor::new(&[n_frames, channels.len()], frames).map_err(|error| error.to_string())
}

fn numbers(text: &str) -> Result<Vec<f32>, String> {
    let each = text.split(',').map(|number| match number.trim() {
        "?" | "NaN" => Ok(f32::NAN),
        number => number.parse().map_err(|_| format!("`{number}` is no number")),
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &str = "# two cases\n@problemName p\n@univariate false\n@dimensions 2\n@classLabel true a b\n@data\n\
                        1,2,3:4,5,6:a\n7:?:b\n";

    fn check(text: &str, expected: Result<&[[usize; 2]], &str>) {
        match (parse(text.as_bytes()), expected) {
            (Ok(cases), Ok(shapes)) => {
                assert!(cases.series.iter().map(Tensor::shape).eq(shapes.iter().map(|s| &s[..])));
            }
            (Err((line, problem)), Err(part)) => {
                let text = format!("line {line}: {problem}");
                assert!(text.contains(part), "{text}");
            }
            (got, expected) => panic!("expected {expected:?}, got {:?}", got.map(|cases| cases.series)),
        }
    }

    #[test]
    fn cases_have_lengths_of_their_own() {
        check(FILE, Ok(&[[3, 2], [1, 2]]));
        let cases = parse(FILE.as_bytes()).expect("two cases");
        assert_eq!(cases.series[0].as_slice::<f32>(), Ok(&[1.0, 4.0, 2.0, 5.0, 3.0, 6.0][..]));
        assert_eq!(cases.lines, [7, 8]);
        check(&FILE.replace("@classLabel true a b", "@targetlabel true"), Err("line 7: the target `a` is no number"));
        check(&FILE.replace("7:?:b", "7:8,9:b"), Err("line 8: dimension 1 has 2 numbers"));
        check(&FILE.replace("7:?:b", "7:b"), Err("line 8: has 1 dimensions, where there are 2"));
        check(&FILE.replace("7:?:b", "7"), Err("line 8: has no label"));
        check(&FILE.replace("7:?:b", "x:?:b"), Err("line 8: `x` is no number"));
        check(&FILE.replace("@dimensions 2", "@timestamps true"), Err("line 4: says that numbers carry time stamps"));
        check(&FILE.replace("@data", ""), Err("line 7: stands before `@data`"));
        check("@data\n", Err("no case after"));
        check("", Err("has no `@data`"));
        check("@univariate true\n@data\n1,2\n", Ok(&[[2, 1]]));
    }

    proptest! {
        #[test]
        fn no_change_makes_it_panic(at in 0..FILE.len(), byte in any::<u8>(), cut in 0..FILE.len()) {
            let mut bytes = FILE.as_bytes().to_vec();
            bytes[at] = byte;
            let _ = parse(&bytes);
            let _ = parse(&bytes[..cut]);
        }
    }
}
