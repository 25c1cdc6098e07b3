"""The commands, and how their errors end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from tts_plugins._version import __version__
from tts_plugins.cli._commands.batch import batch
from tts_plugins.cli._commands.bench import bench
from tts_plugins.cli._commands.calibrate import calibrate_command
from tts_plugins.cli._commands.demo import demo
from tts_plugins.cli._commands.doctor import doctor
from tts_plugins.cli._commands.export import export_command
from tts_plugins.cli._commands.profiles import profiles
from tts_plugins.cli._commands.record import record
from tts_plugins.cli._commands.report import report
from tts_plugins.cli._commands.rollouts import rollouts
from tts_plugins.cli._commands.serve import serve
from tts_plugins.cli._commands.solve import solve
from tts_plugins.cli._commands.train import train_verifier
from tts_plugins.cli._commands.view import view
from tts_plugins.cli._display.console import begin, fail

app = typer.Typer(
    name="tts-plugins",
    add_completion=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo)
app.command("solve")(solve)
app.command("record")(record)
app.command("bench")(bench)
app.command("batch")(batch)
app.command("report")(report)
app.command("calibrate")(calibrate_command)
app.command("export")(export_command)
app.command("rollouts")(rollouts)
app.command("train-verifier")(train_verifier)
app.command("serve")(serve)
app.command("view")(view)
app.command("profiles")(profiles)
app.command("doctor")(doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tts-plugins {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Test-time scaling: let a small model sample, check and choose, under a hard budget.

    Start with [bold]tts-plugins demo[/]: it needs no key and no account.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name, and return its exit code."""
    begin(arguments)
    try:
        code = app(list(arguments), standalone_mode=False, prog_name="tts-plugins")
    except typer.Abort:
        return 130
    except SystemExit as done:  # of typer's own options, such as --show-completion
        return done.code if isinstance(done.code, int) else 0
    except Exception as error:
        # Usage errors of typer (of click in older versions) have both; anything else is a defect of ours.
        format_message, exit_code = getattr(error, "format_message", None), getattr(error, "exit_code", None)
        if format_message is None or exit_code is None:
            raise
        context = getattr(error, "ctx", None)
        command = "tts-plugins" if context is None else context.command_path
        fail(f"{format_message().rstrip('.')}; see {command} --help", int(exit_code), "UsageError")
        return int(exit_code)
    return code if isinstance(code, int) else 0
