"""What to measure: the configuration, the cells and studies it describes, and the files that follow from them."""
