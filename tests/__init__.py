"""Tests. Helpers are imported by their full names: `from tests.training import sft_trainer`."""
