"""One progress display for every command: a moving bar on a terminal, a line now and then in a log file."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

QUIET_S = 10.0
"""In a log file: say something at least this often while work goes on."""


class ProgressView:
    """Show percent and one line of text. On standard error, so that standard output stays what the command says."""

    def __init__(self, title: str, console: Console | None = None, step: float = 10.0) -> None:
        self._console = console or Console(stderr=True)
        self._title = title
        self._step = step
        self._last_line = ""
        self._last_percent = -100.0
        self._last_time = 0.0
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> "ProgressView":
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=30),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[detail]}"),
                console=self._console,
            )
            self._task = self._bar.add_task(self._title, total=100.0, detail="")
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, percent: float, detail: str = "", activity: str | None = None) -> None:
        """Percent (0..100, never shown going back) and what is being done.

        In a log file a new `activity` is worth a line; it is the detail up to its first comma if not given.
        """
        if self._bar is not None:
            shown = max(percent, self._bar.tasks[0].completed)
            self._bar.update(self._task, completed=shown, detail=detail)
            return
        now = time.monotonic()
        word = detail.split(",")[0] if activity is None else activity
        if word != self._last_line or percent >= self._last_percent + self._step or now >= self._last_time + QUIET_S:
            self._last_line, self._last_percent, self._last_time = word, percent, now
            self._console.print(f"{self._title}: {percent:3.0f} % {detail}", highlight=False, markup=False)

    def note(self, text: str) -> None:
        """A sentence above the bar, kept on the screen."""
        self._console.print(text, highlight=False, markup=False)


class ByteView:
    """The same for bytes: `view(count)` after each piece."""

    def __init__(self, title: str, total: int, console: Console | None = None) -> None:
        self._view = ProgressView(title, console, step=100.0)
        self._total = max(total, 1)
        self._done = 0

    def __enter__(self) -> "ByteView":
        self._view.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._view.__exit__(kind, error, at)

    def __call__(self, count: int) -> None:
        """`count` more bytes are done; negative when a transfer starts again."""
        self._done = max(self._done + count, 0)
        share = min(self._done / self._total, 1.0)
        said = f"{min(self._done, self._total) / 1e6:.1f} of {self._total / 1e6:.1f} MB"
        self._view.update(100.0 * share, said, activity="all" if share == 1 else "")
