"""Numbers and their nouns in messages: `1 case`, `2 cases`."""

_VERBS = {"is": "are", "has": "have"}


def counted(number: int, noun: str, verb: str = "") -> str:
    """Number with its noun: `1 study`, `2 studies`; with the verb `is`: `1 study is`.

    Args:
        number: how many.
        noun: regular, in the singular.
        verb: third person singular, if one follows.
    """
    return " ".join([str(number), _plural(noun, number), *_agreeing(verb, number)])


def part_of(number: int, total: int, noun: str, verb: str = "") -> str:
    """Number of a total: `1 of 3 voxels is`, `2 of 3 voxels are`. Arguments as of `counted`."""
    return " ".join([f"{number} of {counted(total, noun)}", *_agreeing(verb, number)])


def _plural(noun: str, number: int) -> str:
    if number == 1 or noun.endswith("s"):
        return noun
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def _agreeing(verb: str, number: int) -> list[str]:
    if not verb:
        return []
    return [verb if number == 1 else _VERBS.get(verb, verb.removesuffix("s"))]
