//! Which pieces a node holds, as it travels in `Announce` and lies on disk.

/// A set of piece indices below a fixed count: bit `i % 8`, from the most significant, of byte
/// `i / 8`. Spare bits of the last byte are zero.
#[derive(Clone, PartialEq, Eq)]
pub struct Bitmap {
    bytes: Vec<u8>,
    count: u32,
    ones: u32,
}

fn place(index: u32) -> (usize, u8) {
    ((index / 8) as usize, 0x80 >> (index % 8))
}

impl Bitmap {
    /// No pieces out of `count`.
    pub fn empty(count: u32) -> Self {
        Self { bytes: vec![0; count.div_ceil(8) as usize], count, ones: 0 }
    }

    /// All `count` pieces.
    pub fn full(count: u32) -> Self {
        let mut bitmap = Self { bytes: vec![0xff; count.div_ceil(8) as usize], count, ones: count };
        if let (Some(last), spare @ 1..) = (bitmap.bytes.last_mut(), (8 - count % 8) % 8) {
            *last <<= spare;
        }
        bitmap
    }

    /// Decodes a bitmap of `count` pieces; `None` where its length is wrong or a spare bit is set.
    pub fn from_bytes(bytes: &[u8], count: u32) -> Option<Self> {
        if bytes.len() != count.div_ceil(8) as usize {
            return None;
        }
        let spare = (8 - count % 8) % 8;
        if bytes.last().is_some_and(|last| last & !(0xff_u8 << spare) != 0) {
            return None;
        }
        let ones = bytes.iter().map(|byte| byte.count_ones()).sum();
        Some(Self { bytes: bytes.to_vec(), count, ones })
    }

    /// The encoding.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Pieces in all, held or not.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Pieces held.
    pub fn ones(&self) -> u32 {
        self.ones
    }

    /// Whether every piece is held.
    pub fn is_full(&self) -> bool {
        self.ones == self.count
    }

    /// Whether `index` is held; false for an index out of range.
    pub fn get(&self, index: u32) -> bool {
        let (byte, bit) = place(index);
        index < self.count && self.bytes[byte] & bit != 0
    }

    /// Adds `index`; true where it was not held. An index out of range changes nothing.
    pub fn set(&mut self, index: u32) -> bool {
        if index >= self.count || self.get(index) {
            return false;
        }
        let (byte, bit) = place(index);
        self.bytes[byte] |= bit;
        self.ones += 1;
        true
    }

    /// Removes `index`; true where it was held.
    pub fn clear(&mut self, index: u32) -> bool {
        if !self.get(index) {
            return false;
        }
        let (byte, bit) = place(index);
        self.bytes[byte] &= !bit;
        self.ones -= 1;
        true
    }

    /// The indices held, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.count).filter(|index| self.get(*index))
    }

    /// The indices held here and not in `other`, in order from the byte of `start` on and around to it.
    /// What only one of the two counts is left out.
    pub fn without<'a>(&'a self, other: &'a Self, start: u32) -> impl Iterator<Item = u32> + 'a {
        let count = self.count.min(other.count);
        let bytes = count.div_ceil(8);
        let first = if count == 0 { 0 } else { (start % count) / 8 };
        (0..bytes)
            .flat_map(move |step| {
                let at = (first + step) % bytes;
                let left = self.bytes[at as usize] & !other.bytes[at as usize];
                (0..8).filter(move |bit| left & (0x80 >> bit) != 0).map(move |bit| at * 8 + bit)
            })
            .filter(move |index| *index < count)
    }

    /// The indices not held, in order.
    pub fn iter_missing(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.count).filter(|index| !self.get(*index))
    }
}

impl std::fmt::Debug for Bitmap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bitmap({}/{})", self.ones, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_bitmap_survives_its_bytes(held in proptest::collection::vec(any::<bool>(), 0..100)) {
            let count = u32::try_from(held.len()).expect("short");
            let mut bitmap = Bitmap::empty(count);
            for (index, _) in (0..count).zip(&held).filter(|(_, held)| **held) {
                prop_assert!(bitmap.set(index));
            }
            prop_assert_eq!(Bitmap::from_bytes(bitmap.as_bytes(), count), Some(bitmap.clone()));
            prop_assert_eq!(bitmap.ones() as usize, held.iter().filter(|held| **held).count());
            prop_assert_eq!(bitmap.iter().count() + bitmap.iter_missing().count(), held.len());
        }

        #[test]
        fn what_one_holds_without_the_other_is_found_wherever_the_search_starts(
            pairs in proptest::collection::vec(any::<(bool, bool)>(), 0..200),
            start in 0u32..300,
        ) {
            let count = u32::try_from(pairs.len()).expect("short");
            let (mut one, mut other) = (Bitmap::empty(count), Bitmap::empty(count));
            for (index, (first, second)) in (0..count).zip(&pairs) {
                if *first { one.set(index); }
                if *second { other.set(index); }
            }
            let mut found: Vec<u32> = one.without(&other, start).collect();
            found.sort_unstable();
            let expected: Vec<u32> =
                (0..count).zip(&pairs).filter(|(_, (first, second))| *first && !second).map(|(index, _)| index).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn arbitrary_bytes_decode_only_in_their_one_form(bytes in proptest::collection::vec(any::<u8>(), 0..20), count in 0u32..170) {
            if let Some(bitmap) = Bitmap::from_bytes(&bytes, count) {
                prop_assert_eq!(bitmap.as_bytes(), &bytes[..]);
            }
        }
    }

    #[test]
    fn a_full_bitmap_has_no_spare_bits() {
        for count in 0..20 {
            let full = Bitmap::full(count);
            assert!(full.is_full());
            assert_eq!(Bitmap::from_bytes(full.as_bytes(), count), Some(full));
        }
        assert_eq!(Bitmap::from_bytes(&[0b1110_0001], 7), None);
    }
}
