"""Documentation: the site builds without warnings, links lead to files, options exist."""

import argparse
import ast
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, source_files

PAGES = [ROOT / path for path in source_files() if path.endswith(".md")]
LINK = re.compile(r"\]\(([^)\s]+)\)")
EXTERNAL = ("http://", "https://", "mailto:")
# What the built pages load: scripts, styles, pictures.
LOADED = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=["']?(https?:)?//""")

pytestmark = pytest.mark.skipif(
    not (ROOT / "docs" / "mkdocs").is_dir(), reason="not an editable installation: no docs"
)


def blocks(path: Path, language: str) -> list[str]:
    """Fenced blocks of a language in a page."""
    text = path.read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.M | re.S)


def command_lines() -> list[tuple[str, str]]:
    """(page, command) of every call of a command of this package in the pages."""
    found = []
    for path in PAGES:
        for block in blocks(path, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                for part in re.split(r"[|;&]| done| do ", line.split(" #")[0]):
                    if part.strip().startswith("nnUNetv2_mip_"):
                        found.append((str(path.relative_to(ROOT)), part.strip()))
    return found


def options_of(parser: argparse.ArgumentParser, words: list[str]) -> set[str]:
    """Options of a parser, and of the sub-command that the words name."""
    options = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                if name in words:
                    options |= options_of(child, words)
    return options


def test_the_readme_is_short_and_names_the_tests():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) <= 110
    assert any(line.startswith("make test ") for line in lines)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_lines_are_short_and_links_lead_to_files(path):
    lines = path.read_text("utf-8").splitlines()
    assert [line for line in lines if len(line) > 140 and not line.startswith("|")] == []
    targets = {link.split("#")[0] for link in LINK.findall("\n".join(lines))}
    targets = {target for target in targets if target and not target.startswith(EXTERNAL)}
    assert [target for target in sorted(targets) if not (path.parent / target).exists()] == []


def test_the_pages_call_commands_with_options_that_they_have():
    calls = command_lines()
    assert len(calls) > 50
    unknown = []
    for page, call in calls:
        words = shlex.split(call.replace("…", ""))
        name = words[0].removeprefix("nnUNetv2_mip_")
        parser = importlib.import_module(f"nnunetv2_mip.commands.{name}").build_parser()
        options = options_of(parser, words)
        given = [word for word in words[1:] if re.fullmatch(r"--?[A-Za-z][\w-]*", word)]
        unknown += [(page, name, word) for word in given if word not in options]
    assert unknown == []


def test_python_of_the_pages_is_python():
    codes = [block for path in PAGES for block in blocks(path, "python")]
    assert codes
    for code in codes:
        ast.parse(code)


@pytest.mark.slow
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocs", reason="make docs installs it; on Python 3.10 tests do without")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path / "site")]
        + ["-f", str(ROOT / "docs" / "mkdocs" / "mkdocs.yml")],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    assert LOADED.search('<script src="https://example.org/a.js">')
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 60
    assert [page.name for page in pages if LOADED.search(page.read_text("utf-8"))] == []
    commands = {page.stem for page in (tmp_path / "site/reference/commands").glob("*.html")}
    modules = {path.stem for path in (ROOT / "nnunetv2_mip/commands").glob("[a-z]*.py")}
    assert commands == modules
    predict = (tmp_path / "site/reference/commands/predict.html").read_text("utf-8")
    assert "--disable_tta" in predict
    inference = (tmp_path / "site/reference/inference_json.html").read_text("utf-8")
    assert "SUV that maps to level 255" in inference
