//! duet: the HTTP server (OpenAI wire format).
