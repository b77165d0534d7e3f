"""Settings with where they came from, the data directory, the disk it is on."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from tundra_nb import paths, settings
from tundra_nb.environment import account
from tundra_nb.errors import ConfigError

from .check import Check, Finding
from .place import Subject

NETWORK_FILESYSTEMS = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "gluster", "lustre", "sshfs", "fuse.sshfs", "ncpfs")
LOCK_OPTIONS = ("nolock", "local_lock", "nobrl", "lock")
"""Mount options that say whose the locks are."""
CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv")
SHOWN = 8


def file(place: Subject, check: Check) -> Sequence[Finding]:
    if isinstance(place.config, ConfigError):
        return [check.found("fail", place.config.message, place.config.hint, page="ConfigError")]
    if not place.config_file.exists():
        return [check.found("ok", f"{place.config_file} is not there: defaults, and what the environment says")]
    if place.config_file.stat().st_mode & 0o022:
        remedy = f"`chmod go-w {place.config_file}`: whoever writes it could send keys elsewhere."
        return [check.found("warn", f"{place.config_file} may be changed by others", remedy, page="permission-denied")]
    return [check.found("ok", str(place.config_file))]


def in_force(place: Subject, check: Check) -> Sequence[Finding]:
    """What is not at its default, with where it came from; and whether the daemon works with the same."""
    if isinstance(place.config, ConfigError):
        return [check.found("skipped", "the settings cannot be read")]
    changed = [line for line in settings.lines(place.config) if line.source != "default"]
    told = [f"{line.path} = {line.value} ({os.path.basename(line.source)})" for line in changed]
    more = f" and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    status = place.status
    if status is not None and status.get("config_file") not in (None, str(place.config_file)):
        evidence = f"the daemon reads {status['config_file']}, this process {place.config_file}"
        remedy = "Set `TUNDRA_CONFIG` alike in both environments, then `tundra daemon restart`."
        return [check.found("warn", evidence, remedy, page="ConfigError")]
    return [check.found("ok", ("; ".join(told[:SHOWN]) + more) or "all at their defaults")]


def directory(place: Subject, check: Check) -> Sequence[Finding]:
    """Whether the data directory, or the nearest folder above it, may be written."""
    folder = place.paths.data_dir
    nearest = next((above for above in (folder, *folder.parents) if above.exists()), Path("/"))
    choose = "or choose another one with `TUNDRA_DATA_DIR`; then `tundra daemon start`."
    if not nearest.is_dir():
        evidence = f"{nearest} is a file, not a directory"
        return [check.found("fail", evidence, f"`mv {nearest} {nearest}.aside`, {choose}", page="permission-denied")]
    owner = nearest.stat().st_uid
    try:
        handle, probe = tempfile.mkstemp(prefix=".probe-", dir=nearest)
        os.close(handle)
        os.unlink(probe)
    except OSError as exc:
        mode = stat.S_IMODE(nearest.stat().st_mode)
        evidence = (
            f"{nearest} cannot be written: {exc.strerror or exc} (uid {owner}, mode {mode:o}, you are {os.geteuid()})"
        )
        if exc.errno == 28:
            return [
                check.found("fail", evidence, "`tundra clean --yes`, or free space on that disk.", page="disk-full")
            ]
        if exc.errno == 30:
            remedy = f"Mount its disk for writing (`mount -o remount,rw …`), {choose}"
            return [check.found("fail", evidence, remedy, page="permission-denied")]
        remedy = f"`chmod u+rwx {nearest}`" if owner == os.geteuid() else f"`chown -R $USER {nearest}`"
        return [check.found("fail", evidence, f"{remedy}, {choose}", page="permission-denied", fix="private")]
    if folder.exists() and stat.S_IMODE(folder.stat().st_mode) & 0o077 and owner == os.geteuid():
        evidence = f"{folder} may be read by others (mode {stat.S_IMODE(folder.stat().st_mode):o})"
        return [check.found("warn", evidence, f"`chmod 700 {folder}`", page="permission-denied", fix="private")]
    paths.refuse_pipes(place.paths)
    return [check.found("ok", str(folder))]


def filesystem(place: Subject, check: Check) -> Sequence[Finding]:
    """Where the history lies. On a network disk two machines can both get the lock that lets one of them write."""
    folder = place.paths.data_dir.resolve()
    mount, kind, options = "", "", ""
    for part in psutil.disk_partitions(all=True):
        inside = str(folder) == part.mountpoint or str(folder).startswith(part.mountpoint.rstrip("/") + "/")
        if inside and len(part.mountpoint) >= len(mount):
            mount, kind, options = part.mountpoint, part.fstype, part.opts
    told = f"{kind or 'unknown'} at {mount or '/'}"
    if kind.lower().startswith(NETWORK_FILESYSTEMS):
        locks = [one for one in options.split(",") if one.startswith(LOCK_OPTIONS)]
        evidence = f"{folder} is on {kind} ({mount}), a network filesystem: locks and renames are not safe there"
        if locks:
            evidence += f" (mounted with {', '.join(locks)})"
        remedy = "Choose a local disk with `TUNDRA_DATA_DIR`, then `tundra daemon restart`."
        return [check.found("fail", evidence, remedy, page="StoreBusy")]
    if kind in ("overlay", "tmpfs", "ramfs") and (where := container(place.environ)):
        evidence = f"{folder} is on {told}: it is gone with {where}, and with it the history"
        if not (place.environ.get("JUPYTERHUB_USER") or where == "the pod"):
            return [check.found("ok", evidence)]  # a container that somebody tries it in
        remedy = "Mount a volume there, or name one with `TUNDRA_DATA_DIR`: `tundra guide containers`."
        return [check.found("warn", evidence, remedy, page="permission-denied")]
    return [check.found("ok", told)]


def container(environ: Mapping[str, str]) -> str:
    """What kind of container this is; empty where it is none."""
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return "the pod"
    if environ.get("container") or any(os.path.exists(mark) for mark in CONTAINER_MARKS):
        return "the container"
    return ""


def surroundings(place: Subject, check: Check) -> Sequence[Finding]:
    """JupyterHub and containers: whose calls these are, and what is not as on a machine of one's own."""
    hub, where = place.environ.get("JUPYTERHUB_USER"), container(place.environ)
    told = [f"JupyterHub, user {hub}"] if hub else []
    told += [f"in {where.removeprefix('the ')} {os.uname().nodename}"] if where else []
    if (name := account({})).startswith("uid-"):
        told.append(f"the account has no name: {name}")
    runtime = place.environ.get("XDG_RUNTIME_DIR")
    if not runtime:
        told.append(f"no XDG_RUNTIME_DIR: the socket is in {os.path.dirname(place.paths.socket)}")
    home = os.path.expanduser("~")
    if not os.access(home, os.W_OK):
        told.append(f"the home {home} cannot be written")
        if str(place.paths.data_dir).startswith(home + os.sep):
            remedy = "Name a folder that can be written with `TUNDRA_DATA_DIR`: `tundra guide containers`."
            return [check.found("fail", "; ".join(told), remedy, page="permission-denied")]
    if hub and place.environ.get("TUNDRA_DATA_DIR") is None:
        remedy = "Let the hub name it for each user (`c.Spawner.environment`): `tundra guide teams`."
        evidence = "; ".join([*told, f"TUNDRA_DATA_DIR is not set: the history is in {place.paths.data_dir}"])
        return [check.found("warn", evidence, remedy, page="permission-denied")]
    return [check.found("ok", "; ".join(told) or "a machine of its own")]


CHECKS = (
    Check(id="settings.file", group="configuration", title="settings file", look=file),
    Check(id="settings.in_force", group="configuration", title="settings in force", look=in_force),
    Check(
        id="data.directory",
        group="configuration",
        title="data directory",
        look=directory,
        also=("database", "processes"),
    ),
    Check(id="data.filesystem", group="database", title="filesystem", look=filesystem, also=("performance",)),
    Check(id="surroundings", group="configuration", title="hub, container", look=surroundings, also=("processes",)),
)
