"""The installed package: what an import costs, what is public, where C++ finds it; and who may include whom."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pagedcore

ROOT = Path(__file__).resolve().parents[2]


def run(code):
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_import_is_light():
    """`import pagedcore` takes under 0.15 s of CPU time, and brings in none of the large packages."""
    code = (
        "import sys, time; t = time.process_time(); import pagedcore; t = time.process_time() - t;"
        "print(t, *sorted({m.partition('.')[0] for m in sys.modules}))"
    )
    outputs = [run(code).split() for _ in range(5)]
    assert min(float(o[0]) for o in outputs) < 0.15
    assert not {"numpy", "torch", "huggingface_hub", "tokenizers", "jinja2", "asyncio"} & set(outputs[0])


def test_public_names_exist():
    missing = [name for name in pagedcore.__all__ if not hasattr(pagedcore, name)]
    assert missing == []
    assert set(pagedcore.__all__) <= set(dir(pagedcore))
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = pagedcore.Nonsense


def test_version():
    version = (ROOT / "VERSION").read_text().strip()
    assert pagedcore.__version__ == version
    header = Path(pagedcore.get_include(), "pagedcore", "version.hpp").read_text()
    assert f'#define PAGEDCORE_VERSION "{version}"' in header
    assert version in run("import importlib.metadata as m; print(m.version('pagedcore'))")


def test_headers_and_cmake_package_are_installed():
    headers = {p.name for p in Path(pagedcore.get_include(), "pagedcore").iterdir()}
    public = {p.name.removesuffix(".in") for p in (ROOT / "cpp" / "include" / "pagedcore").iterdir()}
    assert headers == public
    cmake = {p.name for p in Path(pagedcore.get_cmake_dir()).iterdir()}
    assert {"pagedcoreConfig.cmake", "pagedcoreConfigVersion.cmake", "pagedcoreTargets.cmake"} <= cmake
    targets = "".join(p.read_text() for p in Path(pagedcore.get_cmake_dir()).iterdir())
    assert str(ROOT) not in targets  # relocatable


def test_libraries_are_there_once():
    libraries = Path(pagedcore.get_include()).parent.rglob("libpagedcore*")
    version = pagedcore.__version__.rpartition(".")[0]
    assert sorted(p.name for p in libraries) == [f"libpagedcore.so.{version}", "libpagedcore_c.so.1"]


# --------------------------------------------------------------------------------------------------------------------
# tests/check_includes.py


@pytest.fixture(scope="module")
def checker():
    spec = importlib.util.spec_from_file_location("check_includes", ROOT / "tests" / "check_includes.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def problems(checker, cpp):
    return [
        (p.file.relative_to(cpp).as_posix(), p.line, p.why)
        for p in (*checker.check_edges(cpp), *checker.check_isa_sources(cpp))
    ]


def test_include_graph(checker):
    assert problems(checker, ROOT / "cpp") == []


@pytest.mark.parametrize(
    ("file", "include", "why"),
    [
        ("kv/a.cpp", '"scheduler/b.hpp"', "kv may not include scheduler"),
        ("cpu/a.cpp", '"pagedcore/kv_cache.hpp"', "cpu may not see pagedcore/kv_cache.hpp"),
        ("cpu/a.cpp", '"model/b.hpp"', "cpu may not include model"),
        ("io/a.cpp", '"model/b.hpp"', "io may not include model"),
        ("bindings/a.cpp", '"engine/b.hpp"', "bindings may not include engine"),
        ("engine/a.cpp", '"b.hpp"', "b.hpp is not a path below cpp/"),
        ("engine/a.cpp", "<pagedcore/error.hpp>", '"pagedcore/error.hpp", not <pagedcore/error.hpp>'),
        ("engine/a.cpp", '"pagedcore/secret.hpp"', "pagedcore/secret.hpp is no public header"),
        ("model/a.cpp", "<nanobind/nanobind.h>", "only bindings may include nanobind"),
        ("include/pagedcore/error.hpp", '"base/b.hpp"', "a public header may not include the internal base/b.hpp"),
        ("include/pagedcore/kv_cache.hpp", '"pagedcore/engine.hpp"', "kv may not see pagedcore/engine.hpp"),
        ("cpu/x_avx2.cpp", "<algorithm>", "<algorithm> is reached from cpu/x_avx2.cpp"),
    ],
)
# rule: cpu.isa-sources-share-nothing
def test_checker_finds(checker, tmp_path, file, include, why):
    for room in checker.ROOMS_BELOW:
        (tmp_path / room).mkdir()
        (tmp_path / room / "b.hpp").touch()
    (tmp_path / "include" / "pagedcore").mkdir(parents=True)
    (tmp_path / file).write_text(f"#include <cstdint>\n\n#include {include}\n")
    assert problems(checker, tmp_path) == [(file, 3, why)]


def test_checker_follows_headers_of_isa_sources(checker, tmp_path):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "k_amx.cpp").write_text('#include "cpu/tile.hpp"\n#include <immintrin.h>\n')
    (tmp_path / "cpu" / "tile.hpp").write_text("#include <vector>\n")
    assert problems(checker, tmp_path) == [("cpu/tile.hpp", 1, "<vector> is reached from cpu/k_amx.cpp")]
    (tmp_path / "cpu" / "tile.hpp").write_text("#include <cstdint>\n")
    assert problems(checker, tmp_path) == []


# rule: bindings.one-binary
@pytest.mark.skipif(shutil.which("nm") is None, reason="nm comes with binutils")
def test_extension_needs_no_python_version(tmp_path):
    """Only symbols of the stable ABI: none that begins with _Py beyond those that its macros use."""
    symbols = run(
        "import subprocess, pagedcore._core as c;"
        "print(subprocess.run(['nm', '-D', '--undefined-only', c.__file__], capture_output=True, text=True).stdout)"
    ).split()
    assert pagedcore._core.__file__.endswith(".abi3.so")
    private = {s for s in symbols if s.startswith("_Py")} - {
        "_Py_Dealloc",
        "_Py_NoneStruct",
        "_Py_TrueStruct",
        "_Py_FalseStruct",
    }
    assert private == set()
