"""Groups of commands that list what there is unless they are told otherwise."""

from __future__ import annotations

import click


class ListByDefault(click.Group):
    """Without the name of a command, the options are those of `list`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """`shoal limits --json` is `shoal limits list --json`."""
        if not args or (args[0].startswith("-") and args[0] not in ("-h", "--help")):
            args = ["list", *args]
        return super().parse_args(ctx, args)
