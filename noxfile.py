"""Every check, on every supported Python: nox -l lists them. .ci/run runs them on one Python.

The versions are the classifiers in pyproject.toml.
"""

from __future__ import annotations

import nox

PYTHONS = nox.project.python_versions(nox.project.load_toml("pyproject.toml"))

nox.options.default_venv_backend = "uv|venv"
nox.options.sessions = ["tests", "lint", "types"]


def _install(session: nox.Session, extra: str) -> None:
    session.install("-c", "constraints.txt", "-e", f".[{extra}]")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the fast tests, or those that are named: nox -s tests-3.12 -- tests/ldp."""
    _install(session, "test")
    session.run("pytest", *session.posargs)


@nox.session(python=PYTHONS)
def slow(session: nox.Session) -> None:
    """Run the tests that take more than about ten seconds each."""
    _install(session, "test,docs")
    session.run("pytest", "-m", "slow", *session.posargs)


@nox.session(python=PYTHONS[0])
def coverage(session: nox.Session) -> None:
    """Run all tests and print the branches and lines that none of them reaches."""
    _install(session, "test,docs")
    session.run("pytest", "-m", "slow or not slow", "--cov", "--cov-report=term-missing")


@nox.session(python=PYTHONS[0])
def lint(session: nox.Session) -> None:
    """Check style and format."""
    _install(session, "dev")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session(python=PYTHONS[0])
def types(session: nox.Session) -> None:
    """Check the types."""
    _install(session, "dev")
    session.run("mypy")


@nox.session(python=PYTHONS[0])
def docs(session: nox.Session) -> None:
    """Build the pages into build/site; a broken link is an error."""
    _install(session, "docs")
    session.run("mkdocs", "build", "--strict", env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session(python=PYTHONS)
def wheel(session: nox.Session) -> None:
    """Build the wheel, install it and run it outside the checkout."""
    _install(session, "dev")
    session.run("bash", ".ci/wheel", "python", external=True)
