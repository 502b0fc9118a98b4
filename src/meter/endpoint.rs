//! Owns which requests to a model API cost something, and how their bodies are to be read.

/// What a request to a model API is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// It costs nothing: model lists, token counting.
    Free,
    /// What it costs can be read.
    Metered(Operation),
    /// It may cost something that cannot be read here: batches, files, realtime, unknown paths.
    Unmetered,
}

/// How the bodies of a metered request and its answer are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Anthropic Messages; the model is in the body.
    Messages,
    /// Anthropic Messages on Vertex AI (`rawPredict`, `streamRawPredict`); the model is in the path.
    RawPredict,
    /// OpenAI Chat Completions.
    ChatCompletions,
    /// OpenAI Responses.
    Responses,
    /// OpenAI embeddings.
    Embeddings,
    /// Gemini `generateContent` and `streamGenerateContent`; the model is in the path.
    GenerateContent,
    /// Gemini `embedContent`, `batchEmbedContents`; the model is in the path.
    EmbedContent,
    /// Bedrock Converse; the model is in the path.
    Converse,
    /// Bedrock ConverseStream.
    ConverseStream,
    /// Bedrock InvokeModel: the body is the model's own.
    InvokeModel,
    /// Bedrock InvokeModelWithResponseStream.
    InvokeModelStream,
    /// Ollama `/api/chat` and `/api/generate`.
    OllamaGenerate,
    /// Ollama `/api/embed`, `/api/embeddings`.
    OllamaEmbed,
}
