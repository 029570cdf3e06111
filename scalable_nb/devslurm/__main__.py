"""``python -m scalable_nb.devslurm up|down|status``."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from scalable_nb.devslurm.service import DevSlurm, default_folder
from scalable_nb.errors import ScalableError


class _Group(click.Group):
    """Says our own errors as they are, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ScalableError as error:
            raise click.ClickException(str(error)) from error


def _with_folder(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--folder",
        type=click.Path(path_type=Path, file_okay=False),
        default=default_folder,
        help=f"Private folder of the instance (default: {default_folder()}).",
    )(command)


@click.group(cls=_Group)
def main() -> None:
    """A real Slurm of one's own on this machine.

    `up` prints what to export; in a shell: eval "$(python -m scalable_nb.devslurm up)"
    """


@main.command()
@_with_folder
@click.option("--nodes", type=click.IntRange(1, 64), default=4, show_default=True)
@click.option("--cpus", type=click.IntRange(1), default=4, show_default=True, help="Of each node.")
@click.option("--memory-mb", type=click.IntRange(1), default=4000, show_default=True)
@click.option("--accounting/--no-accounting", default=True, help="Whether sacct answers.")
@click.option(
    "--enforce-memory/--no-enforce-memory",
    default=False,
    help="Whether Slurm kills jobs that use more memory than they asked for.",
)
def up(folder: Path, **options: Any) -> None:
    """Start an instance and wait until its nodes are idle."""
    slurm = DevSlurm(folder)
    slurm.up(**options)
    _show(slurm)


@main.command()
@_with_folder
def status(folder: Path) -> None:
    """Say which daemons run, and what to export; exit code 1 when not all do."""
    slurm = DevSlurm(folder)
    states = slurm.states()
    for name, is_running in states.items():
        click.echo(f"{name}: {'running' if is_running else 'ended'}", err=True)
    if not states or not all(states.values()):
        raise click.ClickException(f"no complete instance runs in {slurm.layout.folder}")
    _show(slurm)


@main.command()
@_with_folder
@click.option("--remove", is_flag=True, help="Remove the folder too.")
def down(folder: Path, *, remove: bool) -> None:
    """Cancel all jobs and stop an instance."""
    DevSlurm(folder).down(remove=remove)


def _show(slurm: DevSlurm) -> None:
    nodes = slurm.run_client("sinfo", "-h", "-o", "%P %t %N")
    click.echo(nodes.rstrip(), err=True)
    click.echo(f"export SLURM_CONF={shlex.quote(str(slurm.layout.slurm_conf))}")


if __name__ == "__main__":
    main(prog_name="python -m scalable_nb.devslurm")
