"""Aligned chips of the faces in pictures and videos, made once for training."""
