"""A file of prompts, for a model of 1000 tokens; its tokenizer has a token for each byte."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any, Final

from executor.prompts import KEYS, parse_prompts
from executor.tokenizer import Tokenizer

SEEDS: Final = (
    b'{"prompt": "Once upon a time"}\n{"input_ids": [1, 2, 3], "id": "a", "max_new_tokens": 4}\n',
    b'\xef\xbb\xbf{"prompt": "x", "stop": ["\\n", "end"]}\r\n\r\n{"input_ids": [5], "stop": "x", "id": 7}',
    (Path(__file__).parents[2] / "executor" / "demo" / "prompts.jsonl").read_bytes()[:2000],
)
WORDS: Final = KEYS


class _Bytes:
    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": list(text.encode("utf-8"))}


_TOKENIZER: Final = Tokenizer(_Bytes())


def read(content: bytes) -> None:
    requests = parse_prompts(
        BytesIO(content), "prompts.jsonl", tokenizer=_TOKENIZER, vocab=1000, positions=4096, max_new_tokens=8
    )
    assert len({request.id for request in requests}) == len(requests)
    assert all(0 <= token < 1000 for request in requests for token in request.prompt)
