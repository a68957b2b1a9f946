"""The openai package against a running duet: models, chat, completions, streams, errors.

Usage: openai_client.py BASE_URL MODEL...   Every model has to give the same shapes. Prints what it did; exits 1 on the
first thing that is wrong.
"""

import sys

import openai

PARIS = [{"role": "user", "content": "What is the capital of France?"}]
# Ends either engine's greedy answer: the helpers of the package treat `length` as a failure.
STOP = [",", "."]


def check(condition, message):
    if not condition:
        sys.exit(f"openai (Python): {message}")


def models(client, names):
    listed = {model.id for model in client.models.list()}
    check(set(names) <= listed, f"{names} are not all in {listed}")
    for name in names:
        check(client.models.retrieve(name).id == name, f"retrieve({name})")


def chat(client, name):
    answer = client.chat.completions.create(model=name, messages=PARIS, temperature=0, max_tokens=24, stop=STOP)
    choice = answer.choices[0]
    check(choice.message.content.strip(), f"{name} answers {choice.message.content!r}")
    check(choice.finish_reason in ("stop", "length"), f"{name} finishes with {choice.finish_reason}")
    usage = answer.usage
    check(usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, f"{name}: {usage}")
    return choice.message.content, usage


def chat_stream(client, name, whole, usage):
    text, finishes, last = "", [], None
    stream = client.chat.completions.create(
        model=name, messages=PARIS, temperature=0, max_tokens=24, stop=STOP, stream=True, stream_options={"include_usage": True}
    )
    for chunk in stream:
        last = chunk
        for choice in chunk.choices:
            text += choice.delta.content or ""
            if choice.finish_reason:
                finishes.append(choice.finish_reason)
    check(text == whole, f"{name}: streamed {text!r}, whole {whole!r}")
    check(len(finishes) == 1, f"{name}: finish reasons {finishes}")
    check(last.usage == usage or last.usage.total_tokens == usage.total_tokens, f"{name}: {last.usage} after {usage}")


def chat_stream_helper(client, name, whole):
    with client.chat.completions.stream(model=name, messages=PARIS, temperature=0, max_tokens=24, stop=STOP) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    check(final.choices[0].message.content == whole, f"{name}: .stream() gave {final.choices[0].message.content!r}")


def seeded(client, name):
    def once():
        return client.chat.completions.create(
            model=name, messages=PARIS, temperature=0.8, seed=7, max_tokens=12, logprobs=True, top_logprobs=2
        ).choices[0]

    first, second = once(), once()
    check(first.message.content == second.message.content, f"{name}: a seed does not repeat")
    check(all(len(entry.top_logprobs) == 2 for entry in first.logprobs.content), f"{name}: top_logprobs")


def completions(client, name):
    prompt = "The capital of France is"
    answer = client.completions.create(model=name, prompt=prompt, max_tokens=5, temperature=0)
    check("Paris" in answer.choices[0].text, f"{name} goes on with {answer.choices[0].text!r}")
    check(answer.usage.completion_tokens <= 5, f"{name}: {answer.usage}")
    pieces = client.completions.create(model=name, prompt=prompt, max_tokens=5, temperature=0, stream=True)
    text = "".join(choice.text for chunk in pieces for choice in chunk.choices)
    check(text == answer.choices[0].text, f"{name}: streamed {text!r}, whole {answer.choices[0].text!r}")


def leave_early(client, name):
    """Ends a stream in its middle; the next request must be answered all the same."""
    stream = client.chat.completions.create(model=name, messages=PARIS, max_tokens=400, stream=True)
    next(iter(stream))
    stream.close()
    chat(client, name)


def errors(client, name):
    try:
        client.chat.completions.create(model="no-such-model", messages=PARIS)
        check(False, "an unknown model was answered")
    except openai.NotFoundError as error:
        check(error.code == "model_not_found", f"unknown model: code {error.code}")
    try:
        client.chat.completions.create(model=name, messages=PARIS, temperature=9)
        check(False, "temperature 9 was accepted")
    except openai.BadRequestError as error:
        check(error.param == "temperature", f"temperature 9: param {error.param}")


def main():
    url, names = sys.argv[1], sys.argv[2:]
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=300)
    models(client, names)
    for name in names:
        whole, usage = chat(client, name)
        chat_stream(client, name, whole, usage)
        chat_stream_helper(client, name, whole)
        seeded(client, name)
        completions(client, name)
        leave_early(client, name)
        errors(client, name)
        print(f"openai {openai.__version__} (Python), {name}: {whole!r}")


main()
