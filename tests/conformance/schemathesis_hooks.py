"""Lets schemathesis reach what is behind the names: generated requests ask for models and responses that are there.

DUET_MODELS has the models' names, between commas.
"""

import os
import zlib

import schemathesis

MODELS = os.environ["DUET_MODELS"].split(",")
MESSAGES = [{"role": "user", "content": "Hi"}]
# Ids of stored responses, newest last.
stored = []


def one_of(names, key):
    """Always the same one for a key, so that runs with a seed repeat; a fifth of the keys are left as they are."""
    at = zlib.crc32(repr(key).encode()) % (len(names) * 5)
    return names[at // 4] if at // 4 < len(names) else None


@schemathesis.hook
def map_body(context, body):
    if isinstance(body, dict) and isinstance(body.get("model"), str):
        body["model"] = one_of(MODELS, sorted(body)) or body["model"]
    # What is in a message the document leaves open, and made up ones are refused; one in five stays as it is.
    if isinstance(body, dict) and isinstance(body.get("messages"), list) and one_of(MESSAGES, sorted(body, reverse=True)):
        body["messages"] = MESSAGES
        if isinstance(body.get("max_tokens"), (int, float)):
            body["max_tokens"] = 3
    return body


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    if path_parameters and isinstance(path_parameters.get("id"), str):
        path = context.operation.path
        names = stored[-3:] if path.startswith("/v1/responses/") else MODELS
        path_parameters["id"] = (names and one_of(names, path_parameters["id"])) or path_parameters["id"]
    return path_parameters


@schemathesis.hook
def after_call(context, case, response):
    if case.operation.path == "/v1/responses" and response.status_code == 200:
        if "application/json" in response.headers.get("content-type", [""])[0]:
            stored.append(response.json()["id"])
