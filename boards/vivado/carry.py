"""A plan as a folder: prepared where Vivado is not, run on another machine, brought back and checked before anything is believed."""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

from boards.board import BoardError
from boards.folder import PLAN_FILE, README_FILE
from boards.vivado.board import VivadoBoard, load_vivado_board
from boards.vivado.deliver import Admission, Prepared
from boards.vivado.plan import COMMAND, Plan, digest_of
from boards.vivado.project import CORE_FILE, project_files
from hw.spec.arch import Arch
from hw.spec.program import write_atomically
from hw.spec.records import DESIGN_FILE, DesignRecord, GateRefusal, RecordError

FORMAT = 1
_AGAIN = "prepare the folder again with 'bitloom build' and run Vivado there"

_README = """\
{title}: prepared by Bitloom, not built. This folder holds all that Vivado needs.

1. Copy this folder to a Linux machine with Vivado that knows the part {part},
   and its licence if it needs one.
2. In this folder:

    source <Vivado>/settings64.sh
    {command}

   It prints BITLOOM STEP <name> <k>/<n> as it goes, takes hours, and ends with BITLOOM DONE {bitstream}.
   Where it stops with a line BITLOOM: ..., that line says why, and there is no bitstream.
   Do not pass -log or -nolog: the script reads vivado.log.
3. Bring the folder back as it is, as binary files, so that no line ends are changed.
   At least these must be there, unchanged:
   {plan}, every file that it names, {record}and what Vivado made:

{made}

   Then, where Bitloom is:

    bitloom build --import FOLDER --out OUT{proof}

   That checks everything and writes bitstream, reports and manifest.json to OUT.

plan: {digest}
"""


class ImportRefusal(Exception):
    """A folder cannot be brought back; the message says what is wrong with it and what to do."""


def prepare(plan: Plan, out: Path, admission: Admission, *, old_copy: str = "") -> Prepared:
    """Writes the folder; plan.json, which makes it one, comes last.

    The design record lies in it then, so that bringing it back finds it; not where the user has another one there. ``old_copy`` is the
    digest of one that an earlier preparation put there.
    """
    command = " ".join(COMMAND)
    for name, text in plan.files.items():
        write_atomically(out / name, text.encode())
    copied = _copy_record(out, admission.record, old_copy)
    write_atomically(out / README_FILE, readme(plan, _proof_options(out, admission)).encode())
    data = {"format": FORMAT, **plan.entries(), **admission.to_dict(), "copied_record": copied, "command": command}
    write_atomically(out / PLAN_FILE, (json.dumps(data, indent=1) + "\n").encode())
    words = f"prepared, not built: there is no Vivado on the PATH. {out / README_FILE} says how to build it elsewhere and bring it back"
    return Prepared(folder=out, command=command, plan=data, words=words)


def _copy_record(out: Path, record: Path | None, old_copy: str) -> str:
    """Digest of the design record that now lies in the folder as a copy; "" where there is none, or the user's own lies there."""
    place = out / DESIGN_FILE
    there = _record_digest(place) if place.exists() else old_copy
    if record is None or there != old_copy:
        return ""
    write_atomically(place, record.read_bytes())
    return _record_digest(place)


def _same(record: Path, place: Path) -> bool:
    return place.is_file() and record.read_bytes() == place.read_bytes()


def _record_digest(path: Path) -> str:
    try:
        return DesignRecord.load(path).digest
    except (GateRefusal, RecordError):
        return "damaged"


def _proof_options(out: Path, admission: Admission) -> str:
    """What ``--import`` is told of the proof."""
    if admission.record is None:
        return " --without-proof"
    return "" if _same(admission.record, out / DESIGN_FILE) else f" --record {shlex.quote(str(admission.record.absolute()))}"


def readme(plan: Plan, proof: str) -> str:
    """How to run the folder and bring it back; ``proof`` are the options that ``--import`` needs."""
    return _README.format(
        title=plan.board.title, part=plan.board.part, command=" ".join(COMMAND), bitstream=plan.bitstream_file, plan=PLAN_FILE,
        made="\n".join(f"    {name}" for name in plan.made), digest=plan.digest, proof=proof,
        record="" if proof else f"{DESIGN_FILE} ",
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
