"""The candidate of an update: what it is called, and which version it has become."""

from common import export_folder, files


def name_of(update_id: str) -> str:
    return f"{export_folder.CANDIDATE}{update_id}"


def aside_of(update_id: str) -> str:
    """Returns the name of a candidate that is set aside."""
    return f"{export_folder.REFUSED}{update_id}"


def version_of(export_dir: str, update_id: str, *, served: str | None) -> str | None:
    """Returns the version that an update's candidate was released as, None if it was not.

    Versions that are withdrawn count.

    Args:
        export_dir: where the versions lie.
        update_id: of the update.
        served: the version that was the newest when it began, where the search ends.
    """
    for name in reversed(export_folder.numbered(export_dir)):
        made_by = export_folder.info_values(files.join(export_dir, name)).get("update", {})
        if made_by.get("id") == update_id:
            return name
        if name == served:
            break
    return None
