"""convdsl against its peers: same weights, same machine, interleaved rounds, separate processes."""
