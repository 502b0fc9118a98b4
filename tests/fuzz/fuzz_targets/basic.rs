//! `Authorization: Basic` and cookies: read as everybody reads them, and written back so that it is the same.
#![no_main]

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use libfuzzer_sys::fuzz_target;
use tollgate::inject::basic::{decode, halves};
use tollgate::inject::foreign::{Standing, examine};
use tollgate::inject::placeholder::{PlaceholderKey, Recognizer};

fuzz_target!(|data: &[u8]| {
    // Whatever it is: an answer, and no panic.
    let recognizer = Recognizer::new(PlaceholderKey::new(&[7; 32]).unwrap(), []);
    assert_ne!(examine(data, &recognizer), Standing::Ours, "nobody has been given a placeholder");

    // RFC 7617: what an agent's library writes is read as it was meant.
    let colon = data.iter().position(|b| *b == b':');
    let value = format!("Basic {}", BASE64_STANDARD.encode(data));
    let (scheme, decoded) = decode(value.as_bytes()).unwrap();
    assert_eq!((scheme, decoded.as_slice()), (&b"Basic "[..], data));
    let (user, password) = halves(&decoded);
    assert_eq!(user, &data[..colon.unwrap_or(data.len())]);
    assert_eq!(password, colon.map(|colon| &data[colon + 1..]));

    // And what a strict reader takes, ours takes in the same way.
    if let Some((scheme, ours)) = decode(data) {
        assert!(scheme.len() > 5 && scheme[5..].iter().all(|b| *b == b' '));
        let encoded = data[scheme.len()..].trim_ascii_end();
        if let Ok(strict) = BASE64_STANDARD.decode(encoded) {
            assert_eq!(strict, *ours);
        }
    }
});
