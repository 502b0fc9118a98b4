//! The search for secrets in answers, beside a naive one: what it leaves holds no secret, however the text comes
//! in pieces, and what holds none is left as it is.
#![no_main]

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tollgate::scrub::needles::Needles;
use tollgate::scrub::stand_in::Fit;
use tollgate::scrub::stream::Scrubber;

const SECRETS: [&str; 2] = ["sk-ant-S3CRET/+of=1", "ghp_Second0SecretOfAll"];
const PLACEHOLDERS: [&str; 2] = ["sk-ant-placeholder-1", "ghp_placeholder0000002"];

static NEEDLES: LazyLock<Arc<Needles>> = LazyLock::new(|| {
    let pairs = SECRETS.iter().zip(PLACEHOLDERS);
    Arc::new(Needles::new(pairs.map(|(s, p)| (s.as_bytes(), p.as_bytes()))))
});

/// The forms that a naive search looks for.
static FORMS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let forms = |s: &str| {
        [
            s.to_owned(),
            utf8_percent_encode(s, NON_ALPHANUMERIC).to_string(),
            BASE64_STANDARD_NO_PAD.encode(s),
            BASE64_URL_SAFE_NO_PAD.encode(s),
            s.replace('/', "\\/"),
        ]
    };
    SECRETS.iter().flat_map(|s| forms(s)).map(String::into_bytes).collect()
});

/// Octets stand for themselves; the last few values stand for a form of a secret, or a part of one.
fn text(data: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut rest = data.iter();
    while let Some(octet) = rest.next() {
        match usize::from(*octet).checked_sub(0xe0) {
            Some(form) if form < FORMS.len() => text.extend(&FORMS[form]),
            Some(form) if form < 2 * FORMS.len() => {
                let form = &FORMS[form - FORMS.len()];
                let end = usize::from(*rest.next().unwrap_or(&0)) % (form.len() + 1);
                text.extend(&form[..end]);
            }
            _ => text.push(*octet),
        }
    }
    text
}

fn holds(text: &[u8]) -> Option<&'static [u8]> {
    let held = |form: &&Vec<u8>| text.windows(form.len()).any(|window| window == form.as_slice());
    FORMS.iter().find(held).map(Vec::as_slice)
}

fuzz_target!(|data: &[u8]| {
    let [fit, width, data @ ..] = data else {
        return;
    };
    let fit = if fit % 2 == 0 { Fit::Free } else { Fit::Same };
    let text = text(data);
    let clean = NEEDLES.scrub(&text, fit);
    if let Some(form) = holds(&text) {
        assert!(clean.is_some(), "{:?} passes", String::from_utf8_lossy(form));
    }
    let clean = clean.map_or_else(|| text.clone(), |(clean, hits)| {
        assert!(hits > 0);
        clean
    });
    // The end of a placeholder may meet the rest of a form that did not stand there.
    let stood = |form: &&[u8]| text.windows(form.len()).any(|window| window == *form);
    if let Some(form) = holds(&clean).filter(stood) {
        panic!("{:?} is left in {:?}", String::from_utf8_lossy(form), String::from_utf8_lossy(&clean));
    }
    if fit == Fit::Same {
        assert_eq!(clean.len(), text.len());
    }
    let mut scrubber = Scrubber::new(NEEDLES.clone(), fit);
    let mut out = VecDeque::new();
    for piece in text.chunks(usize::from(*width) + 1) {
        scrubber.feed(Bytes::copy_from_slice(piece), &mut out);
        assert!(scrubber.held() <= NEEDLES.most_held());
    }
    scrubber.finish(&mut out);
    let streamed: Vec<u8> = out.into_iter().flatten().collect();
    assert!(streamed == clean, "in pieces of {}: {:?}", usize::from(*width) + 1, String::from_utf8_lossy(&streamed));
});
