from __future__ import annotations

import re
from pathlib import Path

import pytest

from isosr_pipeline.batch.entries import read_entries
from isosr_pipeline.errors import InputError, MissingInputError

EXAMPLES = Path(__file__).parents[2] / "examples"
TEMPLATE = """
source: raw/${brain}.tif   # ${in_a_comment}
output: ${RESULTS}/${brain}
convert: {voxel_size: "${voxel_size}"}
train: {iterations: "${steps}"}
"""
TABLE = 'brain,voxel_size,steps\nm1,"5,2,2",10\n'


@pytest.fixture
def read(tmp_path, monkeypatch):
    monkeypatch.setenv("RESULTS", "/scratch")
    # A column comes before a variable of the same name.
    monkeypatch.setenv("brain", "of the environment")

    def read(table: str | bytes, template: str = TEMPLATE):
        (tmp_path / "t.yaml").write_text(template)
        content = table if isinstance(table, bytes) else table.encode()
        (tmp_path / "t.csv").write_bytes(content)
        return read_entries([], tmp_path / "t.yaml", tmp_path / "t.csv")

    return read


def test_the_examples_are_valid(tmp_path):
    entries = read_entries([], EXAMPLES / "batch.yaml", EXAMPLES / "brains.csv")
    assert [entry.name for entry in entries] == ["mouse1", "mouse2", "mouse3"]
    last = entries[-1].brain
    assert last.source == EXAMPLES / "raw" / "mouse3"
    assert last.convert.voxel_size == (4, 1.8, 1.8)
    assert (last.train.iterations, last.evaluate.channel) == (30000, 1)


def test_columns_become_variables_of_the_template(read, tmp_path):
    table = '\ufeffbrain , steps,voxel_size\r\nm1,10,"5,2,2"\r\n\r\n,,\r\nµ 2,20,3\r\n'
    first, second = read(table)
    assert first.brain.source == tmp_path / "raw" / "m1.tif"
    assert first.brain.convert.voxel_size == (5, 2, 2)
    assert second.brain.output == Path("/scratch/µ 2")
    assert second.brain.train.iterations == 20
    assert second.label == f"{tmp_path}/t.csv, line 5"
    assert first.tag != second.tag


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "is empty; give a header"),
        ("brain,voxel_size,steps\n", "a header and no brains"),
        ("brain,,steps\nm1,5,10\n", r"line 1, column 2: '' is no name of a column"),
        ("brain,voxel size\nm1,5\n", "'voxel size' is no name"),
        ("brain,steps,brain\nm1,5,m1\n", "line 1, column 3: 'brain' names a column before it"),
        ("brain,stepz\nm1,5\n", r"column 2: \S+t.yaml does not use \${stepz}.*\${steps}"),
        ("in_a_comment\nm1\n", r"does not use \${in_a_comment}"),
        (TABLE + "m2,5,\n", "line 3, column steps: no value; give one"),
        (TABLE + "m2,5\n", "line 3, column steps: no value"),
        (TABLE + "m2,5,2,2\n", "line 3: 4 values, and the header has 3 columns"),
        (TABLE + 'm2,"5,2\n', "is not a CSV file"),
        (TABLE.encode("utf-16"), "is not a CSV file in UTF-8"),
        (TABLE + "m2,5,ten\n", r"line 3: \S+t.yaml: train.iterations: .*'ten'"),
        ("brain,voxel_size\nm1,5\n", r"\${steps} is not set in the environment"),
        (TABLE + "m1,5,20\n", r"line 3: output is /scratch/m1, which is that of \S+, line 2 too"),
    ],
)
def test_mistakes_are_named_with_line_and_column(read, table, message):
    with pytest.raises(InputError, match=message):
        read(table)


def test_all_brains_that_can_not_be_read_are_named(read):
    with pytest.raises(InputError) as error:
        read(TABLE + "m2,5,ten\nm3,5,30\nm4,0,40\n")
    assert re.findall(r"line \d", str(error.value)) == ["line 3", "line 5"]


def test_brains_are_files_or_lines_of_a_table(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("source: a.tif\noutput: out\n")
    (tmp_path / "b.yaml").write_text("source: b.tif\noutput: link/out\n")
    (tmp_path / "link").symlink_to(tmp_path)
    assert [entry.label for entry in read_entries([file], None, None)] == [str(file)]
    # The same folder, whatever it is called.
    for other in (file, tmp_path / "b.yaml"):
        with pytest.raises(InputError, match=r"is that of \S+a\.yaml too"):
            read_entries([file, other], None, None)
    for given in (([], file, None), ([], None, file), ([file], file, file), ([], None, None)):
        with pytest.raises(InputError, match="--template"):
            read_entries(*given)
    with pytest.raises(MissingInputError, match="give a table"):
        read_entries([], file, tmp_path / "none.csv")
