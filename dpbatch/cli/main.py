"""The `dpbatch` command: its group, and the exit code of every error.

Exit codes: 0 all done or skipped, 1 some photos failed, 2 wrong usage or settings, 3 nothing could
run or the run had to stop, 130 interrupted.

The command line parses, calls and exits. A command imports what is heavy when it runs, so that
`--help` answers at once.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from dpbatch import __version__
from dpbatch.cli import files, models, results, run, trials
from dpbatch.cli.echo import echo
from dpbatch.errors import AbortError, SettingsError
from dpbatch.hints import hinted
from dpbatch.terminal import accept_any_text
from ldp.errors import LdpError, UnknownModelError


class ExitCodes(click.Group):
    """A group of commands that turns errors into messages and exit codes."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program; a terminal that lacks a character of a name shows it as an escape."""
        accept_any_text(sys.stdout, sys.stderr)
        return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; print an expected error without a traceback and exit."""
        try:
            return super().invoke(ctx)
        except (SettingsError, UnknownModelError) as error:
            code, text = 2, str(error)
        except (AbortError, LdpError) as error:
            code, text = 3, hinted(error)
        except KeyboardInterrupt:
            code, text = 130, "interrupted"
        echo(f"dpbatch: {text}", err=True)
        ctx.exit(code)


@click.group(cls=ExitCodes, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dpbatch")
def main() -> None:
    """Turn Canon Dual Pixel RAW photos into sharp pictures, a whole folder at a time.

    To start: dpbatch run PHOTOS --out SHARP
    """


for command in (
    run.run,
    run.split,
    results.status,
    results.verify,
    results.presets,
    files.forget,
    files.inspect,
    files.simulate,
    trials.demo,
    trials.benchmark,
    models.models,
):
    main.add_command(command)
