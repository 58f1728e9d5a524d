from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from isosr_pipeline.errors import InputError, MissingInputError
from isosr_pipeline.yaml_files import read_yaml


class Described(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    value: int | float | str | bool | list[str] | None = None


class Merged(BaseModel):
    first: dict[str, Any]
    merged: dict[str, int]


def read(tmp_path, text, **variables):
    path = tmp_path / "file.yaml"
    path.write_text(text)
    return read_yaml(path, Described, "a file", variables).value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12:00:00", "12:00:00"),
        ("1:30", "1:30"),
        ("1-00:00:00", "1-00:00:00"),
        ("1e-4", 1e-4),
        ("2.5E+3", 2500.0),
        ("-.5", -0.5),
        (".inf", float("inf")),
        ("12", 12),
        ("-3", -3),
        ("0", 0),
        ("1_000", 1000),
        ("true", True),
        ("yes please", "yes please"),
        ("10.0.0.1", "10.0.0.1"),
        ("'12'", "12"),
        ("", None),
    ],
)
def test_values_are_what_they_look_like(tmp_path, text, value):
    found = read(tmp_path, f"value: {text}")
    assert found == value
    assert type(found) is type(value)


def test_variables_are_replaced_and_come_before_those_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("PLACE", "/data")
    assert read(tmp_path, "value: ${PLACE}/a") == "/data/a"
    assert read(tmp_path, "value: ['${PLACE}', b]", PLACE="/own") == ["/own", "b"]
    with pytest.raises(InputError, match=r"\$\{NOWHERE\} is not set"):
        read(tmp_path, "value: ${NOWHERE}")


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("value: 1\nvalue: 2", 2, "value"),
        ("value: 1\n# between\n'value': 1", 3, "value"),
        ("value:\n  - {a: 1, b: 2, a: 3}", 2, "a"),
    ],
)
def test_a_key_that_is_given_twice_is_refused_with_its_line(tmp_path, text, line, key):
    expected = rf"file.yaml, line {line}: {key} is given twice, first in line [12]; keep one"
    with pytest.raises(InputError, match=expected):
        read(tmp_path, text)


def test_what_a_mapping_merges_may_be_given_anew(tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text("""
first: {second: {third: &base {<<: {x: 1, y: 1}, y: 2}}}
merged: {<<: *base, x: 3}
""")
    assert read_yaml(path, Merged, "a file").merged == {"x": 3, "y": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("value: !!python/object/apply:os.system ['true']", "not valid YAML"),
        ("value: [1", "not valid YAML"),
        ("- 1", "holds no keys; give a file"),
        ("values: 1", "values: is not known; did you mean value"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(MissingInputError, match="give a file"):
        read_yaml(tmp_path / "none.yaml", Described, "a file")
