"""Files of lengths and of arrivals."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import Corrupt, Io
from .workload import Prompt, Workload

__all__ = ["read_azure", "read_conversations", "read_lengths", "read_mooncake", "read_trace"]

_MOST = 1 << 24  # tokens of one prompt or output
_MOONCAKE_BLOCK = 512  # tokens that one hash id stands for

StrPath = str | os.PathLike[str]


def read_trace(path: StrPath) -> Workload | list[tuple[int, int]]:
    """A file in any of the formats below, told apart by its first line; (prompt, output) lengths where it does not say
    when requests arrive. Raises Corrupt for other formats, and for a file without requests."""
    where, line = next(_lines(path), (os.fspath(path), ""))
    columns = next(csv.reader([line]), [])
    requests: Workload | list[tuple[int, int]]
    if line.lstrip().startswith("{"):
        requests = read_mooncake(path)
    elif "TIMESTAMP" in columns:
        requests = read_azure(path)
    elif {"input_tokens", "output_tokens"} & set(columns):
        requests = read_lengths(path)
    else:
        raise Corrupt(
            f"{where}: this is no trace of a known format. There are CSV files with the columns input_tokens and "
            "output_tokens, or TIMESTAMP, ContextTokens and GeneratedTokens (Azure), and lines of JSON with timestamp, "
            "input_length, output_length and hash_ids (Mooncake)"
        )
    if not requests:
        raise Corrupt(f"{os.fspath(path)} has no requests")
    return requests


def read_lengths(path: StrPath) -> list[tuple[int, int]]:
    """(prompt, output) lengths: a CSV file with the columns input_tokens and output_tokens."""
    return [
        (_length(row["input_tokens"], where), _length(row["output_tokens"], where))
        for where, row in _rows(path, ("input_tokens", "output_tokens"))
    ]


def read_conversations(path: StrPath) -> list[list[tuple[int, int]]]:
    """Rounds of chats: a CSV file with the columns conversation (any name), input_tokens (said) and output_tokens
    (answered), the rounds of a conversation in order."""
    conversations: dict[str, list[tuple[int, int]]] = {}
    for where, row in _rows(path, ("conversation", "input_tokens", "output_tokens")):
        lengths = _length(row["input_tokens"], where), _length(row["output_tokens"], where)
        conversations.setdefault(row["conversation"], []).append(lengths)
    return list(conversations.values())


def read_azure(path: StrPath) -> Workload:
    """A trace in the format of AzureLLMInferenceTrace: a CSV file with TIMESTAMP, ContextTokens, GeneratedTokens."""
    arrivals: list[float] = []
    prompts: list[Prompt] = []
    outputs: list[int] = []
    start: datetime | None = None
    for where, row in _rows(path, ("TIMESTAMP", "ContextTokens", "GeneratedTokens")):
        text = row["TIMESTAMP"]
        try:
            time = datetime.fromisoformat(text[:26])  # microseconds: what there is behind is below them
        except ValueError:
            raise Corrupt(f"{where}: TIMESTAMP {text!r} is no time, such as 2023-11-16 18:15:46.680590") from None
        start = start or time
        arrivals.append(_in_order((time - start).total_seconds(), arrivals, where))
        prompts.append([(len(prompts) + 1, _length(row["ContextTokens"], where))])
        outputs.append(_length(row["GeneratedTokens"], where))
    return Workload(arrivals, prompts, outputs)


def read_mooncake(path: StrPath) -> Workload:
    """A trace in Mooncake's format: lines of JSON with timestamp (ms), input_length, output_length and hash_ids. Every
    id stands for 512 tokens of the prompt; equal ids are equal tokens after an equal prefix."""
    arrivals: list[float] = []
    prompts: list[Prompt] = []
    outputs: list[int] = []
    for where, line in _lines(path):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise Corrupt(f"{where}: this is no JSON object")
        missing = [name for name in ("timestamp", "input_length", "output_length", "hash_ids") if name not in row]
        if missing:
            raise Corrupt(f"{where}: {', '.join(missing)} missing")
        tokens = _length(row["input_length"], where)
        ids = row["hash_ids"]
        if not isinstance(ids, list) or len(ids) != -(-tokens // _MOONCAKE_BLOCK):
            raise Corrupt(
                f"{where}: a prompt of {tokens} tokens has {-(-tokens // _MOONCAKE_BLOCK)} hash_ids, one for 512 tokens"
            )
        if not all(isinstance(number, int) and 0 <= number < 2**63 for number in ids):
            raise Corrupt(f"{where}: hash_ids are integers in [0, 2^63)")
        if isinstance(row["timestamp"], bool) or not isinstance(row["timestamp"], int | float):
            raise Corrupt(f"{where}: timestamp {row['timestamp']!r} is no number of milliseconds")
        arrivals.append(_in_order(row["timestamp"] / 1000, arrivals, where))
        sizes = [min(_MOONCAKE_BLOCK, tokens - start) for start in range(0, tokens, _MOONCAKE_BLOCK)]
        prompts.append(list(zip(ids, sizes, strict=True)))
        outputs.append(_length(row["output_length"], where))
    return Workload(arrivals, prompts, outputs)


def _lines(path: StrPath) -> Iterator[tuple[str, str]]:
    """(place, line), less empty lines."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{os.fspath(path)}:{number}", line
    except OSError as error:
        raise Io(f"{os.fspath(path)}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Corrupt(f"{os.fspath(path)} is no text in UTF-8") from None


def _rows(path: StrPath, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    lines = _lines(path)
    where, header = next(lines, (os.fspath(path), ""))
    names = next(csv.reader([header]), [])
    missing = [name for name in columns if name not in names]
    if missing:
        raise Corrupt(f"{where}: the first line has no column {', '.join(missing)}; it has: {', '.join(names)}")
    for where, line in lines:
        values = next(csv.reader([line]))
        if len(values) != len(names):
            raise Corrupt(f"{where}: {len(values)} fields, but the first line names {len(names)} columns")
        yield where, dict(zip(names, values, strict=True))


def _length(value: Any, where: str) -> int:
    """A number of tokens. None is taken for one: every request has a prompt and generates something."""
    try:
        length = int(value)
    except (TypeError, ValueError):
        raise Corrupt(f"{where}: {value!r} is no number of tokens") from None
    if not 0 <= length <= _MOST:
        raise Corrupt(f"{where}: a length of {length} tokens is outside [0, {_MOST}]")
    return max(1, length)


def _in_order(time: float, before: list[float], where: str) -> float:
    if not math.isfinite(time) or time < (before[-1] if before else 0):
        raise Corrupt(
            f"{where}: arrives at {time:g} s, after one at {before[-1] if before else 0:g} s; sort the trace by time"
        )
    return float(time)
