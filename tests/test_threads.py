"""Jobs are done in order on one thread, and whoever hands one over never waits."""

import queue
import sys
import threading
import time

import pytest

from divwatch.threads import BackgroundThread


def test_jobs_are_done_in_order_on_one_thread_however_slow_and_handing_over_does_not_wait():
    thread, sign, done = BackgroundThread("test"), threading.Event(), []
    thread.submit(lambda: (sign.wait(), done.append(1)))
    for i in range(2, 6):
        thread.submit(lambda i=i: done.append(i))
    assert done == []
    sign.set()
    assert thread.close(10) == []
    assert done == [1, 2, 3, 4, 5]


def test_a_job_has_a_result_or_an_error():
    thread = BackgroundThread("test")
    assert thread.submit(lambda: 1 + 1).result(10) == 2
    with pytest.raises(ZeroDivisionError):
        thread.submit(lambda: 1 / 0).result(10)
    with pytest.raises(SystemExit):
        thread.submit(lambda: sys.exit(3)).result(10)
    sign = threading.Event()
    with pytest.raises(TimeoutError):
        thread.submit(sign.wait).result(0.1)
    sign.set()
    assert thread.submit(threading.current_thread).result(10).daemon
    thread.close(10)


def test_a_failure_is_reported_once_and_stops_no_other_job():
    reports, done = [], []
    thread = BackgroundThread("test", report=lambda what, reason: reports.append((what, reason)))
    for i in range(4):
        thread.submit(lambda i=i: done.append(i) if i == 3 else 1 / 0, f"job {i}")
    thread.close(10)
    assert done == [3]
    assert reports == [("job 0", "ZeroDivisionError: division by zero")]


def test_a_backlog_is_bounded_and_so_is_the_end():
    thread, sign = BackgroundThread("test", pending=2), threading.Event()
    futures = [thread.submit(sign.wait, f"job {i}") for i in range(2)]
    for _ in range(3):
        with pytest.raises(queue.Full):
            thread.submit(sign.wait, "one too many")
    started = time.monotonic()
    assert thread.close(0.1) == ["job 0", "job 1"]
    assert time.monotonic() - started < 5
    assert thread.close(0.1) == []
    sign.set()
    assert futures[1].result(10) is True  # what was handed over is done, though nobody waits
