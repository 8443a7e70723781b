"""What a device can do, in numbers that fit in a small file."""

from __future__ import annotations

import json
import math
import os
from dataclasses import MISSING, asdict, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import Corrupt, InvalidArgument, Io

__all__ = ["Device"]

_SHARES = ("usable_memory", "weights_share", "kv_share", "arithmetic_share", "attention_share")
_MUST_BE_POSITIVE = ("memory", "bandwidth", "arithmetic", "link", "all_reduce_bandwidth", *_SHARES)
_MOST = 1e18  # of anything, in bytes, FLOP or bytes/s: what is above is a slip of the keyboard


@dataclass(frozen=True, kw_only=True)
class Device:
    """A processor with memory, and the links of several of them. Sizes are in bytes, rates in bytes or FLOP a second.

    Peaks are those of a data sheet; the shares say how much of them real kernels reach. A device that was calibrated
    has the rates that were measured, and shares of 1.
    A file is a JSON object with these names. Those without a default here must be there; others may be left out.
    """

    name: str
    """Of a file without a name: the file's own."""
    memory: float
    """Bytes of one device, as its driver reports them."""
    bandwidth: float
    """Bandwidth of its memory."""
    arithmetic: float
    """Rate of dense products, in the type that computes."""
    link: float = 1e10
    """Bandwidth between its memory and the host's, one way."""
    usable_memory: float = 0.95
    """Share of the memory that weights, activations and KV may take."""
    reserved: float = 0.0
    """Bytes of that which are taken by others: a context, workspaces."""
    weights_share: float = 1.0
    """Share of the bandwidth that reading weights reaches."""
    kv_share: float = 1.0
    """Share of the bandwidth that attention reaches when it reads KV."""
    arithmetic_share: float = 1.0
    """Share of the arithmetic that products with weights reach."""
    attention_share: float = 1.0
    """Share of the arithmetic that attention reaches."""
    step_seconds: float = 0.0
    """Overhead of every step, whatever the model: planning, launching, taking in the result."""
    layer_seconds: float = 0.0
    """Overhead of every layer in every step, besides its products: launches, barriers, norms."""
    sample_seconds: float = 0.0
    """Overhead of every sampled sequence, besides the product with the head."""
    all_reduce_seconds: float = 0.0
    """Duration of an all-reduce of next to nothing among several of these devices; 0: they have no link."""
    all_reduce_bandwidth: float = 1e10
    """Bytes a second of a long all-reduce."""
    about: str = ""
    """Where the numbers are from."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("name", "about"):
                if not isinstance(value, str):
                    raise InvalidArgument(f"device {self.name!r}: {field.name}={value!r} is no text")
                continue
            least = "above 0" if field.name in _MUST_BE_POSITIVE else "0 or more"
            most = 1.0 if field.name in _SHARES else _MOST
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not 0 <= value <= most  # False for NaN
                or (value == 0 and field.name in _MUST_BE_POSITIVE)
            ):
                raise InvalidArgument(
                    f"device {self.name!r}: {field.name}={value!r} must be a number {least}, and at most {most:g}"
                )

    @classmethod
    def load(cls, device: str | os.PathLike[str]) -> Device:
        """A device by its name (:meth:`names` lists them), or from a file of one's own.

        Raises InvalidArgument for an unknown name, Corrupt for a file that is no such description, Io for one that
        cannot be read.
        """
        path = Path(device)
        if isinstance(device, str) and device in cls.names():
            text = (resources.files(__package__) / "data" / "devices" / f"{device}.json").read_text(encoding="utf-8")
        elif path.suffix == ".json" or path.exists():
            try:
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                raise Corrupt(f"{path}: is no text in UTF-8, as a device's file is") from None
            except OSError as error:
                raise Io(f"{path}: {error.strerror}") from None
        else:
            raise InvalidArgument(
                f"device {os.fspath(device)!r} is neither one of {', '.join(cls.names())} nor a file; "
                "a file with numbers of your own ends in .json"
            )
        return cls._parse(text, os.fspath(device), path.stem if path.suffix == ".json" else path.name)

    @classmethod
    def _parse(cls, text: str, where: str, name: str) -> Device:
        try:
            values = json.loads(text)
        except ValueError as error:
            raise Corrupt(f"{where}: is no JSON: {error}") from None
        if not isinstance(values, dict):
            raise Corrupt(f"{where}: a device is a JSON object")
        values = {"name": name, **values}
        known = {field.name for field in fields(cls)}
        unknown = sorted(values.keys() - known)
        if unknown:
            raise Corrupt(f"{where}: a device has no {', '.join(unknown)}; it has: {', '.join(sorted(known))}")
        missing = [field.name for field in fields(cls) if field.default is MISSING and field.name not in values]
        if missing:
            raise Corrupt(f"{where}: {', '.join(missing)} missing")
        try:
            return cls(**values)
        except InvalidArgument as error:
            raise Corrupt(f"{where}: {error}") from None

    @staticmethod
    def names() -> list[str]:
        """Names of the devices that come with the package."""
        folder = resources.files(__package__) / "data" / "devices"
        return sorted(file.name.removesuffix(".json") for file in folder.iterdir() if file.name.endswith(".json"))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a file for :meth:`load`. Raises Io."""
        try:
            Path(path).write_text(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise Io(f"{os.fspath(path)}: {error.strerror}") from None

    def to_dict(self) -> dict[str, Any]:
        """Every number that is not the default."""
        defaults = {field.name: field.default for field in fields(self)}
        return {name: value for name, value in asdict(self).items() if value != defaults[name]}

    @property
    def weights_rate(self) -> float:
        """Bytes of weights read a second."""
        return self.bandwidth * self.weights_share

    @property
    def kv_rate(self) -> float:
        """Bytes of KV read a second by attention."""
        return self.bandwidth * self.kv_share

    @property
    def arithmetic_rate(self) -> float:
        """FLOP a second in products with weights."""
        return self.arithmetic * self.arithmetic_share

    @property
    def attention_rate(self) -> float:
        """FLOP a second in attention."""
        return self.arithmetic * self.attention_share

    @property
    def free_memory(self) -> float:
        """Bytes of one device for weights, activations and KV."""
        return math.floor(max(0.0, self.memory * self.usable_memory - self.reserved))
