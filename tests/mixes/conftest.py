"""A stand-in for Olmo 3 7B: its architecture with random weights, its turn marks as special tokens, byte-level BPE."""

import pytest

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
SPECIAL += ["<functions>", "</functions>", "<function_calls>", "</function_calls>"]


@pytest.fixture(scope="session")
def olmo_tokenizer():
    """Every text has tokens; `<think>` is several of them, as in Olmo 3's own tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from tokenizers.decoders import ByteLevel
    from transformers import PreTrainedTokenizerFast

    from tests.mixes.conversations import CONVERSATIONS

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet)
    made.train_from_iterator([m["content"] or "" for c in CONVERSATIONS.values() for m in c], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|endoftext|>", pad_token="<|pad|>")


@pytest.fixture(scope="session")
def tiny_olmo(olmo_tokenizer, tmp_path_factory):
    """Directory of a random two-layer Olmo 3 (one sliding, one full attention layer) with that tokenizer."""
    import torch
    from transformers import Olmo3Config, Olmo3ForCausalLM

    torch.manual_seed(0)
    config = Olmo3Config(
        vocab_size=len(olmo_tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=4096, sliding_window=64, eos_token_id=0, pad_token_id=3,
        bos_token_id=None, layer_types=["sliding_attention", "full_attention"],
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tiny_olmo")
    Olmo3ForCausalLM(config).save_pretrained(folder)
    olmo_tokenizer.save_pretrained(folder)
    return folder
