"""Models named by a hub id: ``owner/name``, a GGUF file of it as ``hub:owner/name/file.gguf``, or by the end of its
name before the suffix as ``owner/name:Q4_K_M``."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ..arguments import shown
from ..errors import InvalidArgument, Io
from .gguf_split import shards

__all__ = ["HubName", "download", "hub_name"]

_SMALL_FILES = ["*.json", "*.jinja", "tokenizer.model", "merges.txt"]
_PART = r"\w(?:(?!--|\.\.)[\w.-])*(?<![.-])"  # as the hub has it
_NAME = re.compile(rf"({_PART}/{_PART})(?:/(?P<file>[^:]+\.gguf)|:(?P<tag>[\w.-]+))?", re.ASCII)
_LONGEST = 96
_URL = re.compile(r"[a-z0-9+]+://(?:huggingface\.co/|hf\.co/)?(?P<rest>.*)", re.ASCII | re.IGNORECASE)
_SUFFIXES = (".gguf", ".safetensors", ".bin", ".pt", ".pth", ".json", ".pagedcore")
_PREFIX = "hub:"
_T = TypeVar("_T")


class HubName(NamedTuple):
    repository: str
    file: str | None = None  # a GGUF file in it
    tag: str | None = None  # how the name of one ends, before the suffix

    def __str__(self) -> str:
        return self.repository + (f"/{self.file}" if self.file else f":{self.tag}" if self.tag else "")


def hub_name(model: str) -> HubName | None:
    """What a text that is no existing path names on the hub; None if it names a path. ``hub:`` leaves no doubt; without
    it a name whose first folder exists here, or that ends like a file of a model, is a path with a slip in it. Raises
    InvalidArgument for ``hub:`` before something else than a name."""
    name = model.removeprefix(_PREFIX)
    if (url := _URL.fullmatch(name)) is not None:
        rest = "/".join(url["rest"].split("/")[:2])
        meant = f"'{_PREFIX}{rest}'" if _NAME.fullmatch(rest) else f"'{_PREFIX}owner/name'"
        raise InvalidArgument(
            f"{shown(model)} is a URL: a model is a path, or a name on the hub, such as {meant}, which is downloaded"
        )
    match = _NAME.fullmatch(name)
    if match is not None and len(match[1]) > _LONGEST:
        match = None
    if name != model:
        if match is None:
            forms = f"{_PREFIX}owner/name, {_PREFIX}owner/name/file.gguf or :TAG"
            raise InvalidArgument(f"{shown(model, 200)}: expected {forms}")
    elif match is None or name.lower().endswith(_SUFFIXES) or os.path.lexists(name.partition("/")[0]):
        return None
    return HubName(match[1], match["file"], match["tag"])


def download(name: HubName, *, with_tensors: bool, revision: str | None = None, token: str | None = None) -> Path:
    """The folder or GGUF file of a model, downloaded through huggingface_hub if its cache lacks it. ``revision``: a
    branch, tag or commit; None: the main branch. ``token``: for models that are not public; None: what the machine is
    logged in with."""
    try:
        import huggingface_hub
    except ImportError:
        raise InvalidArgument(
            f"'{name}' is no local path, and to download it needs huggingface_hub: pip install huggingface_hub"
        ) from None

    of_revision: dict[str, Any] = {
        key: value for key, value in (("revision", revision), ("token", token)) if value is not None
    }

    def snapshot(patterns: list[str]) -> Path:
        return Path(
            _asked(
                name,
                lambda: huggingface_hub.snapshot_download(name.repository, allow_patterns=patterns, **of_revision),
            )
        )

    def gguf_files() -> list[str]:
        files = _asked(name, lambda: huggingface_hub.HfApi().list_repo_files(name.repository, **of_revision))
        return [file for file in files if file.lower().endswith(".gguf")]

    file = name.file
    if file is None and name.tag is None:
        folder = snapshot([*_SMALL_FILES, "*.safetensors"] if with_tensors else _SMALL_FILES)
        if (folder / "config.json").is_file():
            return folder
    if file is None:
        file = _one_model(name, gguf_files())
    parent, _, last = file.rpartition("/")
    files = [f"{parent}/{part}" if parent else part for part in shards(last)]
    path = snapshot([*files, "generation_config.json"]) / file
    if not path.is_file():
        raise Io(f"'{name}': the repository has no file '{file}'")
    return path


def _asked(name: HubName, call: Callable[[], _T]) -> _T:
    try:
        return call()
    except Exception as error:  # the library and its transports raise many kinds
        raise Io(f"'{name}' could not be downloaded ({type(error).__name__}): {error}") from None


def _one_model(name: HubName, files: list[str]) -> str:
    """The GGUF file that the name means; of a split model its first."""

    def is_meant(file: str) -> bool:
        stem = re.sub(r"(-[0-9]{5}-of-[0-9]{5})?\.gguf$", "", file, flags=re.IGNORECASE).lower()
        return name.tag is None or re.search(rf"(^|[-._/]){re.escape(name.tag.lower())}$", stem) is not None

    firsts = [file for file in files if shards(file.rpartition("/")[2])[0] == file.rpartition("/")[2]]
    meant = [file for file in firsts if is_meant(file)]
    if len(meant) == 1:
        return meant[0]
    if not firsts:
        raise Io(f"'{name}': the repository has neither a config.json nor a GGUF file")
    problem = f"several GGUF files fit '{name}'" if meant else f"no GGUF file fits '{name}'"
    shown = ", ".join((meant or firsts)[:20])
    raise InvalidArgument(f"{problem}: name one of {shown}, as hub:{name.repository}/FILE")
