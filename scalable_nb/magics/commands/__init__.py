"""The table of all subcommands, in the order in which the help shows them; one file per subcommand.

Whatever is heavy (the engine, the widgets) is imported when a subcommand runs, so that
``%load_ext scalable_nb`` costs next to nothing.
"""

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
from scalable_nb.magics.subcommand import (
    InvalidUsageError,
    Option,
    Subcommand,
    Surface,
    variable_name,
)


def find_subcommand(name: str, surface: Surface) -> Subcommand:
    """The subcommand of this name.

    Raises
    ------
    InvalidUsageError
        Names the closest subcommand and all others, or where the subcommand can be used.
    """
    subcommand = surface.subcommands.get(name)
    if subcommand is not None:
        return subcommand
    if name in SUBCOMMANDS:
        raise InvalidUsageError(
            f"`{name}` needs a notebook: type `{NOTEBOOK.prompt} {name}` there. "
            f"In a script: `{SUBCOMMANDS[name].python}`."
        )
    from scalable_nb.errors import UnknownNameError

    hint = f"`{surface.prompt} help` explains them."
    raise InvalidUsageError(str(UnknownNameError("subcommand", name, surface.subcommands, hint)))


SUBCOMMANDS: Final[dict[str, Subcommand]] = {
    module.SUBCOMMAND.name: module.SUBCOMMAND
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
    )
}

SUBCOMMANDS["help"] = help.make_subcommand(SUBCOMMANDS, find_subcommand)

_HELP: Final = Option(("--help", "-h"), "explain the subcommand")

#: ``%scalable`` in a notebook.
NOTEBOOK: Final = Surface(
    "%scalable",
    SUBCOMMANDS,
    (
        Option(("--quiet", "-q"), "say nothing and show nothing"),
        Option(
            ("--out", "-o"), "store what the subcommand returns under NAME", "NAME", variable_name
        ),
        _HELP,
    ),
)

#: ``scalable`` in a shell.
SHELL: Final = Surface(
    "scalable",
    {name: subcommand for name, subcommand in SUBCOMMANDS.items() if subcommand.on_command_line},
    (_HELP,),
)
