//! Elements of at most eight bits, in bytes of their own and packed as ONNX's `raw_data` has them: one after the other
//! from the lowest bit of the first byte on, those of six bits reaching from a byte into the next.

/// The bits of the first `n_elements`, each in the low end of a byte of its own; bits beyond the bytes are zero.
/// `n_bits` is from 1 to 8.
pub(crate) fn unpack(n_bits: usize, bytes: &[u8], n_elements: usize) -> Vec<u8> {
    let mask = u8::MAX >> (8 - n_bits);
    let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
    let element = |bit: usize| {
        let [low, _] = (u16::from_le_bytes([byte(bit / 8), byte(bit / 8 + 1)]) >> (bit % 8)).to_le_bytes();
        low & mask
    };
    (0..n_elements).map(|idx| element(idx * n_bits)).collect()
}

/// The way back; bits beyond an element's are dropped, those after the last element are zero.
pub(crate) fn pack(n_bits: usize, elements: &[u8]) -> Vec<u8> {
    let mask = u8::MAX >> (8 - n_bits);
    let mut bytes = vec![0u8; (elements.len() * n_bits).div_ceil(8)];
    for (idx, element) in elements.iter().enumerate() {
        let bit = idx * n_bits;
        let window = (u16::from(element & mask) << (bit % 8)).to_le_bytes();
        for (byte, part) in bytes[bit / 8..].iter_mut().zip(window) {
            *byte |= part;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of six bits an element from `onnx.numpy_helper._pack_6bit` 1.23.
    #[test]
    fn elements_follow_each_other_from_the_lowest_bit() {
        let check = |n_bits: usize, elements: &[u8], bytes: &[u8]| {
            assert_eq!(pack(n_bits, elements), bytes, "{n_bits} bits");
            assert_eq!(unpack(n_bits, bytes, elements.len()), elements, "{n_bits} bits");
        };
        check(2, &[0, 1, 2, 3, 1], &[0xe4, 1]);
        check(4, &[1, 2, 3], &[0x21, 0x03]);
        check(6, &[8, 50, 4, 20, 34], &[0x88, 0x4c, 0x50, 0x22]);
        check(6, &[12, 49], &[0x4c, 0x0c]);
        check(8, &[200, 7], &[200, 7]);
        check(6, &[], &[]);
    }

    #[test]
    fn any_number_of_elements_comes_back() {
        for n_bits in [2, 4, 6, 8] {
            for n_elements in 0..20u8 {
                let elements: Vec<u8> =
                    (0..n_elements).map(|x| x.wrapping_mul(37).wrapping_add(63) & (u8::MAX >> (8 - n_bits))).collect();
                assert_eq!(unpack(n_bits, &pack(n_bits, &elements), elements.len()), elements);
            }
        }
        assert_eq!(pack(6, &[0xff]), [0x3f]);
    }
}
