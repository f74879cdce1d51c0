"""The classes of CamVid with their colors, and the 11 that SegNet made of them. Source: see ``camvid``."""

from __future__ import annotations

from maskwright.data.formats.maps import Color

COLORS: dict[str, Color] = {
    "Animal": (64, 128, 64),
    "Archway": (192, 0, 128),
    "Bicyclist": (0, 128, 192),
    "Bridge": (0, 128, 64),
    "Building": (128, 0, 0),
    "Car": (64, 0, 128),
    "CartLuggagePram": (64, 0, 192),
    "Child": (192, 128, 64),
    "Column_Pole": (192, 192, 128),
    "Fence": (64, 64, 128),
    "LaneMkgsDriv": (128, 0, 192),
    "LaneMkgsNonDriv": (192, 0, 64),
    "Misc_Text": (128, 128, 64),
    "MotorcycleScooter": (192, 0, 192),
    "OtherMoving": (128, 64, 64),
    "ParkingBlock": (64, 192, 128),
    "Pedestrian": (64, 64, 0),
    "Road": (128, 64, 128),
    "RoadShoulder": (128, 128, 192),
    "Sidewalk": (0, 0, 192),
    "SignSymbol": (192, 128, 128),
    "Sky": (128, 128, 128),
    "SUVPickupTruck": (64, 128, 192),
    "TrafficCone": (0, 0, 64),
    "TrafficLight": (0, 64, 64),
    "Train": (192, 64, 128),
    "Tree": (128, 128, 0),
    "Truck_Bus": (192, 128, 192),
    "Tunnel": (64, 0, 64),
    "VegetationMisc": (192, 192, 0),
    "Wall": (64, 192, 0),
    "Pole": (192, 192, 128),
    "Pavement": (60, 40, 222),
}

SEGNET = (
    "Sky",
    "Building",
    "Pole",
    "Road",
    "Pavement",
    "Tree",
    "SignSymbol",
    "Fence",
    "Car",
    "Pedestrian",
    "Bicyclist",
)

THINGS = frozenset(
    (
        "Animal",
        "Bicyclist",
        "Car",
        "CartLuggagePram",
        "Child",
        "MotorcycleScooter",
        "OtherMoving",
        "Pedestrian",
        "SUVPickupTruck",
        "TrafficCone",
        "Train",
        "Truck_Bus",
    )
)
"""Moving objects and persons, as the data set's own hierarchy groups them; maps do not tell them apart."""

VOID = ("void", "unlabelled", "unlabeled", "background")
