"""CPU schedules: channel-blocked layouts, register tiles, vectors across channels."""
