//! Features of sound: logarithmic mel spectrograms and mel-frequency cepstral coefficients.

use std::f64::consts::PI;
use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

use super::error::DataError;
use super::number::{count, narrow};

/// How sound becomes features. A frame is `frame` samples under a periodic Hann window, zeros behind it up to `fft`;
/// frame t begins at sample t · `hop`. Sound ends in silence or is cut so that there are `frames` frames.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mel {
    /// Mel bands.
    pub bands: usize,
    /// Frames.
    pub frames: usize,
    /// Samples of a frame.
    pub frame: usize,
    /// Samples from one frame's beginning to the next.
    pub hop: usize,
    /// Samples that are transformed; `frame` where it is not given.
    pub fft: Option<usize>,
    /// The lower end of the first band.
    #[serde(default)]
    pub low_hz: f64,
    /// The upper end of the last band; half the sampling rate where it is not given.
    pub high_hz: Option<f64>,
    /// The mel scale.
    #[serde(default)]
    pub scale: MelScale,
    /// How many cepstral coefficients are given instead of the bands.
    pub coefficients: Option<usize>,
}

/// Which frequencies are equally far apart to the ear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MelScale {
    /// 2595 log10(1 + f / 700); triangles of height 1 (the HTK book, 5.4).
    #[default]
    Htk,
    /// Linear up to 1 kHz, logarithmic above; triangles of equal area (M. Slaney, Auditory Toolbox, 1998).
    Slaney,
}

/// Features with everything that is computed once.
pub(super) struct Plan {
    options: Mel,
    window: Vec<f32>,
    transform: Arc<dyn RealToComplex<f32>>,
    /// For each band the first bin and the weights from there.
    filters: Vec<(usize, Vec<f32>)>,
    /// For each coefficient the weight of each band; empty where bands are given.
    cosines: Vec<Vec<f32>>,
}

/// Added to the energies, so that silence has a logarithm.
const FLOOR: f32 = 1e-6;

/// Sizes beyond this are mistakes.
const MOST: usize = 1 << 20;

impl Mel {
    /// What is computed once, for sound of this sampling rate.
    pub(super) fn plan(&self, rate: u32) -> Result<Plan, DataError> {
        let problem = |text: String| Err(DataError::key("features", text));
        let fft = self.fft.unwrap_or(self.frame);
        let sizes =
            [("bands", self.bands), ("frames", self.frames), ("frame", self.frame), ("hop", self.hop), ("fft", fft)];
        if let Some((name, size)) = sizes.into_iter().find(|row| !(1..=MOST).contains(&row.1)) {
            return problem(format!("`{name}` is {size}; give a number from 1 to {MOST}"));
        }
        let highest = f64::from(rate) / 2.0;
        let high = self.high_hz.unwrap_or(highest);
        if fft < self.frame {
            return problem(format!("`fft` is {fft}; give at least the {} samples of a frame", self.frame));
        }
        if !(self.low_hz >= 0.0 && self.low_hz < high && high <= highest) {
            return problem(format!("bands from {} to {high} Hz do not fit sound of {rate} Hz", self.low_hz));
        }
        if self.coefficients.is_some_and(|n| n == 0 || n > self.bands) {
            return problem(format!("`coefficients` must be from 1 to the number of bands, {}", self.bands));
        }
        let filters = filters(self, high, f64::from(rate), fft);
        if let Some(empty) = filters.iter().position(|filter| filter.1.is_empty()) {
            return problem(format!(
                "band {empty} of {} has no frequency in it; use fewer bands or a larger `fft`",
                self.bands
            ));
        }
        let hann = |idx| narrow(0.5 - 0.5 * (2.0 * PI * count(idx) / count(self.frame)).cos());
        Ok(Plan {
            options: self.clone(),
            window: (0..self.frame).map(hann).collect(),
            transform: RealFftPlanner::new().plan_fft_forward(fft),
            filters,
            cosines: (0..self.coefficients.unwrap_or(0)).map(|idx| cosine(idx, self.bands)).collect(),
        })
    }
}

impl Plan {
    /// The rows and columns of the features: bands or coefficients, and frames.
    pub(super) fn shape(&self) -> [usize; 2] {
        [self.options.coefficients.unwrap_or(self.options.bands), self.options.frames]
    }

    /// The features of sound, row-major.
    pub(super) fn features(&self, sound: &[f32]) -> Vec<f32> {
        let [n_rows, n_frames] = self.shape();
        let mut features = vec![0.0; n_rows * n_frames];
        let mut input = self.transform.make_input_vec();
        let mut spectrum = self.transform.make_output_vec();
        let mut scratch = self.transform.make_scratch_vec();
        for frame in 0..n_frames {
            let sound = frame.checked_mul(self.options.hop).and_then(|start| sound.get(start..)).unwrap_or(&[]);
            input.fill(0.0);
            for ((x, sample), weight) in input.iter_mut().zip(sound).zip(&self.window) {
                *x = sample * weight;
            }
            self.transform
                .process_with_scratch(&mut input, &mut spectrum, &mut scratch)
                .expect("the buffers are of the transform's own lengths");
            let bands = self.bands(&spectrum);
            let column = features.iter_mut().skip(frame).step_by(n_frames);
            if self.cosines.is_empty() {
                column.zip(bands).for_each(|(feature, band)| *feature = band);
            } else {
                let coefficients = self.cosines.iter().map(|row| row.iter().zip(&bands).map(|(c, x)| c * x).sum());
                column.zip(coefficients).for_each(|(feature, coefficient): (_, f32)| *feature = coefficient);
            }
        }
        features
    }

    fn bands(&self, spectrum: &[Complex<f32>]) -> Vec<f32> {
        let band = |(first, weights): &(usize, Vec<f32>)| {
            let bins = spectrum.iter().skip(*first).zip(weights);
            let energy: f32 = bins.map(|(bin, weight)| bin.norm_sqr() * weight).sum();
            (energy + FLOOR).ln()
        };
        self.filters.iter().map(band).collect()
    }
}

impl MelScale {
    fn mel(self, hz: f64) -> f64 {
        match self {
            MelScale::Htk => 2595.0 * (1.0 + hz / 700.0).log10(),
            MelScale::Slaney if hz < 1000.0 => hz * 3.0 / 200.0,
            MelScale::Slaney => 15.0 + (hz / 1000.0).ln() / (6.4f64.ln() / 27.0),
        }
    }

    fn hz(self, mel: f64) -> f64 {
        match self {
            MelScale::Htk => 700.0 * (10f64.powf(mel / 2595.0) - 1.0),
            MelScale::Slaney if mel < 15.0 => mel * 200.0 / 3.0,
            MelScale::Slaney => 1000.0 * ((mel - 15.0) * (6.4f64.ln() / 27.0)).exp(),
        }
    }
}

fn filters(options: &Mel, high: f64, rate: f64, fft: usize) -> Vec<(usize, Vec<f32>)> {
    let scale = options.scale;
    let (low_mel, high_mel) = (scale.mel(options.low_hz), scale.mel(high));
    let edge = |idx: usize| scale.hz(low_mel + (high_mel - low_mel) * count(idx) / count(options.bands + 1));
    let triangle = |band: usize| {
        let [left, centre, right] = [edge(band), edge(band + 1), edge(band + 2)];
        let height = match scale {
            MelScale::Htk => 1.0,
            MelScale::Slaney => 2.0 / (right - left),
        };
        let weight = |bin: usize| {
            let hz = count(bin) * rate / count(fft);
            ((hz - left) / (centre - left)).min((right - hz) / (right - centre)).max(0.0) * height
        };
        let mut weights: Vec<f64> = (0..=fft / 2).map(weight).collect();
        let first = weights.iter().position(|&weight| weight > 0.0).unwrap_or(weights.len());
        let end = weights.iter().rposition(|&weight| weight > 0.0).map_or(first, |last| last + 1);
        (first, weights.drain(first..end).map(narrow).collect())
    };
    (0..options.bands).map(triangle).collect()
}

/// A row of the orthonormal discrete cosine transform of type II.
fn cosine(idx: usize, n_bands: usize) -> Vec<f32> {
    let norm = (if idx == 0 { 1.0 } else { 2.0 } / count(n_bands)).sqrt();
    let weight = |band| narrow(norm * (PI * count(idx) * (count(band) + 0.5) / count(n_bands)).cos());
    (0..n_bands).map(weight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(coefficients: Option<usize>, scale: MelScale) -> Mel {
        Mel {
            bands: 8,
            frames: 3,
            frame: 64,
            hop: 40,
            fft: Some(128),
            low_hz: 100.0,
            high_hz: None,
            scale,
            coefficients,
        }
    }

    /// The same by the definitions, a plain loop in f64.
    fn reference(options: &Mel, sound: &[f64], rate: f64) -> Vec<Vec<f64>> {
        let fft = options.fft.expect("set");
        let mel = |hz: f64| 2595.0 * (1.0 + hz / 700.0).log10();
        let hz = |mel: f64| 700.0 * (10f64.powf(mel / 2595.0) - 1.0);
        let (low, high) = (mel(options.low_hz), mel(rate / 2.0));
        let edges: Vec<f64> = (0..10).map(|idx| hz(low + (high - low) * f64::from(idx) / 9.0)).collect();
        let mut frames = Vec::new();
        for frame in 0..options.frames {
            let mut powers = Vec::new();
            for bin in 0..=fft / 2 {
                let (mut re, mut im) = (0.0, 0.0);
                for idx in 0..options.frame {
                    let x = sound.get(frame * options.hop + idx).copied().unwrap_or(0.0);
                    let x = x * (0.5 - 0.5 * (2.0 * PI * count(idx) / count(options.frame)).cos());
                    let angle = 2.0 * PI * count(bin * idx) / count(fft);
                    (re, im) = (re + x * angle.cos(), im - x * angle.sin());
                }
                powers.push(re * re + im * im);
            }
            let band = |band: usize| -> f64 {
                let [left, centre, right] = [edges[band], edges[band + 1], edges[band + 2]];
                let weight = |bin: usize| {
                    let hz = count(bin) * rate / count(fft);
                    if hz <= centre { (hz - left) / (centre - left) } else { (right - hz) / (right - centre) }.max(0.0)
                };
                let energy: f64 = powers.iter().enumerate().map(|(bin, power)| power * weight(bin)).sum();
                (energy + 1e-6).ln()
            };
            frames.push((0..options.bands).map(band).collect());
        }
        frames
    }

    #[test]
    fn bands_are_those_of_the_definition() {
        let sound: Vec<f64> = (0..100).map(|idx| (count(idx) * 0.3).sin() + 0.5 * (count(idx) * 1.7).cos()).collect();
        let options = options(None, MelScale::Htk);
        let plan = options.plan(8000).expect("it fits");
        let features = plan.features(&sound.iter().copied().map(narrow).collect::<Vec<_>>());
        for (frame, expected) in reference(&options, &sound, 8000.0).iter().enumerate() {
            for (band, expected) in expected.iter().enumerate() {
                let got = f64::from(features[band * 3 + frame]);
                assert!((got - expected).abs() < 1e-3, "band {band}, frame {frame}: expected {expected}, got {got}");
            }
        }
    }

    #[test]
    fn all_coefficients_keep_the_energy_of_the_bands() {
        let sound: Vec<f32> = (0..100).map(|idx| narrow((count(idx) * 0.3).sin())).collect();
        let energy = |coefficients| {
            let plan = options(coefficients, MelScale::Slaney).plan(8000).expect("it fits");
            plan.features(&sound).iter().map(|x| x * x).sum::<f32>()
        };
        assert!((energy(None) / energy(Some(8)) - 1.0).abs() < 1e-4);
    }

    #[test]
    fn scales_go_there_and_back() {
        for scale in [MelScale::Htk, MelScale::Slaney] {
            for hz in [0.0, 440.0, 1000.0, 3999.0] {
                assert!((scale.hz(scale.mel(hz)) - hz).abs() < 1e-9);
            }
        }
        assert!((MelScale::Htk.mel(1000.0) - 1000.0).abs() < 0.1);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refuse = |change: &dyn Fn(&mut Mel), part: &str| {
            let mut options = options(None, MelScale::Htk);
            change(&mut options);
            let error = options.plan(8000).err().expect("refused").to_string();
            assert!(error.contains(part), "{error}");
        };
        refuse(&|mel| mel.hop = 0, "`hop` is 0");
        refuse(&|mel| mel.fft = Some(32), "`fft` is 32");
        refuse(&|mel| mel.high_hz = Some(5000.0), "to 5000 Hz do not fit");
        refuse(&|mel| mel.coefficients = Some(9), "from 1 to the number of bands, 8");
        refuse(&|mel| mel.bands = 100, "has no frequency in it");
    }
}
