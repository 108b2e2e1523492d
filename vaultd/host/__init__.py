"""The operating system: peers, processes, hardening, sockets."""
