//! Documents: whatever is written, they are loaded or it is said why, with a place within the file.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tollgate::budget::set::BudgetSet;
use tollgate::config::error::ConfigError;
use tollgate::config::load::{load_bundle, load_config};
use tollgate::policy::compile::compile;

/// In memory where that is to be had: it is written for every input.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let dir = if memory.is_dir() { memory } else { std::env::temp_dir() };
    dir.join(format!("tollgate-fuzz-{}.yaml", std::process::id()))
});

fn told(errors: &[ConfigError], lines: usize) {
    assert!(!errors.is_empty(), "refused without a word");
    for error in errors {
        assert!(error.code.starts_with("TG") && !error.message.is_empty(), "{error:?}");
        if let Some(place) = &error.place
            && place.file.name == FILE.display().to_string()
        {
            assert!(place.line >= 1 && place.column >= 1 && place.length >= 1, "{error:?}");
            assert!(place.line as usize <= lines + 1, "{error:?}");
        }
        assert!(!error.to_string().is_empty());
    }
}

fuzz_target!(|data: &[u8]| {
    std::fs::write(&*FILE, data).unwrap();
    // A CR alone ends a line as well (YAML 1.2, section 5.4).
    let lines = data.split(|b| matches!(b, b'\n' | b'\r')).count();
    if let Err(errors) = load_config(&FILE) {
        told(&errors, lines);
    }
    match load_bundle(std::slice::from_ref(&*FILE), &[]) {
        Err(errors) => told(&errors, lines),
        Ok(bundle) => {
            if let Err(errors) = compile(&bundle) {
                told(&errors, lines);
            }
            if let Err(errors) = BudgetSet::compile(&bundle) {
                told(&errors, lines);
            }
        }
    }
});
