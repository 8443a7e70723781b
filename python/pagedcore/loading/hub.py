"""Models named by a hub id."""

from __future__ import annotations

from pathlib import Path

from ..errors import InvalidArgument, Io

__all__ = ["download"]

_SMALL_FILES = ["*.json", "*.jinja", "tokenizer.model"]


def download(hub_id: str, *, with_tensors: bool) -> Path:
    """The local snapshot of a model, downloaded through huggingface_hub if its cache lacks it."""
    try:
        import huggingface_hub
    except ImportError:
        raise InvalidArgument(
            f"'{hub_id}' is no local path, and to download it needs huggingface_hub: pip install huggingface_hub"
        ) from None
    patterns = [*_SMALL_FILES, "*.safetensors"] if with_tensors else _SMALL_FILES
    try:
        return Path(huggingface_hub.snapshot_download(hub_id, allow_patterns=patterns))
    except Exception as error:  # the library and its transports raise many kinds
        raise Io(f"'{hub_id}' could not be downloaded ({type(error).__name__}): {error}") from None
