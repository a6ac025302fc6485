"""The disk under a directory: its file system, what kind of device that lies on, and the room that is left."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from specsim.here.files import text

#: file systems that are no disk of this machine
ELSEWHERE: Final = {
    "tmpfs": "RAM",
    "ramfs": "RAM",
    "nfs": "network",
    "nfs4": "network",
    "cifs": "network",
    "smb3": "network",
    "9p": "network",
    "fuse.sshfs": "network",
}


@dataclass(frozen=True, slots=True)
class Storage:
    """`kind` is SSD, hard disk, virtual disk, RAM, network, or "" where the system does not say."""

    file_system: str
    kind: str
    capacity_bytes: int
    free_bytes: int


def read_storage(directory: Path, root: Path = Path("/")) -> Storage | None:
    """The disk that holds `directory`; None where that is out of reach, or has been deleted under this process."""
    try:
        place, usage = directory.resolve(), shutil.disk_usage(directory)
    except OSError:
        return None
    file_system, source = _mount(place, root)
    return Storage(file_system, ELSEWHERE.get(file_system) or _kind(source, root), usage.total, usage.free)


def _mount(directory: Path, root: Path) -> tuple[str, str]:
    """File system and source of the innermost mount around a directory, from lines such as
    "36 35 8:1 / /home rw shared:1 - ext4 /dev/sda1 rw"; of those on one place the last is on top."""
    lines = [line.split(" ") for line in text(root / "proc/self/mountinfo").splitlines()]
    mounts = [(_plain(words[4]), *words[words.index("-") + 1 :][:2]) for words in lines]
    around = [mount for mount in mounts if directory.is_relative_to(mount[0])]
    _, file_system, source = max(reversed(around), key=lambda mount: len(mount[0]), default=("", "", ""))
    return file_system, source


def _plain(path: str) -> str:
    """Spaces and the like are written in octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)


def _kind(source: str, root: Path) -> str:
    """Disks of virtual machines call themselves rotating, whatever they lie on."""
    name = (root / source.lstrip("/")).resolve().name  # /dev/mapper has links to the devices
    if name.startswith(("vd", "xvd")):
        return "virtual disk"
    block = (root / "sys/class/block" / name).resolve()
    for folder in (block, block.parent):  # a partition's queue is that of its disk
        if rotates := text(folder / "queue/rotational").strip():
            return "hard disk" if rotates == "1" else "SSD"
    return ""
