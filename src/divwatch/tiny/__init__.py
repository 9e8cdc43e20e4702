"""The embedded world: a tiny Olmo 3 base model, tasks with many correct answers, their verifiers, and data mixes.

Everything that the demo and the tests train on is generated here; nothing is downloaded. `tasks/` has one file per task,
`author.py` writes answers, `corpus.py` is the pretraining text, `mixes.py` the training data of the stages, `panel.py`
the held-out prompts and their verifier, `pretrain.py` the script that trained `base/`, the shipped model.
"""

from pathlib import Path

BASE_MODEL = Path(__file__).parent / "base"
