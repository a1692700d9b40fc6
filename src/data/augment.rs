//! Changes to training samples that keep their labels, and mixing two samples with both labels. What is done to a sample
//! depends on the seed, the view (an epoch, or any other number) and the sample, and on nothing else.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Beta, Distribution as _, StandardNormal};

use super::column::Normalization;
use super::error::DataError;

/// One change. Pictures are [channels, height, width], and so are spectrograms ([1, bands, frames]).
#[derive(Clone, Debug, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Augmentation {
    /// Mirrors a picture, each way in half of the cases.
    Flip {
        /// left to right
        #[serde(default)]
        horizontal: bool,
        /// top to bottom
        #[serde(default)]
        vertical: bool,
    },
    /// Moves a picture by up to so many pixels in each direction; what moves in is a raw zero.
    Shift {
        /// the most pixels
        pixels: usize,
    },
    /// Widens a picture by so many mirrored pixels on each side and cuts its own size out of it.
    Crop {
        /// the pixels on each side
        pad: usize,
    },
    /// Sets a square of a picture, its centre anywhere in it, to the normalised zero (DeVries and Taylor 2017, arXiv
    /// 1708.04552).
    Cutout {
        /// the square's side in pixels
        size: usize,
    },
    /// Adds normally distributed numbers.
    Noise {
        /// their standard deviation, in normalised units
        std: f32,
    },
    /// Moves a spectrogram or a series in time by up to so many frames; the frame at the edge is repeated.
    TimeShift {
        /// the most frames
        frames: usize,
    },
    /// Sets bands and frames of a spectrogram to its mean (SpecAugment; Park et al. 2019, arXiv 1904.08779).
    SpecAugment {
        /// how many stripes of bands
        #[serde(default)]
        n_band_masks: usize,
        /// the most bands of a stripe
        #[serde(default)]
        bands: usize,
        /// how many stripes of frames
        #[serde(default)]
        n_frame_masks: usize,
        /// the most frames of a stripe
        #[serde(default)]
        frames: usize,
    },
    /// Mixes a sample with another of the split, λ of it and 1 - λ of the other, λ from Beta(α, α); the label becomes one
    /// number a class (Zhang et al. 2018, arXiv 1710.09412).
    Mixup {
        /// α, above 0
        alpha: f64,
    },
}

/// A sample's shape in the terms that changes have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout<'a> {
    pub(super) shape: &'a [usize],
    /// Time is the first dimension and channels the last; else channels are first and time is last.
    pub(super) channels_last: bool,
    /// What a raw zero becomes.
    pub(super) normalization: Option<&'a Normalization>,
}

impl Augmentation {
    fn name(&self) -> &'static str {
        match self {
            Augmentation::Flip { .. } => "flip",
            Augmentation::Shift { .. } => "shift",
            Augmentation::Crop { .. } => "crop",
            Augmentation::Cutout { .. } => "cutout",
            Augmentation::Noise { .. } => "noise",
            Augmentation::TimeShift { .. } => "time-shift",
            Augmentation::SpecAugment { .. } => "spec-augment",
            Augmentation::Mixup { .. } => "mixup",
        }
    }

    /// Whether samples of this shape can be changed so; what to do where they cannot.
    pub(super) fn check(&self, rank: usize, n_labels: usize) -> Result<(), DataError> {
        let refuse = |problem: String| Err(DataError::key("augment", format!("{}: {problem}", self.name())));
        match self {
            Augmentation::Flip { horizontal: false, vertical: false } => {
                refuse("set `horizontal` or `vertical`".to_owned())
            }
            Augmentation::Flip { .. }
            | Augmentation::Shift { .. }
            | Augmentation::Crop { .. }
            | Augmentation::Cutout { .. }
            | Augmentation::SpecAugment { .. }
                if rank != 3 =>
            {
                refuse(format!("needs samples of 3 dimensions, [channels, height, width], not {rank}; leave it out"))
            }
            Augmentation::TimeShift { .. } if rank < 2 => {
                refuse(format!("needs samples of 2 or 3 dimensions, not {rank}; leave it out"))
            }
            Augmentation::Noise { std } if !(std.is_finite() && *std >= 0.0) => refuse(format!("`std` is {std}")),
            Augmentation::Mixup { alpha } if !(alpha.is_finite() && *alpha > 0.0) => {
                refuse(format!("`alpha` is {alpha}; give a number above 0"))
            }
            Augmentation::Mixup { .. } if n_labels == 0 => refuse("needs labels to mix; leave it out".to_owned()),
            Augmentation::Flip { .. }
            | Augmentation::Shift { .. }
            | Augmentation::Crop { .. }
            | Augmentation::Cutout { .. }
            | Augmentation::Noise { .. }
            | Augmentation::TimeShift { .. }
            | Augmentation::SpecAugment { .. }
            | Augmentation::Mixup { .. } => Ok(()),
        }
    }
}

/// Changes a sample in place, `scratch` a buffer that is kept between samples. Mixing is not done here.
pub(super) fn apply(
    augmentations: &[Augmentation],
    sample: &mut [f32],
    layout: Layout<'_>,
    random: &mut ChaCha8Rng,
    scratch: &mut Vec<f32>,
) {
    for augmentation in augmentations {
        match *augmentation {
            Augmentation::Flip { horizontal, vertical } => {
                if horizontal && random.random() {
                    let width = layout.shape.last().copied().unwrap_or(1).max(1);
                    sample.chunks_exact_mut(width).for_each(<[f32]>::reverse);
                }
                if vertical && random.random() {
                    flip_rows(sample, layout.shape);
                }
            }
            Augmentation::Shift { pixels } => {
                let (down, right) = (draw(random, pixels), draw(random, pixels));
                let zeros = layout.normalization.map_or_else(|| vec![0.0], |normalization| normalization.of(0.0));
                move_picture(sample, layout.shape, down, right, scratch, |channel| {
                    Edge::Value(zeros.get(channel).or(zeros.first()).copied().unwrap_or(0.0))
                });
            }
            Augmentation::Crop { pad } => {
                let (down, right) = (draw(random, pad), draw(random, pad));
                move_picture(sample, layout.shape, down, right, scratch, |_| Edge::Mirror);
            }
            Augmentation::Cutout { size } => cut_out(sample, layout.shape, size, random),
            Augmentation::Noise { std } => {
                for x in sample.iter_mut() {
                    let noise: f32 = StandardNormal.sample(random);
                    *x += std * noise;
                }
            }
            Augmentation::TimeShift { frames } => shift_time(sample, layout, draw(random, frames), scratch),
            Augmentation::SpecAugment { n_band_masks, bands, n_frame_masks, frames } => {
                mask(sample, layout.shape, [(n_band_masks, bands), (n_frame_masks, frames)], random);
            }
            Augmentation::Mixup { .. } => {}
        }
    }
}

/// The share of a sample in its mixture.
pub(super) fn mixing_share(alpha: f64, random: &mut ChaCha8Rng) -> f32 {
    Beta::new(alpha, alpha).map_or(1.0, |beta| super::number::narrow(beta.sample(random)))
}

/// A whole number from -most to most, as a distance and whether it is negative.
fn draw(random: &mut ChaCha8Rng, most: usize) -> Distance {
    let by = random.random_range(0..=most.saturating_mul(2));
    if by >= most { Distance { by: by - most, back: false } } else { Distance { by: most - by, back: true } }
}

#[derive(Clone, Copy)]
struct Distance {
    by: usize,
    back: bool,
}

impl Distance {
    /// What comes to this place of so many; none from beyond either end.
    fn source(self, place: usize, n_places: usize) -> Option<usize> {
        let source = if self.back { place.checked_add(self.by)? } else { place.checked_sub(self.by)? };
        (source < n_places).then_some(source)
    }

    /// What comes to this place, mirrored at the ends, the end itself not repeated.
    fn mirrored(self, place: usize, n_places: usize) -> usize {
        let last = n_places.saturating_sub(1);
        let period = (2 * last).max(1);
        let forward = self.by % period;
        let place = if self.back { place + forward } else { place + period - forward } % period;
        if place > last { period - place } else { place }
    }

    /// What comes to this place, the ends repeated.
    fn clamped(self, place: usize, n_places: usize) -> usize {
        let source = if self.back { place.saturating_add(self.by) } else { place.saturating_sub(self.by) };
        source.min(n_places.saturating_sub(1))
    }
}

#[derive(Clone, Copy)]
enum Edge {
    Value(f32),
    Mirror,
}

fn picture(shape: &[usize]) -> (usize, usize) {
    match *shape {
        [_, height, width] => (height.max(1), width.max(1)),
        _ => (1, 1),
    }
}

fn flip_rows(sample: &mut [f32], shape: &[usize]) {
    let (height, width) = picture(shape);
    for channel in sample.chunks_exact_mut(height * width) {
        let (top, bottom) = channel.split_at_mut(height / 2 * width);
        for (a, b) in top.chunks_exact_mut(width).zip(bottom.chunks_exact_mut(width).rev()) {
            a.swap_with_slice(b);
        }
    }
}

fn move_picture(
    sample: &mut [f32],
    shape: &[usize],
    down: Distance,
    right: Distance,
    scratch: &mut Vec<f32>,
    edge: impl Fn(usize) -> Edge,
) {
    if down.by == 0 && right.by == 0 {
        return;
    }
    let (height, width) = picture(shape);
    scratch.clear();
    scratch.extend_from_slice(sample);
    let both = sample.chunks_exact_mut(height * width).zip(scratch.chunks_exact(height * width));
    for (channel, (to, from)) in both.enumerate() {
        let edge = edge(channel);
        let zero = if let Edge::Value(zero) = edge { zero } else { 0.0 };
        let come_from = |by: Distance, place: usize, n_places: usize| match edge {
            Edge::Value(_) => by.source(place, n_places),
            Edge::Mirror => Some(by.mirrored(place, n_places)),
        };
        let columns: Vec<Option<usize>> = (0..width).map(|x| come_from(right, x, width)).collect();
        for (y, row) in to.chunks_exact_mut(width).enumerate() {
            let source = come_from(down, y, height).and_then(|y| from.get(y * width..(y + 1) * width));
            match source {
                None => row.fill(zero),
                Some(source) => {
                    for (element, column) in row.iter_mut().zip(&columns) {
                        *element = column.map_or(zero, |x| source[x]);
                    }
                }
            }
        }
    }
}

fn cut_out(sample: &mut [f32], shape: &[usize], size: usize, random: &mut ChaCha8Rng) {
    let (height, width) = picture(shape);
    let range = |centre: usize, end: usize| {
        let start = centre.saturating_sub(size / 2);
        start..(centre + size.div_ceil(2)).min(end)
    };
    let rows = range(random.random_range(0..height), height);
    let columns = range(random.random_range(0..width), width);
    for channel in sample.chunks_exact_mut(height * width) {
        for row in channel.chunks_exact_mut(width).take(rows.end).skip(rows.start) {
            row.iter_mut().take(columns.end).skip(columns.start).for_each(|x| *x = 0.0);
        }
    }
}

fn shift_time(sample: &mut [f32], layout: Layout<'_>, by: Distance, scratch: &mut Vec<f32>) {
    scratch.clear();
    scratch.extend_from_slice(sample);
    if layout.channels_last {
        let size = layout.shape.last().copied().unwrap_or(1).max(1);
        let n_frames = sample.len() / size;
        for (place, frame) in sample.chunks_exact_mut(size).enumerate() {
            let source = by.clamped(place, n_frames) * size;
            frame.copy_from_slice(&scratch[source..source + size]);
        }
    } else {
        let n_frames = layout.shape.last().copied().unwrap_or(1).max(1);
        for (to, from) in sample.chunks_exact_mut(n_frames).zip(scratch.chunks_exact(n_frames)) {
            for (place, x) in to.iter_mut().enumerate() {
                *x = from[by.clamped(place, n_frames)];
            }
        }
    }
}

fn mask(sample: &mut [f32], shape: &[usize], stripes: [(usize, usize); 2], random: &mut ChaCha8Rng) {
    let (height, width) = picture(shape);
    let sum: f64 = sample.iter().map(|&x| f64::from(x)).sum();
    let mean = super::number::narrow(sum / super::number::count(sample.len().max(1)));
    for ((n_masks, most), (is_band, extent)) in stripes.into_iter().zip([(true, height), (false, width)]) {
        for _ in 0..n_masks {
            let size = random.random_range(0..=most.min(extent));
            let start = random.random_range(0..=extent - size);
            for (idx, row) in sample.chunks_exact_mut(width).enumerate() {
                if !is_band {
                    row[start..start + size].fill(mean);
                } else if (start..start + size).contains(&(idx % height)) {
                    row.fill(mean);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::{Purpose, stream};
    use super::*;

    /// What becomes of the numbers from 1 on in this shape, by seed.
    fn changed(augmentation: &Augmentation, shape: &[usize], channels_last: bool, n_seeds: u64) -> Vec<Vec<f32>> {
        let n: usize = shape.iter().product();
        let sample: Vec<f32> =
            (1..=n).map(|idx| super::super::number::narrow(super::super::number::count(idx))).collect();
        let layout = Layout { shape, channels_last, normalization: None };
        let of = |seed| {
            let mut sample = sample.clone();
            let augmentations = std::slice::from_ref(augmentation);
            apply(augmentations, &mut sample, layout, &mut stream(seed, Purpose::Augment, 0, 0), &mut Vec::new());
            sample
        };
        (0..n_seeds).map(of).collect()
    }

    /// All that can become of a sample, sorted.
    fn check(augmentation: &Augmentation, shape: &[usize], channels_last: bool, expected: &[&[f32]]) {
        let mut got = changed(augmentation, shape, channels_last, 200);
        got.sort_by(|a, b| a.partial_cmp(b).expect("finite"));
        got.dedup();
        assert_eq!(got, expected);
    }

    #[test]
    fn each_change_does_all_that_it_can_and_no_more() {
        let both = Augmentation::Flip { horizontal: true, vertical: true };
        check(&both, &[1, 2, 2], false, &[&[1., 2., 3., 4.], &[2., 1., 4., 3.], &[3., 4., 1., 2.], &[4., 3., 2., 1.]]);
        check(
            &Augmentation::Flip { horizontal: false, vertical: true },
            &[1, 3, 1],
            false,
            &[&[1., 2., 3.], &[3., 2., 1.]],
        );
        let shift = Augmentation::Shift { pixels: 1 };
        check(&shift, &[2, 1, 1], false, &[&[0., 0.], &[1., 2.]]);
        let crop = Augmentation::Crop { pad: 1 };
        check(&crop, &[1, 1, 3], false, &[&[1., 2., 3.], &[2., 1., 2.], &[2., 3., 2.]]);
        let time = Augmentation::TimeShift { frames: 1 };
        check(&time, &[3, 2], true, &[&[1., 2., 1., 2., 3., 4.], &[1., 2., 3., 4., 5., 6.], &[3., 4., 5., 6., 5., 6.]]);
        check(&time, &[1, 1, 3], false, &[&[1., 1., 2.], &[1., 2., 3.], &[2., 3., 3.]]);
        check(&Augmentation::Cutout { size: 1 }, &[1, 1, 2], false, &[&[0., 2.], &[1., 0.]]);
        let spec = Augmentation::SpecAugment { n_band_masks: 1, bands: 1, n_frame_masks: 0, frames: 0 };
        check(&spec, &[1, 2, 1], false, &[&[1., 1.5], &[1., 2.], &[1.5, 2.]]);
        let spec = Augmentation::SpecAugment { n_band_masks: 0, bands: 0, n_frame_masks: 1, frames: 1 };
        check(&spec, &[1, 2, 2], false, &[&[1., 2., 3., 4.], &[1., 2.5, 3., 2.5], &[2.5, 2., 2.5, 4.]]);
    }

    #[test]
    fn distances_beyond_a_picture_stay_within_it() {
        changed(&Augmentation::Crop { pad: 50 }, &[1, 2, 3], false, 20);
        changed(&Augmentation::Crop { pad: usize::MAX }, &[1, 1, 1], false, 20);
        changed(&Augmentation::Shift { pixels: usize::MAX }, &[1, 2, 3], false, 20);
        changed(&Augmentation::TimeShift { frames: usize::MAX }, &[4, 3], true, 20);
        changed(&Augmentation::Cutout { size: usize::MAX }, &[1, 2, 3], false, 20);
        changed(
            &Augmentation::SpecAugment { n_band_masks: 2, bands: 9, n_frame_masks: 2, frames: 9 },
            &[1, 2, 3],
            false,
            20,
        );
    }

    #[test]
    fn noise_has_its_deviation() {
        let noisy = changed(&Augmentation::Noise { std: 0.5 }, &[10_000], false, 1).remove(0);
        let clean = changed(&Augmentation::Noise { std: 0.0 }, &[10_000], false, 1).remove(0);
        let squares: f32 = noisy.iter().zip(&clean).map(|(a, b)| (a - b) * (a - b)).sum();
        assert!(((squares / 10_000.0).sqrt() - 0.5).abs() < 0.02);
    }

    #[test]
    fn samples_that_do_not_fit_are_refused() {
        let refuse = |augmentation: Augmentation, rank, part: &str| {
            let error = augmentation.check(rank, 2).expect_err("refused").to_string();
            assert!(error.contains(part), "{error}");
        };
        refuse(Augmentation::Cutout { size: 2 }, 1, "cutout: needs samples of 3 dimensions");
        refuse(Augmentation::TimeShift { frames: 2 }, 1, "time-shift: needs samples of 2 or 3");
        refuse(Augmentation::Flip { horizontal: false, vertical: false }, 3, "flip: set `horizontal`");
        refuse(Augmentation::Noise { std: f32::NAN }, 3, "noise: `std` is NaN");
        assert!(Augmentation::Mixup { alpha: 1.0 }.check(1, 0).is_err());
        assert!(Augmentation::Mixup { alpha: 1.0 }.check(1, 2).is_ok());
    }
}
