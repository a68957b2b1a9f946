"""Writes tests/data/chat_template/cases.json: what transformers renders, for the tests of duet_core::text.

Needs transformers and jinja2. Run it from the crate's folder: python tests/oracle/chat_template.py
"""

import json
import pathlib

import jinja2
import transformers
from transformers.utils.chat_template_utils import render_jinja_template

FOLDER = pathlib.Path("tests/data/chat_template")
SYSTEM = {"role": "system", "content": " Answer in one word. "}
USER = {"role": "user", "content": "What is the capital of France? "}
PARIS = {"role": "assistant", "content": "Paris <b>&amp; 'Île'</b> "}
AGAIN = {"role": "user", "content": "  And of Spain?\n"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather's state in a \"place\" <now>",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string", "enum": ["Köln", "東京"]}, "days": {"type": "integer"}},
            "required": ["place"],
        },
    },
}
TIME = {"type": "function", "function": {"name": "time", "description": "Now", "parameters": {}}}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "call12345", "type": "function", "function": {"name": "weather", "arguments": {"place": "Köln", "days": 2}}}
    ],
}
TWO_CALLS = {
    "role": "assistant",
    "content": "Let me see.",
    "tool_calls": CALL["tool_calls"] + [{"id": "call67890", "type": "function", "function": {"name": "time", "arguments": {}}}],
}
RESULT = {"role": "tool", "tool_call_id": "call12345", "content": '{"sky": "grey"}'}
RESULT_2 = {"role": "tool", "tool_call_id": "call67890", "content": "12:30"}
PARTS = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " What is this? "}]}
THOUGHT = {"role": "assistant", "content": "<think>\nFrance: Paris.\n</think>\n\nParis"}
REASONED = {"role": "assistant", "content": "Paris", "reasoning_content": "\nFrance: Paris.\n"}

CONVERSATIONS = {
    "user": {"messages": [USER]},
    "prompt": {"messages": [USER], "add_generation_prompt": True},
    "system": {"messages": [SYSTEM, USER], "add_generation_prompt": True},
    "turns": {"messages": [SYSTEM, USER, PARIS, AGAIN], "add_generation_prompt": True},
    "two users": {"messages": [USER, AGAIN], "add_generation_prompt": True},
    "system inside": {"messages": [USER, SYSTEM, USER], "add_generation_prompt": True},
    "continued": {"messages": [USER, PARIS], "continue_final_message": True},
    "continued parts": {"messages": [PARTS], "continue_final_message": True},
    "tools": {"messages": [SYSTEM, USER], "tools": [WEATHER, TIME], "add_generation_prompt": True},
    "called": {"messages": [USER, CALL, RESULT], "tools": [WEATHER], "add_generation_prompt": True},
    "called twice": {"messages": [USER, TWO_CALLS, RESULT, RESULT_2], "tools": [WEATHER, TIME], "add_generation_prompt": True},
    "parts": {"messages": [PARTS], "add_generation_prompt": True},
    "thought": {"messages": [USER, THOUGHT, AGAIN], "add_generation_prompt": True},
    "thought last": {"messages": [USER, THOUGHT]},
    "reasoned": {"messages": [USER, REASONED]},
    "not thinking": {"messages": [USER], "add_generation_prompt": True, "kwargs": {"enable_thinking": False}},
    "dated": {"messages": [USER], "kwargs": {"date_string": "1 May 2026"}},
    "odd kwargs": {"messages": [USER], "kwargs": {"bos_token": "<other>", "documents": [{"title": "t"}], "x": [1, None]}},
}


def render(source, case):
    kwargs = {"bos_token": "<s>", "eos_token": "</s>", "date_string": "26 Jul 2024", **case.get("kwargs", {})}
    try:
        rendered, _ = render_jinja_template(
            [case["messages"]],
            tools=case.get("tools"),
            chat_template=source,
            add_generation_prompt=case.get("add_generation_prompt", False),
            continue_final_message=case.get("continue_final_message", False),
            **kwargs,
        )
        return {"text": rendered[0]}
    except jinja2.exceptions.UndefinedError as error:
        return {"failed": str(error)}
    except jinja2.exceptions.TemplateError as error:
        return {"raised": str(error)}
    except (TypeError, ValueError) as error:
        return {"failed": type(error).__name__}


cases = []
for path in sorted(FOLDER.glob("*.jinja")):
    for name, case in CONVERSATIONS.items():
        if path.stem == "python" and name not in ("user", "turns", "thought"):
            continue
        cases.append({"template": path.stem, "name": name, "input": case, "expected": render(path.read_text(), case)})
versions = f"transformers {transformers.__version__}, jinja2 {jinja2.__version__}"
text = json.dumps({"made_with": versions, "cases": cases}, ensure_ascii=False, indent=1)
(FOLDER / "cases.json").write_text(text + "\n")
