"""Trains the shipped base: `python -m divwatch.tiny.pretrain OUT_DIR` (about ten minutes on two cores, seeded).

A real `Olmo3ForCausalLM` of 1.3 M parameters with its own small byte-level BPE, trained from scratch on `corpus.documents`.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random

from divwatch.tiny import corpus

VOCABULARY = 768
STEPS, BATCH, PEAK_LR, WARMUP = 2400, 64, 4e-3, 100
CHAT_TEMPLATE = (
    "{% for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] }}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ eos_token }}{% else %}{{ '<|im_end|>\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def build_tokenizer(seed: int):
    """Byte-level BPE trained on the corpus, with Olmo 3's special tokens. Digits of a number stay together."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[corpus.EOS, corpus.START, corpus.END, corpus.PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(islice(corpus.documents(seed), 20_000), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=corpus.EOS,
        pad_token=corpus.PAD,
        padding_side="left",
        model_max_length=512,
        chat_template=CHAT_TEMPLATE,
    )


def build_model(tokenizer, seed: int):
    """An untrained Olmo 3: three sliding-window layers, then one of full attention, as in the 7B."""
    import torch
    from transformers import GenerationConfig, Olmo3Config, Olmo3ForCausalLM

    torch.manual_seed(seed)
    end = tokenizer.convert_tokens_to_ids(corpus.END)
    model = Olmo3ForCausalLM(
        Olmo3Config(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=512,
            sliding_window=64,
            tie_word_embeddings=False,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
            pad_token_id=tokenizer.pad_token_id,
            dtype="float32",
        )
    )
    # As in Olmo 3's own generation config: sampling settings that the monitor must not inherit by accident.
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=0.6,
        top_p=0.95,
        eos_token_id=[end, tokenizer.eos_token_id],
        pad_token_id=tokenizer.pad_token_id,
    )
    return model


def batches(tokenizer, seed: int) -> Iterator[dict]:
    """Right-padded batches. Documents are sorted by length within a pool, so that batches have little padding."""
    import torch

    stream, rng = corpus.documents(seed), Random(seed)
    while True:
        pool = sorted(tokenizer(list(islice(stream, BATCH * 32)), add_special_tokens=False)["input_ids"], key=len)
        chunks = [pool[i : i + BATCH] for i in range(0, len(pool), BATCH)]
        rng.shuffle(chunks)
        for chunk in chunks:
            width = len(chunk[-1])
            ids = torch.full((BATCH, width), tokenizer.pad_token_id)
            labels = torch.full((BATCH, width), -100)
            for row, tokens in enumerate(chunk):
                ids[row, : len(tokens)] = labels[row, : len(tokens)] = torch.tensor(tokens)
            yield {"input_ids": ids, "labels": labels, "attention_mask": (ids != tokenizer.pad_token_id).long()}


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to a twentieth of the peak."""
    if step < WARMUP:
        return PEAK_LR * (step + 1) / WARMUP
    done = (step - WARMUP) / max(1, steps - WARMUP)
    return PEAK_LR * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def train(out: Path, seed: int, steps: int) -> None:
    import torch
    from rich.progress import Progress
    from transformers.utils import logging

    logging.set_verbosity_error()
    tokenizer = build_tokenizer(seed)
    model = build_model(tokenizer, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LR, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    parameters = sum(p.numel() for p in model.parameters())
    started, losses = time.time(), []
    with Progress() as progress:
        bar = progress.add_task(f"pretraining {parameters / 1e6:.2f} M parameters", total=steps)
        for step, batch in enumerate(islice(batches(tokenizer, seed + 1), steps)):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps)
            loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
            progress.update(bar, advance=1, description=f"loss {sum(losses[-50:]) / len(losses[-50:]):.3f}")
            if step % 250 == 249:
                print(f"step {step + 1} loss {sum(losses[-250:]) / 250:.4f} {time.time() - started:.0f} s", flush=True)
    with torch.no_grad():
        losses_held_out = [model(**batch).loss.item() for batch in islice(batches(tokenizer, seed + 2), 20)]
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    facts = {"seed": seed, "steps": steps, "documents": steps * BATCH, "parameters": parameters}
    facts |= {
        "validation_loss": round(sum(losses_held_out) / len(losses_held_out), 4),
        "seconds": round(time.time() - started),
    }
    (out / "training.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(facts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    train(arguments.out, arguments.seed, arguments.steps)
