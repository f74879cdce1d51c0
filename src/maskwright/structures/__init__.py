"""The nouns of the system: frozen, validated on construction, on any device."""

from maskwright.structures import _pytree as _pytree  # registers the structures
from maskwright.structures.inputs import Batch, Geometry, Images, Resize
from maskwright.structures.masks import Masks
from maskwright.structures.prompts import Prompts
from maskwright.structures.record import LabelMap, MapForm, Record, Region, Sample, Shape
from maskwright.structures.scene import Scene
from maskwright.structures.segments import Segments
from maskwright.structures.taxonomy import Taxonomy

__all__ = [
    "Batch",
    "Geometry",
    "Images",
    "LabelMap",
    "MapForm",
    "Masks",
    "Prompts",
    "Record",
    "Region",
    "Resize",
    "Sample",
    "Scene",
    "Segments",
    "Shape",
    "Taxonomy",
]
