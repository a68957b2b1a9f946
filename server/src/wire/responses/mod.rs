//! OpenAI's Responses: bodies become chat requests, answers become items. Nothing is generated here.

pub(crate) mod ask;
pub(crate) mod items;
pub(crate) mod request;
pub(crate) mod store;
pub(crate) mod stream;
