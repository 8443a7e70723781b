"""What a model's name means: a path, or a model on the hub. The hub is a fake: no test may need a network."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from gguf_writer import write_gguf
from pagedcore import LLM
from pagedcore.errors import InvalidArgument, Io
from pagedcore.loading import load_checkpoint
from pagedcore.loading.hub import HubName, hub_name

FILES = [
    "README.md",
    "q/tiny-q4_k_m.gguf",
    "tiny-Q8_0.gguf",
    "tiny-F16-00001-of-00002.gguf",
    "tiny-F16-00002-of-00002.gguf",
]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """A hub with one repository, in ``tmp_path/snapshot``; what was asked of it."""
    asked: list[dict[str, Any]] = []

    def snapshot_download(repo_id: str, **arguments: Any) -> str:
        asked.append({"repo_id": repo_id, **arguments})
        return str(tmp_path / "snapshot")

    def list_repo_files(_: object, repo_id: str, **arguments: Any) -> list[str]:
        asked.append({"repo_id": repo_id, **arguments})
        return FILES

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", list_repo_files)
    return asked


def test_a_gguf_file_by_name_with_revision_and_token(
    tiny: Callable[..., tuple[Path, Any]], hub: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "snapshot" / "q").mkdir(parents=True)
    write_gguf(tmp_path / "snapshot" / "q" / "tiny-q4_k_m.gguf", tiny("llama")[1], "llama")
    for name in ("hub:org/tiny/q/tiny-q4_k_m.gguf", "org/tiny:Q4_K_M", "hub:org/tiny:q4_k_m"):
        hub.clear()
        with load_checkpoint(name, revision="v2", token="hf_x") as checkpoint:
            assert checkpoint.description["num_layers"] == 3
            assert checkpoint.name == name.removeprefix("hub:")
        assert all(call["revision"] == "v2" and call["token"] == "hf_x" for call in hub)
        assert fnmatch("q/tiny-q4_k_m.gguf", hub[-1]["allow_patterns"][0])
        assert not any(fnmatch("tiny-Q8_0.gguf", pattern) for pattern in hub[-1]["allow_patterns"])


def test_all_parts_of_a_split_file_are_asked_for(hub: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "snapshot").mkdir()
    with pytest.raises(Io, match=r"has no file 'tiny-F16-00001-of-00002.gguf'"):  # the fake downloads nothing
        load_checkpoint("org/tiny:F16")
    assert hub[-1]["allow_patterns"][:2] == FILES[3:]


def test_which_file_of_several_must_be_said(hub: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "snapshot").mkdir()
    with pytest.raises(
        InvalidArgument, match=r"several GGUF files fit 'org/tiny': name one of q/tiny-q4_k_m.gguf, tiny"
    ):
        load_checkpoint("org/tiny")
    with pytest.raises(
        InvalidArgument, match=r"no GGUF file fits 'org/tiny:Q4_0': name one of .*, as hub:org/tiny/FILE"
    ):
        load_checkpoint("org/tiny:Q4_0")


@pytest.mark.parametrize(
    "name",
    ["models/typo", "models/typo.gguf", "org/model.gguf", "org/model.safetensors", "a/b/c", "/org/name", "./org/name"],
)
def test_a_mistyped_path_is_no_download(
    monkeypatch: pytest.MonkeyPatch, hub: list[dict[str, Any]], tmp_path: Path, name: str
) -> None:
    """`models` is there, so the rest is a slip; and so is a name that ends like a file. Both went to the hub."""
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Io, match="no such file or directory"):
        LLM(name)
    assert hub == []


def test_hub_is_always_the_hub(monkeypatch: pytest.MonkeyPatch, hub: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "models" / "there").mkdir(parents=True)
    (tmp_path / "snapshot").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidArgument, match="several GGUF files"):
        LLM("hub:models/there")
    assert hub[0]["repo_id"] == "models/there"
    for name in ("hub:", "hub:name", "hub:/a/b", "hub:a/b/c"):
        with pytest.raises(InvalidArgument, match="expected hub:owner/name"):
            LLM(name)


def test_names() -> None:
    assert hub_name("org/name") == HubName("org/name")
    assert hub_name("meta-llama/Llama-3.2-1B") == HubName("meta-llama/Llama-3.2-1B")
    assert hub_name("org/name-GGUF:IQ4_XS") == HubName("org/name-GGUF", tag="IQ4_XS")
    assert hub_name("hub:org/name.bin") == HubName("org/name.bin")
    assert hub_name("name") is None
