"""IFEval: each of the 25 instructions kept and broken by an answer that was checked by hand; whole rows; determinism.

The answers are verified in this process (the functions behind the verifier) and, for a few, through the verifier itself.
"""

import random

import pytest

from divwatch.records import Prompt
from divwatch.verify import get_verifier
from divwatch.verify.ifeval import INSTRUCTION_DICT, ifeval, ifeval_google, ifeval_loose

ENGLISH = "The quick brown fox jumps over the lazy dog near the old river bank"

# instruction: arguments, an answer that keeps it, one that breaks it
CASES = {
    "keywords:existence": ({"keywords": ["ocean", "wind"]}, "The wind is on the Ocean.", "The ocean is calm."),
    "keywords:frequency": (
        {"keyword": "story", "frequency": 2, "relation": "at least"}, "A story in a story.", "One story only.",
    ),
    "keywords:forbidden_words": ({"forbidden_words": ["rock"]}, "A rocket lands.", "We rock on."),
    "keywords:letter_frequency": (
        {"letter": "q", "let_frequency": 3, "let_relation": "less than"}, "A quick quiz.", "Quack! A quick quiz.",
    ),
    "language:response_language": (
        {"language": "de"}, "Das ist ein kurzer Satz über den alten Fluss und die Stadt.", ENGLISH,
    ),
    "length_constraints:number_sentences": (
        {"num_sentences": 3, "relation": "less than"}, "Mr. Lee left at 5 p.m. He slept.", "One. Two things. Three things.",
    ),
    "length_constraints:number_paragraphs": ({"num_paragraphs": 2}, "One.\n***\nTwo.", "One.\n***\nTwo.\n***\nThree."),
    "length_constraints:number_words": ({"num_words": 4, "relation": "at least"}, "Four words it is.", "Only three words."),
    "length_constraints:nth_paragraph_first_word": (
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"}, "This.\n\nThen that.", "This.\n\nNow that.",
    ),
    "detectable_content:number_placeholders": ({"num_placeholders": 2}, "Dear [name], at [address].", "Dear [name]."),
    "detectable_content:postscript": ({"postscript_marker": "P.S."}, "Bye.\nP.S. Call me.", "Bye. Call me."),
    "detectable_format:number_bullet_lists": ({"num_bullets": 2}, "* one\n* two", "* one\n* two\n* three"),
    "detectable_format:constrained_response": ({}, "My answer is yes.", "Yes, surely."),
    "detectable_format:number_highlighted_sections": ({"num_highlights": 2}, "*One* and *two*.", "*One* and two."),
    "detectable_format:multiple_sections": (
        {"section_spliter": "Section", "num_sections": 2}, "Section 1\nA.\nSection 2\nB.", "Section 1\nA and B.",
    ),
    "detectable_format:json_format": ({}, '```json\n{"a": [1, 2]}\n```', "{a: 1}"),
    "detectable_format:title": ({}, "<<Of rivers>>\nThey flow.", "Of rivers\nThey flow."),
    "combination:two_responses": ({}, "Go left.\n******\nGo right.", "Go left.\n******\nGo left."),
    "combination:repeat_prompt": ({"prompt_to_repeat": "Why is it so?"}, "Why is it so? Because.", "Because. Why is it so?"),
    "startend:end_checker": ({"end_phrase": "That is all."}, "It rains. That is all.", "That is all. It rains."),
    "startend:quotation": ({}, '"It rains."', 'It "rains."'),
    "change_case:capital_word_frequency": (
        {"capital_frequency": 2, "capital_relation": "at least"}, "STOP it NOW.", "STOP it now.",
    ),
    "change_case:english_capital": ({}, ENGLISH.upper(), ENGLISH),
    "change_case:english_lowercase": ({}, ENGLISH.lower(), ENGLISH),
    "punctuation:no_comma": ({}, "No commas here.", "Yes, one."),
}  # fmt: skip


def row(name, arguments):
    return {"prompt": "", "instruction_id_list": [name], "kwargs": [arguments]}


def test_every_instruction_has_its_case():
    assert set(CASES) == set(INSTRUCTION_DICT)
    assert len(CASES) == 25


@pytest.mark.parametrize("name", CASES)
def test_an_instruction_is_kept_or_broken(name):
    arguments, good, bad = CASES[name]
    assert ifeval(good, row(name, arguments)).correct is True
    assert ifeval(bad, row(name, arguments)).correct is False
    assert ifeval("", row(name, arguments)).correct is False


PARAGRAPHS = {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"}


@pytest.mark.parametrize(
    ("name", "arguments", "text", "words", "code"),
    [
        ("language:response_language", {"language": "de"}, "\U0001f600\U0001f600", False, True),
        ("language:response_language", {"language": "en"}, "123", False, True),
        ("language:response_language", {"language": "hi"}, "?!", False, True),
        ("change_case:english_capital", {}, "MY DOG IS A GOOD BOY AND HE LOVES BONES.", True, False),
        ("change_case:english_capital", {}, "HELLO", True, False),
        ("change_case:english_capital", {}, "DAS IST EIN KURZER SATZ \u00dcBER DEN FLUSS UND DIE STADT.", False, False),
        (
            "change_case:english_lowercase",
            {},
            "das ist ein kurzer satz \u00fcber den fluss und die stadt.",
            False,
            False,
        ),
        ("change_case:english_capital", {}, "\U0001f600", False, False),
        ("length_constraints:nth_paragraph_first_word", PARAGRAPHS, "This.\n\n\n\nThen that.", True, False),
        ("length_constraints:nth_paragraph_first_word", PARAGRAPHS, "This.\n \nThen that.", True, False),
        ("length_constraints:nth_paragraph_first_word", PARAGRAPHS, "\n\nThis.\n\nThen that.\n", True, False),
        ("length_constraints:nth_paragraph_first_word", PARAGRAPHS, "This.\n\n\nThen.\n\n\nAnd that.", False, False),
    ],
)
def test_the_instructions_words_count_and_googles_code_has_a_score_of_its_own(name, arguments, text, words, code):
    given = row(name, arguments)
    assert ifeval(text, given).correct is words
    assert ifeval_loose(text, given).correct or not words
    assert ifeval_google(text, given).correct is code


@pytest.mark.parametrize("name", CASES)
def test_googles_code_agrees_elsewhere(name):
    arguments, good, bad = CASES[name]
    assert [ifeval_google(text, row(name, arguments)).correct for text in (good, bad, "")] == [True, False, False]


@pytest.mark.parametrize(("letter", "text"), [("#", "# one\n# two"), ("!", "Stop! Now!")])
def test_a_letter_that_is_none_is_counted_all_the_same(letter, text):
    given = row("keywords:letter_frequency", {"letter": letter, "let_frequency": 2, "let_relation": "at least"})
    assert ifeval(text, given).correct is True
    assert ifeval(text[1:].replace("!", "", 1), given).correct is False


def test_all_instructions_of_a_prompt_must_be_kept():
    both = {
        "prompt": "",
        "instruction_id_list": ["punctuation:no_comma", "startend:quotation"],
        "kwargs": [{}, {"num_words": None}],  # as in the hub's columns, where every argument is there
    }
    assert ifeval('"No."', both).correct is True
    assert ifeval('"No, no."', both).correct is False
    assert ifeval("No.", both).correct is False


def test_loose_forgives_an_introduction_a_farewell_and_asterisks():
    given = row("startend:quotation", {})
    for text in ('Sure:\n"It rains."', '"It rains."\nAnything else?', '*"It rains."*'):
        assert ifeval(text, given).correct is False
        assert ifeval_loose(text, given).correct is True
    assert ifeval_loose("It rains.", given).correct is False


def test_an_unknown_instruction_is_no_pass():
    with pytest.raises(ValueError, match="unknown instruction"):
        ifeval("Text.", row("length_constraints:number_of_smiles", {}))


def test_every_row_of_the_data_set_can_be_judged_and_always_alike(shared):
    rows = shared("tasks/ifeval.jsonl")
    assert {name for r in rows for name in r["instruction_id_list"]} == set(CASES)
    first = [ifeval(r["prompt"], r) for r in rows]
    random.seed(1)
    assert [ifeval(r["prompt"], r) for r in rows] == first
    assert all(j.correct in (True, False) for j in first)


def test_the_verifier_judges_apart_and_leaves_the_global_random_state():
    state = random.getstate()
    name = "length_constraints:number_sentences"
    arguments, good, bad = CASES[name]
    prompts = [Prompt("a", "ifeval", "", reference=row(name, arguments))] * 2 + [
        Prompt("b", "ifeval", "", reference=row("none:such", {}))
    ]
    results = get_verifier("ifeval")([good, bad, good], prompts)
    assert [j.correct for j in results] == [True, False, None]
    assert "unknown instruction" in results[2].reason
    assert random.getstate() == state
