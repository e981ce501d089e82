"""Integer graphs as synthesisable HLS C++ with ``ap_fixed`` types, equal in every code.

:func:`hls_files` gives the texts, :func:`save_hls` writes them as a folder that is whole or not there.
"""

from __future__ import annotations

from sw.bridges.hls.folder import hls_files, save_hls

__all__ = ["hls_files", "save_hls"]
