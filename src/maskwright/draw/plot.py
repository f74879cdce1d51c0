"""A plot of curves as one SVG file: axes that may be logarithmic, lines, points, marked places, a band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from math import ceil, floor, isfinite, log10
from pathlib import Path

from maskwright.errors import InputError
from maskwright.storage import replacing

_WIDE, _HIGH, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 400, 64, 16, 34, 44
_COLORS = ("#2b6cb0", "#c05621", "#2f855a", "#b83280")

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """What a plot shows.

    Attributes:
        title, x, y: what is written over it and along its axes.
        lines: name -> points joined by a line.
        points: name -> points drawn as dots.
        marks: name -> x of an upright dashed line.
        band: (x, low, high) of a shaded area, rising in x.
        log_x, log_y: logarithmic axes; points that are not above 0 are left out.
    """

    title: str
    x: str
    y: str
    lines: Mapping[str, Points] = field(default_factory=dict[str, Points])
    points: Mapping[str, Points] = field(default_factory=dict[str, Points])
    marks: Mapping[str, float] = field(default_factory=dict[str, float])
    band: Sequence[tuple[float, float, float]] = ()
    log_x: bool = False
    log_y: bool = False

    def svg(self) -> str:
        """The plot as a whole SVG document.

        Raises:
            InputError: there is no finite point to draw.
        """
        across, up = self._axes()
        body = [f'<rect width="{_WIDE}" height="{_HIGH}" fill="#fff"/>', *across.drawn(True), *up.drawn(False)]
        if self.band:
            edge = [(x, high) for x, _, high in self.band] + [(x, low) for x, low, _ in reversed(self.band)]
            body.append(f'<polygon points="{_joined(edge, across, up)}" fill="{_COLORS[0]}" fill-opacity="0.15"/>')
        names: list[tuple[str, str]] = []
        for i, (name, points) in enumerate(self.lines.items()):
            color = _COLORS[i % len(_COLORS)]
            names.append((name, color))
            body.append(
                f'<polyline points="{_joined(points, across, up)}" fill="none" stroke="{color}" stroke-width="2"/>'
            )
        for i, (name, points) in enumerate(self.points.items(), len(self.lines)):
            color = _COLORS[i % len(_COLORS)]
            names.append((name, color))
            shown = [(across.at(x), up.at(y)) for x, y in points if across.takes(x) and up.takes(y)]
            body += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{color}"/>' for x, y in shown]
        for name, x in self.marks.items():
            if across.takes(x):
                place = across.at(x)
                ends = f'x1="{place:.1f}" x2="{place:.1f}" y1="{_TOP}" y2="{_HIGH - _BOTTOM}"'
                body.append(f'<line {ends} stroke="#4a5568" stroke-dasharray="4 4"/>')
                body.append(f'<text x="{place + 4:.1f}" y="{_TOP + 12}">{escape(name)}</text>')
        for i, (name, color) in enumerate(names):
            row = _HIGH - _BOTTOM - 10 - 15 * (len(names) - 1 - i)
            body.append(f'<rect x="{_LEFT + 10}" y="{row - 9}" width="10" height="10" fill="{color}"/>')
            body.append(f'<text x="{_LEFT + 26}" y="{row}">{escape(name)}</text>')
        body.append(f'<text x="{_LEFT}" y="20" font-size="14">{escape(self.title)}</text>')
        body.append(
            f'<text x="{(_LEFT + _WIDE - _RIGHT) / 2}" y="{_HIGH - 8}" text-anchor="middle">{escape(self.x)}</text>'
        )
        turn = f'transform="rotate(-90 14 {_HIGH / 2})"'
        body.append(f'<text x="14" y="{_HIGH / 2}" text-anchor="middle" {turn}>{escape(self.y)}</text>')
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDE} {_HIGH}" width="{_WIDE}" height="{_HIGH}" '
        )
        return f'{head}font-family="system-ui,sans-serif" font-size="12" fill="#1a202c">{"".join(body)}</svg>\n'

    def save(self, path: str | Path) -> None:
        """Write the plot; it is written beside and renamed.

        Raises:
            InputError: ``path`` cannot be written, or there is nothing to draw.
        """
        text = self.svg()
        with replacing(path) as beside:
            beside.write_text(text, encoding="utf-8")

    def _axes(self) -> tuple[_Axis, _Axis]:
        every = [p for points in (*self.lines.values(), *self.points.values()) for p in points]
        every += [(x, edge) for x, low, high in self.band for edge in (low, high)]
        xs = _usable([x for x, _ in every] + list(self.marks.values()), self.log_x)
        ys = _usable([y for _, y in every], self.log_y)
        if not xs or not ys:
            raise InputError(
                f"a plot needs points with finite values{' above 0' * (self.log_x or self.log_y)}, got none."
            )
        across = _Axis(min(xs), max(xs), self.log_x, _LEFT, _WIDE - _RIGHT)
        return across, _Axis(min(ys), max(ys), self.log_y, _HIGH - _BOTTOM, _TOP)


class _Axis:
    """Values between two ends, as pixels between two others."""

    def __init__(self, low: float, high: float, log: bool, start: float, end: float) -> None:
        self.log, self.start, self.end = log, start, end
        a, b = (log10(low), log10(high)) if log else (low, high)
        room = 0.04 * (b - a) or max(abs(a) * 0.1, 0.1)
        self.low, self.high = a - room, b + room

    def takes(self, value: float) -> bool:
        return isfinite(value) and (value > 0 or not self.log)

    def at(self, value: float) -> float:
        place = ((log10(value) if self.log else value) - self.low) / (self.high - self.low)
        return self.start + place * (self.end - self.start)

    def ticks(self) -> list[float]:
        span = self.high - self.low
        if self.log and span > 1:
            return [10.0**e for e in range(ceil(self.low), floor(self.high) + 1)]
        low, high = (10**self.low, 10**self.high) if self.log else (self.low, self.high)
        step = 10 ** floor(log10((high - low) / 4))
        step = next(step * k for k in (1, 2, 2.5, 5, 10) if (high - low) / (step * k) <= 6)
        return [k * step for k in range(ceil(low / step), floor(high / step) + 1)]

    def drawn(self, across: bool) -> list[str]:
        out: list[str] = []
        for value in self.ticks():
            if not self.takes(value):
                continue
            place = self.at(value)
            text = f"{value:.4g}" if abs(value) > 1e-12 else "0"
            if across:
                ends = f'x1="{place:.1f}" x2="{place:.1f}" y1="{_TOP}" y2="{_HIGH - _BOTTOM}"'
                label = f'<text x="{place:.1f}" y="{_HIGH - _BOTTOM + 16}" text-anchor="middle">{text}</text>'
            else:
                ends = f'x1="{_LEFT}" x2="{_WIDE - _RIGHT}" y1="{place:.1f}" y2="{place:.1f}"'
                label = f'<text x="{_LEFT - 6}" y="{place + 4:.1f}" text-anchor="end">{text}</text>'
            out += [f'<line {ends} stroke="#e2e8f0"/>', label]
        return out


def _usable(values: Sequence[float], log: bool) -> list[float]:
    return [value for value in values if isfinite(value) and (value > 0 or not log)]


def _joined(points: Points, across: _Axis, up: _Axis) -> str:
    return " ".join(f"{across.at(x):.1f},{up.at(y):.1f}" for x, y in points if across.takes(x) and up.takes(y))
