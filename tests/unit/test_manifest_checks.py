"""What a person reads when a manifest is wrong: tables of (file, exact message)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from scalable_nb.errors import ManifestError
from scalable_nb.manifest.checks import check
from scalable_nb.manifest.load import load_manifest
from scalable_nb.manifest.schema import (
    PROVIDERS,
    Adaptive,
    Backoff,
    Component,
    Defaults,
    Manifest,
    Project,
    Target,
    Task,
)
from scalable_nb.manifest.yaml_document import parse_document

#: Seven lines that are right, to which the tables below add one or two that are not.
SOUND = """\
version: 1
project: {name: demo}
targets:
  local: {provider: local}
components:
  analysis: {cpus: 1, memory: 1G}
  small: {memory: 500M}
"""


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def problems_of(text: str) -> list[str]:
    """The problems that loading this text reports."""
    Path("scalable.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ManifestError) as caught:
        load_manifest()
    assert str(caught.value) == "\n".join(caught.value.problems)
    return [problem.removeprefix("scalable.yaml:") for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("1G", "1 Gigs", "6: components.analysis.memory: '1 Gigs' is not a memory size; expected"),
        ("1G", "-1G", "6: components.analysis.memory: '-1G' means -1000000000 bytes, too little"),
        ("1G", "8", "6: components.analysis.memory: 8 means 8 bytes, too little for a worker;"),
        ("1G", "1e400G", "6: components.analysis.memory: '1e400G' is not a memory size; expected"),
        ("1G", "[1G]", "6: components.analysis.memory: ['1G'] is not text; expected text,"),
        ("cpus: 1", "cpus: 0", "6: components.analysis.cpus: 0 is too small; expected at least 1"),
        ("cpus: 1", "cpus: two", "6: components.analysis.cpus: 'two' is not a whole number;"),
        ("cpus: 1", "cpus: 1.5", "6: components.analysis.cpus: 1.5 is not a whole number;"),
        ("cpus: 1", "cpus: true", "6: components.analysis.cpus: true is not a whole number;"),
        ("cpus: 1", "cpu: 1", "6: components.analysis.cpu: unknown key; did you mean 'cpus'?"),
        (
            "cpus: 1",
            "zzz: 1",
            "6: components.analysis.zzz: unknown key; expected one of: cpus, memory, image, "
            "runtime, mounts, env, tags, preload_script, workers, max_workers, walltime, queue, "
            "job_extra_directives, job_script_prologue, fallback",
        ),
        (
            "cpus: 1",
            "runtime: aptainer",
            "6: components.analysis.runtime: 'aptainer' is not valid; did you mean 'apptainer'?",
        ),
        (
            "cpus: 1",
            "env: {A-B: x}",
            "6: components.analysis.env.A-B: 'A-B' is not the name of an environment variable;",
        ),
        (
            "cpus: 1",
            "env: {DEBUG: on}",
            "6: components.analysis.env.DEBUG: true is not text; expected text, in quotes",
        ),
        ("cpus: 1", "tags: x", "6: components.analysis.tags: 'x' is not a list; expected e.g."),
        (
            "cpus: 1",
            "fallback: smal",
            "6: components.analysis.fallback: no component named 'smal'; did you mean 'small'?",
        ),
        (
            "cpus: 1",
            "fallback: analysis",
            "6: components.analysis.fallback: leads back to itself: analysis -> analysis",
        ),
        (
            "cpus: 1",
            "fallback: [small]",
            "6: components.analysis.fallback: ['small'] is not text; expected text,",
        ),
        ("small:", "my comp:", "7: components.my comp: 'my comp' is not a name; expected letters,"),
        ("small:", "analysis:", "7: components.analysis: is given twice, first in line 6"),
        ("version: 1", "version: 2", "1: version: 2 is not a version that can be read here;"),
        ("version: 1", "version: '1'", "1: version: '1' is not a version that can be read here;"),
        ("version: 1", "", "1: version: is missing; expected `version: 1`"),
        ("{name: demo}", "demo", "2: project: 'demo' is not a mapping; expected `key: value`"),
        ("{name: demo}", "{}", "2: project.name: is missing; expected e.g. `name: demo`"),
        ("name: demo", "name: ''", "2: project.name: '' is empty; expected some text"),
        ("provider: local", "{}: 1", "4:11: not valid YAML: a key must be plain text"),
        ("provider: local", "max_workers: 1", "4: targets.local.provider: is missing; expected"),
        (
            "provider: local",
            "provider: slrum",
            "4: targets.local.provider: 'slrum' is not valid; did you mean 'slurm'?",
        ),
        (
            "provider: local",
            "provider: local, max_worker: 2",
            "4: targets.local.max_worker: unknown key for provider local; did you mean "
            "'max_workers'?",
        ),
        (
            "provider: local",
            "provider: local, processes: 2",
            "4: targets.local.processes: 2 is neither true nor false; expected true or false",
        ),
        (
            "provider: local",
            "provider: slurm, processes: true",
            "4: targets.local.processes: true is not a number of processes per slurm job;",
        ),
        (
            "provider: local",
            "provider: local, host: job",
            "4: targets.local.host: 'job' takes a batch system; on provider local expected",
        ),
        (
            "provider: local",
            "provider: slurm, host_job: {memory: 4G}",
            "4: targets.local.host_job: is used with `host: job` only; add that",
        ),
        (
            "provider: local",
            "provider: slurm, host: job, host_job: {memory: 8}",
            "4: targets.local.host_job.memory: 8 means 8 bytes, too little for a worker;",
        ),
        (
            "provider: local",
            "provider: slurm, wall_time: '1:00'",
            "4: targets.local.wall_time: unknown key for provider slurm; did you mean 'walltime'?",
        ),
        (
            "provider: local",
            "provider: pbs, resource_specs: x",
            "4: targets.local.resource_specs: unknown key for provider pbs; did you mean "
            "'resource_spec'?",
        ),
        (
            "provider: local",
            "provider: slurm, n_workers: 2",
            "4: targets.local.n_workers: is set by the session itself; remove it",
        ),
        (
            "provider: local",
            "provider: slurm, job_extra_directives: --gres=gpu",
            "4: targets.local.job_extra_directives: '--gres=gpu' is not a list; expected e.g. "
            "[--gres=gpu]",
        ),
        (
            "provider: local",
            "provider: local, linger_s: .inf",
            "4: targets.local.linger_s: inf is not a finite number; expected e.g. 1.5",
        ),
        (
            "provider: local",
            "provider: local, adaptive: {minimum: 3, maximum: 2}",
            "4: targets.local.adaptive.minimum: 3 is more than the maximum of 2",
        ),
        (
            "provider: local",
            "provider: local, adaptive: {minimun: 3}",
            "4: targets.local.adaptive.minimun: unknown key; did you mean 'minimum'?",
        ),
        (
            "provider: local",
            "provider: local, overlay: big",
            "4: targets.local.overlay: no overlay named 'big'; there are no overlays",
        ),
        (
            "demo}",
            "!!python/object/apply:os.getcwd []}",
            "2: project.name: the tag '!!python/object/apply:os.getcwd' is not allowed;",
        ),
    ],
)
def test_a_wrong_value_is_named_with_its_line(old: str, new: str, expected: str) -> None:
    """One wrong thing is reported with line, key, value and what was expected."""
    assert old in SOUND
    (problem,) = problems_of(SOUND.replace(old, new, 1))
    assert problem.startswith(expected)


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        ("task: {}", ["8: task: unknown key; did you mean 'tasks'?"]),
        (
            "tasks:\n  run: {component: anlysis}",
            ["9: tasks.run.component: no component named 'anlysis'; did you mean 'analysis'?"],
        ),
        (
            "tasks:\n  run: {component: x}",
            ["9: tasks.run.component: no component named 'x'; expected one of: analysis, small"],
        ),
        (
            "tasks:\n  run: {timeout: soon, retries: -1}",
            [
                "9: tasks.run.retries: -1 is too small; expected at least 0",
                "9: tasks.run.timeout: 'soon' is not a duration; "
                "expected e.g. '300s', '5m' or '2h'",
            ],
        ),
        (
            "tasks:\n  run: {timeout: 0}",
            ["9: tasks.run.timeout: 0 is not a duration; expected e.g. '300s', '5m' or '2h'"],
        ),
        (
            "tasks:\n  run:\n    idempotent: no\n    retries: 2",
            ["11: tasks.run.retries: a task that is not idempotent is never retried; expected 0"],
        ),
        (
            "defaults:\n  backoff:\n    jitter: 25",
            ["10: defaults.backoff.jitter: 25 is too large; expected at most 1.0"],
        ),
        (
            "defaults: {backoff: {base: 1}}",
            ["8: defaults.backoff.base: unknown key; did you mean 'base_s'?"],
        ),
        (
            "overlays:\n  big: {component: {}}",
            ["9: overlays.big.component: unknown key; did you mean 'components'?"],
        ),
        (
            "overlays:\n  big:\n    components:\n      anlysis: {cpus: 2}",
            [
                "11: overlays.big.components.anlysis: no component named 'anlysis'; "
                "did you mean 'analysis'?"
            ],
        ),
        (
            "overlays:\n  big:\n    components:\n      analysis:\n        memory: lots",
            [
                "12: overlays.big.components.analysis.memory: 'lots' is not a memory size; "
                "expected e.g. '1G'"
            ],
        ),
        (
            "overlays:\n  big: {targets: {local: {overlay: big}}}",
            ["9: overlays.big.targets.local.overlay: an overlay cannot choose another one"],
        ),
        (
            "overlays:\n  big: 3",
            ["9: overlays.big: 3 is not a mapping; expected `key: value` lines"],
        ),
    ],
)
def test_a_wrong_section_is_named_with_its_line(added: str, expected: list[str]) -> None:
    """Problems of tasks, defaults and overlays are reported where they stand, and no others."""
    assert problems_of(SOUND + added) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "version: 1\nproject:\n  name: a: b",
            "3:10: not valid YAML: mapping values are not allowed here",
        ),
        (
            "version: 1\nproject:\n\tname: demo",
            "3:1: not valid YAML: while scanning for the next token found character '\\t' that "
            "cannot start any token (YAML is indented with spaces, not tabs)",
        ),
        ("a: *b", "1:4: not valid YAML: found undefined alias 'b'"),
        ("a: &a [*a]", "1:4: not valid YAML: this value contains itself"),
        ("? [a]\n: b", "1:3: not valid YAML: a key must be plain text"),
        ("a: \x07", "1:4: not valid YAML: special characters are not allowed"),
        ("a: 1\n---\nb: 2", "2:1: not valid YAML: expected a single document"),
        ("[" * 5000, " not valid YAML: nested too deeply"),
        (
            "- version",
            "1: ['version'] is not a manifest; expected the keys version, project, targets, "
            "components, tasks, defaults, overlays",
        ),
    ],
)
def test_what_is_not_a_manifest_is_told_by_line_and_column(text: str, expected: str) -> None:
    """A file that is not YAML, or YAML of another shape, gives one clear problem."""
    (problem,) = problems_of(text)
    assert problem.startswith(expected)


def test_an_empty_file_says_how_to_get_one() -> None:
    """An empty manifest names the file and the command that writes a full one."""
    Path("scalable.yaml").write_text("# nothing yet\n")
    with pytest.raises(ManifestError) as caught:
        load_manifest()
    assert str(caught.value) == (
        "scalable.yaml is empty; `%scalable init --force` writes a commented one"
    )


def test_bytes_that_are_not_text_are_an_error(tmp_path: Path) -> None:
    """A binary file and a folder are refused by name, without a traceback of the decoder."""
    Path("scalable.yaml").write_bytes(b"version: \xff\xfe")
    with pytest.raises(ManifestError, match=r"^scalable\.yaml: not text in UTF-8 \(byte 9\)$"):
        load_manifest()
    with pytest.raises(ManifestError, match="cannot be read: Is a directory"):
        load_manifest(tmp_path)


def test_all_problems_come_at_once_in_the_order_of_lines() -> None:
    """A file with mistakes in every section reports each of them, sorted by line."""
    text = (
        SOUND.replace("provider: local", "provider: local, procesess: true")
        .replace("1G", "lots")
        .replace("500M", "some")
        + "tasks: {run: {component: none}}\noverlays: {big: {tasks: {ru: {}}}}\n"
    )
    problems = problems_of(text)
    assert [problem.split(": ")[1] for problem in problems] == [
        "targets.local.procesess",
        "components.analysis.memory",
        "components.small.memory",
        "tasks.run.component",
        "overlays.big.tasks.ru",
    ]
    assert [int(problem.split(":")[0]) for problem in problems] == [4, 6, 7, 8, 9]


def test_a_later_version_is_the_only_complaint() -> None:
    """A file of another version is not measured by the rules of this one."""
    text = SOUND.replace("version: 1", "version: 2") + "pipelines: {}\n"
    assert problems_of(text) == ["1: version: 2 is not a version that can be read here; expected 1"]


def test_a_problem_that_only_an_overlay_makes_says_so() -> None:
    """When a value of the file stops fitting under an overlay, the overlay is named."""
    text = SOUND + (
        "tasks:\n  run: {retries: 3}\noverlays:\n  once: {tasks: {run: {idempotent: false}}}\n"
    )
    assert problems_of(text) == [
        "9: tasks.run.retries: a task that is not idempotent is never retried; expected 0 "
        "(with overlay 'once')"
    ]


MODELS = (Manifest, Project, Target, Adaptive, Component, Task, Defaults, Backoff)
KEYS = st.sampled_from(sorted({*"x1", "job_cpu"}.union(*(model.model_fields for model in MODELS))))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["1G", "x", "", "5s", *PROVIDERS])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=30,
)
MANIFEST_LIKE = st.fixed_dictionaries(
    {"version": st.just(1)},
    optional={
        name: VALUES | st.dictionaries(KEYS, VALUES, max_size=4)
        for name in ("project", "targets", "components", "tasks", "defaults", "overlays")
    },
)


@given(MANIFEST_LIKE | VALUES)
def test_every_yaml_file_is_either_right_or_explained(data: object) -> None:
    """Whatever a file holds, checking ends with problems that carry a line of that file."""
    text = yaml.safe_dump(data, allow_unicode=True)
    document = parse_document(text, "scalable.yaml")
    lines = text.count("\n") + 1
    for problem in check(document):
        assert 1 <= problem.line <= lines
        assert problem.text
        assert not re.search(r"pydantic|Input should", str(problem))


@given(st.text(alphabet=st.sampled_from("ab:-[]{},&*!|>'\"#%@ \n\t?~<=1.\ufeff\x00"), max_size=40))
def test_every_text_is_either_yaml_or_explained(text: str) -> None:
    """Whatever characters a file holds, it is parsed or refused with a `ManifestError`."""
    try:
        document = parse_document(text, "scalable.yaml")
    except ManifestError as error:
        assert str(error).startswith("scalable.yaml:")
    else:
        check(document)
