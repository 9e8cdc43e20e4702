"""Thoughts closed at a cap, a limit a prompt, stop strings, batches that do not fit: on the real tiny model."""

from dataclasses import replace

import pytest
import torch

from divwatch.config import WatchConfig
from divwatch.panel import choose
from divwatch.sampling import Source, in_process, sample
from divwatch.sampling.ranks import LookFailed
from divwatch.sampling.request import make_request
from divwatch.tiny.panel import panel

PROMPTS = choose(panel(), 12, 0)
CONFIG = WatchConfig(samples=4, max_new_tokens=32)


def texts(completions):
    return [c.text for c in completions]


def thinking_tokenizer(tokenizer):
    """The tokenizer with a template whose generation prompt opens a thought, as the released Think template's does."""
    import copy

    made = copy.deepcopy(tokenizer)
    made.chat_template = tokenizer.chat_template.replace("assistant\n' }}", "assistant\n<think>' }}").replace(
        "'<|im_start|>assistant\n'", "'<|im_start|>assistant\n<think>'"
    )
    text = made.apply_chat_template(PROMPTS[0].messages, add_generation_prompt=True, tokenize=False)
    if not text.endswith("<think>"):
        made.chat_template = (
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n<think>{% endif %}"
        )
    return made


def test_an_open_thought_is_closed_at_the_cap_and_counted(base):
    model, tokenizer = base
    capped = replace(CONFIG, think_tokens=3)
    found = sample(Source(model), thinking_tokenizer(tokenizer), PROMPTS, capped, 0)
    closed = [c for c in found if c.thought_closed]
    assert closed, "no thought ran into the cap"
    for completion in found:
        assert completion.text.startswith("<think>")
    for completion in closed:
        thought, mark, _ = completion.text.removeprefix("<think>").partition("</think>")
        assert mark
        assert len(tokenizer(thought, add_special_tokens=False)["input_ids"]) <= 3 + 1  # a newline before the mark
    own = [c for c in found if not c.thought_closed]
    assert all(c.tokens <= 3 + 32 + 10 for c in found)
    assert not own or all("</think>" in c.text or not c.finished for c in own)


def test_thinking_off_closes_the_thought_before_it_starts(base):
    model, tokenizer = base
    thinker = thinking_tokenizer(tokenizer)
    off = [replace(p, thinking="off") for p in PROMPTS]
    request = make_request(model, thinker, off, CONFIG, 0, model.device)
    assert not any(request.opened)
    assert thinker.decode(request.encoded[0]).endswith("<think>\n</think>\n")
    # As trained, the prompt's own `<think>` stands before every text; here only where the model opens one anew.
    assert not all(c.text.startswith("<think>") for c in sample(Source(model), thinker, off, CONFIG, 0))


def test_a_prompts_own_limit_cuts_its_completions_and_no_others(base):
    free = sample(Source(base[0]), base[1], PROMPTS, CONFIG, 0)
    limited = [replace(PROMPTS[0], max_new_tokens=2), *PROMPTS[1:]]
    found = sample(Source(base[0]), base[1], limited, CONFIG, 0)
    assert all(c.tokens <= 2 for c in found[:4])
    assert texts(found[4:]) == texts(free[4:])


def test_a_stop_string_ends_a_plain_completion(base):
    plain = replace(CONFIG, form="plain")
    prompt = replace(PROMPTS[0], messages=None)
    free = sample(Source(base[0]), base[1], [prompt], plain, 0)
    word = max(free, key=lambda c: len(c.text.split())).text.split()[1]
    found = sample(Source(base[0]), base[1], [replace(prompt, stop=(word,))], plain, 0)
    for cut, whole in zip(found, free, strict=True):
        assert cut.text == whole.text.partition(word)[0]
        assert cut.finished == (whole.finished or word in whole.text)


@pytest.mark.parametrize("fits", [1, 3, 7])
def test_what_does_not_fit_is_halved_until_it_does_and_nothing_changes(base, fits, monkeypatch):
    free = sample(Source(base[0]), base[1], PROMPTS, CONFIG, 0)
    real, tried = in_process.decode_batch, []

    def small(model, request, batch, any_rank):
        tried.append(len(batch))
        if len(batch) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(model, request, batch, any_rank)

    monkeypatch.setattr(in_process, "decode_batch", small)
    found = sample(Source(base[0]), base[1], PROMPTS, CONFIG, 0)
    assert sum(a == b for a, b in zip(texts(found), texts(free), strict=True)) >= 0.95 * len(free)
    assert max(tried) == 48
    assert len(tried) < 48 / fits * 2 + 12


def test_a_single_row_that_does_not_fit_fails_the_look_with_its_reason(base, monkeypatch):
    def never(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(in_process, "decode_batch", never)
    with pytest.raises(LookFailed, match="OutOfMemoryError: CUDA out of memory"):
        sample(Source(base[0]), base[1], PROMPTS, CONFIG, 0)


def test_a_window_shorter_than_the_text_gives_what_generate_gives():
    """Sliding layers keep their window over many chunks of room, and rows leave the batch meanwhile."""
    from transformers import GenerationConfig, Olmo3Config, Olmo3ForCausalLM

    from divwatch.sampling.decode import decode
    from divwatch.sampling.decoding import Decoding
    from divwatch.sampling.noise import token_seeds

    torch.manual_seed(0)
    config = Olmo3Config(
        hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=50, max_position_embeddings=512, sliding_window=16, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    model = Olmo3ForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(30)  # greedy choices that rounding cannot change
    prompts, limit = [[5, 6, 7], list(range(2, 42)), [9] * 20], 200
    how = Decoding(1e-6, 0.5, [1], limit)
    with torch.no_grad():
        seeds = token_seeds(0, [("p", k) for k in range(6)], limit)
        made = decode(model, prompts, [0, 0, 1, 1, 2, 2], seeds, [limit] * 6, how, torch.device("cpu"))
    for i, prompt in enumerate(prompts):
        asked = GenerationConfig(do_sample=False, max_new_tokens=limit, eos_token_id=1, pad_token_id=0)
        expected = model.generate(torch.tensor([prompt]), generation_config=asked)[0, len(prompt) :].tolist()
        assert made[2 * i] == made[2 * i + 1] == expected
