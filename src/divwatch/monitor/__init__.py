"""The monitor: what happens to a look between sampling and the outputs."""
