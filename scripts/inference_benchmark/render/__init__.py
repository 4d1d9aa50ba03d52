"""What a person reads: tables, charts, the report, lines on a terminal."""
