"""Open requests: instructions (Alpaca, IFEval), stories (WritingPrompts), values (PRISM), users' own (WildBench),
and prompts made to have many good answers (NoveltyBench, not in the paper).

    >>> IFEVAL.ask(IFEVAL.example)
    'Describe your street in two paragraphs. Do not use any commas.'
    >>> IFEVAL.reference(IFEVAL.example)["kwargs"]
    [{}]
    >>> WILDBENCH.ask(WILDBENCH.example)
    'Help me plan a week of cheap dinners.'
    >>> PRISM.keep({"included_in_balanced_subset": True, "opening_prompt": "Hello!"})
    False
"""

from __future__ import annotations

from divwatch.tasks.task import Published, Row, Task, column


def _ask_alpaca(row: Row) -> str:
    # The template of the Alpaca model, of which the paper's code keeps both forms.
    context = ", paired with an input that provides further context" if row["input"] else ""
    request = f"### Instruction:\n{row['instruction']}\n\n"
    if row["input"]:
        request += f"### Input:\n{row['input']}\n\n"
    return (
        f"Below is an instruction that describes a task{context}. "
        f"Write a response that appropriately completes the request.\n\n{request}### Response:\n"
    )


ALPACA = Task(
    name="alpaca",
    about="short instructions",
    path="tatsu-lab/alpaca",
    config="default",
    split="train",
    revision="dce01c9b08f87459cf36a430d809084718273017",
    columns=("instruction", "input", "output"),
    ask=_ask_alpaca,
    question=lambda row: f"{row['instruction']}\n{row['input']}".strip(),
    reference=column("output"),
    stop=("\n\n###", "\n\n##"),
    published=Published(0.319, instruct=(0.170, 0.120, 0.113), think=(0.141, 0.118, 0.146)),
    example={
        "instruction": "Rewrite the sentence in the past tense.",
        "input": "The ferry leaves at noon.",
        "output": "The ferry left at noon.",
        "text": "Below is an instruction that describes a task, ...",
    },
)


def _ifeval_reference(row: Row) -> Row:
    # In the set's parquet every kwargs has every key, None if the instruction has no such argument.
    kwargs = [{name: value for name, value in (one or {}).items() if value is not None} for one in row["kwargs"]]
    return {"instruction_id_list": list(row["instruction_id_list"]), "kwargs": kwargs, "prompt": row["prompt"]}


IFEVAL = Task(
    name="ifeval",
    about="instructions that a program can check",
    path="google/IFEval",
    config="default",
    split="train",
    revision="966cd89545d6b6acfd7638bc708b98261ca58e84",
    columns=("key", "prompt", "instruction_id_list", "kwargs"),
    ask=column("prompt"),
    question=column("prompt"),
    reference=_ifeval_reference,
    verifier="ifeval",
    max_new_tokens=512,  # 97 % of the prompts ask for fewer than 350 words, if for a number of them
    key="key",
    limit=None,  # the paper takes all 541
    published=Published(0.349, instruct=(0.172, 0.154, 0.154), think=(0.191, 0.165, 0.196)),
    example={
        "key": 1,
        "prompt": "Describe your street in two paragraphs. Do not use any commas.",
        "instruction_id_list": ["punctuation:no_comma"],
        "kwargs": [{"num_words": None, "relation": None}],
    },
)

WRITINGPROMPTS = Task(
    name="writingprompts",
    about="a story from a premise",
    path="euclaise/writingprompts",
    config="default",
    split="test",
    revision="35f0aa359452ba8147b34d925684fccee26679cc",
    columns=("prompt", "story"),
    ask=lambda row: f"{row['prompt'].strip()}\n\n",
    question=column("prompt"),
    reference=column("story"),
    published=Published(0.540, instruct=(0.276, 0.225, 0.202), think=(0.240, 0.205, 0.199)),
    example={
        "prompt": "[WP] The lighthouse keeper finds a second light answering from the sea.",
        "story": "On the third night the answer came before the question.",
    },
)

_GREETINGS = {"hello", "hi", "hey", "hola"}


def _keep_prism(row: Row) -> bool:
    """As the paper's code: the balanced subset, no bare greeting, at most a fifth of the characters not ASCII."""
    text = (row["opening_prompt"] or "").strip()
    if not row["included_in_balanced_subset"] or not text or text.lower().rstrip(".!?,") in _GREETINGS:
        return False
    return sum(ord(c) > 127 for c in text) / len(text) <= 0.2


PRISM = Task(
    name="prism",
    about="opening turns on which people's values differ",
    path="HannahRoseKirk/prism-alignment",
    config="conversations",
    split="train",
    revision="18ab5cfb37456f4ec8cbc00212ce54cf7b1239f6",
    columns=("conversation_id", "opening_prompt", "included_in_balanced_subset"),
    ask=lambda row: row["opening_prompt"].strip(),
    question=column("opening_prompt"),
    key="conversation_id",
    keep=_keep_prism,
    published=Published(0.408, instruct=(0.141, 0.096, 0.090), think=(0.100, 0.089, 0.091)),
    example={
        "conversation_id": "c0",
        "user_id": "user0",
        "conversation_type": "values guided",
        "opening_prompt": "Should a city ban cars from its centre?",
        "conversation_turns": 2,
        "included_in_balanced_subset": True,
    },
)


def _first_turn(row: Row) -> str:
    # The paper asks the first turn of a conversation only.
    turns = row["conversation_input"]
    return str(turns[0]["content"]).strip() if turns else ""


WILDBENCH = Task(
    name="wildbench",
    about="what users ask of chat models",
    path="allenai/WildBench",
    config="v2",
    split="test",
    revision="26c49eb39d7d5ce2099b0bbafed5a88dcce954ec",
    columns=("session_id", "conversation_input", "checklist"),
    ask=_first_turn,
    question=_first_turn,
    reference=lambda row: list(row["checklist"] or []),
    key="session_id",
    published=Published(0.335, instruct=(0.129, 0.122, 0.118), think=(0.160, 0.154, 0.173)),
    example={
        "session_id": "s0",
        "conversation_input": [{"content": "Help me plan a week of cheap dinners.", "role": "user"}],
        "checklist": ["Does the plan cover seven dinners?", "Are the dinners cheap?"],
        "primary_tag": "Planning",
        "intent": "a plan",
    },
)

NOVELTYBENCH = Task(
    name="noveltybench",
    about="prompts with many good answers (curated)",
    path="yimingzhang/novelty-bench",
    config=None,
    split="curated",
    revision="255584e0f4538d1f2acb4c1d287b4d3bb30fe2f9",
    columns=("id", "prompt"),
    ask=column("prompt"),
    question=column("prompt"),
    paper_max_new_tokens=512,  # divwatch's own: the task is not in the paper
    key="id",
    example={"id": "curated-0", "prompt": "Name a film that cheers you up."},
)
