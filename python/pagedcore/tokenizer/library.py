"""Calls into the ``tokenizers`` library, whose errors are bare exceptions, or panics that are no Exception at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import Corrupt, Error

__all__ = ["corrupt_unless_it_works"]


@contextmanager
def corrupt_unless_it_works(what: str) -> Iterator[None]:
    """Whatever the library raises becomes ``Corrupt("{what}: ...")``."""
    try:
        yield
    except (Error, MemoryError):
        raise
    except Exception as error:
        raise Corrupt(f"{what}: {str(error)[:400]}") from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # Ctrl-C
            raise
        raise Corrupt(f"{what}: the library panicked: {str(error)[:400]}") from None
