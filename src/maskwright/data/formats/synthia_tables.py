"""The class tables of the SYNTHIA data sets: (name, value of a pixel, color). Source: the README of each of them."""

from __future__ import annotations

from typing import NamedTuple

from maskwright.data.formats.maps import Color


class Row(NamedTuple):
    """A class: its value in maps of ids and its color in maps of colors."""

    name: str
    ident: int
    color: Color


# SYNTHIA-RAND (CVPR 2016) and the video sequences; there 15 is the traffic light.
RAND = (
    Row("Sky", 1, (128, 128, 128)),
    Row("Building", 2, (128, 0, 0)),
    Row("Road", 3, (128, 64, 128)),
    Row("Sidewalk", 4, (0, 0, 192)),
    Row("Fence", 5, (64, 64, 128)),
    Row("Vegetation", 6, (128, 128, 0)),
    Row("Pole", 7, (192, 192, 128)),
    Row("Car", 8, (64, 0, 128)),
    Row("Sign", 9, (192, 128, 128)),
    Row("Pedestrian", 10, (64, 64, 0)),
    Row("Cyclist", 11, (0, 128, 192)),
    Row("Lanemarking", 12, (0, 175, 0)),
    Row("TrafficLight", 13, (0, 128, 128)),
)

SEQUENCES = tuple(row._replace(ident=15) if row.name == "TrafficLight" else row for row in RAND)

# SYNTHIA-RAND-CITYSCAPES.
CITYSCAPES = (
    Row("Sky", 1, (70, 130, 180)),
    Row("Building", 2, (70, 70, 70)),
    Row("Road", 3, (128, 64, 128)),
    Row("Sidewalk", 4, (244, 35, 232)),
    Row("Fence", 5, (64, 64, 128)),
    Row("Vegetation", 6, (107, 142, 35)),
    Row("Pole", 7, (153, 153, 153)),
    Row("Car", 8, (0, 0, 142)),
    Row("TrafficSign", 9, (220, 220, 0)),
    Row("Pedestrian", 10, (220, 20, 60)),
    Row("Bicycle", 11, (119, 11, 32)),
    Row("Motorcycle", 12, (0, 0, 230)),
    Row("ParkingSlot", 13, (250, 170, 160)),
    Row("RoadWork", 14, (128, 64, 64)),
    Row("TrafficLight", 15, (250, 170, 30)),
    Row("Terrain", 16, (152, 251, 152)),
    Row("Rider", 17, (255, 0, 0)),
    Row("Truck", 18, (0, 0, 70)),
    Row("Bus", 19, (0, 60, 100)),
    Row("Train", 20, (0, 80, 100)),
    Row("Wall", 21, (102, 102, 156)),
    Row("Lanemarking", 22, (102, 102, 156)),
)

# SYNTHIA-SF; its README gives trains and trucks one color.
SF = (
    Row("Road", 1, (128, 64, 128)),
    Row("Sidewalk", 2, (244, 35, 232)),
    Row("Building", 3, (70, 70, 70)),
    Row("Wall", 4, (102, 102, 156)),
    Row("Fence", 5, (190, 153, 153)),
    Row("Pole", 6, (153, 153, 153)),
    Row("TrafficLight", 7, (250, 170, 30)),
    Row("TrafficSign", 8, (220, 220, 0)),
    Row("Vegetation", 9, (107, 142, 35)),
    Row("Terrain", 10, (152, 251, 152)),
    Row("Sky", 11, (70, 130, 180)),
    Row("Person", 12, (220, 20, 60)),
    Row("Rider", 13, (255, 0, 0)),
    Row("Car", 14, (0, 0, 142)),
    Row("Truck", 15, (0, 80, 100)),
    Row("Bus", 16, (0, 60, 100)),
    Row("Train", 17, (0, 80, 100)),
    Row("Motorcycle", 18, (0, 0, 230)),
    Row("Bicycle", 19, (119, 11, 31)),
    Row("RoadLines", 20, (157, 234, 50)),
    Row("Other", 21, (72, 0, 98)),
    Row("RoadWorks", 22, (167, 106, 29)),
)

AL = tuple(
    {
        "Sign": row._replace(name="TrafficSign"),
        "Cyclist": row._replace(name="Bicycle"),
        "Lanemarking": row._replace(color=(0, 172, 0)),
    }.get(row.name, row)
    for row in RAND
)

THINGS = frozenset(
    ("Car", "Pedestrian", "Person", "Cyclist", "Rider", "Bicycle", "Motorcycle", "Truck", "Bus", "Train")
)
"""Classes whose objects the maps of ids tell apart."""

VOID = ("void", "background", "unlabeled")
"""Names, in lower case, of the class that is none, in tables that come with the data."""
