//! Windows: where the kernel of a convolution or a pooling lies over its input, and how many places it has.
//!
//! Pure arithmetic on sizes, the same for shape inference and for the reference interpreter. All of it is checked: the
//! numbers come from files.

use std::ops::Range;

use super::op::{AutoPad, AveragePool, Conv, ConvTranspose, MaxPool, QLinearAveragePool};

/// What can be wrong with a window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WindowError {
    /// A list has not one entry (two for `pads`) for each spatial axis.
    #[error("`{attribute}` should have {expected} entries, got {got}")]
    Length {
        /// the attribute
        attribute: &'static str,
        /// how many it should have
        expected: usize,
        /// how many it has
        got: usize,
    },
    /// An entry is outside the operator's definition.
    #[error("`{attribute}` should hold {least} or more, got {got}")]
    Value {
        /// the attribute
        attribute: &'static str,
        /// the least value it may have
        least: i64,
        /// what it has
        got: i64,
    },
    /// `kernel_shape` differs from the weight's shape.
    #[error("`kernel_shape` is {attribute:?}, the weight's is {weight:?}")]
    Kernel {
        /// as the attribute has it
        attribute: Vec<i64>,
        /// as the weight has it
        weight: Vec<usize>,
    },
    /// The output would have less than no elements.
    #[error("a window of extent {extent} does not fit {size} positions with padding {pads:?}")]
    DoesNotFit {
        /// positions from the first to the last tap
        extent: usize,
        /// positions of the input
        size: usize,
        /// padding before and after
        pads: (usize, usize),
    },
    /// The sizes overflow.
    #[error("the window's sizes are too large")]
    TooLarge,
}

/// A window along one spatial axis, before the size of the input is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Axis {
    /// Taps of the kernel, at least one.
    pub(crate) kernel: usize,
    /// Steps from one place to the next, at least one.
    pub(crate) stride: usize,
    /// Steps from one tap to the next, at least one.
    pub(crate) dilation: usize,
    padding: Padding,
    ceil_mode: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Padding {
    Explicit(usize, usize),
    SameUpper,
    SameLower,
    Valid,
}

/// The window of a transposed convolution along one spatial axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TransposedAxis {
    axis: Axis,
    output_padding: usize,
    output_shape: Option<usize>,
}

/// A window over an input of known size: tap `k` of place `o` lies at `o · stride + k · dilation − pad_begin`.
///
/// In a transposed convolution the roles are exchanged: `size` is the output's, `n_places` the input's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// Positions of the input.
    pub(crate) size: usize,
    /// Taps of the kernel.
    pub(crate) kernel: usize,
    /// Steps from one place to the next.
    pub(crate) stride: usize,
    /// Steps from one tap to the next.
    pub(crate) dilation: usize,
    /// Positions added before the first.
    pub(crate) pad_begin: usize,
    /// Positions added after the last.
    pub(crate) pad_end: usize,
    /// How many places the window has: the size of the output.
    pub(crate) n_places: usize,
}

/// The windows of a convolution whose weight has these spatial dimensions.
///
/// # Errors
/// When the attributes are outside the operator's definition or disagree with the weight.
pub(crate) fn conv_axes(attributes: &Conv, kernel: &[usize]) -> Result<Vec<Axis>, WindowError> {
    let Conv { auto_pad, dilations, group: _, kernel_shape, pads, strides } = attributes;
    let kernel = weight_kernel(kernel_shape, kernel)?;
    Lists { auto_pad: *auto_pad, ceil_mode: false, kernel: &kernel, dilations, pads, strides }.axes()
}

/// The windows of a transposed convolution whose weight has these spatial dimensions.
///
/// # Errors
/// As [`conv_axes`].
pub(crate) fn conv_transpose_axes(
    attributes: &ConvTranspose,
    kernel: &[usize],
) -> Result<Vec<TransposedAxis>, WindowError> {
    let ConvTranspose { auto_pad, dilations, group: _, kernel_shape, output_padding, output_shape, pads, strides } =
        attributes;
    let kernel = weight_kernel(kernel_shape, kernel)?;
    let axes = Lists { auto_pad: *auto_pad, ceil_mode: false, kernel: &kernel, dilations, pads, strides }.axes()?;
    let output_padding = list("output_padding", output_padding, axes.len(), 0, 0)?;
    let stated = list("output_shape", output_shape, axes.len(), 0, 0)?;
    let shapes = stated.into_iter().map(|size| (!output_shape.is_empty()).then_some(size));
    Ok(axes
        .into_iter()
        .zip(output_padding)
        .zip(shapes)
        .map(|((axis, output_padding), output_shape)| TransposedAxis { axis, output_padding, output_shape })
        .collect())
}

/// The windows of an average pooling.
///
/// # Errors
/// When the attributes are outside the operator's definition.
pub(crate) fn average_pool_axes(attributes: &AveragePool) -> Result<Vec<Axis>, WindowError> {
    let AveragePool { auto_pad, ceil_mode, count_include_pad: _, dilations, kernel_shape, pads, strides } = attributes;
    Lists { auto_pad: *auto_pad, ceil_mode: *ceil_mode, kernel: kernel_shape, dilations, pads, strides }.axes()
}

/// The windows of a max pooling.
///
/// # Errors
/// As [`average_pool_axes`].
pub(crate) fn max_pool_axes(attributes: &MaxPool) -> Result<Vec<Axis>, WindowError> {
    let MaxPool { auto_pad, ceil_mode, dilations, kernel_shape, pads, storage_order: _, strides } = attributes;
    Lists { auto_pad: *auto_pad, ceil_mode: *ceil_mode, kernel: kernel_shape, dilations, pads, strides }.axes()
}

/// The windows of a quantized average pooling.
///
/// # Errors
/// As [`average_pool_axes`].
pub(crate) fn qlinear_average_pool_axes(attributes: &QLinearAveragePool) -> Result<Vec<Axis>, WindowError> {
    let QLinearAveragePool { auto_pad, ceil_mode, channels_last: _, count_include_pad: _, kernel_shape, pads, strides } =
        attributes;
    Lists { auto_pad: *auto_pad, ceil_mode: *ceil_mode, kernel: kernel_shape, dilations: &[], pads, strides }.axes()
}

impl Axis {
    /// The window over an input of this size.
    ///
    /// # Errors
    /// When the window does not fit, or sizes overflow.
    pub(crate) fn over(&self, size: usize) -> Result<Window, WindowError> {
        let extent = self.extent()?;
        let ceiling = wide(size.div_ceil(self.stride));
        let same_total = ((ceiling - 1) * wide(self.stride) + wide(extent) - wide(size)).max(0);
        let (pad_begin, pad_end) = match self.padding {
            Padding::Explicit(begin, end) => (begin, end),
            Padding::Valid => (0, 0),
            Padding::SameUpper => (narrow(same_total / 2)?, narrow(same_total - same_total / 2)?),
            Padding::SameLower => (narrow(same_total - same_total / 2)?, narrow(same_total / 2)?),
        };
        let room = wide(size) + wide(pad_begin) + wide(pad_end) - wide(extent);
        let stride = wide(self.stride);
        let places = match self.padding {
            Padding::SameUpper | Padding::SameLower => ceiling,
            Padding::Explicit(..) if self.ceil_mode => {
                let places = (room + stride - 1).div_euclid(stride) + 1;
                // a window that would begin in the padding at the end is left out
                if (places - 1) * stride >= wide(size) + wide(pad_begin) { places - 1 } else { places }
            }
            Padding::Explicit(..) | Padding::Valid => room.div_euclid(stride) + 1,
        };
        if places < 0 {
            return Err(WindowError::DoesNotFit { extent, size, pads: (pad_begin, pad_end) });
        }
        self.window(size, (pad_begin, pad_end), narrow(places)?)
    }

    /// Positions from the first tap to the last.
    fn extent(&self) -> Result<usize, WindowError> {
        narrow((wide(self.kernel) - 1) * wide(self.dilation) + 1)
    }

    fn window(&self, size: usize, pads: (usize, usize), n_places: usize) -> Result<Window, WindowError> {
        let (pad_begin, pad_end) = pads;
        narrow(wide(size) + wide(pad_begin) + wide(pad_end) + wide(self.stride))?;
        let Axis { kernel, stride, dilation, .. } = *self;
        Ok(Window { size, kernel, stride, dilation, pad_begin, pad_end, n_places })
    }
}

impl TransposedAxis {
    /// The window that spreads an input of this size; its `size` is the output's.
    ///
    /// With `output_shape`, or `auto_pad` `SAME_*`, the padding follows from the output's size. Where that is larger
    /// than what the input reaches, the rest is added at the end, as `output_padding` is.
    ///
    /// # Errors
    /// When the output would have less than no elements, or sizes overflow.
    pub(crate) fn over(&self, size: usize) -> Result<Window, WindowError> {
        let axis = &self.axis;
        let extent = axis.extent()?;
        let reach = wide(axis.stride) * (wide(size) - 1) + wide(self.output_padding) + wide(extent);
        let same = match axis.padding {
            Padding::SameUpper | Padding::SameLower => Some(wide(size) * wide(axis.stride)),
            Padding::Explicit(..) | Padding::Valid => None,
        };
        let (pads, output) = match (self.output_shape.map(wide).or(same), &axis.padding) {
            (Some(output), padding) => {
                let total = (reach - output).max(0);
                let (lesser, greater) = (narrow(total / 2)?, narrow(total - total / 2)?);
                (if *padding == Padding::SameUpper { (lesser, greater) } else { (greater, lesser) }, output)
            }
            (None, Padding::Explicit(begin, end)) => ((*begin, *end), reach - wide(*begin) - wide(*end)),
            (None, Padding::SameUpper | Padding::SameLower | Padding::Valid) => ((0, 0), reach),
        };
        if output < 0 {
            return Err(WindowError::DoesNotFit { extent, size, pads });
        }
        narrow(reach.max(0))?;
        axis.window(narrow(output)?, pads, size)
    }
}

impl Window {
    /// The taps of this place that lie inside the input, and the position of the first of them.
    pub(crate) fn taps(&self, place: usize) -> (Range<usize>, usize) {
        let start = place * self.stride;
        let first = self.pad_begin.saturating_sub(start).div_ceil(self.dilation);
        let end = taps_before(self.size + self.pad_begin, start, self.dilation).min(self.kernel);
        if first >= end {
            return (0..0, 0);
        }
        (first..end, start + first * self.dilation - self.pad_begin)
    }

    /// How many taps of this place lie inside the input or its padding.
    pub(crate) fn n_taps_with_padding(&self, place: usize) -> usize {
        let padded = self.size + self.pad_begin + self.pad_end;
        taps_before(padded, place * self.stride, self.dilation).min(self.kernel)
    }

    /// The places where this tap lies inside the input, and the position it has at the first of them.
    pub(crate) fn places(&self, tap: usize) -> (Range<usize>, usize) {
        let offset = tap * self.dilation;
        let first = self.pad_begin.saturating_sub(offset).div_ceil(self.stride);
        let end = taps_before(self.size + self.pad_begin, offset, self.stride).min(self.n_places);
        if first >= end {
            return (0..0, 0);
        }
        (first..end, offset + first * self.stride - self.pad_begin)
    }
}

/// How many of `start`, `start + step`, … are less than `end`.
fn taps_before(end: usize, start: usize, step: usize) -> usize {
    end.saturating_sub(start).div_ceil(step)
}

/// The attributes of a window; an empty list stands for ONNX's default.
struct Lists<'a> {
    auto_pad: AutoPad,
    ceil_mode: bool,
    kernel: &'a [i64],
    dilations: &'a [i64],
    pads: &'a [i64],
    strides: &'a [i64],
}

impl Lists<'_> {
    fn axes(&self) -> Result<Vec<Axis>, WindowError> {
        let rank = self.kernel.len();
        let kernel = list("kernel_shape", self.kernel, rank, 1, 1)?;
        let dilations = list("dilations", self.dilations, rank, 1, 1)?;
        let strides = list("strides", self.strides, rank, 1, 1)?;
        let pads = match self.auto_pad {
            AutoPad::NotSet => list("pads", self.pads, 2 * rank, 0, 0)?,
            AutoPad::SameUpper | AutoPad::SameLower | AutoPad::Valid => vec![0; 2 * rank],
        };
        let (begins, ends) = pads.split_at(rank);
        let steps = kernel.iter().zip(&strides).zip(&dilations);
        Ok(steps
            .zip(begins.iter().zip(ends))
            .map(|(((&kernel, &stride), &dilation), (&begin, &end))| {
                let padding = match self.auto_pad {
                    AutoPad::NotSet => Padding::Explicit(begin, end),
                    AutoPad::SameUpper => Padding::SameUpper,
                    AutoPad::SameLower => Padding::SameLower,
                    AutoPad::Valid => Padding::Valid,
                };
                Axis { kernel, stride, dilation, padding, ceil_mode: self.ceil_mode }
            })
            .collect())
    }
}

/// The weight's kernel, which an attribute that is there must repeat.
fn weight_kernel(attribute: &[i64], weight: &[usize]) -> Result<Vec<i64>, WindowError> {
    let kernel: Vec<i64> =
        weight.iter().map(|&size| i64::try_from(size)).collect::<Result<_, _>>().map_err(|_| WindowError::TooLarge)?;
    if attribute.is_empty() || attribute == kernel {
        return Ok(kernel);
    }
    Err(WindowError::Kernel { attribute: attribute.to_vec(), weight: weight.to_vec() })
}

fn list(
    attribute: &'static str,
    values: &[i64],
    expected: usize,
    least: i64,
    default: usize,
) -> Result<Vec<usize>, WindowError> {
    if values.is_empty() {
        return Ok(vec![default; expected]);
    }
    if values.len() != expected {
        return Err(WindowError::Length { attribute, expected, got: values.len() });
    }
    let checked = |&got: &i64| {
        let size = usize::try_from(got).ok().filter(|_| got >= least);
        size.ok_or(WindowError::Value { attribute, least, got })
    };
    values.iter().map(checked).collect()
}

fn wide(size: usize) -> i128 {
    i128::try_from(size).expect("a size has at most 64 bits")
}

/// Sizes stay below a quarter of the address space, so that sums of a few of them do not overflow.
fn narrow(size: i128) -> Result<usize, WindowError> {
    usize::try_from(size).ok().filter(|&size| size <= usize::MAX / 4).ok_or(WindowError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(kernel: i64, stride: i64, dilation: i64, pads: [i64; 2], auto_pad: AutoPad, ceil_mode: bool) -> Axis {
        let (kernel, dilations, strides) = ([kernel], [dilation], [stride]);
        let lists =
            Lists { auto_pad, ceil_mode, kernel: &kernel, dilations: &dilations, pads: &pads, strides: &strides };
        lists.axes().expect("attributes are valid").remove(0)
    }

    #[track_caller]
    fn check(axis: &Axis, size: usize, expected: (usize, usize, usize)) {
        let window = axis.over(size).expect("the window fits");
        assert_eq!((window.n_places, window.pad_begin, window.pad_end), expected);
        for place in 0..window.n_places {
            let inside = |tap: &usize| {
                let padded = place * window.stride + tap * window.dilation;
                padded >= window.pad_begin && padded < window.pad_begin + size
            };
            let taps: Vec<usize> = (0..window.kernel).filter(inside).collect();
            assert_eq!(window.taps(place).0.collect::<Vec<_>>(), taps);
            for tap in 0..window.kernel {
                assert_eq!(window.places(tap).0.contains(&place), taps.contains(&tap));
            }
        }
    }

    #[test]
    fn explicit_padding_counts_whole_windows() {
        check(&axis(3, 2, 1, [1, 1], AutoPad::NotSet, false), 7, (4, 1, 1));
        check(&axis(3, 2, 2, [0, 0], AutoPad::NotSet, false), 7, (2, 0, 0));
        check(&axis(2, 3, 1, [0, 2], AutoPad::NotSet, false), 5, (2, 0, 2));
        check(&axis(3, 1, 4, [7, 0], AutoPad::NotSet, false), 3, (2, 7, 0));
    }

    #[test]
    fn ceil_mode_adds_a_window_unless_it_begins_in_the_padding() {
        check(&axis(3, 2, 1, [0, 0], AutoPad::NotSet, true), 4, (2, 0, 0));
        check(&axis(1, 2, 1, [0, 0], AutoPad::NotSet, true), 2, (1, 0, 0));
    }

    #[test]
    fn auto_pad_splits_the_padding() {
        check(&axis(3, 2, 1, [0, 0], AutoPad::SameUpper, false), 6, (3, 0, 1));
        check(&axis(3, 2, 1, [0, 0], AutoPad::SameLower, false), 6, (3, 1, 0));
        check(&axis(1, 3, 1, [0, 0], AutoPad::SameUpper, false), 6, (2, 0, 0));
        check(&axis(2, 2, 1, [0, 0], AutoPad::Valid, true), 5, (2, 0, 0));
        check(&axis(3, 2, 1, [0, 0], AutoPad::SameUpper, false), 0, (0, 0, 1));
    }

    #[test]
    fn padding_counts_up_to_its_end() {
        let window = axis(3, 2, 1, [1, 0], AutoPad::NotSet, true).over(4).expect("the window fits");
        assert_eq!((0..window.n_places).map(|place| window.n_taps_with_padding(place)).collect::<Vec<_>>(), [3, 3]);
        assert_eq!(axis(3, 2, 1, [0, 0], AutoPad::NotSet, true).over(4).expect("fits").n_taps_with_padding(1), 2);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let axis = axis(5, 1, 1, [0, 0], AutoPad::NotSet, false);
        check(&axis, 4, (0, 0, 0));
        assert_eq!(axis.over(3), Err(WindowError::DoesNotFit { extent: 5, size: 3, pads: (0, 0) }));
        assert_eq!(axis.over(usize::MAX), Err(WindowError::TooLarge));
    }

    #[test]
    fn hostile_attributes_are_refused() {
        let conv = |kernel_shape: &[i64], pads: &[i64], strides: &[i64]| {
            let (kernel_shape, pads, strides) = (kernel_shape.to_vec(), pads.to_vec(), strides.to_vec());
            conv_axes(&Conv { kernel_shape, pads, strides, ..Conv::default() }, &[3])
        };
        assert!(conv(&[3], &[1, 1], &[1]).is_ok());
        assert_eq!(conv(&[2], &[], &[]), Err(WindowError::Kernel { attribute: vec![2], weight: vec![3] }));
        assert_eq!(conv(&[], &[1], &[]), Err(WindowError::Length { attribute: "pads", expected: 2, got: 1 }));
        assert_eq!(conv(&[], &[-1, 0], &[]), Err(WindowError::Value { attribute: "pads", least: 0, got: -1 }));
        assert_eq!(conv(&[], &[], &[0]), Err(WindowError::Value { attribute: "strides", least: 1, got: 0 }));
        let padded = conv(&[], &[i64::MAX, i64::MAX], &[]).expect("the sum is taken later");
        assert_eq!(padded[0].over(5), Err(WindowError::TooLarge));
        assert!(max_pool_axes(&MaxPool { kernel_shape: vec![0], ..pool() }).is_err());
    }

    fn pool() -> MaxPool {
        MaxPool {
            auto_pad: AutoPad::NotSet,
            ceil_mode: false,
            dilations: vec![],
            kernel_shape: vec![2],
            pads: vec![],
            storage_order: 0,
            strides: vec![],
        }
    }

    #[test]
    fn a_transposed_window_knows_the_size_of_its_output() {
        let over = |attributes: ConvTranspose, size: usize| {
            let window = conv_transpose_axes(&attributes, &[3])?.remove(0).over(size)?;
            Ok::<_, WindowError>((window.size, window.pad_begin, window.pad_end))
        };
        let strided = ConvTranspose { strides: vec![2], ..ConvTranspose::default() };
        assert_eq!(over(strided.clone(), 4), Ok((9, 0, 0)));
        assert_eq!(
            over(ConvTranspose { pads: vec![1, 2], output_padding: vec![1], ..strided.clone() }, 4),
            Ok((7, 1, 2))
        );
        assert_eq!(over(ConvTranspose { output_shape: vec![8], ..strided.clone() }, 4), Ok((8, 1, 0)));
        assert_eq!(over(ConvTranspose { output_shape: vec![11], ..strided.clone() }, 4), Ok((11, 0, 0)));
        assert_eq!(over(ConvTranspose { auto_pad: AutoPad::SameUpper, ..strided.clone() }, 4), Ok((8, 0, 1)));
        assert!(over(ConvTranspose { pads: vec![9, 9], ..strided.clone() }, 4).is_err());
        assert!(over(ConvTranspose { strides: vec![i64::MAX], ..strided }, 4).is_err());
    }
}
