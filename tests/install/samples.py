"""Writes the C and C++ code of documents into files that a compiler takes:  samples.py FOLDER DOCUMENT...

A block without main() is lines for a program: they become a function.
"""

import re
import sys
from pathlib import Path

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
BLOCK = re.compile(r"^```(cpp|c)\n(.*?)^```", re.MULTILINE | re.DOTALL)
for document in map(Path, sys.argv[2:]):
    for number, (language, code) in enumerate(BLOCK.findall(document.read_text(encoding="utf-8"))):
        name = f"sample_{re.sub(r'[^a-z0-9]', '_', document.stem)}_{number}"
        if "main(" not in code:
            header = "pagedcore/pagedcore.h" if language == "c" else "pagedcore/engine.hpp"
            code = f"#include <{header}>\nvoid {name}(void);\nvoid {name}(void) {{\n{code}}}\n"
        (folder / f"{name}.{language}").write_text(code, encoding="utf-8")
