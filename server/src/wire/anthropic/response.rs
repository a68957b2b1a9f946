//! Whole messages.

use duet_core::event::{FinishReason, StopCause};
use serde_json::{Map, Value, json};

use crate::generate::job::Form;
use crate::generate::spoken::Block;
use crate::wire::openai::response::Tally;

/// Stands where Anthropic signs its thinking.
pub(crate) const SIGNATURE: &str = "duet";

/// The body of a message.
pub(crate) fn body(
    form: &Form,
    blocks: Vec<Block>,
    calls: bool,
    reason: &FinishReason,
    tally: &Tally,
) -> Vec<u8> {
    let (stop_reason, stop_sequence) = stop(form, calls, reason);
    let content: Vec<Value> = blocks.into_iter().map(block).collect();
    let body = json!({
        "id": form.id, "type": "message", "role": "assistant", "model": form.model, "content": content,
        "stop_reason": stop_reason, "stop_sequence": stop_sequence, "usage": usage(tally),
        "timings": tally.timings(&form.resident),
    });
    body.to_string().into_bytes()
}

fn block(block: Block) -> Value {
    match block {
        Block::Content(text) => json!({"type": "text", "text": text}),
        Block::Reasoning(text) => json!({"type": "thinking", "thinking": text, "signature": SIGNATURE}),
        Block::Call { id, name, arguments } => {
            // A call that broke off has no object: its text is shown, so that nothing is lost.
            let input = serde_json::from_str::<Map<String, Value>>(&arguments)
                .map_or_else(|_| json!({"partial_json": arguments}), Value::Object);
            json!({"type": "tool_use", "id": id, "name": name, "input": input})
        }
    }
}

/// `stop_reason` and `stop_sequence`.
pub(crate) fn stop<'a>(
    form: &'a Form,
    calls: bool,
    reason: &FinishReason,
) -> (&'static str, Option<&'a str>) {
    match reason {
        FinishReason::Length => ("max_tokens", None),
        FinishReason::Stop(_) if calls => ("tool_use", None),
        FinishReason::Stop(StopCause::StopString(index)) => {
            ("stop_sequence", form.stop.get(*index).map(String::as_str))
        }
        FinishReason::Stop(_) => ("end_turn", None),
    }
}

/// Anthropic counts cached tokens apart from the others.
pub(crate) fn usage(tally: &Tally) -> Value {
    let usage = tally.usage();
    let cached = usage.prompt_tokens_details.cached_tokens;
    json!({
        "input_tokens": usage.prompt_tokens.saturating_sub(cached), "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached, "output_tokens": usage.completion_tokens,
    })
}
