"""What a node keeps on disk: the interface, its LMDB and memory forms, and offline verification."""
