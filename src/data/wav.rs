//! Recordings (WAV), a file each, as samples or as features of their sound.

use std::io::Cursor;

use hound::{SampleFormat, WavReader};

use super::column::{Column, Kind};
use super::descriptor::Keys;
use super::error::DataError;
use super::mel::{Mel, Plan};
use super::number::narrow;
use super::samples::Samples;
use super::tree::Tree;
use crate::graph::tensor::Tensor;

/// Recordings and what becomes of them.
#[derive(Clone, Debug)]
pub struct Wav {
    /// Where they are.
    pub tree: Tree,
    /// Samples a second; all recordings must have it.
    pub rate: u32,
    /// What becomes of them.
    pub features: Features,
}

/// What becomes of a recording.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Features {
    /// So many samples from -1 to 1, cut or followed by silence: [1, samples].
    Samples(usize),
    /// A logarithmic mel spectrogram [1, bands, frames], or cepstral coefficients [1, coefficients, frames].
    Mel(Mel),
}

impl Wav {
    pub(super) fn from_keys(keys: &mut Keys) -> Result<Wav, DataError> {
        let tree = Tree::from_keys(keys)?;
        let rate = keys.need("rate", "the samples a second")?;
        let what = "{ mel = { bands = 40, frames = 64, frame = 256, hop = 128 } } or { samples = 8000 }";
        let features = keys.need("features", what)?;
        if let Features::Samples(n_samples) = features
            && !(1..=MOST_SAMPLES).contains(&n_samples)
        {
            return Err(DataError::key("features", format!("`samples` is {n_samples}; give 1 to {MOST_SAMPLES}")));
        }
        Ok(Wav { tree, rate, features })
    }

    pub(super) fn read(&self, input: &str) -> Result<Samples, DataError> {
        let plan = match &self.features {
            Features::Samples(_) => None,
            Features::Mel(mel) => Some(mel.plan(self.rate)?),
        };
        let kind = Kind::Numbers { channels_last: false, full_scale: None };
        let make = |bytes: &[u8]| self.make(bytes, plan.as_ref());
        self.tree.read(&["wav"], input, |values| Column::new(values, kind), make)
    }

    fn make(&self, bytes: &[u8], plan: Option<&Plan>) -> Result<Tensor, String> {
        let (rate, mut sound) = decode(bytes)?;
        if rate != self.rate {
            let remedy = format!("resample it (sox in.wav -r {} out.wav), or set `rate` if all have it", self.rate);
            return Err(format!("has {rate} samples a second, not {}; {remedy}", self.rate));
        }
        let tensor = match (&self.features, plan) {
            (Features::Mel(_), Some(plan)) => {
                let [n_rows, n_frames] = plan.shape();
                Tensor::new(&[1, n_rows, n_frames], plan.features(&sound))
            }
            (Features::Samples(n_samples), _) => {
                sound.resize(*n_samples, 0.0);
                Tensor::new(&[1, *n_samples], sound)
            }
            (Features::Mel(_), None) => return Err("features were not planned".to_owned()),
        };
        tensor.map_err(|error| error.to_string())
    }
}

/// An hour at 16 kHz; more is a mistake.
const MOST_SAMPLES: usize = 16_000 * 3600;

/// Samples a second, and the mean of the channels from -1 to 1.
fn decode(bytes: &[u8]) -> Result<(u32, Vec<f32>), String> {
    let problem = |error: hound::Error| format!("is no WAV file that is read ({error}); convert it to 16-bit PCM");
    let mut reader = WavReader::new(Cursor::new(bytes)).map_err(problem)?;
    let spec = reader.spec();
    let n_channels = usize::from(spec.channels).max(1);
    // Not collected: the header says how many samples there are, and may lie.
    let mut samples = Vec::new();
    match spec.sample_format {
        SampleFormat::Float => {
            for sample in reader.samples::<f32>() {
                samples.push(sample.map_err(problem)?);
            }
        }
        SampleFormat::Int => {
            if !(1..=32).contains(&spec.bits_per_sample) {
                return Err(format!("has samples of {} bits; convert it to 16-bit PCM", spec.bits_per_sample));
            }
            let scale = narrow(0.5f64.powi(i32::from(spec.bits_per_sample) - 1));
            for sample in reader.samples::<i32>() {
                samples.push(narrow(f64::from(sample.map_err(problem)?)) * scale);
            }
        }
    }
    if n_channels > 1 {
        let share = 1.0 / f32::from(spec.channels);
        samples = samples.chunks(n_channels).map(|frame| frame.iter().sum::<f32>() * share).collect();
    }
    Ok((spec.sample_rate, samples))
}

#[cfg(test)]
pub(super) mod tests {
    use hound::{WavSpec, WavWriter};
    use proptest::prelude::*;

    use super::*;

    /// A file of 16-bit samples.
    pub(crate) fn file(channels: u16, rate: u32, samples: &[i16]) -> Vec<u8> {
        let spec = WavSpec { channels, sample_rate: rate, bits_per_sample: 16, sample_format: SampleFormat::Int };
        let mut bytes = Cursor::new(Vec::new());
        let mut writer = WavWriter::new(&mut bytes, spec).expect("in memory");
        samples.iter().for_each(|&sample| writer.write_sample(sample).expect("in memory"));
        writer.finalize().expect("in memory");
        bytes.into_inner()
    }

    #[test]
    fn channels_are_averaged_and_samples_scaled() {
        assert_eq!(decode(&file(1, 8000, &[0, 16384, -32768])), Ok((8000, vec![0.0, 0.5, -1.0])));
        assert_eq!(decode(&file(2, 16000, &[0, 16384, -32768, 0])), Ok((16000, vec![0.25, -0.5])));
        let whole = file(1, 8000, &[1, 2, 3]);
        assert!(decode(&whole[..whole.len() - 1]).is_err());
        assert!(decode(b"RIFF").is_err());
    }

    proptest! {
        #[test]
        fn no_change_makes_it_panic(at in 0..50usize, value in any::<u8>(), cut in 0..50usize, second in 20..46usize) {
            let mut bytes = file(2, 8000, &[1, 2, 3, 4]);
            bytes[at] = value;
            let _ = decode(&bytes);
            bytes[second] = value;
            let _ = decode(&bytes);
            let _ = decode(&bytes[..cut]);
        }
    }
}
