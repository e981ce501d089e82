"""The training core: GEMM array, vector and channel units, on-chip memories."""
