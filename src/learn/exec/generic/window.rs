//! Windows by gathering: which elements of its input every tap of every place reads, as a table, so that convolution
//! and pooling of any number of axes are one `index_select`, and their transposes one `index_add`.

use candle_core::{D, Device, Result, Tensor};

use crate::learn::exec::program::{ConvWindow, PoolWindow};

/// A window over spatial axes of known sizes.
pub(super) struct Window<'a> {
    pub(super) input: &'a [usize],
    pub(super) output: &'a [usize],
    pub(super) kernel: &'a [usize],
    pub(super) strides: &'a [usize],
    pub(super) dilations: &'a [usize],
    pub(super) pads: &'a [(usize, usize)],
}

impl<'a> Window<'a> {
    pub(super) fn of_conv(
        window: &'a ConvWindow,
        input: &'a [usize],
        output: &'a [usize],
        kernel: &'a [usize],
    ) -> Self {
        let ConvWindow { strides, dilations, pads, groups: _ } = window;
        Window { input, output, kernel, strides, dilations, pads }
    }

    pub(super) fn of_pool(window: &'a PoolWindow, input: &'a [usize], output: &'a [usize]) -> Self {
        let PoolWindow { kernel, strides, dilations, pads } = window;
        Window { input, output, kernel, strides, dilations, pads }
    }

    /// Tap by tap, place by place: the position in the input's plane; the plane's size where it lies outside.
    pub(super) fn positions(&self) -> Vec<u32> {
        let n_plane: usize = self.input.iter().product();
        let outside = u32::try_from(n_plane).expect("a plane has fewer than 2³² elements");
        let position = |tap: &[usize], place: &[usize]| {
            let mut flat = 0;
            for axis in 0..self.input.len() {
                let padded = place[axis] * self.strides[axis] + tap[axis] * self.dilations[axis];
                let along = padded.checked_sub(self.pads[axis].0).filter(|&along| along < self.input[axis])?;
                flat = flat * self.input[axis] + along;
            }
            u32::try_from(flat).ok()
        };
        let places: Vec<Vec<usize>> = coordinates(self.output).collect();
        let taps = coordinates(self.kernel);
        taps.flat_map(|tap| places.iter().map(|place| position(&tap, place).unwrap_or(outside)).collect::<Vec<_>>())
            .collect()
    }

    /// Place by place: how many taps an average divides by.
    pub(super) fn counts(&self, count_padding: bool) -> Vec<f64> {
        let inside = |axis: usize, place: usize| {
            let (begin, end) = self.pads[axis];
            let least = if count_padding { 0 } else { begin };
            let most = begin + self.input[axis] + if count_padding { end } else { 0 };
            let first = place * self.strides[axis];
            (0..self.kernel[axis]).filter(|tap| (least..most).contains(&(first + tap * self.dilations[axis]))).count()
        };
        coordinates(self.output)
            .map(|place| place.iter().enumerate().map(|(axis, &along)| inside(axis, along)).product::<usize>() as f64)
            .collect()
    }

    fn n_taps(&self) -> usize {
        self.kernel.iter().product()
    }

    fn n_places(&self) -> usize {
        self.output.iter().product()
    }

    fn n_plane(&self) -> usize {
        self.input.iter().product()
    }

    fn table(&self, device: &Device) -> Result<Tensor> {
        Tensor::new(self.positions(), device)
    }

    /// `[n, c, …] → [n, c, taps, places]`, with this value outside.
    pub(super) fn gather(&self, x: &Tensor, outside: f64) -> Result<Tensor> {
        let (n, c) = (x.dim(0)?, x.dim(1)?);
        let x = x.reshape((n, c, self.n_plane()))?;
        let edge = Tensor::full(outside, (n, c, 1), x.device())?.to_dtype(x.dtype())?;
        let x = Tensor::cat(&[&x.contiguous()?, &edge], 2)?;
        x.index_select(&self.table(x.device())?, 2)?.reshape((n, c, self.n_taps(), self.n_places()))
    }

    /// `[n, c, taps, places] → [n, c, …]`: the transpose of [`Window::gather`].
    pub(super) fn scatter(&self, taps: &Tensor) -> Result<Tensor> {
        let (n, c) = (taps.dim(0)?, taps.dim(1)?);
        let zeros = Tensor::zeros((n, c, self.n_plane() + 1), taps.dtype(), taps.device())?;
        let taps = taps.reshape((n, c, self.n_taps() * self.n_places()))?.contiguous()?;
        let sums = zeros.index_add(&self.table(taps.device())?, &taps, 2)?.narrow(2, 0, self.n_plane())?;
        sums.reshape([&[n, c], self.input].concat())
    }
}

/// Every coordinate of a box of these sizes, row-major.
fn coordinates(sizes: &[usize]) -> impl Iterator<Item = Vec<usize>> + use<'_> {
    (0..sizes.iter().product::<usize>()).map(move |flat| {
        let mut rest = flat;
        let mut coordinate = vec![0; sizes.len()];
        for (along, &size) in coordinate.iter_mut().zip(sizes).rev() {
            *along = rest % size;
            rest /= size;
        }
        coordinate
    })
}

/// `[x, weight, bias?] → y`
pub(super) fn conv(
    window: &ConvWindow,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    shape: &[usize],
) -> Result<Tensor> {
    let taps = Window::of_conv(window, &x.dims()[2..], &shape[2..], &weight.dims()[2..]);
    let columns = taps.gather(x, 0.0)?;
    let (n, groups) = (x.dim(0)?, window.groups);
    let rows = weight.dim(1)? * taps.n_taps();
    let columns = columns.reshape((n, groups, rows, taps.n_places()))?;
    let weight = weight.reshape((1, groups, weight.dim(0)? / groups, rows))?;
    let y = weight.broadcast_matmul(&columns)?.reshape(shape)?;
    match bias {
        Some(bias) => {
            let mut channels = vec![1; shape.len()];
            channels[1] = shape[1];
            y.broadcast_add(&bias.reshape(channels)?)
        }
        None => Ok(y),
    }
}

/// `[dy, weight] → dx`
pub(super) fn conv_input_gradient(
    window: &ConvWindow,
    dy: &Tensor,
    weight: &Tensor,
    shape: &[usize],
) -> Result<Tensor> {
    let taps = Window::of_conv(window, &shape[2..], &dy.dims()[2..], &weight.dims()[2..]);
    let (n, groups) = (dy.dim(0)?, window.groups);
    let rows = weight.dim(1)? * taps.n_taps();
    let n_out = weight.dim(0)? / groups;
    let weight = weight.reshape((1, groups, n_out, rows))?.transpose(D::Minus1, D::Minus2)?.contiguous()?;
    let dy = dy.reshape((n, groups, n_out, taps.n_places()))?;
    let columns = weight.broadcast_matmul(&dy)?;
    taps.scatter(&columns.reshape((n, shape[1], taps.n_taps(), taps.n_places()))?)
}

/// `[x, dy] → dw`
pub(super) fn conv_weight_gradient(window: &ConvWindow, x: &Tensor, dy: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let taps = Window::of_conv(window, &x.dims()[2..], &dy.dims()[2..], &shape[2..]);
    let (n, groups) = (x.dim(0)?, window.groups);
    let rows = shape[1] * taps.n_taps();
    let columns = taps.gather(x, 0.0)?.reshape((n, groups, rows, taps.n_places()))?;
    let dy = dy.reshape((n, groups, shape[0] / groups, taps.n_places()))?.contiguous()?;
    dy.matmul(&columns.transpose(D::Minus1, D::Minus2)?.contiguous()?)?.sum(0)?.reshape(shape)
}

/// `[x] → y, positions`
pub(super) fn max_pool(window: &PoolWindow, x: &Tensor, shape: &[usize]) -> Result<(Tensor, Tensor)> {
    let taps = Window::of_pool(window, &x.dims()[2..], &shape[2..]);
    let columns = taps.gather(x, f64::NEG_INFINITY)?;
    let y = columns.max(2)?.reshape(shape)?;
    let table = taps.table(x.device())?.reshape((1, 1, taps.n_taps(), taps.n_places()))?;
    let table = table.broadcast_as(columns.shape())?.contiguous()?;
    let chosen = columns.contiguous()?.argmax_keepdim(2)?;
    Ok((y, table.gather(&chosen, 2)?.reshape(shape)?))
}

/// `[dy, positions] → dx`
pub(super) fn max_pool_gradient(dy: &Tensor, positions: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let (n, c) = (shape[0], shape[1]);
    let zeros = Tensor::zeros((n, c, shape[2..].iter().product::<usize>()), dy.dtype(), dy.device())?;
    let places = dy.elem_count() / (n * c).max(1);
    let positions = positions.reshape((n, c, places))?.contiguous()?;
    zeros.scatter_add(&positions, &dy.reshape((n, c, places))?.contiguous()?, 2)?.reshape(shape)
}

/// `[x] → y`
pub(super) fn average_pool(window: &PoolWindow, count_padding: bool, x: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let taps = Window::of_pool(window, &x.dims()[2..], &shape[2..]);
    let sums = taps.gather(x, 0.0)?.sum(2)?;
    sums.broadcast_div(&Tensor::new(taps.counts(count_padding), x.device())?.to_dtype(x.dtype())?)?.reshape(shape)
}

/// `[dy] → dx`
pub(super) fn average_pool_gradient(
    window: &PoolWindow,
    count_padding: bool,
    dy: &Tensor,
    shape: &[usize],
) -> Result<Tensor> {
    let taps = Window::of_pool(window, &shape[2..], &dy.dims()[2..]);
    let (n, c) = (shape[0], shape[1]);
    let counts = Tensor::new(taps.counts(count_padding), dy.device())?.to_dtype(dy.dtype())?;
    let shares = dy.reshape((n, c, taps.n_places()))?.broadcast_div(&counts)?;
    let shares = shares.unsqueeze(2)?.broadcast_as((n, c, taps.n_taps(), taps.n_places()))?;
    taps.scatter(&shares)
}
