"""tests/cuda/sass_gate.py on code of our own: what a gate must find."""

import json
import sys
from pathlib import Path

import pytest

CUDA = Path(__file__).resolve().parents[1] / "cuda"
sys.path.insert(0, str(CUDA))

import sass  # noqa: E402
import sass_gate  # noqa: E402

# As nvdisasm prints it, shortened.
CODE = """
	.section	.text._ZN9pagedcore4cuda4loadI6__halfLNS0_6KvTypeE2EEEvPKfPf,"ax",@progbits
.text._ZN9pagedcore4cuda4loadI6__halfLNS0_6KvTypeE2EEEvPKfPf:
        /*0000*/                   MOV R1, c[0x0][0x28] ;
        /*0010*/                   LDG.E.128.CONSTANT R4, [R2.64] ;
        /*0020*/              @!P0 LDG.E.EF.128 R8, [R2.64+0x10] ;
.L_x_1:
        /*0030*/               @P1 CALL.REL.NOINC `($__internal_0_$__cuda_sm20_rcp_rn_f32_slowpath) ;
        /*0040*/              @!P1 CALL.REL.NOINC `(.L_x_1) ;
        /*0050*/                   STG.E.64 [R2.64], R4 ;
        /*0060*/                   EXIT ;
.text._ZN9pagedcore4cuda5spillEPf:
        /*0000*/                   STL.64 [R1], R4 ;
        /*0010*/                   WARPSYNC 0xffffffff ;
        /*0020*/                   LDL.64 R4, [R1] ;
"""
LOAD, SPILL = "load<__half, KvType2>", "spill"
EVERY = {"LDL": "== 0", "STL": "== 0", "CALL": "== 0", "WARPSYNC": "== 0"}
LOAD_HOLDS = {"LDG.128": ">= 2", "LDG.EF.128": "== 1", "STG.64": ">= 1", "CALL": "<= 1"}


def expectations(*entries):
    return sass_gate.load({"every": EVERY, "expectations": list(entries)}, "sm_80")


def entry(kernels, facts=None, count=1, why="for a reason"):
    return {"kernels": kernels, "count": count, "facts": facts or {}, "why": why}


def test_kernels_are_read():
    load, spill = sass.parse(CODE)
    assert (load.name, spill.name) == (LOAD, SPILL)
    assert load.count("LDG.128") == 2
    assert load.count("LDG.EF.128") == load.count("LDG.CONSTANT") == load.count("STG") == 1
    assert load.count("LDG.128.EF") == load.count("LD") == load.count("LDG.64") == 0
    assert load.count("CALL") == 1  # that of a label is a jump
    assert spill.count("STL") == spill.count("LDL") == spill.count("WARPSYNC") == 1


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("_ZN9pagedcore4cuda12_GLOBAL__N_14sumsEPf", "sums"),
        ("_ZN9pagedcore4cuda6kernelINS0_5ShapeI6__halfLi64EEEEEvNS0_4ArgsE", "kernel<Shape<__half, 64>>"),
        ("plain", "plain"),
    ],
)
def test_names(symbol, name):
    assert sass.short_name(sass.demangle(symbol)) == name


def test_what_holds_passes():
    spills = {"LDL": "== 1", "STL": "== 1", "WARPSYNC": "<= 1"}
    assert sass_gate.problems(sass.parse(CODE), expectations(entry("load<.*>", LOAD_HOLDS), entry(SPILL, spills))) == []


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ({**LOAD_HOLDS, "LDG.128": ">= 3"}, f"{LOAD}: 2 LDG.128, not >= 3"),
        ({**LOAD_HOLDS, "LDSM": ">= 1"}, f"{LOAD}: 0 LDSM, not >= 1"),
        ({**LOAD_HOLDS, "STG": "== 2"}, f"{LOAD}: 1 STG, not == 2"),
        ({"LDG.128": ">= 2"}, f"{LOAD}: 1 CALL, not == 0"),
    ],
)
def test_a_fact_that_does_not_hold(facts, problem):
    assert sass_gate.problems(sass.parse(CODE)[:1], expectations(entry("load<.*>", facts))) == [problem]


def test_facts_of_one_architecture():
    data = {"every": EVERY, "expectations": [entry("load<.*>", LOAD_HOLDS) | {"on": {"sm_90": {"LDG.128": "== 3"}}}]}
    kernels = sass.parse(CODE)[:1]
    assert sass_gate.problems(kernels, sass_gate.load(data, "sm_80")) == []
    assert sass_gate.problems(kernels, sass_gate.load(data, "sm_90")) == [f"{LOAD}: 2 LDG.128, not == 3"]


# rule: cuda.no-local-memory, cuda.convergence-is-provable
def test_local_memory_and_warpsync_are_found_in_every_kernel():
    assert sass_gate.problems(sass.parse(CODE)[1:], expectations(entry(SPILL))) == [
        f"{SPILL}: 1 LDL, not == 0",
        f"{SPILL}: 1 STL, not == 0",
        f"{SPILL}: 1 WARPSYNC, not == 0",
    ]


def test_every_kernel_has_one_expectation_and_every_expectation_its_kernels():
    load = sass.parse(CODE)[:1]
    assert sass_gate.problems(load, []) == [f"{LOAD}: matched by none of the expectations, not by one"]
    twice = expectations(entry("load<.*>", LOAD_HOLDS), entry(".*KvType2.*", LOAD_HOLDS, count=0))
    assert sass_gate.problems(load, twice) == [
        f"{LOAD}: matched by 'load<.*>' and '.*KvType2.*' of the expectations, not by one",
        "'load<.*>': matches 0 kernels, not 1",
    ]
    gone = expectations(entry("load<.*>", LOAD_HOLDS), entry("gone", count=2))
    assert sass_gate.problems(load, gone) == ["'gone': matches 0 kernels, not 2"]
    assert sass_gate.problems(load, expectations(entry("load", LOAD_HOLDS))) != []  # the whole name counts


def test_expectations_that_say_nothing():
    with pytest.raises(ValueError, match="'some' is no fact"):
        expectations(entry(SPILL, {"LDG": "some"}))
    with pytest.raises(ValueError, match="no 'why'"):
        expectations(entry(SPILL, {"CALL": "<= 1"}, why=""))
    with pytest.raises(ValueError, match="fact is unknown"):
        expectations({**entry(SPILL), "fact": {}})


def test_the_expectations_of_the_project():
    data = json.loads(sass_gate.EXPECTATIONS.read_text())
    assert {"LDL", "STL", "CALL", "WARPSYNC"} <= set(data["every"])
    for architecture in data["architectures"]:
        assert len(sass_gate.load(data, architecture)) == len(data["expectations"]) > 10
    assert {name for e in data["expectations"] for name in e.get("on", {})} <= set(data["architectures"])


def test_missing_tools_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(sass, "tool_folders", lambda: [tmp_path])
    with pytest.raises(sass.ToolMissing, match="pip install nvidia-cuda-cuobjdump"):
        sass.disassemble(tmp_path / "library.so", "sm_80")
