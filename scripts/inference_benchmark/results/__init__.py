"""What a measured cell says: one type, from the record or a table to the page."""
