"""Greedy tokens equal those of `generate`, on every kind of model that TRL trains: alone, left-padded, rows leaving."""

import logging

import pytest
import torch
import transformers
from transformers import GenerationConfig

from divwatch.config import WatchConfig
from divwatch.sampling import Source, sample
from divwatch.sampling.decode import decode
from divwatch.sampling.decoding import Decoding
from divwatch.sampling.log import warn_once
from divwatch.sampling.memory import row_tokens, token_bytes
from divwatch.sampling.noise import token_seeds
from divwatch.sampling.request import make_request, stop_tokens
from divwatch.tiny.panel import panel

SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 50,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "eos_token_id": 1, "pad_token_id": 0, "bos_token_id": 2,
}  # fmt: skip
HALVES = {"layer_types": ["linear_attention", "full_attention"] * 2}
DELTA = {
    "head_dim": 8, "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}  # fmt: skip
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
MAMBA2 = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 2, "mamba_chunk_size": 8}
MLA = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
# Which way each is expected to go: its cache is known, or it follows `generate`.
KNOWN = {
    # hybrids
    "OlmoHybrid": {**HALVES, **DELTA},
    "Qwen3Next": {**HALVES, **DELTA, **MOE, "shared_expert_intermediate_size": 16},
    "Qwen3_5Text": {**HALVES, **DELTA},
    "Qwen3_5MoeText": {**HALVES, **DELTA, **MOE, "shared_expert_intermediate_size": 16},
    "FalconH1": {**MAMBA2, "mamba_d_ssm": 64, "head_dim": 8},
    "GraniteMoeHybrid": {
        **MAMBA2, "layer_types": ["mamba", "attention"] * 2, "shared_intermediate_size": 32, "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
    "Bamba": {**MAMBA2, "attn_layer_indices": [1, 3]},
    "Jamba": {
        "attn_layer_offset": 1, "attn_layer_period": 2, "num_experts": 4, "expert_layer_period": 2, "mamba_d_state": 8,
        "mamba_dt_rank": 4, "use_mamba_kernels": False,
    },
    "Lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "Lfm2Moe": {"layer_types": ["conv", "full_attention"] * 2, **MOE, "num_dense_layers": 1},
    "Zamba2": {
        "layers_block_type": ["mamba", "hybrid"] * 2, "mamba_d_state": 8, "n_mamba_heads": 8, "mamba_ngroups": 2,
        "chunk_size": 8, "mamba_headdim": 8, "use_mamba_kernels": False, "num_mem_blocks": 1, "attention_head_dim": 16,
    },
    "Zamba": {
        "num_hidden_layers": 6,
        "attn_layer_offset": 1, "attn_layer_period": 2, "mamba_d_state": 8, "mamba_dt_rank": 4, "n_mamba_heads": 2,
        "use_mamba_kernels": False, "attention_hidden_size": 64, "attention_head_dim": 16,
    },
    "NemotronH": {
        "layers_block_type": ["mamba", "attention", "mlp", "mamba"], "ssm_state_size": 8, "mamba_num_heads": 8,
        "mamba_head_dim": 8, "n_groups": 2, "chunk_size": 8, "head_dim": 8, "use_mamba_kernels": False,
    },
    # sliding windows and chunks
    "Olmo3": {"sliding_window": 16},
    "Mistral": {"sliding_window": 16},
    "Gemma2": {"sliding_window": 16, "head_dim": 8},
    "Gemma3Text": {"sliding_window": 16, "head_dim": 8},
    "Cohere2": {"sliding_window": 16},
    "GptOss": {"sliding_window": 16, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    "Llama4Text": {"attention_chunk_size": 16, "head_dim": 8, "num_local_experts": 2, "intermediate_size_mlp": 64},
    # mixtures of experts
    "Mixtral": {"num_local_experts": 4},
    "Qwen3Moe": {**MOE, "head_dim": 16},
    "Olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "DeepseekV3": {**MLA, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 2,
                   "topk_group": 1, "first_k_dense_replace": 1, "num_key_value_heads": 4},
    "GlmMoeDsa": {**MLA, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 1,
                  "topk_group": 1, "index_head_dim": 8, "index_n_heads": 2, "index_topk": 8, "num_key_value_heads": 4},
    # dense
    "Llama": {},
    "Qwen3": {"head_dim": 16},
    "SmolLM3": {},
    "Phi3": {},
    "GPT2": {},
    "GPTNeoX": {},
    "OPT": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "Bloom": {},
    "Falcon": {},
}  # fmt: skip
AS_GENERATE = {
    "MiniMax": {**HALVES, "head_dim": 8, "num_local_experts": 4, "block_size": 16},
    "Mamba": {"state_size": 8},
    "Mamba2": {"state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 8},
    "FalconMamba": {"state_size": 8},
    "RecurrentGemma": {"num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 16, "head_dim": 8},
}
IMAGES = {"image_token_id": 45, "video_token_id": 46, "vision_start_token_id": 47, "vision_end_token_id": 48}
QWEN_IMAGES = {
    "depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": 32, "patch_size": 8,
    "num_position_embeddings": 16, "deepstack_visual_indexes": [0],
}  # fmt: skip
# Vision-language models, asked in text; Fuyu and Gemma 4 unified have no image encoder.
VISION = {
    "Fuyu": {"text_config": {"model_type": "persimmon", **SIZES}, "patch_size": 8, "image_token_id": 45},
    "Gemma4Unified": {
        "text_config": {
            **SIZES, "head_dim": 8, "global_head_dim": 8, "sliding_window": 16, "vocab_size_per_layer_input": 50,
            "hidden_size_per_layer_input": 8,
        },
        "image_token_id": 45, "video_token_id": 46, "boi_token_id": 47, "eoi_token_id": 48, "audio_token_id": 49,
    },
    "Qwen3_5": {"text_config": {**SIZES, **HALVES, **DELTA}, "vision_config": QWEN_IMAGES, **IMAGES},
    "Llava": {
        "text_config": {"model_type": "llama", **SIZES}, "image_token_index": 45,
        "vision_config": {"model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 32,
                          "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8},
    },
}  # fmt: skip
FAST = ("OlmoHybrid", "FalconH1", "Lfm2", "Mamba2", "RecurrentGemma", "Mistral")
ALL = [
    pytest.param(kind, marks=() if kind in FAST else pytest.mark.slow)
    for kind in sorted({**KNOWN, **AS_GENERATE, **VISION})
]
PROMPTS = [[5, 6, 7], list(range(2, 32)), [9, 10, 11, 12] * 5]
OWNERS = [0, 1, 0, 2, 1, 2]
LIMITS = [30, 30, 2, 30, 1, 2]  # after two tokens half of the rows have left
HOW = Decoding(1e-6, 0.5, [1], 30)


def make_model(kind, **changes):
    torch.manual_seed(0)
    sizes = {**KNOWN, **AS_GENERATE, **VISION}[kind]
    if kind not in VISION or kind == "Fuyu":
        sizes = {**SIZES, **sizes}
    auto = transformers.AutoModelForImageTextToText if kind in VISION else transformers.AutoModelForCausalLM
    config = getattr(transformers, f"{kind}Config")(**{**sizes, **changes})
    model = auto.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)  # random weights of the usual size repeat one token
        model.get_output_embeddings().weight.mul_(10)  # choices that rounding cannot change
    return model


def tokens_of(model, prompts, owners, limits, how=HOW, still_open=lambda row, ids: False):
    seeds = token_seeds(0, [("p", k) for k in range(len(owners))], how.limit)
    with torch.no_grad():
        return decode(model, prompts, owners, seeds, limits, how, torch.device("cpu"), still_open)


class Force(transformers.LogitsProcessor):
    """Leaves one token at some steps. tokens: {step: token}."""

    def __init__(self, tokens):
        self.tokens, self.step = tokens, -1

    def __call__(self, input_ids, scores):
        self.step += 1
        if self.step not in self.tokens:
            return scores
        only = torch.full_like(scores, -torch.inf)
        only[:, self.tokens[self.step]] = 0
        return only


def expected_of(model, prompts, limit=HOW.limit, forced=None):
    """Greedy tokens of `generate` on the left-padded batch of `prompts`."""
    width = max(map(len, prompts))
    ids = torch.tensor([[1] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    asked = GenerationConfig(do_sample=False, max_new_tokens=limit, eos_token_id=1, pad_token_id=0)
    force = transformers.LogitsProcessorList([Force(forced or {})])
    out = model.generate(ids, attention_mask=mask, generation_config=asked, logits_processor=force)
    rows = out[:, width:].tolist()
    return [row[: row.index(1) + 1] if 1 in row else row for row in rows]


@pytest.mark.parametrize("kind", ALL)
def test_greedy_tokens_equal_those_of_generate(kind, caplog):
    model = make_model(kind)
    warn_once.cache_clear()
    with caplog.at_level(logging.WARNING, "divwatch"):
        for prompt in PROMPTS:
            assert tokens_of(model, [prompt], [0, 0], [30, 30]) == expected_of(model, [prompt]) * 2
        expected = expected_of(model, PROMPTS)
        rows = tokens_of(model, PROMPTS, OWNERS, LIMITS)
        assert rows == [expected[owner][:limit] for owner, limit in zip(OWNERS, LIMITS, strict=True)]
    assert ("own generate" in caplog.text) == (kind in AS_GENERATE)


@pytest.mark.parametrize("kind", ALL)
def test_a_thought_closed_by_force_continues_from_the_forced_tokens(kind):
    """The tokens are those of `generate` where a logits processor forces the same three."""
    model, how = make_model(kind), Decoding(1e-6, 0.5, [1], 20, 4, (7, 8, 9))
    expected = expected_of(model, PROMPTS, 20, forced={4: 7, 5: 8, 6: 9})
    assert tokens_of(model, PROMPTS, [0, 1, 2], [20] * 3, how, lambda row, ids: True) == expected


@pytest.mark.parametrize("kind", ALL)
def test_a_row_needs_memory(kind):
    model = make_model(kind)
    assert token_bytes(model) >= 32 * 4
    assert row_tokens(model) >= 8 * 50 // token_bytes(model)


@pytest.mark.parametrize("name", ["PromptTuningConfig", "PromptEncoderConfig", "PrefixTuningConfig"])
def test_prompt_learning_answers_as_its_own_generate(base, name):
    """Prompts of unequal length: what a look samples is what the adapter says to each prompt alone."""
    import copy

    peft = pytest.importorskip("peft")
    inner = copy.deepcopy(base[0])
    extra = {"encoder_hidden_size": 32} if name == "PromptEncoderConfig" else {}
    torch.manual_seed(1)
    adapter = getattr(peft, name)(task_type="CAUSAL_LM", num_virtual_tokens=4, **extra)
    model, own = peft.get_peft_model(inner, adapter).eval(), inner.generation_config
    greedy, prompts = WatchConfig(samples=2, max_new_tokens=24, temperature=1e-4, top_p=1.0), panel()[::60]
    completions = sample(Source(model), base[1], prompts, greedy, 0)
    assert inner.generation_config is own
    request, stops = make_request(model, base[1], prompts, greedy, 0, model.device), stop_tokens(model, base[1])
    asked = GenerationConfig(do_sample=False, max_new_tokens=24, eos_token_id=stops, pad_token_id=stops[0])
    for prompt, ids in zip(prompts, request.encoded, strict=True):
        ids = torch.tensor([ids])
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=asked)
        expected = base[1].decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        assert {c.text for c in completions if c.prompt_id == prompt.id} == {expected}
