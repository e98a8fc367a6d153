"""Pages of the documentation site that are made when it is built, and links out of the docs.

MkDocs calls the functions `on_…`. Made are the reference of the commands (from their parsers), the
table of presets (from `plans/`), the list of the API's names, and the pages that lie elsewhere in
the repository (changelog, model card and others).
"""

import argparse
import importlib
import json
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import nnunetv2_mip

ROOT = Path(__file__).resolve().parents[2]
COMMANDS_PAGE = "reference/commands.md"
COMMANDS_MARK = "<!-- commands -->"
PRESETS_MARK = "<!-- presets -->"
API_MARK = "<!-- api -->"
# Files of the repository that become pages of the site, by their page.
REPOSITORY_PAGES = {
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "nnunetv2_mip/models/mip_pet/MODEL_CARD.md": "project/model_card.md",
    "benchmarks/README.md": "project/benchmarks.md",
    "README.md": "index.md",
}
SOURCES = {page: path for path, page in REPOSITORY_PAGES.items() if page != "index.md"}
# Order of the names of the Python API; a name that is missing here follows at the end.
API_ORDER = (
    *("Predictor", "VolumeResult", "ImageResult", "read_study", "Study", "project", "fuse"),
    *("evaluate", "DicomOptions", "MipError", "MipWarning"),
)
# Order of the commands on their page; a command that is missing here follows at the end.
GROUPS = {
    "Convert, plan, train": (
        "env convert_autopet convert_dmiai convert_stage2 merge_datasets plan_and_preprocess "
        "calibrate calibrate_regions export_model"
    ),
    "Predict and fuse": "predict project fuse classify",
    "Evaluate and show": "evaluate report study",
    "Serve and submit": "serve rehearse submit grand_challenge",
    "Try": "demo phantom info",
}
_LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
_COMMAND = re.compile(r"(?<![\[`])`nnUNetv2_mip_(\w+)`(?![\]`])")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Navigation with one page for each command."""
    for section in config.nav or []:
        for entry in section.get("Reference", []):
            if isinstance(entry, dict) and "Commands" in entry:
                pages = [{name: _page(name)} for name in _commands()]
                entry["Commands"] = [{"Overview": COMMANDS_PAGE}, *pages]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Files of the site with the pages that are made."""
    for name in _commands():
        files.append(File.generated(config, _page(name), content=_command_page(name)))
    for page, path in SOURCES.items():
        files.append(File.generated(config, page, content=(ROOT / path).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Text of a page with what is made for it, and links to commands and the repository."""
    for mark, made in (
        (COMMANDS_MARK, _tables_of_commands),
        (PRESETS_MARK, _presets),
        (API_MARK, _api),
    ):
        if mark in markdown:
            markdown = markdown.replace(mark, made())
    here = page.file.src_uri
    source = SOURCES.get(here, f"docs/{here}")
    parts = re.split(r"(^```.*?^```|^~~~.*?^~~~)", markdown, flags=re.M | re.S)
    parts[::2] = [_with_links(part, here, source) for part in parts[::2]]
    return "".join(parts)


def _with_links(text: str, here: str, source: str) -> str:
    def link(match: re.Match) -> str:
        target, anchor = match[2], match[3] or ""
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if path in REPOSITORY_PAGES:
            uri = REPOSITORY_PAGES[path]
        elif path.startswith("docs/"):
            uri = path.removeprefix("docs/")
        elif (ROOT / path).exists():
            # Not part of the site: its path instead of a link, put in below.
            return f"](repository:{path})"
        else:
            return match[0]
        return f"{match[1]}{posixpath.relpath(uri, posixpath.dirname(here))}{anchor}{match[4]}"

    def command(match: re.Match) -> str:
        uri = _page(match[1])
        if match[1] not in _commands() or uri == here:
            return match[0]
        return f"[{match[0]}]({posixpath.relpath(uri, posixpath.dirname(here))})"

    text = _LINK.sub(link, text)
    text = re.sub(r"\[([^\]]*)\]\(repository:([^)]*)\)", r"\1 (`\2`)", text)
    lines = text.split("\n")
    return "\n".join(
        line if line.startswith("#") else _COMMAND.sub(command, line) for line in lines
    )


def _commands() -> list[str]:
    names = {path.stem for path in (ROOT / "nnunetv2_mip" / "commands").glob("[a-z]*.py")}
    ordered = [name for group in GROUPS.values() for name in group.split() if name in names]
    return [*ordered, *sorted(names - set(ordered))]


def _page(name: str) -> str:
    return f"reference/commands/{name}.md"


def _parser(name: str) -> argparse.ArgumentParser:
    return importlib.import_module(f"nnunetv2_mip.commands.{name}").build_parser()


def _tables_of_commands() -> str:
    lines = []
    grouped = {name for group in GROUPS.values() for name in group.split()}
    groups = {title: group.split() for title, group in GROUPS.items()}
    groups["Others"] = [name for name in _commands() if name not in grouped]
    for title, names in groups.items():
        rows = [name for name in names if name in _commands()]
        if rows:
            lines += [f"### {title}", "", "| command | what it does |", "|---|---|"]
            lines += [f"| `nnUNetv2_mip_{n}` | {_cell(_parser(n).description)} |" for n in rows]
            lines.append("")
    return "\n".join(lines)


def _command_page(name: str) -> str:
    parser = _parser(name)
    return f"# nnUNetv2_mip_{name}\n\n" + "\n".join(_parser_lines(parser, "##")) + "\n"


def _parser_lines(parser: argparse.ArgumentParser, heading: str) -> Iterator[str]:
    os.environ["COLUMNS"] = "84"
    yield from (_escaped(parser.description or ""), "", "```text")
    yield from (parser.format_usage().removeprefix("usage: ").rstrip(), "```", "")
    formatter = parser._get_formatter()
    for group in parser._action_groups:
        actions = [a for a in group._group_actions if a.help is not argparse.SUPPRESS]
        options = [a for a in actions if not isinstance(a, argparse._SubParsersAction)]
        if not options:
            continue
        # A title with its explanation in brackets.
        title, _, more = (group.title or "options").partition(" (")
        yield from (f"{heading} {_escaped(title[0].upper() + title[1:])}", "")
        for text in (more.removesuffix(")"), group.description):
            if text:
                yield from (_escaped(text[0].upper() + text[1:]) + ".", "")
        yield from ("| option | meaning |", "|---|---|")
        for action in options:
            invocation = formatter._format_action_invocation(action).replace("|", "\\|")
            meaning = formatter._expand_help(action) if action.help else ""
            needed = " (required)" if action.required and action.option_strings else ""
            yield f"| `{invocation}` | {_cell(meaning)}{needed} |"
        yield ""
    if parser.epilog:
        yield from (_escaped(parser.epilog), "")
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice, child in action.choices.items():
                yield from (f"{heading} {choice}", "")
                yield from _parser_lines(child, heading + "#")


def _api() -> str:
    """Directives of mkdocstrings for the names that the package offers (`nnunetv2_mip._API`)."""
    modules = getattr(nnunetv2_mip, "_API", {"MipError": "errors"})
    names = [name for name in API_ORDER if name in modules]
    # The settings of the fusion have their place on the page of inference.json.
    names += [name for name in modules if name not in (*API_ORDER, "FusionRule")]
    options = "\n    options:\n      heading_level: 2\n      show_root_full_path: false"
    return "\n\n".join(f"::: nnunetv2_mip.{modules[name]}.{name}{options}" for name in names)


def _presets() -> str:
    rows = ["| `--preset` | what it is |", "|---|---|"]
    for path in sorted((ROOT / "plans").glob("*.json")):
        description = json.loads(path.read_text("utf-8"))["description"]
        rows.append(f"| `{path.stem}` | {_cell(description)} |")
    return "\n".join(rows)


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


def _cell(text: str | None) -> str:
    return _escaped(text or "").replace("|", "\\|").replace("\n", " ")
