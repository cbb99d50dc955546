import numpy as np
import pytest

from diffmf_cli.errors import ImageError, UsageError
from diffmf_cli.images.range import IntensityRange, from_unit, to_unit

AUTO = IntensityRange()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integers_survive_the_round_trip(dtype):
    every = np.arange(np.iinfo(dtype).max + 1).astype(dtype)
    unit = to_unit(every)
    assert unit.dtype == np.float32
    assert unit[0] == 0
    assert unit[-1] == 1
    back = from_unit(unit, dtype)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, every)


def test_float_in_the_unit_interval_stays():
    values = np.linspace(0, 1, 11)
    assert to_unit(values).dtype == np.float32
    np.testing.assert_allclose(to_unit(values), values, atol=1e-7)
    assert from_unit(values.astype(np.float32), np.float32).dtype == np.float32


@pytest.mark.parametrize("values", [[0, 255], [-0.5, 1]])
def test_float_elsewhere_is_refused(values):
    with pytest.raises(ImageError, match=r"so that they lie in \[0, 1\]"):
        to_unit(np.array(values, np.float32))


@pytest.mark.parametrize("dtype", [bool, np.int16, np.int64, np.complex64])
def test_other_types_are_refused(dtype):
    pixels = np.zeros((2, 2), dtype)
    for function in (to_unit, AUTO.apply):
        with pytest.raises(ImageError, match=f"type {np.dtype(dtype)}: give uint8, uint16 or float"):
            function(pixels)
    with pytest.raises(ImageError, match="give uint8"):
        from_unit(np.zeros((2, 2), np.float32), dtype)


def test_from_unit_clamps_and_rounds():
    unit = np.array([-0.2, 0.5 / 255 - 1e-4, 0.5 / 255 + 1e-4, 1.7], np.float32)
    np.testing.assert_array_equal(from_unit(unit, np.uint8), [0, 0, 1, 255])
    assert unit[0] == np.float32(-0.2)  # the argument stays as it was


# IntensityRange.parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("auto", IntensityRange("auto", 0, 100)),
        (" AUTO ", IntensityRange("auto", 0, 100)),
        ("percentile:1,99", IntensityRange("percentile", 1, 99)),
        ("percentile: 0.5 , 99.9", IntensityRange("percentile", 0.5, 99.9)),
        ("set:0,100", IntensityRange("set", 0, 100)),
        ("7000,9500", IntensityRange("fixed", 7000, 9500)),
        ("-20,120.5", IntensityRange("fixed", -20, 120.5)),
    ],
)
def test_parse(text, expected):
    assert IntensityRange.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("atuo", "did you mean 'auto'"),
        ("percentle:1,99", "did you mean 'percentile'"),
        ("sets:1,99", "did you mean 'set'"),
        ("percentile 1,99", "did you mean 'percentile'"),
        ("percentile:1", "use auto, percentile:LOW,HIGH"),
        ("percentile:1,50,99", "use auto"),
        ("fixed:1,99", "use auto"),
        ("auto:1,2", "use auto"),
        ("", "use auto"),
        (":1,2", "use auto"),
        ("1-99", "use auto"),
        ("percentile:99,1", "99 is not below 1"),
        ("5,5", "5 is not below 5"),
        ("nan,1", "nan is not below 1"),
        ("0,inf", "0 is not below inf"),
        ("percentile:-1,99", "between 0 and 100"),
        ("set:1,101", "between 0 and 100"),
    ],
)
def test_parse_refuses(text, says):
    with pytest.raises(UsageError) as caught:
        IntensityRange.parse(text)
    assert says in str(caught.value)
    assert f"'{text}'" in str(caught.value)
    assert "\n" not in str(caught.value)


# IntensityRange.apply


def scene(low=7000, high=9500, shape=(240, 320), seed=0):
    """Raw 14-bit counts: a sky-to-ground gradient with texture in a narrow band."""
    rng = np.random.default_rng(seed)
    rows = np.linspace(low, high, shape[0])[:, None] + rng.normal(0, 20, shape)
    return rows.clip(0, 16383).astype(np.uint16)


def test_auto_leaves_eight_bits_and_unit_floats_alone():
    grey = np.array([[10, 20, 200]], np.uint8)
    np.testing.assert_array_equal(AUTO.apply(grey), to_unit(grey))
    unit = np.array([[0.2, 0.3, 0.4]], np.float32)
    np.testing.assert_array_equal(AUTO.apply(unit), unit)


def test_auto_spreads_raw_counts():
    unit = AUTO.apply(scene())
    assert unit.dtype == np.float32
    assert unit.min() == 0
    assert unit.max() == 1
    low, high = np.percentile(unit, (1, 99))
    assert low < 0.05
    assert high > 0.95


def test_auto_is_the_same_for_counts_and_degrees():
    counts = scene()
    np.testing.assert_allclose(
        AUTO.apply((counts * 0.01 - 70).astype(np.float32)), AUTO.apply(counts), atol=1e-4
    )


def test_auto_leaves_full_range_pictures_alone():
    picture = np.random.default_rng(0).integers(900, 63000, (100, 120)).astype(np.uint16)
    assert AUTO.limits(picture) == (0, 65535)
    np.testing.assert_array_equal(AUTO.apply(picture), to_unit(picture))


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_auto_keeps_a_small_hot_target(kind):
    """A person of 6x3 pixels in 76800, 0.02 %, against ground that is warm itself."""
    counts = scene()
    counts[200:206, 100:103] = 10500
    unit = AUTO.apply(counts.astype(kind))
    assert unit[202, 101] > unit[counts < 10000].max() + 0.2


def test_auto_keeps_a_scene_beside_a_flame():
    counts = scene()
    counts[100:120, 100:120] = 16383
    counts_hotter = counts.copy()
    counts_hotter[100:120, 100:120] = 60000
    for picture in (counts, counts_hotter):
        unit = AUTO.apply(picture)
        assert unit[110, 110] == 1
        low, high = np.percentile(unit, (1, 99))
        assert high - low >= 0.19


def test_auto_ignores_dead_pixels():
    clean = scene()
    broken = clean.copy()
    broken[50, 60], broken[70, 80], broken[0, 0] = 65535, 0, 65535
    low, high = AUTO.limits(clean)
    np.testing.assert_allclose(AUTO.limits(broken), (low, high), atol=0.02 * (high - low))


def test_auto_keeps_one_target_in_an_empty_scene():
    counts = np.full((100, 100), 8000, np.uint16)
    counts[10:14, 10:14] = 8300
    unit = AUTO.apply(counts)
    assert unit[12, 12] == 1
    assert unit[50, 50] == 0


@pytest.mark.parametrize("text", ["auto", "percentile:1,99", "set:1,99"])
@pytest.mark.parametrize("value", [0, 1, 8000])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_constant_pictures(text, value, dtype):
    with np.errstate(all="raise"):
        unit = IntensityRange.parse(text).apply(
            np.full((5, 6), value % 255 if dtype is np.uint8 else value, dtype)
        )
    assert unit.shape == (5, 6)
    assert np.isfinite(unit).all()
    assert np.ptp(unit) == 0
    assert 0 <= unit[0, 0] <= 1


def test_percentile_and_its_fallback():
    ramp = np.arange(1001, dtype=np.uint16)[None]
    unit = IntensityRange.parse("percentile:10,90").apply(ramp)
    assert unit[0, 100] == 0
    assert unit[0, 900] == 1
    assert unit[0, 500] == pytest.approx(0.5)
    empty = np.zeros((100, 100), np.uint16)
    empty[0, :5] = 700
    assert IntensityRange.parse("percentile:1,99").apply(empty)[0, 0] == 1


def test_fixed_saturates():
    celsius = np.array([[-30, -10, 15, 40, 300]], np.float32)
    np.testing.assert_allclose(IntensityRange.parse("-10,40").apply(celsius), [[0, 0, 0.5, 1, 1]])


@pytest.mark.parametrize(
    ("text", "says"),
    [("0,100", ""), ("21,900", ""), ("30,900", "all black"), ("-9,20", "all white"), ("auto", "")],
)
def test_a_range_beside_the_values_is_told(text, says):
    ir = np.linspace(20, 30, 12, dtype=np.float32).reshape(3, 4)
    notice = IntensityRange.parse(text).beside(ir)
    assert says in notice
    assert bool(says) == bool(notice) == (np.ptp(IntensityRange.parse(text).apply(ir)) == 0)


def test_set_is_one_range_for_all_and_percentile_for_one():
    pictures = [scene(seed=1), scene(7400, 9900, seed=2), scene(6600, 9000, (120, 100), seed=3)]
    shared = IntensityRange.parse("set:1,99").over(iter(pictures))
    assert shared.kind == "fixed"
    pooled = np.percentile(np.concatenate([np.resize(p, 76800) for p in pictures]), (1, 99))
    np.testing.assert_allclose((shared.low, shared.high), pooled, atol=25)
    spots = [float(shared.apply(np.full((3, 3), 8000, np.uint16))[0, 0]) for _ in pictures]
    assert len(set(spots)) == 1
    alone, same = IntensityRange.parse("set:1,99"), IntensityRange.parse("percentile:1,99")
    np.testing.assert_array_equal(alone.apply(pictures[0]), same.apply(pictures[0]))


def test_set_extremes_are_exact():
    pictures = [scene(seed=1), np.array([[123, 15000]], np.uint16)]
    assert IntensityRange.parse("set:0,100").over(pictures) == IntensityRange("fixed", 123, 15000)


def test_set_of_nothing():
    with pytest.raises(ImageError, match="no infrared pictures"):
        IntensityRange.parse("set:1,99").over([])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_numbers(value):
    for function in (AUTO.apply, to_unit):
        with pytest.raises(ImageError, match="NaN or infinite"):
            function(np.array([[0.5, value]], np.float32))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (4, 5, 1), (4, 5, 3)])
def test_any_shape(shape):
    counts = (7000 + np.arange(np.prod(shape)) * 10).reshape(shape).astype(np.uint16)
    for kind in (np.uint16, np.float32, np.float64):
        assert AUTO.apply(counts.astype(kind)).shape == shape


# Degrees


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("10C,40C", 10, 40),
        ("-20.5c, 40c", -20.5, 40),
        ("10,40C", 10, 40),
        ("50F,104F", 10, 40),
        ("283.15K,313.15K", 10, 40),
    ],
)
def test_degrees_become_celsius(text, low, high):
    span = IntensityRange.parse(text)
    assert (span.kind, span.degrees) == ("fixed", True)
    assert (span.low, span.high) == pytest.approx((low, high))


@pytest.mark.parametrize(
    "text", ["10C,40F", "40C,10C", "10C", "C,C", "percentile:1C,99C", "10C,40", "10X,40X"]
)
def test_degrees_that_are_not_understood(text):
    with pytest.raises(UsageError, match="intensity range"):
        IntensityRange.parse(text)


def test_degrees_need_temperatures():
    span = IntensityRange.parse("10C,40C")
    span.check_unit("C", "a.jpg")
    IntensityRange.parse("10,40").check_unit("", "a.png")
    with pytest.raises(UsageError, match=r"a\.png holds no temperatures"):
        span.check_unit("", "a.png")
