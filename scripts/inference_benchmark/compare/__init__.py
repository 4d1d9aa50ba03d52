"""Two sets of results, cell by cell: ratios, and which differences are more than noise."""
