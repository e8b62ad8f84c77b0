"""Multi-Paxos, the second agreement: it will live here, in the shape of `raftlog`, file by file."""
