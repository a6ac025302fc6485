"""What every peer's child is told on its command line."""

from __future__ import annotations

import argparse
from pathlib import Path


def peer_parser(name: str, *, offloaded: bool = True) -> argparse.ArgumentParser:
    """A parser of the options that all peers have, and of those that an offloaded target needs."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.peers.{name}")
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--new-tokens", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    if offloaded:
        parser.add_argument("--folder", type=Path, required=True)
        parser.add_argument("--ram-bytes", type=int, required=True)
        parser.add_argument("--experts", required=True)
    return parser
