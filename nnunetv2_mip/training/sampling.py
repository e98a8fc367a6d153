"""Sampling of training cases: the share of controls, each source, and a part of the patients."""

import math
from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256

from nnunetv2_mip.errors import MipError

# Cases are repeated at most this often.
MOST_REPEATS = 12


def repeated_for_share(cases: Sequence[str], some: Collection[str], share: float) -> list[str]:
    """List of cases with repetitions, in which `some` of the cases have about the share `share`.

    nnU-Net's loader draws every entry of its list with the same probability: repeated cases are
    drawn more often.

    Args:
        cases: all of them.
        some: those whose share is wanted, a part of `cases`.
        share: in [0, 1); 0 leaves them out.

    Returns:
        the cases in their order, each kind repeated 1 to 12 times (0 for a share of 0); the cases
        themselves where they are all of one kind.

    Raises:
        MipError: a share outside [0, 1).
    """
    if not 0 <= share < 1:
        raise MipError(f"control share {share}: must be at least 0 and below 1")
    some = set(some) & set(cases)
    others = len(cases) - len(some)
    if not some or not others:
        return list(cases)
    if share == 0:
        return [case for case in cases if case not in some]
    span = range(1, MOST_REPEATS + 1)
    # The fewest repetitions among the closest shares.
    _, _, often, seldom = min(
        (round(abs(a * len(some) / (a * len(some) + b * others) - share), 4), a + b, a, b)
        for a in span
        for b in span
    )
    return [case for case in cases for _ in range(often if case in some else seldom)]


def repeated_by_source(
    cases: Sequence[str],
    source_of: Mapping[str, str],
    has_lesion: Mapping[str, bool],
    repeats: Mapping[str, tuple[int, int]],
) -> list[str]:
    """List of cases with repetitions, as often as the source and the lesions of each say.

    nnU-Net's loader draws every entry of its list with the same probability.

    Args:
        cases: all of them.
        source_of: case → name of its source (dataset.json["mip"] of a merged data set).
        has_lesion: case → whether it shows a lesion; a case without an entry does.
        repeats: source → repetitions of its cases with lesions, and of those without; 0 leaves
            them out.

    Returns:
        the cases in their order.

    Raises:
        MipError: a case without a source, a source without repetitions, repetitions that are no
            whole numbers from 0, or no case left.
    """
    for source, numbers in repeats.items():
        if len(numbers) != 2 or not all(isinstance(n, int) and n >= 0 for n in numbers):
            raise MipError(f"repetitions of source {source}: {numbers} are no two whole numbers")
    for case in cases:
        if source_of.get(case) not in repeats:
            known = ", ".join(sorted(repeats))
            raise MipError(
                f"case {case}: its source {source_of.get(case)} is none of {known}: name the "
                "sources with nnUNetv2_mip_merge_datasets --sources, or give a trainer's "
                "source_repeats"
            )
    drawn = [
        case
        for case in cases
        for _ in range(repeats[source_of[case]][0 if has_lesion.get(case, True) else 1])
    ]
    if not drawn:
        raise MipError(f"{len(cases)} training cases, none of which is drawn: see source_repeats")
    return drawn


def part_of_patients(
    cases: Sequence[str], patients: Mapping[str, str], lesions: Collection[str], share: float
) -> list[str]:
    """Cases of a share of the patients with lesions, and all cases of the other patients.

    For learning curves: which patients stay is drawn by their names, so that it is the same in
    every run, and a smaller share is a part of a larger one.

    Args:
        cases: to choose from.
        patients: case → patient.
        lesions: the cases with lesions.
        share: of the patients with lesions, in (0, 1]; at least one stays.

    Returns:
        the cases that stay, in their order.

    Raises:
        MipError: a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise MipError(f"patient share {share}: must be above 0 and at most 1")
    with_lesions = {patients[case] for case in set(cases) & set(lesions)}
    drawn = sorted(with_lesions, key=lambda patient: sha256(patient.encode()).digest())
    left_out = set(drawn[max(1, math.ceil(share * len(drawn))) :])
    return [case for case in cases if patients[case] not in left_out]
