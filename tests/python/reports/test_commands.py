"""`tokenize`, `score`, `convert`, `batch` and `completion`.

Expected: transformers' token ids and log-probabilities, the package's own API for the same requests, what the lines of
JSON say of order and errors, and what bash offers after TAB.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pagedcore import LLM, ModelFile, SamplingParams
from pagedcore.cli import main
from pagedcore.tokenizer import Tokenizer

MEMORY = ["--kv-cache-memory", "32MiB"]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: object, status: int = 0) -> str:
        found = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert found == status, err
        return out if status == 0 else out + err

    return run


TEXTS = ["The capital of France is", "\n\n3. item", "naïve 東京 🙂", "<|im_start|>user\nHi<|im_end|>"]


@pytest.mark.parametrize("text", TEXTS)
def test_tokenize_and_back(text: str, run: Any, llm: LLM) -> None:
    assert llm.tokenizer is not None
    ids = llm.tokenizer.encode(text)
    found = json.loads(run("tokenize", "--json", text))
    assert found == {"text": text, "count": len(ids), "token_ids": ids, "tokens": found["tokens"]}
    assert run("tokenize", "--ids", text) == " ".join(map(str, ids)) + "\n"
    assert run("tokenize", "--count", text) == f"{len(ids)}\n"
    assert run("tokenize", "--decode", *ids) == text + "\n"
    lines = run("tokenize", text).splitlines()
    assert [int(line.split()[0]) for line in lines] == ids
    assert [line.endswith("special") for line in lines] == [llm.tokenizer.is_special(token) for token in ids]


def test_tokenize_refuses_what_is_no_id(run: Any) -> None:
    for wrong in ("x", "-1", "1.5", "999999", "1" * 30, "٣"):
        assert "is no id of a token: there are 0 to" in run("tokenize", "--decode", "--", wrong, status=2)


def test_score_of_a_text(run: Any, reference: Any, reference_tokenizer: Any) -> None:
    import torch

    text = "Paris is the capital of France."
    ids = reference_tokenizer(text)["input_ids"]
    with torch.no_grad():
        logprobs = torch.log_softmax(reference(torch.tensor([ids])).logits[0], -1)
    expected = [float(logprobs[i, token]) for i, token in enumerate(ids[1:])]
    found = json.loads(run("score", text, "--json", "--dtype", "float32", *MEMORY))
    assert [token["id"] for token in found["tokens"]] == ids[1:]
    assert [token["logprob"] for token in found["tokens"]] == pytest.approx(expected, abs=2e-4)
    assert found["logprob"] == pytest.approx(sum(expected), abs=1e-3)
    assert found["perplexity"] == pytest.approx(math.exp(-sum(expected) / len(expected)), rel=1e-3)


def test_score_of_continuations(run: Any, llm: LLM) -> None:
    """Each is what its tokens add to the score of the prompt."""
    prompt, choices = "The capital of France is", [" a cat", " Paris", " Rome and nothing else"]
    flags = [flag for choice in choices for flag in ("--choice", choice)]
    found = json.loads(run("score", prompt, *flags, "--json", "--dtype", "float32", *MEMORY))["choices"]
    before = llm.score(prompt).logprob
    expected = {choice: llm.score(prompt + choice).logprob - before for choice in choices}
    assert [entry["text"] for entry in found] == sorted(choices, key=lambda choice: -expected[choice])
    for entry in found:
        assert entry["logprob"] == pytest.approx(expected[entry["text"]], abs=1e-3)
        assert entry["per_token"] == pytest.approx(entry["logprob"] / len(entry["tokens"]))
    assert run("score", prompt, *flags, *MEMORY).splitlines()[1].endswith("' Paris'")


def answers_of(text: str) -> list[dict[str, Any]]:
    """Without what was in the cache in time."""
    answers = [json.loads(line) for line in text.splitlines()]
    return [{name: value for name, value in answer.items() if name != "num_cached_tokens"} for answer in answers]


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    path = tmp_path / "requests.jsonl"
    path.write_text(
        '{"id": "a", "prompt": "The sky is", "max_tokens": 40, "ignore_eos": true}\n'
        "\n"
        '{"prompt": "Two plus", "temperature": 0.9, "n": 2}\n'
        "not json\n"
        '{"id": [1], "prompt": "x", "max_new_tokens": 5}\n'
        '{"prompt": "x", "prompt_token_ids": [1]}\n'
        '{"id": 7, "messages": [{"role": "user", "content": "Name a colour."}]}\n'
        '{"prompt_token_ids": [1, 2, 999999]}\n'
        '{"prompt_token_ids": [1, 2, 3], "logprobs": 1, "stop_token_ids": [0]}\n',
    )
    return path


FLAGS = ["--max-tokens", "5", "--seed", "3", *MEMORY]


def test_batch_keeps_order_and_says_what_is_wrong(requests: Path, run: Any, llm_bf16: LLM, tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    told = run("batch", requests, "-o", output, *FLAGS, status=1)
    assert "4 lines failed" in told
    answers = answers_of(output.read_text())
    assert [answer["line"] for answer in answers] == [1, 3, 4, 5, 6, 7, 8, 9]
    assert [answer.get("id") for answer in answers] == ["a", None, None, [1], None, 7, None, None]
    errors = [answer.get("error") for answer in answers]
    assert [error is None for error in errors] == [True, True, False, False, False, True, False, True]
    parts = ["not JSON", "use max_tokens", "has one of", "999999"]
    for error, part in zip([error for error in errors if error], parts, strict=True):
        assert part in error
    first = llm_bf16.generate("The sky is", SamplingParams(temperature=0, max_tokens=40, ignore_eos=True))[0]
    assert answers[0]["outputs"][0]["token_ids"] == first.outputs[0].token_ids
    assert len(answers[1]["outputs"]) == 2
    messages = [{"role": "user", "content": "Name a colour."}]
    chat = llm_bf16.chat(messages, SamplingParams(temperature=0, max_tokens=5))[0]
    assert answers[5]["outputs"][0]["text"] == chat.outputs[0].text
    assert "logprobs" in answers[7]["outputs"][0]
    # In a pipe, and whatever runs at a time, it is the same.
    alone = subprocess.run(
        [sys.executable, "-m", "pagedcore", "batch", "--in-flight", "1", *FLAGS],
        input=requests.read_text(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (alone.returncode, answers_of(alone.stdout)) == (1, answers)


def test_batch_survives_any_line(run: Any, tmp_path: Path) -> None:
    """Each line is one answer, and one line of JSON, whatever is in it."""
    lines = [
        b'{"id": "\\ud800", "prompt": "x", "max_tokens": 1}',  # half of a surrogate pair: JSON may hold it
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "x", "n": ' + b"9" * 400 + b"}",
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"prompt": 5}',
        b'{"prompt": ["a", "b"]}',
        b'{"prompt": "x", "stop": 5}',
        b'{"prompt": "x", "temperature": NaN}',
        b'{"messages": "hi"}',
        b'{"messages": []}',
        b'{"prompt": "x", "prompt_logprobs": 1}',
        b"null",
    ]
    path, output = tmp_path / "lines.jsonl", tmp_path / "answers.jsonl"
    path.write_bytes(b"\n".join(lines))  # the last without an end
    run("batch", path, "-o", output, *FLAGS, status=1)
    answers = answers_of(output.read_text())
    assert [answer["line"] for answer in answers] == list(range(1, len(lines) + 1))
    assert answers[0]["id"] == "\ud800" and "error" not in answers[0]
    assert all(answer["error"] for answer in answers[1:])


def test_batch_goes_on_where_it_ended(requests: Path, run: Any, tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    run("batch", requests, "-o", output, *FLAGS, status=1)
    whole = output.read_bytes()
    assert "is there already" in run("batch", requests, "-o", output, *FLAGS, status=2)
    cut = whole.index(b"\n", 10) + 30  # one answer, and a piece of the second
    output.write_bytes(whole[:cut])
    run("batch", requests, "-o", output, "--resume", *FLAGS, status=1)
    assert answers_of(output.read_text()) == answers_of(whole.decode())
    output.write_text("my own file\n")
    assert "it stays as it is" in run("batch", requests, "-o", output, "--resume", *FLAGS, status=2)
    assert output.read_text() == "my own file\n"


def test_convert_keeps_all(run: Any, gguf: Path, llm_bf16: LLM, tmp_path: Path) -> None:
    output = tmp_path / "model.pagedcore"
    run("convert", "-o", output)
    assert "is there already" in run("convert", "-o", output, status=2)
    assert "cannot be written" in run("convert", "-o", tmp_path / "none" / "x", status=1)
    params = SamplingParams(temperature=0, max_tokens=12)
    messages = [{"role": "user", "content": "Name a colour."}]
    assert llm_bf16.tokenizer is not None
    with LLM(output, kv_cache_memory="32MiB") as converted:
        for text in TEXTS:
            assert converted.tokenizer is not None
            assert converted.tokenizer.encode(text) == llm_bf16.tokenizer.encode(text)
        assert converted.tokenizer.special_tokens == llm_bf16.tokenizer.special_tokens
        assert converted.chat_prompt(messages) == llm_bf16.chat_prompt(messages)
        assert converted.chat(messages, params)[0].outputs == llm_bf16.chat(messages, params)[0].outputs
        assert {end.id for end in converted.end_tokens} == {end.id for end in llm_bf16.end_tokens}
    # What C++ sees (pagedcore/container_text.hpp).
    metadata = ModelFile(str(output)).metadata
    assert Tokenizer.from_text(metadata["tokenizer.json"]).encode(TEXTS[0]) == llm_bf16.tokenizer.encode(TEXTS[0])
    assert metadata["eos_token_ids"].split(",") == [str(end.id) for end in llm_bf16.end_tokens]
    assert "<|im_start|>" in metadata["chat_template"]


def test_completion(run: Any, tmp_path: Path) -> None:
    pytest.importorskip("shtab", reason="a dependency of the package")
    script = tmp_path / "completion"
    script.write_text(run("completion", "bash"))

    def offered(*words: str) -> list[str]:
        program = (
            f"source {script}; COMP_WORDS=({' '.join(words)!s}); COMP_CWORD={len(words) - 1}; COMP_TYPE=9; "
            f"$(complete -p pagedcore | sed 's/.*-F \\([^ ]*\\).*/\\1/') pagedcore {words[-1]!r}; "
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert offered("pagedcore", "gen") == ["generate"]
    assert "--max-tokens" in offered("pagedcore", "generate", "--max")
    assert offered("pagedcore", "generate", "--order", "p") == ["priority"]
    assert run("completion", "fish").count("--block-size") or "block-size" in run("completion", "fish")
    assert "#compdef pagedcore" in run("completion", "zsh")
