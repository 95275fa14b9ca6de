"""`mononphm evaluate`: how good is it? `evaluate RUN ...` is short for `evaluate run RUN ...`."""

import click

from mononphm_cli.evaluating import animation, prior, run

DEFAULT = "run"
OWN_OPTIONS = ("-h", "--help", "--debug")


class WithDefault(click.Group):
    """A group that reads a first word that is none of its commands as an argument of `DEFAULT`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default's name in front where no command is named."""
        if args and args[0] not in self.commands and args[0] not in OWN_OPTIONS:
            args.insert(0, DEFAULT)
        return super().parse_args(ctx, args)


@click.group("evaluate", cls=WithDefault)
def command() -> None:
    """Compare a reconstruction with ground truth: `mononphm evaluate RUN --truth GT`."""


command.add_command(run.command)
command.add_command(run.gather)
command.add_command(prior.command)
command.add_command(animation.command)
