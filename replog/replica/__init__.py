"""One member's whole behaviour without clock, socket, file or thread: `replica.Replica`."""
