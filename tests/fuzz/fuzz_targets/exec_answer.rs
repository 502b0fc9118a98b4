//! What a helper program prints: a secret that can be sent and lasts, or a reason that shows nothing of it.
#![no_main]

use std::time::{Duration, SystemTime};

use libfuzzer_sys::fuzz_target;
use tollgate::config::source::ExecOutput;
use tollgate::credential::exec_answer::read;
use tollgate::credential::source::Form;
use zeroize::Zeroizing;

fuzz_target!(|data: &[u8]| {
    let Some((&which, printed)) = data.split_first() else {
        return;
    };
    let output = if which & 1 == 0 { ExecOutput::Json } else { ExecOutput::Text };
    let form = if which & 2 == 0 { Form::Line } else { Form::Document };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let ttl = Duration::from_secs(300);
    let outcome = read(output, form, Zeroizing::new(printed.to_vec()), now, ttl);
    match outcome {
        Ok(fetched) => {
            assert!(fetched.expires_at.is_some_and(|at| at > now));
            let secret = fetched.secret.expose();
            assert!(!secret.is_empty() && !secret.contains(&0));
            let text = std::str::from_utf8(secret).unwrap();
            if form == Form::Line {
                assert!(!text.contains(['\n', '\r']) && text.trim() == text);
            }
            match output {
                ExecOutput::Text => assert!(printed.starts_with(secret)),
                ExecOutput::Json => {
                    // What is not used need not even be Unicode.
                    let plain = serde_json::from_slice::<serde_json::Value>(printed);
                    let plain = plain.unwrap_or_default();
                    let token = plain.pointer("/status/token").and_then(|t| t.as_str());
                    assert!(token.is_none_or(|token| token.starts_with(text)));
                }
            }
        }
        Err(said) => {
            // Only our own words: the printed text is at most a number in them.
            assert!(said.is_ascii() && said.starts_with("printed"), "{said}");
        }
    }
});
