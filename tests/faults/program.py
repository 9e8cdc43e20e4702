"""A watched training in a process of its own, for faults that end it: `python program.py OUT PANEL [option...]`.

Options: grace (SIGTERM saves and stops), report (writes the report at the end), no_wandb (the package is not installed).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
if "no_wandb" in sys.argv:
    sys.modules["wandb"] = None  # what `import wandb` finds is an ImportError

import signal

from transformers import TrainerCallback

import divwatch
from divwatch.ablation.launch import last_checkpoint
from tests.faults.undisturbed import QUICK
from tests.training import sft_trainer


class Grace(TrainerCallback):
    """Preemption with a grace period, as clusters announce it."""

    def __init__(self):
        self.asked = False
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "asked", True))

    def on_step_end(self, args, state, control, **kwargs):
        control.should_save = control.should_save or self.asked
        control.should_training_stop = control.should_training_stop or self.asked


def main(out, panel, options):
    trainer = sft_trainer(out, steps=400 if "long" in options else 3, save_strategy="steps", save_steps=2)
    divwatch.watch(
        trainer,
        **QUICK | {"panel": panel, "held_out": "off", "background": True, "every": 50 if "long" in options else 1},
    )
    if "grace" in options:
        trainer.add_callback(Grace())
    print("begins", flush=True)
    trainer.train(resume_from_checkpoint=last_checkpoint(out))
    print("ended", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
