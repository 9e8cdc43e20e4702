"""Real trainers for the tests: a few steps of SFT or DPO on the shipped base, dropout on, one process."""

from __future__ import annotations

import hashlib
from pathlib import Path

from divwatch.tiny import BASE_MODEL
from divwatch.tiny.mixes import rows

SETTINGS = {
    "panel": "tiny",
    "prompts": 12,
    "samples": 4,
    "max_new_tokens": 40,
    "encoder": "minilm",
    "on_error": "raise",
    "background": False,
    "max_overhead": 0,
}


def common(out: Path, steps: int, **changes):
    return {
        "output_dir": str(out), "max_steps": steps, "per_device_train_batch_size": 4, "learning_rate": 3e-4,
        "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "save_strategy": "no", "logging_steps": 1,
        "report_to": "none", "disable_tqdm": True, "seed": 1,
    } | changes  # fmt: skip


def dataset(mix: str, count: int = 64):
    from itertools import islice

    from datasets import Dataset

    return Dataset.from_list(list(islice(rows(mix, 0), count)))


def load_model(path=BASE_MODEL, dropout: float = 0.1):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, attention_dropout=dropout)


def load_tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(BASE_MODEL)


def sft_trainer(out: Path, steps: int = 4, model=None, **changes):
    from trl import SFTConfig, SFTTrainer

    return SFTTrainer(
        model=model or load_model(),
        args=SFTConfig(**common(out, steps, **changes)),
        train_dataset=dataset("instruct_sft"),
        processing_class=load_tokenizer(),
    )


def lora_trainer(out: Path, steps: int = 4, **changes):
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    return SFTTrainer(
        model=load_model(),
        args=SFTConfig(**common(out, steps, **changes)),
        train_dataset=dataset("instruct_sft"),
        processing_class=load_tokenizer(),
        peft_config=LoraConfig(r=4, lora_dropout=0.1, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    )


def dpo_trainer(out: Path, steps: int = 4, model=None, **changes):
    from trl import DPOConfig, DPOTrainer

    settings = common(out, steps, disable_dropout=False, loss_type=["sigmoid_norm"], beta=5.0, **changes)
    return DPOTrainer(
        model=model or load_model(),
        args=DPOConfig(**settings),
        train_dataset=dataset("instruct_dpo"),
        processing_class=load_tokenizer(),
    )


def right_answer(completions, reference, **_):
    """1 for a right answer, 0 for a wrong one: a reward function as TRL's users write them."""
    from divwatch.tiny.panel import verify
    from divwatch.verify.thinking import final_answer

    answers = [final_answer(completion[0]["content"]) or "" for completion in completions]
    return [float(bool(verify(a, r).correct)) for a, r in zip(answers, reference, strict=True)]


def same_rollouts(prompts, trainer):
    """A rollout function whose completions depend on the step and on their place among those of all ranks."""
    tokenizer, step = trainer.processing_class, trainer.state.global_step
    first = trainer.accelerator.process_index * len(prompts)
    words = ["5 and 9.", "9 and 5.", "1 and 13.", "a fox saw the moon", "red, green and blue", "7 + 7"]
    texts = [
        words[(5 * i + i // 3 + step) % len(words)] + " " + words[i % 4] for i in range(first, first + len(prompts))
    ]
    completions = [tokenizer(text)["input_ids"] for text in texts]
    return {
        "prompt_ids": [
            tokenizer.apply_chat_template(p, add_generation_prompt=True, tokenize=True, return_dict=False)
            for p in prompts
        ],
        "completion_ids": completions,
        "logprobs": [[0.0] * len(ids) for ids in completions],
    }


def grpo_trainer(out: Path, steps: int = 3, model=None, same: bool = False, **changes):
    """same: rollouts that do not depend on the launch."""
    from trl import GRPOConfig, GRPOTrainer

    settings = common(out, steps, **{"num_generations": 4, "max_completion_length": 24, **changes})
    return GRPOTrainer(
        model=model or load_model(),
        args=GRPOConfig(**settings),
        reward_funcs=right_answer,
        train_dataset=dataset("rl_zero"),
        processing_class=load_tokenizer(),
        rollout_func=same_rollouts if same else None,
    )


def make_alike(patch, from_now_on):
    """All samples of a prompt become its first once `from_now_on()`: a real collapse, planted in the sampler."""
    from divwatch.sampling import in_process

    real = in_process.decode_batch

    def alike(model, request, batch, any_rank):
        made = real(model, request, batch, any_rank)
        first = {}
        for row, ids in zip(batch, made, strict=True):
            first.setdefault(row.prompt, ids)
        return [first[row.prompt] for row in batch] if from_now_on() else made

    patch.setattr(in_process, "decode_batch", alike)


def weights_hash(model) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
