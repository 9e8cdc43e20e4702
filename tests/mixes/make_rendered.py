"""Writes rendered.json: the project's own conversations as the public templates of allenai/open-instruct render them.

    python tests/mixes/make_rendered.py OPEN_INSTRUCT_CHECKOUT INSTRUCT_TEMPLATE

OPEN_INSTRUCT_CHECKOUT: a clone of github.com/allenai/open-instruct at COMMIT. INSTRUCT_TEMPLATE: the chat_template.jinja of
allenai/Olmo-3.1-32B-Instruct. The template that the 7B was trained with, that of allenai/olmo-3-tokenizer-instruct-dev,
differs from it in the identity sentence alone (open-instruct docs/olmo3.md at COMMIT), which is put back here.
"""

import ast
import json
import sys
from pathlib import Path

from transformers import AutoTokenizer

from divwatch.tiny import BASE_MODEL
from tests.mixes.conversations import CONVERSATIONS, PROMPTS

COMMIT = "e6c3044aa6201c8bfa4573c1b03142af599e730d"
OURS = {
    "olmo3_think_sft": "olmo_thinker_no_think_7b",
    "olmo3_think": "olmo_thinker",
    "olmo3_rl_zero": "olmo_thinker_rlzero",
    "olmo3_rl_zero_code": "olmo_thinker_code_rlzero",
}
IDENTITY = (
    "You are Olmo, a helpful AI assistant built by Ai2. Your date cutoff is December 2024, and your model weights are "
    "available at https://huggingface.co/allenai. "
)


def templates(checkout: str, instruct: str) -> dict[str, str]:
    code = ast.parse((Path(checkout) / "open_instruct/dataset_transformation.py").read_text())
    named = next(n.value for n in code.body if isinstance(n, ast.Assign) and n.targets[0].id == "CHAT_TEMPLATES")
    theirs = ast.literal_eval(named)
    released = Path(instruct).read_text()
    assert IDENTITY in released
    released = released.replace(IDENTITY, "You are a helpful function-calling AI assistant. ")
    return {ours: theirs[name] for ours, name in OURS.items()} | {"olmo3_instruct": released}


def main() -> None:
    tokenizer = AutoTokenizer.from_pretrained(BASE_MODEL)
    rendered: dict[str, dict[str, str]] = {}
    for name, template in templates(*sys.argv[1:3]).items():
        plain = name.startswith("olmo3_rl_zero")  # prompts alone: nothing is trained on by these templates
        rows = {} if plain else CONVERSATIONS
        texts = {n: (m, False) for n, m in rows.items()} | {n: (m, True) for n, m in PROMPTS.items()}
        rendered[name] = {
            n: tokenizer.apply_chat_template(
                messages, chat_template=template, tokenize=False, add_generation_prompt=generation, tools=None
            )
            for n, (messages, generation) in texts.items()
        }
    told = {"commit": COMMIT, "repository": "github.com/allenai/open-instruct", "rendered": rendered}
    Path(__file__).with_name("rendered.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
