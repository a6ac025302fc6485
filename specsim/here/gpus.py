"""The GPUs of this machine as their drivers tell it: NVIDIA's through nvidia-smi, AMD's through Linux's files."""

from __future__ import annotations

import csv
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from specsim.here.files import text
from specsim.units import MiB

_QUERY: Final = "name,driver_version,memory.total,memory.free,pcie.link.gen.max,pcie.link.width.max"
_PATIENCE_S: Final = 30
_AMD: Final = "0x1002"
#: GT/s of a lane -> generation of PCIe
_GENERATION: Final = {"2.5": "1", "5.0": "2", "8.0": "3", "16.0": "4", "32.0": "5", "64.0": "6"}


@dataclass(frozen=True, slots=True)
class Card:
    """`link` as in "PCIe 4 x16", "" where it is unknown."""

    name: str
    driver: str
    vram_bytes: int
    free_bytes: int
    link: str


@dataclass(frozen=True, slots=True)
class Gpus:
    """`complaint` is what a driver's own tool said where it failed."""

    cards: tuple[Card, ...] = ()
    complaint: str = ""


def read_gpus(root: Path = Path("/")) -> Gpus:
    """All cards, those of NVIDIA first."""
    nvidia = _nvidia()
    return Gpus(nvidia.cards + amd_cards(root), nvidia.complaint)


def _nvidia() -> Gpus:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Gpus()
    command = [tool, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Gpus(complaint=f"nvidia-smi does not answer: {error}")
    if done.returncode != 0:
        return Gpus(complaint=" ".join((done.stdout + done.stderr).split()))
    cards = nvidia_cards(done.stdout)
    return Gpus(cards, "" if cards else " ".join(done.stdout.split()))


def nvidia_cards(told: str) -> tuple[Card, ...]:
    """What `nvidia-smi` printed, a line per card; numbers that it does not know are "[N/A]". Other lines, such as its
    warnings, are skipped."""
    cards = []
    for row in csv.reader(told.splitlines(), skipinitialspace=True):
        if len(row) != len(_QUERY.split(",")):
            continue
        name, driver, total, free, generation, lanes = row
        link = f"PCIe {generation} x{lanes}" if generation.isdigit() and lanes.isdigit() else ""
        cards.append(Card(name, f"NVIDIA {driver}", _mebibytes(total), _mebibytes(free), link))
    return tuple(cards)


def amd_cards(root: Path) -> tuple[Card, ...]:
    """Cards that the amdgpu driver has in /sys."""
    devices = sorted((root / "sys/class/drm").glob("card[0-9]*/device"))
    driver = f"amdgpu {text(root / 'sys/module/amdgpu/version')}".strip()
    return tuple(_amd_card(device, driver) for device in devices if _told(device, "vendor") == _AMD)


def _amd_card(device: Path, driver: str) -> Card:
    name = _told(device, "product_name") or f"AMD GPU {_told(device, 'device')}"
    total, used = (int(_told(device, f"mem_info_vram_{which}") or 0) for which in ("total", "used"))
    speed, lanes = _told(device, "max_link_speed").partition(" ")[0], _told(device, "max_link_width")
    link = f"PCIe {_GENERATION[speed]} x{lanes}" if speed in _GENERATION and lanes else ""
    return Card(name, driver, total, total - used, link)


def _told(device: Path, name: str) -> str:
    return text(device / name).strip()


def _mebibytes(number: str) -> int:
    return int(number) * int(MiB) if number.isdigit() else 0
