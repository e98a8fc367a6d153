"""Summary of per-case scores: means, interval of the Dice, pooled lesion scores, controls."""

import math

import numpy as np

from nnunetv2_mip.evaluation.bootstrap import interval_over_cases

BOOTSTRAP_SEED = 0


def summarise(cases: dict[str, dict]) -> dict:
    """Mean, interval, pooled lesion scores, controls and counts of per-case scores.

    Args:
        cases: case → score name → value, as `evaluate.score_pair` returns them.

    Returns:
        `mean`, `dice_interval_95`, `controls`, `counts` and (not for stacks) `pooled`, as
        `evaluate.evaluate` documents them.
    """
    rows = list(cases.values())
    floats = [name for name, value in rows[0].items() if isinstance(value, float)]
    pixels = [name for name in rows[0] if name.endswith("_pixels")]
    controls = [row for row in rows if not row["has_lesion"]]
    error = false_positive_name(rows[0])
    counts = {
        "cases": len(rows),
        "with_lesions": len(rows) - len(controls),
        "controls": len(controls),
        "missing_predictions": sum(row["missing_prediction"] for row in rows),
    }
    summary = {
        "mean": {name: _mean([row[name] for row in rows]) for name in floats + pixels},
        "dice_interval_95": list(
            interval_over_cases([row["dice"] for row in rows], BOOTSTRAP_SEED)
        ),
        "controls": {
            "with_false_positives": sum(row[error] > 0 for row in controls),
            f"mean_{error}": _mean([row[error] for row in controls]),
        },
        "counts": counts,
    }
    if "lesions" in rows[0]:
        names = ("lesions", "lesions_found", "predicted_lesions", "predicted_lesions_right")
        counts |= {name: sum(row[name] for row in rows) for name in names}
        summary["pooled"] = {
            "lesion_recall": _ratio(counts["lesions_found"], counts["lesions"]),
            "lesion_precision": _ratio(
                counts["predicted_lesions_right"], counts["predicted_lesions"]
            ),
        }
    return summary


def worst_first(cases: dict[str, dict]) -> list[str]:
    """Names of the cases: lowest Dice first, then the controls, most false positives first."""
    error = false_positive_name(next(iter(cases.values())))

    def rank(case: str) -> tuple:
        scores = cases[case]
        undefined = math.isnan(scores["dice"])
        return undefined, 0.0 if undefined else scores["dice"], -scores[error]

    return sorted(cases, key=rank)


def false_positive_name(scores: dict) -> str:
    """Name of the score for false positives: in ml for volumes, in pixels for images and stacks."""
    return next(name for name in scores if name.startswith("false_positive_"))


def _mean(values: list[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
