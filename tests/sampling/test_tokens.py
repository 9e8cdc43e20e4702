"""Which tokens end an answer, and whose tokenizer is watched."""

import copy
from types import SimpleNamespace

import pytest
import torch

from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError
from divwatch.panel.form import prompt_text
from divwatch.records import Prompt
from divwatch.sampling import Source, sample
from divwatch.sampling.ranks import LookFailed
from divwatch.sampling.request import make_request, stop_tokens
from divwatch.sampling.tokens import tokenizer_of, why_endless

ROLES = "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
TURNS = {
    "at once": ROLES + "<|im_end|>{% endfor %}",
    "on a new line": ROLES + "\n<|im_end|>\n{% endfor %}",
    "before eos": ROLES + "<|im_end|>{{ eos_token }}{% endfor %}",
    "after a thought": ROLES.replace("}}{{", "}}<think></think>{{") + "<|im_end|>{% endfor %}",
}
PARTS = (
    "{% for m in messages %}<{{ m.role }}>{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}"
    "{% endfor %}<|im_end|>{% endfor %}"
)
CHAT = Prompt("a", "t", "How many?", messages=({"role": "user", "content": "How many?"},))


@pytest.fixture
def tokenizer(base):
    made = copy.deepcopy(base[1])
    made.add_tokens(["<|im_end|>"], special_tokens=True)
    return made


@pytest.mark.parametrize("turn", TURNS)
def test_the_templates_own_end_of_turn_ends_an_answer(base, tokenizer, turn):
    tokenizer.chat_template = TURNS[turn]
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    stops = stop_tokens(base[0], tokenizer)
    assert {end, tokenizer.eos_token_id} <= set(stops)
    assert why_endless(base[0], tokenizer) is None


def test_the_eos_list_of_the_generation_config_counts(base, tokenizer):
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=[3, 4]))
    assert {3, 4, tokenizer.eos_token_id} <= set(stop_tokens(model, tokenizer))


@pytest.mark.parametrize("end", ["[/ANSWER]", "\n\n### End"])
def test_a_turn_that_ends_in_no_token_is_named(base, tokenizer, end):
    tokenizer.chat_template = ROLES + end.replace("\n", "\\n") + "{% endfor %}"
    if "\\n" in tokenizer.chat_template:
        tokenizer.chat_template = ROLES + "{{ '" + end.replace("\n", "\\n") + "' }}{% endfor %}"
    line = why_endless(base[0], tokenizer)
    assert repr(end.strip()) in line
    assert "generation_config.eos_token_id" in line


@pytest.mark.parametrize("template", [None, "{{ raise_exception('no') }}", "{% for m in messages %}{% endfor %}"])
def test_a_template_that_renders_no_answer_teaches_no_end(base, tokenizer, template):
    tokenizer.chat_template = template
    assert why_endless(base[0], tokenizer) is None
    assert tokenizer.eos_token_id in stop_tokens(base[0], tokenizer)


def test_a_completion_is_cut_at_its_first_end_token(base, tokenizer):
    """A backend may know fewer end tokens than the look."""
    request = make_request(base[0], tokenizer, [CHAT], WatchConfig(max_new_tokens=8), 0, base[0].device)
    stop = request.how.stops[0]
    completion = request.completion(0, 0, [5, 6, stop, 7, 8])
    assert (completion.tokens, completion.finished) == (3, True)


@pytest.mark.parametrize("template", [TURNS["at once"], PARTS])
def test_of_a_processor_the_tokenizer_is_watched(tokenizer, template):
    """Its template belongs to the processor, and may read contents as lists of parts only."""
    tokenizer.chat_template = None
    processor = SimpleNamespace(tokenizer=tokenizer, chat_template=template)
    watched = tokenizer_of(SimpleNamespace(processing_class=processor))
    assert prompt_text(watched, CHAT) == "<user>How many?<|im_end|>"
    parts = [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}]
    if template == PARTS:
        assert watched.apply_chat_template(parts, tokenize=False) == "<user>Why?<|im_end|>"
    assert tokenizer.chat_template is None


def test_a_trainer_without_tokenizer_is_refused():
    with pytest.raises(DivwatchError, match="give it one as processing_class"):
        tokenizer_of(SimpleNamespace(processing_class=None))
    with pytest.raises(DivwatchError, match="without a tokenizer"):
        tokenizer_of(SimpleNamespace(processing_class=object()))


def test_a_model_without_logits_is_named(base, tokenizer):
    """Unsloth returns an object that raises at any use in place of logits."""

    class EmptyLogits:
        def __getitem__(self, key):
            raise NotImplementedError("a long text")

    model = copy.deepcopy(base[0])
    forward = model.forward

    def without_logits(*args, **named):
        output = forward(*args, **named)
        output.logits = EmptyLogits()
        return output

    model.forward = without_logits
    with torch.no_grad(), pytest.raises(LookFailed, match="UNSLOTH_RETURN_LOGITS"):
        sample(Source(model), tokenizer, [CHAT], WatchConfig(samples=2, max_new_tokens=4), 0)
