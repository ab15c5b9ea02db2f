"""The report that `aurel relations` writes."""
