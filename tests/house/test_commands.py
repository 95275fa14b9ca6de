"""Every command of `mononphm` explains itself."""

import importlib

import click
import pytest

from mononphm_cli import main

CONTEXT = click.Context(main.cli)


def every_command():
    """(command line, command) of the whole tree."""

    def below(line, command):
        yield line, command
        if isinstance(command, click.Group):
            for name in command.list_commands(CONTEXT):
                yield from below([*line, name], command.get_command(CONTEXT, name))

    for name in main.cli.list_commands(CONTEXT):
        yield from below([name], main.cli.get_command(CONTEXT, name))


COMMANDS = list(every_command())


@pytest.mark.parametrize(("line", "command"), COMMANDS, ids=[" ".join(line) for line, _ in COMMANDS])
def test_every_command_has_help_with_a_sentence_and_an_explained_option(line, command, capsys):
    """`--help` exits 0, says what the command is for, and no option is left without a word."""
    assert main.run([*line, "--help"]) == 0
    assert capsys.readouterr().out.startswith("Usage: mononphm")
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help or isinstance(parameter.type, click.Choice), f"{' '.join(line)}: {parameter.opts}"


def test_the_table_of_commands_and_the_modules_agree():
    """A module without a line in the table cannot be called; it would be dead code."""
    from importlib.resources import files

    modules = {path.name.removesuffix(".py") for path in files("mononphm_cli.commands").iterdir()} - {"__init__"}
    modules = {name for name in modules if not name.startswith("__")}
    assert modules <= set(main.COMMANDS)
    for name in modules:
        assert isinstance(importlib.import_module(f"mononphm_cli.commands.{name}").command, click.Command)


def test_the_promised_commands_are_there():
    """The contract's table, as far as this version goes."""
    promised = {"reconstruct", "up", "api", "worker", "submit", "jobs", "models", "train", "doctor", "demo", "transfer"}
    assert promised <= set(main.cli.list_commands(CONTEXT))
