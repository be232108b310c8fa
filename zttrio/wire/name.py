"""The names of stations on a wire: what may be one, and in which spelling it is kept."""

from __future__ import annotations

import re

__all__ = ["station_name"]

_NAME_LENGTH = 200  # leaves room for a suffix in a file name of at most 255 octets
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"  # RFC 1123 2.1, and the usual underscore
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


def station_name(text: str) -> str:
    """*text* in lower case, without a final dot and without ``.local``.

    The result is safe as part of a file name: it has no slash and neither starts nor ends with a
    dot.

    Raises:
        ValueError: it is not made of labels of letters, digits, hyphens and underscores, or it is
            longer than 200 characters.
    """
    name = text.lower().removesuffix(".").removesuffix(".local")
    if len(name) > _NAME_LENGTH or _NAME.fullmatch(name) is None:
        raise ValueError(
            f"station name {text!r}: needs letters, digits, hyphens and underscores, "
            f"in labels of up to 63 and {_NAME_LENGTH} together"
        )
    return name
