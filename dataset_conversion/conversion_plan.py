"""Plan of a conversion to a nnU-Net raw data set: its cases, and the paths of their files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunetv2_mip.views.stack_files import FILE_ENDING, GEOMETRY_SUFFIX, LESIONS_SUFFIX

# Truth to score by where the labels to train on are not the whole projection.
PROJECTED_LABELS = "labelsTr_projected"


@dataclass(frozen=True)
class Case:
    """One case to convert.

    Attributes:
        name: of the case.
        patient: all cases of one patient share this.
        payload: what the converter's function needs (picklable).
        inputs: files and folders that are read; a case whose inputs have changed is done again.
        original: name or path of the input, where `name` lacks letters of it.
        choices: what the user says of this case alone (JSON); with others it is done again.
    """

    name: str
    patient: str
    payload: Any
    inputs: tuple[Path, ...] = ()
    original: str | None = None
    choices: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CasePaths:
    """Paths of the files of a case."""

    images: Path
    labels: Path
    case: str

    def channel(self, index: int) -> Path:
        return self.images / f"{self.case}_{index:04d}{FILE_ENDING}"

    @property
    def label(self) -> Path:
        return self.labels / f"{self.case}{FILE_ENDING}"

    @property
    def geometry(self) -> Path:
        return self.images / f"{self.case}{GEOMETRY_SUFFIX}"

    @property
    def projected_label(self) -> Path:
        """Path of the projected label, where the label to train on is another kind."""
        return self.labels.with_name(PROJECTED_LABELS) / self.label.name

    @property
    def lesions(self) -> Path:
        """Path of the table of lesions and the views that show them."""
        return self.images / f"{self.case}{LESIONS_SUFFIX}"

    def files(self) -> list[Path]:
        """Existing files of this case alone (`p_1` is no file of `p`)."""
        channels = self.images.glob(f"{self.case}_[0-9][0-9][0-9][0-9]{FILE_ENDING}")
        others = (self.label, self.projected_label, self.geometry, self.lesions)
        return [path for path in (*channels, *others) if path.is_file()]


@dataclass
class ConversionPlan:
    """Plan of a conversion.

    Attributes:
        dataset_id, name: of the target, `Dataset<id>_<name>`.
        cases: to convert.
        convert: (payload, CasePaths) → record: a JSON dict with `has_lesion`, `body` (for every
            channel the list of `BodyStatistics`), optional `warnings`, and whatever the summary
            should tell.
        settings: everything that decides the bytes of the data set (JSON).
        mip: entries for `dataset.json["mip"]`; its `channels` name the channels of the data set.
        source: the folder the cases come from.
        problems: (path, reason) found before converting.
        warnings: lines for the user.
        labels: of dataset.json; nnU-Net wants `ignore` to be the highest.
        totals: entries of the records whose sums the summary tells.
        intensity: for every channel the constants (`mean`, `std`, `low`, `high`) to standardise it
            by; None takes them from the records' `body`, which is needed only then.
        splits: of the cases (what is not converted is left out); None draws them.
        grouping: how the cases were given to patients; empty where it is certain.
    """

    dataset_id: int
    name: str
    cases: Sequence[Case]
    convert: Callable[[Any, CasePaths], dict]
    settings: Mapping[str, Any]
    mip: Mapping[str, Any]
    source: Path
    problems: Sequence[tuple[Path, str]] = ()
    warnings: Sequence[str] = ()
    labels: Mapping[str, int] = field(default_factory=lambda: {"background": 0, "lesion": 1})
    totals: Sequence[str] = ()
    intensity: Mapping[str, Mapping[str, float]] | None = None
    splits: Sequence[Mapping[str, Sequence[str]]] | None = None
    grouping: str = ""
