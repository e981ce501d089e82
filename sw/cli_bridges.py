"""Commands to other tools and back: ONNX, HLS, hls4ml (docs/bridges.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from sw.flow.terminal import console, reported

bridges = typer.Typer(rich_markup_mode=None)

PartOption = Annotated[str | None, typer.Option(help="The device, with package and speed grade; else the Ultra96-V2's.")]
PeriodOption = Annotated[float, typer.Option(help="Clock period in ns.")]
TopOption = Annotated[str, typer.Option(help="Name of the top function.")]
ProjectOption = Annotated[
    Path,
    typer.Option("-o", "--output", help="A folder: new, empty, or an earlier result, in which nothing was changed or added."),
]
OverwriteOption = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace an earlier result also where its files were changed; added files stay, other folders are refused.",
    ),
]
BenchOption = Annotated[Path | None, typer.Option(help="Codes that the test bench runs, .npy or .npz; else random ones.")]

Result = dict[str, Any]


@bridges.command("onnx")
@reported
def onnx_(
    graph: Annotated[Path, typer.Argument(help="The integer graph's file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The ONNX model's file.")],
    form: Annotated[str, typer.Option(help="qonnx: Quant nodes; qcdq: plain ONNX, for ONNX Runtime.")] = "qonnx",
) -> Result:
    """Write a graph as an ONNX model that computes the same numbers; what the form does not express is refused (docs/bridges.md)."""
    from sw.flow.bridges import export_onnx

    result = export_onnx(graph, output, form)
    console.print(f"{escape(str(output))}: {result['layers']} layers, {result['bytes']:,} bytes", highlight=False, soft_wrap=True)
    return result


@bridges.command("import")
@reported
def import_(
    model: Annotated[Path, typer.Argument(help="A QONNX model's file (Quant nodes), of Brevitas or another tool.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The integer graph's file.")],
    nearest: Annotated[bool, typer.Option(help="Take the closest multiplier where a scale has no exact one.")] = False,
) -> Result:
    """Read a QONNX model as an integer graph; every node that no integer operation equals is listed (docs/bridges.md)."""
    from sw.flow.bridges import import_onnx

    result = import_onnx(model, output, nearest=nearest)
    words = "exact" if result["exact"] else f"not exact in {len(result['differences'])} places"
    console.print(f"{escape(str(output))}: {result['layers']} layers, {words}", highlight=False, soft_wrap=True)
    return result


@bridges.command()
@reported
def hls(
    graph: Annotated[Path, typer.Argument(help="The integer graph's file.")],
    output: ProjectOption,
    name: TopOption = "network",
    inputs: BenchOption = None,
    part: PartOption = None,
    period: PeriodOption = 5.0,
    parallel: Annotated[
        int, typer.Option(help="Products at once, of a layer; at most those of the largest sum, or 16.", min=1)
    ] = 16,
    overwrite: OverwriteOption = False,
) -> Result:
    """Write a graph as HLS C++ with ap_fixed types, a test bench and a Makefile (docs/bridges.md)."""
    from sw.flow.bridges_hls import export_hls

    result = export_hls(
        graph, output, name=name, inputs=inputs, part=part, period=period, parallel=parallel, overwrite=overwrite
    )
    console.print(
        f"{escape(str(output))}: {len(result['files'])} files, for {result['part']} at {period:g} ns", highlight=False, soft_wrap=True
    )
    return result


@bridges.command("hls4ml")
@reported
def hls4ml_(
    graph: Annotated[Path, typer.Argument(help="The integer graph's file.")],
    output: ProjectOption,
    name: TopOption = "network",
    inputs: BenchOption = None,
    part: PartOption = None,
    period: PeriodOption = 5.0,
    reuse: Annotated[int, typer.Option(help="hls4ml's reuse factor; at most the weights of the largest layer.", min=1)] = 1,
    overwrite: OverwriteOption = False,
) -> Result:
    """Make hls4ml's project of a graph, equal in every code; it needs hls4ml (docs/bridges.md)."""
    from sw.flow.bridges_hls4ml import export_hls4ml

    result = export_hls4ml(graph, output, name=name, inputs=inputs, part=part, period=period, reuse=reuse, overwrite=overwrite)
    console.print(
        f"{escape(str(output))}: a project of hls4ml {result['hls4ml']} for {result['part']} at {period:g} ns",
        highlight=False,
        soft_wrap=True,
    )
    return result
