"""The `aurel` command."""

from aurel.name_clash import check_owner

check_owner()
