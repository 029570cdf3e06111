"""Everything that crosses a process boundary: calls, messages, the connection file."""
