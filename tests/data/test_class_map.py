from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.data.class_selection import read_class_map
from pipeline.errors import DataError, MissingError, UsageError


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        pytest.param("m.csv", "from,to\ncar,vehicle\nbus,\n", {"car": "vehicle", "bus": None}, id="csv"),
        pytest.param("m.csv", "\ufefffrom,to\r\n car , a b \r\n\r\n", {"car": "a b"}, id="csv of a spreadsheet"),
        pytest.param("m.CSV", 'from,to\n"a, b","c ""d"""\n', {"a, b": 'c "d"'}, id="csv with quotes"),
        pytest.param("m.csv", "from,to\n", {}, id="csv of nothing"),
        pytest.param("m.yaml", "car: vehicle\nbus: null\nvan:\nlorry: ~\n",
                     {"car": "vehicle", "bus": None, "van": None, "lorry": None}, id="yaml"),
        pytest.param("m.yml", "no: yes\n1: 2\nnull: 'null'\n1.50: ''\n",
                     {"no": "yes", "1": "2", "null": "null", "1.50": None}, id="yaml names as they are written"),
        pytest.param("m.json", '{"car": "vehicle", "bus": null, "van": ""}',
                     {"car": "vehicle", "bus": None, "van": None}, id="json"),
    ],
)  # fmt: skip
def test_read(tmp_path: Path, name: str, text: str, found: dict[Any, Any]) -> None:
    (tmp_path / name).write_bytes(text.encode())
    assert read_class_map(tmp_path / name) == found
    assert read_class_map(str(tmp_path / name)) == found


def test_no_file_named() -> None:
    assert read_class_map("") == {}


@pytest.mark.parametrize(
    ("name", "data", "kind", "problem"),
    [
        pytest.param("m.txt", b"from,to\n", UsageError, "cannot end in '.txt'", id="another suffix"),
        pytest.param("gone.csv", None, MissingError, "no mapping file", id="not there"),
        pytest.param("m.csv", b"old,new\na,b\n", DataError, "header is 'old,new'", id="another header"),
        pytest.param("m.csv", b"", DataError, "header is ''", id="empty csv"),
        pytest.param("m.csv", b"from,to\na,b,c\n", DataError, "line 2: 3 fields", id="a field too many"),
        pytest.param("m.csv", b"from,to\na\n", DataError, "line 2: 1 fields", id="a field too few"),
        pytest.param("m.csv", b"from,to\n,b\n", DataError, "line 2: a name is empty", id="no name"),
        pytest.param("m.csv", b"from,to\na,b\na,c\n", DataError, "line 3: 'a' occurs twice", id="twice in csv"),
        pytest.param("m.csv", b'from,to\n"a,b\n', DataError, "cannot be read", id="an open quote"),
        pytest.param("m.csv", b"from,to\n\xff,b\n", DataError, "cannot be read", id="not UTF-8"),
        pytest.param("m.json", b'{"a": "b", "a": "c"}', DataError, "'a' occurs twice", id="twice in json"),
        pytest.param("m.json", b'{"a": 1}', DataError, "the new name is no text", id="a number in json"),
        pytest.param("m.json", b'["a"]', DataError, "no object", id="a list in json"),
        pytest.param("m.json", b'{"a"', DataError, "cannot be read", id="cut json"),
        pytest.param("m.json", b"[" * 100_000, DataError, "cannot be read", id="deep json"),
        pytest.param("m.yaml", b"a: b\na: c\n", DataError, "line 2: 'a' occurs twice", id="twice in yaml"),
        pytest.param("m.yaml", b"a: [b]\n", DataError, "line 1: a name is no text", id="a list in yaml"),
        pytest.param("m.yaml", b"? [a]\n: b\n", DataError, "line 1: a name is no text", id="a list as a yaml name"),
        pytest.param("m.yaml", b"- a\n", DataError, "no object", id="a yaml list"),
        pytest.param("m.yaml", b"", DataError, "no object", id="empty yaml"),
        pytest.param("m.yaml", b"a: 'b\n", DataError, "cannot be read", id="broken yaml"),
    ],
)
def test_refused(tmp_path: Path, name: str, data: Any, kind: Any, problem: str) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(kind, match=problem) as caught:
        read_class_map(tmp_path / name)
    assert name in str(caught.value)
