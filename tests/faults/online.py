# ruff: noqa: E402 -- W&B reads its environment when it is imported
"""A watched training that reports to W&B online, to a server that stops answering: `python online.py OUT MODE`.

MODE: answers; hangs, fails, gone (from before the second look on); deaf, absent (before W&B opens its run); killed (it is
the client's service process that ends, and the trainer's own callback is taken out).
The last line of the output is what was left, as JSON.
"""

import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.wandb_server import Server

out, mode = Path(sys.argv[1]), sys.argv[2]
server = Server()
os.environ |= {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0" * 40, "WANDB_MODE": "online", "WANDB_DIR": str(out)}
os.environ |= {"WANDB_SILENT": "true", "WANDB_INIT_TIMEOUT": "5", "WANDB_RUN_GROUP": "lineage"}

import psutil
import wandb
from transformers.integrations import WandbCallback

import divwatch
from divwatch.store.run_directory import RunDirectory
from tests.faults.undisturbed import QUICK, before_the_look
from tests.training import sft_trainer, weights_hash


def turn(mode):
    """What the server does from now on, or what becomes of the client."""
    if mode == "killed":
        trainer.pop_callback(WandbCallback)
        for child in psutil.Process().children(recursive=True):
            if "wandb-core" in " ".join(child.cmdline()):
                child.kill()
        return
    if mode in ("gone", "absent"):
        server.close()
    server.mode = {"deaf": "hangs"}.get(mode, mode)


trainer = sft_trainer(out, steps=3, report_to="wandb")
divwatch.watch(trainer, **QUICK)
if mode in ("deaf", "absent"):
    turn(mode)
elif mode != "answers":
    before_the_look(trainer, 1, lambda: turn(mode))
found, started = {"error": None}, time.monotonic()
try:
    trainer.train()
except Exception as error:
    found["error"] = f"{type(error).__name__}: {error}"
found["seconds"] = time.monotonic() - started
if mode == "answers":
    wandb.finish()
store = RunDirectory.of(out)
found |= {"weights": weights_hash(trainer.model), "history": server.history(), "groups": server.groups()}
found |= {"looks": [(look["step"], look["status"]) for look in store.looks()]}
print("\n" + json.dumps(found), flush=True)
# The client would go on trying; that is between it and its server.
for child in psutil.Process().children(recursive=True):
    child.kill()
os._exit(0)
