"""What a model is fed: padded pixels, and the way back to the file's own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from maskwright.structures._check import check_tensor, require
from maskwright.structures.scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """The way from a model's padded picture back to the file's pixels.

    Attributes:
        valid: (H, W) of the resized picture inside the padded one (top left).
        original: (H, W) of the file.
        scale: (vertical, horizontal) factor from file pixels to the resized picture, ``valid / original``.
    """

    valid: tuple[int, int]
    original: tuple[int, int]
    scale: tuple[float, float]

    @classmethod
    def resized(cls, original: tuple[int, int], valid: tuple[int, int]) -> Geometry:
        """The geometry of a picture of size ``original`` resized to ``valid``, both (H, W)."""
        return cls(valid=valid, original=original, scale=(valid[0] / original[0], valid[1] / original[1]))

    @classmethod
    def identity(cls, size: tuple[int, int]) -> Geometry:
        """A picture that was not resized."""
        return cls(valid=size, original=size, scale=(1.0, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """How a picture is brought to the size a model was trained for; aspect ratio is kept.

    Attributes:
        short: length of the shorter side after resizing, or ``None``.
        long: ceiling of the longer side, or ``None``.
        scale: factor applied when ``short`` is ``None`` (microscopy models fix the scale, not the side).
        antialias: area-weighted filter when shrinking (detectron2, PIL) or plain bilinear samples (torchvision).
    """

    short: int | None = None
    long: int | None = None
    scale: float = 1.0
    antialias: bool = True

    def target(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (H, W) that a picture of ``size`` (H, W) is resized to; at least 1 pixel a side.

        ``antialias`` also tells whose rounding is meant: detectron2's (the short side exact, halves up) or
        torchvision's (one factor, rounded down).
        """
        factor = self.scale if self.short is None else self.short / min(size)
        if not self.antialias:
            if self.long is not None:
                factor = min(factor, self.long / max(size))
            return max(1, int(size[0] * factor)), max(1, int(size[1] * factor))
        sides = [float(self.short) if self.short is not None and s == min(size) else s * factor for s in size]
        if self.long is not None and max(sides) > self.long:
            again = self.long / max(sides)
            sides = [side * again for side in sides]
        return max(1, int(sides[0] + 0.5)), max(1, int(sides[1] + 0.5))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Images:
    """B pictures padded to one size, at the bottom and right.

    Attributes:
        pixels: uint8 or floating [B, 3, H, W], RGB in 0..255; normalization is the model's first line, and the model
            sets the padding to zero after it.
        geometry: B geometries; ``valid`` lies inside H and W.
    """

    pixels: Tensor
    geometry: tuple[Geometry, ...]

    def __post_init__(self) -> None:
        check_tensor("pixels", self.pixels, ("B", 3, "H", "W"), hint="Pictures are RGB, channels first.")
        object.__setattr__(self, "geometry", tuple(self.geometry))
        count, (height, width) = len(self.pixels), self.pixels.shape[-2:]
        require(len(self.geometry) == count, f"geometry must be one per picture ({count}), got {len(self.geometry)}")
        for i, g in enumerate(self.geometry):
            require(
                g.valid[0] <= height and g.valid[1] <= width,
                f"picture {i}: valid {g.valid} must lie inside the padded {(height, width)}",
            )

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """The (H, W) of each picture without its padding."""
        return tuple(g.valid for g in self.geometry)

    def to(self, device: torch.device | str) -> Images:
        """The same pictures on ``device``."""
        return replace(self, pixels=self.pixels.to(device, non_blocking=True))

    @classmethod
    def pad(
        cls, pictures: Sequence[Tensor], geometry: Sequence[Geometry] | None = None, *, multiple: int = 32
    ) -> Images:
        """Pad pictures [3, H, W] at the bottom and right to one size that ``multiple`` divides.

        Raises:
            ValueError: no pictures, or one that is not [3, H, W].
        """
        require(len(pictures) > 0, "pad needs at least one picture")
        for i, picture in enumerate(pictures):
            check_tensor(f"picture {i}", picture, (3, "H", "W"))
        height, width = (max(-(-int(p.shape[axis]) // multiple) * multiple for p in pictures) for axis in (1, 2))
        pixels = pictures[0].new_zeros((len(pictures), 3, height, width))
        for i, picture in enumerate(pictures):
            pixels[i, :, : picture.shape[1], : picture.shape[2]] = picture
        known = geometry or [Geometry.identity((int(p.shape[1]), int(p.shape[2]))) for p in pictures]
        return cls(pixels=pixels, geometry=tuple(known))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Inputs with what is known about them.

    Attributes:
        inputs: the pictures (clips, volumes and clouds join as they are built).
        scenes: one per input, on its ``valid`` size; ``None`` where nothing is known.
        keys: one per input, as its source names it; they appear in errors and logs.
    """

    inputs: Images
    scenes: tuple[Scene | None, ...]
    keys: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "scenes", tuple(self.scenes))
        object.__setattr__(self, "keys", tuple(self.keys))
        for name in ("scenes", "keys"):
            got = len(getattr(self, name))
            require(got == len(self.inputs), f"{name} must be one per input ({len(self.inputs)}), got {got}")
        for key, scene, size in zip(self.keys, self.scenes, self.inputs.sizes, strict=True):
            lies = scene is None or scene.size == size
            require(lies, f"{key}: the scene must lie on the picture's size {size}, got {scene and scene.size}")

    def __len__(self) -> int:
        return len(self.inputs)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on ``device``."""
        return replace(self, inputs=self.inputs.to(device), scenes=tuple(s and s.to(device) for s in self.scenes))

    def truth(self) -> tuple[Scene, ...]:
        """The scenes, all of them known; the error names the inputs that have none."""
        unknown = [key for key, scene in zip(self.keys, self.scenes, strict=True) if scene is None]
        require(not unknown, f"every input needs a scene to learn from; these have none: {', '.join(unknown[:5])}")
        return tuple(scene for scene in self.scenes if scene is not None)
