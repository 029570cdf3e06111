"""The table of all verbs, in the order in which the help shows them."""

from __future__ import annotations

from typing import Final

from scalable_nb.magics.commands import (
    attach,
    cache,
    cancel,
    diagnose,
    failures,
    help,
    init,
    logs,
    map,
    plan,
    report,
    resubmit,
    resume,
    runs,
    scale,
    start,
    status,
    stop,
    tasks,
)
from scalable_nb.magics.verb import Option, Surface, Verb, WrongUse, variable_name

VERBS: Final[dict[str, Verb]] = {
    module.VERB.name: module.VERB
    for module in (
        init,
        plan,
        start,
        attach,
        status,
        map,
        tasks,
        failures,
        diagnose,
        report,
        logs,
        runs,
        resubmit,
        resume,
        cancel,
        cache,
        scale,
        stop,
        help,
    )
}

_HELP: Final = Option(("--help", "-h"), "explain the verb")

#: ``%scalable`` in a notebook.
NOTEBOOK: Final = Surface(
    "%scalable",
    VERBS,
    (
        Option(("--quiet", "-q"), "say nothing and show nothing"),
        Option(("--out", "-o"), "store what the verb returns under NAME", "NAME", variable_name),
        _HELP,
    ),
)

#: ``scalable`` in a shell.
SHELL: Final = Surface(
    "scalable", {name: verb for name, verb in VERBS.items() if verb.on_command_line}, (_HELP,)
)


def find_verb(name: str, surface: Surface) -> Verb:
    """The verb of this name.

    Raises
    ------
    WrongUse
        Names the closest verb and all others, or where the verb can be used.
    """
    verb = surface.verbs.get(name)
    if verb is not None:
        return verb
    if name in VERBS:
        raise WrongUse(
            f"`{name}` needs a notebook: type `{NOTEBOOK.prompt} {name}` there. "
            f"In a script: `{VERBS[name].python}`."
        )
    from scalable_nb.errors import UnknownNameError

    hint = f"`{surface.prompt} help` explains them."
    raise WrongUse(str(UnknownNameError("verb", name, surface.verbs, hint)))
