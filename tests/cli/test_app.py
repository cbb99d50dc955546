"""The frame around the commands: help, version, streams, and what start-up may import."""

import subprocess
import sys

import pytest

import diffmf_cli
from diffmf_cli.cli import options
from diffmf_cli.cli.app import app

HEAVY = (
    "torch",
    "numba",
    "cv2",
    "av",
    "numpy",
    "PIL",
    "safetensors",
    "huggingface_hub",
    "onnx",
    "onnxruntime",
)
COMMANDS = [command.name for command in app.registered_commands]


LIGHT = [["--help"], ["--version"], [], *([name, "-h"] for name in COMMANDS), ["download-weights", "--list"]]


def imported_by(*lines):
    """What a fresh process has imported after each of these lines."""
    script = "import sys\n" + "".join(f"{line}\nprint(*sys.modules, file=sys.stderr)\n" for line in lines)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return [{name.partition(".")[0] for name in words.split()} for words in done.stderr.splitlines()]


def test_start_up_imports_nothing_heavy():
    lines = ["from diffmf_cli.cli.app import run", *(f"assert run({args}) in (0, 2)" for args in LIGHT)]
    for line, modules in zip(lines, imported_by(*lines), strict=True):
        assert "diffmf_cli" in modules
        assert not modules & set(HEAVY), line


def test_importing_the_package_imports_nothing_heavy():
    (modules,) = imported_by("import diffmf_cli")
    assert not modules & {*HEAVY, "typer", "rich"}


def test_help_leads_with_examples(cli):
    for name in COMMANDS:
        result = cli(name, "--help")
        text = result.out.decode()
        assert result.code == 0
        assert f"diffmf {name}" in text.partition("Examples")[2]
        assert text.index("Examples") < text.index("Options")


def test_version(process):
    result = process("--version")
    assert (result.code, result.out.decode(), result.err) == (0, f"diffmf {diffmf_cli.__version__}\n", "")


def test_no_command_is_a_usage_error_with_help(cli):
    result = cli()
    assert result.code == 2
    assert b"Examples" in result.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_an_environment_variable(command):
    import typer.main

    group = typer.main.get_command(app)
    for parameter in group.commands[command].params:
        long = next((name for name in parameter.opts if name.startswith("--")), None)
        if (
            parameter.param_type_name == "option"
            and parameter.name != "help"
            and long not in WITHOUT_VARIABLE
        ):
            assert f"DIFFMF_{long[2:].replace('-', '_').upper()}" in (parameter.envvar or ()), long


# What is asked for, or where a run lives: a setting that outlives the command line would only surprise.
WITHOUT_VARIABLE = {"--list", "--check", "--config", "--out", "--data", "--minutes"}


def test_completion_offers_the_words_of_an_option():
    assert options.option("--color", panel="", help="", metavar="auto|gray|ycbcr").autocompletion("g") == [
        "gray"
    ]


def test_broken_pipe_is_no_traceback(shipped):
    """`diffmf info | head -1` and the like."""
    code = f"{sys.executable} -m diffmf_cli info"
    done = subprocess.run(["bash", "-c", f"{code} | true"], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
