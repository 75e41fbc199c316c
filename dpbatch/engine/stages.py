"""Defaults of an engine's callbacks."""


def never() -> bool:
    """Where nobody asks an engine to stop."""
    return False


def ignore(*_: object) -> None:
    """Where nobody listens to an engine."""
