//! Owns the values taken from the process environment at start: the only place that secrets of
//! kind `env` are looked up in afterwards.

use std::collections::BTreeMap;
use std::fmt;

use zeroize::Zeroizing;

use super::source::{Fetched, Form, SourceError};
use crate::types::secret::Secret;

/// Variables that were read once and removed from the process.
#[derive(Default)]
pub struct SealedEnv(BTreeMap<String, Secret>);

impl SealedEnv {
    /// Takes over what was removed from the environment.
    pub fn new(variables: BTreeMap<String, Secret>) -> Self {
        Self(variables)
    }

    /// The secret in variable `name`.
    pub fn fetch(&self, name: &str, form: Form) -> Result<Fetched, SourceError> {
        let Some(value) = self.0.get(name) else {
            return Err(SourceError::Missing(format!(
                "the variable `{name}` is not set; set it where Tollgate is started, or write another `source`"
            )));
        };
        if value.is_empty() {
            return Err(SourceError::Missing(format!(
                "the variable `{name}` is set but empty; give it the secret where Tollgate is started"
            )));
        }
        let bytes = Zeroizing::new(value.expose().to_vec());
        let place = format!("the variable `{name}`");
        form.read(bytes, &place).map(Fetched::lasting)
    }
}

impl fmt::Debug for SealedEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(name: &str, value: &str) -> SealedEnv {
        SealedEnv::new(BTreeMap::from([(
            name.to_owned(),
            Secret::from(value.to_owned()),
        )]))
    }

    #[test]
    fn a_variable_is_found_by_its_name() {
        let env = sealed("KEY", "s3cret");
        assert_eq!(
            env.fetch("KEY", Form::Line).unwrap().secret.expose(),
            b"s3cret"
        );
        assert!(env.fetch("KEY", Form::Line).unwrap().expires_at.is_none());
        assert!(!format!("{env:?}").contains("s3cret"));
    }

    #[test]
    fn a_missing_or_unusable_variable_is_named_with_its_remedy() {
        for (value, said) in [("", "set but empty"), ("s3\ncret", "more than one line")] {
            let error = sealed("KEY", value)
                .fetch("KEY", Form::Line)
                .unwrap_err()
                .to_string();
            assert!(error.contains("`KEY`") && error.contains(said), "{error}");
            assert!(!error.contains("s3"));
        }
        let error = SealedEnv::default().fetch("KEY", Form::Line).unwrap_err();
        assert!(matches!(&error, SourceError::Missing(text) if text.contains("`KEY` is not set")));
    }
}
