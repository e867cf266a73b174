import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import BaseModel

from sam3i_edge.data.language_model.answers import BadAnswer
from sam3i_edge.data.language_model.cache import AnswerCache, Kept
from sam3i_edge.data.language_model.model import LanguageModel, ModelSettings, Unanswered
from sam3i_edge.data.language_model.rewriting import Rewriter
from sam3i_edge.errors import DataError

RIGHT = '{"numbers": [1, 2]}'


class Numbers(BaseModel):
    numbers: list[int]


def _question(words="Requests:\n1. which numbers?\n\n"):
    return [{"role": "user", "content": words}]


def _in_turn(*replies):
    """A brain that gives one reply after the other, the last one for ever."""
    left, lock = list(replies), threading.Lock()

    def brain(_):
        with lock:
            return left.pop(0) if len(left) > 1 else left[0]

    return brain


def test_asks_once_and_never_again(chat, open_model):
    with chat.ChatServer(_in_turn(RIGHT)) as server:
        model = open_model(server)
        assert model.ask(_question(), Numbers).numbers == [1, 2]
        assert open_model(server).ask(_question(), Numbers).numbers == [1, 2]
        assert len(server.asked) == 1
        model.ask(_question(), Numbers, 1)  # another vote is another question
        model.ask(_question("Requests:\n1. other words\n\n"), Numbers)
        assert len(server.asked) == 3
    assert model.paid() == (3, 3 * 120)


def test_the_key_comes_from_the_environment_and_goes_nowhere_else(chat, open_model, monkeypatch, tmp_path):
    with chat.ChatServer(_in_turn(RIGHT)) as server:
        open_model(server).ask(_question(), Numbers)
        monkeypatch.setenv("SAM3I_LLM_API_KEY", "very-secret")
        monkeypatch.setenv("OPENAI_API_KEY", "of another house")
        model = open_model(server)
        model.ask(_question(), Numbers, 1)
    assert [asked.authorization for asked in server.asked] == ["Bearer none", "Bearer very-secret"]
    assert "very-secret" not in repr(model.settings)
    assert b"very-secret" not in (tmp_path / "cache.sqlite").read_bytes()


def test_options_change_the_request(chat, open_model):
    with chat.ChatServer(_in_turn(RIGHT)) as server:
        options = {"max_tokens": None, "max_completion_tokens": 7, "seed": None}
        open_model(server, options=options).ask(_question(), Numbers)
    (asked,) = server.asked
    assert asked.body["max_completion_tokens"] == 7
    assert not {"max_tokens", "seed"} & set(asked.body)
    assert asked.body["response_format"]["json_schema"]["schema"]["required"] == ["numbers"]


def test_an_answer_that_cannot_be_read_is_asked_for_again_and_counted(chat, open_model):
    replies = ("no idea", '{"numbers": [1, 2', f"Gladly: ```{RIGHT}```")
    with chat.ChatServer(_in_turn(*replies)) as server:
        model = open_model(server)
        assert model.ask(_question(), Numbers).numbers == [1, 2]
        again = open_model(server)
        assert again.ask(_question(), Numbers).numbers == [1, 2]
        assert len(server.asked) == 3  # nor is a bad answer paid for twice
    assert len({asked.body["seed"] for asked in server.asked}) == 3
    assert sum(model.bad_answers.values()) == sum(again.bad_answers.values()) == 2


def test_after_three_answers_that_cannot_be_read_it_gives_up(chat, open_model):
    with chat.ChatServer(_in_turn('{"numbers": "all"}')) as server, pytest.raises(BadAnswer, match="numbers"):
        open_model(server).ask(_question(), Numbers)
    assert len(server.asked) == 3


def test_a_body_that_is_no_completion_is_an_answer_that_cannot_be_read(chat, open_model):
    replies = [chat.Reply(body=body) for body in (b'{"choices": [', b"<html>busy</html>")]
    with chat.ChatServer(_in_turn(*replies, RIGHT)) as server:
        model = open_model(server)
        assert model.ask(_question(), Numbers).numbers == [1, 2]
    assert sum(model.bad_answers.values()) == 2


def test_what_a_server_does_not_count_is_estimated(chat, open_model):
    lies = (None, {"prompt_tokens": -5, "completion_tokens": 1}, {"prompt_tokens": 3, "completion_tokens": 4})
    with chat.ChatServer(_in_turn(*(chat.Reply(RIGHT, usage=usage) for usage in lies))) as server:
        model = open_model(server)
        costs = [0]
        for number in range(3):
            model.ask(_question("a" * 300), Numbers, number)
            costs.append(model.paid()[1])
    assert [after - before for before, after in pairwise(costs)] == [107, 107, 7]


def test_a_busy_server_is_asked_again_when_it_says(chat, open_model):
    busy = chat.Reply(status=429, headers={"Retry-After": "1.3"}, body=b'{"error": {"message": "busy"}}')
    with chat.ChatServer(_in_turn(busy, chat.Reply(status=503, body=b"{}"), RIGHT)) as server:
        start = time.monotonic()
        assert open_model(server, retries=2).ask(_question(), Numbers).numbers == [1, 2]
    assert time.monotonic() - start > 1.3
    assert len(server.asked) == 3


def test_a_slow_server_and_half_an_answer_are_asked_again(chat, open_model):
    replies = (chat.Reply(RIGHT, wait=4.5), chat.Reply(RIGHT, cut=True), RIGHT)
    with chat.ChatServer(_in_turn(*replies)) as server:
        model = open_model(server, retries=2, timeout=1.5)
        assert model.ask(_question(), Numbers).numbers == [1, 2]
        assert model.stopped is None
        assert len(server.asked) == 3
    assert model.paid()[0] == 1


def test_three_failures_in_a_row_stop_the_run_and_say_why(chat, open_model):
    with chat.ChatServer(
        _in_turn(chat.Reply(status=500, body=b'{"error": {"message": "out of memory"}}'))
    ) as server:
        model = open_model(server, retries=0)
        for number in range(3):
            assert model.stopped is None
            with pytest.raises(Unanswered, match="out of memory"):
                model.ask(_question(), Numbers, number)
        with pytest.raises(Unanswered):
            model.ask(_question(), Numbers, 9)
        assert len(server.asked) == 3
    assert "3 failures in a row" in model.stopped
    assert server.url in model.stopped


def test_one_request_that_fails_only_waits(chat, open_model):
    error = chat.Reply(status=400, body=b'{"error": {"message": "the prompt is too long"}}')
    with chat.ChatServer(_in_turn(error, RIGHT, error, error, RIGHT)) as server:
        model = open_model(server, retries=0)
        found = []
        for number in range(5):
            try:
                found.append(model.ask(_question(), Numbers, number).numbers)
            except Unanswered:
                found.append(None)
    assert found == [None, [1, 2], None, None, [1, 2]]
    assert model.stopped is None


@pytest.mark.parametrize(("status", "words"), [(401, "wrong key"), (404, "/v1")])
def test_a_wrong_key_or_address_stops_at_once(chat, open_model, status, words):
    reply = chat.Reply(status=status, body=b'{"error": {"message": "wrong key"}}')
    with chat.ChatServer(_in_turn(reply)) as server:
        model = open_model(server, retries=3)
        with pytest.raises(Unanswered):
            model.ask(_question(), Numbers)
        assert len(server.asked) == 1
    assert words in model.stopped


def test_the_budget_ends_the_run_before_it_is_passed_and_kept_answers_are_given_still(chat, open_model):
    with chat.ChatServer(_in_turn(RIGHT)) as server:
        model = open_model(server, budget=300, answer_tokens=50)
        asked = [number for number in range(5) if _asked(model, number)]
        assert asked == [0, 1]  # 240 are paid, and the next may take 150
        assert "budget of 300 tokens" in model.stopped
        more = open_model(server, budget=420, answer_tokens=50)
        assert [number for number in range(5) if _asked(more, number)] == [0, 1, 2]
        assert len(server.asked) == 3
    assert more.paid() == (3, 360)


def _asked(model, number):
    try:
        return model.ask(_question("a" * 300), Numbers, number)  # taken for 100 tokens, counted as 120 in all
    except Unanswered:
        return None


def test_requests_under_way_count_for_the_budget(chat, open_model):
    with chat.ChatServer(_in_turn(chat.Reply(RIGHT, wait=0.2))) as server:
        model = open_model(server, budget=1000, answer_tokens=150, concurrency=8)
        found = list(model.map(lambda number: _asked(model, number), range(20)))
    assert model.paid()[1] <= 1000
    assert sum(one is not None for one in found) == len(server.asked) == 7


def test_as_many_requests_at_a_time_as_asked_for(chat, open_model):
    at_a_time, most, lock, together = [0], [0], threading.Lock(), threading.Barrier(3)

    def brain(_):
        with lock:
            at_a_time[0] += 1
            most[0] = max(most[0], at_a_time[0])
        together.wait(60)
        with lock:
            at_a_time[0] -= 1
        return RIGHT

    with chat.ChatServer(brain) as server:
        model = open_model(server, concurrency=3)
        threads = [threading.Thread(target=_asked, args=(model, number)) for number in range(9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most[0] == 3


def test_map_keeps_the_order_and_gives_early_results_early(chat, open_model):
    taken = []

    def items():
        for number in range(50):
            taken.append(number)
            yield number

    with chat.ChatServer(_in_turn(RIGHT)) as server:
        results = open_model(server).map(lambda number: number * 2, items())
        assert next(results) == 0
        assert len(taken) < 10
        assert list(results) == list(range(2, 100, 2))


def test_an_endpoint_that_is_down_leaves_everything_waiting_and_costs_nothing(
    open_model, chat, honest, scenes, vocabulary, instructions
):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    down = type("Down", (), {"url": f"http://127.0.0.1:{port}/v1"})
    model = open_model(down, retries=0)
    rewriter = Rewriter(model, vocabulary)
    done = list(model.map(lambda scene: rewriter.rewrite(scene, instructions), scenes))
    assert "failures in a row" in model.stopped
    assert [one.waiting for one in done] == [3 + 3] * len(scenes)
    assert not any(one.instructions or one.dropped for one in done)
    with chat.ChatServer(honest) as server:  # it is up again
        model = open_model(server)
        rewriter = Rewriter(model, vocabulary)
        done = list(model.map(lambda scene: rewriter.rewrite(scene, instructions), scenes))
    assert all(one.waiting == 0 and len(one.instructions) == 9 for one in done)


CHILD = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("made", sys.argv[3])
made = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made)
from sam3i_edge.data.language_model.model import LanguageModel, ModelSettings
from sam3i_edge.data.language_model.rewriting import Rewriter
settings = ModelSettings(url=sys.argv[1], model="tiny", concurrency=2, retries=0)
instructions = made.make_instructions()
with LanguageModel(settings, sys.argv[2]) as model:
    rewriter = Rewriter(model, made.load_vocabulary("tabletop"))
    scenes = map(made.make_scene, range(0, 40, 5))
    for done in model.map(lambda scene: rewriter.rewrite(scene, instructions), scenes):
        print(len(done.instructions), done.waiting, flush=True)
"""


def test_a_run_that_is_killed_goes_on_and_pays_nothing_twice(chat, honest, tmp_path):
    hold, held = threading.Event(), threading.Event()

    def brain(asked):
        if len(server.finished) >= 17 and not hold.is_set():
            held.set()
            hold.wait(200)
        return honest(asked)

    conftest = Path(__file__).with_name("conftest.py")
    with chat.ChatServer(brain) as server:
        command = [sys.executable, "-c", CHILD, server.url, str(tmp_path / "cache.sqlite"), str(conftest)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert held.wait(200)
            time.sleep(0.5)  # what was answered before is written; what is asked now waits
            process.send_signal(signal.SIGKILL)
        before = len(server.finished)
        hold.set()
        time.sleep(0.2)
        server.finished = server.finished[:before]  # the answers to the dead went nowhere
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["9 0"] * 8
    answered = Counter(json.dumps(body, sort_keys=True) for body in server.finished)
    assert before >= 17
    assert max(answered.values()) == 1  # nor do two threads ask the same at the same time


def test_processes_share_a_cache(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from sam3i_edge.data.language_model.cache import AnswerCache, Kept\n"
        "cache = AnswerCache(Path(sys.argv[1]))\n"
        "for number in range(50): cache.put(f'{sys.argv[2]}-{number}', 0, Kept('text', 2, 0.5))"
    )
    path = tmp_path / "cache.sqlite"
    started = [subprocess.Popen([sys.executable, "-c", code, str(path), str(name)]) for name in range(3)]
    assert [process.wait(120) for process in started] == [0, 0, 0]
    cache = AnswerCache(path)
    assert cache.paid() == (150, 300)
    assert cache.get("2-49", 0) == Kept("text", 2, 0.5)
    cache.close()


def test_a_damaged_or_full_cache_is_one_line(tmp_path):
    (tmp_path / "damaged").write_bytes(b"no database at all, but long enough to be looked at" * 40)
    with pytest.raises(DataError, match="move it away"):
        AnswerCache(tmp_path / "damaged")
    with pytest.raises(OSError, match="cannot be used"):
        AnswerCache(tmp_path / "no folder" / "cache")
    cache = AnswerCache(tmp_path / "full")
    cache.put("a", 0, Kept("kept", 5, 0.5))
    cache._file.execute("PRAGMA max_page_count = 1")  # SQLite's own way to a full disk
    with pytest.raises(OSError, match="full"):
        cache.put("b", 0, Kept("x" * 100_000, 5, 0.5))
    assert cache.get("a", 0) == Kept("kept", 5, 0.5)
    assert (cache.get("b", 0), cache.paid()) == (None, (1, 5))
    cache.close()


def test_a_cache_that_cannot_be_written_stops_the_run(chat, open_model):
    with chat.ChatServer(_in_turn("x" * 100_000)) as server:
        model = open_model(server)
        model._cache._file.execute("PRAGMA max_page_count = 1")
        with pytest.raises(OSError, match="full"):
            model.ask(_question(), Numbers)
        with pytest.raises(Unanswered):
            model.ask(_question(), Numbers, 1)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"url": "localhost:8000"}, "http://"),
        ({"model": " "}, "must be named"),
        ({"concurrency": 0}, "concurrency must be at least 1"),
        ({"budget": 0}, "budget must be at least 1"),
        ({"timeout": 0.0}, "timeout must be above 0"),
        ({"retries": -1}, "retries must be at least 0"),
    ],
)
def test_wrong_settings_are_told(wrong, match):
    with pytest.raises(ValueError, match=match):
        ModelSettings(**{"url": "http://localhost/v1", "model": "m"} | wrong)


def test_without_the_package_the_extra_is_named(tmp_path):
    code = (
        "import sys; sys.modules['openai'] = None; from pathlib import Path\n"
        "from sam3i_edge.data.language_model.model import *\n"
        f"LanguageModel(ModelSettings(url='http://localhost/v1', model='m'), Path({str(tmp_path / 'c')!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "a language model needs openai: pip install" in done.stderr
    assert os.listdir(tmp_path) == []
    assert LanguageModel
