"""LOAD of the inference core: its on-chip memories, of which one has nine banks and one takes a word in parts."""

from __future__ import annotations

from hw.rtl.common import load
from hw.rtl.common.load import LoadSpace
from hw.rtl.deform.memories import RowWritePort
from hw.rtl.deform.ports import TableWritePort
from hw.spec.deform import ROW_BANKS, DeformArch
from hw.spec.deform.instructions import SPACES
from hw.spec.deform.latency import TABLE_PARTS


def spaces(arch: DeformArch) -> tuple[LoadSpace, ...]:
    """In the order of LOAD's ``space``."""
    units = arch.space_units()
    found = {
        "fm": LoadSpace(port="feature", words=units["fm"]),
        "row": LoadSpace(port="row", words=arch.row_words, signature=RowWritePort, banks=ROW_BANKS),
        "wgt": LoadSpace(port="weight", words=units["wgt"]),
        "par": LoadSpace(port="parameter", words=units["par"]),
        "tbl": LoadSpace(port="table", words=units["tbl"], signature=TableWritePort, parts=TABLE_PARTS),
    }
    return tuple(found[name] for name in SPACES)


class LoadEngine(load.LoadEngine):
    """Ports ``feature``, ``row``, ``weight`` (by 16-byte unit), ``parameter`` and, where the architecture has tables, ``table``."""

    def __init__(self, arch: DeformArch) -> None:
        super().__init__(arch, spaces(arch))
