"""Jinja's compiler, whose code counts what it does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from jinja2 import nodes, parser
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import Extension
from jinja2.lexer import Token, TokenStream

__all__ = ["BoundedCompiler", "CountTokens", "Generation"]


class CountTokens(Extension):
    """Counts tokens as they are parsed."""

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        for token in stream:
            self.environment.spend(16)  # type: ignore[attr-defined]
            yield token


class Generation(Extension):
    """``{% generation %}``: marks what the assistant wrote, for training. Here it only has to be accepted."""

    tags = {"generation"}  # noqa: RUF012  (the base class declares it so)

    def parse(self, parser: parser.Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class BoundedCompiler(CodeGenerator):
    """Writes calls of the environment where Jinja writes operators and literals, and a count at the start of each
    block: the body of a loop, of a branch, of a macro."""

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        self.environment.spend(64)  # type: ignore[attr-defined]
        return super().visit(node, *args, **kwargs)

    def blockvisit(self, nodes_: Iterable[nodes.Node], frame: Frame) -> None:
        listed = list(nodes_)
        text = sum(len(child.data) for node in listed for child in _texts(node))
        self.writeline(f"environment.spend({text})")
        super().blockvisit(listed, frame)

    def visit_For(self, node: nodes.For, frame: Frame) -> None:
        if node.test is not None:  # it runs for elements that the body never sees
            count = nodes.Call(nodes.EnvironmentAttribute("count_turn"), [], [], None, None)
            node.test = nodes.And(count, node.test)
        super().visit_For(node, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.joined(context, ")
        self._sequence(node.nodes, frame)
        self.write(")")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:
        self.write("environment.compared(")
        self.visit(node.expr, frame)
        for operand in node.ops:
            self.write(f", {operand.op!r}, ")
            self.visit(operand.expr, frame)
        self.write(")")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:
        self.write("environment.made(")
        super().visit_List(node, frame)
        self.write(")")

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        # As pairs: a key is hashed, which takes long for one that is itself huge.
        self.write("environment.dictionary(")
        self._sequence([inner for pair in node.items for inner in (pair.key, pair.value)], frame)
        self.write(")")

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        if node.ctx != "load":  # a target
            super().visit_Tuple(node, frame)
            return
        self.write("environment.made(")
        super().visit_Tuple(node, frame)
        self.write(")")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        if not isinstance(node.arg, nodes.Slice):
            super().visit_Getitem(node, frame)
            return
        self.write("environment.made(")
        super().visit_Getitem(node, frame)
        self.write(")")

    def _sequence(self, items: Iterable[nodes.Node], frame: Frame) -> None:
        self.write("(")
        for item in items:
            self.visit(item, frame)
            self.write(", ")
        self.write(")")


def _texts(node: nodes.Node) -> Iterable[nodes.TemplateData]:
    if not isinstance(node, nodes.Output):
        return ()
    return [child for child in node.nodes if isinstance(child, nodes.TemplateData)]
