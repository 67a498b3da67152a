"""What tests of several packages share: clocks, ports, real programs, real servers."""
