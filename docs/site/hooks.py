"""What the site shows beyond docs/: the rooms' READMEs, CONTRIBUTING, SECURITY, CHANGELOG, each header and the stub.
A link is written as the repository needs it, and turned into the site's here."""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))
from headers import page as header_page

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(!?\[[^\]\n]*\]\()([^)\s#]+)((?:#[^)\s]*)?\))")


def generated() -> dict[str, str]:
    """Pages of the site by the files of the repository that they show."""
    pages = {f"{name}.md": f"project/{name.lower()}.md" for name in ("CONTRIBUTING", "SECURITY", "CHANGELOG")}
    for room in ("cpp", "cuda", "python", "tests"):
        for path in sorted((ROOT / room).rglob("README.md")):
            source = path.relative_to(ROOT).as_posix()
            folder = posixpath.dirname(source).removeprefix("cpp/")
            pages[source] = "rooms/" + folder.replace("/", "_") + ".md"
    for path in sorted((ROOT / "cpp/include/pagedcore").glob("*.h*")):
        if path.suffix in (".h", ".hpp") and path.name != "export.hpp":
            pages[path.relative_to(ROOT).as_posix()] = f"reference/cpp/{path.name.replace('.', '_')}.md"
    pages["python/pagedcore/_core.pyi"] = "reference/native.md"
    return pages


def content(source: str, uri: str) -> str:
    text = (ROOT / source).read_text(encoding="utf-8")
    if source.endswith(".md"):
        return in_site(text, source, uri)
    if source.endswith(".pyi"):
        return f"# pagedcore._core\n\n```python\n{text}```\n"
    return header_page(Path(source).name, text)


def in_site(text: str, source: str, uri: str) -> str:
    """The text of a file of the repository, with the links of a page of the site."""
    pages = generated()

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[2]))
        shown = pages.get(target, target.removeprefix("docs/") if target.startswith("docs/") else None)
        if shown is None or ":" in match[2]:
            return match[0]
        return match[1] + posixpath.relpath(shown, posixpath.dirname(uri) or ".") + match[3]

    return LINK.sub(link, text)


def on_files(files: Any, config: Any) -> Any:
    for source, uri in generated().items():
        files.append(File.generated(config, uri, content=content(source, uri)))
    return files


def on_config(config: Any) -> Any:
    """In the navigation a folder of generated pages stands for all of them."""

    def expand(entry: Any) -> Any:
        if isinstance(entry, dict):
            return {title: expand(value) for title, value in entry.items()}
        if isinstance(entry, list):
            return [expand(value) for value in entry]
        return sorted(uri for uri in generated().values() if uri.startswith(entry)) if entry.endswith("/") else entry

    config["nav"] = expand(config["nav"])
    return config


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    uri = page.file.src_uri
    return markdown if page.file.generated_by else in_site(markdown, f"docs/{uri}", uri)
