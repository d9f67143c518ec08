"""What the rules found in a recording of memory: what the table `findings` shows."""

from tracelens.tables import findings

TABLE = findings.TABLE
