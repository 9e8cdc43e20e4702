"""What every test needs: no hub, one thread (two would spin against each other), the embedded base, the shared data."""

import os
import signal
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")
# trackio reads it when it is imported, which any test may bring about.
os.environ["TRACKIO_DIR"] = tempfile.mkdtemp(prefix="trackio-")

import pytest
from hypothesis import settings

settings.register_profile("no deadline", deadline=None)  # a slow machine is not a failure
settings.load_profile("no deadline")

# A shell starts background jobs with SIGINT ignored, and children inherit that: the programs that tests interrupt too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent
# The modules that take longest, in this order: two workers that take a module each (--dist loadscope) end together.
LONGEST = [
    "launched/test_strategies.py", "test_callback.py", "test_recipes.py", "faults/test_ranks.py", "faults/test_kills.py",
    "test_tracking.py", "mixes/test_olmo3_configs.py", "faults/test_signals.py", "test_background.py",
    "docs/test_examples.py", "test_verdicts_in_training.py", "faults/test_scoring.py", "ablation/test_ablation_launch.py",
]  # fmt: skip


def pytest_collection_modifyitems(items):
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(LONGEST)))


@pytest.fixture(scope="session")
def base():
    """(model, tokenizer) of the shipped base. Tests that change the model load their own."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from divwatch.tiny import BASE_MODEL

    return AutoModelForCausalLM.from_pretrained(BASE_MODEL), AutoTokenizer.from_pretrained(BASE_MODEL)
