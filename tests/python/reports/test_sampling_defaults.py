"""Without parameters a model is sampled as its publishers say: a flag, then generation_config.json, then a GGUF file's
general.sampling.*, then ours: greedily on the command line, temperature 1 in Python. Parameters that are given are
taken whole.

The reference of the texts is transformers' greedy search on the same file. Values are those written into the files.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gguf_writer import write_gguf
from pagedcore import LLM, SamplingParams
from pagedcore.errors import Corrupt, InvalidArgument
from pagedcore.loading import load_description
from pagedcore.sampling_params import with_changes

Tiny = Callable[..., tuple[Path, Any]]
HINT = "pagedcore: the model has a chat template: --chat makes a message of each prompt\n"
OURS = SamplingParams()


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pagedcore", *arguments, "--kv-cache-memory", "48MiB"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


PROMPTS = ["The capital of France is", "def fibonacci(n):", "Once upon a time"]


def test_the_command_line_writes_the_greedy_text_of_three_prompts(reference: Any, reference_tokenizer: Any) -> None:
    """Float32, as the reference computes. 256 tokens are the command's own limit; 24 are compared."""
    done = cli("generate", *PROMPTS, "--max-tokens", "24", "--dtype", "float32", "--json")
    assert (done.returncode, done.stderr) == (0, HINT)  # said once, of three prompts
    for prompt, line in zip(PROMPTS, done.stdout.splitlines(), strict=True):
        ids = reference_tokenizer(prompt, return_tensors="pt")
        expected = reference.generate(**ids, do_sample=False, max_new_tokens=24)[
            0, ids["input_ids"].shape[1] :
        ].tolist()
        (output,) = json.loads(line)["outputs"]
        assert output["token_ids"] == expected
        text = reference_tokenizer.decode(expected, skip_special_tokens=True)
        assert output["text"] == text


def test_chat_runs_to_the_end_of_the_turn(gguf: Path, tmp_path: Path, reference: Any, reference_tokenizer: Any) -> None:
    """Without parameters, of a model whose publishers do not sample: the reference's greedy answer, whole."""
    messages = [{"role": "user", "content": "Write one sentence about cats."}]
    ids = reference_tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
    made = reference.generate(**ids, do_sample=False, max_new_tokens=100)[0, ids["input_ids"].shape[1] :].tolist()
    assert 16 < len(made) < 100 and made[-1] == reference_tokenizer.convert_tokens_to_ids("<|im_end|>")
    (tmp_path / gguf.name).symlink_to(gguf)
    (tmp_path / "generation_config.json").write_text('{"do_sample": false}')
    with LLM(tmp_path / gguf.name, dtype="float32", kv_cache_memory="48MiB") as llm:
        (output,) = llm.chat(messages)
        assert (output.outputs[0].token_ids, output.outputs[0].finish_reason) == (made, "stop")
        assert [t for news in llm.stream_chat(messages) for t in news.outputs[0].token_ids] == made
    done = cli("generate", "--chat", messages[0]["content"], "--dtype", "float32")
    assert (done.stdout, done.stderr) == (reference_tokenizer.decode(made, skip_special_tokens=True) + "\n", "")


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    shutil.copytree(tiny("llama")[0], tmp_path / "model")
    return tmp_path / "model"


def sampling(path: Path, config: dict[str, Any] | None) -> dict[str, Any]:
    if config is not None:
        (path if path.is_dir() else path.parent).joinpath("generation_config.json").write_text(json.dumps(config))
    return load_description(path).sampling


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, {}),
        ({"temperature": 0.6, "top_p": 0.9, "do_sample": True}, {"temperature": 0.6, "top_p": 0.9}),
        ({"temperature": 0.6, "top_k": 20}, {"temperature": 0.6, "top_k": 20}),
        ({"do_sample": True, "top_k": 50}, {"temperature": 1.0, "top_k": 50}),  # transformers' own temperature
        ({"do_sample": False, "temperature": 0.7}, {"temperature": 0.0}),  # greedy in transformers
        ({"temperature": None, "top_p": None, "do_sample": None}, {}),
        ({"min_p": 0.05, "repetition_penalty": 1.1}, {"min_p": 0.05, "repetition_penalty": 1.1}),
        ({"max_new_tokens": 77, "min_new_tokens": 3}, {"max_tokens": 77, "min_tokens": 3}),
        ({"top_k": 0, "top_p": 1.0, "temperature": 1}, {"top_k": 0, "top_p": 1.0, "temperature": 1.0}),
        ({"transformers_version": "4.40.0", "pad_token_id": 0, "num_beams": 1}, {}),
    ],
)
def test_generation_config(folder: Path, config: dict[str, Any], expected: dict[str, Any]) -> None:
    assert sampling(folder, config) == expected
    with LLM(folder, kv_cache_memory="1MiB") as llm:
        assert llm.sampling_defaults == expected
        assert llm.default_sampling_params() == replace(OURS, **expected)
        assert llm.default_sampling_params(chat=True) == replace(OURS, **{"max_tokens": None} | expected)


def test_parameters_that_are_given_are_taken_whole(folder: Path) -> None:
    """top_k 1 of the file makes any temperature greedy: what is drawn shows who was asked."""
    sampling(folder, {"top_k": 1, "max_new_tokens": 12})
    with LLM(folder, kv_cache_memory="1MiB") as llm:
        prompt = [[1, 2, 3]]
        greedy = llm.generate(prompt, SamplingParams(temperature=0, max_tokens=12))[0].outputs[0].token_ids
        drawn = llm.generate(prompt, SamplingParams(max_tokens=12, seed=1))[0].outputs[0].token_ids
        assert llm.generate(prompt)[0].outputs[0].token_ids == greedy != drawn
        assert [t for news in llm.stream(prompt[0]) for t in news.outputs[0].token_ids] == greedy
        assert len(llm.generate(prompt, SamplingParams(seed=1))[0].outputs[0].token_ids) == 16


GGUF = {"temp": 0.25, "top_k": 7, "top_p": 0.5, "min_p": 0.125, "penalty_repeat": 1.5, "mirostat": 2}
READ = {"temperature": 0.25, "top_k": 7, "top_p": 0.5, "min_p": 0.125, "repetition_penalty": 1.5}


def gguf(tiny: Tiny, path: Path, **values: Any) -> Path:
    def edit(writer: Any) -> None:
        for name, value in values.items():
            add = {int: writer.add_int32, float: writer.add_float32, str: writer.add_string}[type(value)]
            add(f"general.sampling.{name}", value)

    return write_gguf(path / "model.gguf", tiny("llama")[1], "llama", edit)


def test_gguf_files_say_it_too_and_a_generation_config_beside_one_comes_first(tiny: Tiny, tmp_path: Path) -> None:
    path = gguf(tiny, tmp_path, **GGUF)
    assert sampling(path, None) == READ
    assert sampling(gguf(tiny, tmp_path, temp=-1.0, top_p=1.5, min_p=-1.0), None) == {
        "temperature": 0.0,
        "top_p": 1.0,
        "min_p": 0.0,
    }  # as llama.cpp takes them
    gguf(tiny, tmp_path, **GGUF)
    assert sampling(path, {"temperature": 0.75, "top_k": None}) == READ | {"temperature": 0.75}


def test_gguf_values_that_are_no_numbers(tiny: Tiny, tmp_path: Path) -> None:
    path = gguf(tiny, tmp_path, temp="hot")
    with pytest.raises(Corrupt, match=r"model\.gguf: general\.sampling\.temp"):
        load_description(path)


@pytest.mark.parametrize(
    ("name", "value"), [("min_p", 1.5), ("penalty_repeat", 0.0), ("top_p", 0.0), ("top_p", -1.0), ("top_k", -5)]
)
def test_gguf_values_out_of_range(
    tiny: Tiny, tmp_path: Path, name: str, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A recommendation that nobody can follow is left out, and said; the others hold."""
    path = gguf(tiny, tmp_path, **{"temp": 0.5, name: value})
    assert sampling(path, None) == {"temperature": 0.5}
    assert re.search(rf"model\.gguf: general\.sampling\.{name} = {value} is ignored", caplog.text)


@pytest.mark.parametrize(
    ("values", "left", "ignored"),
    [
        ({"temperature": -1}, {}, "temperature = -1"),
        ({"top_p": 0}, {}, "top_p = 0"),
        ({"top_k": 10**30}, {}, "top_k = 1000"),
        ({"max_new_tokens": 5, "min_new_tokens": 9}, {"max_tokens": 5}, "min_new_tokens = 9"),
        ({"min_new_tokens": 9, "max_new_tokens": 5}, {"max_tokens": 5}, "min_new_tokens = 9"),
        ({"max_new_tokens": -1, "min_new_tokens": 9}, {"min_tokens": 9}, "max_new_tokens = -1"),
    ],
)
def test_what_a_generation_config_cannot_mean(
    folder: Path, values: dict[str, Any], left: dict[str, Any], ignored: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert sampling(folder, {"repetition_penalty": 1.5} | values) == {"repetition_penalty": 1.5} | left
    (record,) = caplog.records
    assert f"generation_config.json: {ignored}" in record.getMessage() and "is ignored" in record.getMessage()


def test_limits_that_nobody_asked_for_give_way() -> None:
    """To the one of min_tokens and max_tokens that a caller names; both named must agree."""
    assert with_changes({"min_tokens": 9, "max_tokens": 20}, {"max_tokens": 4}) == {"min_tokens": 4, "max_tokens": 4}
    assert with_changes({"max_tokens": 5}, {"min_tokens": 8}) == {"min_tokens": 8, "max_tokens": 8}
    assert with_changes({"min_tokens": 9, "max_tokens": None}, {"n": 2}) == {
        "min_tokens": 9,
        "max_tokens": None,
        "n": 2,
    }
    with pytest.raises(InvalidArgument, match="min_tokens = 8 exceeds max_tokens = 4"):
        SamplingParams(**with_changes({}, {"min_tokens": 8, "max_tokens": 4}))


def test_flags_come_first(gguf: Path, tmp_path: Path) -> None:
    """The default model beside a generation_config.json that samples with a penalty: the greedy text shows that a
    flag's temperature holds, and the file's penalty too."""
    (tmp_path / gguf.name).symlink_to(gguf)
    (tmp_path / "generation_config.json").write_text('{"temperature": 5.0, "repetition_penalty": 1.3}')
    flags = ["--model", str(tmp_path / gguf.name), "--max-tokens", "12", "--json", "--temperature", "0"]
    (output,) = json.loads(cli("generate", PROMPTS[0], *flags).stdout)["outputs"]
    with LLM(gguf, kv_cache_memory="48MiB") as llm:
        params = SamplingParams(temperature=0, repetition_penalty=1.3, max_tokens=12)
        expected, plain = (
            llm.generate(PROMPTS[0], p)[0].outputs[0].token_ids for p in (params, replace(params, repetition_penalty=1))
        )
    assert output["token_ids"] == expected != plain


def test_doctor_says_what_was_taken_and_why(tiny: Tiny, folder: Path) -> None:
    sampling(folder, {"top_k": 9, "eos_token_id": [5]})
    done = subprocess.run(
        [sys.executable, "-m", "pagedcore", "doctor", "--json", "--model", str(folder)], capture_output=True, text=True
    )
    model = json.loads(done.stdout)["model"]
    assert model["sampling"] == {"top_k": 9}
    assert {end["id"]: end["why"] for end in model["end_tokens"]}[5] == "generation_config.json: eos_token_id"
