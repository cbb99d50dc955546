"""Which part of a batch this machine does, the same on every one without talking to each other."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

from diffmf_cli.errors import UsageError

_FORMS = "use i/N, such as 2/8, or auto, or auto/N"


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 1) of `count` parts."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str, environment: Mapping[str, str] = os.environ) -> "Shard":
        """Reads `i/N`, or `auto` and `auto/N` where the environment of the cluster tells the part.

        `auto` knows Slurm's job arrays (`SLURM_ARRAY_TASK_ID` with `_MIN`, `_COUNT` and `_STEP`), torchrun
        (`RANK` of `WORLD_SIZE`), and the indexed jobs of Kubernetes (`JOB_COMPLETION_INDEX`), which do not
        tell their number: `auto/N`.

        Raises:
            UsageError: The text has none of these forms, or the environment does not tell.
        """
        match = re.fullmatch(r"(\d+|auto)(?:/(\d+))?", text.strip().lower())
        if not match or (match[1] != "auto" and match[2] is None):
            raise UsageError(f"shard '{text}' is not understood: {_FORMS}")
        count = int(match[2]) if match[2] else None
        if match[1] == "auto":
            index, told = _from_cluster(environment)
            if count is None:
                count = told
            if count is None:
                raise UsageError("--shard auto: JOB_COMPLETION_INDEX does not tell of how many, use auto/N")
            index += 1
        else:
            assert count is not None
            index = int(match[1])
        if not 1 <= index <= count:
            raise UsageError(f"shard '{text}' is part {index} of {count}: parts count from 1 to N")
        return cls(index, count)

    def __contains__(self, key: str) -> bool:
        """Whether the pair of this key belongs to this part."""
        digest = blake2b(key.encode(errors="surrogateescape"), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.count == self.index - 1


def _from_cluster(environment: Mapping[str, str]) -> tuple[int, int | None]:
    """Index from 0, and the number of parts where it is known."""
    try:
        if "SLURM_ARRAY_TASK_ID" in environment:
            first = int(environment.get("SLURM_ARRAY_TASK_MIN", "0"))
            step = int(environment.get("SLURM_ARRAY_TASK_STEP", "1"))
            count = environment.get("SLURM_ARRAY_TASK_COUNT")
            return (int(environment["SLURM_ARRAY_TASK_ID"]) - first) // step, int(count) if count else None
        if "JOB_COMPLETION_INDEX" in environment:
            return int(environment["JOB_COMPLETION_INDEX"]), None
        if "RANK" in environment and "WORLD_SIZE" in environment:
            return int(environment["RANK"]), int(environment["WORLD_SIZE"])
    except ValueError as error:
        raise UsageError(f"--shard auto: the cluster's variables are no numbers ({error})") from None
    raise UsageError(
        "--shard auto: none of SLURM_ARRAY_TASK_ID, JOB_COMPLETION_INDEX, or RANK with WORLD_SIZE is set: "
        "give --shard i/N"
    )
