"""The embedded world: a tiny Olmo 3 base model, tasks with many right answers, verifiers, and data mixes.

Everything the demo and the tests train on is generated here; nothing is downloaded. `tasks/` holds one file a task,
`data.py` the corpus and the mixes, `pretrain.py` the script that made the shipped base, `panel.py` the held-out prompts.
"""

from pathlib import Path

BASE_MODEL = Path(__file__).parent / "base"
