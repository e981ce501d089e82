"""The frame of every command: what it prints where, progress bars, ``--json``, and errors as one line with exit code 1."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from sw.flow.files import save_json

console = Console(emoji=False)  # a place such as FILE.py:NAME: is no name of a picture
errors = Console(stderr=True, emoji=False)

Json = Annotated[Path | None, typer.Option("--json", help="Write the result as JSON.", metavar="FILE")]


def reported(function: Callable[..., dict[str, Any]]) -> Callable[..., None]:
    """A command: writes what the function returns to ``--json``; exit code 1 where it is not ok or an error was raised."""

    @functools.wraps(function)
    def command(*args: Any, json_file: Path | None = None, **kwargs: Any) -> None:
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            if not _expected(error):
                raise
            words = _words(error)
            errors.print(f"bitloom: {escape(words)}", highlight=False, soft_wrap=True)
            result = {"ok": False, "error": words}
        if json_file is not None:
            try:
                save_json(json_file, result)
            except OSError as error:
                errors.print(f"bitloom: --json {escape(_words(error))}", highlight=False, soft_wrap=True)
                raise typer.Exit(1) from error
        if not result["ok"]:
            raise typer.Exit(1)

    command.__annotations__ = {**function.__annotations__, "json_file": Json, "return": None}
    signature = _with_json(function)
    command.__signature__ = signature  # type: ignore[attr-defined]
    return command


def _with_json(function: Callable[..., dict[str, Any]]) -> Any:
    signature = inspect.signature(function, eval_str=True)
    option = inspect.Parameter("json_file", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Json)
    return signature.replace(parameters=[*signature.parameters.values(), option], return_annotation=None)


def _expected(error: Exception) -> bool:
    """Errors that tell users what to do: refusals of ours, missing files and missing extras."""
    ours = type(error).__module__.split(".")[0] in ("boards", "hw", "sw")
    return ours or isinstance(error, (ValueError, OSError, ImportError))


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def tell(words: str) -> None:
    errors.print(escape(words), highlight=False)


def warn(words: str) -> None:
    errors.print(f"[bold red]{escape(words)}[/]", highlight=False, soft_wrap=True)


@contextmanager
def progress_bars() -> Iterator[Callable[..., None]]:
    """A bar per step, on standard error."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors) as progress:
        tasks: dict[str, Any] = {}

        def advance(step: str, done: int, total: int, note: str = "") -> None:
            if step not in tasks:
                tasks[step] = progress.add_task(step, total=total)
            progress.update(tasks[step], completed=done, total=total, description=f"{step}{note}")

        yield advance
