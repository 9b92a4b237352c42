"""Whether a reviewer has the plugin that an edit says it was made by."""

from __future__ import annotations

import hubedit
from hubedit.claims import Claims
from hubedit.manifest import PluginRecord
from hubedit.origins import files_sha256
from hubedit.plugins import load_plugins


def check_plugin(made_by: PluginRecord) -> Claims:
    """Compare the plugin of an edit with the one of that name that is installed here."""
    found = Claims()
    said = f"{made_by.distribution} {made_by.version}"
    here = installed(made_by)
    if here is None:
        found.unread.append(f"the plugin: {said} made this edit and is not installed here")
    elif here.version != made_by.version:
        found.unread.append(
            f"the plugin: {said} made this edit, and {here.version} is installed here"
        )
    elif here.sha256 != made_by.sha256:
        found.differences.append(
            f"the files of {said} that made this edit ({made_by.sha256[:12]}) are others than "
            f"those of {said} that is installed here ({here.sha256[:12]})"
        )
    else:
        found.held.append(f"made by {said}, file by file the one that is installed here")
    return found


def installed(made_by: PluginRecord) -> PluginRecord | None:
    """The plugin of that name and distribution that is installed here, if there is one."""
    if made_by.name == made_by.distribution == "hubedit":
        digest = files_sha256(hubedit)
        return made_by.model_copy(update={"version": hubedit.__version__, "sha256": digest})
    for info in load_plugins().infos:
        if (info.name, info.distribution) == (made_by.name, made_by.distribution) and info.module:
            return info.record()
    return None
