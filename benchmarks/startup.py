"""How long the package and its command take to start: `python benchmarks/startup.py [--rounds N]`.

It prints the median wall-clock time, in seconds, of new processes that import grokcore, print each help, and list the
recorded runs. Measure on idle cores; a first round that is not counted fills the disk's cache.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

COMMANDS = ("train", "report", "plan", "runs", "audit", "bench")


def processes() -> dict[str, list[str]]:
    """Return the arguments that Python is started with, by what is timed."""
    command = ["-m", "grokcore.cli.main"]
    timed = {"import grokcore": ["-c", "import grokcore"], "grokcore --help": [*command, "--help"]}
    timed |= {f"grokcore {name} --help": [*command, name, "--help"] for name in COMMANDS}
    return timed | {"grokcore runs list": [*command, "runs", "list"]}


def seconds(arguments: list[str]) -> float:
    """Return how long a new Python process with these arguments takes."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def main() -> None:
    """Print the median time of each command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(f"medians of {rounds} rounds, {os.cpu_count()} cores, Python {sys.version.split()[0]}")
    for name, arguments in processes().items():
        seconds(arguments)
        print(f"{name:<24} {statistics.median(seconds(arguments) for _ in range(rounds)):6.2f} s", flush=True)


if __name__ == "__main__":
    main()
