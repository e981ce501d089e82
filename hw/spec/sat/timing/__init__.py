"""How long each instruction of the training core takes, from ``start`` to ``done``, exactly."""
