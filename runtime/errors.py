"""The one error class that a user's mistake raises, and words for its sentence."""


class SSDiffError(Exception):
    """A mistake in what the user gave, told in one sentence.

    The sentence says what was found, what was expected and what to do. Commands print it without
    a traceback and exit with status 2. Anything else that escapes is a defect of the program.
    """


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 band", "4 bands"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
