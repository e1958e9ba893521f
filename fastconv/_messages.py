"""How a user's value appears in an error message."""

from typing import Any

_LONGEST = 100


def shown(value: Any) -> str:
    """`repr(value)` on one line, cut after 100 characters; of what cannot be printed, the type."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a repr of the user's; or an int of more than 4300 digits
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def typed(value: Any) -> str:
    """The type and the value."""
    return f"{type(value).__name__} {shown(value)}"
