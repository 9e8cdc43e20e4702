"""Sampling: the law of `generate`, the panel once and whole, and not a trace left in the model."""

import random

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError
from divwatch.records import Prompt
from divwatch.sampling import Source, in_process, sampler
from divwatch.sampling.ranks import LookFailed
from divwatch.sampling.request import make_request, stop_tokens
from divwatch.tiny.panel import panel

CONFIG = WatchConfig(panel="tiny", max_new_tokens=48, samples=4)
PROMPTS = panel()[::12]


def sample(model, tokenizer, *arguments, **named):
    return sampler.sample(Source(model), tokenizer, *arguments, **named)


def encode_prompt(model, tokenizer, prompt):
    return make_request(model, tokenizer, [prompt], CONFIG, 0, model.device).encoded[0]


def test_greedy_tokens_equal_those_of_generate(base):
    """A temperature near zero leaves one choice: shared prefill, padding and leaving rows must not change it."""
    model, tokenizer = base
    greedy = WatchConfig(panel="tiny", max_new_tokens=48, samples=3, temperature=1e-4)
    completions = sample(model, tokenizer, PROMPTS, greedy, seed=0)
    stops = stop_tokens(model, tokenizer)
    for prompt in PROMPTS:
        ids = torch.tensor([encode_prompt(model, tokenizer, prompt)])
        config = GenerationConfig(do_sample=False, max_new_tokens=48, eos_token_id=stops, pad_token_id=stops[0])
        out = model.generate(ids, generation_config=config)[0, ids.shape[1] :]
        expected = tokenizer.decode(out, skip_special_tokens=True)
        assert {c.text for c in completions if c.prompt_id == prompt.id} == {expected}


def test_sampled_tokens_follow_the_same_law_as_generate(base):
    """First sampled token of one prompt, 2,000 draws each way: a chi-square test finds no difference."""
    from scipy.stats import chi2_contingency

    model, tokenizer = base
    prompt, draws = PROMPTS[0], 2000
    config = WatchConfig(panel="tiny", max_new_tokens=3, samples=draws, temperature=0.9, top_p=0.9)
    ours = [c.text for c in sample(model, tokenizer, [prompt], config, seed=1)]
    torch.manual_seed(2)
    ids = torch.tensor([encode_prompt(model, tokenizer, prompt)])
    asked = GenerationConfig(
        do_sample=True, temperature=0.9, top_p=0.9, top_k=0, max_new_tokens=3, num_return_sequences=draws,
        eos_token_id=stop_tokens(model, tokenizer), pad_token_id=0,
    )  # fmt: skip
    theirs = tokenizer.batch_decode(
        model.generate(ids, generation_config=asked)[:, ids.shape[1] :], skip_special_tokens=True
    )
    texts = [t for t in set(ours) | set(theirs) if ours.count(t) + theirs.count(t) >= 20]
    table = [[side.count(t) for t in texts] for side in (ours, theirs)]
    assert len(texts) > 5
    assert chi2_contingency(table).pvalue > 0.001


def test_every_prompt_has_its_samples_in_order_whatever_the_batches(base, monkeypatch):
    monkeypatch.setattr(in_process, "CPU_TOKENS", 700)
    done = []
    completions = sample(*base, PROMPTS, CONFIG, seed=0, progress=done.append)
    assert [(c.prompt_id, c.sample) for c in completions] == [(p.id, k) for p in PROMPTS for k in range(4)]
    assert sum(done) == len(completions)
    assert len(done) > 1


def test_seeds_give_variation_and_are_reproducible(base):
    texts = [[c.text for c in sample(*base, PROMPTS, CONFIG, seed=s)] for s in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]


def test_unfinished_completions_are_marked(base):
    short = WatchConfig(panel="tiny", max_new_tokens=2, samples=2)
    completions = sample(*base, PROMPTS, short, seed=0)
    assert all(c.tokens == 2 or c.finished for c in completions)
    assert sum(not c.finished for c in completions) > len(completions) / 2
    assert all(c.finished and c.tokens < 48 for c in sample(*base, PROMPTS, CONFIG, seed=0))


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_changed_also_when_sampling_fails(base, fails, monkeypatch):
    model, tokenizer = base
    model.train()
    model.model.layers[0].eval()  # a mixed state must come back mixed
    modes, config, side = [m.training for m in model.modules()], model.generation_config, tokenizer.padding_side
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    if fails:
        monkeypatch.setattr(model.lm_head, "forward", lambda *a: 1 / 0)
        with pytest.raises(LookFailed, match="ZeroDivisionError: division by zero"):
            sample(model, tokenizer, PROMPTS, CONFIG, seed=0)
    else:
        sample(model, tokenizer, PROMPTS, CONFIG, seed=0)
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert [m.training for m in model.modules()] == modes
    assert model.generation_config is config
    assert tokenizer.padding_side == side
    model.eval()


def test_the_models_own_generation_config_is_not_mixed_in(base):
    """The base ships T 0.6 and top-p 0.95; asked for T 5 it must ramble."""
    model, tokenizer = base
    assert model.generation_config.temperature == 0.6
    hot = WatchConfig(panel="tiny", max_new_tokens=24, samples=16, temperature=5.0, top_p=1.0)
    texts = [c.text for c in sample(model, tokenizer, PROMPTS[:2], hot, seed=0)]
    assert len(set(texts)) == len(texts)


def test_a_conversation_without_a_chat_template_says_what_to_do(base):
    import copy

    tokenizer = copy.deepcopy(base[1])
    tokenizer.chat_template = None
    with pytest.raises(DivwatchError, match="chat template"):
        make_request(base[0], tokenizer, PROMPTS[:1], WatchConfig(form="chat"), 0, base[0].device)
    assert encode_prompt(*base, Prompt("a", "t", "plain")) == tokenizer("plain")["input_ids"]
