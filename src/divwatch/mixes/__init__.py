"""Training data by name: the Olmo 3 mixes, your own in YAML, the embedded world's (`tiny/...`), or a JSONL file.

    dataset, report = load_mix("instruct_sft", selection=Selection(rows=100_000, drop=("FLAN",)))

`definition` says what a mix is, `rows` reads, `adapters` makes TRL's rows, `columns` names their kind and sources, `draw`
selects, `load` combines them and `prepared` caches the result.
"""

from divwatch.mixes.columns import kind_of, source_labels
from divwatch.mixes.draw import Selection
from divwatch.mixes.load import load_mix
from divwatch.mixes.report import MixReport

__all__ = ["MixReport", "Selection", "kind_of", "load_mix", "source_labels"]
