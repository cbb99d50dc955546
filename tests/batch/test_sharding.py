import pytest

from diffmf_cli.batch.sharding import Shard
from diffmf_cli.errors import UsageError

KEYS = [f"day/{i:05}" for i in range(2000)]


def test_every_key_is_in_exactly_one_part():
    parts = [[key for key in KEYS if key in Shard(index, 7)] for index in range(1, 8)]
    assert sorted(key for part in parts for key in part) == KEYS
    assert max(map(len, parts)) < 1.25 * len(KEYS) / 7


def test_the_part_of_a_key_never_changes():
    # Machines of one cluster may run different versions for a while.
    assert [key for key in KEYS[:12] if key in Shard(2, 3)] == FIXED


FIXED = ["day/00002", "day/00010", "day/00011"]


def test_keys_that_are_no_text():
    assert sum("a\udcff" in Shard(index, 3) for index in (1, 2, 3)) == 1


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("2/8", {}, (2, 8)),
        (
            "auto",
            {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "8"},
            (5, 8),
        ),
        (
            "auto",
            {
                "SLURM_ARRAY_TASK_ID": "9",
                "SLURM_ARRAY_TASK_MIN": "1",
                "SLURM_ARRAY_TASK_STEP": "4",
                "SLURM_ARRAY_TASK_COUNT": "3",
            },
            (3, 3),
        ),
        ("auto", {"RANK": "0", "WORLD_SIZE": "4"}, (1, 4)),
        ("auto/6", {"JOB_COMPLETION_INDEX": "5"}, (6, 6)),
        ("1/1", {"RANK": "3", "WORLD_SIZE": "4"}, (1, 1)),
    ],
)
def test_forms(text, environment, expected):
    shard = Shard.parse(text, environment)
    assert (shard.index, shard.count) == expected


@pytest.mark.parametrize(
    ("text", "environment", "says"),
    [
        ("0/8", {}, "count from 1"),
        ("9/8", {}, "part 9 of 8"),
        ("3", {}, "not understood"),
        ("a/b", {}, "not understood"),
        ("1/0", {}, "count from 1"),
        ("auto", {}, "SLURM_ARRAY_TASK_ID"),
        ("auto", {"JOB_COMPLETION_INDEX": "5"}, "auto/N"),
        ("auto", {"RANK": "x", "WORLD_SIZE": "4"}, "no numbers"),
        ("auto/2", {"JOB_COMPLETION_INDEX": "5"}, "part 6 of 2"),
    ],
)
def test_what_is_refused(text, environment, says):
    with pytest.raises(UsageError, match=says):
        Shard.parse(text, environment)
