"""The exceptions that pagedcore raises. A message names the value, the limit it met and the remedy."""


class Error(RuntimeError):
    """Base of every exception raised by pagedcore."""


class InvalidArgument(Error, ValueError):
    """The caller passed something outside its documented range. Nothing has changed."""


class OutOfMemory(Error, MemoryError):
    """Memory for the call could not be allocated. Nothing has changed."""


class Overloaded(Error):
    """Too many requests wait: the same call may succeed later. Nothing has changed."""


class Unsupported(Error):
    """A model, tensor type, device or instruction set that this build does not serve."""


class Corrupt(Error):
    """A file or a buffer contradicts itself, or an internal invariant no longer holds."""


class Aborted(Error):
    """The object was closed, aborted, poisoned, or is used in a forked child."""


class Io(Error, OSError):
    """The operating system refused to open, map, read or write."""
