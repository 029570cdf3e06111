"""``start``: begin a session and put it into the notebook's namespace."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from scalable_nb.magics.commands.plan import MANIFEST, TARGET
from scalable_nb.magics.run_selection import live_session
from scalable_nb.magics.subcommand import Context, Example, Subcommand

if TYPE_CHECKING:
    from scalable_nb.manifest.load import LoadedManifest
    from scalable_nb.session.session import ScalableSession


def _run(context: Context, options: Namespace) -> ScalableSession:
    from scalable_nb.session.session import ScalableSession

    session = live_session(context)
    if session is None:
        session = ScalableSession.from_yaml(options.manifest, target=options.target)
        session.start()
        context.echo(f"Started target {session.target_name!r}.")
        if session.manifest.defaulted and not session.manifest.discovered:
            context.echo(_chosen(session.manifest))
        if session.ends_with:
            context.echo(f"Note: {session.ends_with}.")
    else:
        notice = _notice_of_joining(session, options)
        context.echo(
            f"Target {session.target_name!r} is live already: this is its session.{notice}"
        )
    publish(context, session)
    return session


def _chosen(loaded: LoadedManifest) -> str:
    """What holds where no file says it."""
    from scalable_nb.manifest.planner import make_plan

    facts = dict(make_plan(loaded).facts())
    return (
        f"There is no scalable.yaml: {facts['workers']}, {facts['memory']} in all. "
        "`%scalable init` writes one to edit."
    )


def _notice_of_joining(live: ScalableSession, options: Namespace) -> str:
    """Check that the live session is what was asked for; says where it is not quite."""
    from scalable_nb.errors import SessionConflictError
    from scalable_nb.manifest.load import load_manifest

    live.check_alive()
    source = options.manifest or live.manifest.source
    if options.target is None and (source is None or not source.exists()):
        return ""
    requested = load_manifest(source, target=options.target or live.target_name)
    if requested.target_name != live.target_name:
        raise SessionConflictError(
            f"cannot start target {requested.target_name!r}: a session on target "
            f"{live.target_name!r} is live (run {live.run_id}). `%scalable stop` ends it."
        )
    if requested.sha256 == live.manifest.sha256:
        return ""
    return (
        f" It has the manifest of its start; {requested.source or 'the default'} now differs: "
        "`%scalable stop`, then `%scalable start` takes that."
    )


def publish(context: Context, session: ScalableSession) -> None:
    """Put `session` and `client` into the namespace, and say so."""
    from scalable_nb.client.client import ScalableClient
    from scalable_nb.session.session import ScalableSession

    variables = context.variables
    if variables is None or session.paths is None:
        return
    replaced = [
        f"`{name}` (a {type(variables[name]).__name__})"
        for name, ours in (("session", ScalableSession), ("client", ScalableClient))
        if name in variables and not isinstance(variables[name], ours)
    ]
    variables["session"], variables["client"] = session, session.client
    context.echo(f"`session` and `client` are in the namespace. Files: {session.paths.folder}")
    if replaced:
        context.echo(f"They replace variables of yours: {' and '.join(replaced)}.")


SUBCOMMAND = Subcommand(
    name="start",
    summary="start a target, and put `session` and `client` into the namespace",
    run=_run,
    options=(TARGET, MANIFEST),
    examples=(
        Example("start", "the only target, or `local`; works without any file"),
        Example("start --target slurm", "the target `slurm` of ./scalable.yaml"),
        Example("start -t $where", "the target named by a variable"),
    ),
    python="from scalable_nb import ScalableSession; "
    "session = ScalableSession.from_yaml(target='slurm'); client = session.start()",
)
