"""Integer graphs as projects of hls4ml, equal in every code.

hls4ml's model is built from its own list of layers, with a type for everything that has one, and not by way of ONNX: there, types
are inferred from scales, weights have one scale for a tensor, and average pools stay channels-first.
What the types say is what the compiled project computes, so that each is the requantise step's: the sum's binary point, rounding and
saturation are those of an ``ap_fixed`` assignment.

    from sw.bridges.hls4ml import predict, save_hls4ml, to_hls4ml

    folder = save_hls4ml(graph, "project")                           # needs hls4ml
    model = hls4ml.converters.link_existing_project(folder)
    model.compile()
    predict(to_hls4ml(graph), model, {"image": codes})               # the codes that graph(...) gives
"""

from __future__ import annotations

from sw.bridges.hls4ml.lower import HlsNetwork, to_hls4ml
from sw.bridges.hls4ml.project import save_hls4ml
from sw.bridges.hls4ml.values import predict

__all__ = ["HlsNetwork", "predict", "save_hls4ml", "to_hls4ml"]
