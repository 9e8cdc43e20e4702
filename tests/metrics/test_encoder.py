"""The encoder gives what sentence-transformers gives, each text once, and leaves no trace on anything global."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from divwatch.errors import DivwatchError
from divwatch.metrics.encoder import Encoder, batches_by_tokens, load_encoder

WORDS = [
    "the",
    "sum",
    "of",
    "two",
    "numbers",
    "is",
    "what",
    "you",
    "get",
    "when",
    "you",
    "add",
    "them",
    ",",
    "and",
    "then",
    "some",
    "more",
    "to",
    "say",
    "about",
    "it",
    ".",
]


def _texts(seed, n, longest=120):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=rng.integers(0, longest))) for _ in range(n)]


def _fresh(encoder, **options):
    """An encoder of the same weights with an empty cache."""
    return Encoder(encoder.model, encoder.max_tokens, **options)


def test_equals_sentence_transformers(minilm):
    texts = _texts(0, 24, longest=300)
    expected = minilm.model.encode(texts, normalize_embeddings=True, batch_size=8)
    got = _fresh(minilm).encode(texts)
    assert got.dtype == np.float32
    assert got == pytest.approx(expected, abs=2e-6)
    assert np.linalg.norm(got, axis=1) == pytest.approx(np.ones(24), abs=1e-6)


@pytest.fixture
def read(minilm):
    """The texts that the model has read so far, whatever was in a cache."""
    texts = []

    def note(module, inputs):
        texts.extend(minilm.model.tokenizer.batch_decode(inputs[0]["input_ids"], skip_special_tokens=True))

    hook = minilm.model.register_forward_pre_hook(note)
    yield texts
    hook.remove()


def test_a_repeated_text_is_encoded_once_across_calls(minilm, read):
    encoder = _fresh(minilm)
    rows = encoder.encode(["one", "two", "one"])
    again = encoder.encode(["three", "two", "one"])
    assert read == ["one", "two", "three"]
    assert (rows[0] == rows[2]).all()
    assert (again[2] == rows[0]).all()


def test_the_cache_is_bounded_and_keeps_what_was_used_last(minilm, read):
    row = 4 * 384 + 200
    encoder = _fresh(minilm, cache_bytes=3 * row)
    encoder.encode(["a", "b", "c"])
    rows = encoder.encode(["a", "d"])
    read.clear()
    assert (encoder.encode(["a", "d"]) == rows).all()
    encoder.encode(["c"])
    assert read == []
    encoder.encode(["b"])
    assert read == ["b"]
    many = _texts(1, 8)
    assert encoder.encode(many).shape == (8, 384)


def test_no_texts_give_no_rows(minilm):
    assert minilm.encode([]).shape == (0, 384)


def test_windows_equal_truncation_for_short_texts_and_read_the_end_of_long_ones(minilm):
    short = _texts(2, 10, longest=100)
    cut, windowed = _fresh(minilm), _fresh(minilm, windowed=True)
    assert windowed.encode(short) == pytest.approx(cut.encode(short), abs=2e-6)
    opening = "the sum of two numbers is " * 60
    texts = [opening + "rivers and mountains of the north " * 40, opening + "interest rates rose again this year " * 40]
    apart = [1 - float(e[0] @ e[1]) for e in (cut.encode(texts), windowed.encode(texts))]
    assert apart[0] < 1e-5 < 0.05 < apart[1]


def test_a_windowed_embedding_is_the_mean_of_its_windows(minilm):
    encoder = Encoder(minilm.model, 16, windowed=True)
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"] * 3
    text = " ".join(words)  # one token each, 14 to a window beside the two special ones
    windows = [" ".join(words[i : i + 14]) for i in range(0, 36, 14)]
    parts = _fresh(minilm).encode(windows).astype(float)
    mean = np.average(parts, axis=0, weights=[16, 16, 10])
    assert encoder.encode([text])[0] == pytest.approx(mean / np.linalg.norm(mean), abs=2e-6)


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 1000))
def test_batches_hold_everything_once_within_the_budget(lengths, budget):
    lengths = np.array(lengths, dtype=int)
    batches = list(batches_by_tokens(lengths, budget))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or lengths[batch].max() * len(batch) <= budget for batch in batches)


def test_loading_and_encoding_leave_global_state_alone(minilm):
    import torch

    def state():
        return (
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.get_default_dtype(),
        )

    before = state()
    load_encoder("minilm", 64).encode(_texts(3, 5))
    assert state() == before


def test_a_trainers_autocast_and_gradients_do_not_reach_the_encoder(minilm):
    import torch

    texts = _texts(4, 6)
    plain = _fresh(minilm).encode(texts)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.enable_grad():
        assert _fresh(minilm).encode(texts) == pytest.approx(plain, abs=1e-6)


def test_a_plain_transformers_directory_is_read_with_mean_pooling(minilm, tmp_path):
    import torch

    transformer = minilm.model[0]
    transformer.model.save_pretrained(tmp_path)
    minilm.model.tokenizer.save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path), 256)
    text = "the sum of two numbers"
    tokens = minilm.model.tokenizer([text], return_tensors="pt")
    with torch.inference_mode():
        mean = transformer.model(**tokens).last_hidden_state[0].mean(dim=0).numpy()
    assert encoder.encode([text])[0] == pytest.approx(mean / np.linalg.norm(mean), abs=2e-6)


@pytest.mark.parametrize("text", ["", " \n", "\x00", "é" * 5000, "🙂" * 300, "[PAD] [CLS] [SEP]"])
def test_any_text_has_a_unit_vector(minilm, text):
    assert np.linalg.norm(minilm.encode([text])[0]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("tokens", [0, 2, 513])
def test_a_length_the_model_cannot_read_is_refused(minilm, tokens):
    with pytest.raises(DivwatchError, match=f"max tokens is {tokens}: minilm reads from 3 to 512"):
        load_encoder("minilm", tokens)


@pytest.mark.parametrize("name", ["no/such-model", "/no/such/folder", ""])
def test_an_encoder_that_cannot_be_loaded_is_one_line(name):
    with pytest.raises(DivwatchError, match="cannot be loaded") as caught:
        load_encoder(name)
    assert "\n" not in str(caught.value)


def test_a_helper_model_is_not_sharded_by_zero3(minilm):
    deepspeed = pytest.importorskip("deepspeed", reason="needs the extra deepspeed")
    assert deepspeed
    from transformers.integrations import HfDeepSpeedConfig
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled, unset_hf_deepspeed_config

    config = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": 1})
    try:
        encoder = load_encoder("minilm", 64)
        assert is_deepspeed_zero3_enabled()
        assert all(p.numel() > 0 and not hasattr(p, "ds_id") for p in encoder.model.parameters())
        assert encoder.encode(["text"]) == pytest.approx(_fresh(minilm).encode(["text"]), abs=2e-6)
    finally:
        unset_hf_deepspeed_config()
        del config
