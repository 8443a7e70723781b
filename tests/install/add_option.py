"""Adds an option to KvOptions in a copy of engine.hpp, as a later version might:   add_option.py ENGINE_HPP"""

import sys
from pathlib import Path

path = Path(sys.argv[1])
text = path.read_text()
for anchor, more in [
    ("struct KvOptions {\n", "  std::uint32_t one_more_option = 7;\n"),
    ("    using C = KvOptions;\n", '    v(field("one_more_option", &C::one_more_option, "Of a later version."));\n'),
]:
    if text.count(anchor) != 1:
        sys.exit(f"{path}: {anchor!r} stands there {text.count(anchor)} times; an option cannot be added")
    text = text.replace(anchor, anchor + more)
path.write_text(text)
