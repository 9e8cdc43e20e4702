"""What cannot be watched is refused when the monitor is attached, in one line with the fix."""

import copy
from types import SimpleNamespace

import pytest
import torch
import transformers

import divwatch
from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError
from divwatch.sampling.watchable import check_watchable
from tests.sampling.test_architectures import SIZES, make_model
from tests.training import SETTINGS, grpo_trainer, load_tokenizer, right_answer, sft_trainer


def refusal(model, tokenizer, processes=1, plugin=None, **settings):
    accelerator = SimpleNamespace(num_processes=processes, state=SimpleNamespace(fsdp_plugin=plugin))
    with pytest.raises(DivwatchError) as raised:
        check_watchable(
            SimpleNamespace(model=model, accelerator=accelerator), tokenizer, WatchConfig(panel="tiny", **settings)
        )
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_models_that_write_no_text(base):
    classifier = transformers.LlamaForSequenceClassification(transformers.LlamaConfig(**SIZES))
    assert "AutoModelForCausalLM" in refusal(classifier, base[1])
    assert "AutoModelForCausalLM" in refusal(transformers.LlamaModel(transformers.LlamaConfig(**SIZES)), base[1])
    assert "Linear writes no text" in refusal(torch.nn.Linear(2, 2), base[1])
    sizes = {"vocab_size": 50, "d_model": 32, "d_ff": 32, "num_layers": 1, "num_heads": 2, "d_kv": 16}
    t5 = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes))
    assert "encoder-decoder" in refusal(t5, base[1])


def test_no_end_token(base):
    model, tokenizer = copy.deepcopy(base[0]), copy.deepcopy(base[1])
    model.generation_config.eos_token_id = tokenizer.eos_token = tokenizer.chat_template = None
    assert "set tokenizer.eos_token" in refusal(model, tokenizer)


def test_fsdp_version_1(base):
    assert "fsdp_version: 2" in refusal(*base, processes=2, plugin=SimpleNamespace(fsdp_version=1))


def test_backends_that_do_not_take_the_model_or_the_settings(base):
    assert "watch_backend: transformers" in refusal(*base, backend="continuous", think_tokens=8)
    assert "attention only" in refusal(make_model("Lfm2"), base[1], backend="continuous")
    peft = pytest.importorskip("peft")
    prompt_tuning = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    adapted = peft.get_peft_model(copy.deepcopy(base[0]), prompt_tuning)
    assert "virtual tokens" in refusal(adapted, base[1], backend="continuous")


def test_watch_itself_refuses_and_names_a_template_without_an_end(tmp_path, capsys):
    trainer = sft_trainer(tmp_path)
    trainer.processing_class.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}[/ANSWER]{% endfor %}"
    divwatch.watch(trainer, every=2, **SETTINGS)
    assert "[/ANSWER]" in capsys.readouterr().out
    trainer.model.generation_config.eos_token_id = trainer.processing_class.eos_token = None
    with pytest.raises(DivwatchError, match="end token"):
        divwatch.watch(trainer, every=2, **SETTINGS)


def test_a_reward_trainer_is_refused(tmp_path):
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    model = transformers.LlamaForSequenceClassification(transformers.LlamaConfig(**SIZES, num_labels=1))
    trainer = RewardTrainer(
        model=model, args=RewardConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none"),
        train_dataset=Dataset.from_list([{"prompt": "a", "chosen": " b", "rejected": " c"}]),
        processing_class=load_tokenizer(),
    )  # fmt: skip
    with pytest.raises(DivwatchError, match=r"^LlamaForSequenceClassification writes no text: watch a causal"):
        divwatch.watch(trainer, **SETTINGS)


def test_a_second_watch_measures_rollouts_once_and_a_wrong_one_leaves_the_first(tmp_path):
    trainer = grpo_trainer(tmp_path)
    divwatch.watch(trainer, **SETTINGS)
    second = divwatch.watch(trainer, **SETTINGS)
    assert trainer.reward_funcs[0].__wrapped__ is right_answer
    with pytest.raises(DivwatchError, match="encoder"):
        divwatch.watch(trainer, **SETTINGS | {"encoder": str(tmp_path / "nowhere")})
    assert second in trainer.callback_handler.callbacks
