"""Write the table of formats into ``data.md``, from the table itself."""

from __future__ import annotations

from pathlib import Path

from maskwright.data.formats import FORMATS

PAGE = Path(__file__).with_name("data.md")
BEGIN, END = "<!-- formats: made by docs/formats.py -->", "<!-- end -->"


def made() -> str:
    """The page with its table anew."""
    rows = [f"| `{row.name}` | {row.title} | {'read, written' if row.writes else 'read'} |" for row in FORMATS]
    table = "\n".join(["| name | what | |", "|---|---|---|", *rows])
    before, _, rest = PAGE.read_text().partition(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(made())
