"""Boards: what a core needs around it to run on one, and the builds. Each board is a folder of data and a wrapper."""
