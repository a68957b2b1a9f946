//! Answers read, and requests written, by async-openai's types, whose serde accepts no value that OpenAI does not send.

use async_openai::types::chat::{
    ChatCompletionRequestUserMessageArgs, CreateChatCompletionRequestArgs, CreateChatCompletionResponse,
    CreateChatCompletionStreamResponse, FinishReason,
};
use async_openai::types::completions::{CreateCompletionRequestArgs, CreateCompletionResponse};
use async_openai::types::models::{ListModelResponse, Model};
use serde_json::Value;

use crate::support::{Running, World};

async fn running() -> Running {
    World::replying("Grüße").start().await
}

fn chat(n: u8, stream: bool) -> String {
    let message = ChatCompletionRequestUserMessageArgs::default().content("Hi").build().expect("a message");
    let mut request = CreateChatCompletionRequestArgs::default();
    request
        .model("m")
        .messages([message.into()])
        .n(n)
        .logprobs(true)
        .top_logprobs(2)
        .temperature(0.5)
        .seed(1);
    request.stop(vec!["END".to_owned()]).max_completion_tokens(50u32).stream(stream);
    serde_json::to_string(&request.build().expect("a request")).expect("JSON")
}

#[tokio::test]
async fn whole_chat() {
    let answer = running().await.chat(&chat(2, false)).await;
    let read: CreateChatCompletionResponse = serde_json::from_value(answer.json()).expect("its shape");
    assert_eq!(read.choices.len(), 2);
    for (index, choice) in read.choices.iter().enumerate() {
        assert_eq!(choice.index as usize, index);
        assert_eq!(choice.message.content.as_deref(), Some("Grüße"));
        assert_eq!(choice.finish_reason, Some(FinishReason::Stop));
        let logprobs =
            choice.logprobs.as_ref().and_then(|logprobs| logprobs.content.as_ref()).expect("logprobs");
        assert_eq!((logprobs.len(), logprobs[0].top_logprobs.len()), ("Grüße".len(), 2));
    }
    assert_eq!(read.usage.expect("usage").completion_tokens, 2 * 8);
}

#[tokio::test]
async fn streamed_chat() {
    let answer = running().await.chat(&chat(1, true)).await;
    let chunks = answer.chunks().into_iter().map(|chunk: Value| {
        serde_json::from_value::<CreateChatCompletionStreamResponse>(chunk.clone())
            .unwrap_or_else(|e| panic!("{e}: {chunk}"))
    });
    let choices: Vec<_> = chunks.flat_map(|chunk| chunk.choices).collect();
    let text: String = choices.iter().filter_map(|choice| choice.delta.content.as_deref()).collect();
    assert_eq!(text, "Grüße");
    assert_eq!(choices.last().and_then(|choice| choice.finish_reason), Some(FinishReason::Stop));
}

#[tokio::test]
async fn completions() {
    let server = running().await;
    for stream in [false, true] {
        let mut request = CreateCompletionRequestArgs::default();
        request.model("m").prompt("Hello").max_tokens(3u32).logprobs(2).stream(stream);
        let body = serde_json::to_string(&request.build().expect("a request")).expect("JSON");
        let answer = server.post("/v1/completions", &body).await;
        let parts = if stream { answer.chunks() } else { vec![answer.json()] };
        let parts: Vec<CreateCompletionResponse> =
            parts.into_iter().map(|part| serde_json::from_value(part).expect("its shape")).collect();
        let text: String = parts.iter().map(|part| part.choices[0].text.as_str()).collect();
        assert_eq!(text, "Gr", "three tokens are two letters and a half");
        let tokens =
            parts.iter().filter_map(|part| part.choices[0].logprobs.as_ref()).map(|l| l.tokens.len());
        assert_eq!(tokens.sum::<usize>(), 3);
    }
}

#[tokio::test]
async fn models() {
    let server = running().await;
    let list: ListModelResponse =
        serde_json::from_slice(&server.get("/v1/models").await.body).expect("a list");
    let one: Model = serde_json::from_slice(&server.get("/v1/models/m").await.body).expect("a model");
    assert_eq!(list.data, [one]);
}
