"""Reaching a device: push files, run a command, fetch its results, clean up; this machine, or another over SSH."""
