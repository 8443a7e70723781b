"""lm-eval on pagedcore, in this process and through its server, against transformers: MMLU questions, item by item.

    pip install "lm_eval[api]" "pagedcore[server,torch]" transformers accelerate gguf
    python bench/mmlu.py [--limit 50] [--model MODEL.gguf] [--without server]

Needs no network: the questions are those that lm-eval's package carries as worked examples, five for each of 57
subjects, less those whose example gives no letter. Everything is float32. An item differs if another answer is the
likeliest, or if the log-likelihood of one of its answers is not within 1e-3. Prints a line for each system, then the
items that differ; the exit status is 1 where there are any.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import lm_eval
import yaml
from lm_eval.tasks import TaskManager

import pagedcore.lm_eval  # noqa: F401  # adds the model
from pagedcore.default_model import default_model

_TASK = """\
task: packaged_mmlu
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}\\nThe answer is ("
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: answer
metric_list: [{{metric: acc}}]
"""


def questions() -> list[dict[str, Any]]:
    found = []
    for file in sorted(
        (files("lm_eval") / "tasks" / "mmlu" / "flan_cot_fewshot").iterdir(), key=lambda file: file.name
    ):
        if not re.fullmatch(r"mmlu_.*\.yaml", file.name):
            continue
        for sample in yaml.safe_load(file.read_text())["fewshot_config"]["samples"]:
            answer = re.search(r"answer is \(?([A-D])\)?\.?\s*$", sample["target"])
            if answer:
                found.append({"question": sample["question"], "answer": "ABCD".index(answer[1])})
    return found


def evaluated(directory: Path, limit: int | None, **how: Any) -> dict[str, Any]:
    begun = time.monotonic()
    manager = TaskManager(include_path=str(directory), include_defaults=False)
    result = lm_eval.simple_evaluate(
        tasks=["packaged_mmlu"], task_manager=manager, limit=limit, bootstrap_iters=0, **how
    )
    samples = sorted(result["samples"]["packaged_mmlu"], key=lambda sample: sample["doc_id"])
    return {
        "seconds": time.monotonic() - begun,
        "accuracy": sum(sample["acc"] for sample in samples) / len(samples),
        "items": [[float(answer[0]) for answer in sample["filtered_resps"]] for sample in samples],
    }


@contextmanager
def served(model: str) -> Iterator[str]:
    command = [sys.executable, "-m", "pagedcore", "serve", "-m", model, "--dtype", "float32", "--port", "0"]
    command += ["--served-model-name", "model", "--no-log-calls"]  # nobody reads the log behind "ready"
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if '"ready"' in line:
                yield json.loads(line)["address"]
                return
        raise SystemExit("the server ended")
    finally:
        process.terminate()
        process.communicate()


def differences(ours: list[list[float]], theirs: list[list[float]]) -> list[str]:
    found = []
    for at, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        apart = max(abs(a - b) for a, b in zip(mine, other, strict=True))
        if apart > 1e-3 or mine.index(max(mine)) != other.index(max(other)):
            found.append(f"item {at}: {mine} against {other}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(default_model()), help="a GGUF file")
    parser.add_argument("--limit", type=int, help="questions")
    parser.add_argument("--without", action="append", default=[], choices=["server", "transformers"])
    arguments = parser.parse_args()
    model = os.path.abspath(arguments.model)
    hf = {"pretrained": os.path.dirname(model), "gguf_file": os.path.basename(model), "dtype": "float32"}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        lines = [json.dumps(question) for question in questions()]
        (directory / "questions.jsonl").write_text("\n".join(lines) + "\n")
        (directory / "task.yaml").write_text(_TASK.format(data=directory / "questions.jsonl"))
        run = {"limit": arguments.limit}
        results = {
            "in process": evaluated(
                directory, **run, model="pagedcore", model_args={"model": model, "dtype": "float32"}
            )
        }
        if "server" not in arguments.without:
            with served(model) as address:
                where = {"base_url": f"{address}/v1/completions", "model": "model", "num_concurrent": 16}
                results["server"] = evaluated(directory, **run, model="local-completions", model_args=where)
        if "transformers" not in arguments.without:
            results["transformers"] = evaluated(directory, **run, model="hf", model_args={**hf, "device": "cpu"})
    for system, result in results.items():
        print(f"{system}: accuracy {result['accuracy']:.4f} of {len(result['items'])}, {result['seconds']:.0f} s")
    reference = results[list(results)[-1]]["items"]
    apart = [text for result in results.values() for text in differences(result["items"], reference)]
    print("\n".join(apart) if apart else "no item differs")
    return 1 if apart else 0


if __name__ == "__main__":
    sys.exit(main())
