"""Mask-conditioned fundus photographs by flow matching."""
