"""tests/check_sizes.py counts what it is for."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

CHECKER = Path(__file__).resolve().parents[1] / "check_sizes.py"


@pytest.fixture(scope="module")
def checker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_sizes", CHECKER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("void f(int a, const std::map<int, long>& b, char* const* c);", [("f", 3)]),
        ("X::X(int a, Callback<void(int, int)> b) : a_(a) {}", [("X", 2)]),
        ("void f(std::span<const int> a,\n       int b = g(1, 2), float (*c)(int, int) = nullptr) {}", [("f", 3)]),
        ("int f(const Tensor&, std::int32_t, bool);", [("f", 3)]),
        ('g(x + 1, "text", y.z, 3);  // h(int a, int b)', []),
        ("if (a == b) return f(a - 1, b);", []),
    ],
)
def test_parameters_of_cpp(checker: ModuleType, text: str, expected: list[tuple[str, int]]) -> None:
    found = [(part.name, part.size) for part in checker.cpp_functions("x.cpp", checker.plain(text))]
    assert [part for part in found if part[1] > 1] == expected


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ("int a; std::vector<int> b; char c[4];", 3),
        ("int a = 0, b = f(1, 2); std::map<int, int> c{};", 3),
        ("int f() const; int g() { return a; } X(int a); X& operator=(const X&) = delete; int a;", 1),
        ("using T = int; static int b; enum class E { p, q }; struct In { int x; int y; } in; int a; // int c;", 2),
        (" public: int a;\n private:\n  const int b_; mutable std::mutex m_;", 3),
        ("void (*f)(int rows); int a;", 1),  # what is called counts as a function: kernels' tables are exempt
    ],
)
def test_fields_of_cpp(checker: ModuleType, body: str, fields: int) -> None:
    found = {p.name: p.size for p in checker.cpp_fields("x.hpp", checker.plain("struct X : Base {" + body + "};"))}
    assert found["X"] == fields


def test_python(checker: ModuleType) -> None:
    text = "class C:\n    a: int\n    b: int = 0\n    c = 1\n    def f(self, x, *, y=0, **z): ...\n"
    assert [(p.name, p.size) for p in checker.python_functions("x.py", text)] == [("f", 3)]
    assert [(p.name, p.size) for p in checker.python_fields("x.py", text)] == [("C", 2)]
