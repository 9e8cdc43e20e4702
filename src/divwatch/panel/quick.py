"""The panel `quick`: 96 short prompts written for divwatch, for a cheap look without a hub or a data set.

Stories, ideas and opinions have many good answers of about a hundred tokens. The sums are verified by their final number
(verifier gsm8k); each can be solved in several ways, so that correct answers differ in how they get there. The panel is
for a first look and for testing a set-up. It is not a benchmark: no published number uses it.
"""

from __future__ import annotations

from divwatch.records import Prompt

STORIES = [
    "Write a story of three sentences about a baker who never sleeps.",
    "Write a story of three sentences about a bus that takes the wrong road.",
    "Write a story of three sentences about two sisters and one umbrella.",
    "Write a story of three sentences about the last day of a small cinema.",
    "Write a story of three sentences about a clock that runs backwards.",
    "Write a story of three sentences about a fisherman who is afraid of water.",
    "Write a story of three sentences about a letter that arrives years late.",
    "Write a story of three sentences about a garden on a roof.",
    "Write a story of three sentences about a robot learning to whistle.",
    "Write a story of three sentences about a village where it always snows.",
    "Write a story of three sentences about a chess game between strangers.",
    "Write a story of three sentences about a child who collects echoes.",
    "Tell in a few lines how a fox and a crow became friends.",
    "Tell in a few lines how the moon lost its voice.",
    "Tell in a few lines what a lost glove saw on its way home.",
    "Tell in a few lines how a shy teacher won a race.",
    "Write a poem of four lines about an empty train station.",
    "Write a poem of four lines about the smell of rain.",
    "Write a poem of four lines about a broken bicycle.",
    "Write a poem of four lines about the first day of school.",
    "Write the opening line of a novel that is set in a lighthouse.",
    "Write the opening line of a novel that is set in a hospital kitchen.",
    "Write the closing line of a love story between two mountaineers.",
    "Write a short dialogue between a river and a bridge.",
]
IDEAS = [
    "Suggest a name for a cafe in an old post office, and say why in one sentence.",
    "Suggest a name for a black cat that belongs to a librarian.",
    "Suggest a name for a boat that carries flowers.",
    "Suggest a title for a song about waking up too early.",
    "Suggest a present for a grandfather who has everything.",
    "Suggest a present for a friend who is moving abroad.",
    "Suggest a game for ten children on a rainy afternoon.",
    "Suggest something useful to do with a hundred empty jars.",
    "Suggest something to build out of cardboard with a six-year-old.",
    "Suggest a dinner that can be cooked with one pan in twenty minutes.",
    "Suggest a way to make a grey office friendlier without spending money.",
    "Suggest a small habit that saves water at home.",
    "Suggest a weekend trip for somebody who loves maps.",
    "Suggest a costume for a party with the theme of the sea.",
    "Suggest an experiment about sound for a class of twelve-year-olds.",
    "Suggest a question to ask a neighbour whom one has never met.",
    "Suggest a use for an abandoned railway line.",
    "Suggest a mascot for a swimming club, and describe it in one sentence.",
    "Suggest a slogan for a shop that repairs shoes.",
    "Suggest a subject for a short documentary in one's own street.",
    "Suggest an object to put in a time capsule, and say why.",
    "Suggest a rule that would make meetings shorter.",
    "Suggest a first hobby for somebody who has just retired.",
    "Suggest a way to thank a whole team at once.",
]
OPINIONS = [
    "Is it better to live in a city or in the countryside? Answer in two sentences.",
    "Should children have homework? Answer in two sentences.",
    "Is it better to read a book before or after seeing the film? Answer in two sentences.",
    "Should shops be closed on Sundays? Answer in two sentences.",
    "Is it right to keep animals in a zoo? Answer in two sentences.",
    "Which invention has changed daily life the most? Answer in two sentences.",
    "Which season is best for a wedding? Answer in two sentences.",
    "What makes a good teacher? Answer in two sentences.",
    "What makes a city beautiful? Answer in two sentences.",
    "Why do people keep diaries? Answer in two sentences.",
    "Why do some jokes grow old quickly? Answer in two sentences.",
    "Why is it hard to give up a habit? Answer in two sentences.",
    "What would you change about airports? Answer in two sentences.",
    "What should everybody learn to cook first? Answer in two sentences.",
    "What is the best way to learn a language? Answer in two sentences.",
    "When is it right to break a promise? Answer in two sentences.",
    "Is a handwritten letter worth more than a message? Answer in two sentences.",
    "Should museums be free for all? Answer in two sentences.",
    "Is competition good for children? Answer in two sentences.",
    "How should one spend an unexpected day off? Answer in two sentences.",
    "Explain to a child why the sea is salty, in two sentences.",
    "Explain to a child why leaves fall in autumn, in two sentences.",
    "Explain to a child what money is for, in two sentences.",
    "Explain to a child why we sleep, in two sentences.",
]
_SUMS = [
    ("A farmer packs 84 apples into boxes of 6 and sells each box for 5 coins. How many coins does he get?", 70),
    ("Nora reads 18 pages a day for 5 days and then 30 pages on Saturday. How many pages has she read?", 120),
    ("A bus leaves with 42 people. At the first stop 15 get off and 8 get on. How many people are on it now?", 35),
    ("Three friends share 4 pizzas of 9 slices equally. How many slices does each get?", 12),
    ("A rope of 50 metres is cut into 7 pieces of 6 metres. How many metres are left?", 8),
    ("Tickets cost 9 coins, and 6 coins for children. What do 2 adults and 3 children pay together?", 36),
    ("A tank holds 240 litres and loses 15 litres an hour. After how many hours is it half empty?", 8),
    ("Omar earns 14 coins an hour. He works 6 hours and spends 29 coins. How many coins does he keep?", 55),
    ("A shelf has 5 rows of 13 books. Then 17 books are lent out. How many books are left?", 48),
    ("A train travels 75 kilometres in an hour. How many kilometres does it travel in 4 hours?", 300),
    ("Eggs are sold by the dozen. How many eggs are left of 4 dozen after 19 are used?", 29),
    ("Ines saves 25 coins a month for a year and gets 40 coins as a present. How many coins has she?", 340),
    ("A garden is 12 metres long and 7 metres wide. How many metres of fence go all the way round it?", 38),
    ("A class of 28 pupils forms teams of 4. Each team needs 3 balls. How many balls are needed?", 21),
    ("A baker makes 16 loaves an hour from 6 until 11 in the morning and sells 65. How many are left?", 15),
    ("A film starts at 18:40 and lasts 95 minutes. How many minutes after 20:00 does it end?", 15),
    ("Half of 90 stamps are red, a third of them are blue and the rest are green. How many are green?", 15),
    ("A phone costs 180 coins. It is sold for a quarter less. What is its price now?", 135),
    ("Lena is 9. Her brother is 3 times as old as she was 4 years ago. How old is he?", 15),
    ("Two boxes weigh 23 kilograms together. One is 5 kilograms heavier. What does the heavier one weigh?", 14),
    ("A car needs 6 litres for 100 kilometres. How many litres does it need for 350 kilometres?", 21),
    ("Seven notebooks cost 21 coins. What do 11 notebooks cost?", 33),
    ("A hall has 15 rows of 20 seats, and 47 seats are empty. How many people are seated?", 253),
    ("School is 3 kilometres away. Tom walks there and back 5 days a week. How far does he walk in 2 weeks?", 60),
]


def panel() -> list[Prompt]:
    """Four tasks of 24 prompts each; `sums` has references and a verifier."""
    open_tasks = {"stories": STORIES, "ideas": IDEAS, "opinions": OPINIONS}
    prompts = [_prompt(task, i, text) for task, texts in open_tasks.items() for i, text in enumerate(texts)]
    return prompts + [
        _prompt("sums", i, f"{text} Show how you work it out, then give the number.", str(answer))
        for i, (text, answer) in enumerate(_SUMS)
    ]


def _prompt(task: str, index: int, text: str, answer: str | None = None) -> Prompt:
    return Prompt(
        id=f"{task}/{index}",
        task=task,
        text=text,
        messages=[{"role": "user", "content": text}],
        reference=answer,
        verifier=None if answer is None else "gsm8k",
    )
