//! Owns the Lease as the API server has it: reading and writing it, and why that fails.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use k8s_openapi::api::coordination::v1::Lease;
use kube::core::params::{GetParams, PostParams};
use kube::core::request;
use kube::{Client, Resource as _};

use super::call::{CallError, FIELD_MANAGER, call};
use super::name::ObjectName;

/// Why a Lease cannot be held.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LeaseError {
    /// RBAC lacks a rule.
    #[error(
        "the ServiceAccount may not use the Lease {lease}; give its Role the rules \
         {{apiGroups: [coordination.k8s.io], resources: [leases], verbs: [create]}} and \
         {{apiGroups: [coordination.k8s.io], resources: [leases], resourceNames: [{}], verbs: [get, update]}} \
         (create cannot be limited to a name)",
        lease.name()
    )]
    Forbidden {
        /// The Lease.
        lease: ObjectName,
    },
    /// Anything else.
    #[error("Lease {lease}: {source}")]
    Call {
        /// The Lease.
        lease: ObjectName,
        /// What went wrong.
        source: CallError,
    },
    /// The system gives no random numbers for the holder's identity.
    #[error("the system gives no random numbers")]
    Random,
}

/// Whether a write is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    Real,
    Dry,
}

/// One Lease at one API server.
#[derive(Clone)]
pub(super) struct LeaseObject {
    pub(super) client: Client,
    pub(super) name: ObjectName,
    /// The limit of one request.
    pub(super) limit: Duration,
}

impl LeaseObject {
    pub(super) async fn get(&self) -> Result<Lease, CallError> {
        let request = self.requests().get(self.name.name(), &GetParams::default());
        self.send(request, Run::Real).await
    }

    pub(super) async fn create(&self, lease: &Lease, run: Run) -> Result<Lease, CallError> {
        let request = self.requests().create(&parameters(run), json(lease)?);
        self.send(request, run).await
    }

    /// Writes it if it is still the version that `lease` was made from.
    pub(super) async fn replace(&self, lease: &Lease, run: Run) -> Result<Lease, CallError> {
        let name = self.name.name();
        let request = self
            .requests()
            .replace(name, &parameters(run), json(lease)?);
        self.send(request, run).await
    }

    pub(super) fn error(&self, source: CallError) -> LeaseError {
        let lease = self.name.clone();
        match source {
            CallError::Forbidden => LeaseError::Forbidden { lease },
            source => LeaseError::Call { lease, source },
        }
    }

    fn requests(&self) -> request::Request {
        request::Request::new(Lease::url_path(&(), Some(self.name.namespace())))
    }

    async fn send(
        &self,
        request: Result<Request<Vec<u8>>, request::Error>,
        run: Run,
    ) -> Result<Lease, CallError> {
        let request = request.map_err(|_| CallError::Unreadable("no request could be made"))?;
        let body = call(&self.client, request.map(Bytes::from), self.limit).await?;
        let lease: Lease =
            serde_json::from_slice(&body).map_err(|_| CallError::Unreadable("it is no Lease"))?;
        match lease.metadata.resource_version.as_deref() {
            // A Lease that was only created in a dry run has none.
            None | Some("") if run == Run::Real => {
                Err(CallError::Unreadable("the Lease has no version"))
            }
            _ => Ok(lease),
        }
    }
}

fn parameters(run: Run) -> PostParams {
    PostParams {
        dry_run: run == Run::Dry,
        field_manager: Some(FIELD_MANAGER.to_owned()),
    }
}

fn json(lease: &Lease) -> Result<Vec<u8>, CallError> {
    serde_json::to_vec(lease).map_err(|_| CallError::Unreadable("the Lease cannot be written"))
}
