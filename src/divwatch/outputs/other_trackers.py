"""Completions and alerts in trackers other than W&B: TensorBoard, MLflow and trackio, where they can hold them.

Scalars reach every tracker of `report_to` (`tracking.log_to_trainer`). Here are the table of completions, which TensorBoard
shows as text, MLflow as an artifact and trackio as a table, and trackio's alerts, which it forwards to Slack or Discord
(`TRACKIO_WEBHOOK_URL`). They are sent on a thread of their own, so a tracker that hangs never blocks training.
"""

from __future__ import annotations

import contextvars
import queue
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from divwatch.outputs.names import TABLE
from divwatch.outputs.terminal import say
from divwatch.outputs.text import inert, shortened
from divwatch.outputs.tracking import TABLE_COLUMNS
from divwatch.threads import BackgroundThread

Rows = Sequence[Sequence[Any]]
Send = Callable[[Any, int, Rows], None]
PENDING = 64
CELL = 2000  # characters of a text in a table


class OtherTrackers:
    """Sends to the trackers of one trainer. No method blocks, except `close`; a failure is logged once."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self._thread = BackgroundThread("divwatch trackers", PENDING, self._report_failure)

    def table(self, step: int, read_rows: Callable[[], Rows]) -> None:
        """The completions of a look, read when they are sent."""
        for callback in self.trainer.callback_handler.callbacks:
            if send := _TABLES.get(type(callback).__name__):
                self._do(f"table of the look at step {step}", partial(_send, send, callback, step, read_rows))

    def alert(self, title: str, text: str) -> None:
        if any(type(cb).__name__ == "TrackioCallback" for cb in self.trainer.callback_handler.callbacks):
            self._do("alert", lambda: _trackio_alert(title, text))

    def close(self, limit: float) -> None:
        self._thread.close(limit)

    def _do(self, what: str, job: Callable[[], None]) -> None:
        # trackio finds its run in the context of the thread that opened it.
        context = contextvars.copy_context()
        try:
            self._thread.submit(lambda: context.run(job), what)
        except queue.Full:
            self._report_failure(what, "too many are waiting")

    def _report_failure(self, what: str, reason: str) -> None:
        say(f"divwatch: a tracker rejected the {what}: {reason}. Further identical errors are hidden")


def _send(send: Send, callback: Any, step: int, read_rows: Callable[[], Rows]) -> None:
    send(callback, step, read_rows())


def _tensorboard(callback: Any, step: int, rows: Rows) -> None:
    if callback.tb_writer is None:
        return
    lines: list[list[str]] = [[str(name) for name in TABLE_COLUMNS], ["---"] * len(TABLE_COLUMNS)]
    lines += [[_cell(value) for value in row] for row in rows]
    callback.tb_writer.add_text(TABLE, "\n".join(f"| {' | '.join(line)} |" for line in lines), step)


def _cell(value: Any) -> str:
    """A cell of a Markdown table: markup and line ends stay visible."""
    text = inert(shortened(str(value), CELL)[0])
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;").replace("\n", "<br>")


def _mlflow(callback: Any, step: int, rows: Rows) -> None:
    columns = [list(column) for column in zip(*rows, strict=True)]
    table = dict(zip(map(str, TABLE_COLUMNS), columns, strict=True))
    callback._ml_flow.log_table(table, artifact_file=f"{TABLE}/step-{step:08d}.json")


def _trackio(callback: Any, step: int, rows: Rows) -> None:
    import pandas as pd
    import trackio

    frame = pd.DataFrame([[shortened(str(value), CELL)[0] for value in row] for row in rows], columns=TABLE_COLUMNS)
    trackio.log({TABLE: trackio.Table(dataframe=frame), "train/global_step": step})


def _trackio_alert(title: str, text: str) -> None:
    import trackio

    trackio.alert(title=title, text=text, level=trackio.AlertLevel.WARN)


# By the names of transformers' callbacks.
_TABLES: dict[str, Send] = {
    "TensorBoardCallback": _tensorboard,
    "MLflowCallback": _mlflow,
    "TrackioCallback": _trackio,
}
