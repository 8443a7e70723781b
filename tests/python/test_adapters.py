"""LoRA adapters against PEFT, many of them in one batch, and the same bits whatever runs beside a request."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from greedy import GREEDY, PROMPTS, check
from pagedcore import LLM, BeamSearchParams, InvalidArgument, SamplingParams
from pagedcore.errors import Corrupt, Error, Io, Unsupported

Tiny = Callable[..., tuple[Path, Any]]
UNSCORED = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True, logprobs=2)  # prompts may be cached
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
OPTIONS: dict[str, Any] = {"kv_cache_memory": "8MiB", "block_size": 8, "threads": 2}


def adapted(model: Any, folder: Path, seed: int, **config: Any) -> Any:
    """PEFT's model, whose adapter is saved to `folder`. Its matrices are large enough to change tokens."""
    import peft

    torch.manual_seed(seed)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": LINEAR, "lora_dropout": 0.1} | config
    made = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    for name, parameter in made.named_parameters():
        if "lora_B" in name:  # zeros
            parameter.data = 0.1 * torch.randn_like(parameter)
    made.save_pretrained(folder)
    return made


@pytest.fixture(scope="module")
def three(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path], dict[str, Any]]:
    """A small model, and adapters of it whose ranks, modules and scales differ."""
    folder, model = tiny("llama", sharp=True)
    place = tmp_path_factory.mktemp("adapters")
    configs: dict[str, dict[str, Any]] = {
        "all": {},
        "attention": {"r": 3, "target_modules": ["q_proj", "v_proj"], "use_rslora": True},
        "patterns": {
            "target_modules": r".*layers\.1\..*(k_proj|up_proj|down_proj)",
            "rank_pattern": {"up_proj": 7},
            "alpha_pattern": {r"layers\.1\.mlp\.down_proj": 2.5},
        },
    }
    models = {name: adapted(model, place / name, seed, **c) for seed, (name, c) in enumerate(configs.items())}
    return folder, {name: place / name for name in models}, {"": model} | models


def in_one_batch(llm: LLM, work: list[tuple[list[int], str]], params: SamplingParams) -> list[Any]:
    """One call has one adapter; these run together, each with its own."""
    requests = [request for prompt, name in work for request in llm._sampled([prompt], params, {"adapter": name})]
    return llm._run(requests, progress=False)


def test_a_batch_of_several_adapters_equals_peft(three: Any) -> None:
    folder, paths, models = three
    work = [(prompt, name) for prompt in PROMPTS for name in models]
    with LLM(folder, adapters=paths, max_batched_tokens=48, **OPTIONS) as llm:
        assert llm.adapters == sorted(paths)
        found = in_one_batch(llm, work, GREEDY)
    for output, (_, name) in zip(found, work, strict=True):
        check(output, models[name])
    longest = [str(output.outputs[0].token_ids) for output in found[-len(models) :]]
    assert len(set(longest)) == len(models)  # no adapter is without effect


@pytest.mark.parametrize(
    ("family", "modules"),
    [
        ("qwen2", LINEAR),  # biases
        ("gemma3", LINEAR),  # norms after the products
        ("phi3", ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]),  # stacked
        ("opt", ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]),  # no gate
    ],
)
def test_families_equal_peft(family: str, modules: list[str], tiny: Tiny, tmp_path: Path) -> None:
    folder, model = tiny(family, sharp=True)
    reference = adapted(model, tmp_path, 5, target_modules=modules)
    with LLM(folder, adapters={"one": tmp_path}, max_batched_tokens=48, **OPTIONS) as llm:
        (found,) = llm.generate([PROMPTS[2]], GREEDY, adapter="one")
    check(found, reference)


def bits(outputs: list[Any]) -> list[Any]:
    return [[(s.token_ids, s.logprobs, s.cumulative_logprob) for s in output.outputs] for output in outputs]


@pytest.mark.parametrize(
    "numbers",
    [
        {"dtype": "float32"},
        {"dtype": "bfloat16"},
        {"dtype": "bfloat16", "weights": "int4"},
        {"dtype": "int8", "weights": "int8"},
    ],
    ids=["float32", "bfloat16", "native", "int8"],
)
def test_same_bits_as_alone(numbers: dict[str, Any], three: Any) -> None:
    """Alone on one thread, against batches of all adapters in small chunks on two, preempted and swapped."""
    folder, paths, _ = three
    names = ["", *paths]
    params = SamplingParams(temperature=0.8, seed=7, max_tokens=12, ignore_eos=True, logprobs=1, n=2)
    beams = BeamSearchParams(beam_width=3, max_tokens=6)
    work = [(prompt, name) for prompt in (PROMPTS[2], PROMPTS[1], PROMPTS[3][:70]) for name in names]
    alone = OPTIONS | numbers | {"threads": 1, "enable_prefix_caching": False}
    with LLM(folder, adapters=paths, **alone) as llm:
        expected = [bits(llm.generate([prompt], params, adapter=name))[0] for prompt, name in work]
        best = [bits(llm.beam_search([PROMPTS[1]], beams, adapter=name)) for name in names]
    assert len({str(e) for e in expected[: len(names)]}) == len(names)
    for preemption, options in (("recompute", {}), ("swap", {"preemption": "swap", "swap_space": "8MiB"})):
        with LLM(folder, adapters=paths, max_batched_tokens=24, **(OPTIONS | numbers | options)) as llm:
            for period in (0, 5):  # the second time prefixes are cached
                llm.engine.force_preemption(period, preemption)
                assert bits(in_one_batch(llm, work, params)) == expected
            assert [bits(llm.beam_search([PROMPTS[1]], beams, adapter=name)) for name in names] == best
            assert llm.stats()[f"preemptions_{preemption}"] > 0


def cached(llm: LLM, prompt: list[int], adapter: str, **options: Any) -> int:
    (output,) = llm.generate([prompt], SamplingParams(max_tokens=1, temperature=0), adapter=adapter, **options)
    return output.num_cached_tokens


# rule: engine.adapter-is-its-content
def test_cached_prefixes_belong_to_the_content_of_an_adapter(three: Any, tmp_path: Path) -> None:
    folder, paths, _ = three
    prompt = PROMPTS[2]
    store = {"kv_store": str(tmp_path), "kv_store_size": "8MiB"}
    with LLM(folder, max_adapters=3, max_adapter_rank=8, cache_events=100, **store, **OPTIONS) as llm:
        llm.load_adapter("a", paths["all"])
        llm.load_adapter("same", paths["all"])
        llm.load_adapter("b", paths["attention"])
        assert [cached(llm, prompt, name) for name in ("", "a", "b")] == [0, 0, 0]
        assert [cached(llm, prompt, name) for name in ("", "a", "b", "same")] == [48, 48, 48, 48]
        assert cached(llm, prompt, "a", salt=1) == 0
        salts = {event.salt for event in llm.cache_events() if event.kind == "stored" and event.parent == 0}
        assert len(salts) == 4  # no adapter, two contents, and one of them under a salt
        llm.unload_adapter("same")
        llm.load_adapter("same", paths["attention"])  # the name means something else now
        assert cached(llm, prompt[:30] + [5] * 20, "same") == 30
    with LLM(folder, adapters={"other name": paths["all"]}, **store, **OPTIONS) as llm:  # from the store
        assert cached(llm, prompt, "other name") == 48
        assert cached(llm, [9, *prompt], "other name") == 0
    with LLM(folder, adapters={"third": paths["patterns"]}, **store, **OPTIONS) as llm:
        assert cached(llm, prompt, "third") == 0


def test_registered_prefixes_belong_to_their_adapter(three: Any) -> None:
    folder, paths, _ = three
    for shared in (False, True):
        with LLM(folder, adapters=paths, enable_prefix_caching=False, **OPTIONS) as llm:
            llm.register_prefix("p", PROMPTS[1], adapter="all", shared=shared)
            (output,) = llm.generate([[5, 6]], UNSCORED, prefix="p", adapter="all")
            assert output.num_cached_tokens == (0 if shared else len(PROMPTS[1]))  # of a shared one nothing is shown
            (plain,) = llm.generate([[*PROMPTS[1], 5, 6]], UNSCORED, adapter="all")
            assert bits([output]) == bits([plain])
            for name in ("", "attention"):
                with pytest.raises(InvalidArgument, match="'p' is not registered"):
                    llm.generate([[5, 6]], UNSCORED, prefix="p", adapter=name)
            with pytest.raises(InvalidArgument, match="in use"):
                llm.unload_adapter("all")
            llm.release_prefix("p", adapter="all")
            llm.generate([[1]], UNSCORED)  # commands keep their order: by then the prefix has gone
            llm.unload_adapter("all")


def test_an_adapter_in_use_is_kept_or_drained(three: Any) -> None:
    folder, paths, _ = three
    long = SamplingParams(max_tokens=100, temperature=0, ignore_eos=True)
    with LLM(folder, adapters={"a": paths["all"]}, **OPTIONS) as llm:
        expected = llm.generate([PROMPTS[1]], long, adapter="a")[0].outputs[0].token_ids
        llm.pause()
        stream = llm.stream(PROMPTS[1], long, adapter="a")
        with pytest.raises(InvalidArgument, match="in use by 1 request"):
            llm.unload_adapter("a")
        llm.unload_adapter("a", drain=True)
        assert llm.adapters == []
        with pytest.raises(InvalidArgument, match=r"adapter 'a' is not loaded \(loaded: none\)"):
            llm.generate([PROMPTS[1]], adapter="a")
        with pytest.raises(InvalidArgument, match="max_adapters = 1"):
            llm.load_adapter("b", paths["attention"])
        llm.resume()
        assert [token for news in stream for token in news.outputs[0].token_ids] == expected
        llm.generate([[1]], GREEDY)
        llm.load_adapter("b", paths["attention"])  # its room is free again
        assert llm.adapters == ["b"]


def test_embeddings_and_scores_with_adapters(three: Any) -> None:
    folder, paths, models = three
    ids = PROMPTS[1]
    with LLM(folder, adapters=paths, **OPTIONS) as llm:
        score = llm.score(ids, adapter="all").logprob
        embedded = llm.embed(ids, normalize=False, adapter="all")
    with torch.inference_mode():
        expected = models["all"](torch.tensor([ids]), output_hidden_states=True)
    logits = torch.log_softmax(expected.logits[0, :-1].double(), -1)
    assert score == pytest.approx(logits.gather(1, torch.tensor(ids[1:])[:, None]).sum().item(), abs=1e-3)
    assert torch.allclose(torch.tensor(embedded), expected.hidden_states[-1][0, -1], atol=1e-3)


def test_the_plan_counts_adapters(three: Any) -> None:
    folder, paths, _ = three
    with LLM(folder, adapters=paths, **OPTIONS) as llm:
        plan = llm.memory_plan()
        stats = llm.stats()
    assert (stats["adapters"], stats["adapter_bytes"]) == (3, plan.adapters)
    assert plan.adapters == LLM.plan(folder, max_adapters=3, max_adapter_rank=7, **OPTIONS).adapters > 0
    without = LLM.plan(folder, **OPTIONS)
    assert without.adapters == 0 and plan.total == without.total + plan.adapters
    assert "adapters" in str(plan) and "adapters" not in str(without)


def changed(source: Path, target: Path, **config: Any) -> Path:
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    settings = json.loads((source / "adapter_config.json").read_text())
    (target / "adapter_config.json").write_text(json.dumps(settings | config))
    return target


@pytest.mark.parametrize(
    ("config", "error", "says"),
    [
        ({"use_dora": True}, Unsupported, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, Unsupported, "modules_to_save"),
        ({"bias": "all"}, Unsupported, "bias = all"),
        ({"peft_type": "LOHA"}, Unsupported, "peft_type = 'LOHA'"),
        ({"init_lora_weights": "pissa"}, Unsupported, "init_lora_weights = 'pissa'"),
        ({"r": 0}, Corrupt, "r is 0|r = 0|'r'"),
        ({"r": 5}, Corrupt, "has rank 4; the configuration says 5"),
        ({"lora_alpha": "much"}, Corrupt, "lora_alpha"),
        ({"rank_pattern": {"(": 4}}, Corrupt, "rank_pattern"),
        ({"alpha_pattern": ["q_proj"]}, Corrupt, "alpha_pattern"),
    ],
)
def test_configurations_that_mean_something_else_are_refused(
    config: dict[str, Any], error: type[Error], says: str, three: Any, tmp_path: Path
) -> None:
    folder, paths, _ = three
    path = changed(paths["all"], tmp_path / "changed", **config)
    with LLM(folder, max_adapters=1, **OPTIONS) as llm, pytest.raises(error, match=says):
        llm.load_adapter("a", path)


def test_bad_adapters_and_names_are_refused(three: Any, tiny: Tiny, tmp_path: Path) -> None:
    folder, paths, _ = three
    _, wider = tiny("llama", hidden_size=128, num_attention_heads=8)
    _, deeper = tiny("llama", num_hidden_layers=4)
    adapted(wider, tmp_path / "wider", 0)
    adapted(deeper, tmp_path / "deeper", 0)
    adapted(tiny("llama", sharp=True)[1], tmp_path / "head", 0, target_modules=["lm_head"])
    (tmp_path / "empty").mkdir()
    with LLM(folder, max_adapters=2, max_adapter_rank=4, **OPTIONS) as llm:
        llm.load_adapter("a", paths["all"])
        for path, error, says in (
            (tmp_path / "wider", InvalidArgument, r"the model's is \["),
            (tmp_path / "deeper", InvalidArgument, "another model"),
            (tmp_path / "head", Unsupported, "lm_head"),
            (tmp_path / "empty", Io, "adapter_config.json"),
            (paths["patterns"], InvalidArgument, "rank 7, above max_adapter_rank = 4"),
        ):
            with pytest.raises(error, match=says):
                llm.load_adapter("b", path)
        with pytest.raises(InvalidArgument, match="'a' is loaded"):
            llm.load_adapter("a", paths["attention"])
        with pytest.raises(InvalidArgument, match="name of an adapter is empty"):
            llm.load_adapter("", paths["attention"])
        with pytest.raises(InvalidArgument, match=r"'b' is not loaded \(loaded: a\)"):
            llm.unload_adapter("b")
        assert llm.adapters == ["a"]
    with LLM(folder, **OPTIONS) as llm, pytest.raises(InvalidArgument, match="max_adapters"):
        llm.load_adapter("a", paths["all"])
    for options, says in (
        ({"tensor_parallel": 2}, "tensor_parallel"),
        ({"device": "cuda"}, "device = 'cuda'"),
    ):
        with pytest.raises(Unsupported, match=says):
            LLM(folder, max_adapters=1, **(OPTIONS | options))
    with pytest.raises(Unsupported, match="experts"):
        LLM(tiny("mixtral", sharp=True)[0], max_adapters=1, **OPTIONS)
