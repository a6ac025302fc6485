"""Prompts: a request per line, and one line of complaint that names the line."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from executor.prompts import check_against_plan, read_prompts
from executor.requests import Request
from executor.tokenizer import Tokenizer, load_tokenizer
from specsim.errors import InputError
from specsim.workload import Workload
from tests.executor.prompt_stories import make_tokenizer


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def tokenizer(directory: Path) -> Tokenizer:
    found = load_tokenizer(directory)
    assert found is not None
    return found


def read(folder: Path, content: str | bytes, tokenizer: Tokenizer | None = None, **options: Any) -> list[Request]:
    """The requests of a file with this content, for a model of 8 tokens and 16 positions."""
    file = folder / "prompts.jsonl"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_prompts(file, tokenizer=tokenizer, **{"vocab": 8, "positions": 16, "max_new_tokens": 4} | options)


def complaint(folder: Path, content: str | bytes, tokenizer: Tokenizer | None = None, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(folder, content, tokenizer, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{folder / 'prompts.jsonl'}, ")


def test_text_and_token_ids_become_requests_in_the_order_of_the_file(tmp_path: Path, tokenizer: Tokenizer) -> None:
    content = (
        '{"prompt": "once upon a time"}\n'
        "\n"
        '{"input_ids": [2, 3], "id": "second", "max_new_tokens": 9, "stop": "end"}\n'
        '{"input_ids": [7], "id": 12, "stop": ["the", "end"]}'
    )
    assert read(tmp_path, content, tokenizer, stop=("time",), eos=[0]) == [
        Request(0, "1", (0, 2, 3, 4, 5), 4, ("time",), frozenset({0})),
        Request(1, "second", (2, 3), 9, ("end",), frozenset({0})),
        Request(2, "12", (7,), 4, ("the", "end"), frozenset({0})),
    ]


def test_token_ids_need_no_tokenizer(tmp_path: Path) -> None:
    assert read(tmp_path, '{"input_ids": [2, 3]}\n') == [Request(0, "1", (2, 3), 4)]


def test_only_the_first_prompts_are_read_if_no_more_are_wanted(tmp_path: Path) -> None:
    content = '{"input_ids": [2]}\n\n{"input_ids": [3]}\nnot JSON\n'
    assert [request.prompt for request in read(tmp_path, content, limit=2)] == [(2,), (3,)]


def test_a_byte_order_mark_and_windows_line_ends_are_no_obstacle(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf{"input_ids": [2]}\r\n\r\n{"input_ids": [3]}\r\n'
    assert [request.id for request in read(tmp_path, content)] == ["1", "3"]


def test_a_request_may_fill_the_context_to_its_last_position(tmp_path: Path) -> None:
    assert read(tmp_path, '{"input_ids": [2, 3], "max_new_tokens": 14}')[0].max_new_tokens == 14


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("once upon", "is not JSON: Expecting value at character 1; write one JSON object a line, such as "),
        ('{"prompt": "once"', "is not JSON: Expecting ',' delimiter at character 18; "),
        ("[2, 3]", "is not a JSON object; write one JSON object a line, such as "),
        pytest.param("[" * 100_000, "is not JSON that can be read: ", id="lists in lists"),
        pytest.param('{"id": ' + "1" * 5000 + "}", "is not JSON that can be read: ", id="a huge number"),
        ('{"promt": "once"}', "unknown key 'promt'; did you mean prompt?"),
        ('{"input_ids": [2], "input_ids": [3]}', "is not JSON that can be read: it has 'input_ids' twice"),
        ('{"id": "x"}', "has neither prompt nor input_ids; give one of them"),
        ('{"prompt": "once", "input_ids": [2]}', "has both prompt and input_ids; give one of them"),
        ('{"prompt": ""}', "the prompt is empty; give at least one token"),
        ('{"input_ids": []}', "the prompt is empty; give at least one token"),
        ('{"prompt": 5}', "prompt is 5; give a string, or token ids as input_ids"),
        ('{"prompt": null}', "prompt is null; give a string, or token ids as input_ids"),
        (r'{"prompt": "a\ud800"}', r"prompt has half a surrogate pair, '\ud800', at character 2; "),
        (r'{"input_ids": [2], "id": "\udc00"}', r"id has half a surrogate pair, '\udc00', at character 1; "),
        ('{"input_ids": "2 3"}', 'input_ids is "2 3"; give a list of token ids'),
        ('{"input_ids": [2, true]}', "input_ids[1] is true; token ids are whole numbers"),
        ('{"input_ids": [2.0]}', "input_ids[0] is 2.0; token ids are whole numbers"),
        ('{"input_ids": [2, 8]}', "token 1 is 8, the model has 8 tokens; give 0 to 7"),
        ('{"input_ids": [-1]}', "token 0 is -1, the model has 8 tokens; give 0 to 7"),
        ('{"input_ids": [2], "id": 1.5}', "id is 1.5; give a string or a whole number"),
        ('{"input_ids": [2], "id": true}', "id is True; give a string or a whole number"),
        ('{"input_ids": [2], "max_new_tokens": 0}', "max_new_tokens is 0; give a whole number from 1 on"),
        ('{"input_ids": [2], "max_new_tokens": true}', "max_new_tokens is true; give a whole number from 1 on"),
        ('{"input_ids": [2], "max_new_tokens": NaN}', "max_new_tokens is NaN; give a whole number from 1 on"),
        ('{"input_ids": [2], "stop": 3}', "stop is 3; give a string that is not empty, or a list of such"),
        ('{"input_ids": [2], "stop": ["end", ""]}', 'stop is ["end", ""]; give a string that is not empty, '),
        (
            '{"input_ids": [2, 3, 4], "max_new_tokens": 14}',
            "3 prompt tokens and 14 new ones make 17, the model's context is 16; set max_new_tokens to 13 or less",
        ),
        (
            '{"input_ids": [2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]}',
            "16 prompt tokens and 4 new ones make 20, the model's context is 16; shorten the prompt",
        ),
        ('{"input_ids": [2], "id": 1}', "id '1' is that of line 1 too; give every request an id of its own"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, tokenizer: Tokenizer, line: str, message: str) -> None:
    found = complaint(tmp_path, f'{{"input_ids": [2]}}\n\n{line}\n', tokenizer)
    assert found.startswith(f"line 3: {message}"), found


def test_a_file_in_another_encoding_is_named_with_the_byte(tmp_path: Path) -> None:
    message = complaint(tmp_path, '{"prompt": "é"}'.encode("latin-1"))
    assert message == "line 1: is not UTF-8: byte 13 is 0xe9; save the file as UTF-8"


def test_without_a_tokenizer_there_is_no_text(tmp_path: Path) -> None:
    text = complaint(tmp_path, '{"prompt": "once"}')
    assert text == "line 1: prompt is text, and the model has no tokenizer; give token ids as input_ids"
    stop = complaint(tmp_path, '{"input_ids": [2], "stop": "end"}')
    assert stop == 'line 1: stop is "end", and the model has no tokenizer; leave it out'
    everywhere = complaint(tmp_path, '{"input_ids": [2]}', stop=("end",))
    assert everywhere == "cannot look for the stop string 'end': the model has no tokenizer; leave it out"


def test_a_tokenizer_of_another_model_is_found_out(tmp_path: Path, tokenizer: Tokenizer) -> None:
    message = complaint(tmp_path, '{"prompt": "the end"}', tokenizer, vocab=7)
    assert message == "line 1: token 2 is 7, the model has 7 tokens; the model's tokenizer is that of another one"


@pytest.mark.parametrize("content", ["", "\n  \n"])
def test_a_file_without_prompts_is_an_error(tmp_path: Path, content: str) -> None:
    assert complaint(tmp_path, content).endswith(
        'prompts.jsonl: has no prompts; write a line for each, such as {"prompt": "Once upon a time"}'
    )


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl: cannot be read: No such file or directory; give a file"):
        read_prompts(tmp_path / "none.jsonl", tokenizer=None, vocab=8, positions=16, max_new_tokens=4)


WORK = Workload("work", "work", 3, 3, 3, 4, 2)


def test_requests_as_long_as_those_of_the_plan_pass() -> None:
    check_against_plan([Request(0, "a", (1, 2, 3), 4), Request(1, "b", (1,), 1)], WORK)


@pytest.mark.parametrize(
    ("prompt", "new", "message"),
    [
        (5, 4, "the prompt has 5 tokens, the plan allows for 3; plan again with --prompt-tokens 5 --output-tokens 4"),
        (3, 6, "max_new_tokens is 6, the plan allows for 4; plan again with --prompt-tokens 3 --output-tokens 6"),
    ],
)
def test_a_request_longer_than_the_plan_s_is_named_with_what_to_plan_for(prompt: int, new: int, message: str) -> None:
    with pytest.raises(InputError) as caught:
        check_against_plan([Request(0, "a", (1, 2, 3), 4), Request(1, "b", (1,) * prompt, new)], WORK)
    assert str(caught.value) == f"request 'b': {message}"


def test_the_advice_covers_all_requests_not_only_the_first() -> None:
    with pytest.raises(InputError, match=r"request 'a': .* --prompt-tokens 9 --output-tokens 8"):
        check_against_plan([Request(0, "a", (1,) * 5, 4), Request(1, "b", (1,) * 9, 8)], WORK)


def test_a_tokenizer_is_loaded_from_its_directory_alone(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    found = load_tokenizer(directory)
    assert found is not None
    assert found.encode("once upon a house") == [0, 2, 3, 4, 1]
    assert found.decode([0, 2, 3]) == "once upon"


def test_a_directory_without_tokenizer_files_has_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert load_tokenizer(tmp_path) is None


@pytest.mark.parametrize("content", ["{", '{"model": {"type": "Nonsense"}}'])
def test_a_broken_tokenizer_is_one_line(tmp_path: Path, directory: Path, content: str) -> None:
    make_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(InputError) as caught:
        load_tokenizer(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}: the tokenizer cannot be loaded: ")
    assert message.endswith("; repair its files, or remove them and give prompts as input_ids")
    assert "\n" not in message


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config |= {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_class": "Evil"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    mark = tmp_path / "mark"
    (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Evil: pass\n")
    with pytest.raises(InputError, match="the tokenizer cannot be loaded"):
        load_tokenizer(tmp_path)
    assert not mark.exists()
