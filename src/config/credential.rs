//! Owns `EgressCredential` as written: where a secret comes from, which hosts may receive it, where
//! it goes, and the placeholder that stands for it. A secret itself is never part of a document.

use schemars::JsonSchema;
use serde::Deserialize;

use super::located::Located;
use super::source::SourceSpec;
use super::units::Size;

/// The `spec` of an `EgressCredential`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EgressCredentialSpec {
    /// Takes what is not written here from this built-in preset's credential.
    #[serde(default)]
    pub preset: Option<Located<String>>,
    /// Hosts that may ever receive the secret: exact, or below a registrable domain.
    #[serde(default)]
    pub hosts: Vec<Located<String>>,
    /// Ports that may ever receive it; 443 when absent.
    #[serde(default)]
    pub ports: Vec<Located<u16>>,
    /// Where the secret comes from.
    #[serde(default)]
    pub source: Option<Located<SourceSpec>>,
    /// Where the placeholder may stand, and so where the secret goes.
    #[serde(default)]
    pub placements: Vec<Located<PlacementSpec>>,
    /// Whether the secret replaces the placeholder only, or is always set.
    #[serde(default)]
    pub mode: Option<InjectionMode>,
    /// What happens to a credential of the agent's own on a host of this credential.
    #[serde(default)]
    pub on_foreign: Option<OnForeign>,
    /// What the agent holds instead.
    #[serde(default)]
    pub placeholder: Option<PlaceholderSpec>,
    /// Header fields that a request with the secret must have besides.
    #[serde(default)]
    pub request_headers: Vec<Located<RequestHeaderSpec>>,
    /// Start and be ready even if the secret is not there; using its placeholder is then refused.
    #[serde(default)]
    pub optional: bool,
}

/// A word that a list-valued header field of a request with the secret must hold (RFC 9110, section 5.6.1).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestHeaderSpec {
    /// Field name.
    pub name: String,
    /// The word. It comes last, unless the field holds it already; what the agent sent stays as it is.
    pub append: String,
}

/// A place in a request where the placeholder may stand.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum PlacementSpec {
    /// A header field whose value is the placeholder, alone or within `format` (`token {}`).
    Header {
        /// Field name.
        name: String,
        /// The value around the placeholder, `{}` standing for it.
        #[serde(default)]
        format: Option<String>,
    },
    /// `Authorization: Bearer {}` (RFC 6750).
    Bearer {},
    /// `Authorization: Basic` (RFC 7617): the placeholder is the user name or the password.
    Basic {
        /// Which of the two.
        #[serde(default)]
        position: BasicPosition,
        /// With `mode: set`: the user name to send.
        #[serde(default)]
        username: Option<String>,
    },
    /// A query parameter's value.
    Query {
        /// The parameter's name.
        name: String,
    },
    /// Part of the path, `{}` standing for the placeholder: `/bot{}/`.
    Path {
        /// The path's beginning around the placeholder.
        template: String,
    },
    /// A cookie's value.
    Cookie {
        /// The cookie's name.
        name: String,
    },
    /// A string field of a JSON body.
    Body {
        /// JSON pointer (RFC 6901) to the field.
        pointer: String,
        /// Largest body that is read for it; 1MiB when absent.
        #[serde(default)]
        limit: Option<Size>,
    },
}

/// Which half of Basic credentials the placeholder is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BasicPosition {
    /// Either half (git users put tokens in both).
    #[default]
    Any,
    /// The user name.
    User,
    /// The password.
    Password,
}

/// When the secret goes out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InjectionMode {
    /// Only where the placeholder stood.
    #[default]
    Swap,
    /// On every allowed request, in the first placement, over whatever stood there.
    Set,
}

/// What happens to a credential that is not the placeholder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnForeign {
    /// The request is refused: an attacker's own key on an allowed host is a way out for data.
    #[default]
    Refuse,
    /// It is removed and the request goes on.
    Strip,
    /// It passes.
    Pass,
}

/// What the agent holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlaceholderSpec {
    /// A fixed value, the same for every agent; at least 8 characters. Derived per agent when absent.
    #[serde(default)]
    pub value: Option<Located<String>>,
    /// Shape of a derived one: literal text and `[alphabet:length]` runs, for example
    /// `sk-ant-api03-[A-Za-z0-9_-:93]AA`.
    #[serde(default)]
    pub shape: Option<Located<String>>,
    /// Shape of what stands in place of a refresh token, for an `oauth` source whose agents ask a token
    /// endpoint themselves; like the known client's own when absent.
    #[serde(default)]
    pub refresh_shape: Option<Located<String>>,
    /// Variables that `tollgate env` and `tollgate run` set to it for the agent.
    #[serde(default)]
    pub env: Vec<String>,
}
