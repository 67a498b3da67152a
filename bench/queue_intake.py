"""Messages a second into the durable queue, without any network.

usage: python bench/queue_intake.py [--octets 4096] [--at-once 20] [--seconds 3] [--processes 1]

Each of `--at-once` tasks accepts messages one after the other, as an SMTP session would:
receive, write, commit, wait. Prints messages a second, CPU microseconds a message (the
client side of the loop is part of it), and messages a commit.
"""

import argparse
import asyncio
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from typing import Any

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "src"))

from popgate.files.real import RealDisk
from popgate.queue.queue import Envelope, Recipient, raised
from popgate.queue.store import SqliteQueue
from popgate.values.address import ClientAddress
from popgate.values.mail import MailAddress


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


async def load(queue: SqliteQueue, octets: int, at_once: int, seconds: float) -> int:
    line = b"x" * 62 + b"\r\n"
    body = line * (octets // len(line))
    sender = MailAddress("device", "example.org")
    client = ClientAddress.parse("192.0.2.7")
    until = time.monotonic() + seconds
    accepted = 0

    async def session(number: int) -> None:
        nonlocal accepted
        recipient = Recipient(MailAddress(f"user{number}", "example.net"), is_local=False)
        while time.monotonic() < until:
            message = queue.receive()
            for start in range(0, len(body), 65536):
                waiting = message.write(body[start : start + 65536])
                if waiting is not None:
                    await waiting
            envelope = Envelope(sender, (recipient,), client, "device@example.org", "s1", "host")
            await message.commit(envelope, raised)
            accepted += 1

    await asyncio.gather(*[session(number) for number in range(at_once)])
    return accepted


def measure(directory: str, options: argparse.Namespace, results: Any) -> None:
    queue = SqliteQueue(directory, RealDisk(), SystemClock(), lambda event: None)
    runner: Any = asyncio.run
    if options.loop == "uvloop":
        import uvloop

        runner = uvloop.run
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.monotonic()
    accepted = runner(load(queue, options.octets, options.at_once, options.seconds))
    elapsed = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    results.put((accepted, elapsed, cpu, queue.writer.works / max(1, queue.writer.commits)))
    queue.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--octets", type=int, default=4096)
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--loop", default="uvloop", choices=["uvloop", "asyncio"])
    parser.add_argument("--directory", default=None)
    options = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="popgate-bench-", dir=options.directory)
    try:
        results: Any = multiprocessing.Queue()
        workers = [
            multiprocessing.Process(target=measure, args=(directory, options, results))
            for _ in range(options.processes)
        ]
        for worker in workers:
            worker.start()
        rows = [results.get() for _ in workers]
        for worker in workers:
            worker.join()
        total = sum(row[0] for row in rows)
        print(
            f"{total / max(row[1] for row in rows):8.0f} messages/s"
            f" {sum(row[2] for row in rows) / total * 1e6:6.0f} us CPU a message"
            f" {sum(row[3] for row in rows) / len(rows):6.1f} messages a commit"
        )
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
