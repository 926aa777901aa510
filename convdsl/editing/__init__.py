"""What an editor asks of a text while it is written: positions to things, without a protocol."""
