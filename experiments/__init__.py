"""Questions that have no published answer, each with the command that answers it."""
