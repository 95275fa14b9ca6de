"""`mononphm`: the table of commands, and the one place where a failure becomes an exit code."""

import importlib
import importlib.util
import logging
import sys
import traceback
from collections.abc import Sequence

import click

from mononphm_cli import failures

COMMANDS: dict[str, str] = {
    "reconstruct": "Reconstruct the head in a clip or image, in this process; no server.",
    "preprocess": "First part of `reconstruct`: frames, landmarks, masks, camera.",
    "track": "Second part of `reconstruct`: fit identity, expression and pose.",
    "mesh": "Third part of `reconstruct`: meshes and the other artifacts.",
    "inspect": "Draw what is seen in a clip: landmarks, masks, camera, quality.",
    "transfer": "Let one reconstructed head do what another one did.",
    "export": "Write the animated head of a run as USD or as OBJ files.",
    "demo": "Send one clip through a real server to verified meshes and codes.",
    "up": "Start API and worker together on the embedded default.",
    "api": "Start the HTTP API alone.",
    "worker": "Start a worker alone.",
    "submit": "Send a clip or image to a server.",
    "jobs": "List, watch, download, cancel, retry or delete jobs on a server.",
    "models": "List, show or verify the models on this machine.",
    "train": "Train a head prior.",
    "flame": "Fit your own FLAME file to a clip; poses for `reconstruct`.",
    "evaluate": "Compare a reconstruction with ground truth.",
    "benchmark": "Measure speed on this machine.",
    "keys": "Create, list or revoke API keys.",
    "database": "Back up, restore, check or take back the state of record.",
    "capacity": "Say how many workers a load needs, and what they cost.",
    "doctor": "Say what works on this machine.",
}
"""Name -> one line of help. The help stands here so that `mononphm --help` imports no command."""


class LazyGroup(click.Group):
    """Commands live in `mononphm_cli.commands.<name>:command` and are imported when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands of the table that this installation has, in the table's order."""
        return [name for name in COMMANDS if importlib.util.find_spec(f"mononphm_cli.commands.{name}") is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command; None for a name that is not in the table."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"mononphm_cli.commands.{cmd_name}").command
        _accept_debug(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of `--help`, from the table alone."""
        rows = [(name, COMMANDS[name]) for name in self.list_commands(ctx)]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


def _set_debug(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        ctx.find_root().meta[failures.DEBUG] = True
        logging.getLogger().setLevel(logging.DEBUG)


def _print_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"mononphm {version('mononphm')}")
        ctx.exit()


def _debug_option() -> click.Option:
    return click.Option(
        ["--debug"], is_flag=True, expose_value=False, callback=_set_debug, help="Show log and traceback of a failure."
    )


def _accept_debug(command: click.Command) -> None:
    """`--debug` may stand behind any command, where people write it, as well as before."""
    if not any(parameter.name == "debug" for parameter in command.params):
        command.params.append(_debug_option())
    if isinstance(command, click.Group):
        for child in command.commands.values():
            _accept_debug(child)


cli = LazyGroup(
    name="mononphm",
    help="A head, in 3D, from an ordinary video: meshes and expression codes, here or as a service.",
    epilog="Start with `mononphm doctor`, then `mononphm demo`. Each command has its own --help.",
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_print_version,
            help="Show the version and exit.",
        ),
        _debug_option(),
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code (`failures.EXIT_CODES`). Never raises, never shows a traceback
    unless `--debug` is given."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    context: click.Context | None = None
    try:
        with cli.make_context("mononphm", list(arguments)) as context:
            result = cli.invoke(context)
        return result if isinstance(result, int) and not isinstance(result, bool) else failures.DONE
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("\nStopped.", err=True)
        return failures.OTHER
    except BrokenPipeError:  # the reader of our output left; there is nobody to tell
        sys.stderr.close()
        return failures.OTHER
    except Exception as error:
        # Options before the first command are parsed in make_context: the context exists by the time anything can fail.
        if context is not None and context.meta.get(failures.DEBUG):
            traceback.print_exception(error)
        click.echo(failures.describe(error), err=True)
        return failures.exit_code(error)


def main() -> None:
    """Entry point of the installed command."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
