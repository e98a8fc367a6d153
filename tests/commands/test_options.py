"""Options of all commands: nnU-Net's spelling, earlier spellings, one meaning in all commands."""

import argparse
import copy
import importlib
import pkgutil
import re
from functools import cache
from pathlib import Path

import pytest
from helpers import ROOT, source_files

from nnunetv2_mip import commands
from nnunetv2_mip.commands._cli import new_parser, with_underscores

NAMES = [module.name for module in pkgutil.iter_modules(commands.__path__)]
COMMANDS = [name for name in NAMES if not name.startswith("_")]
# Spellings up to version 0.3.0, by command, with those of today.
EARLIER = {
    "classify train": {
        "--fine-tune": "--fine_tune",
        "--from-scratch": "--from_scratch",
        "--fold-networks": "--fold_networks",
        "--no-evaluation": "--no_evaluation",
    },
    "convert_autopet": {
        "-n": "--name",
        "--pixel": "--pixel_mm",
        "--visible-share": "--visible_share",
        "--fragment-mm": "--fragment_mm",
        "--patient-regex": "--patient_regex",
        "--assume-one-study-per-patient": "--assume_one_study_per_patient",
        "--assume-one-patient": "--assume_one_patient",
        "--skip-broken": "--skip_broken",
    },
    "convert_dmiai": {"-n": "--name", "--skip-broken": "--skip_broken"},
    "merge_datasets": {"-n": "--name"},
    "convert_stage2": {
        "-n": "--name",
        "--cue-from": "--cue_from",
        "--no-cue": "--no_cue",
        "--ct": "--with_ct",
        "--skip-broken": "--skip_broken",
    },
    "evaluate": {
        "-p": "-i",
        "--allow-missing": "--allow_missing",
        "--only-predicted": "--only_predicted",
        "--min-overlap": "--min_overlap",
    },
    "fuse": {"--views-file": "--views_file", "--uptake-share": "--uptake_share"},
    "grand_challenge": {
        "--input": "-i",
        "--output": "-o",
        "--model": "-m",
        "--data-centric": "--data_centric",
    },
    "phantom": {"--clicks": "--clicks_per_study"},
    "predict": {"--never-empty": "--never_empty"},
    "project": {
        "--pixel": "--pixel_mm",
        "--visible-share": "--visible_share",
        "--fragment-mm": "--fragment_mm",
    },
    "rehearse": {"--data": "-i", "--min-dice": "--min_dice"},
    "report": {
        "--allow-missing": "--allow_missing",
        "--only-predicted": "--only_predicted",
        "--min-overlap": "--min_overlap",
    },
    "serve": {"--model": "-m", "--never-empty": "--never_empty", "--no-page": "--no_page"},
    "study": {
        "--reference-views": "--reference_views",
        "--training-iterations": "--training_iterations",
        "--no-energy": "--no_energy",
    },
}
# Options whose values differ between commands, and why.
DIFFERENT_VALUES = {
    "-d": "a number; plan_and_preprocess takes a name, report a folder, merge_datasets a list",
    "-f": "one fold where one is used (classify train, study), else a list",
    "-o": "merge_datasets: the number of a new data set, as no file is named",
    "-i": "a list for calibrate and calibrate_regions: folders of several folds, several trees",
    "--views": "a list for study, which compares numbers of views",
}


# Files that keep earlier spellings: of what older versions were, or are called by.
OLD_TEXTS = (
    "CHANGELOG.md",
    "benchmarks/core/compare_steps.py",
    "tests/commands/test_options.py",
)


@cache
def parsers() -> dict[str, argparse.ArgumentParser]:
    """Parser of every command, and of every part of one (`classify train`)."""
    found = {}
    for name in COMMANDS:
        parser = importlib.import_module(f"nnunetv2_mip.commands.{name}").build_parser()
        found[name] = parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                found |= {f"{name} {part}": sub for part, sub in action.choices.items()}
    return found


def optionals(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    kinds = argparse._HelpAction | argparse._VersionAction
    return [a for a in parser._actions if a.option_strings and not isinstance(a, kinds)]


@pytest.mark.parametrize("name", parsers())
def test_no_long_option_is_spelled_with_a_hyphen(name: str):
    parser = parsers()[name]
    for action in optionals(parser):
        for option in action.option_strings:
            assert "-" not in option.lstrip("-"), option
    for word in parser.format_help().replace(",", " ").split():
        if word.lstrip("[(").startswith("--"):
            assert "-" not in word.lstrip("[(").lstrip("-"), word


@pytest.mark.parametrize(
    "name, old, new", [(name, *pair) for name, both in EARLIER.items() for pair in both.items()]
)
def test_an_earlier_spelling_is_accepted_and_hidden(name: str, old: str, new: str):
    # A copy, whose options are not required.
    parser = copy.deepcopy(parsers()[name])
    shown = parser.format_help().replace(",", " ").replace("[", " ").split()
    assert new in shown
    assert old not in shown
    action = next(a for a in optionals(parser) if new in a.option_strings)
    for other in parser._actions:
        other.required = False
    for group in parser._mutually_exclusive_groups:
        group.required = False
    values = [] if action.nargs == 0 else ["7"]
    expected = vars(parser.parse_args([new, *values]))
    assert vars(parser.parse_args([old, *values])) == expected
    assert getattr(parser.parse_args([]), action.dest) != expected[action.dest]
    if values and old.startswith("--"):
        assert vars(parser.parse_args([f"{old}=7"])) == expected


def test_values_keep_their_hyphens():
    given = ["--name=my-data", "-o", "out-1", "--no-cue", "--a-b=--c-d", "--", "--my-file"]
    expected = ["--name=my-data", "-o", "out-1", "--no_cue", "--a_b=--c-d", "--", "--my-file"]
    assert with_underscores(given) == expected
    assert with_underscores(["--not-an-option but a text", "---", "-", ""]) == [
        "--not-an-option but a text",
        "---",
        "-",
        "",
    ]


def test_a_beginning_of_an_option_is_enough_in_both_spellings():
    parser = new_parser("prog", "text")
    parser.add_argument("--never_empty", action="store_true")
    assert parser.parse_args(["--never-e"]).never_empty
    assert parser.parse_args(["--never"]).never_empty


def test_an_option_means_the_same_in_all_commands():
    """Kind, type and number of values of an option are one in all commands, but for the listed."""
    meanings: dict[str, dict] = {}
    for name, parser in parsers().items():
        for action in optionals(parser):
            kind = (type(action).__name__, _type_name(action), action.nargs)
            meanings.setdefault(action.option_strings[0], {})[name] = kind
    different = {option for option, by in meanings.items() if len(set(by.values())) > 1}
    assert different == set(DIFFERENT_VALUES)


def _type_name(action: argparse.Action) -> str:
    """Type of the values; a path may be kept as text."""
    name = getattr(action.type, "__name__", "str")
    return "str" if name == "Path" else name


def test_debug_is_accepted_before_and_after_the_part_of_a_command():
    parser = parsers()["classify"]
    rest = ["predict", "-i", "a", "-o", "b.csv"]
    assert parser.parse_args(["--debug", *rest]).debug
    assert parser.parse_args([*rest, "--debug"]).debug
    assert not parser.parse_args(rest).debug


def test_texts_and_scripts_have_the_spelling_of_today():
    if not (ROOT / "setup.py").is_file():
        pytest.skip("not an editable installation: there is no source tree to read")
    hyphened = {old for both in EARLIER.values() for old in both if "-" in old.lstrip("-")}
    pattern = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, sorted(hyphened)))})(?![\w-])")
    endings = {".md", ".py", ".sh", ".yml", ".toml", ".html", ".js", ".Dockerfile", ""}
    found = []
    for name in source_files():
        if name in OLD_TEXTS or Path(name).suffix not in endings:
            continue
        for number, line in enumerate((ROOT / name).read_text("utf-8").splitlines(), 1):
            found += [f"{name}:{number}: {option}" for option in pattern.findall(line)]
    assert not found
