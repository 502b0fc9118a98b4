//! Owns placements in a JSON body: the head decides whether the body must be read, the body is
//! swapped when it is there, byte for byte but for the secret.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use memchr::memmem;
use zeroize::Zeroizing;

use super::error::{InjectError, Misuse, Position};
use super::injector::{InjectedCredential, Outgoing, Reveal};
use super::json::{JsonFault, locate, quote};
use super::placeholder::Recognizer;
use super::table::AgentTable;
use crate::config::credential::OnForeign;
use crate::credential::held::HeldCredential;
use crate::types::secret::Secret;

/// Largest body that is read for a placement when nothing is written.
const DEFAULT_LIMIT: u64 = 1 << 20;

/// A string field of a JSON body.
#[derive(Debug, Clone)]
pub struct BodyPlace {
    pointer: Arc<str>,
    limit: u64,
}

impl BodyPlace {
    /// The place, as errors name it.
    pub fn position(&self) -> Position {
        Position::Body(self.pointer.clone())
    }

    /// The field at `pointer` (RFC 6901), in bodies of at most `limit` bytes.
    pub fn new(pointer: &str, limit: Option<u64>) -> Result<Self, String> {
        let escapes = pointer
            .split('~')
            .skip(1)
            .all(|rest| rest.starts_with(['0', '1']));
        match pointer.starts_with('/') && escapes {
            true => Ok(Self {
                pointer: pointer.into(),
                limit: limit.unwrap_or(DEFAULT_LIMIT),
            }),
            false => Err("a JSON pointer begins with `/`, as in `/auth/token`".to_owned()),
        }
    }
}

/// A field, and whose placeholder may stand there.
#[derive(Debug)]
pub struct BodyTarget {
    /// The field.
    pub place: BodyPlace,
    /// The credential's name.
    pub credential: Arc<str>,
    /// Its value.
    pub held: Arc<HeldCredential>,
    /// The agent's placeholder for it.
    pub placeholder: String,
    /// Why it must not go out with this request, if so.
    pub barred: Option<InjectError>,
}

/// A swap that waits for the request's body.
#[derive(Debug)]
pub struct BodySwap {
    /// Where to look.
    targets: Vec<BodyTarget>,
    table: Arc<AgentTable>,
    recognizer: Arc<Recognizer>,
    on_foreign: OnForeign,
    form: Form,
}

/// A body with secrets in it; its length differs from the one the agent announced.
#[derive(Debug)]
pub struct SwappedBody {
    /// The body to send.
    pub bytes: Bytes,
    /// What went into it.
    pub credentials: Vec<InjectedCredential>,
    /// The secrets to look for in the response, each with its placeholder.
    pub needles: Vec<(Arc<Secret>, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Other,
}

/// An exchange of some bytes of the body for others.
struct Edit {
    at: Range<usize>,
    with: Zeroizing<String>,
}

impl BodySwap {
    /// Prepares the swap from the head alone; refuses bodies that cannot be searched as they are.
    pub fn prepare(
        targets: Vec<BodyTarget>,
        table: Arc<AgentTable>,
        recognizer: Arc<Recognizer>,
        on_foreign: OnForeign,
        head: &Parts,
    ) -> Result<Self, InjectError> {
        let mut codings = head.headers.get_all(CONTENT_ENCODING).iter();
        if codings.any(|coding| {
            !coding
                .as_bytes()
                .trim_ascii()
                .eq_ignore_ascii_case(b"identity")
        }) {
            return Err(InjectError::EncodedBody { what: "compressed" });
        }
        let mut types = head.headers.get_all(CONTENT_TYPE).iter();
        let kind = types.next().map_or(&b""[..], |kind| kind.as_bytes());
        if types.next().is_some() {
            return Err(InjectError::EncodedBody {
                what: "of two content types",
            });
        }
        let essence = kind.split(|b| *b == b';').next().unwrap_or_default();
        let essence = essence.trim_ascii().to_ascii_lowercase();
        if essence.starts_with(b"multipart/") {
            return Err(InjectError::EncodedBody { what: "multipart" });
        }
        let form = match essence.ends_with(b"/json") || essence.ends_with(b"+json") {
            true => Form::Json,
            false => Form::Other,
        };
        Ok(Self {
            targets,
            table,
            recognizer,
            on_foreign,
            form,
        })
    }

    /// The largest body that is read.
    pub fn limit(&self) -> u64 {
        let limits = self.targets.iter().map(|target| target.place.limit);
        limits.max().unwrap_or(DEFAULT_LIMIT)
    }

    /// The error of a body that exceeds [`BodySwap::limit`].
    pub fn too_large(&self) -> InjectError {
        InjectError::BodyTooLarge {
            limit: self.limit(),
        }
    }

    /// Swaps in the whole body; `None` if it goes out as it is.
    pub fn apply(&self, body: &[u8]) -> Result<Option<SwappedBody>, InjectError> {
        if u64::try_from(body.len()).is_ok_and(|length| length > self.limit()) {
            return Err(self.too_large());
        }
        if body.is_empty() {
            return Ok(None);
        }
        if self.form == Form::Other && !is_json(body) {
            return self.pass_unread(body).map(|()| None);
        }
        let mut outgoing = Outgoing::default();
        let mut edits: Vec<Edit> = Vec::new();
        for target in &self.targets {
            let edit = self.edit(target, body, &mut outgoing)?;
            edits.extend(edit.filter(|edit| edits.iter().all(|other| other.at != edit.at)));
        }
        if edits.is_empty() {
            return Ok(None);
        }
        Ok(Some(SwappedBody {
            bytes: rewrite(body, edits),
            credentials: outgoing.credentials,
            needles: outgoing.needles,
        }))
    }

    /// A body that is no JSON may pass if no placeholder that belongs into a body is in it.
    fn pass_unread(&self, body: &[u8]) -> Result<(), InjectError> {
        let stands = |target: &BodyTarget| memmem::find(body, target.placeholder.as_bytes());
        match self.targets.iter().any(|target| stands(target).is_some()) {
            true => Err(InjectError::EncodedBody { what: "not JSON" }),
            false => Ok(()),
        }
    }

    fn edit(
        &self,
        target: &BodyTarget,
        body: &[u8],
        outgoing: &mut Outgoing,
    ) -> Result<Option<Edit>, InjectError> {
        let position = target.place.position();
        let malformed = |what| InjectError::Malformed {
            position: position.clone(),
            what,
        };
        let found = locate(body, &target.place.pointer).map_err(|fault| match fault {
            JsonFault::Syntax => malformed("cannot be looked for: the body is not valid JSON"),
            JsonFault::DuplicateKey => InjectError::Duplicate {
                position: position.clone(),
            },
        })?;
        let Some(at) = found else {
            return Ok(None);
        };
        let raw = &body[at.clone()];
        if raw == b"null" {
            return Ok(None);
        }
        let text: String = serde_json::from_slice(raw).map_err(|_| malformed("is not a text"))?;
        if text == target.placeholder {
            if let Some(barred) = &target.barred {
                return Err(barred.clone());
            }
            return self.secret(target, at, outgoing).map(Some);
        }
        let same_field = |other: &BodyTarget| other.place.pointer == target.place.pointer;
        if self
            .targets
            .iter()
            .any(|other| same_field(other) && other.placeholder == text)
        {
            return Ok(None);
        }
        self.foreign(&text, at, position)
    }

    fn secret(
        &self,
        target: &BodyTarget,
        at: Range<usize>,
        outgoing: &mut Outgoing,
    ) -> Result<Edit, InjectError> {
        let (name, held) = (&target.credential, &target.held);
        let mut reveal = Reveal::new(name, held, &target.placeholder, &self.table, outgoing);
        let secret = reveal.secret("body")?;
        let text = std::str::from_utf8(secret.expose())
            .map_err(|_| reveal.unavailable("its value is no text, so JSON cannot hold it"))?;
        let with = Zeroizing::new(quote(text));
        Ok(Edit { at, with })
    }

    fn foreign(
        &self,
        text: &str,
        at: Range<usize>,
        position: Position,
    ) -> Result<Option<Edit>, InjectError> {
        let canary = |credential, misuse| InjectError::Canary {
            credential,
            position: position.clone(),
            misuse,
        };
        if let Some(index) = self.table.find_decoded(text.as_bytes()) {
            let name = self.table.name(index).cloned();
            return Err(canary(name, Misuse::Misplaced));
        }
        if self.recognizer.is_ours(text.as_bytes()) {
            return Err(canary(None, Misuse::Stranger));
        }
        match self.on_foreign {
            _ if text.is_empty() => Ok(None),
            OnForeign::Pass => Ok(None),
            OnForeign::Refuse => Err(InjectError::Foreign { position }),
            OnForeign::Strip => Ok(Some(Edit {
                at,
                with: Zeroizing::new(quote("")),
            })),
        }
    }
}

/// Whether a body is JSON whatever its type says: curl sends it as a form unless told otherwise,
/// and origins read it all the same.
fn is_json(body: &[u8]) -> bool {
    matches!(body.trim_ascii_start().first(), Some(b'{' | b'[')) && locate(body, "").is_ok()
}

fn rewrite(body: &[u8], mut edits: Vec<Edit>) -> Bytes {
    edits.sort_by_key(|edit| edit.at.start);
    let longer: usize = edits.iter().map(|edit| edit.with.len()).sum();
    let mut rewritten = Vec::with_capacity(body.len() + longer);
    let mut kept = 0;
    for edit in &edits {
        rewritten.extend_from_slice(&body[kept..edit.at.start]);
        rewritten.extend_from_slice(edit.with.as_bytes());
        kept = edit.at.end;
    }
    rewritten.extend_from_slice(&body[kept..]);
    rewritten.into()
}
