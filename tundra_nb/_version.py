__version__ = "0.1.0"
API = 1
"""Major version of the daemon's HTTP API; client and daemon of different majors do not talk."""
