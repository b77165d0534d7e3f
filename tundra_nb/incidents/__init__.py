"""Incidents: notebooks that are still true next year.

`story` computes from the rows what happened, `notebook` writes and runs the notebook that tells it, `verify` runs one
again in a clean kernel and compares cell by cell. It is a room of its own because it brings Jupyter's notebook
libraries along; it uses the client as anybody does, and imports neither runtime nor daemon.
"""
