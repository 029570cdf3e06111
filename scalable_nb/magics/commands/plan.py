"""``plan``: what a start would ask for, touching nothing."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from scalable_nb.magics.completion import targets
from scalable_nb.magics.subcommand import Context, Example, Option, Subcommand

if TYPE_CHECKING:
    from scalable_nb.manifest.start_plan import Plan

TARGET = Option(
    ("--target", "-t"),
    "a target of the manifest; SCALABLE_TARGET, the only one or `local` when not given",
    "NAME",
    candidates=targets,
)
MANIFEST = Option(
    ("--manifest", "-m"),
    "the manifest; SCALABLE_MANIFEST or the nearest scalable.yaml when not given",
    "FILE",
    Path,
)


def _run(context: Context, options: Namespace) -> Plan:
    from scalable_nb.manifest.load import load_manifest
    from scalable_nb.manifest.planner import make_plan

    return make_plan(load_manifest(options.manifest, target=options.target))


SUBCOMMAND = Subcommand(
    name="plan",
    summary="show what a start would ask for: workers, memory, walltime, batch script",
    run=_run,
    options=(TARGET, MANIFEST),
    examples=(
        Example("plan", "the target that a plain start would take"),
        Example("plan --target slurm", "the jobs that would be submitted"),
    ),
    python="from scalable_nb import ScalableSession; "
    "ScalableSession.from_yaml(target='slurm').plan()",
    on_command_line=True,
)
