"""Small programs with one mutation, for the adversary of the cache."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from hypothesis import strategies as st


@dataclass(frozen=True)
class Holder:
    """A place where a program keeps a number.

    Attributes
    ----------
    kind : str
        Which it is, for messages.
    define : str
        Statements that define it; ``NAME`` and ``VALUE`` are replaced.
    read : str
        An expression for the number.
    change : str
        A statement that changes the number in memory; empty if only an edit does.
    row : str
        Which group of failures it is, to measure the power of the adversary.
    is_opaque : bool
        Whether the call may rightly not be cached.
    """

    kind: str
    define: str
    read: str
    change: str = ""
    row: str = "plain"
    is_opaque: bool = False


HOLDERS = [
    Holder("global", "NAME = VALUE", "NAME", "NAME = VALUE"),
    Holder("dict", "NAME = {'a': [VALUE]}", "NAME['a'][0]", "NAME['a'][0] = VALUE"),
    Holder("tuple", "NAME = (1, (VALUE,))", "NAME[1][0]", "NAME = (1, (VALUE,))"),
    Holder("set", "NAME = {'k', VALUE}", "max(v for v in NAME if v != 'k')", "NAME = {'k', VALUE}"),
    Holder("frozenset", "NAME = frozenset([VALUE])", "max(NAME)", "NAME = frozenset([VALUE])"),
    Holder(
        "deque",
        "import collections\nNAME = collections.deque([VALUE])",
        "NAME[0]",
        "NAME[0] = VALUE",
    ),
    Holder("array", "import array\nNAME = array.array('q', [VALUE])", "NAME[0]", "NAME[0] = VALUE"),
    Holder("numpy", "import numpy\nNAME = numpy.array([VALUE])", "int(NAME[0])", "NAME[0] = VALUE"),
    Holder(
        "series",
        "import pandas\nNAME = pandas.Series([VALUE])",
        "int(NAME.add(x)[0])",
        "NAME = pandas.Series([VALUE])",
        "treated as changed",
    ),
    Holder(
        "index",
        "import pandas\nNAME = pandas.Index([VALUE])",
        "int(NAME.append(NAME)[0])",
        "NAME = pandas.Index([VALUE])",
        "treated as changed",
    ),
    Holder(
        "own add",
        "class NAME_c:\n    def __init__(self, v): self.v = v\n"
        "    def add(self, x): return self.v + x\nNAME = NAME_c(VALUE)",
        "NAME.add(x)",
        "NAME.v = VALUE",
        "treated as changed",
    ),
    Holder(
        "counter",
        "NAME = {'n': 0, 'v': VALUE}",
        "NAME_count()",
        "NAME['v'] = VALUE",
        "counts its calls",
    ),
    Holder(
        "object", "class NAME_c: pass\nNAME = NAME_c()\nNAME.v = VALUE", "NAME.v", "NAME.v = VALUE"
    ),
    Holder(
        "slots",
        "class NAME_c:\n    __slots__ = ('v',)\nNAME = NAME_c()\nNAME.v = VALUE",
        "NAME.v",
        "NAME.v = VALUE",
    ),
    Holder("class", "class NAME:\n    v = VALUE", "NAME.v", "NAME.v = VALUE"),
    Holder(
        "base class",
        "class NAME_b:\n    v = VALUE\nclass NAME(NAME_b): pass",
        "NAME().v",
        "NAME_b.v = VALUE",
    ),
    Holder(
        "metaclass",
        "class NAME_m(type):\n    v = VALUE\nclass NAME(metaclass=NAME_m): pass",
        "NAME.v",
        "NAME_m.v = VALUE",
    ),
    Holder(
        "dunder", "class NAME:\n    __v__ = VALUE", "NAME.__v__", "NAME.__v__ = VALUE", "attributes"
    ),
    Holder(
        "private",
        "class NAME:\n    __v = VALUE\n    def get(self): return self.__v",
        "NAME().get()",
        "NAME._NAME__v = VALUE",
    ),
    Holder(
        "pydantic",
        "import pydantic\nclass NAME(pydantic.BaseModel):\n    v: int = VALUE",
        "NAME().v",
        "",
        "attributes",
    ),
    Holder(
        "pydantic bound",
        "import pydantic\nclass NAME(pydantic.BaseModel):\n"
        "    v: int = pydantic.Field(default=9, multiple_of=VALUE)",
        "NAME.model_fields['v'].metadata[0].multiple_of",
        "",
        "attributes",
    ),
    Holder(
        "dataclass",
        "import dataclasses\n@dataclasses.dataclass\nclass NAME:\n    v: int = VALUE",
        "NAME().v",
    ),
    Holder(
        "default factory",
        "import dataclasses\n@dataclasses.dataclass\nclass NAME:\n"
        "    v: int = dataclasses.field(default_factory=lambda: VALUE)",
        "NAME().v",
    ),
    Holder("enum", "import enum\nclass NAME(enum.Enum):\n    A = VALUE", "NAME.A.value"),
    Holder(
        "namedtuple",
        "import typing\nclass NAME(typing.NamedTuple):\n    v: int = VALUE",
        "NAME().v",
    ),
    Holder(
        "property",
        "class NAME_c:\n    @property\n    def v(self): return VALUE\nNAME = NAME_c()",
        "NAME.v",
    ),
    Holder(
        "cached property",
        "import functools\nclass NAME_c:\n    @functools.cached_property\n"
        "    def v(self): return VALUE\nNAME = NAME_c()",
        "NAME.v",
        "NAME.v = VALUE",
        "attributes",
    ),
    Holder(
        "lock in object",
        "import threading\nclass NAME_c: pass\nNAME = NAME_c()\nNAME.v = VALUE\n"
        "NAME.lock = threading.Lock()",
        "NAME.v",
        "NAME.v = VALUE",
        "reduced to a type",
    ),
    Holder(
        "lock in dict",
        "import threading\nNAME = {'l': threading.RLock(), 'v': VALUE}",
        "NAME['v']",
        "NAME['v'] = VALUE",
        "reduced to a type",
    ),
    Holder(
        "executor in dict",
        "import concurrent.futures\n"
        "NAME = {'l': concurrent.futures.ThreadPoolExecutor(1), 'v': VALUE}",
        "NAME['v']",
        "NAME['v'] = VALUE",
        "reduced to a type",
        is_opaque=True,
    ),
    Holder(
        "file in list",
        "import os, io\nNAME = [io.FileIO(os.devnull), VALUE]",
        "NAME[1]",
        "NAME[1] = VALUE",
        "reduced to a type",
        is_opaque=True,
    ),
    Holder(
        "generator in object",
        "class NAME_c: pass\nNAME = NAME_c()\nNAME.g = (i for i in ())\nNAME.v = VALUE",
        "NAME.v",
        "NAME.v = VALUE",
        "reduced to a type",
        is_opaque=True,
    ),
    Holder(
        "struct",
        "import struct\nNAME = struct.Struct('%ds' % VALUE)",
        "NAME.size",
        "NAME = struct.Struct('%ds' % VALUE)",
        "reduced to a type",
    ),
    Holder(
        "view",
        "NAME_d = {'v': VALUE}\nNAME = NAME_d.values()",
        "sum(NAME)",
        "NAME_d['v'] = VALUE",
        "reduced to a type",
    ),
    Holder(
        "memoryview",
        "NAME_d = bytearray([VALUE])\nNAME = memoryview(NAME_d)",
        "NAME[0]",
        "NAME_d[0] = VALUE",
        "reduced to a type",
    ),
    Holder(
        "function attribute",
        "def NAME(): return NAME.v\nNAME.v = VALUE",
        "NAME()",
        "NAME.v = VALUE",
        "functions with data",
    ),
    Holder(
        "frompyfunc",
        "import numpy\nNAME = numpy.frompyfunc(lambda v: VALUE, 1, 1)",
        "NAME(1)",
        "NAME = numpy.frompyfunc(lambda v: VALUE, 1, 1)",
        "functions with data",
        is_opaque=True,
    ),
    Holder(
        "vectorize",
        "import numpy\nNAME = numpy.vectorize(lambda v: VALUE)",
        "int(NAME(1))",
        "NAME = numpy.vectorize(lambda v: VALUE)",
    ),
    Holder(
        "bound builtin",
        "NAME_d = {'v': VALUE}\nNAME = NAME_d.get",
        "NAME('v')",
        "NAME_d['v'] = VALUE",
        "functions with data",
    ),
    Holder(
        "bound method",
        "class NAME_c:\n    def __init__(self, v): self.v = v\n    def get(self): return self.v\n"
        "NAME_o = NAME_c(VALUE)\nNAME = NAME_o.get",
        "NAME()",
        "NAME_o.v = VALUE",
    ),
    Holder(
        "method type",
        "import types\nNAME = types.MethodType(lambda self: VALUE, 1)",
        "NAME()",
        "NAME = types.MethodType(lambda self: VALUE, 1)",
        "functions with data",
    ),
    Holder(
        "partial",
        "import functools\nNAME = functools.partial(lambda v: v, VALUE)",
        "NAME()",
        "NAME = functools.partial(lambda v: v, VALUE)",
    ),
    Holder("default", "def NAME(v=VALUE): return v", "NAME()", "NAME.__defaults__ = (VALUE,)"),
    Holder(
        "keyword default",
        "def NAME(*, v=VALUE): return v",
        "NAME()",
        "NAME.__kwdefaults__ = {'v': VALUE}",
    ),
    Holder("helper", "def NAME(): return VALUE", "NAME()"),
    Holder("lambda", "NAME = lambda: VALUE", "NAME()", "NAME = lambda: VALUE"),
    Holder(
        "code",
        "def NAME(): return VALUE",
        "NAME()",
        "NAME.__code__ = (lambda: VALUE).__code__",
    ),
    Holder(
        "closure",
        "def NAME_make(v):\n    def get(): return v\n    return get\nNAME = NAME_make(VALUE)",
        "NAME()",
        "NAME = NAME_make(VALUE)",
    ),
    Holder(
        "cell",
        "def NAME_make():\n    v = VALUE\n    def get(): return v\n    return get\n"
        "NAME = NAME_make()",
        "NAME()",
        "NAME.__closure__[0].cell_contents = VALUE",
    ),
    Holder(
        "recursive closure",
        "def NAME_make(v):\n    def get(n): return v if n else get(1)\n    return get\n"
        "NAME = NAME_make(VALUE)",
        "NAME(0)",
        "NAME = NAME_make(VALUE)",
    ),
    Holder(
        "nested local",
        "NAME = VALUE\ndef NAME_get():\n    def inner():\n        NAME = 1\n        def deep():\n"
        "            nonlocal NAME\n            NAME += 1\n            return NAME\n"
        "        return deep()\n    return inner() * 0 + NAME",
        "NAME_get()",
        "NAME = VALUE",
        "scopes and wrappers",
    ),
    Holder(
        "nested global",
        "NAME = VALUE\ndef NAME_make(NAME):\n    def get():\n        def inner():\n"
        "            global NAME\n            return NAME\n        return inner() + 0 * NAME\n"
        "    return get\nNAME_get = NAME_make(1)",
        "NAME_get()",
        "NAME = VALUE",
        "scopes and wrappers",
    ),
    Holder(
        "class scope",
        "NAME = VALUE\ndef NAME_get():\n    class C:\n        v = NAME\n    return C.v",
        "NAME_get()",
        "NAME = VALUE",
    ),
    Holder(
        "comprehension",
        "NAME = VALUE\ndef NAME_get(): return [NAME for _ in range(1)][0]",
        "NAME_get()",
        "NAME = VALUE",
    ),
    Holder(
        "decorator",
        "import functools\ndef NAME_times(v):\n    def wrap(f):\n        @functools.wraps(f)\n"
        "        def inner(): return v * f()\n        return inner\n    return wrap\n"
        "@NAME_times(VALUE)\ndef NAME(): return 1",
        "NAME()",
    ),
    Holder(
        "wraps of a cacheable",
        "import functools\nfrom scalable_nb import cacheable\nNAME_v = VALUE\n"
        "@cacheable\ndef NAME_base(): return 1\n@functools.wraps(NAME_base)\n"
        "def NAME(): return NAME_v * NAME_base.__wrapped__()",
        "NAME()",
        "NAME_v = VALUE",
    ),
    Holder(
        "wrapper object",
        "import functools\nclass NAME_c:\n    def __init__(self, f, v):\n"
        "        functools.update_wrapper(self, f)\n        self.v = v\n"
        "    def __call__(self): return self.v * self.__wrapped__()\n"
        "NAME = NAME_c(lambda: 1, VALUE)",
        "NAME()",
        "NAME.v = VALUE",
        "scopes and wrappers",
    ),
    Holder(
        "generator function",
        "def NAME():\n    yield VALUE",
        "next(NAME())",
    ),
    Holder(
        "context manager",
        "import contextlib\n@contextlib.contextmanager\ndef NAME_m():\n    yield VALUE\n"
        "def NAME():\n    with NAME_m() as v:\n        return v",
        "NAME()",
    ),
    Holder(
        "singledispatch",
        "import functools\n@functools.singledispatch\ndef NAME(v): return VALUE",
        "NAME(1)",
    ),
    Holder(
        "docstring", "def NAME(): 'VALUE'", "int(NAME.__doc__)", "NAME.__doc__ = 'VALUE'", "texts"
    ),
    Holder(
        "annotation",
        "def NAME(v: VALUE): pass",
        "NAME.__annotations__['v']",
        "NAME.__annotations__['v'] = VALUE",
        "texts",
    ),
    Holder(
        "left out by pickle",
        "class NAME_c:\n    def __getstate__(self): return {}\nNAME = NAME_c()\nNAME.v = VALUE",
        "NAME.v",
        "NAME.v = VALUE",
        "reduced to a type",
    ),
    Holder(
        "dict with attributes",
        "class NAME_c(dict): pass\nNAME = NAME_c()\nNAME.v = VALUE",
        "NAME.v",
        "NAME.v = VALUE",
    ),
    Holder(
        "array with attributes",
        "import numpy\nclass NAME_c(numpy.ndarray): pass\n"
        "NAME = numpy.zeros(1).view(NAME_c)\nNAME.v = VALUE",
        "NAME.v",
        "NAME.v = VALUE",
        "reduced to a type",
    ),
    Holder(
        "environment",
        "import os\nos.environ['SCALABLE_TEST_NAME'] = str(VALUE)",
        "int(os.environ['SCALABLE_TEST_NAME'])",
        "os.environ['SCALABLE_TEST_NAME'] = str(VALUE)",
        "texts",
    ),
    Holder(
        "random state",
        "import random\nNAME = random.Random(VALUE)",
        "NAME.getrandbits(16) + 1",
        "NAME.seed(VALUE)",
    ),
    Holder(
        "exception",
        "class NAME(ValueError):\n    v = VALUE\ndef NAME_get():\n    try: raise NAME(VALUE)\n"
        "    except NAME as e: return e.args[0]",
        "NAME_get()",
    ),
    Holder(
        "string code",
        "NAME = compile('VALUE', 'x', 'eval')",
        "eval(NAME)",
        "NAME = compile('VALUE', 'x', 'eval')",
    ),
    Holder(
        "weak reference",
        "import weakref\nclass NAME_c: pass\nNAME_o = NAME_c()\nNAME_o.v = VALUE\n"
        "NAME = weakref.ref(NAME_o)",
        "NAME().v",
        "NAME_o.v = VALUE",
        "reduced to a type",
        is_opaque=True,
    ),
    Holder(
        "weak dict",
        "import weakref\nclass NAME_c: pass\nNAME_o = NAME_c()\nNAME_o.v = VALUE\n"
        "NAME = weakref.WeakValueDictionary(o=NAME_o)",
        "NAME['o'].v",
        "NAME_o.v = VALUE",
        "reduced to a type",
        is_opaque=True,
    ),
    Holder(
        "registry of abstract class",
        "import abc\nclass NAME(abc.ABC):\n    @abc.abstractmethod\n    def f(self): ...\n"
        "class NAME_s(NAME):\n    def f(self): return VALUE",
        "NAME_s().f()",
    ),
    Holder(
        "set of functions",
        "def NAME_make(v): return lambda: v\nNAME = {NAME_make(VALUE), NAME_make(1)}",
        "sum(f() for f in NAME)",
        "NAME.clear(); NAME.update({NAME_make(VALUE), NAME_make(1)})",
    ),
    Holder(
        "descriptor",
        "class NAME_d:\n    def __init__(self, v): self.v = v\n"
        "    def __get__(self, o, t): return self.v\nclass NAME:\n    f = NAME_d(VALUE)",
        "NAME.f",
        "vars(NAME)['f'].v = VALUE",
    ),
    Holder(
        "registered type",
        "import functools\n@functools.singledispatch\ndef NAME(v): return VALUE",
        "NAME(1)",
        "NAME.register(int)(lambda v: VALUE)",
    ),
    Holder(
        "name",
        "def NAME(): pass\nNAME.__name__ = 'VALUE'",
        "int(NAME.__name__)",
        "NAME.__name__ = 'VALUE'",
        "texts",
    ),
    Holder(
        "iterator",
        "import itertools\nNAME = itertools.count(VALUE)",
        "next(NAME)",
        "NAME = itertools.count(VALUE)",
        "counts its calls",
    ),
    Holder(
        "library attribute",
        "import colorsys\ncolorsys.NAME = VALUE",
        "colorsys.NAME",
        "colorsys.NAME = VALUE",
    ),
    Holder(
        "partial method",
        "import functools\nclass NAME:\n    def m(self, v): return v\n"
        "    p = functools.partialmethod(m, VALUE)",
        "NAME().p()",
    ),
    Holder(
        "operator overloading",
        "class NAME_c:\n    def __add__(self, x): return VALUE\nNAME = NAME_c()",
        "NAME + x",
    ),
    Holder(
        "call of a class",
        "class NAME_m(type):\n    def __call__(cls): return VALUE\n"
        "class NAME(metaclass=NAME_m): ...",
        "NAME()",
    ),
    Holder(
        "init_subclass",
        "class NAME_b:\n    def __init_subclass__(cls, v): cls.v = v\n"
        "class NAME(NAME_b, v=VALUE): pass",
        "NAME.v",
    ),
    Holder(
        "lru_cache",
        "import functools\nNAME_v = VALUE\n@functools.lru_cache\ndef NAME(): return NAME_v",
        "(NAME.cache_clear(), NAME())[1]",
        "NAME_v = VALUE",
    ),
]

#: Written instead of the holder's own reading, where that takes a statement.
EXTRA = {
    "counter": "def NAME_count():\n    NAME['n'] += 1\n    return NAME['v']",
}

PLACES = ("work", "tools", "from tools", "inside", "alias", "getattr")


@dataclass(frozen=True)
class Program:
    """A program before and after its mutation.

    Attributes
    ----------
    sources : tuple of (str, str)
        Module -> text.
    edited : tuple of (str, str)
        The same after an edit; equal if the mutation is a statement.
    statement : (str, str)
        Module and statement of a mutation in memory; empty for an edit.
    holders : tuple of Holder
    mutated : Holder
    place : str
        Where the mutated holder is.
    is_stale : bool
        Whether the file is edited while the module stays loaded.
    """

    sources: tuple[tuple[str, str], ...]
    edited: tuple[tuple[str, str], ...]
    statement: tuple[str, str]
    holders: tuple[Holder, ...]
    mutated: Holder
    place: str
    is_stale: bool = False

    @property
    def row(self) -> str:
        """The group of failures that the mutation belongs to."""
        if self.is_stale or (self.place == "inside" and self.statement[1]):
            return "code that runs"
        return self.mutated.row

    def __repr__(self) -> str:
        parts = [f"--- {self.mutated.kind} in {self.place}: {self.statement}"]
        for name, text in self.sources:
            parts += [f"# {name}.py", text]
        if self.edited != self.sources:
            parts += ["# edited", *(text for _, text in self.edited)]
        return "\n".join(parts)


def fill(text: str, name: str, value: int) -> str:
    """Return a template with a name and a value."""
    return text.replace("NAME", name).replace("VALUE", str(value))


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Return programs of one to three holders, of which one is mutated."""
    holders = draw(st.lists(st.sampled_from(HOLDERS), min_size=1, max_size=3))
    places = [draw(st.sampled_from(PLACES)) for _ in holders]
    values = [draw(st.integers(2, 9)) for _ in holders]
    number = draw(st.integers(0, len(holders) - 1))
    new = draw(st.integers(11, 19))
    holder, place = holders[number], places[number]
    how = draw(st.sampled_from(("statement", "edit", "stale")))
    depth = draw(st.integers(0, 2))

    def sources(values: list[int]) -> tuple[tuple[str, str], ...]:
        return _render(holders, places, values, depth)

    name = f"v{number}"
    module = "work" if place == "work" else "tools"
    # An imported name is only changed together with what it is bound to.
    is_rebound = place == "from tools" and holder.change.startswith("NAME = ")
    before = sources(values)
    if how == "statement" and holder.change and not is_rebound:
        statement = (module, fill(holder.change, name, new))
        return Program(before, before, statement, tuple(holders), holder, place)
    after = sources([*values[:number], new, *values[number + 1 :]])
    is_stale = how == "stale" and place == "inside"
    return Program(before, after, ("", ""), tuple(holders), holder, place, is_stale)


def _render(
    holders: list[Holder], places: list[str], values: list[int], depth: int
) -> tuple[tuple[str, str], ...]:
    work, tools, body, terms = ["import tools"], ["import os"], [], []
    for number, (holder, place, value) in enumerate(zip(holders, places, values, strict=True)):
        name = f"v{number}"
        define = fill(holder.define, name, value)
        extra = fill(EXTRA.get(holder.kind, ""), name, value)
        reader = f"{extra}\ndef read_{name}(x): return {fill(holder.read, name, value)}"
        if place == "work":
            work += [define, reader]
            terms.append(f"read_{name}(x)")
            continue
        tools += [define, reader]
        if place == "tools":
            terms.append(f"tools.read_{name}(x)")
        elif place == "from tools":
            work.append(f"from tools import read_{name}")
            terms.append(f"read_{name}(x)")
        elif place == "inside":
            body.append(f"from tools import read_{name} as inside_{name}")
            terms.append(f"inside_{name}(x)")
        elif place == "alias":
            body.append("alias = tools")
            terms.append(f"alias.read_{name}(x)")
        else:
            terms.append(f"getattr(tools, 'read_{name}')(x)")
    body.append(f"return ({', '.join(terms)})")
    inner = "run" if not depth else f"step{depth}"
    work.append(f"def {inner}(x):\n" + textwrap.indent("\n".join(body), "    "))
    for level in range(depth, 0, -1):
        outer = "run" if level == 1 else f"step{level - 1}"
        work.append(f"def {outer}(x): return step{level}(x)")
    return (("work", "\n".join(work) + "\n"), ("tools", "\n".join(tools) + "\n"))
