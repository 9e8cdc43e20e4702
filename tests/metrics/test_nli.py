"""NLI diversity: the paper's values, the obvious loop, and a classifier that is asked once for each pair."""

import json
import math
import random
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from divwatch.errors import DivwatchError
from divwatch.metrics.nli import load_nli, nli_diversity, split_sentences
from tests.metrics.make_paper_values import toy_similarity

SENTENCES = ["It is so.", "It is not so!", "Is it?", "Well...\n", "a", "", "One. Two. Three. Four."]
SETS = st.lists(st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=5), min_size=1, max_size=4)


def toy(pairs):
    return np.array([toy_similarity(a, b) for a, b in pairs])


def _loop(outputs):
    values = []
    for first, second in combinations(outputs, 2):
        for a, b in zip(split_sentences(first), split_sentences(second), strict=False):
            values.append((toy_similarity(a, b) + toy_similarity(b, a)) / 2)
    return 1 - sum(values) / len(values) if values else math.nan


@given(SETS)
def test_equals_the_loop_over_pairs_and_sentences(sets):
    assert nli_diversity(sets, toy, sentences=0) == pytest.approx([_loop(s) for s in sets], abs=1e-12, nan_ok=True)


@given(SETS)
def test_every_ordered_pair_of_sentences_is_asked_for_once(sets):
    asked = []

    def scorer(pairs):
        asked.extend(pairs)
        return toy(pairs)

    nli_diversity(sets, scorer, sentences=0)
    assert len(asked) == len(set(asked))


def test_equals_the_papers_code_with_its_drawn_sentences(paper):
    rng = random.Random(1234)
    values = nli_diversity(paper["texts"], toy, 3, [rng] * len(paper["texts"]))
    assert values == pytest.approx(paper["nli"], abs=1e-12)


def test_equals_the_papers_code_on_real_samples(generations):
    expected = json.loads((generations / "expected_nli_cruxeval.json").read_text())["per_prompt"]
    rows = [json.loads(line) for line in (generations / "cruxeval_codellama.jsonl").open()]
    sets = {row["id"]: row["outputs"] for row in rows if row["id"] in expected}
    values = nli_diversity(list(sets.values()), load_nli(str(generations.parent / "nli_tiny")), sentences=0)
    assert dict(zip(sets, values.tolist(), strict=True)) == pytest.approx(expected, abs=1e-3)


def test_drawn_sentences_depend_on_the_generator_alone():
    sets = [["One. Two. Three. Four. Five.", "Un. Deux. Trois. Quatre. Cinq.", "1. 2. 3. 4. 5."]]
    first, again, other = (nli_diversity(sets, toy, 2, [random.Random(seed)])[0] for seed in (1, 1, 2))
    assert first == again != other


def test_no_sentence_pair_is_missing():
    assert np.isnan(nli_diversity([["one"], ["", " "], []], toy)).all()


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two?  Three!", ["One", "Two", "Three!"]),
        ("3.5 is one.\n\nTwo\tparts", ["3.5 is one", "Two parts"]),
        ("... ", ["..."]),
        (" \n ", []),
    ],
)
def test_sentences_are_cut_as_the_papers_code_cuts_them(text, sentences):
    assert split_sentences(text) == sentences


@pytest.fixture(scope="module")
def classifier_directory(tmp_path_factory):
    """A tiny classifier with random weights, and a tokenizer of single characters."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("nli")
    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnop .?"])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=raw, **names).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.8,
        id2label={0: "entailment", 1: "neutral", 2: "contradiction"},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def test_batches_by_length_score_as_one_pair_at_a_time_does(classifier_directory):
    classifier = load_nli(str(classifier_directory))
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abcdefgh .?"), size=rng.integers(1, 90))) for _ in range(40)]
    pairs = list(zip(texts, reversed(texts), strict=True))
    together = classifier(pairs)
    assert together == pytest.approx([classifier([pair])[0] for pair in pairs], abs=1e-5)
    assert together.min() < 0 < together.max()
    assert np.abs(together).max() <= 1


def test_a_classifier_without_nli_labels_is_refused(classifier_directory, tmp_path):
    for file in classifier_directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["id2label"] = {"0": "GOOD", "1": "BAD", "2": "UGLY"}
    config["label2id"] = {name: int(i) for i, name in config["id2label"].items()}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(DivwatchError, match="labels GOOD, BAD, UGLY"):
        load_nli(str(tmp_path))


def test_a_classifier_that_cannot_be_loaded_is_one_line(tmp_path):
    with pytest.raises(DivwatchError, match="cannot be loaded") as caught:
        load_nli(str(tmp_path))
    assert "\n" not in str(caught.value)
