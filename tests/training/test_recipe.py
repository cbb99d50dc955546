"""Recipes: defaults, and every mistake with its file and key."""

from pathlib import Path

import pytest

from diffmf_cli.errors import UsageError
from diffmf_cli.training.recipe import Data, Loss, Model, Optimization, Recipe, read_recipe

REPOSITORY = Path(__file__).parents[2]
LEAST = '[data]\nsources = ["a"]\n'


@pytest.fixture
def read(tmp_path):
    def call(text):
        (tmp_path / "r.toml").write_text(text)
        return read_recipe(tmp_path / "r.toml")

    return call


def test_defaults(read):
    assert read(LEAST) == Recipe(data=Data(sources=["a"]))


def test_values(read):
    recipe = read(
        'name = "mine"\ntask = "x"\n[model]\nsize = "lite"\nchange = { width = 48, expand = 2 }\n'
        '[data]\nsources = ["a", "b"]\ncrop = 96\n[loss]\nssim = 3\n[optimization]\nsteps = 7\nseed = 3\n'
    )
    assert (recipe.name, recipe.task) == ("mine", "x")
    assert recipe.model == Model("lite", {"width": 48, "expand": 2})
    assert recipe.data == Data(sources=["a", "b"], crop=96)
    assert recipe.loss == Loss(ssim=3)
    assert recipe.optimization == Optimization(steps=7, seed=3)


def test_folders_lie_below_the_root(read):
    recipe = read(LEAST).located(Path("/data"))
    assert recipe.folders == [Path("/data/a")]
    assert "root" not in recipe.to_dict()
    assert recipe.to_dict() == read(LEAST).to_dict()


@pytest.mark.parametrize("name", ["base", "lite"])
def test_shipped_recipes(name):
    recipe = read_recipe(REPOSITORY / "weights" / f"{name}.toml")
    assert (recipe.name, recipe.model.size) == (name, name)
    assert not any("test" in source for source in recipe.data.sources)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nmae = 'x'", "unknown key 'nmae'; known: name"),
        ("name = 3", "name = 3"),
        ("name = ''", "name = ''"),
        ("name = '../x'", "name = '../x'"),
        ("data = 3", "[data]: expected a table"),
        ("[data]\ncorp = 96", "[data]: unknown key 'corp'; known: sources"),
        ("[data]\ncrop = 96.0", "[data]: crop = 96.0 is not of type int"),
        ("[data]\ncrop = '96'", "[data]: crop = '96' is not of type int"),
        ("[data]\nbatch = true", "[data]: batch = True is not of type int"),
        ("[data]\nbatch = 0", "[data]: batch = 0 "),
        ("[data]\nsources = 'a'", "[data]: sources = 'a' is not of type list"),
        ("[data]\nsources = [1]", "[data]: sources = [1]"),
        ("[data]\nsources = []", "[data]: sources = []"),
        (LEAST + "crop = 40", "[data]: crop = 40 is not a multiple of 16"),
        (LEAST + "crop = 32", "[data]: crop = 32"),
        (LEAST + "hold_out = 1", "[data]: hold_out = 1"),
        (LEAST + "hold_out = -2", "[data]: hold_out = -2"),
        (LEAST + "constants = 1.5", "[data]: constants = 1.5 is not a number from 0 to 1"),
        ("[loss]\nssim = '5'", "[loss]: ssim = '5' is not of type float"),
        ("[loss]\nvif = nan", "[loss]: vif = nan"),
        ("[optimization]\nlearning_rate = inf", "[optimization]: learning_rate = inf"),
        ("[optimization]\nlearning_rate = -1.0", "[optimization]: learning_rate = -1.0"),
        ("[optimization]\nsteps = 0", "[optimization]: steps = 0"),
        ("[optimization]\nvalidate_every = 0", "[optimization]: validate_every = 0"),
        (LEAST + "[model]\nsize = 'bsae'", "[model]: size = 'bsae' is unknown; known: lite, base"),
        (LEAST + "[model]\nchange = { depth = 3 }", "[model.change]: unknown key 'depth'; known: width"),
        (LEAST + "[model]\nchange = { width = 1.5 }", "[model.change]: width = 1.5 is not of type int"),
        (LEAST + "[model]\nchange = { width = 0 }", "[model.change]: width = 0"),
        ("[model", "not a TOML file"),
    ],
)
def test_mistakes_name_file_and_key(read, tmp_path, text, says):
    with pytest.raises(UsageError) as error:
        read(text)
    message = str(error.value)
    assert message.startswith(str(tmp_path / "r.toml"))
    assert says in message
    assert "\n" not in message


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "no.toml", tmp_path):
        with pytest.raises(UsageError, match=f"{path}: cannot read the recipe"):
            read_recipe(path)


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "r.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not a TOML file"):
        read_recipe(tmp_path / "r.toml")
