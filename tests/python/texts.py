"""Varied texts for tests, the same in every run."""

from __future__ import annotations

import random

SCRIPTS = [
    "The quick brown fox jumps over the lazy dog.",
    "It's the dog's; they've said we'll go, I'd say you're right, I'M sure, DON'T.",
    "def f(x: int) -> int:\n    return x ** 2  # squared\n\n\tif (a&&b) { i+=1; }",
    '{"key": [1, 2.5e-10, null], "other": "va\\nlue"}',
    "<html><body class='x'>&nbsp;</body></html>",
    "https://example.org/a/b?c=d&e=%20#f user@example.com",
    "0 1 12 123 1234 12345 3.14159 1,000,000 0x7fff 1e-9 ٣٤ ²³ Ⅷ",
    "مرحبا بالعالم، كيف حالك؟ ١٢٣",
    "שלום עולם",
    "你好，世界！我喜欢用大语言模型。",
    "こんにちは世界。カタカナとひらがな。",
    "안녕하세요 세계",
    "Привет, мир! Ёжик съел щавель.",
    "Γειά σου Κόσμε",
    "हिन्दी में नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "e\u0301 a\u0308 o\u0302\u0323 Z\u0351\u0368\u0341 \u212b \ufb01 \u00e9",
    "😀😃 👩‍👩‍👧‍👦 🇩🇪🇫🇷 👍🏽 ❤️ 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "∀x∈ℝ: ⌈x⌉ = −⌊−x⌋ ≠ ∞ √2 ½",
    "zero\u200bwidth\u200d\ufeff non\u00a0breaking\u2003em\u3000wide",
    "tabs\t\tand\r\nlines\n\n\n   indented   \n \n trailing   ",
    "     ",
    "\n",
    "  leading spaces and  double  spaces   12  7",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "text<|endoftext|>more <|im_end|> spaced <repo_name>x",
    "<|im_start <|im_end|>> <|unknown|>",
    "ALLCAPS camelCase snake_case kebab-case Träumerei naïve façade",
    "\x00\x01\x7f\x80 control",
    "a" * 300,
    "ab " * 100,
    "\U0010ffff\U0001f600\ue000",
]


def varied_texts(count: int) -> list[str]:
    """The scripts themselves, then random mixtures of their pieces."""
    rng = random.Random(20230915)
    texts = list(SCRIPTS)
    while len(texts) < count:
        pieces = []
        for _ in range(rng.randrange(1, 8)):
            source = rng.choice(SCRIPTS)
            start = rng.randrange(len(source))
            pieces.append(source[start : start + rng.randrange(1, 24)])
        texts.append(rng.choice(["", " ", "\n"]).join(pieces))
    return texts[:count]


PIECES = [
    "def f(x: int) -> int:\n    return x ** 2\n",
    "for (int i = 0; i < 10; ++i) {\n\ta[i] += b[i] * 3.5e-7;\n}\n",
    "| name | 2023 | 2024 |\n|------|-----:|-----:|\n| a    |   12 |  345 |\n",
    "1. first\n2. second\n\n3. third\n   a) 10 %\n   b) 20 %\n",
    "- item 1\n- item  22\n\t- item   333\n",
    "Total:     1234567 units,\t 89\r\n  42\r\n\r\n\r\n7",
    "\n\n3. item",
    "   12",
    "\t\t34  56   789 ",
    "\u3000\u30008\u00a0\u00a09\u20032",
    "第3章、共12页。2024年5月17日，价格是￥1,234.56元",
    "日本語のテキスト100パーセント。カタカナ、ひらがな!",
    "한국어 텍스트 2024년 ㄱㄴㄷ ㅏㅑ",
    "ㄅㄆㄇ 注音",
    "😀 12😀3 👩‍👩‍👧‍👦 🇩🇪 👍🏽 ❤️",
    "\x00\x01\x02 7\x1b[31mred\x1b[0m\x7f\x85\x9f 8",
    "zero\u200bwidth \u200d\ufeff5",
    "It's, we'LL, I'D, o'clock, 'tis 'S 've",
    "camelCaseWord HTTPServer2Go iPhone15 Ünïcödé ÀÉÎ ǅ",
    "e\u0301 a\u0308 हिन्दी में १२३ नमस्ते",
    "مرحبا ١٢٣ بالعالم، كيف؟ ",
    "Привет МИР Ёжик 5 Ω \u212b \u212a",
    "2²³ ½ Ⅷ ① 1_000 0xFF 1e10",
    "https://example.org/a/b?c=d&e=%20#f <b>bold</b> {a:1}",
    "$x^2 + y_1 <= 3$ ~|`^ ¿qué? «ça»",
    "  \n \n\n   \n",
    "word/\n//x\r/\n",
    "IMGIMGABCZ <sentinel:12> IMGIMGZ",
    "a" * 60,
    " " * 37,
    "1" * 23,
    "\n" * 9,
]


def tokenizer_texts(count: int) -> list[str]:
    """Code, tables, lists, CJK, emoji, control characters, white space before digits: as they are, and cut and joined
    at random."""
    rng = random.Random(13)
    texts = [*PIECES, *SCRIPTS]
    while len(texts) < count:
        parts = []
        for _ in range(rng.randrange(1, 7)):
            source = rng.choice(PIECES if rng.random() < 0.8 else SCRIPTS)
            start = rng.randrange(len(source))
            parts.append(source[start : start + rng.randrange(1, 40)])
            parts.append(rng.choice(["", "", " ", "\n", "  ", "\n\n", "\t"]))
        texts.append("".join(parts))
    return texts[:count]


PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a small village",
    "def fibonacci(n):\n    ",
    "Water boils at a temperature of",
    "The three primary colours are",
    "In 1969, humans first",
    "To make a good cup of tea, you should",
    "The largest planet in the solar system is",
    "import numpy as np\n\n",
    "Dear Sir or Madam,\n\nI am writing to",
    "Q: What is the square root of 144?\nA:",
    "A prime number is a number that",
    "Le chat est assis sur",
    "The recipe calls for two eggs, a cup of flour and",
    "SELECT name, age FROM users WHERE",
    "Photosynthesis is the process by which",
    "My favourite book is",
    "1, 1, 2, 3, 5, 8, 13,",
    "The stock market fell sharply on Monday after",
    "<|im_start|>user\nTell me a joke.<|im_end|>\n<|im_start|>assistant\n",
]
