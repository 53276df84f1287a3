"""Test-time losses, one file per paper."""
