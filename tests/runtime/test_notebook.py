"""What is read from a notebook without running it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from cases import cases
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import DataError, PipelineError, StepError, UsageError
from pipeline.runtime.notebook import StepNotebook, follow_links, read_notebook, read_steps
from pipeline.runtime.parameters import Parameter

SCHEMA = """\
# a comment of its own
variant: str = "nano"  # which size: nano # or tiny
epochs: int = 20
rate: float = 1  # a float that is written as an int
url: str = "http://x/y?a=1&b=2#c"  # read to its end
classes: list[str] = []  # names
# in any order
shares: list[float] = [0.5, 1]
limits: dict[str, float] = {"a": 1}
api: dict[str, str] = {}
keep: bool = (
    False
)  # over several lines"""


@pytest.fixture
def step(toy: Any) -> StepNotebook:
    """The first step, with parameters of every kind."""
    return read_notebook(write(toy, parameters=SCHEMA))


def write(toy: Any, name: str = "first", kernel: str = "python3", **changes: str) -> Path:
    """A notebook as `first`, with other cells for some tags."""
    cells = {
        "parameters": 'text: str = "a"',
        "interface": f'step = Step.open("{name}", reads=[], writes=["letters"])',
        **changes,
    }
    path: Path = toy.notebook(name, [("", "from pipeline.runtime.step import Step"), *cells.items()], kernel)
    return path


def test_the_schema_is_read_from_the_cell(step: StepNotebook) -> None:
    assert list(step.parameters.values()) == [
        Parameter("variant", "str", "nano", "which size: nano # or tiny"),
        Parameter("epochs", "int", 20, ""),
        Parameter("rate", "float", 1, "a float that is written as an int"),
        Parameter("url", "str", "http://x/y?a=1&b=2#c", "read to its end"),
        Parameter("classes", "list[str]", [], "names in any order"),
        Parameter("shares", "list[float]", [0.5, 1], ""),
        Parameter("limits", "dict[str, float]", {"a": 1}, ""),
        Parameter("api", "dict[str, str]", {}, ""),
        Parameter("keep", "bool", False, "over several lines"),
    ]


@pytest.mark.parametrize(
    ("given_values", "name", "value"),
    [
        pytest.param({"rate": 2}, "rate", 2.0, id="int for float"),
        pytest.param({"classes": ["a", "b"]}, "classes", ["a", "b"], id="list"),
        pytest.param({}, "shares", [0.5, 1.0], id="ints in a list of floats"),
        pytest.param({"limits": {"b": 0.5}}, "limits", {"b": 0.5}, id="table"),
        pytest.param({"api": {"token_env": "T"}}, "api", {"token_env": "T"}, id="name of a variable"),
        pytest.param({"api": {"token": "${T}"}}, "api", {"token": "${T}"}, id="variable under a secret's name"),
        pytest.param({"api": {"token": "coin"}}, "api", {"token": "coin"}, id="a class that is called so"),
        *(
            pytest.param({"api": table}, "api", table, id=f"no secret: {table}")
            for table in (
                {"header": "Bearer ${T}"},
                {"token": "Basic ${T}"},
                {"password": ""},
                {"token_scheme": "Bearer"},
                {"kind": "basically a cat"},
                {"tokens": "few"},
            )
        ),
        *(
            pytest.param({"url": url}, "url", url, id=url)
            for url in (
                "http://host:8080/a@b",
                "http://x/a:b@c",
                "ssh://git@host/x",
                "postgresql://me@host:5432/db",
                "https://host/x?keyword=cat",
                "sqlite:///a/b@c.db",
                "postgresql://host:5432/db?options=a@b",
                "https://host/x?page=1#key",
            )
        ),
        *(
            pytest.param({"url": url}, "url", url, id=f"variables in {url.partition(':')[0]}")
            for url in ("postgresql://${USER}:${PW}@host/db", "https://${PW}@host/x", "http://host/x?token=${T}&a=1")
        ),
    ],
)
def test_values_are_laid_over_the_defaults(
    step: StepNotebook, given_values: dict[str, Any], name: str, value: Any
) -> None:
    resolved = step.resolve(given_values)
    assert list(resolved) == list(step.parameters)
    assert resolved[name] == value
    assert type(resolved[name]) is type(value)
    assert [type(item) for item in resolved["shares"]] == [float, float]
    assert [type(item) for item in resolved["limits"].values()] == [float]


SECRET_NAMES = ("key", "sig", "auth", "code", "hapikey", "passwd", "private_token", "client_secret", "X-Amz-Credential")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        pytest.param({"epochs": True}, "int, such as 20", id="bool is no int"),
        pytest.param({"epochs": "3"}, "int, such as 20", id="text is no int"),
        pytest.param({"rate": float("nan")}, "float", id="nan"),
        pytest.param({"keep": 1}, "bool, such as False", id="int is no bool"),
        pytest.param({"classes": ["car", 1]}, "list", id="list of something else"),
        pytest.param({"epoch": 3}, "did you mean 'epochs'", id="near name"),
        pytest.param({"zzz": 3}, "one of variant, epochs", id="far name"),
        pytest.param({"url": "https://me:s3cret@host/x"}, "no credentials", id="password"),
        pytest.param({"url": "https://s3cret@host/x"}, "no credentials", id="token"),
        pytest.param({"url": "https://host/x?a=1&X-Amz-Signature=s3cret"}, "no credentials", id="signed URL"),
        pytest.param({"classes": ["https://me:s3cret@host/x"]}, "no credentials", id="password in a list"),
        pytest.param({"url": "https://${ME}:s3cret@host/x"}, "no credentials", id="password beside a variable"),
        pytest.param({"url": "https://s3cret${ME}@host/x"}, "no credentials", id="token beside a variable"),
        pytest.param({"api": {"api_key": "s3cret-of-the-test${T}"}}, "no credentials", id="key beside a variable"),
        pytest.param({"url": "api+https://me:s3cret@host/x"}, "no credentials", id="password of an API"),
        pytest.param({"api": {"url": "https://me:s3cret@host/x"}}, "no credentials", id="password in a table"),
        *(
            pytest.param({"api": {key: "s3cret-of-the-test"}}, "no credentials", id=f"{key} in a table")
            for key in ("Token", "api_token", "auth", "x-api-key", "client_secret")
        ),
        *(
            pytest.param({"api": {key: "s3cret"}}, "no credentials", id=f"short {key} in a table")
            for key in ("password", "passwd", "pwd", "api_key", "apiKey", "DB_PASSWORD")
        ),
        *(
            pytest.param({"api": {"header": value}}, "write ${NAME}", id=f"header {value}")
            for value in ("Bearer s3cret", "basic s3cret", "Bearer ${T}s3cret", "  Bearer   s3cret")
        ),
        *(
            pytest.param({"url": f"https://host/x?a=1&{name}=s3cret"}, "no credentials", id=f"{name} in a query")
            for name in SECRET_NAMES
        ),
        pytest.param({"url": "https://host/x#access_token=s3cret"}, "no credentials", id="fragment"),
        pytest.param({"url": "postgresql://me:s3cret/of@host/db"}, "no credentials", id="password with a slash"),
        pytest.param({"url": "mssql://host/db?odbc_connect=PWD%3Ds3cret"}, "no credentials", id="ODBC"),
    ],
)
def test_a_wrong_value_is_refused(step: StepNotebook, values: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        step.resolve(values)
    assert says in str(caught.value)
    assert "s3cret" not in str(caught.value)


OPENS = "does not open the step"
WRONG_CELLS = {
    "no type": ("parameters", "epochs = 1", "not a parameter: epochs = 1"),
    "statement": ("parameters", "import os", "not a parameter"),
    "default of another type": ("parameters", "epochs: int = 1.5", "declared as int = 1.5"),
    "list of what": ("parameters", "epochs: list = []", "declared as list = []"),
    "parameter twice": ("parameters", "epochs: int = 1\nepochs: int = 2", "there twice"),
    "no Python": ("parameters", "epochs: int = (1", "not valid Python"),
    "does not open": ("interface", "pass", OPENS),
    "another name": ("interface", 'Step.open("second", reads=[], writes=["a"])', OPENS),
    "no literals": ("interface", 'Step.open("first", reads=[], writes=names)', OPENS),
    "text for a list": ("interface", 'Step.open("first", reads="letters", writes=["a"])', OPENS),
    "entity twice": ("interface", 'Step.open("first", reads=[], writes=["a", "a"])', OPENS),
    "in and out": ("interface", 'Step.open("first", reads=["a"], writes=["a"])', OPENS),
    "path": ("interface", 'Step.open("first", reads=[], writes=["../a"])', OPENS),
}


@pytest.mark.parametrize(("tag", "cell", "says"), WRONG_CELLS.values(), ids=WRONG_CELLS)
def test_a_wrong_cell_is_refused(toy: Any, tag: str, cell: str, says: str) -> None:
    with pytest.raises(DataError) as caught:
        read_notebook(write(toy, **{tag: cell}))
    assert says in str(caught.value)
    assert "first.ipynb" in str(caught.value)


CONSTRAINED = """\
size: str = ""  # which size; one of nano, tiny, s
share: float = -1.0  # a share; -1: by mode; from 0 to 1
side: int = 64  # in pixels, a multiple of 32 is best; a multiple of 32; at least 32
rate: float = 1e-4  # above 0; at most 1e-2
actions: dict[str, str] = {}  # by rule; one of report, drop
shares: list[float] = []  # from 0 to 1"""
ALLOWED: dict[str, list[Any]] = {
    "size": ["", "nano", "s"],
    "share": [-1, -1.0, 0, 0.5, 1],
    "side": [32, 640],
    "rate": [1e-5, 0.01],
    "actions": [{}, {"a": "drop", "b": "report"}],
    "shares": [[], [0, 0.5]],
}
REFUSED: dict[str, list[tuple[Any, str]]] = {
    "size": [("tni", "did you mean 'tiny'?"), ("xxl", "one of nano, tiny, s")],
    "share": [(-0.5, "from 0 to 1"), (1.1, "from 0 to 1")],
    "side": [(40, "a multiple of 32"), (0, "at least 32")],
    "rate": [(0, "above 0"), (0.02, "at most 1e-2")],
    "actions": [({"a": "drop", "b": "drpo"}, "did you mean 'drop'?")],
    "shares": [([0.5, 2.0], "first.shares is 2.0")],
}


def test_the_choices_and_bounds_in_a_comment_hold_and_the_default_is_always_allowed(toy: Any) -> None:
    step = read_notebook(write(toy, parameters=CONSTRAINED))
    assert step.parameters["size"].help == "which size; one of nano, tiny, s"
    for name, values in ALLOWED.items():
        assert [step.resolve({name: value})[name] for value in values] == values
    for name, refused in REFUSED.items():
        for value, message in refused:
            with pytest.raises(UsageError, match=re.escape(message)):
                step.resolve({name: value})


LINKED = 'size: str = "-"  # where text is auto: second.act'


def test_a_parameter_takes_its_value_from_another_steps(toy: Any) -> None:
    cells = [(tag, f"{source}\n{LINKED}" if tag == "parameters" else source) for tag, source in toy.cells_of("first")]
    toy.notebook("first", cells)
    steps = read_steps(toy.root / "steps")

    def size(first: dict[str, str], second: dict[str, str]) -> Any:
        given = {"first": first, "second": second}
        resolved = {name: step.resolve(given.get(name, {})) for name, step in steps.items()}
        return follow_links(steps, given, resolved)["first"]["size"]

    assert size({}, {"act": "fail"}) == "-", "the text is not auto"
    assert size({"text": "auto"}, {"act": "fail"}) == "fail"
    assert size({"text": "auto"}, {}) == "go", "the other's default"
    assert size({"text": "auto", "size": "s"}, {"act": "fail"}) == "s", "what is set is not overruled"
    assert toy.step("first", "--set", "text=auto", "--set", "second.note=x", "--set", "second.act=nothing").code == 0
    assert toy.manifest()["steps"]["first"]["parameters"]["size"] == "nothing"
    assert toy.states()["first"] == "done", "the same command would set it so again"


@pytest.mark.parametrize("linked", ["nobody.act", "second.atc", "second.loud"])
def test_a_link_to_what_is_not_there_is_refused(toy: Any, linked: str) -> None:
    write(toy, parameters=f'text: str = "a"\nsize: str = "-"  # where text is auto: {linked}')
    with pytest.raises(DataError, match="names what is not there") as caught:
        read_steps(toy.root / "steps")
    assert linked in str(caught.value)
    write(toy, parameters='text: str = "a"\nsize: str = "-"  # column where mask is stored: masks.png')
    assert read_steps(toy.root / "steps")["first"].resolve({})["size"] == "-", "worded like a link, and none"


CHECKED = """\
check_division(mode, train, evaluation, max_empty_share=empty)
step = Step.open("first", reads=[], writes=["letters"])"""
SHARES = """\
mode: str = "balanced"
train: float = 0.7
evaluation: float = 0.1
empty: float = -1.0  # by mode"""
IMPORTED = "from pipeline.data.split.division import check_division"


def checked(toy: Any, interface: str = CHECKED, imported: str = IMPORTED) -> StepNotebook:
    """A step whose interface cell checks parameters."""
    cells = [("", imported), ("parameters", SHARES), ("interface", interface)]
    return read_notebook(toy.notebook("first", cells))


OF_A_MODULE = CHECKED.replace("check_division", "division.check_division"), "from pipeline.data.split import division"


@cases("interface, imported", {"function": (CHECKED, IMPORTED), "module": OF_A_MODULE})
def test_a_call_before_the_interface_checks_parameters_together(toy: Any, interface: str, imported: str) -> None:
    step = checked(toy, interface, imported)
    assert step.resolve({})["empty"] == -1, "defaults are always allowed"
    assert step.resolve({"train": 0.9, "empty": 0.5})["train"] == 0.9
    with pytest.raises(UsageError) as caught:
        step.resolve({"train": 0.95, "empty": 0.5})
    said = str(caught.value)
    assert "train_share 0.95 and eval_share 0.1 are no shares" in said
    assert "first, train and empty" in said


WRONG_CHECKS = {
    "no import": ("check(train)", IMPORTED, "not a check of parameters: check(train)"),
    "a value": ("check_division(mode, 0.5, evaluation)", IMPORTED, "expected: FUNCTION(PARAMETER, …)"),
    "no parameter": ("check_division()", IMPORTED, "not a check of parameters"),
    "keywords by a table": ("check_division(**train)", IMPORTED, "not a check of parameters"),
    "of an object": ("pipeline.check(train)", "import pipeline", "not a check of parameters"),
}


@cases("call, imported, says", WRONG_CHECKS)
def test_what_is_no_check_is_refused(toy: Any, call: str, imported: str, says: str) -> None:
    with pytest.raises(DataError) as caught:
        checked(toy, CHECKED.replace(CHECKED.splitlines()[0], call), imported)
    assert says in str(caught.value)


def test_what_comes_after_the_step_is_opened_is_no_check(toy: Any) -> None:
    assert len(checked(toy, f"{CHECKED}\nprint(step.inputs)").checks) == 1


def test_a_check_that_cannot_be_imported_is_told(toy: Any) -> None:
    step = checked(toy, imported=IMPORTED.replace("split.division", "groups"))
    with pytest.raises(DataError, match="cannot be imported"):
        step.resolve({"train": 0.5})


@pytest.mark.parametrize("tag", ["parameters", "interface"])
def test_tags_are_there_exactly_once(toy: Any, tag: str) -> None:
    path = write(toy)
    good = nbformat.read(path, as_version=4)
    cell = next(cell for cell in good.cells if cell.metadata.get("tags") == [tag])
    good.cells.append(nbformat.v4.new_code_cell(cell.source, metadata={"tags": [tag]}))
    nbformat.write(good, path)
    with pytest.raises(DataError, match=f"2 cells tagged '{tag}'"):
        read_notebook(path)
    good.cells = [cell for cell in good.cells if cell.metadata.get("tags") != [tag]]
    nbformat.write(good, path)
    with pytest.raises(DataError, match=f"0 cells tagged '{tag}'"):
        read_notebook(path)


def test_a_foreign_kernel_and_a_name_of_two_words_are_refused_with_the_remedy(toy: Any) -> None:
    with pytest.raises(StepError, match=r"(?s)kernel 'ir'.*choose the kernel 'Python 3 \(ipykernel\)'"):
        read_notebook(write(toy, kernel="ir"))
    with pytest.raises(DataError, match="cannot name a step"):
        read_notebook(write(toy, name="first.old"))


def test_what_is_no_notebook_is_refused(toy: Any) -> None:
    path = toy.root / "steps" / "first.ipynb"
    for content in ("", "{}", "[]", "no json", '{"cells": [1], "metadata": {}}', '{"worksheets": []}'):
        path.write_text(content)
        with pytest.raises(DataError, match="not a Jupyter notebook"):
            read_notebook(path)


def test_outputs_and_metadata_do_not_change_the_digest_and_sources_do(toy: Any) -> None:
    path = toy.root / "steps" / "second.ipynb"
    before = read_notebook(path)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="hello")]
    notebook.cells[1].execution_count = 7
    notebook.cells[1].metadata["collapsed"] = True
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, path)
    path.write_text(json.dumps(json.loads(path.read_text()), indent=4))
    assert read_notebook(path).digest == before.digest
    digests = {before.digest}
    for cell in notebook.cells:
        cell.source += "\n# more"
        nbformat.write(notebook, path)
        digests.add(read_notebook(path).digest)
    assert len(digests) == len(notebook.cells) + 1


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=20), max_size=4))
def test_any_text_can_be_a_default(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    source = f"texts: list[str] = {texts!r}  # some"
    path = tmp_path_factory.mktemp("n") / "first.ipynb"
    cells = [
        nbformat.v4.new_code_cell(source, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell('Step.open("first", reads=[], writes=["a"])', metadata={"tags": ["interface"]}),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    assert read_notebook(path).parameters["texts"] == Parameter("texts", "list[str]", texts, "some")


OF_A = 'Step.open("{}", reads=[], writes=["of_a"])'.format


def reads(*entities: str) -> Callable[[str], str]:
    return lambda name: f'Step.open("{name}", reads={list(entities)}, writes=["of_{name}"])'


def only(toy: Any, steps: dict[str, Callable[[str], str]]) -> Path:
    """The folder of notebooks, with no others than these."""
    for path in (toy.root / "steps").iterdir():
        path.unlink()
    for name, interface in steps.items():
        write(toy, name=name, interface=interface(name))
    return toy.root / "steps"  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        pytest.param({"a": reads("of_b"), "b": reads("of_a")}, "a, b wait for each other", id="cycle"),
        pytest.param({"a": reads("of_z")}, "a reads of_z, and no step writes it", id="unknown"),
        pytest.param({"a": reads(), "b": OF_A}, "a and b both write of_a", id="two"),
        pytest.param({}, "there are no steps", id="none"),
    ],
)
def test_what_is_no_graph_is_refused(toy: Any, steps: dict[str, Callable[[str], str]], says: str) -> None:
    with pytest.raises(PipelineError, match=re.escape(says)):
        read_steps(only(toy, steps))


def test_steps_come_in_the_order_of_what_they_read(toy: Any) -> None:
    steps = {"a": reads("of_c"), "b": reads("of_a", "of_d"), "c": reads("of_d"), "d": reads()}
    assert list(read_steps(only(toy, steps))) == ["d", "c", "a", "b"]


def test_magics_are_left_to_ipython(toy: Any) -> None:
    opens = 'Step.open("first", reads=[], writes=["a"])'
    magics = "%matplotlib inline\nimport pipeline.data.coco\n!ls"
    path = toy.notebook("first", [("", magics), ("parameters", ""), ("interface", opens)])
    assert read_notebook(path).imports == ("pipeline.data.coco",)
    assert read_notebook(path).parameters == {}
    assert read_notebook(path).title == "first"
