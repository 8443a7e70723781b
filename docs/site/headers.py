"""A page of a public header: its introduction, then each declaration with the comment before it. Headers are written to
be read, so nothing is parsed but comments and the ends of declarations."""

from __future__ import annotations

import re

COMMENT = re.compile(r"^\s*//[/!]?<? ?")
NAMED = re.compile(
    r"^\s*(?:template <[^>]*>\s*)?(?:enum class|enum|class|struct)\s+(?:PAGEDCORE_API\s+)?(\w+)"  # a type
    r"|^\s*(?:typedef\s+)?(?:enum|struct)\s+(\w+)"  # of C
    r"|^\s*using\s+(\w+)"
    r"|\b(\w+)\s*(?:\(|=|\{|;)"  # a function or a constant: its first name before what follows
)
# A struct's list of fields (fields.hpp): shown as a list, not as code.
FIELDS = re.compile(
    r"\n+(?:  ///[^\n]*\n)*  template <class V>\n  static void fields\(V&& \w+\) \{\n(.*?)\n  \}\n", re.DOTALL
)
FIELD = re.compile(r'\b(?:field|part)\(\s*"(\w+)",\s*&\w+::\w+,\s*((?:"[^"]*"\s*)+)')
MACRO = re.compile(r"\s*extern template|[A-Z_]+\(")
HIDDEN = re.compile(r"^\s*#|^\s*(?:namespace pagedcore|}  // namespace)|^extern \"C\"")


def page(name: str, text: str) -> str:
    intro, body = _introduction(text)
    parts = [f"# pagedcore/{name}", *intro]
    if name.endswith(".h"):
        for title, code in _sections(body):
            parts += [f"## {title}", f"```c\n{code.strip()}\n```"]
    else:
        for comment, code in _declarations(body):
            title = next((group for match in [NAMED.search(code)] if match for group in match.groups() if group), "")
            shown, fields = _fields(code)
            parts += [f"## {title}" if title else "", comment, f"```cpp\n{shown.strip()}\n```", fields]
    return "\n\n".join(part for part in parts if part) + "\n"


def _introduction(text: str) -> tuple[list[str], str]:
    """The comment at the head, as paragraphs, and the rest."""
    if text.startswith("/*"):
        head, _, body = text.partition("*/")
        lines = [re.sub(r"^ ?\*? ?", "", line) for line in head.removeprefix("/*").splitlines()]
        return ["```text\n" + "\n".join(lines).strip() + "\n```"], body
    lines, rest = [], text.splitlines()
    while rest and rest[0].startswith("//"):
        lines.append(COMMENT.sub("", rest.pop(0)))
    return [_prose("\n".join(lines))], "\n".join(rest)


def _prose(text: str) -> str:
    # A line that begins with a dash is a list entry; Markdown wants a blank line before the first.
    lines = text.strip().splitlines()
    out: list[str] = []
    for line in lines:
        if re.match(r"\s*- ", line) and out and out[-1] and not re.match(r"\s*- |  ", out[-1]):
            out.append("")
        out.append(line.rstrip())
    paragraphs = "\n".join(out).split("\n\n")
    return "\n\n".join(p if p.startswith("    ") else _escaped(p) for p in map(_code_block, paragraphs))


def _code_block(paragraph: str) -> str:
    """A paragraph that is indented is code, for which Markdown wants four blanks."""
    lines = paragraph.splitlines()
    return "\n".join("  " + line for line in lines) if lines and all(x.startswith("  ") for x in lines) else paragraph


def _escaped(text: str) -> str:
    """What Markdown would take for HTML or links, outside of `code`, is text."""
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(re.sub(r"[\[\]<>]", r"\\\g<0>", piece) if not piece.startswith("`") else piece for piece in pieces)


def _sections(body: str) -> list[tuple[str, str]]:
    """Of a C header, which divides itself by /* ---- Title ---- */."""
    pieces = re.split(r"/\* -+ (.*?) -+ \*/", body)
    return list(zip(["Types", *pieces[1::2]], [_code(piece) for piece in pieces[0::2]], strict=True))


def _fields(code: str) -> tuple[str, str]:
    """A declaration without its list of fields, and that as a list for people."""
    listed = FIELDS.search(code)
    if not listed:
        return code, ""
    entries = [(name, "".join(re.findall(r'"([^"]*)"', text))) for name, text in FIELD.findall(listed[1])]
    return FIELDS.sub("\n", code), "\n".join(f"- `{name}`: {_prose(text)}" for name, text in entries)


def _code(text: str) -> str:
    shown = [line for line in text.splitlines() if not HIDDEN.match(line)]
    return re.sub(r"PAGEDCORE_API | PC_NOEXCEPT", "", "\n".join(shown))


def _declarations(body: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    comment: list[str] = []
    code: list[str] = []
    depth = 0
    for line in body.splitlines():
        if not code and (HIDDEN.match(line) or not line.strip()):
            comment = comment if line.strip() else []
            continue
        if not code and COMMENT.match(line):
            comment.append(COMMENT.sub("", line))
            continue
        code.append(line.replace("PAGEDCORE_API ", ""))
        bare = re.sub(r"//.*", "", line)
        depth += bare.count("{") + bare.count("(") - bare.count("}") - bare.count(")")
        if depth == 0 and re.search(r"[;}]\s*$", bare):
            if not MACRO.match(code[0]):
                found.append((_prose("\n".join(comment)), "\n".join(code)))
            comment, code = [], []
    return found
