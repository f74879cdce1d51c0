"""A report as one HTML file that needs nothing else: tables, curves, a matrix of confusions, pictures.

Blocks are strings of HTML made by the functions below; ``page`` puts them together. All text given is escaped. Curves
are drawn as SVG and pictures are embedded, so the page can be mailed, and opened without a network.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from maskwright.storage import replacing

_WIDE, _HIGH = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 40
_COLORS = ("#2b6cb0", "#c05621", "#2f855a", "#b83280", "#6b46c1", "#b7791f", "#2c7a7b", "#9b2c2c", "#4a5568", "#d53f8c")

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem;color:#1a202c;background:#fff}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.2rem;border-bottom:1px solid #e2e8f0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #edf2f7}
th:first-child,td:first-child{text-align:left}
.scroll{overflow-x:auto}.matrix td{text-align:center;min-width:2.2rem}
.side th{font-weight:normal}.pictures{display:flex;flex-wrap:wrap;gap:1rem}
figure{margin:0;max-width:340px}figure img{max-width:100%}
figcaption{font-size:.85rem;color:#4a5568}
p.note{color:#4a5568}svg text{font:11px system-ui,sans-serif;fill:#4a5568}
"""


def page(title: str, *blocks: str) -> str:
    """A whole HTML document with ``blocks`` in their order."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    body = "\n".join([f"<h1>{escape(title)}</h1>", *blocks])
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n'
    )


def save(path: str | Path, document: str) -> None:
    """Write a page; it is written beside and renamed.

    Raises:
        InputError: ``path`` cannot be written.
    """
    with replacing(path) as beside:
        beside.write_text(document, encoding="utf-8")


def heading(text: str, note: str = "") -> str:
    """A heading, and a sentence under it."""
    return f"<h2>{escape(text)}</h2>" + (f'<p class="note">{escape(note)}</p>' if note else "")


def escaped(text: str) -> str:
    """Text as HTML."""
    return escape(text)


def table(columns: Sequence[str], rows: Sequence[Sequence[str | float | None]]) -> str:
    """A table; numbers to four digits, ``None``, NaN and -1.0 (what nothing defines) as a dash."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: str | float | None) -> str:
    if isinstance(value, str):
        return escape(value)
    if value is None or (isinstance(value, float) and (math.isnan(value) or value == -1.0)):
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def curves(
    series: Mapping[str, tuple[np.ndarray, np.ndarray]], *, x: str, y: str, diagonal: bool = False, limit: int = 10
) -> str:
    """Lines over the unit square as SVG.

    Args:
        series: name -> (x, y), float [n] each, in [0, 1]; places where ``y`` is below 0 or NaN are left out. Only the
            first ``limit`` are drawn and named.
        x, y: what the axes show.
        diagonal: a dashed line from corner to corner, where a perfect curve of this kind lies.
    """
    wide, high = _WIDE - _LEFT - _RIGHT, _HIGH - _TOP - _BOTTOM

    def place(u: float, v: float) -> str:
        return f"{_LEFT + u * wide:.1f},{_TOP + (1 - v) * high:.1f}"

    parts = [f'<rect x="{_LEFT}" y="{_TOP}" width="{wide}" height="{high}" fill="none" stroke="#cbd5e0"/>']
    for tick in np.linspace(0, 1, 6).tolist():
        across, up = place(tick, 0).split(","), place(0, tick).split(",")
        parts.append(f'<text x="{across[0]}" y="{_HIGH - 24}" text-anchor="middle">{tick:.1f}</text>')
        parts.append(f'<text x="{_LEFT - 6}" y="{float(up[1]) + 4:.1f}" text-anchor="end">{tick:.1f}</text>')
    parts.append(f'<text x="{_LEFT + wide / 2}" y="{_HIGH - 6}" text-anchor="middle">{escape(x)}</text>')
    turn = f"rotate(-90 12 {_TOP + high / 2})"
    parts.append(f'<text x="12" y="{_TOP + high / 2}" text-anchor="middle" transform="{turn}">{escape(y)}</text>')
    if diagonal:
        a, b = place(0, 0).split(","), place(1, 1).split(",")
        ends = f'x1="{a[0]}" y1="{a[1]}" x2="{b[0]}" y2="{b[1]}"'
        parts.append(f'<line {ends} stroke="#a0aec0" stroke-dasharray="4 4"/>')
    shown = list(series.items())[:limit]
    for i, (name, (us, vs)) in enumerate(shown):
        color = _COLORS[i % len(_COLORS)]
        points = " ".join(place(float(u), float(v)) for u, v in zip(us, vs, strict=True) if v >= 0)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
        if len(shown) > 1:
            row = _TOP + 14 * i
            parts.append(f'<rect x="{_WIDE + 4}" y="{row}" width="10" height="10" fill="{color}"/>')
            parts.append(f'<text x="{_WIDE + 18}" y="{row + 9}">{escape(name)}</text>')
    total = _WIDE + (170 if len(shown) > 1 else 0)
    drawn = "".join(parts)
    more = f'<p class="note">The first {limit} of {len(series)}.</p>' if len(series) > limit else ""
    return f'<svg viewBox="0 0 {total} {_HIGH}" width="{total}" height="{_HIGH}" role="img">{drawn}</svg>{more}'


def matrix(rows: Sequence[str], columns: Sequence[str], values: np.ndarray, *, side: str, top: str) -> str:
    """A matrix of counts, each cell the darker the larger its share of its row.

    Args:
        rows, columns: names; ``values``: int or float [len(rows), len(columns)].
        side, top: what rows and columns are.

    Raises:
        ValueError: the names do not fit the values.
    """
    if values.shape != (len(rows), len(columns)):
        raise ValueError(f"values must have shape ({len(rows)}, {len(columns)}), got {values.shape}")
    share = values / np.maximum(values.sum(1, keepdims=True), 1)
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    lines: list[str] = []
    for name, counts, shares in zip(rows, values.tolist(), share.tolist(), strict=True):
        cells = "".join(_shaded(n, part) for n, part in zip(counts, shares, strict=True))
        lines.append(f"<tr><th>{escape(name)}</th>{cells}</tr>")
    corner = f"<th>{escape(side)} \\ {escape(top)}</th>"
    body = "".join(lines)
    return f'<div class="scroll"><table class="matrix side"><tr>{corner}{head}</tr>{body}</table></div>'


def _shaded(count: float, share: float) -> str:
    ink = "#fff" if share > 0.55 else "inherit"
    return f'<td style="background:rgba(43,108,176,{share:.2f});color:{ink}">{count:g}</td>'


def pictures(items: Sequence[tuple[str, np.ndarray]], *, longest: int = 680) -> str:
    """Pictures with a line of text under each; those longer than ``longest`` pixels are made smaller.

    Args:
        items: (text, uint8 [H, W, 3]).
    """
    figures: list[str] = []
    for text, pixels in items:
        picture = Image.fromarray(pixels)
        picture.thumbnail((longest, longest))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=88)
        data = base64.b64encode(buffer.getvalue()).decode("ascii")
        image = f'<img alt="{escape(text)}" src="data:image/jpeg;base64,{data}">'
        figures.append(f"<figure>{image}<figcaption>{escape(text)}</figcaption></figure>")
    return f'<div class="pictures">{"".join(figures)}</div>'
