"""Model families, a file each: names of the architecture in Hugging Face and GGUF files, configuration to description,
names and transforms of weights, how the vocabulary cuts text, and a small random checkpoint for the tests.

To add one, write its file and name it in ``FAMILIES``: readers, tokenizer and tests go through that list.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import Unsupported
from . import (
    bert,
    bloom,
    cohere,
    distilbert,
    falcon,
    gemma,
    gemma2,
    gemma3,
    glm4,
    gpt2,
    gpt_neox,
    gpt_oss,
    granite,
    granite_moe,
    llama,
    ministral3,
    mistral,
    mixtral,
    olmo,
    olmo2,
    olmoe,
    opt,
    phi2,
    phi3,
    qwen2,
    qwen2_moe,
    qwen3,
    qwen3_moe,
    smollm2,
    smollm3,
    stablelm,
    starcoder2,
)
from .cross_encoders import CROSS_ENCODERS, has_segments, is_cross_encoder
from .family import Family
from .fields import Fields
from .splits import CUTS_OF_NUMBERS, SPLITS, Split

__all__ = [
    "CROSS_ENCODERS",
    "CUTS_OF_NUMBERS",
    "ENCODERS",
    "FAMILIES",
    "SPLITS",
    "find_split",
    "has_segments",
    "is_cross_encoder",
    "of_config",
    "of_gguf",
]

FAMILIES: tuple[Family, ...] = (
    llama.FAMILY,
    mistral.FAMILY,
    ministral3.FAMILY,
    smollm2.FAMILY,
    smollm3.FAMILY,
    qwen2.FAMILY,
    qwen3.FAMILY,
    gemma.FAMILY,
    gemma2.FAMILY,
    gemma3.FAMILY,
    phi3.FAMILY,
    gpt2.FAMILY,
    opt.FAMILY,
    gpt_neox.FAMILY,
    bloom.FAMILY,
    falcon.FAMILY,
    phi2.FAMILY,
    stablelm.FAMILY,
    starcoder2.FAMILY,
    olmo.FAMILY,
    olmo2.FAMILY,
    granite.FAMILY,
    cohere.FAMILY,
    cohere.COHERE2,
    glm4.FAMILY,
    glm4.GLM4,
    mixtral.FAMILY,
    qwen2_moe.FAMILY,
    qwen3_moe.FAMILY,
    olmoe.FAMILY,
    granite_moe.FAMILY,
    granite_moe.SHARED,
    gpt_oss.FAMILY,
)


ENCODERS: tuple[Family, ...] = (bert.FAMILY, bert.ROBERTA, distilbert.FAMILY)
"""Those that make embeddings only."""
_ALL = (*FAMILIES, *ENCODERS, *CROSS_ENCODERS)

_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")  # what configurations call it


def of_config(config: Fields) -> tuple[str, Family]:
    """The architecture that a config.json names, and its family."""
    names = config.get("architectures")
    if names is None:
        model_type = config.text("model_type")
        named = (f.huggingface.architectures[0] for f in _ALL if f.huggingface.model_type == model_type)
        names = [next(named, model_type)]
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise config.refuse("architectures", "is not a list of names")
    of_base = names[0].removesuffix("Model")  # the same without a head
    for name in (names[0], of_base + "ForCausalLM", of_base + "LMHeadModel"):
        for family in _ALL:
            if name in family.huggingface.architectures:
                return names[0], family
    for field in _EXPERTS:
        if config.get(field) is not None:
            raise Unsupported(
                f"{config.source}: '{names[0][:80]}' is a mixture of experts ({field} = "
                f"{str(config.get(field))[:20]}) of a kind that is not supported"
            )
    raise _unsupported(config.source, names[0], (f.huggingface.architectures for f in _ALL))


def of_gguf(metadata: Fields) -> tuple[str, Family]:
    """The architecture that a GGUF file names, and its family."""
    name = metadata.text("general.architecture")
    for family in FAMILIES:
        if family.gguf is not None and name in family.gguf.architectures:
            return name, family
    raise _unsupported(metadata.source, name, (f.gguf.architectures for f in FAMILIES if f.gguf is not None))


def _unsupported(source: str, name: str, served: Iterable[tuple[str, ...]]) -> Unsupported:
    names = dict.fromkeys(name for family in served for name in family)
    return Unsupported(f"{source}: the architecture '{name[:80]}' is not supported; supported are {', '.join(names)}")


def find_split(name: str) -> Split:
    """How the byte-level vocabulary of a GGUF file cuts text, by the file's name for it (``tokenizer.ggml.pre``)."""
    splits = SPLITS.copy()
    for family in FAMILIES:
        splits |= family.splits
    if name not in splits:
        raise Unsupported(
            f"GGUF pre-tokenizer {name!r} (served: {', '.join(sorted(splits))}): name a directory with a "
            "tokenizer.json with tokenizer="
        )
    return splits[name]
