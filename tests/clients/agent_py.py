"""Scripted conversations through the openai and anthropic packages: tool loops, schemas, Responses, Messages, errors.

Usage: agent_py.py BASE_URL KEY MODEL...   The server plays script.jsonl and asks for KEY. Exits 1 on the first thing that
is wrong.
"""

import json
import sys

import anthropic
import openai
import pydantic

ASK = {"role": "user", "content": "Compare the weather in Bonn and Tromsø."}
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
}
DESCRIPTION = "The weather of a city in the next days"
TOOL = {"type": "function", "function": {"name": "weather", "description": DESCRIPTION, "parameters": CITY}}
WANTED = [{"city": "Bonn", "days": 2}, {"city": "Tromsø", "days": 1}]
RESULTS = {"Bonn": "rain in Bonn", "Tromsø": "snow in Tromsø"}
FINAL = "Rain in Bonn, snow in Tromsø."


class Fair(pydantic.BaseModel):
    name: str
    days: list[int]
    open: bool


def same(found, wanted, what):
    if found != wanted:
        sys.exit(f"{what}: {found!r}, not {wanted!r}")


def at_least(found, wanted, what):
    if found < wanted:
        sys.exit(f"{what}: {found}, less than {wanted}")


def fails_with(kind, what, call, **wanted):
    try:
        call()
    except kind as error:
        for name, value in wanted.items():
            same(getattr(error, name), value, f"{what}: {name}")
        return error
    except Exception as error:  # noqa: BLE001
        sys.exit(f"{what}: {type(error).__name__} instead of {kind.__name__}: {error}")
    sys.exit(f"{what}: no error")


def results(calls):
    """Messages that answer these (id, arguments)."""
    return [{"role": "tool", "tool_call_id": id, "content": RESULTS[json.loads(text)["city"]]} for id, text in calls]


def chat_loop(client, model):
    first = client.chat.completions.create(model=model, messages=[ASK], tools=[TOOL])
    choice = first.choices[0]
    same(choice.finish_reason, "tool_calls", "chat: finish reason")
    same(choice.message.content.strip(), "Let me look.", "chat: content")
    same(choice.message.reasoning_content, "Two cities, two calls.", "chat: reasoning")
    calls = choice.message.tool_calls
    same([json.loads(call.function.arguments) for call in calls], WANTED, "chat: arguments")
    at_least(first.usage.completion_tokens_details.reasoning_tokens, 1, "chat: reasoning tokens")
    messages = [ASK, choice.message.model_dump(exclude_none=True)]
    messages += results((call.id, call.function.arguments) for call in calls)
    second = client.chat.completions.create(model=model, messages=messages, tools=[TOOL])
    same(second.choices[0].message.content, FINAL, "chat: answer")
    hit(first.usage.prompt_tokens, second.usage.prompt_tokens_details.cached_tokens, "chat")
    return second.usage.prompt_tokens_details.cached_tokens, second.usage.prompt_tokens


def hit(before, cached, what):
    """The whole last prompt but for its last token is in the cache."""
    at_least(cached, before - 1, f"{what}: cached tokens on the second turn")


def chat_stream(client, model):
    """Arguments come in pieces: each call's id and name once, its index always."""
    ids, names, arguments, finish, n_pieces = {}, {}, {}, None, 0
    stream = client.chat.completions.create(
        model=model, messages=[ASK], tools=[TOOL], stream=True, stream_options={"include_usage": True}
    )
    usage = None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            for call in choice.delta.tool_calls or []:
                if call.id:
                    same(call.index in ids, False, "stream: a second id")
                    ids[call.index], names[call.index] = call.id, call.function.name
                n_pieces += 1
                arguments[call.index] = arguments.get(call.index, "") + (call.function.arguments or "")
    same(finish, "tool_calls", "stream: finish reason")
    same([json.loads(arguments[index]) for index in sorted(arguments)], WANTED, "stream: arguments")
    same(set(names.values()), {"weather"}, "stream: names")
    same(len(set(ids.values())), 2, "stream: ids")
    at_least(n_pieces, 8, "stream: pieces")
    at_least(usage.prompt_tokens_details.cached_tokens, usage.prompt_tokens - 1, "stream: cached tokens")
    with client.chat.completions.stream(model=model, messages=[ASK], tools=[TOOL]) as helper:
        kinds = {event.type for event in helper}
        final = helper.get_final_completion().choices[0].message
    same(kinds >= {"content.delta", "tool_calls.function.arguments.delta", "tool_calls.function.arguments.done"}, True, f"{kinds}")
    same([json.loads(call.function.arguments) for call in final.tool_calls], WANTED, ".stream(): arguments")
    one = client.chat.completions.create(model=model, messages=[ASK], tools=[TOOL], parallel_tool_calls=False)
    same(len(one.choices[0].message.tool_calls), 1, "parallel_tool_calls=False")


def parsed(client, model):
    ask = [{"role": "user", "content": "When is the fair?"}]
    fair = Fair(name="Fair", days=[6, 7], open=True)
    answer = client.chat.completions.parse(model=model, messages=ask, response_format=Fair)
    same(answer.choices[0].message.parsed, fair, ".parse()")
    answer = client.responses.parse(model=model, input=ask, text_format=Fair)
    same(answer.output_parsed, fair, "responses.parse()")
    long = [{"role": "user", "content": "Say it at length"}]
    cut = client.chat.completions.create(model=model, messages=long, max_tokens=4)
    same((cut.choices[0].finish_reason, cut.usage.completion_tokens), ("length", 4), "max_tokens")
    fails_with(
        openai.LengthFinishReasonError,
        ".parse() of a cut answer",
        lambda: client.chat.completions.parse(model=model, messages=ask, response_format=Fair, max_tokens=4),
    )


def responses(client, model):
    tool = {"type": "function", "name": "weather", "description": DESCRIPTION, "parameters": CITY}
    first = client.responses.create(model=model, input=ASK["content"], tools=[tool])
    calls = [item for item in first.output if item.type == "function_call"]
    same([json.loads(call.arguments) for call in calls], WANTED, "responses: arguments")
    outputs = [
        {"type": "function_call_output", "call_id": call.call_id, "output": RESULTS[json.loads(call.arguments)["city"]]}
        for call in calls
    ]
    types, final = [], None
    with client.responses.stream(model=model, input=outputs, tools=[tool], previous_response_id=first.id) as stream:
        for event in stream:
            types.append(event.type)
        final = stream.get_final_response()
    same(final.output_text, FINAL, "responses: answer")
    same((types[0], types[-1]), ("response.created", "response.completed"), "responses: events")
    same("response.output_text.delta" in types, True, "responses: deltas")
    hit(first.usage.input_tokens, final.usage.input_tokens_details.cached_tokens, "responses")
    kept = client.responses.retrieve(final.id)
    same((kept.output_text, kept.previous_response_id), (FINAL, first.id), "responses: retrieved")
    # Long enough for a prefix that leaves the engine's own cache and comes back.
    text = "Remember the number 4711. " + "It is the number of a house in a long street with many numbers. " * 6
    told = client.responses.create(model=model, input=text)
    again = client.responses.create(model=model, input="Which number?", previous_response_id=told.id)
    same(again.output_text, "It is 4711.", "responses: goes on")
    at_least(again.usage.input_tokens_details.cached_tokens, told.usage.total_tokens - 4, "responses: cached with the answer")
    client.responses.delete(told.id)
    fails_with(openai.NotFoundError, "a deleted response", lambda: client.responses.retrieve(told.id))


def openai_errors(client, model, url):
    def ask(**more):
        return lambda: client.chat.completions.create(**{"model": model, "messages": [ASK], **more})

    fails_with(openai.BadRequestError, "a wrong value", ask(temperature=9), param="temperature", code="invalid_value")
    fails_with(openai.BadRequestError, "a wrong type", ask(n="a"), param="n", code="invalid_type")
    fails_with(openai.NotFoundError, "an unknown model", ask(model="gpt-0"), code="model_not_found")
    long = [{"role": "user", "content": "Say it at length " * 3000}]
    fails_with(openai.BadRequestError, "a long prompt", ask(messages=long), code="context_length_exceeded")
    fails_with(openai.BadRequestError, "no turn", ask(messages=[{"role": "user", "content": "?"}]), param="messages")
    bad = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "nothing"}}}
    fails_with(openai.BadRequestError, "a bad schema", ask(response_format=bad))
    stranger = openai.OpenAI(base_url=f"{url}/v1", api_key="sk-somebody-else", max_retries=0)
    fails_with(openai.AuthenticationError, "a wrong key", stranger.models.list, code="invalid_api_key")


def messages_loop(client, model):
    tool = {"name": "weather", "description": DESCRIPTION, "input_schema": CITY}
    asked = {"model": model, "max_tokens": 300, "tools": [tool], "messages": [ASK]}
    first = client.messages.create(**asked)
    same(first.stop_reason, "tool_use", "messages: stop reason")
    same([block.input for block in first.content if block.type == "tool_use"], WANTED, "messages: inputs")
    with client.messages.stream(**asked) as stream:
        kinds = {event.type for event in stream}
        streamed = stream.get_final_message()
    same([block.input for block in streamed.content if block.type == "tool_use"], WANTED, "messages: streamed inputs")
    same(kinds >= {"message_start", "content_block_start", "input_json", "message_stop", "text"}, True, f"{kinds}")
    said = [block.model_dump(include={"type", "text", "id", "name", "input"}, exclude_none=True)
            for block in streamed.content if block.type in ("text", "tool_use")]
    answers = [{"type": "tool_result", "tool_use_id": block.id, "content": RESULTS[block.input["city"]]}
               for block in streamed.content if block.type == "tool_use"]
    asked["messages"] = [ASK, {"role": "assistant", "content": said}, {"role": "user", "content": answers}]
    second = client.messages.create(**asked)
    same((second.content[0].text, second.stop_reason), (FINAL, "end_turn"), "messages: answer")
    before = first.usage.input_tokens + (first.usage.cache_read_input_tokens or 0)
    hit(before, second.usage.cache_read_input_tokens or 0, "messages")
    count = client.messages.count_tokens(model=model, tools=[tool], messages=asked["messages"]).input_tokens
    same(count, second.usage.input_tokens + second.usage.cache_read_input_tokens, "count_tokens")


def anthropic_errors(client, model, url):
    def ask(**more):
        return lambda: client.messages.create(**{"model": model, "max_tokens": 9, "messages": [ASK], **more})

    fails_with(anthropic.BadRequestError, "a wrong value", ask(extra_body={"temperature": 9}))
    fails_with(anthropic.NotFoundError, "an unknown model", ask(model="claude-0"))
    fails_with(anthropic.BadRequestError, "no turn", ask(messages=[{"role": "user", "content": "?"}]))
    stranger = anthropic.Anthropic(base_url=url, api_key="sk-somebody-else", max_retries=0)
    error = fails_with(anthropic.AuthenticationError, "a wrong key", lambda: stranger.models.list())
    same(error.status_code, 401, "a wrong key")


def main():
    url, key, names = sys.argv[1], sys.argv[2], sys.argv[3:]
    ours = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=300)
    theirs = anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, timeout=300)
    for name in names:
        cached, n_prompt = chat_loop(ours, name)
        chat_stream(ours, name)
        parsed(ours, name)
        responses(ours, name)
        openai_errors(ours, name, url)
        messages_loop(theirs, name)
        anthropic_errors(theirs, name, url)
        print(f"openai {openai.__version__}, anthropic {anthropic.__version__} (Python), {name}: {cached} of {n_prompt} "
              "prompt tokens cached on the second turn")


main()
