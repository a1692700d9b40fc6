//! Sums of two products in sixteen bits: which weights can make them saturate, and by how much they do.
//!
//! Neighbours are two weights of one output, at an even place and the one behind it, in the order in which onnxruntime sums: a
//! matrix product along its inner axis, a convolution over the taps of its kernel and within each over the channels.

/// The greatest sum of two weights of one sign whose products with unsigned bytes stay within sixteen bits:
/// 255 · 128 < 2¹⁵ ≤ 255 · 129.
const GREATEST: i32 = 128;

/// Whether a convolution of so many inputs and outputs a group is summed in 32 bits on every machine: a depthwise one is.
pub fn is_exact(group_inputs: usize, group_outputs: usize) -> bool {
    group_inputs == 1 && group_outputs == 1
}

/// Whether `a · first + b · second` can leave sixteen bits, for some bytes `a` and `b`. Weights of seven bits never do.
pub fn can_saturate(first: i8, second: i8) -> bool {
    reach(first, second) > GREATEST
}

/// Of the pairs of an output's weights, in the order in which they are summed, those that can saturate. A last one without a
/// neighbour cannot.
pub fn n_saturable(weights: &[i8]) -> usize {
    weights.chunks_exact(2).filter(|pair| can_saturate(pair[0], pair[1])).count()
}

/// The greater of the sums of the positive and of the negative weights.
fn reach(first: i8, second: i8) -> i32 {
    let (first, second) = (i32::from(first), i32::from(second));
    (first.max(0) + second.max(0)).max(-(first.min(0) + second.min(0)))
}

/// The pairs of a matrix of weights that can saturate.
#[derive(Clone, Debug, Default)]
pub(super) struct Saturable {
    places: Vec<Place>,
    pairs: Vec<Pair>,
    /// Pairs there are, saturable or not.
    pub(super) n_all: usize,
}

/// The pairs of all outputs at one place along the sum.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// The even place.
    at: usize,
    /// The least byte that lets one of them saturate, where it is the greater of the two.
    least: u8,
    /// Where its pairs end.
    end: usize,
}

#[derive(Clone, Copy, Debug)]
struct Pair {
    output: usize,
    weights: [i32; 2],
}

impl Saturable {
    /// Of the weights of each output, `depth` a piece.
    pub(super) fn of(outputs: &[i8], depth: usize) -> Saturable {
        let mut saturable = Saturable::default();
        if depth < 2 {
            return saturable;
        }
        saturable.n_all = outputs.len() / depth * (depth / 2);
        for at in (0..depth - 1).step_by(2) {
            let mut greatest = 0;
            for (output, weights) in outputs.chunks_exact(depth).enumerate() {
                let (first, second) = (weights[at], weights[at + 1]);
                if can_saturate(first, second) {
                    saturable.pairs.push(Pair { output, weights: [first.into(), second.into()] });
                    greatest = greatest.max(reach(first, second));
                }
            }
            if greatest > 0 {
                let least = u8::try_from((i32::from(i16::MAX) / greatest) + 1).unwrap_or(u8::MAX);
                saturable.places.push(Place { at, least, end: saturable.pairs.len() });
            }
        }
        saturable
    }

    /// How many can.
    pub(super) fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Takes from the exact sums of a row what saturation takes; counts the pairs that saturate.
    pub(super) fn saturate(&self, row: &[u8], sums: &mut [i32]) -> u64 {
        let (mut start, mut n_saturated) = (0, 0);
        for place in &self.places {
            let pairs = &self.pairs[start..place.end];
            start = place.end;
            let (first, second) = (row[place.at], row[place.at + 1]);
            if first.max(second) < place.least {
                continue;
            }
            let (first, second) = (i32::from(first), i32::from(second));
            for pair in pairs {
                let sum = first * pair.weights[0] + second * pair.weights[1];
                let excess = sum - sum.clamp(i16::MIN.into(), i16::MAX.into());
                sums[pair.output] = sums[pair.output].wrapping_sub(excess);
                n_saturated += u64::from(excess != 0);
            }
        }
        n_saturated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_say_whether_any_bytes_saturate() {
        for first in i8::MIN..=i8::MAX {
            for second in i8::MIN..=i8::MAX {
                let sum = |a: i32, b: i32| a * i32::from(first) + b * i32::from(second);
                let corners = [sum(255, 255), sum(255, 0), sum(0, 255)];
                let leaves = corners.iter().any(|&sum| i16::try_from(sum).is_err());
                assert_eq!(can_saturate(first, second), leaves, "{first} {second}");
            }
        }
        assert_eq!(n_saturable(&[127, 2, 64, 64, -128, -1, 127]), 2);
    }

    #[test]
    fn the_least_byte_passes_over_no_saturating_pair() {
        for (first, second) in [(127i8, 2i8), (127, 127), (-128, -1), (-128, -128), (-64, -65)] {
            let saturable = Saturable::of(&[first, second], 2);
            for (a, b) in (0..=255u8).flat_map(|a| (0..=255u8).map(move |b| (a, b))) {
                let exact = i32::from(a) * i32::from(first) + i32::from(b) * i32::from(second);
                let mut sums = [exact];
                saturable.saturate(&[a, b], &mut sums);
                assert_eq!(sums[0], exact.clamp(-32768, 32767), "{a} · {first} + {b} · {second}");
            }
        }
    }
}
