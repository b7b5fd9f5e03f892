"""Names that operating systems and tools leave in folders: hidden ones, and some known ones."""

LITTER_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "icon\\x0d"}
# Behind the name of a file from the web, if it is copied from Windows to where a name may have a colon.
ZONE_MARK = ":Zone.Identifier"
# Thumbnails and bins of network drives, bins of Windows, what a Mac adds to an archive, the top of a Linux disk, and
# MLflow's folders, which lie beside run directories and have pictures of reports.
LITTER_FOLDERS = {
    *("@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot"),
    *("$recycle.bin", "recycler", "system volume information", "network trash folder", "temporary items"),
    *("__macosx", "__pycache__", "lost+found", "mlruns", "mlartifacts"),
}


def litter_in(name: str) -> str:
    """Return the part of a name up to its first hidden or left-behind file or folder, the latter with a slash."""
    *folders, file = name.split("/")
    for depth, folder in enumerate(folders, start=1):
        if folder.startswith(".") or folder.lower() in LITTER_FOLDERS:
            return "/".join([*folders[:depth], ""])
    is_litter = file.startswith(".") or file.lower() in LITTER_FILES or file.lower().endswith(ZONE_MARK.lower())
    return name if is_litter else ""
