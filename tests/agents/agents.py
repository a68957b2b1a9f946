"""Lets OpenCode and Qwen Code do a scripted task on each model, and looks at what they did and what was cached.

Usage: agents.py BASE_URL KEY FOLDER MODEL...   FOLDER has `project` and `home`, both empty. Exits 1 on the first thing that
is wrong.
"""

import json
import os
import pathlib
import subprocess
import sys
import time

PACKAGES = pathlib.Path(__file__).resolve().parent / "node_modules"
TOOLS = PACKAGES.parents[2] / ".tools" / "bin"
SECRET = "a grey heron\n"
# Theirs are of 7000 tokens and more.
PROMPT = "You copy texts between files, with the tools that you have."
LIMIT_S = 900


class Agent:
    """One agent on one route: `turns` reads (prompt tokens, cached tokens) of each turn from what it printed."""

    def __init__(self, name, target, command, turns, settings):
        self.name, self.target, self.command, self.turns, self.settings = name, target, command, turns, settings


def opencode_turns(printed):
    ends = (json.loads(line)["part"]["tokens"] for line in printed.splitlines() if '"step_finish"' in line)
    return [(tokens["input"] + tokens["cache"]["read"], tokens["cache"]["read"]) for tokens in ends]


def qwen_turns(printed):
    usages = [event["message"]["usage"] for event in json.loads(printed) if event["type"] == "assistant"]
    return [(usage["input_tokens"], usage["cache_read_input_tokens"]) for usage in usages if usage["input_tokens"]]


def opencode(url, key, model):
    settings = {
        "autoupdate": False,
        "share": "disabled",
        "snapshot": False,
        "provider": {
            "duet": {
                "npm": "@ai-sdk/openai-compatible",
                "options": {"baseURL": f"{url}/v1", "apiKey": key},
                "models": {model: {"limit": {"context": 8192, "output": 512}}},
            }
        },
        "agent": {"build": {"prompt": PROMPT, "tools": {"*": False, "read": True, "write": True}}},
    }
    program = PACKAGES / "opencode-linux-x64-baseline" / "bin" / "opencode"
    command = [program, "run", "--title", "A copy", "--model", f"duet/{model}", "--format", "json",
               "Copy secret.txt to notes.txt"]
    environment = {"OPENCODE_CONFIG_CONTENT": json.dumps(settings), "OPENCODE_DISABLE_MODELS_FETCH": "1"}
    return Agent("opencode, chat", "notes.txt", command, opencode_turns, environment)


def qwen(url, key, model, route, auth):
    program = PACKAGES / "@qwen-code" / "qwen-code" / "cli.js"
    unwanted = ["get_goal", "update_goal", "notebook_edit", "run_shell_command"]
    command = [TOOLS / "node", program, "--auth-type", auth, "--model", model, "--system-prompt", PROMPT,
               *(part for tool in unwanted for part in ("--exclude-tools", tool)),
               "--bare", "--yolo", "--output-format", "json", "Copy secret.txt to copy.txt"]
    environment = {"OPENAI_API_KEY": key, "OPENAI_BASE_URL": f"{url}/v1", "ANTHROPIC_API_KEY": key,
                   "ANTHROPIC_BASE_URL": url, "QWEN_CODE_SUPPRESS_YOLO_WARNING": "1"}
    return Agent(f"qwen, {route}", "copy.txt", command, qwen_turns, environment)


def run(agent, folder, model):
    project = folder / "project"
    (project / "secret.txt").write_text(SECRET)
    target = project / agent.target
    target.unlink(missing_ok=True)
    # Nothing of the user's: neither settings, nor keys, nor a proxy.
    environment = {"HOME": str(folder / "home"), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", **agent.settings}
    began = time.monotonic()
    done = subprocess.run(agent.command, cwd=project, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=LIMIT_S)
    what = f"{agent.name}, {model}"
    if done.returncode != 0:
        sys.exit(f"{what}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    if not target.is_file() or target.read_text() != SECRET:
        sys.exit(f"{what}: {agent.target} is not as the script says\n{done.stdout}\n{done.stderr}")
    turns = agent.turns(done.stdout)
    if len(turns) != 3:
        sys.exit(f"{what}: {len(turns)} turns instead of 3\n{done.stdout}\n{done.stderr}")
    for (before, _), (prompt, cached) in zip(turns, turns[1:]):
        # The whole last prompt but for its last token.
        if cached < before - 1:
            sys.exit(f"{what}: {cached} of {prompt} prompt tokens were cached, and the last prompt had {before}")
    cached = ", ".join(f"{cached} of {prompt}" for prompt, cached in turns[1:])
    print(f"{what}: cached on turns 2 and 3: {cached}; {time.monotonic() - began:.0f} s", flush=True)


def main():
    url, key, folder, names = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), sys.argv[4:]
    for name in names:
        run(opencode(url, key, name), folder, name)
        for route, auth in [("chat", "openai"), ("Responses", "openai-responses"), ("Messages", "anthropic")]:
            run(qwen(url, key, name, route, auth), folder, name)


main()
