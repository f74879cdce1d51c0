"""INT8, its accuracy measured: calibrated on the user's pictures, with parts left in fp32 until little is lost."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskwright.errors import InputError

if TYPE_CHECKING:
    from maskwright.data.source import Loads

Measure = Callable[[Any], float]
"""The main figure of a model on the data to measure on."""


def make(
    model: Any,
    described: Mapping[str, Any],
    out: Path,
    *,
    train: Loads,
    measure: Measure,
    calibrate: int,
    limit: float,
    blame: bool = False,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Write the int8 artifact of ``model`` to ``out``.

    Args:
        described: of the model, as ``export`` takes it.
        train: calibration pictures are drawn from it, evenly spread, those with objects.
        measure: used on the program in fp32, in int8, and with each part left out, if more than ``limit`` is lost or
            ``blame`` asks for it.
        calibrate: how many pictures. limit: how much of the figure may be lost against the program in fp32.
        say: told of each step.

    Returns:
        ``{"fp32", "all", "int8", "lost", "calibration", "without", "culprits"}``: figures of the program in fp32, with
        all parts quantized and as written; how much of the loss each part alone accounts for (by leaving it in fp32;
        ``{}`` where that was not measured).

    Raises:
        InputError: no pictures with objects, or too much is lost whatever is left out; then nothing is written.
    """
    from maskwright import zoo
    from maskwright.data.io import read_image
    from maskwright.export import artifact, quantize

    pictures = _with_objects(train, calibrate)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".int8.") as place:
        plain, tried = Path(place) / "fp32", Path(place) / "int8"
        shown = [read_image(path) for path in pictures[:2]]
        artifact.export(model, described, "onnx", plain, pictures=shown)
        program = zoo.load(plain)
        feeds = _feeds(program, pictures)
        exact = measure(program)
        say(f"fp32 program: {exact:.4f}; {len(feeds)} calibration pictures")

        def attempt(without: list[str]) -> float:
            quantize.quantize(plain, tried, feeds, build=zoo.build, without=without)
            found = measure(zoo.load(tried))
            say(f"int8 without {', '.join(without) or 'nothing'}: {found:.4f}")
            return found

        parts = list(quantize.groups(plain))
        whole = found = attempt([])
        culprits: dict[str, float] = {}
        without: list[str] = []
        if (blame or exact - whole > limit) and len(parts) > 1:
            culprits = {part: attempt([part]) - whole for part in parts}
        if exact - whole > limit:
            for part in sorted(culprits, key=lambda part: -culprits[part])[:-1]:
                without.append(part)
                found = attempt(without)
                if exact - found <= limit:
                    break
        if exact - found > limit:
            costs = ", ".join(f"{part} {value:+.4f}" for part, value in culprits.items())
            raise InputError(
                f"int8 may lose {limit:g} here, but loses {exact - found:.4f} ({costs}). Nothing was written to {out}. "
                "Give a larger --lose, or --quantize fp16."
            )
        if culprits and not without:
            attempt([])  # the last one that was tried left a part out
        if out.exists():
            shutil.rmtree(out)
        shutil.move(tried, out)
    return {
        "fp32": exact,
        "all": whole,
        "int8": found,
        "lost": exact - found,
        "calibration": len(feeds),
        "without": without,
        "culprits": culprits,
    }


def _with_objects(train: Loads, count: int) -> list[Path]:
    found: list[Path] = []
    for i in range(len(train)):
        record = train.record(i)
        if (len(record.labels) or record.semantic is not None) and record.path.is_file():
            found.append(record.path)
    if not found:
        raise InputError("int8 is calibrated on pictures with objects, but the data has none. Give others as --data.")
    count = min(count, len(found))
    return [found[i * len(found) // count] for i in range(count)]


def _feeds(program: Any, pictures: list[Path]) -> list[Any]:
    """What the program is given for those of the pictures in which it finds something."""
    from maskwright.export.quantize import fed
    from maskwright.infer.predictor import predict

    feeds: list[Any] = []
    for path in pictures:
        with fed(program) as some:
            scene: Any = predict(program, path, precision="32")
        if scene.segments is None or len(scene.segments):
            feeds += some
    if not feeds:
        raise InputError("int8 needs calibration pictures in which the model finds something; it finds nothing in any.")
    return feeds
