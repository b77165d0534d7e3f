"""tundra_nb."""
from tundra_nb._version import __version__ as __version__
