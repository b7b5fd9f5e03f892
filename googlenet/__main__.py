"""Command ``python -m googlenet``: prints Table 1 as computed, next to the paper's printed figures."""

from googlenet.network.complexity import format_table

if __name__ == "__main__":
    print("\n".join(format_table()))
