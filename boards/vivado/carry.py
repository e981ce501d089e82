"""A plan as a folder: prepared where Vivado is not, run on another machine, brought back and checked before anything is believed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from boards.board import BoardError
from boards.vivado.board import VivadoBoard, load_vivado_board
from boards.vivado.deliver import PLAN_FILE, README_FILE, Admission, Prepared
from boards.vivado.plan import COMMAND, Plan, digest_of
from boards.vivado.project import CORE_FILE, project_files
from hw.spec.arch import Arch
from hw.spec.program import write_atomically

FORMAT = 1
_AGAIN = "prepare the folder again with 'bitloom build' and run Vivado there"

_README = """\
{title}: prepared by Bitloom, not built. This folder holds all that Vivado needs.

1. Copy this folder to a Linux machine with Vivado that knows the part {part}, and its licence if it needs one.
2. In this folder:

    source <Vivado>/settings64.sh
    {command}

   It prints BITLOOM STEP <name> <k>/<n> as it goes, takes hours, and ends with BITLOOM DONE {bitstream}.
   Where it stops with a line BITLOOM: ..., that line says why, and there is no bitstream.
   Do not pass -log or -nolog: the script reads vivado.log.
3. Bring the folder back as it is. At least {made} and every file named in {plan} must be there, unchanged
   (copy them as binary files, so that no line ends are changed). Then, where Bitloom is:

    bitloom build --import FOLDER --out OUT{proof}

   That checks everything and writes bitstream, reports and manifest.json to OUT.

plan: {digest}
"""


class ImportRefusal(Exception):
    """A folder cannot be brought back; the message says what is wrong with it and what to do."""


def prepare(plan: Plan, out: Path, admission: Admission) -> Prepared:
    """Writes the folder; plan.json, which makes it one, comes last."""
    command = " ".join(COMMAND)
    for name, text in plan.files.items():
        write_atomically(out / name, text.encode())
    write_atomically(out / README_FILE, readme(plan, proven=bool(admission.build_id)).encode())
    data = {"format": FORMAT, **plan.entries(), **admission.to_dict(), "command": command}
    write_atomically(out / PLAN_FILE, (json.dumps(data, indent=1) + "\n").encode())
    words = f"prepared, not built: there is no Vivado on the PATH. {out / README_FILE} says how to build it elsewhere and bring it back"
    return Prepared(folder=out, command=command, plan=data, words=words)


def readme(plan: Plan, *, proven: bool) -> str:
    """How to run the folder and bring it back."""
    return _README.format(
        title=plan.board.title, part=plan.board.part, command=" ".join(COMMAND), bitstream=plan.bitstream_file,
        made=", ".join(plan.made), plan=PLAN_FILE, digest=plan.digest,
        proof="      (with --record FILE where the design record is not in FOLDER)" if proven else " --without-proof",
    )  # fmt: skip


def read_folder(folder: Path) -> Plan:
    """The plan of a folder that was prepared, all of its texts unchanged. ImportRefusal where it is another, damaged or incomplete."""
    data = _plan_data(folder)
    try:
        board, arch = load_vivado_board(data["board"]), Arch.from_dict(data["arch"])
        build_id, listed = int(data["build_id"], 16), dict(data["files"])
        told = (data["part"], data["arch_id"], data["plan_sha256"])
    except (KeyError, TypeError, ValueError, BoardError) as error:
        raise ImportRefusal(f"{folder / PLAN_FILE} is damaged, or of another version of Bitloom ({error}): {_AGAIN}") from error
    if told != (board.part, f"{arch.arch_id:016x}", digest_of(listed)):
        raise ImportRefusal(f"{folder / PLAN_FILE} was changed, or is of another version of Bitloom: {_AGAIN}")
    plan = Plan(board=board, arch=arch, build_id=build_id, files=_unchanged(folder, listed, board, arch, build_id))
    _check_current(folder, plan)
    return plan


def _plan_data(folder: Path) -> dict[str, Any]:
    path = folder / PLAN_FILE
    if not path.is_file():
        raise ImportRefusal(f"{folder} has no {PLAN_FILE}: it must be a folder that 'bitloom build' prepared, and whole")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        found = data["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise ImportRefusal(f"{path} is damaged ({error}): {_AGAIN}") from error
    if found != FORMAT:
        raise ImportRefusal(
            f"{path} has format {found!r}, and this version of Bitloom reads {FORMAT}: use the one that prepared it"
        )
    return dict(data)


def _unchanged(folder: Path, listed: dict[str, str], board: VivadoBoard, arch: Arch, build_id: int) -> dict[str, str]:
    """The texts by name; only names that a plan of this board has are ever opened."""
    known = {CORE_FILE, *_texts(folder, board, arch, build_id)}
    if set(listed) != known:
        odd = sorted(set(listed) ^ known)
        raise ImportRefusal(
            f"{folder} was prepared by another version of Bitloom, whose files differ in {', '.join(odd)}: {_AGAIN}"
        )
    missing = [name for name in sorted(listed) if not (folder / name).is_file()]
    contents = {name: (folder / name).read_bytes() for name in listed if name not in missing}
    changed = sorted(name for name, content in contents.items() if hashlib.sha256(content).hexdigest() != listed[name])
    if missing or changed:
        words = [f"{', '.join(names)} {what}" for names, what in ((changed, "changed"), (missing, "missing")) if names]
        raise ImportRefusal(
            f"{folder} is not as it was prepared: {'; '.join(words)}. What was built is not what was planned: {_AGAIN}"
        )
    try:
        return {name: content.decode() for name, content in contents.items()}
    except UnicodeDecodeError as error:
        raise ImportRefusal(f"{folder} holds a file that is no text ({error}): {_AGAIN}") from error


def _texts(folder: Path, board: VivadoBoard, arch: Arch, build_id: int) -> dict[str, str]:
    try:
        return project_files(board, arch, build_id=build_id)
    except ValueError as error:
        raise ImportRefusal(
            f"{folder / PLAN_FILE} is of a design that this version of Bitloom does not build: {error}"
        ) from error


def _check_current(folder: Path, plan: Plan) -> None:
    """ImportRefusal where this version would write other scripts: then nothing here says that they check what it checks."""
    now = _texts(folder, plan.board, plan.arch, plan.build_id)
    if other := sorted(name for name, text in now.items() if plan.files[name] != text):
        raise ImportRefusal(f"{folder} was prepared by another version of Bitloom, whose {', '.join(other)} differ: {_AGAIN}")
