"""The tokens of registered prefixes, by name and salt, as the engine knows them by name."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from .errors import InvalidArgument

__all__ = ["NO_PREFIX", "Prefix", "Prefixes"]


_MOST_SHOWN = 20


@dataclass(frozen=True)
class Prefix:
    tokens: tuple[int, ...] = ()
    shared: bool = False
    """Usable under every salt; its tokens are shown to none."""

    @property
    def hidden(self) -> int:
        """How many tokens of a prompt that begins with it are not shown."""
        return len(self.tokens) if self.shared else 0


NO_PREFIX = Prefix()


class Prefixes:
    """A prefix belongs to its salt: under any other it is unknown, in errors too, unless it is shared. A salt's own one
    comes before a shared one of the same name. Every change is one operation on a dictionary: safe from any thread, and
    a Ctrl-C finds it done or not."""

    def __init__(self) -> None:
        self._own: dict[tuple[int, str], Prefix] = {}
        self._shared: dict[str, tuple[int, Prefix]] = {}

    def __len__(self) -> int:
        return len(self._own) + len(self._shared)

    def find(self, name: str, salt: int) -> Prefix:
        """Raises InvalidArgument for one that cannot be named under this salt."""
        if not name:
            return NO_PREFIX
        found = self._own.get((salt, name)) or self._shared.get(name, (0, None))[1]
        if found is None:
            names = {own for owner, own in list(self._own) if owner == salt} | set(self._shared)
            known = ", ".join(sorted(names)[:_MOST_SHOWN]) or "none"
            more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
            raise InvalidArgument(  # in the words of the native library
                f"prefix '{name}' is not registered under salt {salt} (registered: {known}{more}): register it first, "
                "or name none"
            )
        return found

    def add(self, name: str, salt: int, prefix: Prefix) -> None:
        if prefix.shared:
            self._shared[name] = (salt, prefix)
        else:
            self._own[salt, name] = prefix

    def drop(self, name: str, salt: int) -> None:
        """The one that this salt registered, if any."""
        with suppress(TypeError):  # a name or a salt that is none
            if self._own.pop((salt, name), None) is None and self._shared.get(name, (None,))[0] == salt:
                self._shared.pop(name, None)
