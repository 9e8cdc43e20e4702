"""The other backends: transformers' continuous batching for real, TRL's vLLM engine by its interface."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError
from divwatch.panel import choose
from divwatch.sampling import Source, sample
from divwatch.sampling.plan import Row, share_out
from divwatch.sampling.ranks import LookFailed
from divwatch.sampling.request import make_request
from divwatch.sampling.vllm import Engine
from divwatch.tiny.panel import panel

PROMPTS = choose(panel(), 6, 0)
CONFIG = WatchConfig(samples=3, max_new_tokens=24, backend="continuous")


def test_continuous_batching_samples_the_panel_and_leaves_no_trace(base):
    model, tokenizer = base
    model.train()
    state, attention = torch.get_rng_state(), model.config._attn_implementation
    found = [sample(Source(model), tokenizer, PROMPTS, CONFIG, seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    assert model.config._attn_implementation == attention
    assert all(module.training for module in model.modules())
    model.eval()
    texts = [[c.text for c in completions] for completions in found]
    assert texts[0] == texts[1] != texts[2]
    assert [(c.prompt_id, c.sample) for c in found[0]] == [(p.id, k) for p in PROMPTS for k in range(3)]
    assert sum(c.finished for c in found[0]) > len(found[0]) / 2
    assert len(set(texts[0])) > len(PROMPTS)


def test_continuous_batching_closes_no_thoughts_and_says_so(base):
    with pytest.raises(LookFailed, match="watch_think_tokens needs watch_backend transformers"):
        sample(Source(base[0]), base[1], PROMPTS, replace(CONFIG, think_tokens=5), 0)


class Generation:
    """What TRL 1.16's VLLMGeneration shows to a trainer; answers each prompt with its own last ids."""

    def __init__(self, fails=False):
        self.temperature, self.top_p, self.top_k, self.min_p = 1.0, 1.0, 0, 0.0
        self.repetition_penalty, self.max_completion_length = 1.1, 512
        self.generation_kwargs, self.structured_outputs_regex = {"temperature": 0.1}, "[ab]+"
        self.synced, self.fails = 0, fails

    def sync_weights(self):
        self.synced += 1

    def generate(self, prompts, images, num_generations, profiler=None):
        self.asked = dict(vars(self))
        self.prompts = len(prompts)
        if self.fails:
            raise ConnectionError("no server")
        return prompts, [ids[-2:] for ids in prompts], None, None


def settings_of(generation):
    return {
        name: value for name, value in vars(generation).items() if name not in ("synced", "asked", "fails", "prompts")
    }


@pytest.mark.parametrize("fails", [False, True])
def test_the_trainers_vllm_engine_gets_this_steps_weights_once_and_its_settings_back(base, fails):
    generation = Generation(fails)
    trainer = SimpleNamespace(vllm_generation=generation, _last_loaded_step=3, state=SimpleNamespace(global_step=4))
    before = settings_of(generation)
    request = make_request(*base, PROMPTS, CONFIG, 0, base[0].device)
    rows = [Row(i, k) for i in range(6) for k in range(3)]
    engine = Engine(trainer, 24)
    if fails:
        with pytest.raises(ConnectionError):
            engine.generate(request, rows, 3)
    else:
        made = engine.generate(request, rows, 3)
        assert made == [request.encoded[row.prompt][-2:] for row in rows]
        engine.generate(request, rows, 3)
    assert generation.synced == 1
    assert trainer._last_loaded_step == 4
    assert settings_of(generation) == before
    assert (generation.asked["temperature"], generation.asked["top_p"]) == (0.6, 0.95)
    assert generation.asked["max_completion_length"] == 24
    assert (generation.asked["generation_kwargs"], generation.asked["structured_outputs_regex"]) == ({}, None)


def test_a_vllm_server_is_asked_by_the_main_process_alone():
    generation = Generation(False)
    generation.mode = "server"
    engine = Engine(SimpleNamespace(vllm_generation=generation), 24)
    shares = share_out([3, 3, 3, 3], 4, 3)
    assert [len(rows) for rows in engine.shares(shares)] == [16, 0, 0]
    assert engine.shares(shares)[0] == [row for rows in shares for row in rows]
    generation.mode = "colocate"
    assert engine.shares(shares) == shares


def test_ranks_that_share_an_engine_ask_for_equally_many(base):
    generation = Generation(False)
    generation.tensor_parallel_size = 2
    ranks = SimpleNamespace(num_processes=2)
    state = SimpleNamespace(global_step=4)
    trainer = SimpleNamespace(vllm_generation=generation, _last_loaded_step=3, state=state, accelerator=ranks)
    request = make_request(*base, PROMPTS[:3], CONFIG, 0, base[0].device)
    rows = share_out(request.lengths, 3, 2)[0]
    made = Engine(trainer, 24).generate(request, rows, 3)
    assert (len(rows), len(made), generation.prompts) == (4, 4, 5)


def test_without_vllm_one_line_says_what_to_install(base):
    trainer = SimpleNamespace(state=SimpleNamespace(global_step=0))
    with pytest.raises(DivwatchError, match=r"pip install 'divwatch\[vllm\]'"):
        Engine(trainer, 24)
