"""The static site that shows what the benchmarks measured: speedups over eager, commit by commit.

`summary` turns measured rows into speedups and totals, `history` puts commits into order,
`figures` draws them, `pages` writes HTML, `build` is the command. Nothing here measures anything.
"""
