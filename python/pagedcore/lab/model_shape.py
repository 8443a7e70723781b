"""A model as counts of weights and products: all that the cost of a step depends on."""

from __future__ import annotations

import json
import os
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from .. import _core
from ..errors import InvalidArgument

__all__ = ["ModelShape"]


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A decoder by what it holds and computes. Counts of elements; bytes follow from their types."""

    name: str
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    layer_weights: int
    """Weights of all layers: a row of a step is multiplied with each of them."""
    head_weights: int
    """Weights of the product that gives the logits, for sampled rows alone."""
    embedding_weights: int
    """Held besides the head, and looked up; 0 where they are the head's."""
    query_elements: int
    """Elements of one row's queries, of all layers and heads."""
    kv_elements: int
    """Elements of one token's keys and values, of all layers."""
    max_context: int
    window: int = 0
    """Smallest window of the layers that attend to the latest tokens only; 0: there are none."""

    @property
    def weights(self) -> int:
        return self.layer_weights + self.head_weights + self.embedding_weights

    @classmethod
    def of(cls, name: str, description: _core.ModelDescription) -> ModelShape:
        d = description
        heads, kv_heads = d.num_heads * d.head_dim, d.num_kv_heads * d.head_dim
        attention = d.hidden_size * (2 * heads + 2 * kv_heads)  # q, k, v and the output
        mlp = (3 if d.gated_mlp else 2) * d.hidden_size * d.intermediate_size
        table = d.vocab_size * d.hidden_size
        return cls(
            name=name,
            layers=d.num_layers,
            hidden=d.hidden_size,
            intermediate=d.intermediate_size,
            vocabulary=d.vocab_size,
            layer_weights=d.num_layers * (attention + mlp),
            head_weights=table,
            embedding_weights=0 if d.tied_embeddings else table,
            query_elements=d.num_layers * heads,
            kv_elements=2 * d.num_layers * kv_heads,
            max_context=d.max_context,
            window=min((window for window in d.windows if window > 0), default=0),
        )

    @classmethod
    def load(cls, model: str | os.PathLike[str] | None) -> ModelShape:
        """A model by a name that :meth:`names` lists, or any that ``LLM.plan`` takes: a GGUF file, a Hugging Face
        directory or hub id, a container; None: the default model. Weights are not read."""
        from ..engine_options import open_model

        if isinstance(model, str) and not Path(model).exists():
            if model in _named():
                return cls.of(model, _core.ModelDescription(**_named()[model]))
            if "/" not in model:
                raise InvalidArgument(
                    f"model {model!r} is no file or directory, no hub id such as 'owner/name', and none of the shapes "
                    f"that are known by name: {', '.join(_named())}"
                )
        with closing(open_model(model, {}, weights=False)) as checkpoint:
            return cls.of(Path(checkpoint.path).name, checkpoint.description)

    @staticmethod
    def names() -> list[str]:
        """Names of the shapes that come with the package."""
        return list(_named())


@cache
def _named() -> dict[str, dict[str, Any]]:
    text = resources.files(__package__).joinpath("data/models.json").read_text(encoding="utf-8")
    return {name: fields for name, fields in json.loads(text).items() if name != "about"}
