"""The run directory and the lineage of runs: the only reader and writer."""
