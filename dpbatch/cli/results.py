"""Commands that look at a run and its settings, and change nothing: status, verify, presets."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from dpbatch.cli.echo import echo
from dpbatch.cli.options import Location


@click.command()
@click.argument("folder", metavar="DIR", type=Location())
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(folder: Path, as_json: bool) -> None:
    """Show how far a run is, or how it ended.

    DIR is the --out of a run, which may still be running in another terminal or on another machine.
    Reads the run's journal and writes nothing.
    """
    from dpbatch.batch.status import read_status
    from dpbatch.batch.status_text import to_text

    report = read_status(folder)
    echo(json.dumps(report.to_dict(), indent=2) if as_json else to_text(report))


@click.command()
@click.argument("folder", metavar="DIR", type=Location())
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(folder: Path, as_json: bool) -> None:
    """Check that the results in DIR are as they were written.

    DIR is the --out of a run. Reads every result and compares it with the checksum in the run's
    journal. Exit code 1 where a result is missing or has changed.
    """
    from dpbatch.batch.verify import verify as verify_folder

    found = verify_folder(folder)
    echo(json.dumps(found.to_dict(), indent=2) if as_json else found.to_text())
    sys.exit(0 if found.is_good else 1)


@click.command()
@click.argument("name", required=False)
def presets(name: str | None) -> None:
    """List the presets that come with dpbatch, or print NAME."""
    from dpbatch.presets import shipped, text

    if name is not None:
        echo(text(name).rstrip("\n"))
        return
    for shipped_name in shipped():
        summary = text(shipped_name).splitlines()[0].lstrip("# ")
        echo(f"{shipped_name:<10} {summary}")
