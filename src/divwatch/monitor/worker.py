"""The scoring process: `python -m divwatch.monitor.worker`, started and spoken to by `divwatch.monitor.background`.

One JSON object a line. In: the config, then {path, prompts, config, max_looks} for each run directory, then
{path, step, seconds} for each look.
Out: {ready: true} or {refused: message}, then {path, step, result} or {path, step, error} for each look.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    _die_with_parent()
    # Whatever a library prints must not end up between our lines.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    os.nice(19)

    def say(message: dict[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    from divwatch.config import WatchConfig
    from divwatch.errors import DivwatchError, one_line
    from divwatch.monitor.score_look import LookScorer, load_models
    from divwatch.records import Prompt
    from divwatch.store.run_directory import RunDirectory

    config = WatchConfig(**json.loads(sys.stdin.readline()))
    try:
        models = load_models(config)
    except DivwatchError as error:
        say({"refused": str(error)})
        return
    say({"ready": True})
    scorers: dict[str, LookScorer] = {}
    for line in sys.stdin:
        message = json.loads(line)
        path = message["path"]
        if "prompts" in message:
            prompts = [Prompt(**prompt) for prompt in message["prompts"]]
            settings = WatchConfig(**message["config"])
            scorers[path] = LookScorer(RunDirectory(Path(path)), prompts, settings, message["max_looks"], models)
            continue
        done = {"path": path, "step": message["step"]}
        try:
            say(done | {"result": scorers[path].score(message["step"], message["seconds"]).to_json()})
        except Exception as error:
            say(done | {"error": one_line(error)})


def _die_with_parent() -> None:
    """On Linux a killed training run leaves no scoring process behind; elsewhere this one ends at the end of its input."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


if __name__ == "__main__":
    main()
