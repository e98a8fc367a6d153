"""Templates: white space, escaping, data for scripts."""

import json

import pytest
from jinja2 import UndefinedError

from nnunetv2_mip.report.templating import TEMPLATES, environment


def rendered(template: str, **values) -> str:
    return environment().from_string(template).render(**values)


@pytest.mark.parametrize(
    ("template", "html"),
    [
        ("<p>\n  one\n  two\n</p>\n", "<p>one two</p>"),
        ('<p class="a"\n   id="b">\n  <b>x</b> y\n</p>', '<p class="a" id="b"><b>x</b> y</p>'),
        ("{% if true %}\n  {{ 1 }}\n  x\n{% endif %}", "1x"),
        ("{{ 1 }} of {{ 2 }}{{ '\\n' }}", "1 of 2\n"),
        ("{# a\n remark #}\n<i>\n</i>", "<i></i>"),
    ],
)
def test_indentation_of_templates_is_not_written(template, html):
    assert rendered(template) == html


def test_values_are_escaped_and_keep_their_white_space():
    value = "<b>\n 'it' & \"so\""
    assert rendered("<p>{{ x }}</p>", x=value) == (
        "<p>&lt;b&gt;\n &#x27;it&#x27; &amp; &quot;so&quot;</p>"
    )
    assert rendered("{{ x | safe }}{{ y }}", x="<hr>", y=None) == "<hr>"


def test_a_misspelt_name_is_an_error():
    with pytest.raises(UndefinedError):
        rendered("{{ nothing }}")


def test_data_of_a_script_cannot_end_it():
    data = {"b": "</script><!--\u2028", "a": [1, 0.5, None, True]}
    text = rendered("{{ x | tojson }}", x=data)
    assert "<" not in text and text.isascii()
    assert json.loads(text) == data and list(json.loads(text)) == ["b", "a"]


@pytest.mark.parametrize("name", sorted(path.name for path in TEMPLATES.iterdir()))
def test_every_template_is_valid(name):
    assert environment().get_template(name).name == name
