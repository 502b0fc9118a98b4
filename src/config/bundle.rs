//! Owns all documents of one moment, each with where it came from.

use std::sync::Arc;

use super::budget::EgressBudgetSpec;
use super::credential::EgressCredentialSpec;
use super::error::{Place, SourceFile};
use super::located::Located;
use super::policy::EgressPolicySpec;

/// One document: its name, its place, and its `spec`.
#[derive(Debug, Clone)]
pub struct Document<S> {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`, if written.
    pub namespace: Option<String>,
    /// `metadata.uid`: what stays the same when the document is renamed.
    pub uid: Option<String>,
    /// The file it stands in.
    pub file: Arc<SourceFile>,
    /// The line it begins on.
    pub line: u32,
    /// Whether it came with the program rather than from the user.
    pub builtin: bool,
    /// What was written.
    pub spec: S,
}

impl<S> Document<S> {
    /// The place of a value of this document, `length` characters wide.
    pub fn place<T>(&self, at: &Located<T>, length: usize) -> Place {
        Place {
            file: self.file.clone(),
            line: at.line.max(1),
            column: at.column.max(1),
            length: u32::try_from(length).unwrap_or(1).max(1),
        }
    }
}

/// All policies, credentials and budgets of one moment, presets resolved.
#[derive(Debug, Clone, Default)]
pub struct Bundle {
    /// `EgressPolicy` documents.
    pub policies: Vec<Document<EgressPolicySpec>>,
    /// `EgressCredential` documents.
    pub credentials: Vec<Document<EgressCredentialSpec>>,
    /// `EgressBudget` documents.
    pub budgets: Vec<Document<EgressBudgetSpec>>,
}

impl Bundle {
    /// How many documents there are.
    pub fn len(&self) -> usize {
        self.policies.len() + self.credentials.len() + self.budgets.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
