"""Weather, light and camera settings: what makes one scene differ from another."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Conditions:
    """Weather, light and camera settings: what makes one scene differ from another."""

    sky_zenith: tuple[float, float, float] = (0.0028, 0.0065, 0.022)
    sky_horizon: tuple[float, float, float] = (0.020, 0.026, 0.046)
    ambient: float = 1.0  # how strongly the sky lights surfaces
    lamps: float = 1.0
    headlights: float = 1.0
    lit_windows: float = 0.42  # share of the windows that are lit
    window_light: float = 1.0
    wetness: float = 1.0
    haze: float = 0.0010  # extinction of the air per metre
    haze_color: tuple[float, float, float] = (0.024, 0.025, 0.035)
    exposure: float = 3.0
    veil: float = 1.0  # strength of the glare in the lens
    gain: float = 1.0  # amplification of the sensor: dark scenes are noisy
    coldest: float = -7.0  # degrees that the thermal camera shows as 0
    hottest: float = 30.0  # degrees that it shows as 255
    sun_warmth: float = 0.0  # degrees that a day of sun adds to what faces the sky


NIGHT = Conditions()
DAY = replace(
    NIGHT,
    sky_zenith=(0.24, 0.37, 0.62),
    sky_horizon=(0.74, 0.77, 0.80),
    ambient=1.0,
    lamps=0.0,
    headlights=0.02,
    lit_windows=0.08,
    window_light=0.5,
    wetness=0.12,
    haze=0.0012,
    haze_color=(0.70, 0.76, 0.84),
    exposure=1.9,
    veil=0.3,
    gain=0.04,
    sun_warmth=4.0,
    coldest=-4.0,
    hottest=33.0,
)
SCENES: dict[str, Conditions] = {
    "night": NIGHT,
    "black": replace(
        NIGHT, ambient=0.25, lamps=0.0, headlights=0.0, lit_windows=0.0, exposure=0.30, gain=0.6, haze=0.0
    ),
    "glare": replace(NIGHT, headlights=9.0, veil=68.0, haze=0.004),
    "saturated-ir": replace(NIGHT, coldest=-16.0, hottest=7.0),
    "fog": replace(
        DAY, haze=0.085, haze_color=(0.42, 0.44, 0.46), ambient=0.8, exposure=1.0, headlights=0.3, gain=0.1
    ),
    "day": DAY,
}
