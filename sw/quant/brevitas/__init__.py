"""Models quantised with Brevitas, read into integer graphs. Nothing outside this package knows Brevitas.

A model is traced in evaluation mode. Convolutions, linear layers and average pools become accumulators, whose quantiser
(`QuantReLU`, `QuantIdentity` or an output quantiser) becomes the requantise step; a BatchNorm between them goes into its
multiplier. Scales that are powers of two are exact. Any other scale is a 16-bit multiplier and a shift; over every value
that the accumulator can take it is compared with Brevitas' own rounding (`sw.quant.multiplier`), and what differs is told.
What has no integer counterpart is refused, all of it at once, each with its place.

In the order of their imports: `report` (what comes out), `facts` (what the modules of Brevitas say), `values` (what stands
behind a traced value), `writer` (the graph and its proofs), `layers` (what a layer makes of its inputs), `importer` (the walk).
"""

from sw.quant.brevitas.importer import examine_brevitas, import_brevitas
from sw.quant.brevitas.report import BrevitasImport, ImportedScaleWarning, UnsupportedBrevitasError

__all__ = ["BrevitasImport", "Difference", "ImportedScaleWarning", "UnsupportedBrevitasError", "examine_brevitas",
           "import_brevitas"]
