"""The visible camera: lamps, shadows, wet road, haze, lens and sensor."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from street.casting import Camera, GBuffer
from street.conditions import Conditions
from street.ground import Pavement, Road
from street.mathematics import Array, chunks, column, dot, fractal, length, normalized, smoothstep
from street.scene import Light, Scene


def sky_light(directions: Array, conditions: Conditions) -> Array:
    """Sky colour `(3, ...)` for ray directions: dusk glow at the horizon, dark above, thin cloud."""
    up = directions[1] / length(directions)
    height = np.clip(up, 0, 1) ** 0.55
    shape = (3,) + (1,) * (directions.ndim - 1)
    zenith, horizon = (
        np.reshape(np.float32(c), shape) for c in (conditions.sky_zenith, conditions.sky_horizon)
    )
    cloud = fractal(directions[0] / (np.abs(up) + 0.15), 1 / (np.abs(up) + 0.15), 1.1, 5)
    color = horizon + (zenith - horizon) * height
    color = color * (1 + 0.45 * cloud)
    clear = np.exp(-conditions.haze * 60 / (np.clip(up, 0, 1) + 0.05))  # haze is a layer 60 m high
    return (color * clear + np.reshape(np.float32(conditions.haze_color), shape) * (1 - clear)).astype(
        np.float32
    )


def shadow(points: Array, light: Light, blockers: list[tuple[Array, Array]]) -> Array:
    """Share of the light that reaches `points` `(3, N)` past the blockers, with soft edges."""
    open_share = np.ones(points.shape[1], np.float32)
    for centre, radii in blockers:
        if not 0.0 < float(np.linalg.norm(centre - light.position)) - float(radii.max()) < 14:
            continue
        start = ((light.position - centre) / radii)[:, None]
        target = (points - centre[:, None]) / radii[:, None]
        path = target - start
        h = np.clip(-dot(path, start) / np.maximum(dot(path, path), 1e-6), 0, 0.97)
        nearest = start + path * h
        open_share *= smoothstep(0.72, 1.12, length(nearest))
    return open_share


def ambient_shade(points: Array, normal: Array, blockers: list[tuple[Array, Array]]) -> Array:
    """Darkening of the ground under and beside cars and people."""
    shade = np.ones(points.shape[1], np.float32)
    flat = np.flatnonzero((normal[1] > 0.9) & (points[1] < 0.3))
    for centre, radii in blockers:
        offset = (points[::2, flat] - centre[::2, None]) / (radii[::2, None] * 1.15 + 0.12)
        shade[flat] *= 1 - 0.85 * np.exp(-((offset**2).sum(0) ** 2) * 0.9)
    return shade


def shade(buffer: GBuffer, scene: Scene) -> Array:
    """Light that reaches the camera from every pixel: linear RGB `(3, H, W)`, unbounded."""
    camera, conditions = buffer.camera, scene.conditions
    directions = camera.rays((slice(0, camera.height), slice(0, camera.width))).reshape(3, -1)
    depth = buffer.depth.reshape(-1)
    picture = np.empty_like(directions)
    for part in chunks(depth.size):
        air_end = np.minimum(depth[part], 160.0)
        picture[:, part] = glow_in_air(camera, directions[:, part], air_end, scene)
    sky = np.flatnonzero(~np.isfinite(depth))
    for part in chunks(sky.size):
        picture[:, sky[part]] += sky_light(directions[:, sky[part]], conditions)
    solid = np.flatnonzero(np.isfinite(depth))
    for part in chunks(solid.size):
        pixels = solid[part]
        clear = np.exp(-conditions.haze * depth[pixels])
        light = light_from_surfaces(buffer, pixels, directions[:, pixels], scene)
        picture[:, pixels] += light * clear + column(conditions.haze_color) * (1 - clear)
    return picture.reshape(3, camera.height, camera.width)


def light_from_surfaces(
    buffer: GBuffer, pixels: NDArray[np.integer], directions: Array, scene: Scene
) -> Array:
    """Light `(3, N)` that the surfaces in the given pixels send to the camera: sky, lamps and their own."""
    camera, conditions = buffer.camera, scene.conditions
    normal, albedo, emission = (
        a.reshape(3, -1)[:, pixels] for a in (buffer.normal, buffer.albedo, buffer.emission)
    )
    depth, specular, roughness, wetness = (
        a.reshape(-1)[pixels] for a in (buffer.depth, buffer.specular, buffer.roughness, buffer.wetness)
    )
    points = camera.eye[:, None] + depth * directions
    view = -normalized(directions)
    roughness = np.maximum(roughness, 0.06)

    skylight = np.float32(conditions.sky_zenith) * 0.6 + np.float32(conditions.sky_horizon) * 0.55
    hemisphere = (0.55 + 0.45 * normal[1]) * ambient_shade(points, normal, scene.blockers)
    light = albedo * column(skylight) * (conditions.ambient * hemisphere)
    mirror_up = normalized(2 * dot(normal, view) * normal - view)
    fresnel = specular + (1 - specular) * (1 - np.clip(dot(normal, view), 0, 1)) ** 5
    sheen = fresnel * np.clip(1 - 1.4 * roughness, 0, 1) * (wetness == 0)
    street = np.where(mirror_up[1] > 0.25, 1.0, 0.35)
    light += column(np.float32(conditions.sky_horizon)) * sheen * street * conditions.ambient

    for lamp in scene.lights:
        if float(lamp.color.max()) <= 0:
            continue
        offset = lamp.position[:, None] - points
        square = dot(offset, offset)
        index = np.flatnonzero(square < lamp.reach**2)
        offset, square = offset[:, index], square[index] + 0.02
        away = np.sqrt(square)
        to_lamp = offset / away
        facing = dot(normal[:, index], to_lamp)
        beam = smoothstep(lamp.outer, lamp.inner, -dot(normalized(lamp.aim), to_lamp))
        keep = (facing > 0) & (beam > 0)
        index, square, to_lamp = index[keep], square[keep], to_lamp[:, keep]
        facing, beam, away = facing[keep], beam[keep], away[keep]
        strength = beam / square * np.clip(1 - away / lamp.reach, 0, 1) ** 0.5
        if lamp.casts_shadow:
            strength *= shadow(points[:, index], lamp, scene.blockers)
        half = normalized(to_lamp + view[:, index])
        n = normal[:, index]
        rough2 = roughness[index] ** 4
        n_half = np.clip(dot(n, half), 0, 1)
        lobe = rough2 / (np.pi * (n_half**2 * (rough2 - 1) + 1) ** 2)
        grazing = (1 - np.clip(dot(half, view[:, index]), 0, 1)) ** 5
        gloss = (specular[index] + (1 - specular[index]) * grazing) * np.minimum(lobe, 60) * 0.25
        gloss /= np.maximum(dot(n, view[:, index]), 0.08)
        diffuse = albedo[:, index] * (facing / np.pi)
        light[:, index] += lamp.color[:, None] * strength * (diffuse + gloss * facing)

    return light + emission


def glow_in_air(camera: Camera, directions: Array, depth: Array, scene: Scene) -> Array:
    """Light that the air scatters towards the camera on the way: halos and cones of lamps.

    For a point light the integral of 1/r^2 along the ray is a difference of arc tangents.
    """
    stretch = length(directions)
    unit = directions / stretch
    end = depth * stretch
    glow = np.zeros_like(directions)
    for lamp in scene.lights:
        if float(lamp.color.max()) <= 0 or not lamp.casts_shadow:
            continue
        offset = camera.eye - lamp.position
        along = dot(offset, unit)
        miss = np.sqrt(np.maximum(float(offset @ offset) - along**2, 0.03))
        amount = (np.arctan((end + along) / miss) - np.arctan(along / miss)) / miss
        closest = np.clip(-along, 0, end)
        point = offset[:, None] + closest * unit
        spread = length(point) + 1e-3
        beam = dot(normalized(lamp.aim), point) / spread
        amount *= 0.35 + 0.65 * smoothstep(lamp.outer - 0.15, 0.5 * (lamp.outer + lamp.inner), beam)
        density = 0.0003 + 0.08 * scene.conditions.haze
        glow += (density * lamp.color)[:, None] * amount
    return glow


def add_reflection(picture: Array, buffer: GBuffer, scene: Scene) -> Array:
    """Adds what the wet road mirrors, seen by a camera below the road, smeared by its roughness."""
    camera = buffer.camera
    below = replace(camera, width=camera.width // 2, height=camera.height // 2, mirrored=True)
    mirrored = GBuffer(below)
    for thing in scene.solids:
        if not isinstance(thing, Road | Pavement):
            mirrored.draw(thing)
    image = np.minimum(shade(mirrored, scene), 12.0).transpose(1, 2, 0)
    unit = camera.width / 1280
    sharp = cv2.GaussianBlur(image, (0, 0), 0.8 * unit, sigmaY=3.5 * unit)
    smeared = cv2.GaussianBlur(image, (0, 0), 2.4 * unit, sigmaY=24.0 * unit)
    size = (camera.width, camera.height)
    sharp, smeared = (
        cv2.resize(i, size, interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1) for i in (sharp, smeared)
    )
    directions = camera.rays((slice(0, camera.height), slice(0, camera.width)))
    steep = np.clip(-directions[1] / length(directions), 0, 1)
    fresnel = 0.02 + 0.98 * (1 - steep) ** 5
    puddle = smoothstep(0.45, 0.85, buffer.wetness)
    return picture + fresnel * buffer.wetness * (0.75 * puddle * sharp + (1 - 0.6 * puddle) * 0.75 * smeared)


def lens(picture: Array, conditions: Conditions) -> Array:
    """Blur, bloom and star streaks of a camera lens; `(H, W, 3)` linear."""
    height, width = picture.shape[:2]
    unit = width / 640
    picture = cv2.GaussianBlur(picture, (0, 0), 0.5 * unit)
    bright = np.minimum(np.maximum(picture - 0.8, 0), 160.0)
    small = cv2.resize(bright, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    halo = np.zeros_like(small)
    for sigma, weight in ((1.5, 0.10), (4, 0.055), (11, 0.045), (28, 0.050), (60, 0.040)):
        halo += weight * cv2.GaussianBlur(small, (0, 0), sigma * unit, borderType=cv2.BORDER_CONSTANT)
    reach = max(3, int(64 * unit))
    star = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    for angle in np.deg2rad([8, 68, 128]):
        step = np.arange(-reach, reach + 1, dtype=np.float32)
        xs, ys = reach + step * np.cos(angle), reach + step * np.sin(angle)
        for x, y, s in zip(xs, ys, step, strict=True):
            star[round(float(y)), round(float(x))] += np.exp(-abs(s) / (0.22 * reach))
    star = cv2.GaussianBlur(star, (0, 0), 0.7)
    halo += 0.05 * cv2.filter2D(small, -1, star / star.sum(), borderType=cv2.BORDER_CONSTANT)
    halo = cv2.resize(halo, (width, height), interpolation=cv2.INTER_LINEAR)
    return picture * (1 - 0.05) + conditions.veil * halo


def visible_camera(
    buffer: GBuffer, scene: Scene, size: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """What an ordinary colour camera gives: `(H, W, 3)` RGB."""
    conditions = scene.conditions
    light = shade(buffer, scene)
    if conditions.wetness > 0:
        light = add_reflection(light, buffer, scene)
    # values far over white are capped before averaging, or edges of lamps would stay jagged
    picture = cv2.resize(np.minimum(light, 250).transpose(1, 2, 0), size, interpolation=cv2.INTER_AREA)
    picture = lens(picture, conditions) * conditions.exposure
    shape = picture.shape
    grain = rng.normal(size=shape).astype(np.float32)
    blotches = cv2.GaussianBlur(rng.normal(size=shape).astype(np.float32), (0, 0), 1.3) * 2.2
    spread = np.sqrt(conditions.gain) * np.sqrt(0.00055 * np.maximum(picture, 0) + 0.0000065)
    picture = np.maximum(picture + spread * (0.75 * grain + 0.45 * blotches), 0)
    toned = 1 - np.exp(-picture * (1 + 0.35 * picture))
    coded = np.where(toned < 0.0031308, 12.92 * toned, 1.055 * np.maximum(toned, 1e-6) ** (1 / 2.4) - 0.055)
    return np.clip(np.round(coded * 255), 0, 255).astype(np.uint8)
