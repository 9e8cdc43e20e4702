"""The embedded tasks: authors are correct or wrong as they meant to be, prompts are held out, and the base is competent."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from divwatch.tiny.author import held_out_items, random_item, training_items
from divwatch.tiny.mixes import MIXES, rows
from divwatch.tiny.panel import panel, verify
from divwatch.tiny.tasks import TASKS, expression, formatting, listing, pair, word_problem

VERIFIED = [task for task in TASKS.values() if task.check]


@pytest.mark.parametrize("task", VERIFIED, ids=lambda t: t.NAME)
def test_every_strategy_and_template_is_right_and_its_corruption_wrong(task):
    rng = Random(0)
    for item in task.items():
        for strategy in range(len(task.STRATEGIES)):
            for template in task.TEMPLATES:
                core = task.core(item.content, strategy, rng)
                assert task.check(template.format(**core), item.content).correct, template.format(**core)
                wrong = template.format(**task.wrong(core, rng))
                assert not task.check(wrong, item.content).correct, wrong


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda t: t.NAME)
def test_prompts_are_distinct_and_enough_are_held_out(task):
    items = task.items()
    assert len({i.text for i in items}) == len({i.id for i in items}) == len(items)
    assert sum(i.held_out for i in items) >= 48


def test_no_data_set_uses_a_held_out_prompt():
    held_out = {prompt.text for prompt in panel()}
    assert len(held_out) == 6 * 48
    for name in MIXES:
        assert not held_out & {row["prompt"][0]["content"] for row in rows(name, seed=0)}
    assert not {i.id for i in held_out_items()} & {i.id for items in training_items().values() for i in items}


def test_mixes_are_reproducible_and_differ_by_seed():
    assert list(rows("instruct_dpo", 1)) == list(rows("instruct_dpo", 1))
    assert list(rows("instruct_dpo", 1)) != list(rows("instruct_dpo", 2))
    assert all(row["chosen"] != row["rejected"] for row in rows("instruct_dpo", 1))


@pytest.mark.parametrize(
    ("check", "content", "answer", "correct", "canonical"),
    [
        (pair.check, (14,), "9 plus 5 makes 14.", True, "5+9"),
        (pair.check, (14,), "5, 5 and 4", False, None),
        (pair.check, (14,), "no idea", False, None),
        (expression.check, (12,), "(2 + 4) * 2", True, "(2+4)*2"),
        (expression.check, (12,), "12", False, None),
        (expression.check, (12,), "24 / 0", False, None),
        (expression.check, (12,), "__import__('os')", False, None),
        (listing.check, ("animals", "three"), "Fox, CAT and dog!", True, "cat dog fox"),
        (listing.check, ("animals", "three"), "cat, cat and dog", False, "cat cat dog"),
        (word_problem.check, ("+", 5, 7, "Tom", "pens"), "5 + 7 = 12, so 12 pens", True, "12"),
        (formatting.check, ("fox", "capitals"), "THE FOX RUNS.", True, None),
        (formatting.check, ("fox", "capitals"), "THE OWL RUNS.", False, None),
    ],
)
def test_checks(check, content, answer, correct, canonical):
    result = check(answer, content)
    assert (result.correct, result.answer) == (correct, canonical)


@given(st.text(max_size=200))
def test_no_text_breaks_a_check(text):
    for seed in range(3):
        item = random_item(Random(seed), [t.NAME for t in VERIFIED])
        assert verify(text, {"task": item.task, "content": list(item.content)}).correct in (True, False)


@given(
    st.recursive(
        st.integers(0, 99).map(str),
        lambda s: st.tuples(s, st.sampled_from("+-*/"), s).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
    )
)
def test_the_evaluator_agrees_with_python(text):
    import re
    from fractions import Fraction

    try:
        expected = eval(re.sub(r"\d+", r"Fraction(\g<0>)", text), {"Fraction": Fraction})
    except ZeroDivisionError:
        return
    if len(text) <= 100:
        assert expression.evaluate(text) == expected


def test_the_base_is_competent(base):
    """On each verifiable task at least 32 of its held-out prompts have two or more correct samples of 16."""
    from divwatch.config import WatchConfig
    from divwatch.sampling import Source, sample
    from divwatch.verify import verify_completions

    prompts = [p for p in panel() if p.verifier]
    completions = sample(Source(base[0]), base[1], prompts, WatchConfig(panel="tiny", max_new_tokens=64), seed=0)
    samples, _ = verify_completions(prompts, completions)
    for task in VERIFIED:
        mine = [s for s in samples if s.task == task.NAME]
        assert sum(sum(s.correct) >= 2 for s in mine) >= 32, task.NAME
