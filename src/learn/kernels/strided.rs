//! Walking several operands at once by their strides, along one contiguous row-major order.

use std::ops::Range;

/// Dimensions in the order in which they are walked, each with one stride an operand; neighbours that can be one are one.
#[derive(Debug)]
pub(super) struct Walk<const N: usize> {
    sizes: Vec<usize>,
    strides: Vec<[isize; N]>,
    n_elements: usize,
}

impl<const N: usize> Walk<N> {
    /// Over `shape`, each operand with one stride a dimension.
    pub(super) fn new(shape: &[usize], strides: [&[isize]; N]) -> Self {
        let n_elements = shape.iter().product();
        let (mut sizes, mut joined): (Vec<usize>, Vec<[isize; N]>) = (Vec::new(), Vec::new());
        for (axis, &size) in shape.iter().enumerate() {
            if size == 1 {
                continue;
            }
            let here: [isize; N] = std::array::from_fn(|operand| strides[operand][axis]);
            match (sizes.last_mut(), joined.last_mut()) {
                (Some(outer_size), Some(outer)) if (0..N).all(|i| outer[i] == here[i] * size.cast_signed()) => {
                    *outer_size *= size;
                    *outer = here;
                }
                _ => {
                    sizes.push(size);
                    joined.push(here);
                }
            }
        }
        if sizes.is_empty() {
            sizes.push(1);
            joined.push([1; N]);
        }
        Walk { sizes, strides: joined, n_elements }
    }

    pub(super) fn n_elements(&self) -> usize {
        self.n_elements
    }

    /// The dimensions left, outermost first, with their strides.
    pub(super) fn dims(&self) -> impl Iterator<Item = (usize, [isize; N])> + '_ {
        self.sizes.iter().copied().zip(self.strides.iter().copied())
    }

    /// Calls `visit` with the start, the length and the operands' offsets of each piece of an innermost row that lies in
    /// this range of the order, and with the innermost strides.
    #[inline(always)]
    pub(super) fn segments(&self, range: Range<usize>, mut visit: impl FnMut(usize, usize, [isize; N], [isize; N])) {
        let last = self.sizes.len() - 1;
        let (row_len, inner) = (self.sizes[last], self.strides[last]);
        let mut position = range.start;
        if position >= range.end {
            return;
        }
        let mut index = vec![0; last];
        let mut rest = position / row_len;
        let mut offset = [0isize; N];
        for axis in (0..last).rev() {
            index[axis] = rest % self.sizes[axis];
            rest /= self.sizes[axis];
            add(&mut offset, self.strides[axis], index[axis].cast_signed());
        }
        let mut column = position % row_len;
        loop {
            let len = (row_len - column).min(range.end - position);
            let mut start = offset;
            add(&mut start, inner, column.cast_signed());
            visit(position, len, start, inner);
            position += len;
            if position >= range.end {
                return;
            }
            column = 0;
            for axis in (0..last).rev() {
                index[axis] += 1;
                add(&mut offset, self.strides[axis], 1);
                if index[axis] < self.sizes[axis] {
                    break;
                }
                add(&mut offset, self.strides[axis], -index[axis].cast_signed());
                index[axis] = 0;
            }
        }
    }
}

#[inline(always)]
fn add<const N: usize>(offset: &mut [isize; N], stride: [isize; N], times: isize) {
    for (offset, stride) in offset.iter_mut().zip(stride) {
        *offset += stride * times;
    }
}

/// The strides of a contiguous tensor of this shape.
pub(super) fn contiguous(shape: &[usize]) -> Vec<isize> {
    let mut strides = vec![0; shape.len()];
    let mut stride = 1;
    for (axis, &size) in shape.iter().enumerate().rev() {
        strides[axis] = stride;
        stride *= size.cast_signed();
    }
    strides
}

/// The strides with which a contiguous tensor of shape `from` is read as one of shape `to`, by ONNX's broadcasting.
///
/// # Panics
/// When `from` does not broadcast to `to`.
pub(super) fn broadcast(from: &[usize], to: &[usize]) -> Vec<isize> {
    assert!(from.len() <= to.len(), "{from:?} broadcasts to {to:?}");
    let n_leading = to.len() - from.len();
    let mut strides = vec![0; n_leading];
    for ((&have, &want), stride) in from.iter().zip(&to[n_leading..]).zip(contiguous(from)) {
        assert!(have == want || have == 1, "{from:?} broadcasts to {to:?}");
        strides.push(if have == 1 { 0 } else { stride });
    }
    strides
}

/// The shape that two shapes broadcast to.
///
/// # Panics
/// When they do not.
pub(in crate::learn) fn broadcast_shape(a: &[usize], b: &[usize]) -> Vec<usize> {
    let rank = a.len().max(b.len());
    let size = |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |axis| shape[axis]);
    let both = |axis| match (size(a, axis), size(b, axis)) {
        (1, other) | (other, 1) => other,
        (left, right) if left == right => left,
        (_, _) => panic!("{a:?} and {b:?} do not broadcast"),
    };
    (0..rank).map(both).collect()
}
