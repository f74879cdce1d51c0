"""Long lists read piece by piece are the lists that reading at once gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from maskwright.data.json_lists import JsonList, read_lists
from maskwright.errors import InputError
from maskwright.storage import read_json

NAMES = ("a", "b")
PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-9, 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)
TEXTS = st.text(st.sampled_from('{}[],:" \\ab1\n'), max_size=14)


def whole(found: Any) -> Any:
    """With the lists read out, both ways."""
    if isinstance(found, dict):
        for name, value in found.items():
            if isinstance(value, JsonList):
                found[name] = list(value)
                assert [value[i] for i in range(len(value))] == found[name]
    return found


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b", "c", 'd"]', "é"]), VALUES), st.booleans(), st.sampled_from([None, 1]))
def test_the_same_as_read_at_once(
    tmp_path_factory: pytest.TempPathFactory, value: dict[str, Any], ascii: bool, indent: int | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "lists.json"
    path.write_text(json.dumps(value, ensure_ascii=ascii, indent=indent), encoding="utf-8")
    found = read_lists(path, NAMES)
    lists = {k for k, v in value.items() if k in NAMES and isinstance(v, list)}
    assert {k for k, v in found.items() if isinstance(v, JsonList)} == lists
    assert whole(found) == read_json(path)


@settings(max_examples=600, deadline=None)
@given(st.lists(TEXTS | st.sampled_from(['"a":', "[1,2]", ",", "[", "]", "{", "}", '{"b":[', "1,"]), max_size=8))
@example(['{"a":[1,]}'])
@example(['{"a":[,1]}'])
@example(['{"a":[1 2]}'])
@example(['{"a":[1,2}'])
@example(['{"a":[1],}'])
@example(['{"a":[1]]'])
@example(['{"a":[1]}}'])
@example(['{"a":[1]} {}'])
@example(['{"a" [1]}'])
@example(['{"a":[1] 3}'])
@example(['{"a":[1][2]}'])
@example(['{"a":3 [2]}'])
@example(['{,"a":[2]}'])
@example(['{"a":[[}]]}'])
@example(['{"a":[1],"a":[2]}'])
def test_what_is_no_json_is_refused_as_at_once(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "broken.json"
    path.write_text("".join(parts))

    def tried(read: Any) -> Any:
        try:
            return whole(read())
        except InputError:
            return "refused"

    assert tried(lambda: read_lists(path, NAMES)) == tried(lambda: read_json(path))


def test_long_lists_come_in_pieces(tmp_path: Path) -> None:
    value = {"a": [{"n": i, "t": "],[" * (i % 3)} for i in range(1000)], "rest": 1}
    (tmp_path / "a.json").write_text(json.dumps(value))
    found = read_lists(tmp_path / "a.json", NAMES)
    assert len(found["a"]) == 1000
    assert found["a"][999] == value["a"][999]
    assert list(found["a"]) == value["a"]
    for name, words in (("none.json", "cannot read"), ("", "is a directory")):
        with pytest.raises(InputError, match=words):
            read_lists(tmp_path / name, NAMES)
    (tmp_path / "deep.json").write_text('{"a":' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(InputError, match="is not JSON"):
        whole(read_lists(tmp_path / "deep.json", NAMES))
