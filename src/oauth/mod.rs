//! Grants that Tollgate owns, and where their tokens are kept.

pub mod kube_call;
pub mod kube_connect;
pub mod kube_name;
pub mod lease;
pub mod lease_guard;
mod lease_object;
mod lease_record;
pub mod store_secret;
