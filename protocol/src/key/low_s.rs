//! The one form of an ECDSA signature on P-256.
//!
//! Where `(r, s)` is a signature, `(r, n - s)` is one too, with `n` the order of the curve: anybody
//! can turn one into the other without the key. A verifier must take both, because signers (hardware
//! above all) produce both. What may have one encoding only, a gossiped head, takes the one whose `s`
//! is the smaller of the two, the rule of Bitcoin's BIP 146.

/// The order of P-256's base point (FIPS 186-5 with SP 800-186, 3.2.1.3), big-endian.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// The signature's form with the smaller `s`, in DER. `None` for bytes that are no signature in DER.
pub(super) fn of(signature: &[u8]) -> Option<Vec<u8>> {
    let body = element(0x30, signature).filter(|(_, rest)| rest.is_empty())?.0;
    let (r, rest) = element(0x02, body)?;
    let (s, rest) = element(0x02, rest)?;
    let (r, s) = (number(r)?, number(s)?);
    let mirrored = order_minus(&s)?;
    let body = [integer(&r), integer(s.min(mirrored).as_slice())].concat();
    rest.is_empty().then(|| tagged(0x30, &body))
}

/// The content of the DER element with this tag at the start of `bytes`, and what follows it. No
/// element of a P-256 signature is long enough for a length of two bytes.
fn element(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[found, length], rest) = bytes.split_first_chunk()?;
    if found != tag || length >= 0x80 {
        return None;
    }
    rest.split_at_checked(usize::from(length))
}

/// A positive DER integer of at most 32 bytes, padded to 32.
fn number(content: &[u8]) -> Option<[u8; 32]> {
    let digits = match content {
        [0, digits @ ..] if digits.first().is_some_and(|first| *first >= 0x80) => digits,
        [first, ..] if (1..0x80).contains(first) => content,
        _ => return None,
    };
    let mut padded = [0; 32];
    let start = padded.len().checked_sub(digits.len())?;
    padded[start..].copy_from_slice(digits);
    Some(padded)
}

/// `n - s`, for an `s` below `n`.
fn order_minus(s: &[u8; 32]) -> Option<[u8; 32]> {
    let mut difference = [0; 32];
    let mut borrowed = false;
    for index in (0..32).rev() {
        let (low, first) = ORDER[index].overflowing_sub(s[index]);
        let (low, second) = low.overflowing_sub(u8::from(borrowed));
        difference[index] = low;
        borrowed = first || second;
    }
    (!borrowed).then_some(difference)
}

fn integer(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let mut content = number[zeros..].to_vec();
    if content.first().is_none_or(|first| *first >= 0x80) {
        content.insert(0, 0);
    }
    tagged(0x02, &content)
}

fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).expect("two integers of at most 33 bytes");
    [&[tag, length], content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn signature(r: &[u8; 32], s: &[u8; 32]) -> Vec<u8> {
        tagged(0x30, &[integer(r), integer(s)].concat())
    }

    fn small(value: u8) -> [u8; 32] {
        let mut number = [0; 32];
        number[31] = value;
        number
    }

    #[test]
    fn the_smaller_s_stays_and_the_larger_is_mirrored() {
        let mirrored = order_minus(&small(1)).expect("below the order");
        assert_eq!(of(&signature(&small(5), &small(1))), Some(signature(&small(5), &small(1))));
        assert_eq!(of(&signature(&small(5), &mirrored)), Some(signature(&small(5), &small(1))));
    }

    #[test]
    fn r_is_never_changed() {
        let large = order_minus(&small(9)).expect("below the order");
        assert_eq!(of(&signature(&large, &small(1))), Some(signature(&large, &small(1))));
    }

    #[test]
    fn what_is_no_signature_in_der_has_no_form() {
        let good = signature(&small(5), &small(200));
        assert!(of(&good).is_some());
        let longer = [&good[..], &[0]].concat();
        let padded = tagged(0x30, &[tagged(2, &[0, 5]), integer(&small(1))].concat());
        let negative = tagged(0x30, &[tagged(2, &[0x85]), integer(&small(1))].concat());
        let zero = tagged(0x30, &[integer(&small(5)), tagged(2, &[0])].concat());
        let three = tagged(0x30, &[integer(&small(5)), integer(&small(1)), integer(&small(1))].concat());
        let above = signature(&small(5), &[0xff; 32]);
        for bad in [&[][..], &good[..4], &longer, &padded, &negative, &zero, &three, &above] {
            assert_eq!(of(bad), None, "{bad:02x?}");
        }
    }

    proptest! {
        #[test]
        fn both_forms_of_a_signature_have_one_form(r in 1..=u8::MAX, s: [u8; 32]) {
            prop_assume!(s != [0; 32]);
            let Some(mirrored) = order_minus(&s) else { return Ok(()) };
            let form = of(&signature(&small(r), &s));
            prop_assert!(form.is_some());
            prop_assert_eq!(&form, &of(&signature(&small(r), &mirrored)));
            prop_assert_eq!(form.as_deref().and_then(of), form);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..90)) {
            let _ = of(&bytes);
        }
    }
}
