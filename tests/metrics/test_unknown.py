"""Texts that an encoder cannot read are missing, not equal; ordinary texts are never missing."""

import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

from divwatch.cli import app
from divwatch.metrics.encoder import Encoder
from divwatch.metrics.scoring import score_prompts
from divwatch.metrics.unknown import KEY, MULTILINGUAL, unknown_shares
from divwatch.records import PromptSamples
from divwatch.score_file import score_file

# The same four sentences: the weather is fine today, the child goes to school, the river is long, the cat is on the table.
UNREADABLE = {
    "Thai": ["วันนี้อากาศดีมาก", "เด็กไปโรงเรียนแต่เช้า", "แม่น้ำสายนี้ยาวมาก", "แมวนอนอยู่บนโต๊ะ"],
    "Lao": ["ມື້ນີ້ອາກາດດີຫຼາຍ", "ເດັກໄປໂຮງຮຽນແຕ່ເຊົ້າ", "ແມ່ນ້ຳສາຍນີ້ຍາວຫຼາຍ", "ແມວນອນຢູ່ເທິງໂຕະ"],
    "Telugu": ["ఈ రోజు వాతావరణం బాగుంది", "పిల్లవాడు బడికి వెళ్ళాడు", "నది చాలా పొడవుగా ఉంది", "పిల్లి బల్ల మీద పడుకుంది"],
    "Kannada": ["ಇಂದು ಹವಾಮಾನ ಚೆನ್ನಾಗಿದೆ", "ಮಗು ಶಾಲೆಗೆ ಹೋಗುತ್ತದೆ", "ನದಿ ಉದ್ದವಾಗಿದೆ", "ಬೆಕ್ಕು ಮೇಜಿನ ಮೇಲಿದೆ"],
    "Amharic": ["ዛሬ የአየር ሁኔታው ጥሩ ነው", "ልጁ ወደ ትምህርት ቤት ይሄዳል", "ወንዙ ረጅም ነው", "ድመቷ ጠረጴዛው ላይ ናት"],
    "Khmer": ["ថ្ងៃនេះអាកាសធាតុល្អណាស់", "ក្មេងទៅសាលារៀន", "ទន្លេនេះវែងណាស់", "ឆ្មាដេកលើតុ"],
    "Burmese": ["ဒီနေ့ ရာသီဥတု ကောင်းတယ်", "ကလေး ကျောင်းသွားတယ်", "မြစ်က ရှည်တယ်", "ကြောင်က စားပွဲပေါ်မှာ"],
    "emoji": ["🎉🎂", "😊👍", "🚀🌕", "🐱🛏️"],
    "new emoji": ["🫠🫡", "🥹🫨", "🫶🫰", "🪿🪼"],
    "half Thai": [
        f"The answer to this question is: {thai}" for thai in ("วันนี้อากาศดีมาก", "แม่น้ำสายนี้ยาวมาก", "แมวนอนอยู่บนโต๊ะ", "ใช่")
    ],
    "one long Thai word among many English ones": [
        "The weather is very nice today and I went out for a walk with all of my friends. " + thai * 3
        for thai in (
            "วันนี้อากาศดีมากและฉันไปเดินเล่น",
            "แม่น้ำสายนี้ยาวมากและลึกมาก",
            "แมวนอนอยู่บนโต๊ะในครัว",
            "เด็กไปโรงเรียนแต่เช้าทุกวัน",
        )
    ],
    "DNA": ["ACGTTGCA" * 20, "GGATCCAA" * 20, "TTTACGAC" * 20, "CCATGGTA" * 20],
}
READABLE = {
    "English": [
        "The weather is fine today.",
        "The child goes to school.",
        "The river is long.",
        "The cat is on the table.",
    ],
    "accents": [
        "Café déjà vu – “naïve”…",
        "Der Fluß ist länger, größer",
        "¿Dónde está el niño?",
        "Pół żartem, pół serio",
    ],
    "decomposed accents": [
        "Cafe\u0301 de\u0301ja\u0300 vu",
        "Ho\u0302m nay tho\u031bi tie\u0302\u0301t",
        "e\u0301te\u0301",
        "nin\u0303o",
    ],
    "Vietnamese": ["Hôm nay thời tiết rất đẹp", "Đứa trẻ đi học", "Con sông dài", "Con mèo ở trên bàn"],
    "Russian": ["Сегодня хорошая погода", "Ребёнок идёт в школу", "Река длинная", "Кошка на столе"],
    "Arabic": ["الطقس جميل جدا اليوم", "الطفل يذهب إلى المدرسة", "النهر طويل", "القطة على الطاولة"],
    "Hebrew": ["מזג האוויר יפה היום", "הילד הולך לבית הספר", "הנהר ארוך", "החתול על השולחן"],
    "LaTeX": [
        r"$\\frac{1}{2}\\sum_{i=1}^n x_i^2$",
        r"\\boxed{42}",
        r"$\\int_0^1 f(x)\\,dx \\le 1$",
        r"$\\alpha \\in \\mathbb{R}$",
    ],
    "maths": ["3 × 4 = 12", "x² ≤ 9", "π ≈ 3.14 ± 0.01", "H₂O → x₁ + x₂"],
    "code": [
        "def f(x):\n    return x ** 2",
        "for (int i = 0; i < n; ++i) { s += a[i]; }",
        "SELECT * FROM t WHERE a > 3;",
        "git commit -m 'x'",
    ],
    "emoji among words": [
        "Happy birthday to you! Have a great day! 🎂🎉",
        "Thank you so much for your help. 😊",
        "✅ Done: all of the tests pass now.",
        "I love it, it is the best idea so far! ❤️",
    ],
    "a tree of files": [
        "src/\n├── main.py\n└── util.py",
        "docs/\n├── index.md",
        "a\n│   └── b",
        "┌────┐\n│ ab │\n└────┘",
    ],
    "a long hash in code": [
        f"# the checksum of the {name} file\nassert digest({name}_path) == '{'0a1b2c3d' * 16}'  # as published"
        for name in ("input", "output")
    ],
    "a long URL": [
        f"You find it at https://example.com/{'ab' * 60} on the {where}, in the table of all results."
        for where in ("second page", "left side")
    ],
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_outputs_that_the_encoder_cannot_read_are_missing_not_equal(minilm, name):
    outputs = UNREADABLE[name]
    samples = PromptSamples("a", "t", outputs, [True] * 4, [True, True, True, False], list("abcd"))
    metrics = ["sbert", "vendi", "sbert_windows", "code_sbert", "distinct_answers"]
    values = score_prompts([samples], metrics, minilm).values
    assert values[KEY][0] > 0.1
    missing = [
        key for key in values if key.startswith(("pairs/", "across/")) or key.endswith(("sbert", "vendi", "windows"))
    ]
    assert len(missing) == 2 * 4 + 6 + 1
    assert all(np.isnan(values[key]).all() for key in missing)
    assert values["diversity/distinct_answers"][0] > 1
    assert values["quality/accuracy"][0] == 0.75


@pytest.mark.parametrize("name", READABLE)
def test_ordinary_outputs_are_never_missing(minilm, name):
    outputs = READABLE[name]
    values = score_prompts([PromptSamples("a", "t", outputs, [True] * len(outputs))], ["sbert", "vendi"], minilm).values
    assert values[KEY][0] <= 0.1
    assert values["diversity/sbert"][0] > 0
    assert values["diversity/vendi"][0] > 1


def test_a_prompt_is_missing_by_the_mean_over_its_outputs(minilm):
    thai, english = UNREADABLE["Thai"][0], READABLE["English"]
    mixed = [PromptSamples(str(n), "t", [thai] * n + english * 4, [True] * (n + 16)) for n in range(4)]
    values = score_prompts(mixed, ["sbert"], minilm).values
    assert values[KEY] == pytest.approx([n / (n + 16) for n in range(4)])
    assert np.isnan(values["diversity/sbert"]).tolist() == [False, False, True, True]
    assert np.isnan(values["across/sbert"]).tolist() == [False, False, True, True]


def test_unusable_outputs_do_not_count_and_without_any_nothing_is_measured(minilm):
    thai, english = UNREADABLE["Thai"][:2], READABLE["English"][:2]
    samples = [
        PromptSamples("a", "t", thai + english, [False, False, True, True]),
        PromptSamples("b", "t", thai + english, [False] * 4),
    ]
    values = score_prompts(samples, ["sbert"], minilm).values
    assert values[KEY][0] == 0
    assert math.isnan(values[KEY][1])
    assert values["diversity/sbert"][0] > 0


def test_unknown_tokens_are_counted_where_a_text_is_embedded_and_not_again(minilm, monkeypatch):
    encoder = Encoder(minilm.model, 256)
    calls = []
    real = type(minilm.model.tokenizer).__call__
    monkeypatch.setattr(type(minilm.model.tokenizer), "__call__", lambda *a, **k: calls.append(a[1]) or real(*a, **k))
    texts = [UNREADABLE["Thai"][0], "a cat", UNREADABLE["half Thai"][0]]
    encoder.encode(texts)
    assert encoder.unknown_shares(texts) == pytest.approx([1, 0, 16 / 42])
    assert calls == [texts]
    assert encoder.unknown_shares(["new", texts[0]]) == pytest.approx([0, 1])
    assert calls[1:] == [["new"]]


def test_only_what_is_read_counts_and_windows_read_all(minilm):
    text = "the cat sat on the table " * 4 + UNREADABLE["Thai"][0] * 4
    assert Encoder(minilm.model, 16).unknown_shares([text])[0] == 0
    share = Encoder(minilm.model, 16, windowed=True).unknown_shares([text])[0]
    assert share == pytest.approx(Encoder(minilm.model, 256).unknown_shares([text])[0])
    assert share > 0.3


def _shares(tokenizer, texts):
    return unknown_shares(tokenizer, texts, tokenizer(texts), range(len(texts))).tolist()


def test_every_kind_of_tokenizer_is_measured(tmp_path):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import BertJapaneseTokenizer, PreTrainedTokenizerFast

    letters = [(letter, -2.0) for letter in "\u2581abcdefghijklmnopqrstuvwxyz"]
    unigram = Tokenizer(models.Unigram([("<unk>", 0.0), *letters], unk_id=0))
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    known, none, empty = _shares(
        PreTrainedTokenizerFast(tokenizer_object=unigram, unk_token="<unk>"), ["a cat", "วันนี้", ""]
    )
    assert known == empty == 0
    assert none > 0.8  # it adds a space, which it knows
    every_byte = {letter: i for i, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    byte_level = Tokenizer(models.BPE(every_byte, []))
    byte_level.pre_tokenizer, byte_level.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    assert _shares(PreTrainedTokenizerFast(tokenizer_object=byte_level), ["a cat", "วันนี้", "😊"]) == [0, 0, 0]
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij"]))
    slow = BertJapaneseTokenizer(str(vocabulary), word_tokenizer_type="basic", subword_tokenizer_type="character")
    assert not slow.is_fast
    assert _shares(slow, ["abc", "abxy", "日本"]) == [0, 0.5, 1]


def test_score_says_it_in_one_line_and_the_paper_preset_keeps_its_values(minilm, tmp_path):
    file, out = tmp_path / "f.jsonl", tmp_path / "out.json"
    sets = [*[UNREADABLE["Thai"]] * 2, READABLE["English"], READABLE["Russian"]]
    file.write_text("\n".join(json.dumps({"id": i, "prompt": "?", "outputs": texts}) for i, texts in enumerate(sets)))
    shown = CliRunner().invoke(app, ["score", str(file), "--encoder", "minilm", "--json", str(out)])
    assert shown.exit_code == 0
    (line,) = [line for line in shown.stdout.splitlines() if "unknown tokens to encoder" in line]
    assert "missing for 2 of 4 prompts" in line
    assert f"Set --encoder to a multilingual one, such as {MULTILINGUAL}" in line
    result = json.loads(out.read_text())
    assert result["unreadable_prompts"] == 2
    assert result["outputs"]["unknown_tokens"]["mean"] == 0.5
    for name in ("sbert", "vendi"):
        assert [value is None for value in result["metrics"][name]["per_prompt"].values()] == [True, True, False, False]
        assert result["across"][name]["n"] == 2
    paper = score_file(file, preset="paper", encoder="minilm", progress=False)
    assert paper["metrics"]["sbert"]["per_prompt"]["0"] < 0.01
    assert paper["unreadable_prompts"] == 2
