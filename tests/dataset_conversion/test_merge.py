"""Merged data sets: cases, folds, settings, sources, refusals, and what a killed merge leaves."""

import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_refused, paths_below, write_image
from helpers import run as run_command

from nnunetv2_mip.commands import merge_datasets as command
from nnunetv2_mip.conventions import DEFAULT_VIEWS
from nnunetv2_mip.dataset_conversion import merge
from nnunetv2_mip.inference.config import InferenceConfig
from nnunetv2_mip.nnunet.splits import check_splits

# Case → patient; cases of names that end in "_h" show no lesion.
PNGS = {"p1": "p1", "p2": "p2", "c1_h": "c1_h"}
STUDIES = {"z_1": "z", "a_1": "a", "a_2_h": "a"}
FOLDS = [
    {"train": ["c1_h", "p1"], "val": ["p2"]},
    {"train": ["p2"], "val": ["c1_h", "p1"]},
]
VIEWS = {"source": "autopet", "views": 12, "window_suv": 7.0, "start_deg": 8.0}
NAME = "Dataset030_Mixed"

run = partial(run_command, command)


def write_dataset(raw: Path, number: int, patients: dict, splits: list, **mip) -> Path:
    """A raw data set as the converters write it; `mip` changes what its dataset.json says."""
    folder = raw / f"Dataset{number:03d}_Part{number}"
    has_lesion = {case: not case.endswith("_h") for case in patients}
    for case in patients:
        image = folder / "imagesTr" / f"{case}_0000.nii.gz"
        write_image(np.full((1, 4, 3), number, np.uint8), image, (2.0, 2.0, 1000.0))
        write_image(np.zeros((1, 4, 3), np.uint8), folder / "labelsTr" / f"{case}.nii.gz")
        (folder / "imagesTr" / f"{case}_geometry.json").write_text(f'"{case}"')
    write(folder / "splits_final.json", splits)
    cases = {case: {"has_lesion": has_lesion[case], "stack": [1, 4, 3]} for case in patients}
    write(folder / "conversion.json", {"warnings": ["odd"], "skipped": [], "cases": cases})
    content = {
        "channel_names": {"0": "suv"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": len(patients),
        "file_ending": ".nii.gz",
        "name": folder.name,
        "mip": {
            "format_version": 1,
            "source": "dmiai",
            "channels": ["suv"],
            "views": 1,
            "arc_deg": 180.0,
            "start_deg": 0.0,
            "window_suv": 10.0,
            "pixel_mm": 2.0,
            "labels": "projected",
            "patients": patients,
            "has_lesion": has_lesion,
            "intensity": {"suv": {"mean": number, "std": 50.0, "low": 0.0, "high": 255.0}},
            **mip,
        },
    }
    write(folder / "dataset.json", content)
    return folder


def write(path: Path, content) -> None:
    path.write_text(json.dumps(content))


def read(path: Path):
    return json.loads(path.read_text())


def change(folder: Path, **parts) -> None:
    """Change entries of a dataset.json; those of "mip" by the keyword `mip`."""
    content = read(folder / "dataset.json")
    content["mip"] |= parts.pop("mip", {})
    write(folder / "dataset.json", content | parts)


@pytest.fixture
def parts(raw) -> tuple[Path, Path]:
    """Images (10) with two folds, and studies of another window (21)."""
    return (
        write_dataset(raw, 10, PNGS, FOLDS),
        write_dataset(raw, 21, STUDIES, [{"train": ["z_1"], "val": ["a_1", "a_2_h"]}], **VIEWS),
    )


def test_the_cases_of_both_and_the_folds_of_the_first(parts, raw, capsys):
    assert run("-d", 10, 21, "-o", 30, "-n", "Mixed") == 0
    out, err = capsys.readouterr()
    assert "6 cases of 5 patients, 4 with lesions, 0 left out" in out
    assert (
        "those of Dataset010_Part10; in the training part of every fold: Dataset021_Part21" in out
    )
    assert err == ""
    merged = raw / NAME
    expected = {"conversion.json", "dataset.json", "splits_final.json", "imagesTr", "labelsTr"}
    for folder in parts:
        expected |= {path for path in paths_below(folder) if path.startswith(("images", "labels"))}
    assert paths_below(merged) == expected
    for folder in parts:
        for path in (*(folder / "imagesTr").iterdir(), *(folder / "labelsTr").iterdir()):
            assert (merged / path.relative_to(folder)).samefile(path)

    others = ["a_1", "a_2_h", "z_1"]
    splits = read(merged / "splits_final.json")
    assert splits == [
        {"train": ["c1_h", "p1", *others], "val": ["p2"]},
        {"train": ["p2", *others], "val": ["c1_h", "p1"]},
    ]
    dataset = read(merged / "dataset.json")
    assert (dataset["numTraining"], dataset["name"]) == (6, NAME)
    mip = dataset["mip"]
    assert mip["patients"] == dict(sorted((PNGS | STUDIES).items()))
    assert [case for case, lesion in mip["has_lesion"].items() if not lesion] == ["a_2_h", "c1_h"]
    check_splits(splits, mip["patients"], list(mip["patients"]))


def test_settings_of_inference_are_those_of_the_first(parts, raw):
    assert run("-d", 10, 21, "-o", 30, "-n", "Mixed") == 0
    assert run("-d", 21, 10, "-o", 31, "-n", "Studies") == 0
    content = read(raw / NAME / "dataset.json")
    mip = content["mip"]
    assert (mip["source"], mip["window_suv"], mip["pixel_mm"]) == ("merged", 10.0, 2.0)
    assert mip["intensity"]["suv"]["mean"] == 10
    of_images = InferenceConfig.from_dataset_json(content)
    assert (of_images.views, of_images.window_suv, of_images.start_deg) == (DEFAULT_VIEWS, 10, 0)
    of_studies = InferenceConfig.from_dataset_json(read(raw / "Dataset031_Studies/dataset.json"))
    assert (of_studies.views, of_studies.window_suv, of_studies.start_deg) == (12, 7, 8)
    # What each data set was made with is kept, without its patients.
    told = [(p["dataset"], p["cases"], p["source"], p["window_suv"]) for p in mip["merged"]]
    assert told == [("Dataset010_Part10", 3, "dmiai", 10.0), ("Dataset021_Part21", 3, "autopet", 7)]
    assert not any({"patients", "has_lesion", "source_of"} & set(part) for part in mip["merged"])
    record = read(raw / NAME / "conversion.json")["cases"]["z_1"]
    assert (record["stack"], record["dataset"]) == ([1, 4, 3], "Dataset021_Part21")


def test_sources_are_converters_or_as_named_and_survive_another_merge(parts, raw):
    write_dataset(raw, 22, {"q": "q"}, [], **VIEWS)
    assert run("-d", 10, 21, "-o", 30, "-n", "Mixed") == 0
    sources = read(raw / NAME / "dataset.json")["mip"]["source_of"]
    assert sources == {case: "dmiai" if case in PNGS else "autopet" for case in PNGS | STUDIES}
    assert run("-d", 10, 21, "-o", 31, "-n", "Named", "--sources", "dmiai", "phantom") == 0
    assert run("-d", 31, 22, "-o", 32, "-n", "Again") == 0
    content = read(raw / "Dataset032_Again" / "dataset.json")["mip"]
    named = {case: "dmiai" if case in PNGS else "phantom" for case in PNGS | STUDIES}
    assert content["source_of"] == named | {"q": "autopet"}
    assert [part["sources"] for part in content["merged"]] == [["dmiai", "phantom"], ["autopet"]]
    splits = read(raw / "Dataset032_Again" / "splits_final.json")
    assert splits[0] == {"train": ["c1_h", "p1", "a_1", "a_2_h", "z_1", "q"], "val": ["p2"]}


def test_a_first_data_set_without_folds_stays_without(raw):
    """Its only patient cannot be validated, and nobody else's may be."""
    write_dataset(raw, 10, {"p1": "p1"}, [])
    write_dataset(raw, 21, STUDIES, [])
    assert run("-d", 10, 21, "-o", 30, "-n", "Mixed") == 0
    assert read(raw / NAME / "splits_final.json") == []


def test_projected_labels_are_kept(raw):
    for number, patients in ((10, PNGS), (21, STUDIES)):
        splits = FOLDS if number == 10 else []
        folder = write_dataset(raw, number, patients, splits, labels="visible")
        for case in patients:
            path = folder / "labelsTr_projected" / f"{case}.nii.gz"
            write_image(np.ones((1, 4, 3), np.uint8), path)
    assert run("-d", 10, 21, "-o", 30, "-n", "Mixed") == 0
    kept = {path.name for path in (raw / NAME / "labelsTr_projected").iterdir()}
    assert kept == {f"{case}.nii.gz" for case in PNGS | STUDIES}


def test_files_are_copied_where_links_fail(parts, raw, monkeypatch):
    def no_links(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", no_links)
    assert run("-d", 10, 21, "-o", 30, "-n", "Mixed") == 0
    source, copied = (folder / "imagesTr" / "p1_0000.nii.gz" for folder in (parts[0], raw / NAME))
    assert source.read_bytes() == copied.read_bytes()
    assert not source.samefile(copied)


DIFFERENT = {
    "--channels": {"channel_names": {"0": "ct"}, "mip": {"channels": ["ct"]}},
    "--labels": {"labels": {"background": 0, "lesion": 1, "ignore": 2}},
    "kind of labels visible": {"mip": {"labels": "visible"}},
    "file ending '.mha'": {"file_ending": ".mha"},
    "pixel size 4 mm, in Dataset010_Part10 2 mm": {"mip": {"pixel_mm": 4.0}},
    "pixel size of each study's own": {"mip": {"pixel_mm": None}},
    "scale of levels": {"mip": {"intensity": {"suv": {"low": 0.0, "high": 1.0}}}},
    "holds volumes": {"mip": {"source": "stage2"}},
    'no "mip" → "has_lesion"': {"mip": {"has_lesion": None}},
    "not the same cases": {"mip": {"has_lesion": {"z_1": True}}},
    "patient p2": {"mip": {"patients": STUDIES | {"z_1": "p2"}}},
    "does not name the patient of z_1": {
        "mip": {"patients": {"a_1": "a", "a_2_h": "a"}, "has_lesion": {"a_1": True, "a_2_h": False}}
    },
}


@pytest.mark.parametrize("reason", DIFFERENT)
def test_data_sets_that_do_not_fit_together(reason, parts, raw, capsys):
    change(parts[1], **DIFFERENT[reason])
    before = paths_below(raw)
    line = assert_refused(capsys, parts[1], command, "-d", 10, 21, "-o", 30)
    assert reason in line
    assert paths_below(raw) == before


def test_a_case_in_two_data_sets(parts, raw, capsys):
    write_dataset(raw, 22, {"a_1": "x"}, [])
    line = assert_refused(capsys, "Dataset022_Part22", command, "-d", 10, 21, 22, "-o", 30)
    assert "a case a_1, which Dataset021_Part21 has too" in line


def test_a_patient_in_two_data_sets_that_only_train(parts, raw):
    write_dataset(raw, 22, {"other": "a"}, [])
    assert run("-d", 10, 21, 22, "-o", 30, "-n", "Mixed") == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["-d", 10, "-o", 30], "two data sets"),
        (["-d", 10, 21, 10, "-o", 30], "10 is given twice"),
        (["-d", 10, 77, "-o", 30], "no data set with id 77"),
        (["-d", 10, 21, "-o", 21], "id 21 exists already"),
        (["-d", 10, 21, "-o", 0], "between 1 and 999"),
        (["-d", 10, 21, "-o", 30, "-n", "a b"], "--name 'a b'"),
        (["-d", 10, 21, "-o", 30, "--sources", "one"], "1 names for 2 data sets"),
        (["-d", 10, 21, "-o", 30, "--sources", "one", ""], "--sources ''"),
    ],
)
def test_options_that_make_no_sense(options, named, parts, raw, capsys):
    before = paths_below(raw)
    assert_refused(capsys, named, command, *options)
    assert paths_below(raw) == before


def test_a_data_set_of_another_converter_and_missing_files(parts, raw, capsys):
    arguments = (command, "-d", 10, 21, "-o", 30)
    (raw / "Dataset021_Twin").mkdir()
    assert_refused(capsys, "has the id 21 of", *arguments)
    (raw / "Dataset021_Twin").rmdir()
    label = parts[1] / "labelsTr" / "a_1.nii.gz"
    label.rename(raw / "away")
    assert_refused(capsys, label, *arguments)
    (raw / "away").rename(label)
    write(parts[0] / "splits_final.json", [{"train": ["p1", "c1_h"], "val": []}])
    assert_refused(capsys, parts[0] / "splits_final.json", *arguments)
    write(parts[1] / "dataset.json", {"channel_names": {"0": "CT"}, "file_ending": ".nii.gz"})
    line = assert_refused(capsys, parts[1] / "dataset.json", *arguments)
    assert "nnUNetv2_mip_convert_dmiai" in line
    assert not [path for path in raw.iterdir() if path.name.startswith(".")]


def test_a_killed_merge_is_finished_with_the_same_files(parts, raw, monkeypatch, capsys):
    link_case = merge.link_case

    def killed(payload, paths):
        if paths.case == "a_1":
            raise KeyboardInterrupt
        return link_case(payload, paths)

    with monkeypatch.context() as patch:
        patch.setattr(merge, "link_case", killed)
        assert run("-d", 10, 21, "-o", 30, "-n", "Mixed") == 130
    assert not (raw / NAME).exists()
    named = (command, "-d", 10, 21, "-o", 30, "-n", "Mixed", "--sources", "a", "b")
    assert_refused(capsys, "with other settings", *named)
    assert run("-d", 10, 21, "-o", 30, "-n", "Mixed") == 0
    assert sorted(path.name for path in raw.iterdir()) == sorted([*(p.name for p in parts), NAME])
    assert run("-d", 10, 21, "-o", 31, "-n", "Mixed") == 0
    whole = raw / "Dataset031_Mixed"
    assert paths_below(whole) == paths_below(raw / NAME)
    for name in ("splits_final.json", "conversion.json"):
        assert read(whole / name) == read(raw / NAME / name)
