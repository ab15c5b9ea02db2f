"""Find faces in photographs and videos, predict their AUs, and write the results."""
