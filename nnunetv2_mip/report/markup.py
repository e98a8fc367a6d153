"""HTML that cannot be written by a file's name: what is not markup is escaped."""

import html
import json
from typing import Any


class Markup(str):
    """Text that is HTML already."""


def element(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """One element.

    Args:
        name: of the element.
        children: escaped unless they are `Markup`; None is left out, lists are flattened.
        attributes: escaped; `class_` is `class`, `data_view` is `data-view`; True gives the name
            alone, None and False leave it out.
    """
    written = []
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            written.append(f" {key}")
        elif value is not None and value is not False:
            written.append(f' {key}="{html.escape(str(value))}"')
    start = f"<{name}{''.join(written)}>"
    if name in ("input", "meta"):
        return Markup(start)
    return Markup(f"{start}{join(children)}</{name}>")


def join(children: Any) -> Markup:
    """Children one after another, see `element`."""
    if children is None:
        return Markup("")
    if isinstance(children, Markup):
        return children
    if isinstance(children, list | tuple):
        return Markup("".join(join(child) for child in children))
    return Markup(html.escape(str(children)))


def json_block(identity: str, content: Any) -> Markup:
    """Data for a script, in an element that no content can end."""
    text = json.dumps(content, separators=(",", ":"))  # ASCII: no line separators of JavaScript's
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(f'<script type="application/json" id="{html.escape(identity)}">{text}</script>')


def counted(number: int, what: str) -> str:
    """`1 case`, `2 cases`."""
    return f"{number} {what}{'' if number == 1 else 's'}"
