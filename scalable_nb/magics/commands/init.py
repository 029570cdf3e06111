"""``init``: write a commented manifest to begin with."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from scalable_nb.magics.subcommand import Context, Example, Option, Subcommand


def _run(context: Context, options: Namespace) -> Path:
    from scalable_nb.manifest.template import write_template
    from scalable_nb.paths import MANIFEST_NAME

    path = write_template(options.path or Path(MANIFEST_NAME), force=options.force)
    context.echo(f"Wrote {path}. Edit it, then look at `{context.surface.prompt} plan`.")
    return path


SUBCOMMAND = Subcommand(
    name="init",
    summary="write a commented scalable.yaml to begin with",
    run=_run,
    options=(
        Option(("--path", "-p"), "where to write it; ./scalable.yaml when not given", "FILE", Path),
        Option(("--force", "-f"), "replace a file that is there already"),
    ),
    examples=(
        Example("init", "write ./scalable.yaml"),
        Example("init --path demo/scalable.yaml --force", "elsewhere, replacing what is there"),
    ),
    python="from scalable_nb.manifest.template import write_template; "
    "write_template('scalable.yaml')",
    on_command_line=True,
)
