"""Summaries: a Reddit post, a news article in a few lines, a news article in one. No answer is the right one.

>>> print(TLDR.ask(TLDR.example))
SUBREDDIT: r/gardening
TITLE: The neighbour's hens keep eating my lettuce
POST: They come through the hedge every morning. I have asked twice for a fence.
TL;DR:
>>> XSUM.ask({"document": "A bridge reopened."})
'ARTICLE: A bridge reopened.\\nTL;DR:'
"""

from __future__ import annotations

from divwatch.tasks.task import Published, Row, Task, column


def _ask_tldr(row: Row) -> str:
    return f"SUBREDDIT: {row['subreddit']}\nTITLE: {row['title']}\nPOST: {row['post']}\nTL;DR:"


TLDR = Task(
    name="tldr",
    about="summary of a Reddit post",
    path="UCL-DARK/openai-tldr-filtered",
    config="default",
    split="test",
    revision=None,
    columns=("subreddit", "title", "post", "summary"),
    ask=_ask_tldr,
    question=column("post"),
    reference=column("summary"),
    stop=("\n\n",),
    published=Published(0.353, instruct=(0.268, 0.202, 0.207), think=(0.168, 0.159, 0.161)),
    example={
        "subreddit": "r/gardening",
        "title": "The neighbour's hens keep eating my lettuce",
        "post": "They come through the hedge every morning. I have asked twice for a fence.",
        "summary": "Neighbour's hens eat my lettuce and two requests for a fence changed nothing.",
    },
)


def _ask_cnn(row: Row) -> str:
    return f"ARTICLE: {row['article']}\nTL;DR:"


CNN_DAILYMAIL = Task(
    name="cnn_dailymail",
    aliases=("CNN/DM", "CNN"),
    about="summary of a news article",
    path="abisee/cnn_dailymail",
    config="3.0.0",
    split="test",
    revision="96df5e686bee6baa90b8bee7c28b81fa3fa6223d",
    columns=("article", "highlights", "id"),
    ask=_ask_cnn,
    question=column("article"),
    reference=column("highlights"),
    stop=("\n\n",),
    key="id",
    published=Published(0.279, instruct=(0.223, 0.075, 0.072), think=(0.083, 0.059, 0.091)),
    example={
        "article": "The ferry to the island stopped on Monday after a crack was found in its hull. Repairs take a week.",
        "highlights": "Ferry stopped on Monday .\nRepairs will take a week .",
        "id": "0001",
    },
)


def _ask_xsum(row: Row) -> str:
    return f"ARTICLE: {row['document']}\nTL;DR:"


XSUM = Task(
    name="xsum",
    about="one-sentence summary of a news article",
    path="EdinburghNLP/xsum",
    config="default",
    split="test",
    revision="7d4d486c2f8ef850b1a11aead99b894ff3dd7da9",
    columns=("document", "summary", "id"),
    ask=_ask_xsum,
    question=column("document"),
    reference=column("summary"),
    stop=("\n",),
    key="id",
    published=Published(0.451, instruct=(0.282, 0.083, 0.081), think=(0.090, 0.064, 0.092)),
    example={
        "document": "The town's old swimming pool opens again in May.\nVolunteers rebuilt it over two winters.",
        "summary": "Volunteers have rebuilt a town's swimming pool.",
        "id": "0002",
    },
)
