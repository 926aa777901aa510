"""Schedules for NVIDIA cards."""
