"""Scores of pairs by cross-encoders, against transformers' logits of the same pair in float64."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pagedcore import LLM
from pagedcore.errors import InvalidArgument, Unsupported
from pagedcore.families import CROSS_ENCODERS, of_config
from pagedcore.families.fields import Fields
from pagedcore.loading import load_checkpoint
from pagedcore.loading.container import save_container

QUERY = "what is the sea"
DOCUMENTS = ["the sea is wet", "cats sleep", "rain falls on [SEP] roofs", "the sea is wet", "a"]
WORDS = ["what", "is", "the", "sea", "wet", "cats", "sleep", "rain", "falls", "on", "roofs", "a", "b", "c"]
SMALL: dict[str, Any] = {"threads": 2, "block_size": 8, "kv_cache_memory": "4MiB"}
each_family = pytest.mark.parametrize("family", CROSS_ENCODERS, ids=lambda family: family.name)
Made = Callable[..., tuple[Path, Any, Any]]


def tokenizer(segments: bool) -> Any:
    """Of words; pairs as BERT has them, or as RoBERTa, whose texts are of one segment."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocab = {word: 5 + at for at, word in enumerate(WORDS)} | {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}
    made = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(["[CLS]", "[SEP]"])
    pair = "[CLS] $A [SEP] $B:1 [SEP]:1" if segments else "[CLS] $A [SEP] [SEP] $B [SEP]"
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=pair, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A folder with a small random model and its tokenizer; transformers' model in float64; the tokenizer."""
    import transformers

    known: dict[str, tuple[Path, Any, Any]] = {}

    def make(family: Any, dtype: Any = torch.float32, **more: Any) -> tuple[Path, Any, Any]:
        key = f"{family.name} {dtype} {sorted(more.items())}"
        if key not in known:
            torch.manual_seed(0)
            config = transformers.AutoConfig.for_model(**family.tiny_config() | more)
            kind: Any = transformers.AutoModelForSequenceClassification
            model = kind.from_config(config, dtype=dtype).eval()
            for name, parameter in model.named_parameters():
                if name.endswith("bias") or "norm" in name.lower() or name.startswith("classifier"):
                    parameter.data += 0.4 * torch.randn_like(parameter)
            folder = tmp_path_factory.mktemp("model")
            model.save_pretrained(folder)
            cutter = tokenizer(segments=family is CROSS_ENCODERS[0])
            cutter.save(str(folder / "tokenizer.json"))
            known[key] = folder, model.double(), cutter
        return known[key]

    return make


def expected(model: Any, cutter: Any, document: str) -> float:
    found = cutter.encode(QUERY, document)
    with torch.inference_mode():
        logits = model(torch.tensor([found.ids]), token_type_ids=torch.tensor([found.type_ids])).logits
    return 1.0 / (1.0 + math.exp(-float(logits[0, 0])))


@pytest.mark.parametrize("odd", [False, True], ids=["even", "odd"])
@each_family
def test_scores_equal_transformers(family: Any, odd: bool, made: Made, tmp_path: Path) -> None:
    folder, model, cutter = made(family, **family.odd if odd else {})
    values = [expected(model, cutter, document) for document in DOCUMENTS]
    assert max(values) - min(values) > 0.01  # else the order says nothing
    with LLM(folder, **SMALL) as llm:
        ranked = llm.rerank(QUERY, DOCUMENTS)
        assert [each.index for each in ranked] == sorted(range(len(values)), key=lambda i: -round(values[i], 6))
        for each in ranked:
            assert each.score == pytest.approx(values[each.index], abs=1e-5)
            assert llm.rerank(QUERY, [DOCUMENTS[each.index]])[0].score == each.score  # the same bits alone
        assert llm.rerank(QUERY, DOCUMENTS, top_n=2) == ranked[:2]
        assert llm.rerank(QUERY, []) == []
    with load_checkpoint(folder) as opened:
        save_container(tmp_path / "model.safetensors", opened)
    with LLM(tmp_path / "model.safetensors", **SMALL) as llm:
        assert llm.rerank(QUERY, DOCUMENTS) == ranked


@each_family
def test_bfloat16_stays_close(family: Any, made: Made) -> None:
    folder, model, cutter = made(family, torch.bfloat16)
    with LLM(folder, dtype="bfloat16", **SMALL) as llm:
        for each in llm.rerank(QUERY, DOCUMENTS):  # inputs of products keep 8 bits
            assert each.score == pytest.approx(expected(model, cutter, DOCUMENTS[each.index]), abs=2e-2)


def test_the_second_text_has_its_segment(made: Made) -> None:
    """A pair whose texts change places is another one, though RoBERTa's would read the same tokens."""
    folder, model, cutter = made(CROSS_ENCODERS[0])
    found = cutter.encode(QUERY, QUERY)
    with torch.inference_mode():
        as_one = model(torch.tensor([found.ids])).logits.item()
        as_two = model(torch.tensor([found.ids]), token_type_ids=torch.tensor([found.type_ids])).logits.item()
    assert abs(as_one - as_two) > 1e-2
    with LLM(folder, **SMALL) as llm:
        (each,) = llm.rerank(QUERY, [QUERY])
        assert each.score == pytest.approx(1 / (1 + math.exp(-as_two)), abs=1e-5)


@each_family
def test_an_architecture_leads_to_its_family(family: Any) -> None:
    import transformers

    for name in family.huggingface.architectures:
        assert hasattr(transformers, name)
        assert of_config(Fields({"architectures": [name]}, "config.json"))[1] is family


def test_what_it_cannot_do_is_refused(made: Made, tmp_path: Path) -> None:
    folder, _, _ = made(CROSS_ENCODERS[0])
    with LLM(folder, **SMALL) as llm:
        with pytest.raises(InvalidArgument, match=r"scores pairs of texts.*use rerank"):
            llm.embed(QUERY)
        with pytest.raises(InvalidArgument, match="makes embeddings only"):
            llm.generate(QUERY)
        with pytest.raises(InvalidArgument, match="instruction= is for models that read one"):
            llm.rerank(QUERY, DOCUMENTS, instruction="judge")
        with pytest.raises(InvalidArgument, match=r"document 1: a text of 204 tokens is too long"):
            llm.rerank(QUERY, ["a", "wet " * 197])
        with pytest.raises(InvalidArgument, match="query="):
            llm.rerank("", DOCUMENTS)
        assert len(llm.rerank(QUERY, DOCUMENTS)) == len(DOCUMENTS)
    for name, value, words in (
        ("id2label", {"0": "a", "1": "b", "2": "c"}, "num_labels = 3: it sorts texts into classes"),
        ("type_vocab_size", 1, "one for each text of a pair"),
    ):
        config = json.loads((folder / "config.json").read_text()) | {name: value}
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(Unsupported, match=words):
            LLM(tmp_path)
