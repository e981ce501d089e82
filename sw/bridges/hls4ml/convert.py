"""hls4ml's own model of the layers: built by its list of layers, converted by its passes, and read back."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from sw.bridges.errors import BridgeError
from sw.bridges.hls4ml.formats import ApFixed
from sw.bridges.hls4ml.lower import HlsNetwork

__all__ = ["BACKEND", "INSTALL", "convert", "library", "quiet", "settled", "version"]

BACKEND = "Vitis"
INSTALL = "pip install 'bitloom[hls4ml]'"


def library() -> Any:
    """The hls4ml package, imported now; BridgeError in words where it is not installed."""
    try:
        import hls4ml
    except ImportError as error:
        raise BridgeError(f"hls4ml makes the project, and it cannot be imported ({error}): {INSTALL}") from error
    return hls4ml


def version() -> str:
    return metadata.version("hls4ml")


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """What hls4ml prints, kept."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        yield said


def convert(network: HlsNetwork, *, name: str, folder: str, part: str, period: float, reuse: int) -> Any:
    """hls4ml's ModelGraph of a network, ready to be written to ``folder``.

    BridgeError where hls4ml's passes have left out a layer or given something another type than it was told: another version
    may have other passes, and what is not as asked for is not exact.
    """
    hls4ml = library()
    from hls4ml.model.graph import ModelGraph

    config = hls4ml.utils.config.create_config(
        output_dir=folder, project_name=name, backend=BACKEND, part=part, clock_period=period, io_type="io_parallel"
    )
    config["HLSConfig"] = {
        "Model": {"Precision": {"default": "ap_fixed<16,6>"}, "ReuseFactor": reuse, "Strategy": "Latency"},
        "LayerName": {layer.name: {"Precision": {what: str(kind) for what, kind in layer.types.items()}, "Trace": False}
                      for layer in network.layers},
    }  # fmt: skip
    listed = [{**layer.attributes, "class_name": layer.kind, "name": layer.name, "inputs": list(layer.inputs), "outputs": [layer.name]}
              for layer in network.layers]
    with quiet():
        model = ModelGraph.from_layer_list(config, listed, [p.layer for p in network.inputs], [p.layer for p in network.outputs])
    if differences := list(_differences(network, model)):
        raise BridgeError(f"hls4ml {version()} changes what it was told, so that numbers would differ ({'; '.join(differences)}): "
                          f"use the version that this was tested with, {INSTALL}")
    return model


def settled(config: Mapping[str, Any], **changes: Any) -> str:
    """The text of hls4ml's configuration file, with entries changed. hls4ml sorts ports by name there, where a linked project takes
    their order from: with two-digit numbers in names it is another one. Here they keep it."""
    import yaml

    return str(yaml.safe_dump({**config, **changes}, sort_keys=False))


def _differences(network: HlsNetwork, model: Any) -> Iterator[str]:
    """Layers and types of hls4ml's model that are not those of the network."""
    wanted = {layer.name: layer for layer in network.layers}
    if list(model.graph) != list(wanted):
        yield f"layers are {list(model.graph)} and not {list(wanted)}"
    for port, found in [*zip(network.inputs, model.inputs, strict=True), *zip(network.outputs, model.outputs, strict=True)]:
        if found != port.layer:
            yield f"{found} stands for {port.layer}"
    for name in wanted.keys() & model.graph.keys():
        node = model.graph[name]
        found = {what.removesuffix("_t"): kind.precision for what, kind in node.types.items()}
        found |= {"result": node.get_output_variable().type.precision}
        found |= {what: weights.type.precision for what, weights in node.weights.items()}
        for what, kind in wanted[name].types.items():
            if what not in found or not _same(found[what], kind):
                yield f"{name} has {what} {found.get(what)} and not {kind}"


def _same(found: Any, wanted: ApFixed) -> bool:
    modes = str(found.rounding_mode), str(found.saturation_mode)
    return (found.width, found.integer, found.signed, *modes) == (
        wanted.width, wanted.integer, wanted.signed, wanted.rounding.name, wanted.overflow.name)  # fmt: skip
