//! The geometry of windows over planes, and the checked shapes of convolutions and poolings.
//!
//! Tap `k` of place `o` lies at `o · stride + k · dilation − pad_begin`, on each of the two axes. What lies outside the
//! input counts as zero (convolution) or not at all (pooling). A line is a plane of height 1.

use std::ops::Range;

/// Why numbers are no shape that kernels can run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// A size that has to be one or more is zero.
    #[error("{what} should be 1 or more")]
    Zero {
        /// which size
        what: &'static str,
    },
    /// Channels cannot be divided among the groups.
    #[error("{channels} channels cannot be divided among {groups} groups")]
    Groups {
        /// how many channels
        channels: usize,
        /// among how many groups
        groups: usize,
    },
    /// Sizes overflow, or one image with its padding has more elements than a kernel can address.
    #[error("the window's sizes are too large: one padded image should have fewer than 2^31 elements")]
    TooLarge,
}

/// A window: its taps, its steps and the padding it may reach into, as `[height, width]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Taps, at least one.
    pub kernel: [usize; 2],
    /// Steps from one place to the next, at least one.
    pub strides: [usize; 2],
    /// Steps from one tap to the next, at least one.
    pub dilations: [usize; 2],
    /// Padding before and after, for each axis.
    pub pads: [[usize; 2]; 2],
}

impl Window {
    /// A window without padding, stride or dilation.
    pub fn of(kernel: [usize; 2]) -> Self {
        Self { kernel, strides: [1; 2], dilations: [1; 2], pads: [[0; 2]; 2] }
    }

    fn check(&self, input: [usize; 2], output: [usize; 2]) -> Result<(), ShapeError> {
        for (what, sizes) in [("kernel", self.kernel), ("stride", self.strides), ("dilation", self.dilations)] {
            if sizes.contains(&0) {
                return Err(ShapeError::Zero { what });
            }
        }
        for axis in 0..2 {
            let reach = output[axis].checked_mul(self.strides[axis]);
            let extent = self.kernel[axis].checked_mul(self.dilations[axis]);
            let [begin, end] = self.pads[axis];
            let padded = begin.checked_add(end).and_then(|pads| pads.checked_add(input[axis]));
            let sizes = [reach, extent, padded];
            let total = sizes.into_iter().try_fold(0usize, |sum, size| sum.checked_add(size?));
            total.filter(|&total| total <= MOST_POSITIONS).ok_or(ShapeError::TooLarge)?;
        }
        Ok(())
    }

    /// Taps of the whole kernel.
    pub fn n_taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// The taps of a place on one axis that lie inside an input of this size, and the position of the first of them.
    pub(crate) fn taps_inside(&self, axis: usize, size: usize, place: usize) -> (Range<usize>, usize) {
        let (start, begin, step) = (place * self.strides[axis], self.pads[axis][0], self.dilations[axis]);
        let first = begin.saturating_sub(start).div_ceil(step);
        let end = n_before(size + begin, start, step).min(self.kernel[axis]);
        if first >= end { (0..0, 0) } else { (first..end, start + first * step - begin) }
    }

    /// How many taps of a place on one axis lie inside an input of this size or in its padding.
    pub(crate) fn n_taps_with_padding(&self, axis: usize, size: usize, place: usize) -> usize {
        let [begin, end] = self.pads[axis];
        n_before(size + begin + end, place * self.strides[axis], self.dilations[axis]).min(self.kernel[axis])
    }
}

/// How many of `start`, `start + step`, … are less than `end`.
fn n_before(end: usize, start: usize, step: usize) -> usize {
    end.saturating_sub(start).div_ceil(step)
}

/// More positions on one axis, padding included, are refused: positions are handled in 32 bits.
const MOST_POSITIONS: usize = 1 << 30;

/// More elements of one padded image are refused, for the same reason.
const MOST_ELEMENTS: usize = 1 << 31;

fn elements(sizes: &[usize]) -> Result<usize, ShapeError> {
    let product = sizes.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    product.filter(|&product| product <= isize::MAX as usize / 4).ok_or(ShapeError::TooLarge)
}

fn elements_of_image(sizes: &[usize]) -> Result<(), ShapeError> {
    elements(sizes)?;
    let product = sizes.iter().map(|&size| size.max(1)).try_fold(1usize, |product, size| product.checked_mul(size));
    product.filter(|&product| product < MOST_ELEMENTS).map(|_| ()).ok_or(ShapeError::TooLarge)
}

/// The shape of a convolution: input `[n, c_in, h, w]`, weight `[c_out, c_in / groups, kh, kw]`, bias `[c_out]`, output
/// `[n, c_out, oh, ow]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvShape {
    n: usize,
    c_in: usize,
    c_out: usize,
    groups: usize,
    input: [usize; 2],
    output: [usize; 2],
    window: Window,
}

impl ConvShape {
    /// A convolution from planes `input` to planes `output`. The two sizes are independent: places beyond the input
    /// see zeros, and input that no place sees gets a gradient of zero, as a transposed convolution with output padding
    /// needs it.
    ///
    /// # Errors
    /// When a size of the window is zero, channels do not divide among the groups, or sizes are too large.
    pub fn new(
        n: usize,
        [c_in, c_out]: [usize; 2],
        groups: usize,
        input: [usize; 2],
        output: [usize; 2],
        window: Window,
    ) -> Result<Self, ShapeError> {
        window.check(input, output)?;
        if groups == 0 {
            return Err(ShapeError::Zero { what: "groups" });
        }
        for channels in [c_in, c_out] {
            if !channels.is_multiple_of(groups) {
                return Err(ShapeError::Groups { channels, groups });
            }
        }
        elements(&[n, c_in, input[0], input[1]])?;
        elements(&[n, c_out, output[0], output[1]])?;
        elements_of_image(&[c_out, c_in / groups, window.kernel[0], window.kernel[1]])?;
        let padded = |axis: usize| {
            let reach = output[axis] * window.strides[axis];
            let extent = window.kernel[axis] * window.dilations[axis];
            // some room for the halo of either direction, and for vectors that hang over the end
            reach.max(input[axis] + window.pads[axis][0]) + 2 * (extent + window.strides[axis])
        };
        elements_of_image(&[c_in.max(c_out), padded(0), padded(1) + 64])?;
        Ok(Self { n, c_in, c_out, groups, input, output, window })
    }

    /// Images.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Channels of the input and of the output.
    pub fn channels(&self) -> [usize; 2] {
        [self.c_in, self.c_out]
    }

    /// Groups of channels that do not see each other.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Height and width of the input.
    pub fn input(&self) -> [usize; 2] {
        self.input
    }

    /// Height and width of the output.
    pub fn output(&self) -> [usize; 2] {
        self.output
    }

    /// The window.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// Elements of the input.
    pub fn n_input(&self) -> usize {
        self.n * self.c_in * self.input_plane()
    }

    /// Elements of the output.
    pub fn n_output(&self) -> usize {
        self.n * self.c_out * self.output_plane()
    }

    /// Elements of the weight.
    pub fn n_weight(&self) -> usize {
        self.c_out * self.row()
    }

    /// Multiplications and additions of one pass, padding included.
    pub fn n_flops(&self) -> usize {
        2 * self.n_output() * self.row()
    }

    pub(crate) fn input_plane(&self) -> usize {
        self.input[0] * self.input[1]
    }

    pub(crate) fn output_plane(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Channels of the input and of the output within one group.
    pub(crate) fn group(&self) -> [usize; 2] {
        [self.c_in / self.groups, self.c_out / self.groups]
    }

    /// Weights of one output channel.
    pub(crate) fn row(&self) -> usize {
        self.c_in / self.groups * self.window.n_taps()
    }

    pub(crate) fn is_depthwise(&self) -> bool {
        self.groups == self.c_in && self.groups == self.c_out
    }
}

/// The shape of a pooling: `n_planes` planes (batch times channels) of `input` into as many of `output`.
///
/// `ceil_mode` is expressed by `output`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolShape {
    n_planes: usize,
    input: [usize; 2],
    output: [usize; 2],
    window: Window,
}

impl PoolShape {
    /// A pooling from planes `input` to planes `output`.
    ///
    /// # Errors
    /// When a size of the window is zero, or sizes are too large.
    pub fn new(n_planes: usize, input: [usize; 2], output: [usize; 2], window: Window) -> Result<Self, ShapeError> {
        window.check(input, output)?;
        elements(&[n_planes, input[0], input[1]])?;
        elements(&[n_planes, output[0], output[1]])?;
        elements_of_image(&input)?;
        elements_of_image(&window.kernel)?;
        Ok(Self { n_planes, input, output, window })
    }

    /// Planes: images times channels.
    pub fn n_planes(&self) -> usize {
        self.n_planes
    }

    /// Height and width of the input.
    pub fn input(&self) -> [usize; 2] {
        self.input
    }

    /// Height and width of the output.
    pub fn output(&self) -> [usize; 2] {
        self.output
    }

    /// The window.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// Whether some place of the window holds no element of the input: ONNX leaves such a pooling undefined.
    pub fn has_empty_window(&self) -> bool {
        let empty = |axis: usize, place| self.window.taps_inside(axis, self.input[axis], place).0.is_empty();
        self.output.iter().all(|&size| size > 0) && (0..2).any(|axis| (0..self.output[axis]).any(|o| empty(axis, o)))
    }
}

#[cfg(test)]
mod tests {
    //! Shapes that are refused, and why.

    use super::{ConvShape, PoolShape, ShapeError, Window};

    fn refused<T: std::fmt::Debug>(result: Result<T, ShapeError>, why: &str) {
        let error = result.expect_err(why).to_string();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn shapes_without_sense_are_refused() {
        let conv = |groups, window| ConvShape::new(1, [4, 6], groups, [5, 5], [3, 3], window);
        conv(2, Window::of([3, 3])).expect("a sound shape");
        refused(conv(4, Window::of([3, 3])), "6 channels cannot be divided among 4 groups");
        refused(conv(0, Window::of([3, 3])), "groups should be 1 or more");
        refused(conv(1, Window::of([0, 3])), "kernel should be 1 or more");
        refused(conv(1, Window { strides: [1, 0], ..Window::of([3, 3]) }), "stride should be 1 or more");
        refused(conv(1, Window { dilations: [usize::MAX; 2], ..Window::of([3, 3]) }), "too large");
        refused(conv(1, Window { pads: [[usize::MAX; 2]; 2], ..Window::of([3, 3]) }), "too large");
        refused(conv(1, Window { dilations: [1 << 28; 2], ..Window::of([2, 2]) }), "too large");
        refused(PoolShape::new(usize::MAX, [5, 5], [3, 3], Window::of([3, 3])), "too large");
    }

    #[test]
    fn windows_over_nothing_are_found() {
        let pool = |output, pads| {
            PoolShape::new(1, [4, 4], output, Window { pads, ..Window::of([2, 2]) }).expect("a sound shape")
        };
        assert!(!pool([3, 3], [[0; 2]; 2]).has_empty_window());
        assert!(!pool([5, 5], [[1; 2]; 2]).has_empty_window());
        assert!(pool([6, 5], [[2, 1], [1, 1]]).has_empty_window());
    }
}
