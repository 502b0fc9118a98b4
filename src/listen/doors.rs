//! Owns what every door hands requests to.

use std::sync::Arc;

use crate::identity::identifier::Identifier;
use crate::net::places::Places;
use crate::proxy::exchange::Exchange;
use crate::tls::leaf::LeafStore;

/// What the doors hand requests to.
pub struct Doors {
    /// The data path.
    pub exchange: Arc<Exchange>,
    /// Certificates for intercepted hosts.
    pub leaves: Arc<LeafStore>,
    /// How many connections there may be.
    pub places: Places,
    /// Who is calling.
    pub identifier: Arc<Identifier>,
}
