"""Code in a process of its own in which torch cannot be imported."""

import subprocess
import sys

from grokcore.records.store import repository

BLOCK = """
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ImportError("torch is not to be loaded")
sys.meta_path.insert(0, NoTorch())
"""


def run(code: str) -> str:
    """Return what code printed."""
    command = [sys.executable, "-c", BLOCK + code]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=repository(), check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
