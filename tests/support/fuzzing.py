"""What the fuzz targets share: the corpus, a plain mutator for every test run, atheris for long ones."""

import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

CORPUS = Path(__file__).parent.parent / "fuzz" / "corpus"
_TELLING = (b"\r\n", b"\n", b"\r", b".", b" ", b"\0", b"\xff", b"\r\n.\r\n")
Check = Callable[[bytes], None]


def corpus(name: str) -> list[bytes]:
    """The committed inputs of a target, in a fixed order."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def mutants(seeds: list[bytes], rng: random.Random) -> Iterator[bytes]:
    """Inputs near the seeds: octets changed, cut out, doubled, and pieces of two seeds joined."""
    while True:
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 4)):
            start = rng.randint(0, len(data))
            end = min(len(data), start + rng.choice((0, 1, 2, 8, 32)))
            kind = rng.randrange(5)
            if kind == 0:
                data[start:end] = rng.randbytes(rng.randint(0, 4))
            elif kind == 1:
                del data[start:end]
            elif kind == 2:
                data[start:start] = data[start:end] * rng.randint(1, 3)
            elif kind == 3:
                other = rng.choice(seeds)
                data[start:end] = other[rng.randint(0, len(other)) :]
            else:
                data[start:end] = rng.choice(
                    (b"\r\n", b"\n", b"\r", b".", b" ", b"\0", b"\xff", b"\r\n.\r\n")
                )
        yield bytes(data)


def run(check: Check, name: str, seconds: float) -> int:
    """Check the corpus, then mutants of it until the time is over; how many there were."""
    seeds = corpus(name)
    for data in seeds:
        check(data)
    seed = random.randrange(1 << 32)
    count = 0
    deadline = time.monotonic() + seconds
    for data in mutants(seeds, random.Random(seed)):
        try:
            check(data)
        except BaseException as error:
            error.add_note(f"fuzz input: {data!r}")
            raise
        count += 1
        if time.monotonic() > deadline:
            return count
    return count


def main(check: Check) -> None:
    """Hand the check to atheris, with the arguments of this process."""
    import atheris

    atheris.instrument_all()
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
