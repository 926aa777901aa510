"""Running compiled code on this machine: threads, mapped code, what the processor must have."""
