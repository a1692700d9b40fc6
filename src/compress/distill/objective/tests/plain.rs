//! Numbers in plain loops: what the objectives' nodes are measured against.

use crate::graph::tensor::Tensor;

/// An array, row-major.
#[derive(Clone, Debug)]
pub(super) struct Plain {
    pub(super) shape: Vec<usize>,
    pub(super) data: Vec<f64>,
}

impl Plain {
    pub(super) fn new(shape: &[usize], data: Vec<f64>) -> Plain {
        assert_eq!(shape.iter().product::<usize>(), data.len());
        Plain { shape: shape.to_vec(), data }
    }

    pub(super) fn of(tensor: &Tensor) -> Plain {
        let data = match tensor.as_slice::<f64>() {
            Ok(values) => values.to_vec(),
            Err(_) => tensor.to_f32s().expect("floats").iter().map(|&value| value.into()).collect(),
        };
        Plain::new(tensor.shape(), data)
    }

    pub(super) fn single(&self) -> Tensor {
        Tensor::new(&self.shape, self.data.iter().map(|&value| value as f32).collect()).expect("as many")
    }

    pub(super) fn double(&self) -> Tensor {
        Tensor::new(&self.shape, self.data.clone()).expect("as many")
    }

    /// The array as rows of the last `n_axes` axes.
    pub(super) fn rows(&self, n_axes: usize) -> Vec<Vec<f64>> {
        let length = self.shape[self.shape.len() - n_axes..].iter().product();
        self.data.chunks(length).map(<[f64]>::to_vec).collect()
    }

    /// Each sample as a row.
    pub(super) fn samples(&self) -> Vec<Vec<f64>> {
        self.rows(self.shape.len() - 1)
    }

    /// The sum of squared differences over the number of elements.
    pub(super) fn mean_square(&self, other: &Plain) -> f64 {
        assert_eq!(self.shape, other.shape);
        mean(self.data.iter().zip(&other.data).map(|(a, b)| (a - b).powi(2)))
    }

    /// Axes in another order.
    pub(super) fn transposed(&self, perm: &[usize]) -> Plain {
        let shape: Vec<usize> = perm.iter().map(|&axis| self.shape[axis]).collect();
        let data = (0..self.data.len()).map(|mut flat| {
            let mut place = vec![0; perm.len()];
            for (axis, &size) in shape.iter().enumerate().rev() {
                place[perm[axis]] = flat % size;
                flat /= size;
            }
            self.data[place.iter().zip(&self.shape).fold(0, |at, (idx, size)| at * size + idx)]
        });
        Plain::new(&shape, data.collect())
    }

    pub(super) fn reshaped(&self, shape: &[usize]) -> Plain {
        Plain::new(shape, self.data.clone())
    }

    /// A weighted sum of the elements along an axis for each new place.
    pub(super) fn mapped(&self, axis: usize, weights: &[Vec<f64>]) -> Plain {
        let inner: usize = self.shape[axis + 1..].iter().product();
        let length = self.shape[axis];
        let mut data = Vec::new();
        for block in self.data.chunks(inner * length) {
            for row in weights {
                for at in 0..inner {
                    data.push(row.iter().enumerate().map(|(idx, weight)| weight * block[idx * inner + at]).sum());
                }
            }
        }
        let mut shape = self.shape.clone();
        shape[axis] = weights.len();
        Plain::new(&shape, data)
    }
}

pub(super) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    values.iter().sum::<f64>() / values.len() as f64
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Of length one.
pub(super) fn unit(x: &[f64]) -> Vec<f64> {
    let length = dot(x, x).sqrt();
    x.iter().map(|value| value / length).collect()
}

pub(super) fn softmax(z: &[f64], temperature: f64) -> Vec<f64> {
    let powers: Vec<f64> = z.iter().map(|z| (z / temperature).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

pub(super) fn divergence(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).filter(|(p, _)| **p > 0.0).map(|(p, q)| p * (p / q).ln()).sum()
}

/// The mean over rows of `KL(softmax t ‖ softmax s)`.
pub(super) fn mean_divergence(s: &Plain, t: &Plain) -> f64 {
    let rows = s.rows(1).into_iter().zip(t.rows(1));
    mean(rows.map(|(s, t)| divergence(&softmax(&t, 1.0), &softmax(&s, 1.0))))
}

pub(super) fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let [a, b] = [a, b].map(|x| {
        let middle = mean(x.iter().copied());
        x.iter().map(|value| value - middle).collect::<Vec<f64>>()
    });
    dot(&unit(&a), &unit(&b))
}

pub(super) fn huber(d: f64) -> f64 {
    if d.abs() <= 1.0 { 0.5 * d * d } else { d.abs() - 0.5 }
}

/// `[n, from]` times `[from, to]`, the features of anything.
pub(super) fn linear(x: &Plain, weight: &Plain, bias: Option<&Plain>) -> Plain {
    let (from, to) = (weight.shape[0], weight.shape[1]);
    let mut data = Vec::new();
    for row in x.data.chunks(from) {
        for out in 0..to {
            let sum: f64 = (0..from).map(|idx| row[idx] * weight.data[idx * to + out]).sum();
            data.push(sum + bias.map_or(0.0, |bias| bias.data[out]));
        }
    }
    let mut shape = x.shape.clone();
    *shape.last_mut().expect("an axis") = to;
    Plain::new(&shape, data)
}

/// A convolution of one pixel.
pub(super) fn pointwise(x: &Plain, weight: &Plain, bias: &Plain) -> Plain {
    let last = x.transposed(&[0, 2, 3, 1]);
    let matrix = weight.reshaped(&weight.shape[..2]).transposed(&[1, 0]);
    linear(&last, &matrix, Some(bias)).transposed(&[0, 3, 1, 2])
}

/// Means of blocks, or a triangle as wide as the step where they would not be whole.
pub(super) fn shrunk(x: &Plain, axis: usize, to: usize) -> Plain {
    let from = x.shape[axis];
    let step = from as f64 / to as f64;
    let weights = (0..to).map(|out| {
        let row: Vec<f64> = (0..from)
            .map(|idx| {
                if from.is_multiple_of(to) {
                    return f64::from(u8::from(idx / (from / to) == out));
                }
                let center = (out as f64 + 0.5) * step - 0.5;
                (1.0 - (idx as f64 - center).abs() / step).max(0.0)
            })
            .collect();
        let sum: f64 = row.iter().sum();
        row.into_iter().map(|weight| weight / sum).collect()
    });
    x.mapped(axis, &weights.collect::<Vec<_>>())
}
