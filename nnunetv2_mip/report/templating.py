"""jinja2 environment of the HTML reports.

Templates in `templates` are indented for their readers; the HTML is written without that white
space, see `CompactText`. Every value is escaped, unless a template marks it as HTML (`| safe`).
"""

import html
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.ext import Extension
from jinja2.lexer import TOKEN_DATA, Token
from markupsafe import Markup

from nnunetv2_mip.wording import counted

TEMPLATES = Path(__file__).parent / "templates"
STATIC = Path(__file__).parent / "static"
_LINE_BREAK = re.compile(r"\s*\n\s*")


class CompactText(Extension):
    """Template text without line breaks and indentation.

    A line break between two words or two attributes becomes one space. Next to a tag, to `{{ }}`
    and to `{% %}` it vanishes; a space that is needed there stands within the line.
    """

    def filter_stream(self, stream: Iterable[Token]) -> Iterator[Token]:
        for token in stream:
            if token.type == TOKEN_DATA:
                token = Token(token.lineno, token.type, _LINE_BREAK.sub(_joint, token.value))
            yield token


def _joint(line_break: re.Match) -> str:
    text, start, end = line_break.string, *line_break.span()
    is_at_edge = start == 0 or end == len(text)
    return "" if is_at_edge or text[start - 1] == ">" or text[end] == "<" else " "


def _escaped(value: Any) -> Markup:
    """Value as HTML; None as nothing.

    Quotes are written as `html.escape` does (`&quot;`; markupsafe's own escape writes `&#34;`), so
    that the files stay the same byte by byte from version to version.
    """
    if hasattr(value, "__html__"):
        return value
    return Markup("" if value is None else html.escape(str(value)))


@cache
def environment() -> Environment:
    """Environment of all templates, made once a process."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        extensions=[CompactText],
        autoescape=True,
        finalize=_escaped,
        undefined=StrictUndefined,
        auto_reload=False,
    )
    made.filters["counted"] = counted
    # For `tojson`: no space after signs, the order of the data.
    made.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return made


def render(template: str, **values: Any) -> str:
    """HTML of a template.

    Args:
        template: name of its file in `templates`.
        values: what the template reads, by name.
    """
    return environment().get_template(template).render(**values)
