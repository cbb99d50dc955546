"""The street put together: who and what stands where, and which lamps burn."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from street.buildings import Building, Chimney, House
from street.cars import Car, CarState
from street.casting import Solid
from street.conditions import Conditions
from street.figures import Figure, dog_parts, person_parts
from street.ground import ROAD_LEFT, ROAD_RIGHT, Pavement, Road
from street.mathematics import Array, hashed, normalized, vector
from street.signs import Plate, Rod, sign_pictures
from street.trees import Foliage


@dataclass(frozen=True)
class Light:
    """A lamp: a point that shines into a cone around `aim`."""

    position: Array
    color: Array  # radiant intensity, RGB
    aim: Array
    inner: float  # cosine where the beam is full
    outer: float  # cosine where it ends
    reach: float  # metres beyond which it is ignored
    casts_shadow: bool = True


@dataclass
class Scene:
    """Everything there is."""

    conditions: Conditions
    solids: list[Solid]
    lights: list[Light]
    blockers: list[tuple[Array, Array]]  # ellipsoids (centre, radii) that cast shadows
    people: list[Figure]  # and the dog


HOUSES = [
    House(-1, 6.0, 22.0, 3, (0.20, 0.085, 0.060), 0.22),
    House(-1, 22.0, 30.0, 4, (0.26, 0.15, 0.095), 0.28, shop="CAFE"),
    House(-1, 30.0, 36.0, 3, (0.17, 0.075, 0.055), 0.20),
    House(-1, 37.5, 50.0, 4, (0.30, 0.24, 0.18), 0.30, shop="BOOKS", setback=0.3),
    House(-1, 50.0, 63.0, 3, (0.21, 0.10, 0.07), 0.22),
    House(-1, 63.0, 84.0, 5, (0.25, 0.20, 0.16), 0.25),
    House(-1, 84.0, 120.0, 4, (0.20, 0.11, 0.08), 0.22, setback=-0.6),
    House(1, 6.0, 22.5, 3, (0.23, 0.19, 0.15), 0.26),
    House(1, 22.5, 30.0, 3, (0.19, 0.075, 0.05), 0.20, shop="BAKERY"),
    House(1, 30.0, 42.0, 4, (0.24, 0.13, 0.085), 0.26),
    House(1, 45.0, 58.0, 3, (0.28, 0.21, 0.15), 0.28, setback=0.4),
    House(1, 58.0, 78.0, 5, (0.19, 0.09, 0.065), 0.21),
    House(1, 78.0, 120.0, 4, (0.25, 0.17, 0.12), 0.26, setback=-0.5),
    House(-1, 150.0, 160.0, 5, (0.20, 0.15, 0.12), 0.22, setback=-12.0),  # these two close the street
    House(1, 150.0, 160.0, 4, (0.20, 0.12, 0.09), 0.22, setback=-7.0),
]
CARS = [
    CarState("hatch", -3.55, 21.5, away=False, paint=(0.10, 0.11, 0.13), engine=24, lights=True),
    CarState("saloon", 0.55, 36.0, away=True, paint=(0.22, 0.22, 0.23), engine=17, lights=True),
    CarState("saloon", 3.85, 10.2, away=True, paint=(0.035, 0.055, 0.11), engine=4),
    CarState("hatch", 3.80, 21.2, away=True, paint=(0.20, 0.025, 0.02), engine=12),
    CarState("van", 3.75, 27.6, away=True, paint=(0.45, 0.45, 0.43), engine=0.5),
    CarState("hatch", 3.80, 34.0, away=True, paint=(0.16, 0.17, 0.16), engine=6),
]
LAMPS = [(-1, 20.5), (1, 29.5), (-1, 41.0), (1, 53.0), (-1, 65.0), (1, 78.0), (-1, 92.0)]  # side and z
TREES = [  # x, z, height, leaves
    (-7.25, 11.2, 7.4, 14000),
    (6.5, 31.0, 6.8, 8000),
    (-7.0, 29.5, 7.6, 9000),
    (6.4, 44.0, 7.0, 3000),
    (-7.0, 46.0, 7.5, 3000),
    (6.4, 62.0, 7.5, 1500),
    (-2.0, 140.0, 12.0, 900),
    (6.0, 146.0, 13.0, 900),
]


WALK, DRIVE = 1.3, 6.0  # metres a second


def build_people(seconds: float = 0.0) -> list[Figure]:
    """Who is out at this hour: dark clothes, away from the lamps. Each walks where it looks."""
    black, navy, brown, grey = (0.018, 0.018, 0.020), (0.016, 0.019, 0.03), (0.030, 0.022, 0.016), (0.03,) * 3
    people = [
        Figure(person_parts(black, navy, 0.62, pack=True), (2.5, 0, 7.5), -1.35, 1.02),
        Figure(person_parts(navy, black, 0.55, 0.8), (-1.75, 0, 14.1), 1.45, 1.0),
        Figure(person_parts(brown, black, 0.42, -0.6), (-6.95, 0.13, 14.8), 0.35, 1.03),
        Figure(person_parts(grey, navy, 0.5), (-7.6, 0.13, 15.5), 0.2, 0.93),
        Figure(person_parts(black, brown, 0.35), (6.35, 0.13, 16.6), 2.7, 1.0),
        Figure(dog_parts(), (1.62, 0, 7.9), -1.45, 1.0),
        Figure(person_parts(navy, black, 0.5), (-7.4, 0.13, 33.0), 0.1, 1.0),
        Figure(person_parts(black, black, 0.5), (-6.8, 0.13, 33.6), 0.1, 0.95),
        Figure(person_parts(brown, navy, 0.6), (-3.4, 0, 47.0), 1.5, 1.0),
    ]
    for figure in people:
        figure.move(WALK * seconds)
    return people


def build_cars(seconds: float = 0.0) -> list[CarState]:
    """The cars; those with lights on drive."""
    return [
        replace(car, z=car.z + (DRIVE if car.away else -DRIVE) * seconds) if car.lights else car
        for car in CARS
    ]


def build_lamp(side: int, z: float, conditions: Conditions) -> tuple[list[Solid], Light]:
    """A street lamp: post, arm over the road, head, and its light."""
    foot_x = ROAD_RIGHT + 0.55 if side > 0 else ROAD_LEFT - 0.55
    head_x = foot_x - side * 1.7
    sodium, led = vector(1.0, 0.66, 0.34), vector(0.85, 0.95, 1.0)
    color = sodium if hashed(np.float32(z), np.float32(3)) < 0.75 else led
    glow = color * 30 * conditions.lamps
    solids: list[Solid] = [
        Rod(vector(foot_x, 0, z), vector(foot_x, 6.3, z), 0.075, 0.10, 4.5),
        Rod(vector(foot_x, 6.3, z), vector(head_x, 6.85, z), 0.045, 0.10, 4.0),
        Rod(vector(head_x, 6.85, z), vector(head_x - side * 0.55, 6.88, z), 0.085, 0.12, 13.5, glow),
    ]
    position = vector(head_x - side * 0.25, 6.72, z)
    light = Light(position, color * 34.0 * conditions.lamps, vector(0, -1, 0), 0.85, 0.40, 30.0)
    return solids, light


def build_tree(x: float, z: float, tall: float, leaves: int, rng: np.random.Generator) -> list[Solid]:
    """Trunk, some boughs and a crown."""
    crown = vector(x, tall * 0.72, z)
    radii = vector(tall * 0.30, tall * 0.27, tall * 0.30)
    solids: list[Solid] = [Rod(vector(x, 0, z), vector(x + 0.1, tall * 0.62, z), 0.14, 0.05, 6.8)]
    for _ in range(6):
        end = crown + radii * rng.uniform(-0.75, 0.75, 3).astype(np.float32)
        start = vector(x + 0.05, tall * rng.uniform(0.38, 0.55), z)
        solids.append(Rod(start, end, 0.045, 0.045, 5.0))
    return [*solids, Foliage(crown, radii, leaves, 0.008 * tall + 0.03, rng)]


def build_signs(conditions: Conditions) -> list[Solid]:
    """Traffic signs on their posts and the hotel sign on its wall."""
    pictures = sign_pictures()
    foil = 0.16 * min(1.0, conditions.lamps + conditions.headlights)
    neon = 1.5 * min(1.0, conditions.lit_windows * 3)
    return [
        Rod(vector(5.45, 0, 14.2), vector(5.45, 3.1, 14.2), 0.035, 0.16, 2.5),
        Plate((5.45, 2.72, 14.12), (0.78, 0.78), *pictures["crossing"], foil),
        Rod(vector(-6.15, 0, 14.1), vector(-6.15, 3.0, 14.1), 0.035, 0.16, 4.0),
        Plate((-6.15, 2.65, 14.0), (0.72, 0.72), *pictures["limit"], foil),
        Rod(vector(5.35, 0, 18.8), vector(5.35, 4.4, 18.8), 0.05, 0.16, 4.0),
        Plate((5.0, 3.75, 18.7), (2.4, 0.9), *pictures["direction"], foil),
        Plate((-8.65, 6.9, 24.2), (1.0, 3.9), *pictures["hotel"], neon, 9.0),
    ]


def build_scene(conditions: Conditions, seed: int, seconds: float = 0.0) -> Scene:
    """Puts the street together, that much later; `seed` decides on leaves."""
    rng = np.random.default_rng(seed)
    people = build_people(seconds)
    states = build_cars(seconds)
    cars = [Car(state, conditions) for state in states]
    spots = [(c.x, c.z + (1.4 if c.away else -1.4), 1.1, 0.22 * c.engine) for c in states]
    spots += [(c.x, c.z, 1.4, 1.2) for c in states]
    solids: list[Solid] = [Road(conditions, spots), Pavement(-1, conditions), Pavement(1, conditions)]
    for key, house in enumerate(HOUSES):
        building = Building(house, key + 11, conditions)
        solids.append(building)
        back = house.front + 3.2 * house.side
        solids.append(Chimney(back, building.eaves + 1.6, house.near + 0.3 * house.length))
    lights: list[Light] = []
    for side, z in LAMPS:
        parts, light = build_lamp(side, z, conditions)
        solids += parts
        lights.append(light)
    for x, z, tall, leaves in TREES:
        solids += build_tree(x, z, tall, leaves, rng)
    solids += build_signs(conditions)
    solids += [*cars, *people]
    lights += car_lights(states, conditions) + shop_lights(conditions)
    blockers = [blocker(car, vector(1.05, 1.0, 1.1)) for car in cars]
    blockers += [blocker(figure, vector(0.8, 1.05, 0.8)) for figure in people]
    return Scene(conditions, solids, lights, blockers, people)


def blocker(body: Solid, scale: Array) -> tuple[Array, Array]:
    """The ellipsoid that stands for a body when shadows are cast."""
    low, high = body.bounds
    return (low + high) / 2, (high - low) / 2 * scale


def car_lights(states: list[CarState], conditions: Conditions) -> list[Light]:
    """Beams of the head lights and the red glow of the tail lights."""
    lights = []
    for car in states:
        if not car.lights:
            continue
        sign = 1.0 if car.away else -1.0
        for offset in (-0.68, 0.68):
            aim = normalized(vector(0.02 * sign, -0.035, sign))
            beam = vector(1.0, 0.93, 0.80) * 26 * conditions.headlights
            position = vector(car.x + offset, 0.68, car.z + 2.15 * sign)
            lights.append(Light(position, beam, aim, 0.985, 0.88, 40.0))
        red = vector(1.0, 0.06, 0.03) * 0.8 * min(1.0, 4 * conditions.headlights)
        lights.append(
            Light(vector(car.x, 0.8, car.z - 2.45 * sign), red, vector(0, -0.2, -sign), 0.5, -0.2, 12.0)
        )
    return lights


def shop_lights(conditions: Conditions) -> list[Light]:
    """Light that falls out of shop windows onto the pavement."""
    lights = []
    for house in HOUSES:
        if house.shop and conditions.lit_windows > 0:
            wall = house.front - 0.15 * house.side
            glow = vector(1.0, 0.72, 0.40) * 2.2 * conditions.window_light
            for part in (0.25, 0.75):
                z = house.near + part * house.length
                lights.append(
                    Light(vector(wall, 1.9, z), glow, vector(-house.side, -0.35, 0), 0.6, -0.1, 11.0, False)
                )
    return lights
