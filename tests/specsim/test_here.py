"""This machine as /proc, /sys, drivers and packages tell it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from specsim.here import software
from specsim.here.files import meminfo
from specsim.here.gpus import Card, amd_cards, nvidia_cards, read_gpus
from specsim.here.limits import read_limits
from specsim.here.software import Torch, ask_torch, versions
from specsim.here.storage import Storage, read_storage
from specsim.here.system import busy_seconds, instruction_sets, read_system

GIB = 2**30


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 2 sockets, 8 cores of which this process may use 0 to 5, and 16 GiB."""
    cores = "".join(f"model name\t: Some CPU\nphysical id\t: {core // 4}\n\n" for core in range(8))
    put(tmp_path, "proc/cpuinfo", cores)
    put(tmp_path, "proc/meminfo", f"MemTotal: {16 * GIB // 1024} kB\nMemAvailable: {12 * GIB // 1024} kB\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    return tmp_path


def put(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_limits_it_is_what_is_installed_and_allowed(root: Path) -> None:
    system = read_system(root)
    assert (system.cpu, system.cores, system.sockets) == ("Some CPU", 6, 2)
    assert (system.ram_bytes, system.available_bytes) == (16 * GIB, 12 * GIB)


def test_the_numbers_of_meminfo_are_bytes_or_counts(root: Path) -> None:
    put(root, "proc/meminfo", "MemTotal:       2 kB\nActive(anon):   5 kB\nHugePages_Total:     8\n")
    assert meminfo(root) == {"MemTotal": 2048, "Active(anon)": 5120, "HugePages_Total": 8}
    assert meminfo(root / "nowhere") == {}


def test_the_tightest_cgroup_around_the_process_counts(root: Path) -> None:
    put(root, "proc/self/cgroup", "0::/slice/job\n")
    put(root, "sys/fs/cgroup/slice/memory.max", f"{4 * GIB}\n")
    put(root, "sys/fs/cgroup/slice/job/memory.max", "max\n")
    put(root, "sys/fs/cgroup/slice/job/cpu.max", "250000 100000\n")
    system = read_system(root)
    assert (system.cores, system.ram_bytes, system.available_bytes) == (3, 4 * GIB, 4 * GIB)


def test_version_1_has_other_names_and_in_a_container_only_the_top(root: Path) -> None:
    put(root, "proc/self/cgroup", "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n")
    put(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", f"{2 * GIB}\n")
    put(root, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    put(root, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    system = read_system(root)
    assert (system.cores, system.ram_bytes) == (6, 2 * GIB)


def test_a_core_is_busy_with_whatever_is_not_idling_or_waiting(root: Path) -> None:
    tick = os.sysconf("SC_CLK_TCK")
    line = f"{tick} {tick} {tick} 99999 99999 {tick} {tick} {tick} 77 77"
    put(root, "proc/stat", f"cpu  1 1 1 1\ncpu0 {line}\ncpu5 {line}\ncpu6 {line}\n")
    assert busy_seconds(root) == 12.0
    assert busy_seconds(root / "nowhere") is None


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("flags\t\t: fpu sse2 avx2 avx512f amx_bf16", ("AVX2", "AVX-512", "AMX BF16")),
        ("Features\t: fp asimd sve bf16", ("NEON", "SVE", "BF16")),
        ("vendor_id: some", ()),
    ],
)
def test_instruction_sets_are_those_that_products_are_made_of(root: Path, line: str, names: tuple[str, ...]) -> None:
    put(root, "proc/cpuinfo", f"{line}\n\n")
    assert instruction_sets(root) == names


def test_the_lines_of_nvidia_smi_are_cards() -> None:
    told = "NVIDIA GeForce RTX 4090, 550.54.14, 24564, 23010, 4, 16\nNVIDIA GH200, 560.1, 97871, [N/A], [N/A], [N/A]\n"
    assert nvidia_cards(told) == (
        Card("NVIDIA GeForce RTX 4090", "NVIDIA 550.54.14", 24564 * 2**20, 23010 * 2**20, "PCIe 4 x16"),
        Card("NVIDIA GH200", "NVIDIA 560.1", 97871 * 2**20, 0, ""),
    )


def test_what_else_nvidia_smi_prints_is_no_card(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = "Some card, 550.1, 8192, 8000, 4, 8"
    told = f"WARNING: infoROM is corrupted at gpu 0000:17:00.0\n\n{card}\n1, 2, 3, 4, 5, 6, 7\n"
    assert nvidia_cards(told) == (Card("Some card", "NVIDIA 550.1", 8 * GIB, 8000 * 2**20, "PCIe 4 x8"),)
    tool(root, monkeypatch, "print('No devices\\n were found')")
    found = read_gpus(root)
    assert (found.cards, found.complaint) == ((), "No devices were found")


def tool(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A program called nvidia-smi, alone on the path."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!{sys.executable}\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_what_a_driver_complains_of_is_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(root, monkeypatch, "import sys; print('Failed to initialize NVML:\\n  Version mismatch'); sys.exit(18)")
    found = read_gpus(root)
    assert (found.cards, found.complaint) == ((), "Failed to initialize NVML: Version mismatch")
    tool(root, monkeypatch, "print('Some card, 550.1, 8192, 8000, 4, 8')")
    assert read_gpus(root).cards == (Card("Some card", "NVIDIA 550.1", 8 * GIB, 8000 * 2**20, "PCIe 4 x8"),)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert read_gpus(root).cards == ()


def test_cards_of_amd_are_in_the_files_of_their_driver(root: Path) -> None:
    card = {
        "vendor": "0x1002",
        "product_name": "AMD Instinct MI300X",
        "mem_info_vram_total": f"{192 * GIB}",
        "mem_info_vram_used": f"{2 * GIB}",
        "max_link_speed": "32.0 GT/s PCIe",
        "max_link_width": "16",
    }
    for name, text in card.items():
        put(root, f"sys/class/drm/card1/device/{name}", f"{text}\n")
    put(root, "sys/class/drm/card0/device/vendor", "0x8086\n")
    put(root, "sys/class/drm/card2/device/vendor", "0x1002\n")
    put(root, "sys/class/drm/card2/device/device", "0x744c\n")
    put(root, "sys/module/amdgpu/version", "6.10\n")
    assert amd_cards(root) == (
        Card("AMD Instinct MI300X", "amdgpu 6.10", 192 * GIB, 190 * GIB, "PCIe 5 x16"),
        Card("AMD GPU 0x744c", "amdgpu 6.10", 0, 0, ""),
    )


@pytest.mark.parametrize(
    ("mounts", "file_system", "kind"),
    [
        (["1 0 8:1 / / rw - ext4 /dev/sda1 rw"], "ext4", "hard disk"),
        (["1 0 8:1 / / rw - ext4 /dev/sda1 rw", "2 1 0:40 / HERE rw shared:1 - btrfs /dev/nvme0n1 rw"], "btrfs", "SSD"),
        (["1 0 0:9 / / rw - overlay overlay rw"], "overlay", ""),
        (["1 0 0:9 / / rw - xfs /dev/vda rw"], "xfs", "virtual disk"),
        (["1 0 8:1 / / rw - ext4 /dev/sda1 rw", "2 1 0:5 / /no/where rw - tmpfs none rw"], "ext4", "hard disk"),
        (["1 0 8:1 / HERE rw - ext4 /dev/sda1 rw", "2 1 0:5 / HERE rw - tmpfs none rw"], "tmpfs", "RAM"),
        ([], "", ""),
    ],
)
def test_the_innermost_mount_says_what_a_directory_lies_on(
    root: Path, mounts: list[str], file_system: str, kind: str
) -> None:
    here = root / "a folder"
    here.mkdir()
    place = str(here.resolve()).replace(" ", "\\040")
    put(root, "proc/self/mountinfo", "".join(line.replace("HERE", place) + "\n" for line in mounts))
    put(root, "sys/devices/sda/queue/rotational", "1\n")
    put(root, "sys/devices/nvme0n1/queue/rotational", "0\n")
    put(root, "sys/devices/sda/sda1/size", "1\n")
    blocks = root / "sys/class/block"
    blocks.mkdir(parents=True)
    for name, device in (("sda1", "sda/sda1"), ("nvme0n1", "nvme0n1")):
        (blocks / name).symlink_to(root / "sys/devices" / device)
    usage = shutil.disk_usage(here)
    assert read_storage(here, root) == Storage(file_system, kind, usage.total, pytest.approx(usage.free, rel=0.1))


def test_a_directory_that_is_gone_lies_on_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert read_storage(Path()) is None
    assert read_storage(gone) is None


def test_huge_pages_are_given_unasked_or_kept(root: Path) -> None:
    assert (read_limits(root).transparent, read_limits(root).reserved_bytes) == ("", 0)
    put(root, "sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n")
    put(root, "proc/meminfo", "HugePages_Total:       8\nHugePages_Free: 8\nHugepagesize:       2048 kB\n")
    assert (read_limits(root).transparent, read_limits(root).reserved_bytes) == ("madvise", 16 * 2**20)


def test_a_package_that_is_missing_has_no_version() -> None:
    found = versions(("pytest", "no-such-package"))
    assert found == {"pytest": pytest.__version__, "no-such-package": None}


def test_a_torch_that_does_not_load_is_told_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "_PROBE", "raise ImportError('libcudart.so.12: cannot open shared object file')")
    assert ask_torch() == Torch(complaint="ImportError: libcudart.so.12: cannot open shared object file")
    monkeypatch.setattr(software, "_PROBE", "import os; os._exit(9)")
    assert ask_torch() == Torch(complaint="exit status 9")
    told = '{"built_for": "", "cards": ["A"], "instructions": "AVX2"}'
    monkeypatch.setattr(software, "_PROBE", f"print('noise'); print('{told}')")
    assert ask_torch() == Torch("", ("A",), "AVX2")
