"""The exact text that a model gets for a prompt: in chat or plain form, with thinking as trained or off.

The form is fixed and recorded when a run starts, because a change of form alone changes diversity. In chat form, a
conversation goes through the tokenizer's template, and so does a text of the user's own panel, as a user's turn. A text
of an eval_dataset is asked as the trainer trains on it: as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from divwatch.errors import DivwatchError, one_line
from divwatch.panel.length import token_limit
from divwatch.records import Prompt
from divwatch.verify.thinking import CLOSE, OPEN
from divwatch.words import counted

FORMS = ("auto", "chat", "plain")


def fixed_form(form: str, tokenizer: Any) -> str:
    """'chat' or 'plain', for the whole run. 'auto' is chat if the tokenizer has a chat template, otherwise plain.

    Raises DivwatchError for an unknown form, and for chat without a template.
    """
    if form not in FORMS:
        raise DivwatchError(f"watch_form is {form!r}: choose from {', '.join(FORMS)}")
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if form == "chat" and not has_template:
        raise DivwatchError("watch_form is chat but the tokenizer has no chat template: set one, or watch_form: plain")
    return form if form != "auto" else ("chat" if has_template else "plain")


def in_forms(prompts: Sequence[Prompt], thinking: str) -> list[Prompt]:
    """The prompts with thinking `as-trained` or `off`; `both`: off, and again as trained under a task of their own.

    >>> [(p.id, p.task, p.thinking, p.variant_of) for p in in_forms([Prompt("1", "gsm8k", "Why?")], "both")]
    [('1', 'gsm8k', 'off', None), ('1/thinking', 'gsm8k-thinking', 'as-trained', '1')]
    """
    if thinking == "as-trained":
        return list(prompts)
    off = [replace(p, thinking="off") for p in prompts]
    if thinking == "off":
        return off
    return off + [replace(p, id=f"{p.id}/thinking", task=f"{p.task}-thinking", variant_of=p.id) for p in prompts]


def with_chat(prompts: Sequence[Prompt], chat: Mapping[str, Any] | None) -> list[Prompt]:
    """The prompts with the `tools` and `template_kwargs` of the whole run in place of their own; None: with their own."""
    return list(prompts) if chat is None else [replace(p, **chat) if is_chat(p, "chat") else p for p in prompts]


def in_form(prompts: Sequence[Prompt], form: str) -> list[Prompt]:
    """The prompts as `form` asks them: in plain form no text goes through a template."""
    return [replace(p, templated=False) if form == "plain" else p for p in prompts]


def at_full_length(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Each prompt once, with thinking as trained and without its own token limit."""
    return [replace(p, thinking="as-trained", max_new_tokens=None) for p in prompts if p.variant_of is None]


def prompt_text(tokenizer: Any, prompt: Prompt, thinking: str = "as-trained", form: str = "chat") -> str:
    """The text to tokenize for `prompt` in `form` ('chat' or 'plain').

    A chat prompt already has its special tokens: tokenize it with add_special_tokens=False (see `is_chat`).
    thinking 'off' closes the thought before it starts, as in the paper's condition without chain of thought: the empty
    block `<think>\\n</think>\\n` follows the prompt, or only its end if the template has opened one.
    """
    text = _rendered(tokenizer, prompt) if is_chat(prompt, form) else _plain(prompt, form)
    return text + (_no_thought(text) if thinking == "off" else "")


def is_chat(prompt: Prompt, form: str) -> bool:
    """Whether this prompt goes through the chat template in this form."""
    return form == "chat" and (prompt.messages is not None or prompt.templated)


def stop_strings(prompt: Prompt, form: str) -> tuple[str, ...]:
    """Texts that end a completion: the task's in plain form; none in chat form, where the model ends its own turn.

    As in lighteval, with which the paper sampled (models/vllm/vllm_model.py): a stop such as a blank line would cut a chat
    model inside its reasoning.
    """
    return () if is_chat(prompt, form) else prompt.stop


def opens_thought(text: str) -> bool:
    """Whether this prompt text opens a thought that the completion must close.

    A completion of such a prompt without `</think>` is an unfinished thought, not an answer, although it has no `<think>`.

    >>> opens_thought("<|assistant|>\\n<think>"), opens_thought("<think>\\n</think>\\n"), opens_thought("Why?")
    (True, False, False)
    """
    return text.rfind(OPEN) > text.rfind(CLOSE) and text.rstrip().endswith(OPEN)


def refusals(tokenizer: Any, prompts: Sequence[Prompt], form: str) -> dict[str, DivwatchError]:
    """id -> why, of the prompts that cannot be asked in this form: the chat template raises, or there is no plain form."""
    reasons = {}
    for prompt in prompts:
        try:
            prompt_text(tokenizer, prompt, form=form)
        except DivwatchError as error:
            reasons[prompt.id] = error
    return reasons


def within_context(
    tokenizer: Any,
    prompts: Sequence[Prompt],
    context: int,
    new_tokens: int | None,
    thinking: str = "as-trained",
    form: str = "chat",
    think_tokens: int | None = None,
) -> tuple[list[Prompt], str | None]:
    """(prompts that leave room for their answers in `context` tokens, one line about the others or None).

    new_tokens, think_tokens: `watch_max_new_tokens` and `watch_think_tokens`.
    Raises DivwatchError if no prompt is left.
    """
    lengths = [
        len(tokenizer(prompt_text(tokenizer, p, thinking, form), add_special_tokens=not is_chat(p, form))["input_ids"])
        for p in prompts
    ]
    thought = think_tokens or 0
    room = [
        token_limit(p, new_tokens, context - length - thought) + thought
        for p, length in zip(prompts, lengths, strict=True)
    ]
    fitting = [p for p, length, new in zip(prompts, lengths, room, strict=True) if length + new <= context]
    if len(fitting) == len(prompts):
        return fitting, None
    longest = max(range(len(prompts)), key=lengths.__getitem__)
    line = (
        f"{len(prompts) - len(fitting)} of {counted(len(prompts), 'prompt')} leave no room for "
        f"{room[longest]} new tokens in a context of {context} (the longest, {prompts[longest].id}, has "
        f"{lengths[longest]} tokens)"
    )
    if not fitting:
        raise DivwatchError(f"{line}: lower watch_max_new_tokens or choose a panel of shorter prompts")
    return fitting, f"{line}; they are not watched"


def answer_opening(tokenizer: Any) -> str | None:
    """What the chat template writes between a user turn and its answer; None if that cannot be known."""
    turns = [{"role": "user", "content": "?"}]
    with suppress(Exception):  # no template, or one that raises
        asked = str(tokenizer.apply_chat_template(turns, tokenize=False))
        opened = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        if opened.startswith(asked) and opened[len(asked) :].strip():
            return opened[len(asked) :]
    return None


def _rendered(tokenizer: Any, prompt: Prompt) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise DivwatchError(
            f"prompt {prompt.id!r} is a conversation but the tokenizer has no chat template: set one, or watch_form: plain"
        )
    try:
        return _apply_template(tokenizer, prompt, _turns(prompt))
    except Exception as error:  # a template raises what it likes
        raise DivwatchError(
            f"the chat template refuses prompt {prompt.id!r} ({one_line(error, kind=False)}): {_remedy(tokenizer, prompt)}"
        ) from None


def _turns(prompt: Prompt) -> list[dict[str, Any]]:
    return prompt.messages or [{"role": "user", "content": prompt.text}]


def _apply_template(tokenizer: Any, prompt: Prompt, messages: Any) -> str:
    """As TRL's trainers call the template, with the prompt's tools and arguments."""
    arguments = {"tools": prompt.tools, **(prompt.template_kwargs or {})}
    return str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **arguments))


def _remedy(tokenizer: Any, prompt: Prompt) -> str:
    """How to change a conversation that the template refuses."""
    turns = _turns(prompt)
    without = [turn for turn in turns if turn["role"] not in ("system", "developer")]
    if len(without) < len(turns):
        with suppress(Exception):
            _apply_template(tokenizer, prompt, without)
            return "it takes no system turn, so put its text into the first user turn"
    plain = ", or set watch_form: plain" if len(turns) == 1 else ""
    return f"change the prompt's turns or the tokenizer's chat_template{plain}"


def _plain(prompt: Prompt, form: str) -> str:
    if form == "plain" and prompt.tools:
        raise DivwatchError(f"prompt {prompt.id!r} has tools, which have no plain form: set watch_form: chat")
    if form == "plain" and prompt.messages is not None and len(prompt.messages) > 1:
        raise DivwatchError(
            f"prompt {prompt.id!r} is a conversation of {len(prompt.messages)} turns, which has no plain form: "
            "set watch_form: chat, or give the panel as 'prompt' texts"
        )
    return prompt.text


def _no_thought(text: str) -> str:
    """What must follow `text` to make its thought empty; nothing if the template has closed one already."""
    ending = text.rstrip()
    if ending.endswith(CLOSE):
        return ""
    if ending.endswith(OPEN):
        return ("" if text.endswith("\n") else "\n") + f"{CLOSE}\n"
    return f"{OPEN}\n{CLOSE}\n"
