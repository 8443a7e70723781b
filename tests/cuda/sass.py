"""The machine code of a compiled CUDA library, as text: kernels with the counts of their instructions.

Uses cuobjdump and nvdisasm: those on the PATH or of the toolkit, or those of the wheels nvidia-cuda-cuobjdump and
nvidia-cuda-nvdisasm, which this project's `dev` extra installs.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_SECTION = re.compile(r"\.text\.(\S+):$")
_INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*).*")
_RESOURCES = re.compile(r" Function (\S+):\s+REG:(\d+) STACK:\d+ SHARED:(\d+) ")
# A call of a label does not come back: the compiler writes some jumps so.
_JUMP = re.compile(r".*\bCALL\S* `\(\.L_")


class ToolMissing(Exception):
    pass


@dataclass
class Kernel:
    name: str
    """As in C++, without namespaces, result and parameters; enumerators as in KvType2."""
    opcodes: Counter[str] = field(default_factory=Counter)
    """How often each instruction stands in the code, by its name with all suffixes: LDG.E.128.CONSTANT."""

    def count(self, instruction: str) -> int:
        """Of instructions whose suffixes contain those of `instruction` in order: LDG.128 counts LDG.E.EF.128 too."""
        return sum(n for opcode, n in self.opcodes.items() if is_kind_of(opcode, instruction))


def is_kind_of(opcode: str, instruction: str) -> bool:
    head, *suffixes = opcode.split(".")
    wanted_head, *wanted = instruction.split(".")
    rest = iter(suffixes)
    return head == wanted_head and all(suffix in rest for suffix in wanted)


def parse(text: str) -> list[Kernel]:
    """The kernels of nvdisasm's output."""
    kernels: list[Kernel] = []
    for line in text.splitlines():
        if match := _SECTION.match(line):
            kernels.append(Kernel(short_name(demangle(match[1]))))
        elif kernels and (match := _INSTRUCTION.match(line)) and not _JUMP.match(match[0]):
            kernels[-1].opcodes[match[1]] += 1
    return kernels


def demangle(symbol: str) -> str:
    library = ctypes.CDLL("libstdc++.so.6")
    library.__cxa_demangle.restype = ctypes.c_void_p
    status = ctypes.c_int()
    text = library.__cxa_demangle(symbol.encode(), None, None, ctypes.byref(status))
    if status.value != 0:
        return symbol
    name = ctypes.string_at(text).decode()
    ctypes.CDLL(None).free(ctypes.c_void_p(text))
    return name


def short_name(name: str) -> str:
    """`void pagedcore::cuda::f<(pagedcore::cuda::E)2, __half>(Args)` is f<E2, __half>."""
    name = re.sub(r"\w+::|\(anonymous namespace\)::", "", name)
    name = re.sub(r"\((\w+)\)(?=\d)", r"\1", name)
    depth = 0
    for i, character in enumerate(name):  # the parameters begin at the first parenthesis outside of < >
        depth += (character == "<") - (character == ">")
        if character == "(" and depth == 0:
            name = name[:i]
            break
    return name.removeprefix("void ").replace("> >", ">>")


def tool_folders() -> Iterable[Path]:
    yield from (Path(p) for p in os.environ.get("PATH", "").split(os.pathsep) if p)
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if variable in os.environ:
            yield Path(os.environ[variable], "bin")
    yield Path("/usr/local/cuda/bin")
    for site in (*sys.path, *map(str, ROOT.glob(".venv/lib/python3*/site-packages"))):
        yield from sorted(Path(site).glob("nvidia/cu*/bin"))


def find_tool(name: str) -> str:
    found = shutil.which(name, path=os.pathsep.join(map(str, tool_folders())))
    if found is None:
        raise ToolMissing(
            f"{name} is not on the PATH, in the CUDA toolkit, or in a wheel of this Python or of {ROOT}/.venv; "
            f"pip install nvidia-cuda-{name}"
        )
    return found


def resources(library: Path, architecture: str) -> dict[str, tuple[int, int]]:
    """Of every kernel the registers of a thread and the static shared memory of a block."""
    command = [find_tool("cuobjdump"), "-res-usage", "-arch", architecture, str(library)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {short_name(demangle(m[1])): (int(m[2]), int(m[3])) for m in _RESOURCES.finditer(text)}


def architectures(library: Path) -> list[str]:
    """What the library holds machine code for, such as sm_80."""
    listed = subprocess.run(
        [find_tool("cuobjdump"), "--list-elf", str(library)], check=True, capture_output=True, text=True
    ).stdout
    return sorted(set(re.findall(r"\.(sm_\w+)\.cubin", listed)), key=lambda name: int(re.sub(r"\D", "", name)))


def disassemble(library: Path, architecture: str) -> list[Kernel]:
    """The kernels that `library` holds for an architecture such as sm_80."""
    cuobjdump, nvdisasm = find_tool("cuobjdump"), find_tool("nvdisasm")
    with tempfile.TemporaryDirectory() as folder:
        extract = [cuobjdump, "-xelf", f".{architecture}.cubin", str(library.resolve())]
        subprocess.run(extract, cwd=folder, check=True, capture_output=True)
        cubins = sorted(Path(folder).iterdir())
        if not cubins:
            raise ValueError(f"{library} holds no machine code for {architecture}")
        run = [[nvdisasm, "--print-code", str(cubin)] for cubin in cubins]
        texts = [subprocess.run(c, check=True, capture_output=True, text=True).stdout for c in run]
    return [kernel for text in texts for kernel in parse(text)]
