"""XML read without what makes it dangerous."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskwright.errors import InputError
from maskwright.storage import read_xml

BOMB = '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><l>&b;</l>'
OUTSIDE = '<!DOCTYPE l [<!ENTITY x SYSTEM "file:///etc/passwd">]><l>&x;</l>'


def test_elements_attributes_and_text(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text('<?xml version="1.0" encoding="utf-8"?><a><b c="1">Süß &amp; gut</b><!-- no --><b/></a>', "utf-8")
    root = read_xml(path)
    assert [(b.text, b.get("c")) for b in root.iter("b")] == [("Süß & gut", "1"), (None, None)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "a.xml:1: .*document type"),
        (OUTSIDE, "a.xml:1: .*document type"),
        ("<a>" * 10**5, "a.xml:1: .*deeper than 64"),
        ("<a><b></a>", "a.xml is not XML"),
        ("", "a.xml is not XML"),
        ("<a>&unknown;</a>", "a.xml is not XML"),
        ('<?xml version="1.0" encoding="nonsense"?><a/>', "a.xml is not XML"),
        ("<a/>\n<b/>", "a.xml is not XML"),
    ],
)
def test_hostile_files(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "a.xml"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_xml(path)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(b"<a>\xff\xfe</a>")
    with pytest.raises(InputError, match="is not XML"):
        read_xml(path)
    with pytest.raises(InputError, match="is a directory"):
        read_xml(tmp_path)
    with pytest.raises(InputError, match="cannot read"):
        read_xml(tmp_path / "none.xml")
