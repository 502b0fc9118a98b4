//! Owns why a request to a model is refused before it is sent: what it may cost cannot be read, or two
//! readers would read it in two ways.

use super::json::JsonFault;

/// Why a metered request cannot be read. No variant holds anything that the request said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// The body is no JSON text.
    #[error("the request body cannot be read: {0}")]
    Json(#[from] JsonFault),
    /// JSON, but no object.
    #[error("the request body is no JSON object")]
    NotAnObject,
    /// Octets that are no UTF-8, or UTF-16 or UTF-32.
    #[error("the request body is not encoded in UTF-8 (RFC 8259, section 8.1)")]
    NotUtf8,
    /// U+FEFF comes first; some origins ignore it and some do not.
    #[error("the request body begins with a byte order mark (RFC 8259, section 8.1)")]
    ByteOrderMark,
    /// `Content-Type` says that it is something else than JSON in UTF-8, or says two things.
    #[error("the request's content-type is not JSON in UTF-8")]
    ContentType,
    /// Several times, and origins differ in which one they take.
    #[error("`{0}` stands in the request body more than once")]
    Duplicate(&'static str),
    /// `Max_Tokens`: some origins ignore case and some do not.
    #[error("the request body has a name that some servers take for `{0}` and some ignore")]
    Misspelled(&'static str),
    /// A value of another type than the provider documents.
    #[error("`{field}` in the request body is not {expected}")]
    Type {
        /// The field.
        field: &'static str,
        /// What it has to be.
        expected: &'static str,
    },
    /// No model, neither in the path nor in the body.
    #[error("the request names no model")]
    NoModel,
    /// A model's name that is none.
    #[error(
        "the request's model is no name: it is empty, longer than 256 octets, or has spaces or control characters"
    )]
    ModelName,
    /// It lets more models work on it than can be reserved for.
    #[error("the request names more than {MAX_MODELS} models")]
    TooManyModels,
    /// `background: true`: it goes on, and is paid for, after its answer.
    #[error("`background` is true: the response would be made after this request has ended")]
    Background,
    /// `prompt: {id}`: the provider holds the model, the tools and the limit.
    #[error(
        "`prompt` names a prompt that the provider keeps, with a model and tools that cannot be seen"
    )]
    StoredPrompt,
    /// A field or parameter lets the origin take it for another request.
    #[error("the request has {0}")]
    Overridden(&'static str),
    /// A field or parameter keeps the usage out of the answer, or makes it unreadable.
    #[error("the request has {0}, which keeps its usage out of the answer")]
    HidesUsage(&'static str),
}

/// Models that one request may name besides its own.
pub(super) const MAX_MODELS: usize = 16;

impl ScanError {
    /// One word for metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Json(JsonFault::Syntax(_)) | Self::NotAnObject => "not_json",
            Self::Json(JsonFault::Trailing(_)) => "trailing_data",
            Self::Json(JsonFault::TooDeep(_)) => "too_deep",
            Self::NotUtf8 => "not_utf8",
            Self::ByteOrderMark => "byte_order_mark",
            Self::ContentType => "content_type",
            Self::Duplicate(_) => "duplicate_field",
            Self::Misspelled(_) => "misspelled_field",
            Self::Type { .. } => "wrong_type",
            Self::NoModel => "no_model",
            Self::ModelName => "model_name",
            Self::TooManyModels => "too_many_models",
            Self::Background => "background",
            Self::StoredPrompt => "stored_prompt",
            Self::Overridden(_) => "overridden",
            Self::HidesUsage(_) => "hides_usage",
        }
    }

    /// What the one who wrote the request can do.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Json(JsonFault::TooDeep(_)) => "make the body less deep",
            Self::Json(_) | Self::NotAnObject => "send one JSON object and nothing after it",
            Self::NotUtf8 => "encode the body in UTF-8",
            Self::ByteOrderMark => "leave the byte order mark out",
            Self::ContentType => "send `content-type: application/json`",
            Self::Duplicate(_) => "write it once",
            Self::Misspelled(_) => "write it as the provider documents it, or rename it",
            Self::Type { .. } => "write it as the provider documents it",
            Self::NoModel => "name a model",
            Self::ModelName => "write the model's name as the provider documents it",
            Self::TooManyModels => "name fewer models",
            Self::Background => {
                "leave `background` out: with a budget every response is waited for"
            }
            Self::StoredPrompt => "write the prompt, its model and its tools into the request",
            Self::Overridden(_) => "leave it out and send the request that is meant",
            Self::HidesUsage(_) => "leave it out",
        }
    }
}
