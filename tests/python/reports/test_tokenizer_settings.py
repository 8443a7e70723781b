"""What stands beside a tokenizer.json is read as AutoTokenizer reads it: its ids, and the text of apply_chat_template.

The reference is transformers itself, for every shape of files below, with the post-processors that a tokenizer.json may
have. ``additional_special_tokens`` is a list for templates here as it was in transformers 4; 5 does not pass it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

from pagedcore.chat import ChatTemplates
from pagedcore.errors import Corrupt
from pagedcore.tokenizer import Tokenizer

TEXTS = [
    "hello world",
    "<s>hello<|end|> <tool>x</s>",
    "<a><b><x><y> <img><sep><cls> <mask> <pad> lst  world<e1><e2><boi><aud>",
    "",
]
KINDS = ("bos", "eos", "unk", "pad", "sep", "cls", "mask", "image", "audio", "boi")
TEMPLATE = "|".join(f"{{{{ {kind}_token }}}}" for kind in KINDS)


def token(content: str, **flags: bool) -> dict[str, Any]:
    default = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
    return {"content": content} | default | flags


def typed(content: str, **flags: bool) -> dict[str, Any]:
    return token(content, **flags) | {"__type": "AddedToken"}


CONFIG, MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
NAMES = {"bos_token": "<s>", "eos_token": "</s>"}
SHAPES: dict[str, dict[str, dict[str, Any]]] = {
    "nothing": {},
    "add_bos_token": {CONFIG: NAMES | {"add_bos_token": True, "add_eos_token": True}},
    "no_bos_token": {CONFIG: NAMES | {"add_bos_token": False, "add_eos_token": False}},
    "map": {
        MAP: {
            "bos_token": "<s>",
            "eos_token": token("<|end|>"),
            "pad_token": "<pad>",
            "additional_special_tokens": ["<x>", "<y>"],
        },
        CONFIG: {"eos_token": "</s>"},
    },
    "map_alone": {MAP: NAMES | {"sep_token": token("<sep>", lstrip=True)}},
    "added_tokens_decoder": {
        CONFIG: {
            "eos_token": "<|end|>",
            "added_tokens_decoder": {
                "301": token("<tool>", special=False),
                "300": token("<|end|>"),
                "302": token(" lst ", lstrip=True, rstrip=True, special=False, normalized=True),
            },
        }
    },
    "decoder_before_map": {
        CONFIG: {"eos_token": "<|end|>", "added_tokens_decoder": {"0": token("<s>")}},
        MAP: {"bos_token": "<s>", "sep_token": "<sep>"},
        ADDED: {"<a>": 300},
    },
    "added_tokens": {ADDED: {"<|end|>": 300, "<tool>": 301}, CONFIG: {"eos_token": "<|end|>"}},
    "names": {
        CONFIG: {
            "sep_token": "<sep>",
            "cls_token": "<cls>",
            "mask_token": typed("<mask>", lstrip=True),
            "additional_special_tokens": ["<a>", "<b>"],
            "pad_token": None,
        }
    },
    "own_names": {
        CONFIG: {"extra_special_tokens": {"image_token": "<img>", "boi_token": "<boi>"}, "audio_token": "<aud>"}
    },
    "extra_list": {CONFIG: {"extra_special_tokens": ["<e1>", typed("<e2>", rstrip=True)]}},
    "split": {CONFIG: NAMES | {"split_special_tokens": True}},
    "special_is_a_word": {CONFIG: {"eos_token": "world"}},
    "typed": {CONFIG: {"eos_token": typed("</s>", normalized=True), "bos_token": typed("<s>")}},
}


@pytest.fixture(scope="module")
def vocabulary() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "</s>", "<unk>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["hello world the end of a text"] * 5, trainer)
    return tokenizer


def write(folder: Path, vocabulary: tokenizers.Tokenizer, files: dict[str, dict[str, Any]], post: str | None) -> None:
    copy = tokenizers.Tokenizer.from_str(vocabulary.to_str())
    if post is not None:
        copy.post_processor = processors.TemplateProcessing(single=post, special_tokens=[("<s>", 0), ("</s>", 1)])
    copy.save(str(folder / "tokenizer.json"))
    for name, values in files.items():
        (folder / name).write_text(json.dumps(values))


@pytest.mark.parametrize("post", [None, "<s> $A", "<s> $A </s>"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "model", [{"model_type": "llama"}, {"model_type": "mistral"}, None], ids=["llama", "mistral", "-"]
)
def test_ids_and_templates_are_those_of_autotokenizer(
    vocabulary: tokenizers.Tokenizer, tmp_path: Path, shape: str, post: str | None, model: dict[str, str] | None
) -> None:
    write(tmp_path, vocabulary, SHAPES[shape] | ({} if model is None else {"config.json": model}), post)
    reference = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer = Tokenizer.from_path(tmp_path)
    for special in (True, False):
        for text in TEXTS:
            expected = reference.encode(text, add_special_tokens=special)
            assert tokenizer.encode(text, add_special_tokens=special) == expected, text
    ids = reference.encode(TEXTS[1])
    assert tokenizer.decode(ids, skip_special_tokens=True) == reference.decode(ids, skip_special_tokens=True)
    messages = [{"role": "user", "content": "x"}]
    expected = reference.apply_chat_template(messages, chat_template=TEMPLATE, tokenize=False)
    assert ChatTemplates({}, tokenizer.special_tokens).prompt(messages, {"chat_template": TEMPLATE}) == expected


def test_qwen2_has_its_end_of_text_where_no_file_names_one(vocabulary: tokenizers.Tokenizer, tmp_path: Path) -> None:
    write(tmp_path, vocabulary, {"config.json": {"model_type": "qwen2"}}, None)
    special = AutoTokenizer.from_pretrained(tmp_path).special_tokens_map
    assert Tokenizer.from_path(tmp_path).special_tokens == special


@pytest.mark.parametrize(
    ("file", "content", "field"),
    [
        (CONFIG, {"bos_token": 3}, "bos_token"),
        (CONFIG, {"bos_token": ["<s>"]}, "bos_token"),
        (CONFIG, {"eos_token": {"lstrip": True}}, "eos_token"),
        (CONFIG, {"eos_token": {"content": "x", "lstrip": "yes"}}, "eos_token"),
        (CONFIG, {"added_tokens_decoder": [1]}, "added_tokens_decoder"),
        (CONFIG, {"added_tokens_decoder": {"one": token("x")}}, "one"),
        (CONFIG, {"added_tokens_decoder": {"-1": token("x")}}, "-1"),
        (CONFIG, {"additional_special_tokens": "<a>"}, "additional_special_tokens"),
        (CONFIG, {"additional_special_tokens": [[]]}, "additional_special_tokens"),
        (CONFIG, {"split_special_tokens": "no"}, "split_special_tokens"),
        (CONFIG, {"eos_token": "\ud800"}, "eos_token"),
        (MAP, {"bos_token": True}, "bos_token"),
        (ADDED, {"<a>": "b"}, "b"),
        (ADDED, {"<a>": 2**40}, str(2**40)),
    ],
)
def test_what_is_no_token_is_one_error_with_file_and_field(
    vocabulary: tokenizers.Tokenizer, tmp_path: Path, file: str, content: dict[str, Any], field: str
) -> None:
    write(tmp_path, vocabulary, {file: content}, None)
    with pytest.raises(Corrupt) as error:
        Tokenizer.from_path(tmp_path)
    assert file in str(error.value) and field in str(error.value)
