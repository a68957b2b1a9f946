//! Anthropic's Messages: bodies become chat requests, answers become messages. Nothing is generated here.

pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod stream;
