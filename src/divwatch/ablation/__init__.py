"""Ablations of a data mix: a plan of runs, their launch, and what came out of them."""
