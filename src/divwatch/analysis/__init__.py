"""From per-prompt values to statements: onset, split, stages, verdict. Pure functions on arrays."""
