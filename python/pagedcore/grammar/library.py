"""llguidance's C interface, which the library of its Python package exports: the engine's threads call it themselves.

Structures are those of llguidance.h of version 1.9; its authors only add fields at their ends."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from ctypes import byref, c_bool, c_char_p, c_int32, c_size_t, c_uint32, c_uint64, c_void_p, cast
from functools import cache
from typing import Any

from .. import _core
from ..errors import Corrupt, InvalidArgument, Unsupported

__all__ = ["Library", "Matchers", "library"]

_SPECIAL = b"\xff"  # before the name of a token that no text spells
_RESERVE = 256  # bytes behind a structure, for fields of later versions


class _Tokenizer(ctypes.Structure):
    """LlgTokenizerInitV2."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("vocab_size", c_uint32),
        ("tok_eos", c_uint32),
        ("token_lens", c_void_p),
        ("token_bytes", c_void_p),
        ("tokenizer_json", c_void_p),
        ("tokenize_assumes_string", c_bool),
        ("tokenize_fn", c_void_p),
        ("use_approximate_greedy_tokenize_fn", c_bool),
        ("tokenize_user_data", c_void_p),
        ("slices", c_void_p),
        ("tok_eos_extra", c_void_p),
        ("tok_eos_extra_count", c_uint32),
    )


class _Limits(ctypes.Structure):
    _fields_ = (
        ("max_items_in_row", c_size_t),
        ("initial_lexer_fuel", c_uint64),
        ("step_lexer_fuel", c_uint64),
        ("step_max_items", c_size_t),
        ("max_lexer_states", c_size_t),
        ("max_grammar_size", c_size_t),
        ("precompute_large_lexemes", c_bool),
        ("verbose_errors", c_bool),
    )


class _Init(ctypes.Structure):
    """LlgConstraintInit."""

    _fields_ = (
        ("tokenizer", c_void_p),
        ("log_buffer_level", c_uint32),
        ("log_stderr_level", c_uint32),
        ("ff_tokens_ok", c_bool),
        ("backtrack_ok", c_bool),
        ("limits", _Limits),
        ("later", ctypes.c_char * _RESERVE),
    )


class _Table(ctypes.Structure):
    """What ConstraintTable takes in a capsule."""

    _fields_ = tuple(
        (name, c_void_p) for name in ("mask", "consume", "error", "clone", "free", "shared", "free_shared")
    )


class Library:
    """The functions. Calls release the GIL."""

    def __init__(self) -> None:
        try:
            from llguidance import _lib
        except ModuleNotFoundError:
            raise Unsupported(
                "structured outputs need llguidance, which is not installed: pip install 'pagedcore[grammar]'"
            ) from None
        try:
            self._dll = ctypes.CDLL(_lib.__file__)
            self.new_tokenizer = self._function("llg_new_tokenizer_v2", c_void_p, c_void_p, c_char_p, c_size_t)
            self.set_defaults = self._function("llg_constraint_init_set_defaults", None, c_void_p, c_void_p)
            self.new_matcher = self._function("llg_new_matcher", c_void_p, c_void_p, c_char_p, c_char_p)
            self.mask = self._function("llg_matcher_compute_mask_into", c_int32, c_void_p, c_void_p, c_size_t)
            self.consume = self._function("llg_matcher_consume_token", c_int32, c_void_p, c_uint32)
            self.error = self._function("llg_matcher_get_error", c_char_p, c_void_p)
            self.clone = self._function("llg_clone_matcher", c_void_p, c_void_p)
            self.free = self._function("llg_free_matcher", None, c_void_p)
            self.free_tokenizer = self._function("llg_free_tokenizer", None, c_void_p)
            self.tokenize = self._function(
                "llg_tokenize_bytes", c_size_t, c_void_p, c_char_p, c_size_t, c_void_p, c_size_t
            )
        except (OSError, AttributeError) as error:
            raise Unsupported(
                f"this llguidance has no C interface ({error}): pip install 'pagedcore[grammar]'"
            ) from None

    def _function(self, name: str, result: Any, *arguments: Any) -> Any:
        function = getattr(self._dll, name)
        function.restype, function.argtypes = result, arguments
        return function

    def table(self, tokenizer: int, beneath: _core.ConstraintTable | None = None) -> _core.ConstraintTable:
        """The functions that an engine calls; the tokenizer goes with the last matcher, and then what it stands on."""
        functions = (self.mask, self.consume, self.error, self.clone, self.free)
        addresses = [cast(function, c_void_p).value for function in functions]
        table = _Table(*addresses, tokenizer, cast(self.free_tokenizer, c_void_p).value)
        return _core.ConstraintTable(_capsule(ctypes.addressof(table), b"pagedcore.constraint_table"), beneath)


@cache
def library() -> Library:
    return Library()


_NAMES: list[bytes] = []  # of capsules, which keep their addresses


def _capsule(address: int, name: bytes) -> object:
    if name not in _NAMES:
        _NAMES.append(name)
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, (c_void_p, c_char_p, c_void_p)
    return new(address, _NAMES[_NAMES.index(name)], None)


class Matchers:
    """Matchers over one vocabulary. Thread-safe."""

    def __init__(self, tokens: Sequence[bytes], special: Sequence[bool], end_tokens: Sequence[int]) -> None:
        """``tokens``: what each adds to a text; empty: it is never drawn. ``special``: it is no text."""
        self._library = library()
        self._spelled = [
            _SPECIAL + token if is_special else token for token, is_special in zip(tokens, special, strict=True)
        ]
        self._ends = tuple(end_tokens)
        self._mask_bytes = (len(self._spelled) + 31) // 32 * 4
        # Nothing is tokenized by it for the engine: masks say which tokens may come.
        self._tokenizer = self._new_tokenizer(use_approximate_greedy_tokenize_fn=True)
        self._table = self._library.table(self._tokenizer)
        self._lock = threading.Lock()
        self._fixed: tuple[int, _core.ConstraintTable] | None = None

    def _new_tokenizer(self, **how: Any) -> int:
        lengths = (c_uint32 * len(self._spelled))(*map(len, self._spelled))
        text = b"".join(self._spelled)
        ends = (c_uint32 * len(self._ends))(*self._ends)
        init = _Tokenizer(
            vocab_size=len(self._spelled),
            tok_eos=self._ends[0],
            token_lens=cast(lengths, c_void_p),
            token_bytes=cast(c_char_p(text), c_void_p),
            tok_eos_extra=cast(byref(ends, 4), c_void_p) if len(self._ends) > 1 else None,
            tok_eos_extra_count=len(self._ends) - 1,
            **how,
        )
        init.struct_size = ctypes.sizeof(_Tokenizer)
        why = ctypes.create_string_buffer(1000)
        tokenizer: int | None = self._library.new_tokenizer(byref(init), why, len(why))
        if not tokenizer:
            raise Corrupt(f"llguidance does not take the vocabulary: {why.value.decode(errors='replace')}")
        return tokenizer

    def _of_fixed_spelling(self) -> tuple[int, _core.ConstraintTable]:
        """A tokenizer of which llguidance takes it that it spells a text in one way, that of the longest tokens: then a
        mask leaves one token wherever the form leaves one text."""
        with self._lock:
            if self._fixed is None:
                tokenizer = self._new_tokenizer(
                    tokenize_fn=cast(self._library.tokenize, c_void_p), tokenize_user_data=self._tokenizer
                )
                self._fixed = tokenizer, self._library.table(tokenizer, self._table)
            return self._fixed

    def constraint(
        self, kind: str, text: str, limits: dict[str, int], bytes: int, fixed_spelling: bool = False
    ) -> _core.Constraint:
        """``kind``: one of llguidance's, such as json_schema. ``limits``: fields of LlgParserLimits. ``bytes``: that a
        copy may come to hold. ``fixed_spelling``: a text that the form leaves no choice of has one spelling. Raises
        InvalidArgument with what is wrong. May take long."""
        tokenizer, table = self._of_fixed_spelling() if fixed_spelling else (self._tokenizer, self._table)
        init = _Init()
        self._library.set_defaults(byref(init), tokenizer)
        init.log_stderr_level = init.log_buffer_level = 0
        init.limits.verbose_errors = False
        for name, value in limits.items():
            setattr(init.limits, name, value)
        matcher = self._library.new_matcher(byref(init), kind.encode(), text.encode())
        try:
            self._check(matcher)
            # The first mask costs most, and shows what is impossible: copies begin behind it.
            self._library.mask(matcher, (ctypes.c_char * self._mask_bytes)(), self._mask_bytes)
            self._check(matcher)
            capsule = _capsule(matcher, b"pagedcore.matcher")
        except BaseException:
            self._library.free(matcher)
            raise
        return _core.Constraint(table, capsule, bytes)

    def _check(self, matcher: int) -> None:
        error = self._library.error(matcher)
        if error is not None:
            raise InvalidArgument(error.decode(errors="replace"))
