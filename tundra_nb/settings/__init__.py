"""Every setting: default, unit, source; read from one TOML file and `TUNDRA_SECTION__KEY` variables.

Order of precedence, strongest first: environment, file, preset, default. Nothing is read from the working directory: a
cloned repository must not redirect a key. Keys never stand in the file, only the names of their variables. A malformed
file is a `ConfigError` that names file and line or key path; nothing starts on silent defaults.
"""

from __future__ import annotations

from tundra_nb.nearest import nearest

from .loader import Loaded, SettingLine, lines, load, read_text
from .model import (
    PRESETS,
    VENDORS,
    AnswerSettings,
    BreakerSettings,
    DaemonSettings,
    DeadlineSettings,
    GatewaySettings,
    LimitsSettings,
    LogSettings,
    NonNegativeFloat,
    NonNegativeInt,
    Port,
    PositiveFloat,
    PositiveInt,
    ProfileSettings,
    PtySettings,
    RecordSettings,
    RouterSettings,
    Settings,
    SharedLimitsSettings,
    StoreSettings,
    TierSettings,
)

__all__ = [
    "PRESETS",
    "VENDORS",
    "AnswerSettings",
    "BreakerSettings",
    "DaemonSettings",
    "DeadlineSettings",
    "GatewaySettings",
    "LimitsSettings",
    "Loaded",
    "LogSettings",
    "NonNegativeFloat",
    "NonNegativeInt",
    "Port",
    "PositiveFloat",
    "PositiveInt",
    "ProfileSettings",
    "PtySettings",
    "RecordSettings",
    "RouterSettings",
    "SettingLine",
    "Settings",
    "SharedLimitsSettings",
    "StoreSettings",
    "TierSettings",
    "lines",
    "load",
    "nearest",
    "read_text",
]
