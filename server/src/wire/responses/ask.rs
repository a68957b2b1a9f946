//! What a response has to say of its request, and where it is kept.

use std::time::Instant;

use duet_core::event::FinishReason;
use duet_core::sampling::SamplingParams;
use serde_json::{Map, Value, json};
use tokio_util::sync::DropGuard;

use super::items;
use super::store::{Responses, Stored};
use crate::error::ApiError;
use crate::generate::job::{Form, unix_seconds};
use crate::generate::spoken::Block;
use crate::wire::openai::response::Tally;

/// One request to `/v1/responses`, for those who write its answer.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) id: String,
    /// Fields of the request that the response repeats.
    pub(crate) repeated: Map<String, Value>,
    /// What was asked, as items.
    pub(crate) input: Value,
    /// The conversation in chat's form, without instructions.
    pub(crate) messages: Vec<Value>,
    /// If it is to be kept.
    pub(crate) store: Option<Responses>,
    /// Whether the answer to the request is only that it has begun.
    pub(crate) background: bool,
}

/// With the digits that a client wrote: 0.7 is not 0.699999988.
fn shown(number: f32) -> f64 {
    number.to_string().parse().unwrap_or_default()
}

impl Ask {
    /// The response object in this state.
    pub(crate) fn response(&self, form: &Form, status: &str, output: Vec<Value>) -> Value {
        self.object(form.created, &form.model, Some(&form.sampling), status, output)
    }

    /// `sampling` is known once the model is.
    fn object(
        &self,
        created: u64,
        model: &str,
        sampling: Option<&SamplingParams>,
        status: &str,
        output: Vec<Value>,
    ) -> Value {
        let of = |number: fn(&SamplingParams) -> f32| sampling.map(|sampling| shown(number(sampling)));
        let mut body = json!({
            "id": self.id, "object": "response", "created_at": created, "completed_at": null, "status": status,
            "background": self.background, "error": null, "incomplete_details": null, "model": model,
            "output": output, "usage": null,
            "temperature": of(|sampling| sampling.temperature), "top_p": of(|sampling| sampling.top_p),
            "presence_penalty": of(|sampling| sampling.presence_penalty),
            "frequency_penalty": of(|sampling| sampling.frequency_penalty),
            "top_logprobs": 0, "max_tool_calls": null, "service_tier": "default",
        });
        if let Some(body) = body.as_object_mut() {
            body.extend(self.repeated.clone());
        }
        body
    }

    /// The response when the model has ended; it is kept if it shall be.
    pub(crate) fn ended(
        &self,
        form: &Form,
        output: Vec<Value>,
        reason: &FinishReason,
        tally: &Tally,
    ) -> Value {
        let (status, details) = match reason {
            FinishReason::Stop(_) => ("completed", Value::Null),
            FinishReason::Length => ("incomplete", json!({"reason": "max_output_tokens"})),
        };
        let mut body = self.response(form, status, output);
        let usage = tally.usage();
        body["incomplete_details"] = details;
        if status == "completed" {
            body["completed_at"] = unix_seconds().into();
        }
        body["usage"] = json!({
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": usage.prompt_tokens_details.cached_tokens},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.completion_tokens_details.reasoning_tokens},
            "total_tokens": usage.total_tokens,
        });
        if let Ok(timings) = serde_json::to_value(tally.timings(&form.resident)) {
            body["timings"] = timings;
        }
        self.keep(&body);
        body
    }

    fn keep(&self, body: &Value) {
        let Some(store) = &self.store else { return };
        let mut messages = self.messages.clone();
        for item in body["output"].as_array().into_iter().flatten() {
            // Items of our own making have all that they need.
            let _ = items::push(&mut messages, item, "output");
        }
        let stored = Stored { body: body.clone(), input: self.input.clone(), messages };
        match self.background {
            true => store.end(&self.id, stored, Instant::now()),
            false => store.put(&self.id, stored, Instant::now()),
        }
    }

    /// The response that is being made in the background, kept so; `running` is dropped when nobody wants it any more.
    pub(crate) fn begun(&self, created: u64, model: &str, running: DropGuard) -> Value {
        let body = self.object(created, model, None, "in_progress", Vec::new());
        if let Some(store) = &self.store {
            let (input, messages) = (self.input.clone(), self.messages.clone());
            store.begin(&self.id, Stored { body: body.clone(), input, messages }, running, Instant::now());
        }
        body
    }

    /// Keeps that what was begun so has failed.
    pub(crate) fn failed_in_background(&self, created: u64, model: &str, error: &ApiError) {
        let mut body = self.object(created, model, None, "failed", Vec::new());
        body["error"] = error_of(error);
        self.keep(&body);
    }

    /// The response when something failed.
    pub(crate) fn failed(&self, form: &Form, output: Vec<Value>, error: &ApiError) -> Value {
        let mut body = self.response(form, "failed", output);
        body["error"] = error_of(error);
        body
    }

    /// A whole answer.
    pub(crate) fn body(
        &self,
        form: &Form,
        blocks: &[Block],
        reason: &FinishReason,
        tally: &Tally,
    ) -> Vec<u8> {
        let status = if *reason == FinishReason::Length { "incomplete" } else { "completed" };
        self.ended(form, items::output(blocks, status), reason, tally).to_string().into_bytes()
    }
}

fn error_of(error: &ApiError) -> Value {
    json!({"code": error.code.as_str(), "message": error.message})
}
