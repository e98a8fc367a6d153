"""The report: one HTML file whose numbers are those of the evaluation, and that opens offline."""

import base64
import io
import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from nnunetv2_mip.commands import evaluate, phantom, report
from nnunetv2_mip.io.study_layouts import find_studies
from nnunetv2_mip.io.volumes import read_mask, read_suv
from nnunetv2_mip.lesions.lesion_table import lesion_table
from nnunetv2_mip.report import charts
from nnunetv2_mip.report.case_facts import Facts
from nnunetv2_mip.report.case_files import Source
from nnunetv2_mip.report.collect import collect
from nnunetv2_mip.report.content import Request
from nnunetv2_mip.report.dataset_check import (
    check_cases,
    conversion_findings,
    without_folders,
)
from nnunetv2_mip.report.markup import element, json_block
from nnunetv2_mip.report.rotating_mip import TurnSettings, draw_turn
from nnunetv2_mip.report.training_curves import _of_checkpoint, read_training

HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)<!--'
VOLUME_SCORES = ("dice", "hd95_mm", "false_positive_volume_ml", "false_negative_volume_ml")


def run(command, *arguments) -> int:
    with pytest.raises(SystemExit) as ended:
        command.main([str(argument) for argument in arguments])
    return ended.value.code


def save_png(path: Path, grey: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grey.astype(np.uint8)).save(path)


class Page(HTMLParser):
    """What a browser would find in a report."""

    def __init__(self, path: Path):
        super().__init__()
        self.text = path.read_text("utf-8")
        self.tags, self.scores, self.rows, self._open, self._score = [], {}, {}, [], None
        self.words = ""
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self._open.append(tag)
        self._score = attributes.get("data-score")
        if "data-value" in attributes:
            self._row.append(attributes["data-value"])

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if self._open and self._open[-1] in ("script", "style"):
            return
        self.words += data
        if self._score:
            self.scores[self._score], self._score = data, None
        if self._open[-2:] in (["tr", "th"], ["th", "a"]):
            self._row = self.rows.setdefault(data, [])

    def of(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def turns(self) -> dict:
        block = re.search(r'<script type="application/json" id="turns">(.*?)</script>', self.text)
        return json.loads(block.group(1))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    """Five coarse phantoms (`tree`), their masks spoiled (`masks`): shifted, and one empty."""
    folder = tmp_path_factory.mktemp("report")
    assert run(phantom, "-o", folder / "tree", "-n", 5, "--spacing", 10, "--seed", 3) == 0
    (folder / "masks").mkdir()
    for number, study in enumerate(find_studies(folder / "tree")):
        image = sitk.ReadImage(str(study.seg))
        mask = np.roll(sitk.GetArrayFromImage(image), 1, axis=2)
        if number == 1:
            mask[:] = 0
        mask[2:4, 2:4, 2:5] = 1
        found = sitk.GetImageFromArray(mask)
        found.CopyInformation(image)
        sitk.WriteImage(found, str(folder / "masks" / f"{study.case}.nii.gz"))
    return folder


@pytest.fixture(scope="module")
def simulated(cohort) -> Path:
    """The report of the cohort."""
    output = cohort / "out" / "report.html"
    arguments = ["-i", cohort / "masks", "-g", cohort / "tree", "-o", output]
    assert run(report, *arguments, "--cases", 1, "--views", 6) == 0
    return output


@pytest.fixture(scope="module")
def pngs(tmp_path_factory) -> Path:
    """A DM-i-AI folder of three patients, one with a hostile name, and a control; predictions."""
    folder = tmp_path_factory.mktemp("pngs")
    for number, name in enumerate(("patient_1", "patient_2", HOSTILE.replace("/", ""))):
        grey = np.full((60, 80), 250)
        grey[4:56, 28:52] = 180 + number
        grey[20:26, 32 : 36 + number] = 10
        mask = np.where(grey == 10, 255, 0)
        save_png(folder / f"data/patients/imgs/{name}.png", grey)
        label = name.replace("patient_", "segmentation_")
        save_png(folder / f"data/patients/labels/{label}.png", mask)
        save_png(folder / f"masks/{name}.png", np.roll(mask, 2, axis=1))
    save_png(folder / "data/controls/imgs/control_1.png", grey + (grey == 10) * 100)
    save_png(folder / "masks/control_1.png", np.roll(mask, 3, axis=0))
    return folder


@pytest.fixture(scope="module")
def of_pngs(pngs) -> Path:
    output = pngs / "report.html"
    assert run(report, "-i", pngs / "masks", "-g", pngs / "data", "-o", output) == 0
    return output


def test_scores_are_those_of_the_evaluation(cohort, simulated, tmp_path):
    metrics = tmp_path / "metrics.json"
    assert run(evaluate, "-p", cohort / "masks", "-g", cohort / "tree", "-o", metrics) == 0
    expected = json.loads(metrics.read_text())
    page = Page(simulated)
    for name in VOLUME_SCORES:
        decimals = {"dice": 3, "hd95_mm": 1}.get(name, 2)
        assert page.scores[name] == f"{expected['mean'][name]:.{decimals}f}", name
    low, high = expected["dice_interval_95"]
    assert f"{low:.3f}–{high:.3f}" in page.words
    found, lesions = expected["counts"]["lesions_found"], expected["counts"]["lesions"]
    assert f"{found} of {lesions}" in page.words and lesions > 1
    for case, scores in expected["cases"].items():
        own = [float(value) if value else None for value in page.rows[case]]
        assert own[: len(VOLUME_SCORES)] == [scores[name] for name in VOLUME_SCORES]
        assert own[-2:] == [scores["lesions"], scores["lesions_found"]]


def test_found_and_missed_lesions_agree_with_the_counts(cohort):
    content = collect(Request(predictions=cohort / "masks", truths=cohort / "tree", shown=0))
    for case, facts in content.facts.items():
        scores = content.scores["cases"][case]
        assert sum(row["hit"] for row in facts.lesions) == scores["lesions_found"]
        assert sum(row["hit"] for row in facts.predicted) == scores["predicted_lesions_right"]
        assert facts.burden == pytest.approx(scores["true_volume_ml"])
        assert facts.predicted_burden == pytest.approx(scores["predicted_volume_ml"])
    assert content.scores["counts"]["lesions_found"] < content.scores["counts"]["lesions"]
    assert not content.turns


def test_a_missing_prediction_counts_as_empty(cohort, pngs, tmp_path):
    for masks, truths in ((cohort / "masks", cohort / "tree"), (pngs / "masks", pngs / "data")):
        some = tmp_path / truths.name
        shutil.copytree(masks, some)
        case = "patient_1" if truths == pngs / "data" else find_studies(truths)[-1].case
        next(some.glob(f"{case}.*")).unlink()
        content = collect(Request(some, truths, shown=0, allow_missing=True))
        facts, counts = content.facts[case], content.scores["counts"]
        assert counts["missing_predictions"] == 1 and facts.predicted_burden == 0
        rows = [row for f in content.facts.values() for row in f.lesions]
        assert len(rows) == counts["lesions"] and facts.lesions
        assert sum(row["hit"] for row in rows) == counts["lesions_found"]


def test_cases_that_were_not_predicted_are_left_out_on_request(pngs, tmp_path):
    shutil.copytree(pngs / "masks", tmp_path / "some")
    (tmp_path / "some/patient_1.png").unlink()
    content = collect(Request(tmp_path / "some", pngs / "data", shown=0, only_predicted=True))
    assert "patient_1" not in content.facts and content.facts
    assert content.scores["not_predicted"] == ["patient_1"]


def test_defaults_are_those_of_the_library():
    args = report.build_parser().parse_args(["-o", "x.html"])
    assert (args.views, args.window) == (TurnSettings().views, TurnSettings().window_suv)
    assert (args.cases, args.min_overlap) == (Request().shown, Request().min_overlap)


@pytest.mark.parametrize("which", ["simulated", "of_pngs"])
def test_the_file_needs_nothing_else(which, request):
    page = Page(request.getfixturevalue(which))
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), name
            if name in ("src", "href", "action", "data"):
                assert value.startswith("#"), value
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org/2000/svg)", page.text)
    policy = next(a["content"] for a in page.of("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "Research use only" in page.words
    for canvas in page.of("canvas"):
        assert canvas["aria-label"] and canvas["role"] in ("slider", "img")
    assert all(svg["aria-label"] for svg in page.of("svg"))
    # Black text would not be seen on a dark page.
    assert page.of("text") and all("var(--" in text["style"] for text in page.of("text"))
    # What links inside the page lead to is there.
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(set(ids)) == len(ids)
    links = {a["href"][1:] for tag, a in page.tags if tag in ("a", "use") and "href" in a}
    assert links <= set(ids)


def overlay_of(page: dict) -> tuple[np.ndarray, np.ndarray]:
    """Truth and prediction of the first view, bool (H, W)."""
    content = base64.b64decode(page["overlay"].split(",")[1])
    sheet = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
    first = sheet[: page["rows"], : page["columns"]]
    return np.isin(first, (85, 255)), np.isin(first, (170, 255))


def test_views_and_masks_are_those_of_the_case(cohort):
    asked = Request(cohort / "masks", cohort / "tree", shown=1, turn=TurnSettings(views=6))
    content = collect(asked)
    case, turn = next(iter(content.turns.items()))
    page = turn.page
    assert page["views"] == 6 and page["angles_deg"] == [0, 30, 60, 90, 120, 150]
    assert page["wraps"] and page["has_truth"] and page["has_prediction"]
    assert page["image"].startswith("data:image/webp;base64,")
    assert len(turn.seen_in) == len(content.facts[case].lesions)
    assert all(0 <= number <= 6 for number in turn.seen_in)
    # 0° is the coronal view, the head on top; voxels of 10 mm are its pixels.
    study = next(study for study in find_studies(cohort / "tree") if study.case == case)
    for drawn, path in zip(overlay_of(page), (study.seg, cohort / "masks" / f"{case}.nii.gz")):
        shadow = read_mask(path).array.any(axis=1)[::-1]
        columns = np.flatnonzero(shadow.any(axis=0))
        shadow = shadow[:, columns[0] : columns[-1] + 1]
        columns = np.flatnonzero(drawn.any(axis=0))
        assert np.array_equal(drawn[:, columns[0] : columns[-1] + 1], shadow)


def test_overlays_hold_truth_and_prediction(pngs):
    data = pngs / "data" / "patients"
    source = Source(
        "patient_1",
        "png",
        data / "labels" / "segmentation_1.png",
        pngs / "masks" / "patient_1.png",
        data / "imgs" / "patient_1.png",
    )
    page = draw_turn(source, TurnSettings()).page
    truth, prediction = overlay_of(page)
    # Six rows, four columns, the prediction two columns further.
    assert truth.sum() == prediction.sum() == 24 and (truth & prediction).sum() == 12
    assert np.array_equal(np.roll(truth, 2, axis=1), prediction)
    # Of 80 columns the body has 24; 15 mm stay on either side.
    assert page["columns"] == 40 and page["rows"] == 60


def test_names_from_files_are_harmless(of_pngs):
    page = Page(of_pngs)
    assert "<img src=x" not in page.text and "<script>alert" not in page.text
    assert HOSTILE in page.words
    assert not page.of("img")
    # The page's own two, data and program.
    assert len(page.of("script")) == 2


def test_markup_escapes_and_blocks_cannot_be_left():
    assert element("p", "<b>", class_='"x"') == '<p class="&quot;x&quot;">&lt;b&gt;</p>'
    block = json_block("x", {"a": "</script><!--\u2028"})
    assert block.count("</script>") == 1 and "<!--" not in block
    assert json.loads(block[block.index("{") : block.rindex("}") + 1]) == {
        "a": "</script><!--\u2028"
    }
    chart = charts.dice_by_case([charts.Point(0, 0.5, "<svg onload=x>&")], 0.5, (math.nan,) * 2)
    assert "&lt;svg onload=x&gt;&amp;" in chart.svg and "onload=x>" not in chart.svg


def test_without_truth_the_lesions_are_listed(cohort, tmp_path, capsys):
    output = tmp_path / "plain.html"
    arguments = ["-i", cohort / "masks", "--images", cohort / "tree", "-o", output, "--views", 4]
    assert run(report, *arguments, "--cases", 1) == 0
    assert "nothing is scored" in capsys.readouterr().out
    page = Page(output)
    assert not page.scores and "Dice" not in page.words
    for study in find_studies(cohort / "tree"):
        suv = read_suv(study.suv)
        mask = read_mask(cohort / "masks" / f"{study.case}.nii.gz", like=suv)
        rows = lesion_table(mask.array, suv.array, suv.grid)
        number, ml, suv_max, tlg = (float(value) for value in page.rows[study.case])
        assert number == len(rows) and ml == pytest.approx(sum(r["volume_ml"] for r in rows))
        assert suv_max == max(r["suv_max"] for r in rows)
        assert tlg == pytest.approx(sum(r["tlg"] for r in rows))


def test_masks_without_their_images_are_counted(cohort, tmp_path, capsys):
    found = tmp_path / "images"
    case = next(iter(find_studies(cohort / "tree")))
    found.mkdir()
    shutil.copy(case.suv, found / f"{case.case}.nii.gz")
    plain = ["-i", cohort / "masks", "-o", tmp_path / "plain.html", "--views", 4, "--cases", 1]
    assert run(report, *plain) == 0
    assert "5 of 5 without an image: --images" in capsys.readouterr().out
    assert run(report, *plain, "--images", found) == 0
    assert "4 of 5 without an image: --images" in capsys.readouterr().out
    assert run(report, *plain, "--images", cohort / "tree") == 0
    assert "without an image" not in capsys.readouterr().out


def test_a_data_set_is_checked(untrained, tmp_path, capsys):
    splits = json.loads((untrained.raw / "splits_final.json").read_text())
    lesions = {
        "format_version": 1,
        "angles_deg": [0, 60, 120],
        "lesions": [
            {"volume_ml": 7.5, "suv_max": 5.0, "seen_in": [0, 2]},
            {"volume_ml": 2.0, "suv_max": 4.0, "seen_in": []},
        ],
    }
    for case in ("ann_1", "ann_2", "bob_1", "eve_1"):
        own = lesions if case != "eve_1" else {**lesions, "lesions": []}
        (untrained.raw / "imagesTr" / f"{case}_lesions.json").write_text(json.dumps(own))
    # ann on both sides of fold 0; bob's image is ann's.
    splits[0] = {"train": ["bob_1", "eve_1", "ann_1"], "val": ["ann_2"]}
    (untrained.raw / "splits_final.json").write_text(json.dumps(splits))
    images = untrained.raw / "imagesTr"
    shutil.copy(images / "ann_1_0000.nii.gz", images / "bob_1_0000.nii.gz")
    output = tmp_path / "data.html"
    assert run(report, "-d", untrained.number, "-o", output, "--cases", 1) == 0
    said = capsys.readouterr().out
    words = Page(output).words
    for line in (
        "patient ann both in training and in validation",
        "ann_1 = bob_1",
    ):
        assert line in said and line in words, line
    assert "1 of 4 labels are empty (cases without lesions, or forgotten ones): eve_1" in words
    assert "3 of 6 lesions (6.0 ml) are visible in no view: ann_1, ann_2, bob_1" in words
    assert "one spacing everywhere: 4 × 5 mm" in words
    assert "Data set check" in words and "Metrics" not in words
    assert len(Page(output).turns) == 2


def test_odd_cases_are_named():
    def facts(case: str, **changes) -> Facts:
        usual = {
            "kind": "volume", "size": (100, 100, 200), "spacing_mm": (4.0, 4.0, 3.0),
            "burden": 3.0, "predicted_burden": None, "unit": "ml",
            "lesions": [{"volume_ml": 3.0}], "predicted": None, "uptake": 0.8, "highest": 9.0,
            "digest": hash(case),
        }  # fmt: skip
        return Facts(case=case, **{**usual, **changes})

    some = [facts(f"case_{n}") for n in range(5)]
    assert {f.level for f in check_cases(Path("x"), some).findings} == {"ok"}
    odd = [
        facts("short", size=(100, 100, 60)),
        facts("coarse", spacing_mm=(4.0, 4.0, 8.0)),
        facts("slip", lesions=[{"volume_ml": 0.01}]),
        facts("unit", warnings=["the median of the body is 4000"]),
    ]
    lines = {f.text: f.level for f in check_cases(Path("x"), some + odd).findings}
    for text, level in (
        ("odd size", "warning"),
        ("short (100 × 100 × 60)", "warning"),
        ("coarse (4 × 4 × 8)", "warning"),
        ("smaller than 0.05 ml", "note"),
        ("unit: the median of the body is 4000", "warning"),
        ("2 different spacings; 8 of 9 cases have 4 × 4 × 3 mm", "note"),
    ):
        assert [known for line, known in lines.items() if text in line] == [level], text


def test_stacks_are_judged_as_the_evaluation_does(untrained, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    for path in sorted((untrained.raw / "labelsTr").iterdir()):
        # Two columns beside the truth, and 255 where others write 1.
        labels = sitk.ReadImage(str(path))
        moved = 255 * np.roll(sitk.GetArrayFromImage(labels) == 1, 2, axis=2).astype(np.uint8)
        image = sitk.GetImageFromArray(moved)
        image.CopyInformation(labels)
        sitk.WriteImage(image, str(masks / path.name))
    output, metrics = tmp_path / "stacks.html", tmp_path / "metrics.json"
    assert run(report, "-i", masks, "-g", untrained.raw, "-o", output, "--cases", 1) == 0
    assert run(evaluate, "-p", masks, "-g", untrained.raw, "-o", metrics) == 0
    page, expected = Page(output), json.loads(metrics.read_text())
    assert page.scores["dice"] == f"{expected['mean']['dice']:.3f}"
    assert 0 < expected["mean"]["dice"] < 0.99
    assert page.scores["true_pixels"] == f"{expected['mean']['true_pixels']:.0f}"
    turn = next(iter(page.turns.values()))
    assert turn["views"] == 3 and turn["has_image"]


def test_training_curves_are_those_of_the_checkpoint(tiny_model, tmp_path):
    output = tmp_path / "training.html"
    assert run(report, "-m", tiny_model, "-o", output) == 0
    training = read_training(tiny_model)
    (curves,) = training.folds
    saved = _of_checkpoint(tiny_model / "fold_0", "0")
    assert curves.epochs == saved.epochs == [1, 2]
    for name in ("train_loss", "val_loss", "dice"):
        assert curves.values[name] == pytest.approx(saved.values[name], abs=1e-4, nan_ok=True)
    page = Page(output)
    assert f"{curves.values['train_loss'][-1]:.3f}" in page.words
    assert "nnUNetTrainerMIP_tiny" in page.words and len(page.of("svg")) == 2


def test_a_training_that_went_on_counts_once(tmp_path):
    (tmp_path / "plans.json").write_text("{}")
    fold = tmp_path / "fold_1"
    fold.mkdir()

    def log(name: str, epochs: dict[int, float], unfinished: int | None = None) -> None:
        lines = []
        for epoch, loss in epochs.items():
            lines += [f"Epoch {epoch} ", "Current learning rate: 1e-05 ", f"train_loss {loss} ",
                      "val_loss nan ", "Pseudo dice [np.float32(0.5), 0.7] "]  # fmt: skip
        if unfinished is not None:
            lines.append(f"Epoch {unfinished} ")
        text = "".join(f"2026-01-01 10:00:00.123456: {line}\n" for line in lines)
        (fold / f"training_log_{name}.txt").write_text(text)

    # nnU-Net writes no zeros before one digit: the tenth month comes after the ninth.
    log("2026_9_30_8_0_0", {0: 1.0, 1: 0.9, 2: -0.8}, unfinished=3)
    log("2026_10_1_7_59_9", {1: 0.5})
    # An exported model has weights and no logs.
    (tmp_path / "fold_2").mkdir()
    training = read_training(tmp_path)
    assert training.silent == ["2"]
    (curves,) = training.folds
    assert curves.epochs == [1, 2] and curves.values["train_loss"] == [1.0, 0.5]
    assert curves.values["dice"] == pytest.approx([0.6, 0.6])
    assert curves.values["rate"] == [1e-5, 1e-5] and math.isnan(curves.values["val_loss"][0])


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("/data/my trial/p1/SUV.nii.gz: median SUV 40", "p1/SUV.nii.gz: median SUV 40"),
        ("/data/p1: left out by the conversion: /data/p1/CT.nii.gz: no such file",
         "data/p1: left out by the conversion: p1/CT.nii.gz: no such file"),
        ("a.nii.gz: not on the grid of /data/x/b.nii.gz; resample it",
         "a.nii.gz: not on the grid of x/b.nii.gz; resample it"),
        (r"C:\trial\p1\SUV.nii.gz: 3 g/ml and 2 / 3", "p1/SUV.nii.gz: 3 g/ml and 2 / 3"),
    ],
)  # fmt: skip
def test_a_report_names_no_folder_of_this_machine(line, shown, tmp_path):
    assert without_folders(line) == shown
    (tmp_path / "conversion.json").write_text(
        json.dumps({"warnings": [line], "skipped": [{"case": line, "reason": line}]})
    )
    content = conversion_findings(tmp_path)
    assert content[0].text == shown and content[1].text.count(shown) == 2


def bad_folders(folder: Path, cohort: Path) -> dict[str, list]:
    """Arguments that cannot be served."""
    masks, tree = cohort / "masks", cohort / "tree"
    (folder / "empty").mkdir()
    (folder / "file").write_text("x")
    strangers = folder / "strangers"
    strangers.mkdir()
    first = sorted(masks.iterdir())[0]
    shutil.copy(first, strangers / "somebody.nii.gz")
    shutil.copytree(masks, folder / "moved")
    image = sitk.ReadImage(str(first))
    image.SetOrigin((7.0, 7.0, 7.0))
    sitk.WriteImage(image, str(folder / "moved" / first.name))
    return {
        "nothing": [],
        "no predictions": ["-i", folder / "absent", "-g", tree],
        "no truth": ["-i", masks, "-g", folder / "absent"],
        "no mask": ["-i", folder / "empty"],
        "strangers": ["-i", strangers, "-g", tree],
        "grid": ["-i", folder / "moved", "-g", tree],
        "grid of images": ["-i", folder / "moved", "--images", tree],
        "images": ["-i", masks, "--images", strangers],
        "model": ["-m", folder / "empty"],
        "data set": ["-d", folder / "empty"],
        "views": ["-i", masks, "-g", tree, "--views", 0],
    }


REASONS = {
    "nothing": "nothing to report on",
    "no predictions": "absent: no such file or folder",
    "no truth": "absent: no such file or folder",
    "no mask": "empty: holds no mask",
    "strangers": "holds no prediction for any of the 5 cases",
    "grid": "lies on another grid",
    "grid of images": "lies on another grid",
    "images": "strangers: holds no image of any of the 5 cases",
    "model": "is no model folder of nnU-Net",
    "data set": "is no raw nnU-Net data set",
    "views": "--views 0: choose between 1 and 90",
}


@pytest.mark.parametrize("what", REASONS)
def test_what_cannot_be_served_gets_one_line_and_leaves_nothing(what, cohort, tmp_path, capsys):
    output = tmp_path / "out" / "report.html"
    assert run(report, *bad_folders(tmp_path, cohort)[what], "-o", output) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(error) == 1 and REASONS[what] in error[0], error
    assert not output.exists() and not list(tmp_path.rglob("*.partial.*"))


@pytest.mark.parametrize(
    "name, reason",
    [
        ("report.pdf", "ends in .html"),
        ("file/report.html", "is a file"),
        ("folder.html", "is a folder"),
    ],
)
def test_where_no_report_can_be_written(name, reason, cohort, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.html").mkdir()
    assert run(report, "-i", cohort / "masks", "-o", tmp_path / name) == 2
    assert reason in capsys.readouterr().err


# In a real browser.


@pytest.fixture
def look(browser):
    """Opens a file; at the end nothing was asked for, complained of or said by a dialog."""
    opened = []

    def open_file(path: Path, width: int = 1200):
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.set_default_timeout(60_000)
        page.asked, page.complaints = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("dialog", lambda dialog: page.complaints.append(dialog.message))
        page.on(
            "console",
            lambda line: page.complaints.append(line.text) if line.type == "error" else None,
        )
        page.goto(path.resolve().as_uri())
        opened.append((page, path.resolve().as_uri()))
        return page

    yield open_file
    for page, address in opened:
        others = [url for url in page.asked if url != address and not url.startswith("data:")]
        assert others == [] and page.complaints == []
        page.close()


def coloured(page, canvas: str) -> int:
    return page.evaluate(
        """(id) => { const c = document.querySelector(id);
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0;
        for (let i = 0; i < d.length; i += 4) n += Math.abs(d[i] - d[i + 2]) > 20; return n; }""",
        canvas,
    )


def test_pictures_turn_and_masks_fade(look, simulated):
    page = look(simulated)
    canvas = "#card-0-canvas"
    page.locator(canvas).scroll_into_view_if_needed()
    page.wait_for_selector(f"{canvas}[data-view='0']")
    assert page.get_attribute(canvas, "aria-valuetext") == "0°, from the front"
    box = page.locator(canvas).bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 5 + box["width"] / 2, box["y"] + 50, steps=4)
    page.mouse.up()
    # Half the width is 90°: three of six views.
    assert page.get_attribute(canvas, "data-view") == "3"
    assert page.get_attribute(canvas, "aria-valuetext") == "90°, from the left side"
    page.focus(canvas)
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    assert page.get_attribute(canvas, "aria-valuetext") == "330°"
    page.keyboard.press("ArrowRight")
    both = coloured(page, canvas)
    assert both > 0
    page.uncheck("#show-truth")
    page.uncheck("#show-prediction")
    assert coloured(page, canvas) == 0
    page.check("#show-prediction")
    assert 0 < coloured(page, canvas) < both
    page.fill("#opacity", "0")
    assert coloured(page, canvas) == 0
    page.fill("#size", "200")
    larger = page.locator(canvas).bounding_box()
    assert larger["height"] == pytest.approx(2 * box["height"], rel=0.01)
    # A column fills what is left beside it.
    assert larger["width"] >= 2 * box["width"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.click("#play")
    page.wait_for_function("() => document.querySelector('#card-0-canvas').dataset.view !== '0'")


def test_a_phone_shows_it_without_scrolling_sideways(look, simulated):
    page = look(simulated, width=390)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    for opened in page.locator("summary").all():
        opened.click()
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_the_table_sorts_and_finds(look, of_pngs):
    page = look(of_pngs)
    names = "table.cases tbody tr:not([hidden]) th"
    before = page.locator(names).all_inner_texts()
    page.click("table.cases thead button:text-is('Dice')")
    values = page.locator("table.cases tbody td:nth-child(2)").all_inner_texts()
    assert values[:3] == sorted(values[:3]) and values[3] == "–"
    page.click("table.cases thead button:text-is('Dice')")
    assert page.locator(names).all_inner_texts() != before
    page.fill("#find", "onerror")
    assert page.locator(names).all_inner_texts() == [HOSTILE]
    page.click(f"{names} a")
    page.wait_for_function("() => document.querySelector('.card:target h4') !== null")
    assert page.inner_text(".card:target h4") == HOSTILE
