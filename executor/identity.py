"""What a run's tokens depend on, so that it is only continued as it began.

Of weights the names, sizes and headers count, and some blocks spread over each file: enough to tell a checkpoint from
another, and quick with any size of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import torch

from executor.checkpoint.checkpoint import Checkpoint
from executor.decoder.remembered import bits
from executor.journal import Asked
from executor.options import RunOptions
from executor.requests import Request
from specsim import __version__
from specsim.answer import Plan
from specsim.planfile import to_dict
from specsim.units import show

#: of options, those that a run may be continued with another value of: where things lie is no matter, but what they are
FREE: Final = frozenset({"target", "draft", "prompts", "out", "resume", "throttle", "anyway"})
#: beside the weights
_TEXTS: Final = (".json", ".txt", ".model", ".jinja")
_BLOCKS, _BLOCK_BYTES = 16, 4096


def asked(
    plan: Plan, options: RunOptions, target: Checkpoint, draft: Checkpoint | None, requests: Sequence[Request]
) -> Asked:
    """What a run is asked for: `options` are what it goes on with if nothing else is given, with paths that hold from
    anywhere; `identity` has to agree."""
    made: dict[str, Any] = msgspec.to_builtins(options, enc_hook=lambda path: str(path.absolute()))
    identity = {
        "plan": to_dict(plan),
        "target": dict(_files(target)),
        "draft": None if draft is None else dict(_files(draft)),
        "prompts": f"{len(requests)} requests ({_digest_requests(requests)})",
        **{name: value for name, value in made.items() if name not in FREE},
        "threads": torch.get_num_threads(),
        "specsim": __version__,
        "torch": str(torch.__version__),
        "arithmetic": _digest([bits()]),
    }
    return msgspec.json.decode(msgspec.json.encode(Asked(made, identity)), type=Asked)  # as it will be read


def differences(old: Any, new: Any, name: str = "") -> Iterator[str]:
    """What of two identities, or values in them, is not the same: "seed was 1 and is 2"."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from differences(old.get(key), new.get(key), f"{name} {key}".strip())
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for place, (before, now) in enumerate(zip(old, new, strict=True)):
            yield from differences(before, now, f"{name}[{place}]")
    elif old != new:
        yield f"{name} was {_short(old)} and is {_short(new)}"


def _files(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    """The files of a checkpoint, each with what tells it from another."""
    shards = {span.file for span in checkpoint.tensors.values()}
    texts = {file for file in checkpoint.directory.iterdir() if file.suffix in _TEXTS and file.is_file()}
    for file in sorted(shards | texts):
        size = file.stat().st_size
        digest = _digest(_sample(file, size) if file in shards else [file.read_bytes()])
        yield file.name, f"{show(size, 'bytes')} ({digest})"


def _sample(file: Path, size: int) -> Iterator[bytes]:
    """The header of a safetensors file, its size, and blocks from the first to the last."""
    with file.open("rb") as stream:
        length = stream.read(8)
        yield size.to_bytes(8, "little") + length + stream.read(int.from_bytes(length, "little"))
        for block in range(_BLOCKS):
            stream.seek(max(0, size - _BLOCK_BYTES) * block // (_BLOCKS - 1))
            yield stream.read(_BLOCK_BYTES)


def _digest_requests(requests: Sequence[Request]) -> str:
    def one(r: Request) -> bytes:
        return msgspec.json.encode((r.index, r.id, r.prompt, r.max_new_tokens, r.stop, sorted(r.eos)))

    return _digest(map(one, requests))


def _digest(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()[:16]


def _short(value: Any) -> str:
    text = msgspec.json.encode(value).decode() if not isinstance(value, str) else value
    return text if len(text) <= 60 else f"{text[:57]}..."
