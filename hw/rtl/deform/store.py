"""STORE of the inference core: it reads the feature memory."""

from __future__ import annotations

from hw.rtl.common import store
from hw.rtl.common.store import PREFETCH_MARGIN, StoreSpace
from hw.spec.deform import DeformArch
from hw.spec.deform.latency import MEMORY_READ

PREFETCH = MEMORY_READ + PREFETCH_MARGIN
"""Words between feature memory and master."""


def spaces(arch: DeformArch) -> tuple[StoreSpace, ...]:
    return (StoreSpace(number=0, port="feature", words=arch.feature_words),)


class StoreEngine(store.StoreEngine):
    """Port ``feature``."""

    def __init__(self, arch: DeformArch) -> None:
        super().__init__(arch, spaces(arch), latency=MEMORY_READ)
