//! The endpoints that take parameters.

/// One endpoint with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Text,
    /// `/v1/responses`.
    Responses,
    /// `/v1/messages`.
    Messages,
    /// `/v1/messages/count_tokens`.
    CountTokens,
    /// `/v1/embeddings`.
    Embeddings,
    /// `/v1/rerank`.
    Rerank,
    /// `/tokenize`.
    Tokenize,
    /// `/detokenize`.
    Detokenize,
    /// `/apply-template`.
    ApplyTemplate,
}

impl Endpoint {
    /// In the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Chat,
        Self::Text,
        Self::Responses,
        Self::Messages,
        Self::CountTokens,
        Self::Embeddings,
        Self::Rerank,
        Self::Tokenize,
        Self::Detokenize,
        Self::ApplyTemplate,
    ];

    /// Where it is.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Text => "/v1/completions",
            Self::Responses => "/v1/responses",
            Self::Messages => "/v1/messages",
            Self::CountTokens => "/v1/messages/count_tokens",
            Self::Embeddings => "/v1/embeddings",
            Self::Rerank => "/v1/rerank",
            Self::Tokenize => "/tokenize",
            Self::Detokenize => "/detokenize",
            Self::ApplyTemplate => "/apply-template",
        }
    }

    /// The name of its request in the OpenAPI document.
    #[must_use]
    pub const fn request_name(self) -> &'static str {
        match self {
            Self::Chat => "ChatRequest",
            Self::Text => "CompletionRequest",
            Self::Responses => "ResponsesRequest",
            Self::Messages => "MessagesRequest",
            Self::CountTokens => "CountTokensRequest",
            Self::Embeddings => "EmbeddingsRequest",
            Self::Rerank => "RerankRequest",
            Self::Tokenize => "TokenizeRequest",
            Self::Detokenize => "DetokenizeRequest",
            Self::ApplyTemplate => "ApplyTemplateRequest",
        }
    }
}

/// A set of endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoints(u16);

impl Endpoints {
    /// Those of a list.
    #[must_use]
    pub const fn of(list: &[Endpoint]) -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < list.len() {
            bits |= 1 << list[index] as u16;
            index += 1;
        }
        Self(bits)
    }

    /// Whether one is in it.
    #[must_use]
    pub const fn has(self, endpoint: Endpoint) -> bool {
        self.0 & (1 << endpoint as u16) != 0
    }

    /// Those in it.
    pub fn iter(self) -> impl Iterator<Item = Endpoint> {
        Endpoint::ALL.into_iter().filter(move |endpoint| self.has(*endpoint))
    }
}
