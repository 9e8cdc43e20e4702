"""Which sources and rows of the training data narrow the model: output diversity attributed to data, from one run.

`weights` and `log_probs` give the gradient of diversity from a look's own completions; `precondition` makes it a direction of
the optimizer; `nudge` moves the weights along it and back; `losses` and `derivative` say how a row's own loss changes; `path`
follows the weights from checkpoint to checkpoint; `estimate` and `remix` turn these numbers into effects with intervals and
into a better mix; `load`, `trace` and `run_settings` read checkpoints, the trainer's log and what run.json and a config
say of the run; `offline` puts all of it together, and `live` does in training, on a copy of the model.
"""
