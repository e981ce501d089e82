"""Detection by centres of objects: CenterNet's targets, losses, decoding, training and evaluation.

The method is that of "Objects as Points" (arXiv 1904.07850).
"""
