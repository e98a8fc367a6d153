"""What nnUNetv2_mip_predict prints at its end: counts, tables, files."""

from pathlib import Path

from nnunetv2_mip.commands._findings import findings_of_many, findings_of_one
from nnunetv2_mip.inference.find_inputs import Job
from nnunetv2_mip.inference.predict_files import Written, picture_path
from nnunetv2_mip.lesions.summary import describe_lesions, describe_regions


def row(number: int, ml: float, peak: float | None) -> dict:
    return {"lesion": number, "volume_ml": ml, "suv_max": peak, "suv_mean": peak, "tlg": None}


def written(case: str, rows: list[dict]) -> Written:
    job = Job("volume", case, Path(f"in/{case}.nii.gz"), Path(f"out/{case}.nii.gz"))
    files = {"mask": job.target, "picture": picture_path(job.target)}
    return Written(job, rows, describe_lesions(rows), files)


def test_lesions_in_a_few_words():
    assert describe_lesions([]) == "no lesion"
    assert describe_lesions([row(1, 2.08, 12.79)]) == "1 lesion, 2.1 ml, SUVmax 12.8"
    two = [row(1, 120.4, 9.0), row(2, 0.6, 11.0)]
    assert describe_lesions(two) == "2 lesions, 121 ml in all, SUVmax 11.0"
    assert describe_lesions([row(1, 0.032, None)]) == "1 lesion, 0.032 ml"
    assert describe_regions([{"area_cm2": 1.5}]) == "1 region, 1.5 cm²"


def test_one_case_shows_its_lesions_its_files_and_what_to_open():
    lines = findings_of_one(written("ann", [row(1, 2.08, 12.79)]))
    assert lines[0] == "ann: 1 lesion, 2.1 ml, SUVmax 12.8"
    assert lines[2].split() == ["1", "2.08", "12.8", "12.8", "-"]
    assert [line.split() for line in lines[4:6]] == [
        ["mask", "out/ann.nii.gz"],
        ["picture", "out/ann_mip.gif"],
    ]
    assert lines[6] == "open:" and "out/ann_mip.gif" in lines[7] and "in/ann.nii.gz" in lines[8]


def test_many_cases_are_counted_and_the_largest_come_first_in_a_long_list():
    few = findings_of_many([written("ann", [row(1, 2.0, 5.0)]), written("bob", [])])
    assert few[1].split() == ["ann", "1", "2.00", "5.0"]
    assert few[2].split() == ["bob", "0", "-", "-"]
    assert few[3] == "2 cases: 1 with lesions (1 lesion), 1 without"
    assert any("out/CASE_mip.gif" in line for line in few)
    many = findings_of_many([written(f"c{k}", [row(1, float(k), 5.0)]) for k in range(1, 31)])
    assert many[1].split()[0] == "c30" and "  … and 10 with less" in many
